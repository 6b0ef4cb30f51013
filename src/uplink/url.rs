//! The address of a relay, as users type it.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// `http(s)://host[:port]`; a path is refused, since the relay's routes start
/// at the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RelayUrl {
    /// Speak TLS.
    pub(crate) tls: bool,
    /// A name or an address, IPv6 without brackets.
    pub(crate) host: String,
    /// 80 or 443 unless told.
    pub(crate) port: u16,
}

impl RelayUrl {
    /// `host:port`, for a URL or a `Host` header.
    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The URL of a WebSocket route.
    pub(crate) fn websocket(&self, path: &str) -> String {
        let scheme = if self.tls { "wss" } else { "ws" };
        format!("{scheme}://{}{path}", self.authority())
    }
}

impl fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl FromStr for RelayUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).ok_or_else(|| {
            Error::new(
                "config_invalid",
                format!("{text:?} is not the URL of a relay"),
            )
            .hint("a relay's URL is http(s)://host[:port]")
        })
    }
}

fn parse(text: &str) -> Option<RelayUrl> {
    let uri: http::Uri = text.trim().trim_end_matches('/').parse().ok()?;
    let tls = match uri.scheme_str()? {
        "http" => false,
        "https" => true,
        _ => return None,
    };
    let authority = uri.authority()?;
    let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
    if !is_bare || authority.as_str().contains('@') {
        return None;
    }
    let host = authority.host().trim_matches(['[', ']']);
    let port = match authority.port() {
        Some(port) => port.as_str().parse().ok().filter(|port| *port != 0)?,
        // A port that is no number, or too large, also reads as none.
        None if !authority.as_str().ends_with(authority.host()) => return None,
        None if tls => 443,
        None => 80,
    };
    (!host.is_empty()).then(|| RelayUrl {
        tls,
        // Names are the same in either case.
        host: host.to_ascii_lowercase(),
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_relay() {
        for (text, shown) in [
            ("http://relay.example", "http://relay.example:80"),
            ("https://relay.example/", "https://relay.example:443"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            (" https://[::1]:8443 ", "https://[::1]:8443"),
        ] {
            let url: RelayUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
        }
        let url: RelayUrl = "https://[::1]:8443".parse().unwrap();
        assert_eq!(url.host, "::1");
        assert_eq!(url.websocket("/x"), "wss://[::1]:8443/x");
    }

    #[test]
    fn what_is_none() {
        for text in [
            "",
            "relay.example",
            "ftp://relay.example",
            "http://",
            "http://relay.example/path",
            "http://relay.example?x=1",
            "http://user:secret@relay.example",
            "http://relay.example:0",
            "http://relay.example:99999",
            "http://relay example",
        ] {
            assert!(text.parse::<RelayUrl>().is_err(), "{text:?}");
        }
    }
}
