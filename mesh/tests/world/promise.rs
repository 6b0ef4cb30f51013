//! What must hold whenever something has happened.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::relay::State;
use super::run::{SECOND, World};
use crate::packet::{FULL_DATAGRAM, WIDE_DATAGRAM};
use crate::path::Via;

/// A direct path that no longer carries full packets may be trusted for that
/// long, if it is in use.
const TRUSTED_IN_VAIN: Duration = Duration::from_millis(1500);
/// The same for a path that still carries small ones. A probe that got through just before is
/// answered after a round trip, the next one follows a heartbeat later, and is waited for as long
/// as three round trips, each of up to 270 ms.
const TRUSTED_FOR_SMALL: Duration = Duration::from_millis(3200);
/// The larger size is used alone where it has arrived in that time: a path is asked every minute.
const WIDE_FRESH: Duration = Duration::from_secs(63);
/// Distinct initiations of a pair within a minute of peace.
const MAX_INITIATIONS: usize = 6;

/// What was seen, as far as promises are about more than the present.
#[derive(Default)]
pub(super) struct Watched {
    /// Since when a path that is trusted has not carried full packets.
    in_vain: HashMap<(usize, usize), InVain>,
    /// When a datagram of the larger size last got from a node to an address.
    wide_arrived: HashMap<(usize, SocketAddr), Instant>,
    initiations: BTreeMap<(usize, usize), Initiations>,
}

/// A path that is trusted alone, and does not carry full packets.
#[derive(Clone, Copy)]
struct InVain {
    addr: SocketAddr,
    since: Instant,
    /// Since when it carries nothing at all.
    dead: Option<Instant>,
}

/// When a pair began handshakes, and with which index.
type Initiations = VecDeque<(Instant, [u8; 4])>;

impl Watched {
    /// A datagram of that size gets from a node to an address, if it is not lost by chance.
    pub(super) fn gets_there(&mut self, node: usize, to: SocketAddr, size: usize, now: Instant) {
        if size == WIDE_DATAGRAM {
            self.wide_arrived.insert((node, to), now);
        }
    }
}

impl World {
    /// What a node sends to a peer goes where it arrives.
    pub(super) fn check_ways(
        &mut self,
        node: usize,
        peer: usize,
        ways: &[Via],
        wide: bool,
    ) -> Result<(), String> {
        let [Via::Direct(addr)] = *ways else {
            self.watched.in_vain.remove(&(node, peer));
            return Ok(());
        };
        self.check_path(node, peer, addr)?;
        if wide {
            self.check_wide(node, addr)?;
        }
        Ok(())
    }

    /// A path that is trusted alone carries full packets, or did a moment ago.
    fn check_path(&mut self, node: usize, peer: usize, addr: SocketAddr) -> Result<(), String> {
        if self.arrives(node, peer, addr, FULL_DATAGRAM) {
            self.watched.in_vain.remove(&(node, peer));
            return Ok(());
        }
        let now = self.now;
        let small = self.arrives(node, peer, addr, 200);
        let fresh = InVain {
            addr,
            since: now,
            dead: None,
        };
        let in_vain = self.watched.in_vain.entry((node, peer)).or_insert(fresh);
        if in_vain.addr != addr {
            *in_vain = fresh;
        }
        in_vain.dead = (!small).then(|| in_vain.dead.unwrap_or(now));
        let dead = in_vain.dead.map(|at| now.duration_since(at));
        if now.duration_since(in_vain.since) > TRUSTED_FOR_SMALL
            || dead.is_some_and(|time| time > TRUSTED_IN_VAIN)
        {
            let why = format!("{node} trusts {addr} to reach {peer}, which it does not");
            return Err(self.fail(&why));
        }
        Ok(())
    }

    /// Something has happened, which may have made a path a good one while nobody sends by it.
    pub(super) fn look_again(&mut self) {
        let vain = &self.watched.in_vain;
        let vain: Vec<_> = vain.iter().map(|(pair, it)| (*pair, it.addr)).collect();
        for ((node, peer), addr) in vain {
            if self.arrives(node, peer, addr, FULL_DATAGRAM) {
                self.watched.in_vain.remove(&(node, peer));
            }
        }
    }

