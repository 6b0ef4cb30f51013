//! `Ping` and `Pong`: is the other side there, and how far away.

use super::Body;
use crate::Error;

/// Asks for a [`Pong`] with the same data. Bytes after the eighth are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    /// Chosen by the side that asks.
    pub data: [u8; 8],
}

/// Answers a [`Ping`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pong {
    /// The data of the ping.
    pub data: [u8; 8],
}

impl Body<'_> for Ping {
    const KIND: u8 = 0x12;

    fn body_len(&self) -> usize {
        self.data.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.data);
    }

    fn read(body: &[u8]) -> Result<Self, Error> {
        let (data, _) = body
            .split_first_chunk()
            .ok_or(Error::Protocol("short Ping"))?;
        Ok(Self { data: *data })
    }
}

impl Body<'_> for Pong {
    const KIND: u8 = 0x13;

    fn body_len(&self) -> usize {
        self.data.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.data);
    }

    fn read(body: &[u8]) -> Result<Self, Error> {
        let (data, _) = body
            .split_first_chunk()
            .ok_or(Error::Protocol("short Pong"))?;
        Ok(Self { data: *data })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Frame;
    use super::super::tests::{golden, refused};
    use super::*;

    #[test]
    fn bytes() {
        let data = [1, 2, 3, 4, 5, 6, 7, 8];
        golden(Frame::Ping(Ping { data }), "12 00000008 0102030405060708");
        golden(Frame::Pong(Pong { data }), "13 00000008 0102030405060708");
        refused(0x12, &[0; 7]);
        refused(0x13, &[0; 7]);
        assert_eq!(Ping::read(&[9; 20]).unwrap().data, [9; 8]);
    }
}
