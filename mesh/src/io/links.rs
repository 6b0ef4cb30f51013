//! The QUIC connections with one peer: at most one that we dialled and one that
//! the peer dialled. Either serves; so when both dial at the same time, nothing
//! has to be decided, and no stream is cut by deciding it.
//!
//! A connection belongs to one run of the peer's program. When WireGuard brings
//! word of another run, or of the peer's departure, connections of the old run
//! are closed at once instead of waiting for silence to be noticed.
//!
//! One that resumes an earlier one carries streams before its handshake has come
//! to its end (0-RTT), but only those of calls that ask for it: it is among the
//! connections proper once it is confirmed.

use bytes::Bytes;
use quinn::{Connection, ConnectionError, VarInt};

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
    /// Its handshake was given up.
    pub(crate) const UNCONFIRMED: VarInt = VarInt::from_u32(5);
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
    /// With its place in the order in which connections came.
    Accepted(u64),
}

/// The connections with one peer.
#[derive(Default)]
pub(super) struct Links {
    dialled: Option<Held>,
    accepted: Option<Held>,
    /// The place of `accepted` in the order in which connections came.
    came: u64,
    /// Being dialled by a ticket: takes streams, and may still refuse them.
    early: Option<Connection>,
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
    /// [`Links::hurry`] is being repeated.
    pub(super) hurrying: bool,
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

    /// A connection that works or will, for what may be done twice.
    pub(super) fn live_or_early(&self) -> Option<&Connection> {
        let early = self.early.as_ref();
        let early = early.filter(|connection| connection.close_reason().is_none());
        self.live().or(early)
    }

    /// Adds a connection of the run `boot`. Another one of the same side is
    /// closed: its dialler has given it up. That may be this one: who resumes it
    /// uses it, and can be done with it, before its turn to be added.
    pub(super) fn add(&mut self, side: Side, connection: Connection, boot: Option<u64>) -> bool {
        if self.removed {
            connection.close(code::REMOVED, b"removed");
            return false;
        }
        if let Side::Accepted(came) = side {
            if self.accepted.is_some() && came < self.came {
                connection.close(code::REPLACED, b"replaced");
                return false;
            }
            self.came = came;
        }
        if let Some(boot) = boot {
            self.hello(boot);
        }
        let held = Held { connection, boot };
        let place = match side {
            Side::Dialled => &mut self.dialled,
            Side::Accepted(_) => &mut self.accepted,
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
        if let Some(early) = self.early.take() {
            early.close(code, reason);
        }
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

/// A connection before the end of its handshake. Streams that use it already
/// would keep it: it is closed with this, unless it is confirmed.
pub(super) struct Unconfirmed<'a> {
    entry: &'a Entry,
    connection: Connection,
    confirmed: bool,
}

impl<'a> Unconfirmed<'a> {
    pub(super) const fn new(entry: &'a Entry, connection: Connection) -> Self {
        Self {
            entry,
            connection,
            confirmed: false,
        }
    }

    /// Lets calls use it that may be made twice, until this is dropped.
    pub(super) fn offer(&self) {
        self.entry.links.lock().early = Some(self.connection.clone());
        self.entry.changed.notify_waiters();
    }

    /// Looks whether the handshake has come to its end, now that it goes on no more.
    pub(super) fn confirm(mut self) -> Result<Connection, ConnectionError> {
        match self.connection.close_reason() {
            Some(error) => Err(error),
            None => {
                self.confirmed = true;
                Ok(self.connection.clone())
            }
        }
    }
}

impl Drop for Unconfirmed<'_> {
    fn drop(&mut self) {
        let is_it = |early: &mut Connection| early.stable_id() == self.connection.stable_id();
        drop(self.entry.links.lock().early.take_if(is_it));
        if !self.confirmed {
            self.connection
                .close(code::UNCONFIRMED, b"the handshake was given up");
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
