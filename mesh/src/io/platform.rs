//! What only the operating system knows: the addresses of this machine, and that
//! they change.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// The addresses of the interfaces that are up: loopback first, because two
/// nodes on one machine do best there, then those of the network. Empty if the
/// system does not tell.
pub(super) fn host_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else {
        return Vec::new();
    };
    let mut addresses: Vec<IpAddr> = interfaces
        .filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
            let v6 = address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip()));
            v4.or(v6)
        })
        .filter(is_worth_telling)
        .collect();
    addresses.sort_by_key(|ip| (!ip.is_loopback(), ip.is_ipv4(), *ip));
    addresses.dedup();
    addresses
}

/// The same addresses with the ports of our sockets.
pub(super) fn endpoints(v4_port: Option<u16>, v6_port: Option<u16>) -> Vec<SocketAddr> {
    let with_port = |ip: IpAddr| {
        let port = if ip.is_ipv4() { v4_port } else { v6_port };
        port.map(|port| SocketAddr::new(ip, port))
    };
    host_addresses().into_iter().filter_map(with_port).collect()
}

/// The router that leads out by IPv4, if the system tells.
pub(super) fn gateway() -> Option<Ipv4Addr> {
    // Linux has it; elsewhere a gateway is found by asking around.
    read_gateway(&std::fs::read_to_string("/proc/net/route").ok()?)
}

/// The gateway of the best default route in a table as `/proc/net/route` has it:
/// interface, destination, gateway, flags, …, metric, mask, …; addresses in hex,
/// in the byte order of the machine.
fn read_gateway(table: &str) -> Option<Ipv4Addr> {
    /// `RTF_UP` and `RTF_GATEWAY`.
    const FLAGS: u32 = 0x3;
    let routes = table.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let hex = |at: usize| u32::from_str_radix(words.get(at)?, 16).ok();
        let metric: u32 = words.get(6)?.parse().ok()?;
        let is_default = hex(1)? == 0 && hex(7)? == 0 && hex(3)? & FLAGS == FLAGS;
        is_default.then_some((metric, hex(2)?))
    });
    let (_, gateway) = routes.min()?;
    Some(Ipv4Addr::from(gateway.to_ne_bytes()))
}

/// A link-local IPv6 address means nothing to somebody else.
fn is_worth_telling(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_unicast_link_local(),
    }
}

pub(super) use changes::Changes;

/// Linux tells of changes over netlink.
#[cfg(target_os = "linux")]
mod changes {
    use std::io;
    use std::os::fd::AsRawFd as _;

    use nix::sys::socket::{
        AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket,
    };
    use tokio::net::UdpSocket;

    /// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV6_IFADDR`.
    const GROUPS: u32 = 0x1 | 0x10 | 0x100;

    /// Word of the system that addresses change. To tokio any datagram socket
    /// is a UDP socket.
    pub(crate) struct Changes(Option<UdpSocket>);

    impl Changes {
        /// Begins to listen. Where that is forbidden, no word comes.
        pub(crate) fn watch() -> Self {
            let open = || -> io::Result<UdpSocket> {
                let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
                let protocol = SockProtocol::NetlinkRoute;
                let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
                bind(fd.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
                UdpSocket::from_std(std::net::UdpSocket::from(fd))
            };
            Self(open().ok())
        }

        /// The next word of a change. What it says is not read: the addresses
        /// are looked up anyway.
        pub(crate) async fn next(&mut self) {
            let Some(socket) = &self.0 else {
                return std::future::pending().await;
            };
            let mut buf = [0; 8192];
            // An error says that there was too much at once; that is a word.
            let _ = socket.recv(&mut buf).await;
            while socket.try_recv(&mut buf).is_ok() {}
        }
    }
}

/// Elsewhere they are looked up every few seconds.
#[cfg(not(target_os = "linux"))]
mod changes {
    use std::time::Duration;

    /// That addresses may have changed.
    pub(crate) struct Changes;

    impl Changes {
        pub(crate) fn watch() -> Self {
            Self
        }

        pub(crate) async fn next(&mut self) {
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_and_comes_first() {
        let addresses = host_addresses();
        let others = addresses.iter().position(|ip| !ip.is_loopback());
        let others = others.unwrap_or(addresses.len());
        assert!(others > 0);
        assert!(!addresses[others..].iter().any(IpAddr::is_loopback));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_system_takes_a_listener_for_changes() {
        let mut changes = Changes::watch();
        let silent = std::time::Duration::from_millis(10);
        // Nothing changes here, or not much: it neither fails nor spins.
        let _ = tokio::time::timeout(silent, changes.next()).await;
    }

    #[test]
    fn the_gateway_is_that_of_the_best_default_route() {
        let hex = |ip: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(ip));
        let line = |to, via, flags, metric, mask| {
            let (to, via, mask) = (hex(to), hex(via), hex(mask));
            format!("eth0\t{to}\t{via}\t{flags}\t0\t0\t{metric}\t{mask}\t0\t0\t0\n")
        };
        let (zero, all) = ([0; 4], [255, 255, 255, 0]);
        let mut table = "Iface\tDestination\tGateway \tFlags\t…\n".to_owned();
        assert_eq!(read_gateway(&table), None);
        table += &line([192, 0, 2, 0], zero, "0001", 0, all);
        table += &line([198, 51, 100, 0], [192, 0, 2, 7], "0003", 0, all);
        table += "garbage\n";
        assert_eq!(read_gateway(&table), None);
        table += &line(zero, [192, 0, 2, 9], "0003", 600, zero);
        table += &line(zero, [192, 0, 2, 1], "0003", 100, zero);
        assert_eq!(read_gateway(&table), Some(Ipv4Addr::new(192, 0, 2, 1)));
    }

    #[test]
    fn only_families_with_a_socket_are_told() {
        let all = endpoints(Some(7), None);
        assert!(!all.is_empty());
        assert!(all.iter().all(|addr| addr.is_ipv4() && addr.port() == 7));
    }
}
