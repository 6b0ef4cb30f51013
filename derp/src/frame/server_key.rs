//! `ServerKey`: the greeting of the server.

use super::Body;
use crate::{Error, KEY_LEN, NodeKey};

/// What a DERP connection begins with: the text `DERP` and the key emoji.
pub const MAGIC: [u8; 8] = *b"DERP\xf0\x9f\x94\x91";

/// The public key of the server, to which the client seals its
/// [`ClientInfo`](super::ClientInfo). Bytes after the key are for later
/// versions and ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerKey {
    /// The key.
    pub key: NodeKey,
}

impl Body<'_> for ServerKey {
    const KIND: u8 = 0x01;

    fn body_len(&self) -> usize {
        MAGIC.len() + KEY_LEN
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(self.key.as_bytes());
    }

    fn read(body: &[u8]) -> Result<Self, Error> {
        let rest = body
            .strip_prefix(&MAGIC)
            .ok_or(Error::Protocol("no DERP magic in the server's greeting"))?;
        let (key, _later) = NodeKey::split_first(rest).ok_or(Error::Protocol("short ServerKey"))?;
        Ok(Self { key })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Frame;
    use super::super::tests::{golden, refused};
    use super::*;

    #[test]
    fn bytes() {
        let key = NodeKey::from_bytes([0x11; 32]);
        golden(
            Frame::ServerKey(ServerKey { key }),
            &format!("01 00000028 44455250f09f9491 {}", "11".repeat(32)),
        );
    }

    #[test]
    fn more_is_ignored_less_and_other_magic_refused() {
        let mut body = MAGIC.to_vec();
        body.extend([0x22; 40]);
        let key = NodeKey::from_bytes([0x22; 32]);
        assert_eq!(ServerKey::read(&body).unwrap(), ServerKey { key });
        refused(0x01, &body[..39]);
        refused(0x01, &[0x22; 40]);
    }
}
