//! `ClientInfo`: the client says and proves who it is.

use super::Body;
use crate::{Error, KEY_LEN, NodeKey};

/// Length of the nonce in front of a sealed box, in bytes.
pub const NONCE_LEN: usize = 24;

/// The key of the client and, sealed for the server, what the client can do.
/// That the box opens proves that the client holds the private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientInfo<'a> {
    /// The client's key.
    pub key: NodeKey,
    /// Nonce of the box.
    pub nonce: [u8; NONCE_LEN],
    /// A NaCl box (X25519, XSalsa20, Poly1305) around JSON.
    pub sealed: &'a [u8],
}

impl<'a> Body<'a> for ClientInfo<'a> {
    const KIND: u8 = 0x02;

    fn body_len(&self) -> usize {
        KEY_LEN + NONCE_LEN + self.sealed.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.key.as_bytes());
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(self.sealed);
    }

    fn read(body: &'a [u8]) -> Result<Self, Error> {
        let short = Error::Protocol("short ClientInfo");
        let Some((key, rest)) = NodeKey::split_first(body) else {
            return Err(short);
        };
        let Some((nonce, sealed)) = rest.split_first_chunk() else {
            return Err(short);
        };
        Ok(Self {
            key,
            nonce: *nonce,
            sealed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Frame;
    use super::super::tests::{golden, refused};
    use super::*;

    #[test]
    fn bytes() {
        golden(
            Frame::ClientInfo(ClientInfo {
                key: NodeKey::from_bytes([0x33; 32]),
                nonce: [0x44; 24],
                sealed: &[0xaa, 0xbb, 0xcc],
            }),
            &format!("02 0000003b {} {} aabbcc", "33".repeat(32), "44".repeat(24)),
        );
        refused(0x02, &[0; 55]);
    }
}
