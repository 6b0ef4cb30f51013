//! What only the operating system knows: the addresses of this machine.

use std::net::{IpAddr, SocketAddr};

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

/// A link-local IPv6 address means nothing to somebody else.
fn is_worth_telling(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_unicast_link_local(),
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

    #[test]
    fn only_families_with_a_socket_are_told() {
        let all = endpoints(Some(7), None);
        assert!(!all.is_empty());
        assert!(all.iter().all(|addr| addr.is_ipv4() && addr.port() == 7));
    }
}
