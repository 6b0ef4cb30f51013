//! Frames: `[kind u8][length u32, big-endian][payload]`.
//!
//! | kind | payload |
//! |---|---|
//! | 0x00 | control: one JSON object, `{"type": …}` |
//! | 0x01 | raw terminal bytes |
//! | 0x02 | control in bincode, only between nodes |
//!
//! The length excludes the five bytes of the header and is at most 16 MiB, for the sender too.
//! The stream may end between two frames; an end inside one is an error.

use bytes::{Buf, Bytes, BytesMut};

use crate::error::{Error, Result};

/// The longest payload, in bytes. What is longer is refused before it is read or sent.
pub const PAYLOAD_MAX: usize = 16 * 1024 * 1024;

/// The bytes before the payload.
pub const HEADER: usize = 5;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A control message in JSON.
    Json,
    /// Raw terminal bytes.
    Data,
    /// A control message in bincode.
    Binary,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Json => 0x00,
            Self::Data => 0x01,
            Self::Binary => 0x02,
        }
    }

    fn from_byte(byte: u8) -> Result<Self> {
        match byte {
            0x00 => Ok(Self::Json),
            0x01 => Ok(Self::Data),
            0x02 => Ok(Self::Binary),
            other => Err(Error::bad_request(format!(
                "unknown frame type: {other:#04x}"
            ))),
        }
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: Kind,
    /// At most [`PAYLOAD_MAX`] bytes.
    pub payload: Bytes,
}

/// The header of a frame with a payload of `length` bytes.
///
/// # Errors
///
/// `frame_too_large` over [`PAYLOAD_MAX`].
pub fn header(kind: Kind, length: usize) -> Result<[u8; HEADER]> {
    let word = u32::try_from(length)
        .ok()
        .filter(|_| length <= PAYLOAD_MAX)
        .ok_or_else(|| too_large(length))?;
    let [a, b, c, d] = word.to_be_bytes();
    Ok([kind.byte(), a, b, c, d])
}

/// Takes the next whole frame off `buffer`, or none while it is still incomplete.
///
/// # Errors
///
/// `bad_request` for an unknown kind, `frame_too_large` for a length over the limit. The stream
/// is then of no further use.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>> {
    let Some((&head, _)) = buffer.split_first_chunk::<HEADER>() else {
        // An unknown kind is told at once, not after four more bytes that may never come.
        return buffer
            .first()
            .map_or(Ok(None), |byte| Kind::from_byte(*byte).map(|_| None));
    };
    let [kind, a, b, c, d] = head;
    let kind = Kind::from_byte(kind)?;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > PAYLOAD_MAX {
        return Err(too_large(length));
    }
    if buffer.len() < HEADER + length {
        // Grow by what has come, not by what was promised.
        buffer.reserve((HEADER + length - buffer.len()).min(64 * 1024));
        return Ok(None);
    }
    buffer.advance(HEADER);
    Ok(Some(Frame {
        kind,
        payload: buffer.split_to(length).freeze(),
    }))
}

fn too_large(length: usize) -> Error {
    Error::new(
        "frame_too_large",
        format!("frame payload too large: {length} bytes"),
    )
    .hint(format!("the limit is {PAYLOAD_MAX} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(kind: Kind, payload: &[u8]) -> BytesMut {
        let mut out = BytesMut::from(&header(kind, payload.len()).unwrap()[..]);
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(&bytes(Kind::Json, b"{}")[..], b"\x00\x00\x00\x00\x02{}");
        assert_eq!(&bytes(Kind::Data, b"")[..], b"\x01\x00\x00\x00\x00");
        assert_eq!(&bytes(Kind::Binary, b"z")[..], b"\x02\x00\x00\x00\x01z");
    }

    #[test]
    fn frames_come_out_whole_however_they_arrive() {
        let mut wire = bytes(Kind::Json, b"{\"type\":\"x\"}");
        wire.extend_from_slice(&bytes(Kind::Data, &[7; 300]));
        let mut buffer = BytesMut::new();
        let mut frames = Vec::new();
        for byte in wire {
            buffer.extend_from_slice(&[byte]);
            frames.extend(decode(&mut buffer).unwrap());
        }
        assert_eq!(frames.len(), 2);
        assert_eq!(frames[1].payload.len(), 300);
        assert!(buffer.is_empty());
    }

    #[test]
    fn too_long_is_refused_on_both_sides() {
        assert_eq!(
            header(Kind::Data, PAYLOAD_MAX + 1).unwrap_err().code,
            "frame_too_large"
        );
        let mut buffer = BytesMut::from(&[1, 1, 16, 0, 0][..]);
        assert_eq!(decode(&mut buffer).unwrap_err().code, "frame_too_large");
        assert!(header(Kind::Data, PAYLOAD_MAX).is_ok());
    }

    #[test]
    fn an_unknown_kind_is_refused_at_its_first_byte() {
        let mut buffer = BytesMut::from(&b"GET / HTTP/1.1"[..1]);
        assert_eq!(decode(&mut buffer).unwrap_err().code, "bad_request");
    }
}
