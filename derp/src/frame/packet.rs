//! `SendPacket`, `RecvPacket`, `ForwardPacket`: what the relay is for.

use super::Body;
use crate::{Error, KEY_LEN, NodeKey};

/// Longest packet in bytes, without the keys in front of it: the longest
/// datagram that UDP could carry.
pub const MAX_PACKET: usize = 64 << 10;

/// A packet on its way to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendPacket<'a> {
    /// Who is to receive it.
    pub to: NodeKey,
    /// The packet.
    pub data: &'a [u8],
}

impl<'a> Body<'a> for SendPacket<'a> {
    const KIND: u8 = 0x04;

    fn body_len(&self) -> usize {
        KEY_LEN + self.data.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.to.as_bytes());
        out.extend_from_slice(self.data);
    }

    fn read(body: &'a [u8]) -> Result<Self, Error> {
        let (to, data) = NodeKey::split_first(body).ok_or(Error::Protocol("short SendPacket"))?;
        Ok(Self { to, data })
    }
}

/// A packet on its way from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecvPacket<'a> {
    /// Who sent it.
    pub from: NodeKey,
    /// The packet.
    pub data: &'a [u8],
}

impl<'a> Body<'a> for RecvPacket<'a> {
    const KIND: u8 = 0x05;

    fn body_len(&self) -> usize {
        KEY_LEN + self.data.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.from.as_bytes());
        out.extend_from_slice(self.data);
    }

    fn read(body: &'a [u8]) -> Result<Self, Error> {
        let (from, data) = NodeKey::split_first(body).ok_or(Error::Protocol("short RecvPacket"))?;
        Ok(Self { from, data })
    }
}

/// A packet that another server of the region received for one of our
/// clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardPacket<'a> {
    /// Who sent it.
    pub from: NodeKey,
    /// Who is to receive it.
    pub to: NodeKey,
    /// The packet.
    pub data: &'a [u8],
}

impl<'a> Body<'a> for ForwardPacket<'a> {
    const KIND: u8 = 0x0a;

    fn body_len(&self) -> usize {
        2 * KEY_LEN + self.data.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.from.as_bytes());
        out.extend_from_slice(self.to.as_bytes());
        out.extend_from_slice(self.data);
    }

    fn read(body: &'a [u8]) -> Result<Self, Error> {
        let short = Error::Protocol("short ForwardPacket");
        let Some((from, rest)) = NodeKey::split_first(body) else {
            return Err(short);
        };
        let Some((to, data)) = NodeKey::split_first(rest) else {
            return Err(short);
        };
        Ok(Self { from, to, data })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Frame;
    use super::super::tests::{golden, refused};
    use super::*;

    const A: NodeKey = NodeKey::from_bytes([0xa1; 32]);
    const B: NodeKey = NodeKey::from_bytes([0xb2; 32]);

    #[test]
    fn bytes() {
        let (a, b) = ("a1".repeat(32), "b2".repeat(32));
        golden(
            Frame::SendPacket(SendPacket { to: A, data: b"hi" }),
            &format!("04 00000022 {a} 6869"),
        );
        golden(
            Frame::RecvPacket(RecvPacket {
                from: B,
                data: b"hi",
            }),
            &format!("05 00000022 {b} 6869"),
        );
        golden(
            Frame::ForwardPacket(ForwardPacket {
                from: A,
                to: B,
                data: b"hi",
            }),
            &format!("0a 00000042 {a} {b} 6869"),
        );
    }

    #[test]
    fn a_packet_may_be_empty_but_not_its_keys() {
        golden(
            Frame::SendPacket(SendPacket { to: A, data: b"" }),
            &format!("04 00000020 {}", "a1".repeat(32)),
        );
        refused(0x04, &[0; 31]);
        refused(0x05, &[0; 31]);
        refused(0x0a, &[0; 63]);
    }
}
