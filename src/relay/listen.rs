//! Sockets on which the relay is found.
//!
//! "Every interface" means those of IPv6 and IPv4, and of IPv4 alone where the system has no other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket, UdpSocket};

use crate::error::{Error, Result};

/// Connections that wait to be accepted, at most (the system may allow fewer). When the relay
/// was away, all its nodes knock within a second or two, and who finds no room knocks again a
/// second later.
const BACKLOG: u32 = 4_096;

/// Listens; `what` is for the message when that is not possible.
pub(super) fn bind(what: &str, address: SocketAddr) -> Result<TcpListener> {
    let listener = match listen(address) {
        Err(error) if is_without_v6(address, &error) => listen(v4_of(address)),
        listener => listener,
    };
    listener.map_err(|error| taken(what, address, &error))
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Opens the socket of STUN.
pub(super) async fn bind_udp(address: SocketAddr) -> Result<UdpSocket> {
    let socket = match UdpSocket::bind(address).await {
        Err(error) if is_without_v6(address, &error) => UdpSocket::bind(v4_of(address)).await,
        socket => socket,
    };
    socket.map_err(|error| taken("STUN", address, &error))
}

/// "Every interface" was meant, on a system without IPv6.
fn is_without_v6(address: SocketAddr, error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    let no_v6 = matches!(errno, Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL));
    address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && no_v6
}

fn v4_of(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port())
}

fn taken(what: &str, address: SocketAddr, error: &std::io::Error) -> Error {
    Error::new(
        "config_invalid",
        format!("cannot listen for {what} on {address}: {error}"),
    )
}
