//! Cuts a stream into frames, with a limit for each type.

use super::{Frame, HEADER_LEN, MAX_PACKET};
use crate::{Error, KEY_LEN};

/// Longest body, in bytes, that a client accepts from a server. The protocol
/// has no longer frame than 64 KiB and a key; the rest is room for later
/// versions, which stays within what a client can afford to buffer.
pub const MAX_FRAME: u32 = 1 << 20;

/// Longest greeting of a server: the key, and room for later versions.
const MAX_SERVER_KEY: u32 = 1 << 10;
/// Longest introduction of a client, which is not yet known when it is read.
const MAX_CLIENT_INFO: u32 = 256 << 10;
/// Longest body of a ping or pong; eight bytes of it count.
const MAX_PING: u32 = 1000;
/// Longest body of the small frames, each of which checks its exact length.
const MAX_SMALL: u32 = 64;
/// Longest packet with both keys, and so also the longest frame of an unknown
/// type that a server skips.
const MAX_FORWARDED: u32 = (MAX_PACKET + 2 * KEY_LEN) as u32;
/// Longest packet with one key.
const MAX_SENT: u32 = (MAX_PACKET + KEY_LEN) as u32;

/// Which side receives the stream: a server trusts its clients with less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receives {
    /// From a server.
    Client,
    /// From a client.
    Server,
}

impl Receives {
    /// Longest body of a frame of type `kind`, in bytes.
    pub const fn limit(self, kind: u8) -> u32 {
        match (self, kind) {
            (Self::Client, 0x01) => MAX_SERVER_KEY,
            (Self::Client, _) => MAX_FRAME,
            (Self::Server, 0x02) => MAX_CLIENT_INFO,
            (Self::Server, 0x04) => MAX_SENT,
            (Self::Server, 0x07 | 0x10 | 0x11) => MAX_SMALL,
            (Self::Server, 0x12 | 0x13) => MAX_PING,
            (Self::Server, _) => MAX_FORWARDED,
        }
    }
}

/// The first frame in `bytes` and how many bytes it takes, or `None` when it
/// is not all there yet.
///
/// # Errors
///
/// [`Error::FrameTooLarge`] as soon as the header announces too much, before
/// the body arrives; [`Error::Protocol`] when the body is malformed. After an
/// error the stream cannot be read any further.
pub fn decode(side: Receives, bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Error> {
    let Some(([kind, len @ ..], rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let (kind, len) = (*kind, u32::from_be_bytes(*len));
    let limit = side.limit(kind);
    if len > limit {
        return Err(Error::FrameTooLarge { kind, len, limit });
    }
    let Some(body) = rest.get(..len as usize) else {
        return Ok(None);
    };
    let frame = Frame::read(kind, body)?;
    Ok(Some((frame, HEADER_LEN + body.len())))
}

#[cfg(test)]
mod tests {
    use super::super::{Ping, SendPacket, encode};
    use super::*;
    use crate::NodeKey;
    use proptest::prelude::*;

    #[test]
    fn a_frame_appears_with_its_last_byte() {
        let mut bytes = Vec::new();
        encode(&Ping { data: [7; 8] }, &mut bytes);
        for cut in 0..bytes.len() {
            assert!(decode(Receives::Server, &bytes[..cut]).unwrap().is_none());
        }
        bytes.push(0x06);
        let (frame, used) = decode(Receives::Server, &bytes).unwrap().unwrap();
        assert_eq!(frame, Frame::Ping(Ping { data: [7; 8] }));
        assert_eq!(used, bytes.len() - 1);
    }

    #[test]
    fn limits_hold_at_the_header() {
        let too_large = |side, kind: u8, len: u32| {
            let mut header = vec![kind];
            header.extend(len.to_be_bytes());
            matches!(decode(side, &header), Err(Error::FrameTooLarge { .. }))
        };
        for (side, kind, limit) in [
            (Receives::Server, 0x02, 256 << 10),
            (Receives::Server, 0x04, 65_568),
            (Receives::Server, 0x07, 64),
            (Receives::Server, 0x0a, 65_600),
            (Receives::Server, 0x12, 1000),
            (Receives::Server, 0x99, 65_600),
            (Receives::Client, 0x01, 1024),
            (Receives::Client, 0x05, 1 << 20),
            (Receives::Client, 0x99, 1 << 20),
        ] {
            assert!(!too_large(side, kind, limit), "{side:?} {kind:#x}");
            assert!(too_large(side, kind, limit + 1), "{side:?} {kind:#x}");
            assert!(too_large(side, kind, u32::MAX), "{side:?} {kind:#x}");
        }
    }

    #[test]
    fn the_longest_packet_passes_a_server() {
        let data = vec![5; MAX_PACKET];
        let to = NodeKey::from_bytes([1; 32]);
        let mut bytes = Vec::new();
        encode(&SendPacket { to, data: &data }, &mut bytes);
        assert!(decode(Receives::Server, &bytes).unwrap().is_some());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for side in [Receives::Client, Receives::Server] {
                let mut rest = &bytes[..];
                while let Ok(Some((_, used))) = decode(side, rest) {
                    rest = &rest[used..];
                }
            }
        }
    }
}
