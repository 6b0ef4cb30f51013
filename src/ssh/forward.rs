//! `ssh -L` and `-D`: a way from the client to a port on this machine, if its owner allows it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use russh::Channel;
use russh::server::Msg;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

/// Where a client may be let to: this machine's loopback, and nothing beyond it.
pub(super) fn target(host: &str, port: u32) -> Option<SocketAddr> {
    let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host {
        "localhost" | "127.0.0.1" => Some((Ipv4Addr::LOCALHOST, port).into()),
        "::1" => Some((Ipv6Addr::LOCALHOST, port).into()),
        _ => None,
    }
}

/// Passes bytes both ways until either end closes.
pub(super) async fn splice(channel: Channel<Msg>, mut to: TcpStream) {
    let mut channel = channel.into_stream();
    // How it ended is of no use to anybody.
    let _ = copy_bidirectional(&mut channel, &mut to).await;
}

#[cfg(test)]
mod tests {
    use super::target;

    #[test]
    fn only_loopback_is_reached() {
        assert_eq!(target("localhost", 80).unwrap().to_string(), "127.0.0.1:80");
        assert_eq!(target("[::1]", 8080).unwrap().to_string(), "[::1]:8080");
        for (host, port) in [
            ("10.0.0.1", 80),
            ("example.com", 80),
            ("0.0.0.0", 80),
            ("127.0.0.2", 80),
            ("localhost", 0),
            ("localhost", 65_536),
            ("", 80),
        ] {
            assert_eq!(target(host, port), None, "{host}:{port}");
        }
    }
}
