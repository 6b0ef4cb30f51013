//! The QUIC connections with one peer: at most one that we dialled and one that
//! the peer dialled. Either serves; so when both dial at the same time, nothing
//! has to be decided, and no stream is cut by deciding it.
//!
//! A connection belongs to one run of the peer's program. When WireGuard brings
//! word of another run, or of the peer's departure, connections of the old run
//! are closed at once instead of waiting for silence to be noticed.

use bytes::Bytes;
use quinn::{Connection, VarInt};

use super::entry::Entry;

/// Why we close a connection; seen by the peer.
pub(super) mod code {
    use super::VarInt;

    /// The mesh is shutting down.
    pub(crate) const BYE: VarInt = VarInt::from_u32(0);
    /// The key shown is not the one in the record.
    pub(crate) const IDENTITY: VarInt = VarInt::from_u32(1);
    /// The peer has been removed.
    pub(crate) const REMOVED: VarInt = VarInt::from_u32(2);
    /// A newer connection takes its place.
    pub(crate) const REPLACED: VarInt = VarInt::from_u32(3);
    /// The run of the peer's program that it belonged to is over.
    pub(crate) const RESTARTED: VarInt = VarInt::from_u32(4);
}

/// A connection and the run of the peer that it belongs to, if known.
struct Held {
    connection: Connection,
    boot: Option<u64>,
}

/// Who established a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Dialled,
    Accepted,
}

/// The connections with one peer.
#[derive(Default)]
pub(super) struct Links {
    dialled: Option<Held>,
    accepted: Option<Held>,
    /// A task is dialling.
    pub(super) dialling: bool,
    /// Calls that wait for a connection.
    pub(super) waiting: usize,
    /// Why the peer does not accept us (or we not it); until the next dial.
    pub(super) refused: Option<String>,
    /// How often the peer was found to be another run.
    pub(super) restarts: u64,
    /// The run of the peer that was last heard of.
    boot: Option<u64>,
    /// The peer has been removed: nothing may be added any more.
    pub(super) removed: bool,
}

impl Links {
    /// A connection that works, as far as we know.
    pub(super) fn live(&self) -> Option<&Connection> {
        let held = self.dialled.iter().chain(&self.accepted);
        let mut live = held.filter(|held| held.connection.close_reason().is_none());
        live.next().map(|held| &held.connection)
    }

    /// Adds a connection of the run `boot`. Another one of the same side is
    /// closed: its dialler has given it up.
    pub(super) fn add(&mut self, side: Side, connection: Connection, boot: Option<u64>) -> bool {
        if self.removed {
            connection.close(code::REMOVED, b"removed");
            return false;
        }
        if let Some(boot) = boot {
            self.hello(boot);
        }
        let held = Held { connection, boot };
        let place = match side {
            Side::Dialled => &mut self.dialled,
            Side::Accepted => &mut self.accepted,
        };
        if let Some(old) = place.replace(held) {
            old.connection.close(code::REPLACED, b"replaced");
        }
        true
    }

    /// The present run of the peer is this one.
    fn hello(&mut self, boot: u64) {
        if self.boot.is_some_and(|known| known != boot) {
            self.restarts += 1;
        }
        self.boot = Some(boot);
        for place in [&mut self.dialled, &mut self.accepted] {
            match place {
                Some(held) if held.boot.is_some_and(|of| of != boot) => {
                    held.connection.close(code::RESTARTED, b"restarted");
                    *place = None;
                }
                Some(held) => held.boot = Some(boot),
                None => {}
            }
        }
    }

    /// The peer is heard again. What was lost is sent again when something newer
    /// is acknowledged, so there must be something newer: a datagram that nobody reads.
    pub(super) fn hurry(&self) {
        for held in self.dialled.iter().chain(&self.accepted) {
            // One that is over needs it no more.
            let _ = held.connection.send_datagram(Bytes::from_static(b"?"));
        }
    }

    /// Closes and forgets everything.
    pub(super) fn close(&mut self, code: VarInt, reason: &[u8]) {
        for held in [self.dialled.take(), self.accepted.take()]
            .into_iter()
            .flatten()
        {
            held.connection.close(code, reason);
        }
    }

    /// A connection is over.
    pub(super) fn forget(&mut self, connection: &Connection) {
        for place in [&mut self.dialled, &mut self.accepted] {
            let is_it = |held: &Held| held.connection.stable_id() == connection.stable_id();
            if place.as_ref().is_some_and(is_it) {
                *place = None;
            }
        }
    }
}

impl Entry {
    pub(super) fn handle_hello(&self, boot: u64) {
        self.links.lock().hello(boot);
        self.changed.notify_waiters();
    }

    pub(super) fn handle_departure(&self) {
        {
            let mut links = self.links.lock();
            links.close(code::BYE, b"the peer left");
            links.boot = None;
            links.restarts += 1;
        }
        tracing::debug!(peer = ?self.key, "the peer left");
        self.changed.notify_waiters();
    }

    /// Cuts everything with this peer, for good.
    pub(super) fn cut(&self) {
        {
            let mut links = self.links.lock();
            links.removed = true;
            links.close(code::REMOVED, b"removed");
        }
        self.changed.notify_waiters();
    }
}
