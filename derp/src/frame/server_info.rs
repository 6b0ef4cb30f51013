//! `ServerInfo`: the server accepts the client.

use super::{Body, NONCE_LEN};
use crate::Error;

/// What the server says about itself, sealed for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerInfo<'a> {
    /// Nonce of the box.
    pub nonce: [u8; NONCE_LEN],
    /// A NaCl box around JSON.
    pub sealed: &'a [u8],
}

impl<'a> Body<'a> for ServerInfo<'a> {
    const KIND: u8 = 0x03;

    fn body_len(&self) -> usize {
        NONCE_LEN + self.sealed.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(self.sealed);
    }

    fn read(body: &'a [u8]) -> Result<Self, Error> {
        let (nonce, sealed) = body
            .split_first_chunk()
            .ok_or(Error::Protocol("short ServerInfo"))?;
        Ok(Self {
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
            Frame::ServerInfo(ServerInfo {
                nonce: [0x55; 24],
                sealed: &[0x01, 0x02],
            }),
            &format!("03 0000001a {} 0102", "55".repeat(24)),
        );
        refused(0x03, &[0; 23]);
    }
}
