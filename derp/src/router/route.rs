//! From a packet to the queue of its destination.

use std::collections::HashSet;
use std::time::Instant;

use super::conn::Route;
use super::{ConnId, Outcome, Peer, Router};
use crate::NodeKey;
use crate::frame::{ForwardPacket, PeerGone, Reason, RecvPacket, SendPacket};

impl<H: Clone> Router<H> {
    pub(super) fn handle_packet(
        &mut self,
        from: ConnId,
        packet: &SendPacket<'_>,
        now: Instant,
    ) -> Outcome {
        let Some(sender) = self.conns.get(&from) else {
            return Outcome::Taken;
        };
        let (route, source) = (sender.route, sender.client.key);
        let fresh = route.filter(|route| route.to == packet.to && route.epoch == self.epoch);
        let found = match fresh {
            Some(route) => Some(route.conn),
            None => self.route(from, source, packet.to),
        };
        let Some(to) = found else {
            self.not_here(from, packet.to, now);
            return Outcome::Taken;
        };
        let keys = (source, packet.to);
        let outcome = self.deliver(from, to, keys, packet.data, now);
        if outcome == Outcome::Taken
            && let Some(sender) = self.conns.get_mut(&from)
        {
            sender.blocked_since = None;
        }
        outcome
    }

    /// Finds the connection that receives for `to`, and remembers it and the
    /// acquaintance.
    fn route(&mut self, from: ConnId, source: NodeKey, to: NodeKey) -> Option<ConnId> {
        let peer = self.peers.get_mut(&source)?;
        if peer.conns.last() != Some(&from) || peer.moved {
            // Who sent last receives.
            peer.moved = false;
            peer.conns.retain(|other| *other != from);
            peer.conns.push(from);
            self.epoch += 1;
        }
        let conn = self.find(&to)?;
        if self.peers.contains_key(&to) {
            self.introduce(source, to);
        } else {
            self.acquaint(to, source);
        }
        if let Some(sender) = self.conns.get_mut(&from) {
            let epoch = self.epoch;
            sender.route = Some(Route { to, conn, epoch });
        }
        Some(conn)
    }

    /// The connection that leads to a key: its newest one, here or at another
    /// server.
    fn find(&self, to: &NodeKey) -> Option<ConnId> {
        let here = self.peers.get(to);
        let newest = here.and_then(|peer| peer.conns.last().copied());
        if here.is_some_and(|peer| !peer.moved) {
            return newest;
        }
        self.link_to(to).or(newest)
    }

    fn introduce(&mut self, a: NodeKey, b: NodeKey) {
        let limit = self.limits.known;
        let room = |key| {
            self.peers
                .get(key)
                .is_some_and(|peer: &Peer| peer.known.len() < limit)
        };
        if a == b || !room(&a) || !room(&b) {
            return;
        }
        for (one, other) in [(a, b), (b, a)] {
            if let Some(peer) = self.peers.get_mut(&one) {
                peer.known.insert(other);
            }
        }
    }

    /// Queues a packet, whose sender and destination are `keys`, on the
    /// connection `to`.
    pub(super) fn deliver(
        &mut self,
        from: ConnId,
        to: ConnId,
        keys: (NodeKey, NodeKey),
        data: &[u8],
        now: Instant,
    ) -> Outcome {
        let Some(target) = self.conns.get_mut(&to) else {
            return Outcome::Taken;
        };
        let (from_key, to_key) = keys;
        let is_link = target.is_link();
        let pushed = if is_link {
            let frame = ForwardPacket {
                from: from_key,
                to: to_key,
                data,
            };
            target.queue.push_packet(&frame, data)
        } else {
            let frame = RecvPacket {
                from: from_key,
                data,
            };
            target.queue.push_packet(&frame, data)
        };
        if pushed.is_ok() {
            self.counters.packets += 1;
            self.counters.bytes += data.len() as u64;
            self.counters.forwarded += u64::from(is_link);
            self.wake_idle(to);
            return Outcome::Taken;
        }
        if target.overloaded {
            self.counters.dropped += 1;
            return Outcome::Taken;
        }
        self.wait_or_drop(from, to, now)
    }

    fn wait_or_drop(&mut self, from: ConnId, to: ConnId, now: Instant) -> Outcome {
        // A connection that sends to itself cannot read and so make room, and
        // a server that waits for one client keeps all others waiting.
        let sender = self.conns.get_mut(&from);
        let Some(sender) = sender.filter(|sender| from != to && !sender.is_server()) else {
            self.counters.dropped += 1;
            return Outcome::Taken;
        };
        if sender.blocked_since.is_none() {
            self.counters.held_up += 1;
        }
        let until = *sender.blocked_since.get_or_insert(now) + self.limits.patience;
        let Some(target) = self.conns.get_mut(&to) else {
            return Outcome::Taken;
        };
        if now < until {
            target.waiters.insert(from);
            return Outcome::Blocked(until);
        }
        target.overloaded = true;
        self.counters.dropped += 1;
        for waiter in std::mem::take(&mut target.waiters) {
            self.wake(waiter);
        }
        Outcome::Taken
    }

    pub(super) fn not_here(&mut self, from: ConnId, key: NodeKey, now: Instant) {
        self.counters.not_here += 1;
        let Some(sender) = self.conns.get_mut(&from) else {
            return;
        };
        sender.blocked_since = None;
        if sender.may_say_not_here(now) {
            let reason = Reason::NOT_HERE;
            sender.control(&PeerGone { key, reason }, &mut self.counters);
            self.wake_idle(from);
        }
    }

    /// Drops a peer without connections and tells its acquaintances, unless it
    /// is at another server now.
    pub(super) fn forget(&mut self, key: NodeKey) {
        let Some(gone) = self.peers.remove(&key) else {
            return;
        };
        self.tell_watchers(key);
        if self.link_to(&key).is_some() {
            for other in gone.known {
                if let Some(peer) = self.peers.get_mut(&other) {
                    peer.known.remove(&key);
                }
                self.acquaint(key, other);
            }
            return;
        }
        self.tell_gone(key, gone.known);
    }

    /// Tells those who exchanged packets with `key` that it is gone.
    pub(super) fn tell_gone(&mut self, key: NodeKey, known: HashSet<NodeKey>) {
        let reason = Reason::DISCONNECTED;
        for other in known {
            let Some(peer) = self.peers.get_mut(&other) else {
                continue;
            };
            peer.known.remove(&key);
            for id in peer.conns.clone() {
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.control(&PeerGone { key, reason }, &mut self.counters);
                }
                self.wake_idle(id);
            }
        }
    }
}
