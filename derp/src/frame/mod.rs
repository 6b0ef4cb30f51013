//! The frames of DERP version 2.
//!
//! A connection is two streams of frames, each `type u8`, `length u32` big
//! endian (of what follows), body. The table, as published with the
//! BSD-licensed implementation of Tailscale:
//!
//! | type | frame | direction | body |
//! |---|---|---|---|
//! | 0x01 | [`ServerKey`] | server to client | magic, 32 bytes key |
//! | 0x02 | [`ClientInfo`] | client to server | 32 bytes key, 24 bytes nonce, box |
//! | 0x03 | [`ServerInfo`] | server to client | 24 bytes nonce, box |
//! | 0x04 | [`SendPacket`] | client to server | 32 bytes destination, data |
//! | 0x05 | [`RecvPacket`] | server to client | 32 bytes source, data |
//! | 0x06 | [`KeepAlive`] | server to client | empty |
//! | 0x07 | [`NotePreferred`] | client to server | 1 byte, 0 or 1 |
//! | 0x08 | [`PeerGone`] | server to client | 32 bytes key, 1 byte reason |
//! | 0x09 | [`PeerPresent`] | server to server | 32 bytes key, 16 address, 2 port, 1 flags |
//! | 0x0a | [`ForwardPacket`] | server to server | 32 bytes source, 32 destination, data |
//! | 0x10 | [`WatchConns`] | server to server | empty |
//! | 0x11 | [`ClosePeer`] | server to server | 32 bytes key |
//! | 0x12 | [`Ping`] | both | 8 bytes |
//! | 0x13 | [`Pong`] | both | 8 bytes |
//! | 0x14 | [`Health`] | server to client | text |
//! | 0x15 | [`Restarting`] | server to client | two u32 of milliseconds |
//!
//! Where a later version may append to a body, the rest is ignored. A type that
//! is not in the table is [`Unknown`]: a receiver skips it.

mod client_info;
mod decode;
mod health;
mod keep_alive;
mod mesh;
mod packet;
mod peer;
mod ping;
mod server_info;
mod server_key;
mod unknown;

pub use client_info::{ClientInfo, NONCE_LEN};
pub use decode::{MAX_FRAME, Receives, decode};
pub use health::{Health, Restarting};
pub use keep_alive::{KeepAlive, NotePreferred};
pub use mesh::{ClosePeer, PeerPresent, WatchConns};
pub use packet::{ForwardPacket, MAX_PACKET, RecvPacket, SendPacket};
pub use peer::{PeerGone, Reason};
pub use ping::{Ping, Pong};
pub use server_info::ServerInfo;
pub use server_key::{MAGIC, ServerKey};
pub use unknown::Unknown;

use crate::Error;

/// Bytes in front of every body: type and length.
pub const HEADER_LEN: usize = 5;

/// What is in a frame, without its header.
pub trait Body<'a>: Sized {
    /// The type byte of the frame.
    const KIND: u8;

    /// Length of the body in bytes.
    fn body_len(&self) -> usize;

    /// Appends the body.
    fn write(&self, out: &mut Vec<u8>);

    /// Reads a whole body.
    ///
    /// # Errors
    ///
    /// [`Error::Protocol`] when the body is too short or malformed.
    fn read(body: &'a [u8]) -> Result<Self, Error>;
}

/// Appends a whole frame, with its header, to `out`.
pub fn encode<'a>(body: &impl Body<'a>, out: &mut Vec<u8>) {
    encode_as(kind_of(body), body, out);
}

/// Length of the whole frame in bytes, with its header.
pub fn encoded_len<'a>(body: &impl Body<'a>) -> usize {
    HEADER_LEN + body.body_len()
}

fn kind_of<'a, B: Body<'a>>(_: &B) -> u8 {
    B::KIND
}

fn encode_as<'a>(kind: u8, body: &impl Body<'a>, out: &mut Vec<u8>) {
    let len = u32::try_from(body.body_len()).unwrap_or(u32::MAX);
    out.reserve(encoded_len(body));
    out.push(kind);
    out.extend_from_slice(&len.to_be_bytes());
    body.write(out);
}

