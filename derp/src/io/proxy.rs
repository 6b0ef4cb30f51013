//! Out of networks that let nobody out but an HTTP proxy: `CONNECT`.
//!
//! The proxy is asked for a tunnel to the relay's host and port, and carries
//! bytes from then on; with TLS in the tunnel it learns no more than that name.
//! Which proxy is said by the environment, as for other programs: `HTTPS_PROXY`
//! (or `ALL_PROXY`), unless `NO_PROXY` names the host. Lower case goes first.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use http::HeaderValue;
use percent_encoding::percent_decode_str;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::dial::{Address, tcp};
use super::head::read_head;
use crate::Error;

/// An HTTP proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    /// `Basic …`, if the proxy wants to know who asks.
    authorization: Option<HeaderValue>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({}:{})", self.host, self.port)
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Proxy {
    /// Reads `[http://][user:password@]host[:port]`; port 80 unless told.
    ///
    /// # Errors
    ///
    /// [`Error::BadUrl`] for anything else: proxies that speak TLS themselves,
    /// and SOCKS.
    pub fn parse(text: &str) -> Result<Self, Error> {
        // The text may have a password in it.
        let bad = || Error::BadUrl("the proxy is not http://[user:password@]host[:port]".into());
        let text = text.trim();
        let full = match text.contains("://") {
            true => text.to_owned(),
            false => format!("http://{text}"),
        };
        let uri: http::Uri = full.parse().map_err(|_| bad())?;
        let authority = uri.authority().filter(|it| !it.host().is_empty());
        let authority = authority.ok_or_else(bad)?;
        if uri.scheme_str() != Some("http") {
            return Err(bad());
        }
        let user = authority.as_str().rsplit_once('@').map(|(user, _)| user);
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authorization: user.map(basic).transpose()?,
        })
    }

    /// Which proxy leads to a URL, as `env` says, which looks a variable up.
    /// Only `https` is sent through one: whatever else is for its eyes.
    ///
    /// # Errors
    ///
    /// [`Error::BadUrl`] when the URL, or that of the proxy, is none.
    pub fn choose(url: &str, env: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, Error> {
        let address = Address::parse(url)?;
        let host = address.host.trim_matches(['[', ']']);
        if !address.tls || is_here(host) {
            return Ok(None);
        }
        let look = |name: &str| {
            let found = env(&name.to_ascii_lowercase()).or_else(|| env(name));
            found.filter(|text| !text.trim().is_empty())
        };
        let exceptions = look("NO_PROXY").unwrap_or_default();
        if exceptions
            .split(',')
            .any(|except| is_except(except.trim(), host, address.port))
        {
            return Ok(None);
        }
        let found = look("HTTPS_PROXY").or_else(|| look("ALL_PROXY"));
        found.map(|text| Self::parse(&text)).transpose()
    }

    /// As a URL without the password, for a client of another kind.
    pub fn url(&self) -> String {
        format!("http://{}", authority(&self.host, self.port))
    }

    /// The `Proxy-Authorization` header, if there is one.
    pub const fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// Opens a tunnel to a host, whose name the proxy looks up. The caller
    /// bounds the time.
    ///
    /// # Errors
    ///
    /// [`Error::Proxy`] when the proxy does not want to; else what the
    /// connection says.
    pub async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, Error> {
        let mut io = tcp(&self.host, self.port).await?;
        let target = authority(host, port);
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
        if let Some(who) = &self.authorization {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(who.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        io.write_all(&request).await?;
        let mut bytes = BytesMut::new();
        let head = read_head(&mut io, &mut bytes).await?;
        let mut words = head.line.split(' ');
        let is_http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
        let status = words.next().and_then(|word| word.parse::<u16>().ok());
        match status.filter(|_| is_http) {
            // The other end waits for our first word.
            Some(200..=299) if bytes.is_empty() => Ok(io),
            Some(407) => Err(Error::Proxy("it wants to know a user and password".into())),
            _ => Err(Error::Proxy(head.line.chars().take(200).collect())),
        }
    }
}

fn authority(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// The header for `user:password`, each percent-encoded.
fn basic(user: &str) -> Result<HeaderValue, Error> {
    let plain: Vec<u8> = percent_decode_str(user).collect();
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(plain)))
        .map_err(|_| Error::BadUrl("the proxy's password".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// No proxy leads to ourselves.
fn is_here(host: &str) -> bool {
    let ip = host.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

/// Whether an item of `NO_PROXY` names a host: `*`, a name with all below it,
/// an address, or a network of addresses; with a port only that port.
fn is_except(item: &str, host: &str, port: u16) -> bool {
    if item.is_empty() {
        return false;
    }
    let ip = host.parse::<IpAddr>().ok();
    if let (Some((net, len)), Some(ip)) = (item.split_once('/'), ip) {
        let (net, len) = (net.parse::<IpAddr>(), len.parse::<u32>());
        return matches!((net, len), (Ok(net), Ok(len)) if is_in(ip, net, len));
    }
    let (name, only) = match item.rsplit_once(':') {
        // Not the colon of an IPv6 address.
        Some((name, only)) if !name.contains(':') || name.ends_with(']') => {
            (name, only.parse::<u16>().ok())
        }
        _ => (item, None),
    };
    if only.is_some_and(|only| only != port) {
        return false;
    }
    let name = name.trim_matches(['[', ']']);
    if let Ok(net) = name.parse::<IpAddr>() {
        return Some(net) == ip;
    }
    let name = name.trim_start_matches('*').trim_start_matches('.');
    let (name, host) = (name.to_ascii_lowercase(), host.to_ascii_lowercase());
    let below = host
        .strip_suffix(&name)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    below || item == "*"
}

fn is_in(ip: IpAddr, net: IpAddr, len: u32) -> bool {
    let (ip, net, bits) = match (ip, net) {
        (IpAddr::V4(ip), IpAddr::V4(net)) => (u32::from(ip).into(), u32::from(net).into(), 32),
        (IpAddr::V6(ip), IpAddr::V6(net)) => (u128::from(ip), u128::from(net), 128),
        _ => return false,
    };
    let differ: u128 = ip ^ net;
    len <= bits && differ.checked_shr(bits - len).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(url: &str, vars: &[(&str, &str)]) -> Option<String> {
        let env = |name: &str| {
            let found = vars.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Proxy::choose(url, env).unwrap().map(|it| it.to_string())
    }

    #[test]
    fn the_environment_says_which() {
        let url = "https://relay.test";
        assert_eq!(choose(url, &[]), None);
        let https = ("HTTPS_PROXY", "http://proxy:3128/");
        let all = ("ALL_PROXY", "all");
        assert_eq!(choose(url, &[https, all]).unwrap(), "proxy:3128");
        assert_eq!(choose(url, &[all]).unwrap(), "all:80");
        let lower = ("https_proxy", "lower:1");
        assert_eq!(choose(url, &[https, lower]).unwrap(), "lower:1");
        assert_eq!(choose(url, &[("HTTPS_PROXY", " "), all]).unwrap(), "all:80");
        for near in [
            "http://relay.test",
            "https://localhost",
            "https://127.0.0.1:8443",
            "https://[::1]",
        ] {
            assert_eq!(choose(near, &[https]), None, "{near}");
        }
    }

    #[test]
    fn exceptions_are_names_addresses_and_networks() {
        for (except, url, is) in [
            ("*", "https://relay.test", true),
            ("relay.test", "https://relay.test", true),
            ("RELAY.test", "https://relay.TEST", true),
            (".test", "https://relay.test", true),
            ("*.test", "https://relay.test", true),
            ("test", "https://relay.test", true),
            ("lay.test", "https://relay.test", false),
            ("x, relay.test:443", "https://relay.test", true),
            ("relay.test:444", "https://relay.test", false),
            ("192.0.2.7", "https://192.0.2.7", true),
            ("192.0.2.0/24", "https://192.0.2.7", true),
            ("192.0.3.0/24", "https://192.0.2.7", false),
            ("0.0.0.0/0", "https://192.0.2.7", true),
            ("2001:db8::/32", "https://[2001:db8::7]", true),
            ("2001:db8::7", "https://[2001:db8::7]", true),
            ("[2001:db8::7]:443", "https://[2001:db8::7]", true),
            ("192.0.2.0/99", "https://192.0.2.7", false),
            (",,", "https://relay.test", false),
        ] {
            let vars = [("HTTPS_PROXY", "proxy"), ("NO_PROXY", except)];
            assert_eq!(choose(url, &vars).is_none(), is, "{except} {url}");
        }
    }

    #[test]
    fn a_password_is_sent_and_not_shown() {
        let proxy = Proxy::parse("http://me:p%40ss@proxy.test").unwrap();
        // "me:p@ss"
        assert_eq!(proxy.authorization().unwrap(), "Basic bWU6cEBzcw==");
        assert_eq!(
            format!("{proxy:?} {proxy}"),
            "Proxy(proxy.test:80) proxy.test:80"
        );
        for bad in ["", "https://proxy", "socks5://proxy", "http://", "a b"] {
            assert!(matches!(Proxy::parse(bad), Err(Error::BadUrl(_))), "{bad}");
        }
    }
}
