//! What a client of the relay hears, and why a packet may not be taken.

use std::time::Duration;

use bytes::Bytes;

use crate::NodeKey;

/// Something the relay tells its client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A packet from another client.
    Packet {
        /// Who sent it.
        from: NodeKey,
        /// What it sent, at most 64 KiB.
        data: Bytes,
    },
    /// A client that we exchanged packets with is not (or no longer) here.
    PeerGone {
        /// Which client.
        key: NodeKey,
        /// 0: it disconnected; 1: it was not here when we sent to it.
        reason: u8,
    },
    /// The answer to a ping with the same data.
    Pong([u8; 8]),
    /// Something about this connection a person should know; empty when all
    /// is well again.
    Health(String),
    /// The relay is about to restart.
    Restarting {
        /// How long to wait before connecting again.
        reconnect_in: Duration,
        /// For how long to keep trying after that.
        try_for: Duration,
    },
}

/// Why a packet was not taken for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The queue to the relay is full; wait for room, or drop the packet.
    #[error("the queue to the relay is full")]
    Full,
    /// The connection is over.
    #[error("the connection to the relay is closed")]
    Closed,
    /// The packet is longer than 64 KiB.
    #[error("the packet is longer than 64 KiB")]
    TooLarge,
}
