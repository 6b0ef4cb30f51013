//! The relays: one by which peers find us, and one that stands by.
//!
//! Relays of one region pass on packets for each other's clients, so it does not
//! matter at which of them a peer is. A packet goes to the first relay. It goes to
//! the other one as well while the first has not answered a ping, or says that the
//! peer is not there, and if it begins a session; and instead while there is no
//! connection to the first. What comes twice is taken once, as WireGuard does with
//! any packet.
//!
//! Whose packets come by the other relay is answered there, since the peer may have
//! lost the first one before that noticed; for a while by both, since it may be the
//! relays that sent them around: right after a node has connected to one, the other
//! takes it for having moved.

mod link;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Context;
use std::time::{Duration, Instant};

use bytes::Bytes;
use derp::NodeKey;
use derp::io::client::Sender;
use parking_lot::Mutex;
use tokio::sync::Notify;

pub(super) use self::link::Target;
use self::link::{Link, Refusal};
use super::udp::Traffic;

/// Peers remembered as being at the other relay; who is forgotten is noticed again.
const MAX_STRAYS: usize = 4096;

/// Who turned up at the other relay so recently is answered by both. Relays know by
/// then where a node is: it has asked each of them whether it is there.
const UNSETTLED: Duration = Duration::from_secs(10);

/// The links to the relays.
pub(super) struct Relays {
    pub(super) first: Arc<Link>,
    pub(super) other: Arc<Link>,
    /// Whose last packet came by the other relay, and since when they do.
    strays: Mutex<HashMap<NodeKey, Instant>>,
    /// A connection came or went, came into doubt or out of it.
    changed: Arc<Notify>,
    /// Whose turn it is to be read.
    turn: AtomicBool,
}

impl Default for Relays {
    fn default() -> Self {
        let changed = Arc::<Notify>::default();
        let link = |is_first| Arc::new(Link::new(is_first, Arc::clone(&changed)));
        Self {
            first: link(true),
            other: link(false),
            strays: Mutex::default(),
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
        let stray = self.strays.lock().get(to).copied();
        let settled = stray.is_none_or(|since| since.elapsed() > UNSETTLED);
        let (one, two) = match stray {
            Some(_) => (&self.other, &self.first),
            None => (&self.first, &self.other),
        };
        let in_doubt = one.is_in_doubt();
        match one.send(to, packet) {
            Ok(()) => {
                if in_doubt || !settled || is_handshake(packet) || one.missed(to).is_some() {
                    // Where there is room, and otherwise not.
                    let _ = two.send(to, packet);
                }
                Ok(())
            }
            Err(Refusal::Full) if !in_doubt => Err(NoRoom),
            Err(_) => two.send(to, packet).map_err(|_| NoRoom),
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

    /// The next packet that came in, and whether it came by the other relay; or
    /// registers the task.
    pub(super) fn poll_recv(&self, cx: &Context<'_>) -> Option<(NodeKey, Bytes, bool)> {
        let others_turn = self.turn.fetch_xor(true, Relaxed);
        for is_other in [others_turn, !others_turn] {
            let link = if is_other { &self.other } else { &self.first };
            if let Some((from, packet)) = link.poll_recv(cx) {
                return Some((from, packet, is_other));
            }
        }
        None
    }

    /// A packet of a peer was authentic, and not a copy of one that had come before.
    pub(super) fn handle_authentic(&self, from: &NodeKey, is_other: bool) {
        let mut strays = self.strays.lock();
        if !is_other {
            if !strays.is_empty() {
                strays.remove(from);
            }
        } else if !strays.contains_key(from) {
            if strays.len() >= MAX_STRAYS {
                strays.clear();
            }
            strays.insert(*from, Instant::now());
        }
    }

    /// Waits until packets go by another connection than by `before`: the first
    /// relay is there again, or the other one has to do. Returns by which.
    pub(super) async fn rerouted(&self, mut before: Option<Route>) -> Option<Route> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let now = self.route();
            if now.is_some() && now != before {
                if now.is_some_and(|route| !route.is_other) {
                    // Whoever has the first relay, too, is to be found there again.
                    self.strays.lock().clear();
                }
                return now;
            }
            before = now;
            changed.await;
        }
    }

    fn route(&self) -> Option<Route> {
        let first = self.first.number().map(|number| (false, number));
        let (is_other, number) = first.or_else(|| Some((true, self.other.number()?)))?;
        Some(Route { is_other, number })
    }

    /// What has gone by relays since the start.
    pub(super) fn traffic(&self) -> [&Traffic; 2] {
        [&self.first.traffic, &self.other.traffic]
    }
}

/// Nothing was sent: the relay takes no packets at the moment.
#[derive(Debug)]
pub(super) struct NoRoom;

/// Whether a packet begins a session of WireGuard, or answers that. Where both relays
/// are there it goes by both: by which of them the peer can be heard is not known
/// before.
fn is_handshake(packet: &[u8]) -> bool {
    matches!(packet, [1 | 2, 0, 0, 0, ..])
}

/// A connection by which packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    is_other: bool,
    number: u64,
}
