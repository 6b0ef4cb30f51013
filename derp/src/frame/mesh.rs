//! `PeerPresent`, `WatchConns`, `ClosePeer`: what servers of one region tell
//! each other.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::Body;
use crate::{Error, KEY_LEN, NodeKey};

/// A client is connected to the server that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerPresent {
    /// Which client.
    pub key: NodeKey,
    /// Its address as the server sees it, if told; an IPv4 address travels
    /// mapped into IPv6.
    pub address: Option<SocketAddr>,
    /// 1 regular client, 2 another server, 4 prober, 8 not at its ideal
    /// server; absent in early versions.
    pub flags: Option<u8>,
}

impl Body<'_> for PeerPresent {
    const KIND: u8 = 0x09;

    fn body_len(&self) -> usize {
        let address = if self.address.is_some() || self.flags.is_some() {
            16 + 2
        } else {
            0
        };
        KEY_LEN + address + usize::from(self.flags.is_some())
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.key.as_bytes());
        if self.address.is_none() && self.flags.is_none() {
            return;
        }
        let (ip, port) = match self.address {
            Some(SocketAddr::V4(v4)) => (v4.ip().to_ipv6_mapped(), v4.port()),
            Some(SocketAddr::V6(v6)) => (*v6.ip(), v6.port()),
            None => (Ipv6Addr::UNSPECIFIED, 0),
        };
        out.extend_from_slice(&ip.octets());
        out.extend_from_slice(&port.to_be_bytes());
        out.extend(self.flags);
    }

    fn read(body: &[u8]) -> Result<Self, Error> {
        let (key, rest) = NodeKey::split_first(body).ok_or(Error::Protocol("short PeerPresent"))?;
        let mut present = Self {
            key,
            address: None,
            flags: None,
        };
        if let Some((ip, rest)) = rest.split_first_chunk::<16>()
            && let Some((port, rest)) = rest.split_first_chunk::<2>()
        {
            let ip = IpAddr::V6(Ipv6Addr::from(*ip)).to_canonical();
            let port = u16::from_be_bytes(*port);
            let known = !(ip.is_unspecified() && port == 0);
            present.address = known.then_some(SocketAddr::new(ip, port));
            present.flags = rest.first().copied();
        }
        Ok(present)
    }
}

/// Asks for [`PeerPresent`] and [`PeerGone`](super::PeerGone) of every client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchConns;

impl Body<'_> for WatchConns {
    const KIND: u8 = 0x10;

    fn body_len(&self) -> usize {
        0
    }

    fn write(&self, _: &mut Vec<u8>) {}

    fn read(body: &[u8]) -> Result<Self, Error> {
        if body.is_empty() {
            Ok(Self)
        } else {
            Err(Error::Protocol("WatchConns is not empty"))
        }
    }
}

/// Asks to disconnect a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClosePeer {
    /// Which client.
    pub key: NodeKey,
}

impl Body<'_> for ClosePeer {
    const KIND: u8 = 0x11;

    fn body_len(&self) -> usize {
        KEY_LEN
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.key.as_bytes());
    }

    fn read(body: &[u8]) -> Result<Self, Error> {
        match NodeKey::split_first(body) {
            Some((key, [])) => Ok(Self { key }),
            _ => Err(Error::Protocol("ClosePeer is not one key")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Frame;
    use super::super::tests::{golden, refused};
    use super::*;

    #[test]
    fn bytes() {
        let key = NodeKey::from_bytes([0xd4; 32]);
        let digits = "d4".repeat(32);
        golden(
            Frame::PeerPresent(PeerPresent {
                key,
                address: Some("192.0.2.7:41641".parse().unwrap()),
                flags: Some(1),
            }),
            &format!("09 00000033 {digits} 00000000000000000000ffffc0000207 a2a9 01"),
        );
        golden(Frame::WatchConns(WatchConns), "10 00000000");
        golden(
            Frame::ClosePeer(ClosePeer { key }),
            &format!("11 00000020 {digits}"),
        );
    }

    #[test]
    fn presence_may_be_a_key_alone() {
        let key = NodeKey::from_bytes([0xd4; 32]);
        golden(
            Frame::PeerPresent(PeerPresent {
                key,
                address: None,
                flags: None,
            }),
            &format!("09 00000020 {}", "d4".repeat(32)),
        );
        refused(0x09, &[0; 31]);
        refused(0x10, &[0]);
        refused(0x11, &[0; 33]);
        refused(0x11, &[0; 31]);
    }
}
