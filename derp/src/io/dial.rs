//! From a URL to a stream of bytes: TCP, by a proxy if need be, and TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::proxy::Proxy;
use super::{step, upgrade};
use crate::Error;

/// How long one address of the relay may take. When a relay is replaced behind
/// an address that stays (a container behind a service), an attempt may have
/// been sent after the old one, and all its repetitions go the same way; only
/// a new attempt finds the new relay.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(3);

/// Bytes both ways.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection, with TLS or without.
pub(super) type Io = Box<dyn Stream>;

/// Connects to the server at an address. Each step may take ten seconds, one
/// address of its name three.
pub(super) async fn dial(
    address: &Address,
    tls: Option<&Arc<rustls::ClientConfig>>,
    proxy: Option<&Proxy>,
) -> Result<Io, Error> {
    let host = address.host.trim_matches(['[', ']']);
    let tcp = step("connecting to the relay", async {
        match proxy {
            Some(proxy) => proxy.connect(host, address.port).await,
            None => Ok(tcp(host, address.port).await?),
        }
    })
    .await?;
    if !address.tls {
        return Ok(Box::new(tcp));
    }
    let tls = tls.ok_or_else(|| Error::BadUrl("https needs a TLS configuration".into()))?;
    let name = rustls_pki_types::ServerName::try_from(host)
        .map_err(|_| Error::BadUrl(address.authority.clone()))?
        .to_owned();
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(tls));
    let stream = step("the TLS handshake", async {
        Ok(connector.connect(name, tcp).await?)
    })
    .await?;
    Ok(Box::new(stream))
}

/// Tries one address of a host after the other.
pub(super) async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((host, port)).await? {
        let attempt = timeout(ADDRESS_TIMEOUT, TcpStream::connect(address));
        match attempt.await.unwrap_or_else(|late| Err(late.into())) {
            Ok(tcp) => {
                // What we write is as large as it should be; waiting for more
                // costs up to 40 ms a packet.
                tcp.set_nodelay(true)?;
                return Ok(tcp);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A parsed URL of a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) tls: bool,
    pub(super) authority: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: String,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, Error> {
        let bad = || Error::BadUrl(url.to_owned());
        let uri: http::Uri = url.parse().map_err(|_| bad())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad()),
        };
        let authority = uri.authority().ok_or_else(bad)?;
        // A password in it would end up in the Host header and in logs.
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(bad());
        }
        let base = uri.path().trim_end_matches('/');
        Ok(Self {
            tls,
            authority: authority.to_string(),
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            path: format!("{base}{}", upgrade::PATH),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let parse = |url: &str| Address::parse(url).map(|at| (at.tls, at.host, at.port, at.path));
        let expect = |url, tls, host: &str, port, path: &str| {
            let expected = (tls, host.to_owned(), port, path.to_owned());
            assert_eq!(parse(url).unwrap(), expected, "{url}");
        };
        expect("http://relay.test", false, "relay.test", 80, "/derp");
        expect("https://relay.test/", true, "relay.test", 443, "/derp");
        expect("http://127.0.0.1:8080", false, "127.0.0.1", 8080, "/derp");
        expect("https://[::1]:8443/a/", true, "[::1]", 8443, "/a/derp");
        for bad in [
            "",
            "relay.test",
            "ftp://relay.test",
            "http://",
            "http://user:word@relay.test",
            "http://a b",
        ] {
            assert!(matches!(parse(bad), Err(Error::BadUrl(_))), "{bad:?}");
        }
    }
}
