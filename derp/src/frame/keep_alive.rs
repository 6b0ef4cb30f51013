//! `KeepAlive` and `NotePreferred`: small notes without an answer.

use super::Body;
use crate::Error;

/// Nothing, so that the connection stays open through middle boxes and the
/// client knows that the server lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive;

impl Body<'_> for KeepAlive {
    const KIND: u8 = 0x06;

    fn body_len(&self) -> usize {
        0
    }

    fn write(&self, _: &mut Vec<u8>) {}

    fn read(_: &[u8]) -> Result<Self, Error> {
        Ok(Self)
    }
}

/// Whether the client regards this server as its home: for statistics, and to find it in a
/// region of several servers (`crate::router`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotePreferred {
    /// Home or not.
    pub preferred: bool,
}

impl Body<'_> for NotePreferred {
    const KIND: u8 = 0x07;

    fn body_len(&self) -> usize {
        1
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(self.preferred.into());
    }

    fn read(body: &[u8]) -> Result<Self, Error> {
        let [byte] = body else {
            return Err(Error::Protocol("NotePreferred is not one byte"));
        };
        Ok(Self {
            preferred: *byte != 0,
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
        golden(Frame::KeepAlive(KeepAlive), "06 00000000");
        golden(
            Frame::NotePreferred(NotePreferred { preferred: true }),
            "07 00000001 01",
        );
        golden(
            Frame::NotePreferred(NotePreferred { preferred: false }),
            "07 00000001 00",
        );
        refused(0x07, &[]);
        refused(0x07, &[1, 0]);
    }
}