macro_rules! frames {
    ($($(#[$doc:meta])* $name:ident($body:ty),)*) => {
        /// Any frame of the table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Frame<'a> {
            $($(#[$doc])* $name($body),)*
            /// A type that is not in the table.
            Unknown(Unknown<'a>),
        }

        impl<'a> Frame<'a> {
            /// The type byte.
            pub const fn kind(&self) -> u8 {
                match self {
                    $(Self::$name(_) => <$body as Body<'a>>::KIND,)*
                    Self::Unknown(frame) => frame.kind,
                }
            }

            /// Length of the whole frame in bytes, with its header.
            pub fn encoded_len(&self) -> usize {
                match self {
                    $(Self::$name(frame) => encoded_len(frame),)*
                    Self::Unknown(frame) => HEADER_LEN + frame.body.len(),
                }
            }

            /// Appends the whole frame, with its header, to `out`.
            pub fn encode(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$name(frame) => encode(frame, out),)*
                    Self::Unknown(frame) => frame.encode(out),
                }
            }

            /// Reads the body of a frame of type `kind`.
            ///
            /// # Errors
            ///
            /// [`Error::Protocol`] when the body is malformed. An unknown type
            /// is not an error.
            pub fn read(kind: u8, body: &'a [u8]) -> Result<Self, Error> {
                Ok(match kind {
                    $(<$body as Body<'a>>::KIND => Self::$name(<$body>::read(body)?),)*
                    _ => Self::Unknown(Unknown { kind, body }),
                })
            }
        }
    };
}

frames! {
    /// First frame of the server.
    ServerKey(ServerKey),
    /// First frame of the client.
    ClientInfo(ClientInfo<'a>),
    /// The answer to it.
    ServerInfo(ServerInfo<'a>),
    /// A packet on its way to the server.
    SendPacket(SendPacket<'a>),
    /// A packet on its way to a client.
    RecvPacket(RecvPacket<'a>),
    /// Nothing, so that the connection stays open.
    KeepAlive(KeepAlive),
    /// Whether the client regards this server as its home.
    NotePreferred(NotePreferred),
    /// A client is not here.
    PeerGone(PeerGone),
    /// A client is here.
    PeerPresent(PeerPresent),
    /// A packet on its way to another server.
    ForwardPacket(ForwardPacket<'a>),
    /// Asks for [`PeerPresent`] of every client.
    WatchConns(WatchConns),
    /// Asks to disconnect a client.
    ClosePeer(ClosePeer),
    /// Asks for a [`Pong`].
    Ping(Ping),
    /// Answers a [`Ping`].
    Pong(Pong),
    /// How the connection is.
    Health(Health<'a>),
    /// The server goes away for a moment.
    Restarting(Restarting),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Checks a frame against its bytes, both ways, and its length.
    pub(super) fn golden(frame: Frame<'_>, bytes: &str) {
        let mut out = Vec::new();
        frame.encode(&mut out);
        assert_eq!(hex::encode(&out), bytes.replace([' ', '\n'], ""));
        assert_eq!(out.len(), frame.encoded_len());
        let (read, used) = decode(Receives::Client, &out).unwrap().unwrap();
        assert_eq!(read, frame);
        assert_eq!(used, out.len());
    }

    /// A body that is refused.
    pub(super) fn refused(kind: u8, body: &[u8]) {
        assert!(matches!(Frame::read(kind, body), Err(Error::Protocol(_))));
    }

    proptest! {
        #[test]
        fn what_can_be_read_survives_a_round_trip(
            kind in 0u8..0x18,
            body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Ok(frame) = Frame::read(kind, &body) {
                prop_assert_eq!(frame.kind(), kind);
                let mut out = Vec::new();
                frame.encode(&mut out);
                prop_assert_eq!(out.len(), frame.encoded_len());
                prop_assert_eq!(decode(Receives::Client, &out).unwrap(), Some((frame, out.len())));
            }
        }
    }
}
