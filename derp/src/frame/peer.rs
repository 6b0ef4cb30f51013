//! `PeerGone`: a client is not here.

use super::Body;
use crate::{Error, KEY_LEN, NodeKey};

/// Why a client is not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason(pub u8);

impl Reason {
    /// It was connected and is not any more.
    pub const DISCONNECTED: Self = Self(0);
    /// It was not connected when a packet for it arrived.
    pub const NOT_HERE: Self = Self(1);
}

/// A client is not, or no longer, connected to this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerGone {
    /// Which client.
    pub key: NodeKey,
    /// Why. Early servers left it out, which means [`Reason::DISCONNECTED`].
    pub reason: Reason,
}

impl Body<'_> for PeerGone {
    const KIND: u8 = 0x08;

    fn body_len(&self) -> usize {
        KEY_LEN + 1
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.key.as_bytes());
        out.push(self.reason.0);
    }

    fn read(body: &[u8]) -> Result<Self, Error> {
        let (key, rest) = NodeKey::split_first(body).ok_or(Error::Protocol("short PeerGone"))?;
        let reason = rest
            .first()
            .map_or(Reason::DISCONNECTED, |byte| Reason(*byte));
        Ok(Self { key, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Frame;
    use super::super::tests::{golden, refused};
    use super::*;

    #[test]
    fn bytes() {
        let key = NodeKey::from_bytes([0xc3; 32]);
        let reason = Reason::NOT_HERE;
        golden(
            Frame::PeerGone(PeerGone { key, reason }),
            &format!("08 00000021 {} 01", "c3".repeat(32)),
        );
        refused(0x08, &[0; 31]);
    }

    #[test]
    fn without_a_reason_it_disconnected() {
        let gone = PeerGone::read(&[0xc3; 32]).unwrap();
        assert_eq!(gone.reason, Reason::DISCONNECTED);
    }
}
