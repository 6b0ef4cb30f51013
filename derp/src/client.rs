//! The client's side of an open connection: frames in, events out, and the
//! queue of what waits to be sent. Pure; `io::client` moves the bytes.

use std::time::Duration;

use bytes::Bytes;

use crate::frame::{self, Frame, MAX_PACKET, NotePreferred, Ping, Pong, Receives, SendPacket};
use crate::queue::{BULK_LIMIT, Full, Queue};
use crate::{Error, NodeKey};

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

/// What a frame of the relay means to its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Something for whoever uses the connection.
    Event(Event),
    /// A question to answer with [`Client::handle_asked`].
    Asked([u8; 8]),
    /// Nothing.
    Nothing,
}

/// Reads one whole frame, with its header, that the relay sent. The data of a
/// packet stays where it is in `raw`.
///
/// # Errors
///
/// When the frame breaks the protocol; the connection is over then.
pub fn read(raw: &Bytes) -> Result<Heard, Error> {
    let Some((frame, _)) = frame::decode(Receives::Client, raw)? else {
        return Err(Error::Protocol("half a frame"));
    };
    let event = match frame {
        Frame::RecvPacket(packet) if packet.data.len() > MAX_PACKET => {
            return Err(Error::Protocol("a packet longer than 64 KiB"));
        }
        Frame::RecvPacket(packet) => Event::Packet {
            from: packet.from,
            data: raw.slice_ref(packet.data),
        },
        Frame::PeerGone(gone) => Event::PeerGone {
            key: gone.key,
            reason: gone.reason.0,
        },
        Frame::Pong(pong) => Event::Pong(pong.data),
        Frame::Health(health) => Event::Health(String::from_utf8_lossy(health.text).into_owned()),
        Frame::Restarting(restart) => Event::Restarting {
            reconnect_in: Duration::from_millis(restart.reconnect_in_ms.into()),
            try_for: Duration::from_millis(restart.try_for_ms.into()),
        },
        Frame::Ping(ping) => return Ok(Heard::Asked(ping.data)),
        _ => return Ok(Heard::Nothing),
    };
    Ok(Heard::Event(event))
}

/// An open connection to a relay.
#[derive(Debug)]
pub struct Client {
    queue: Queue,
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// A connection whose handshake is done.
    pub const fn new() -> Self {
        Self {
            queue: Queue::new(BULK_LIMIT),
        }
    }

    /// Answers a ping of the relay. Without room for the answer the relay is
    /// far behind anyway, and will ask again.
    pub fn handle_asked(&mut self, data: [u8; 8]) {
        let _ = self.queue.push_urgent(&Pong { data });
    }

    /// Queues a packet for `to`.
    ///
    /// # Errors
    ///
    /// [`SendError::TooLarge`], or [`SendError::Full`] when a megabyte waits.
    pub fn handle_send(&mut self, to: &NodeKey, data: &[u8]) -> Result<(), SendError> {
        if data.len() > MAX_PACKET {
            return Err(SendError::TooLarge);
        }
        let packet = SendPacket { to: *to, data };
        self.queue
            .push_packet(&packet, data)
            .map_err(|Full| SendError::Full)
    }

    /// Queues a ping.
    ///
    /// # Errors
    ///
    /// [`Full`] when the relay has not taken the last thousands of them.
    pub fn handle_ping(&mut self, data: [u8; 8]) -> Result<(), Full> {
        self.queue.push_urgent(&Ping { data })
    }

    /// Queues the note that this relay is (not) where we are to be found.
    ///
    /// # Errors
    ///
    /// [`Full`] as for [`Client::handle_ping`].
    pub fn handle_note(&mut self, preferred: bool) -> Result<(), Full> {
        self.queue.push_urgent(&NotePreferred { preferred })
    }

    /// Whether there is room for the longest packet.
    pub const fn has_room(&self) -> bool {
        self.queue.len() + frame::HEADER_LEN + crate::KEY_LEN + MAX_PACKET <= BULK_LIMIT
    }

    /// Whether there is something to write.
    pub const fn wants_write(&self) -> bool {
        self.queue.has_chunk()
    }

    /// The next bytes to write; asking says that those before are written.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.queue.poll_chunk()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Health, KeepAlive, PeerGone, Reason, RecvPacket, Restarting, Unknown};

    const PEER: NodeKey = NodeKey::from_bytes([8; 32]);

    fn hear(frame: Frame<'_>) -> Result<Heard, Error> {
        let mut raw = Vec::new();
        frame.encode(&mut raw);
        read(&raw.into())
    }

    #[test]
    fn frames_become_events() {
        let data = &b"data"[..];
        let second = Duration::from_secs(1);
        let expect = |frame, event: Option<Event>| {
            let heard = event.map_or(Heard::Nothing, Heard::Event);
            assert_eq!(hear(frame).unwrap(), heard);
        };
        expect(
            Frame::RecvPacket(RecvPacket { from: PEER, data }),
            Some(Event::Packet {
                from: PEER,
                data: data.into(),
            }),
        );
        expect(
            Frame::PeerGone(PeerGone {
                key: PEER,
                reason: Reason::NOT_HERE,
            }),
            Some(Event::PeerGone {
                key: PEER,
                reason: 1,
            }),
        );
        expect(
            Frame::Pong(Pong { data: [1; 8] }),
            Some(Event::Pong([1; 8])),
        );
        expect(
            Frame::Health(Health { text: b"dup" }),
            Some(Event::Health("dup".into())),
        );
        expect(
            Frame::Restarting(Restarting::new(second, second)),
            Some(Event::Restarting {
                reconnect_in: second,
                try_for: second,
            }),
        );
        expect(Frame::KeepAlive(KeepAlive), None);
        let body = b"later";
        expect(Frame::Unknown(Unknown { kind: 0x42, body }), None);
    }

    #[test]
    fn a_ping_is_answered() {
        let mut client = Client::new();
        let data = [3; 8];
        let heard = hear(Frame::Ping(Ping { data })).unwrap();
        assert_eq!(heard, Heard::Asked(data));
        client.handle_asked(data);
        assert!(client.wants_write());
        let mut pong = Vec::new();
        frame::encode(&Pong { data }, &mut pong);
        assert_eq!(client.poll_transmit(), Some(pong));
        assert_eq!(client.poll_transmit(), None);
    }

    #[test]
    fn the_queue_is_bounded_and_says_so() {
        let mut client = Client::new();
        let packet = vec![7; MAX_PACKET + 1];
        let sent = client.handle_send(&PEER, &packet);
        assert_eq!(sent, Err(SendError::TooLarge));
        let mut count = 0;
        while client.has_room() {
            client.handle_send(&PEER, &packet[1..]).unwrap();
            count += 1;
        }
        assert_eq!(count, BULK_LIMIT / (MAX_PACKET + 37));
        let sent = client.handle_send(&PEER, &packet[1..]);
        assert_eq!(sent, Err(SendError::Full));
        while client.poll_transmit().is_some() {}
        assert!(client.has_room());
    }

    #[test]
    fn a_packet_longer_than_allowed_ends_it() {
        let data = &vec![0; MAX_PACKET + 1];
        assert!(hear(Frame::RecvPacket(RecvPacket { from: PEER, data })).is_err());
    }
}
