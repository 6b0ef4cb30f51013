//! The relays: one by which peers find us, and one that stands by.
//!
//! By which of them a packet goes `crate::standby` decides.

mod link;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Context;
use std::time::{Duration, Instant};

use bytes::Bytes;
use derp::NodeKey;
use derp::io::client::Sender;
use parking_lot::Mutex;
use tokio::sync::Notify;

use self::link::Link;
pub(super) use self::link::Target;
use super::udp::Traffic;
use crate::standby::{Standby, Standing, Which};

/// The links to the relays.
pub(super) struct Relays {
    pub(super) first: Arc<Link>,
    pub(super) other: Arc<Link>,
    standby: Mutex<Standby>,
    /// A connection came or went, came into doubt or out of it.
    changed: Arc<Notify>,
    /// Whose turn it is to be read.
    turn: AtomicBool,
}

impl Default for Relays {
    fn default() -> Self {
        let changed = Arc::<Notify>::default();
        let link = || Arc::new(Link::new(Arc::clone(&changed)));
        Self {
            first: link(),
            other: link(),
            standby: Mutex::default(),
            changed,
            turn: AtomicBool::new(false),
        }
    }
}

impl Relays {
    /// Whether a relay is connected now.
    pub(super) fn is_connected(&self) -> bool {
        self.first.is_connected() || self.other.is_connected()
    }

    /// Sends a packet.
    ///
    /// # Errors
    ///
    /// When the relay's queue is full, or there is no connection: nothing was
    /// sent, [`Relays::room`] says when to try again. Who waits through a restart
    /// of the relay goes on the moment it is back.
    pub(super) fn send(&self, to: &NodeKey, packet: &[u8]) -> Result<(), NoRoom> {
        if !self.other.is_connected() {
            let sent = self.first.send(to, packet);
            return sent.map_err(|_| NoRoom);
        }
        let standing = |which| {
            let link = self.link(which);
            Standing {
                in_doubt: link.is_in_doubt(),
                misses_peer: link.missed(to).is_some(),
            }
        };
        let plan = self
            .standby
            .lock()
            .plan(to, packet, Instant::now(), standing);
        let sent = plan.carry_out(|which| self.link(which).send(to, packet));
        sent.map_err(|_| NoRoom)
    }

    fn link(&self, which: Which) -> &Link {
        match which {
            Which::First => &self.first,
            Which::Other => &self.other,
        }
    }

    /// Waits until a packet that was refused may be taken.
    pub(super) async fn room(&self) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Listen first, then look.
            changed.as_mut().enable();
            let links = [&self.first, &self.other];
            let sure = links.iter().filter(|link| !link.is_in_doubt());
            let mut senders: Vec<Sender> = sure.filter_map(|link| link.sender()).collect();
            if senders.is_empty() {
                senders = links.iter().filter_map(|link| link.sender()).collect();
            }
            let room = async {
                for sender in &senders {
                    sender.room().await;
                }
            };
            tokio::select! {
                () = room, if !senders.is_empty() => return,
                () = changed => {}
            }
        }
    }

    /// The machine has other addresses now, or has slept: the connections are
    /// made anew.
    pub(super) fn handle_move(&self) {
        self.first.handle_move();
        self.other.handle_move();
    }

    /// The round-trip time to the relay in use.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.first.rtt().or_else(|| self.other.rtt())
    }

    /// When the relays last said that the peer is not there, if nothing has come
    /// from it since. All that are connected must have said it.
    pub(super) fn missed(&self, peer: &NodeKey) -> Option<Instant> {
        let links = [&self.first, &self.other];
        let connected = links.iter().filter(|link| link.is_connected());
        let missed: Option<Vec<Instant>> = connected.map(|link| link.missed(peer)).collect();
        missed?.into_iter().min()
    }

    /// Waits until the relays have answered, and so have read what was sent before.
    pub(super) async fn written(&self) {
        tokio::join!(self.first.written(), self.other.written());
    }

    /// The next packet that came in, and by which relay; or registers the task.
    pub(super) fn poll_recv(&self, cx: &Context<'_>) -> Option<(NodeKey, Bytes, Which)> {
        let turn = match self.turn.fetch_xor(true, Relaxed) {
            true => Which::Other,
            false => Which::First,
        };
        for which in [turn, turn.other()] {
            if let Some((from, packet)) = self.link(which).poll_recv(cx) {
                return Some((from, packet, which));
            }
        }
        None
    }

    /// A packet of a peer was authentic, and not a copy of one that had come before.
    pub(super) fn handle_authentic(&self, from: &NodeKey, by: Which) {
        let mut standby = self.standby.lock();
        standby.handle_authentic(from, by, Instant::now());
    }

    /// Tells the relays where we are to be found, until packets go by another
    /// connection than before: the first relay is there again, or the other one has
    /// to do. For one task.
    pub(super) async fn run_until_rerouted(&self) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let links = [&self.first, &self.other];
            let connections = links.map(|link| link.connection());
            let change = self.standby.lock().handle_connections(connections);
            for (link, note) in links.into_iter().zip(change.notes) {
                if let (Some(preferred), Some(sender)) = (note, link.sender()) {
                    sender.note_preferred(preferred);
                }
            }
            if change.rerouted {
                return;
            }
            changed.await;
        }
    }

    /// What has gone by relays since the start.
    pub(super) fn traffic(&self) -> [&Traffic; 2] {
        [&self.first.traffic, &self.other.traffic]
    }
}

/// Nothing was sent: the relay takes no packets at the moment.
#[derive(Debug)]
pub(super) struct NoRoom;