    /// The larger size is used alone where it has arrived lately.
    fn check_wide(&self, node: usize, addr: SocketAddr) -> Result<(), String> {
        let arrived = self.watched.wide_arrived.get(&(node, addr));
        if arrived.is_some_and(|at| self.now.duration_since(*at) <= WIDE_FRESH) {
            return Ok(());
        }
        let why = format!("{node} sends more at once than has arrived at {addr}");
        Err(self.fail(&why))
    }

    /// Whether a datagram of this size gets from one node to another, were none
    /// lost by chance.
    fn arrives(&self, node: usize, peer: usize, addr: SocketAddr, size: usize) -> bool {
        let mut net = self.net.clone();
        let from = (node, self.nodes[node].port_for(addr));
        let there = net.carry(from, addr, size, self.now, &mut self.rng.clone());
        there.is_some_and(|there| {
            let it = &self.nodes[peer];
            let open = it.port == there.port || it.lanes.get(&there.source) == Some(&there.port);
            there.host == peer && open && self.is_awake(peer)
        })
    }

    /// Whether there is a way by a relay, or by both, when all have noticed.
    pub(super) fn is_way_by_relays(&self, a: usize, b: usize) -> bool {
        let relays = 0..self.relays.len();
        let reached = |node: usize| {
            let up = |relay: &usize| self.relays[*relay].state == State::Up;
            relays
                .clone()
                .filter(up)
                .filter(move |relay| !self.barred[node][*relay])
        };
        reached(a).any(|of_a| reached(b).any(|of_b| of_a == of_b || self.linked))
    }

    /// Since when nothing has happened to both.
    pub(super) fn peace(&self, a: usize, b: usize) -> Instant {
        self.disturbed[a]
            .max(self.disturbed[b])
            .max(self.relay_disturbed)
    }

    /// Two nodes that have peace do not go on making sessions.
    pub(super) fn count_initiation(
        &mut self,
        node: usize,
        peer: usize,
        bytes: &[u8],
    ) -> Result<(), String> {
        let index = *bytes[4..].first_chunk::<4>().unwrap();
        let pair = (node.min(peer), node.max(peer));
        let peace = self.peace(node, peer) + 12 * SECOND;
        let now = self.now;
        let there = self.is_there(node) && self.is_there(peer);
        let able = there && self.is_way_by_relays(node, peer);
        let recent = self.watched.initiations.entry(pair).or_default();
        if recent.iter().any(|(_, known)| *known == index) {
            return Ok(());
        }
        recent.push_back((now, index));
        while recent
            .front()
            .is_some_and(|(at, _)| *at + 60 * SECOND < now)
        {
            recent.pop_front();
        }
        let count = recent.iter().filter(|(at, _)| *at >= peace).count();
        self.note(|| format!("{node} begins a handshake with {peer}"));
        if able && count > MAX_INITIATIONS {
            return Err(self.fail(&format!("{node} and {peer} go on making sessions")));
        }
        Ok(())
    }

    /// No call waits for longer than it may, and no queue of a relay grows.
    pub(super) fn check_calls(&self) -> Result<(), String> {
        for node in 0..self.nodes.len() {
            for call in &self.nodes[node].calls {
                let (a, b) = (node, call.to);
                let up = self.is_way_by_relays(a, b);
                let proven = self.proven.contains(&(a.min(b), a.max(b)));
                if !(self.is_there(a) && self.is_there(b) && (up || proven)) {
                    continue;
                }
                let since = self.peace(a, b).max(call.started);
                if self.now.saturating_duration_since(since) > self.bound {
                    let took = self.now.duration_since(call.started);
                    let why = format!("{a} waits for {b} since {took:?} (call {})", call.id);
                    return Err(self.fail(&why));
                }
            }
        }
        if self.relays.iter().any(|relay| relay.waiting() > (4 << 20)) {
            return Err(self.fail("a relay's queues grow"));
        }
        Ok(())
    }
}
