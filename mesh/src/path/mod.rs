//! Which way packets go: over the relay, straight, or both.
//!
//! The relay carries everything until something better has proven itself. Both
//! nodes tell each other their addresses through the tunnel ("call me maybe")
//! and send full-size probes to the addresses they were told; a probe that is
//! answered from the address it went to makes that address the direct path. So
//! the first byte never waits for probing, probing can only improve, and a path
//! that lets small packets through but not large ones is never taken. Whether it
//! carries more than the least that every link carries is asked after that
//! (`width`); QUIC finds the larger size by itself, since datagrams of that size
//! are let through where they arrive, and nowhere else ([`Agent::route_for`]).
//!
//! While the direct path is in use it is probed every 2 s, and at once when
//! 250 ms after sending something nothing has come back. From then on, or when a
//! probe has stayed unanswered for 400 ms, when the last answer is older than
//! 3 s, or when the machine has moved or slept, the path is in doubt: packets go
//! both ways (the tunnel drops the second copy) and probes go out every 300 ms
//! until one is answered. After 5 s of probing in vain the path is given up, and
//! the search begins anew.
//! Without traffic nothing is sent at all, except that what a peer asks is
//! answered.
//!
//! Trust comes from pongs alone, because only a pong shows that what *we* send
//! arrives. Probes are authentic (they come through the tunnel), so the source
//! of one is worth a probe of our own: that finds peers behind a NAT that only
//! they can open. Where even that finds nothing, a port is guessed (`guess`).

mod candidate;
mod direct;
mod guess;
mod obstacle;
mod route;
#[cfg(test)]
mod tests;
mod width;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use candidate::Candidates;
use direct::{Check, Direct};
pub(crate) use guess::Around;
use guess::Guess;
pub use obstacle::Obstacle;
pub(crate) use route::{Route, Via};

use crate::control::Message;

/// The path counts as in use for that long after something was sent.
const IN_USE: Duration = Duration::from_secs(6);
/// What the peer wants keeps our timers running that long: a round of probes.
const ALERT: Duration = Duration::from_secs(2);
/// Pauses between rounds of probing while relayed; the last one repeats.
const ROUNDS: [Duration; 4] = [
    Duration::from_secs(3),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];
/// Somebody's addresses start a new round at most that often, whatever they
/// are: a peer must not turn us into a flood against others.
const ROUND_PAUSE: Duration = Duration::from_secs(1);
/// While direct, other candidates get a chance this often.
const UPGRADE: Duration = Duration::from_secs(60);

/// Decides about the paths to one peer.
pub(crate) struct Agent {
    enabled: bool,
    /// Shared by all agents of a node.
    endpoints: Arc<[SocketAddr]>,
    candidates: Candidates,
    /// By itself: most peers have none.
    direct: Option<Box<Direct>>,
    /// A direct path has carried the larger size: connections may be using it.
    wide: bool,
    /// Whether timers run: from the first use until nothing was sent for a while.
    awake: bool,
    last_used: Option<Instant>,
    /// The peer wants something of us until then. That is no use of the path:
    /// two that took it for one would keep each other awake for ever.
    alert_until: Option<Instant>,
    /// The peer was told our present addresses.
    told: bool,
    round: usize,
    next_round: Option<Instant>,
    round_at: Option<Instant>,
    /// When a round last had somebody to probe.
    probed_at: Option<Instant>,
    told_at: Option<Instant>,
    guess: Guess,
    next_id: u64,
    out: VecDeque<(Via, Message)>,
}

impl Agent {
    /// An agent that knows no direct path, and, unless `enabled`, never will.
    /// Probe ids count up from `first_id`.
    pub(crate) fn new(enabled: bool, first_id: u64) -> Self {
        Self {
            enabled,
            endpoints: Arc::default(),
            candidates: Candidates::default(),
            direct: None,
            wide: false,
            awake: false,
            last_used: None,
            alert_until: None,
            told: false,
            round: 0,
            next_round: None,
            round_at: None,
            probed_at: None,
            told_at: None,
            guess: Guess::default(),
            next_id: first_id,
            out: VecDeque::new(),
        }
    }

    /// Says where this node can be reached, best first.
    pub(crate) fn set_endpoints(&mut self, endpoints: Arc<[SocketAddr]>) {
        if self.endpoints == endpoints {
            return;
        }
        self.endpoints = endpoints;
        self.tell_soon();
    }

    /// What the peer was told is not true any more.
    fn tell_soon(&mut self) {
        self.told = false;
        // Worth telling soon, if the peer is still looking for us.
        if let (None, Some(round)) = (&self.direct, self.round_at) {
            let soon = round + ROUND_PAUSE;
            self.next_round = self.next_round.map(|at| at.min(soon));
        }
    }

    /// Something authentic came from the peer.
    pub(crate) fn handle_heard(&mut self, via: Via, now: Instant) {
        if let Some(direct) = &mut self.direct
            && via == Via::Direct(direct.addr)
        {
            direct.handle_heard(now);
        }
    }

    /// Every address at which the peer might be, for a handshake when no path
    /// is known to work.
    pub(crate) fn possible(&self) -> impl Iterator<Item = SocketAddr> {
        self.candidates.iter().map(|candidate| candidate.addr)
    }

    /// A session with the peer came up: it may now be told our addresses.
    pub(crate) fn handle_session(&mut self, now: Instant) {
        if self.enabled {
            self.wake(now);
            self.round = 0;
            // What was said before could not be heard.
            self.told_at = None;
            self.told = false;
            if self.direct.is_none() {
                self.start_round(now);
            }
        }
    }

    /// The peer was restarted: its port is another one now, its addresses may
    /// well be the same.
    pub(crate) fn handle_restart(&mut self, now: Instant) {
        self.direct = None;
        self.wide = false;
        self.handle_session(now);
    }

    /// The peer has gone: whatever was known about paths to it is void.
    pub(crate) fn handle_departure(&mut self) {
        self.direct = None;
        self.wide = false;
        self.candidates = Candidates::default();
        self.next_round = None;
        self.round_at = None;
        self.told_at = None;
        self.told = false;
        self.guess.handle_departure();
        self.out.clear();
    }

    /// This machine has other addresses now, or has slept: the path in use is
    /// in doubt, and the peer is told at once.
    pub(crate) fn handle_move(&mut self, now: Instant) {
        if let Some(direct) = &mut self.direct {
            direct.handle_suspicion(now);
        }
        self.round = 0;
        self.round_at = None;
        self.told_at = None;
        self.guess.handle_move();
        if self.is_used(now) {
            self.start_round(now);
        }
    }

    /// The peer's addresses.
    pub(crate) fn handle_call_me_maybe(&mut self, endpoints: &[SocketAddr], now: Instant) {
        if !self.enabled {
            return;
        }
        self.rouse(now, ALERT);
        let keep = self.direct.as_ref().map(|direct| direct.addr);
        for endpoint in endpoints.iter().filter(|addr| is_plausible(addr)) {
            self.candidates.add(*endpoint, keep);
        }
        if self.is_certain(now) {
            return;
        }
        match self.probed_at.map(|at| at + ROUND_PAUSE) {
            Some(next) if next > now => {
                if self.candidates.has_fresh() {
                    self.next_round = Some(self.next_round.map_or(next, |at| at.min(next)));
                }
            }
            _ => self.start_round(now),
        }
    }

    /// A probe, which came `via`: answer it the same way.
    pub(crate) fn handle_probe(&mut self, id: u64, via: Via, now: Instant) {
        let Via::Direct(source) = via else {
            return;
        };
        if !self.enabled {
            return;
        }
        let pong = Message::Pong {
            id,
            observed: source,
        };
        self.out.push_back((via, pong));
        if is_plausible(&source) && self.candidates.get(source).is_none() {
            let keep = self.direct.as_ref().map(|direct| direct.addr);
            self.candidates.add(source, keep);
        }
        if self.is_used(now) && !self.is_certain(now) {
            // It got through to us, so it has opened the way back.
            self.candidates.restart(source, now);
            self.send_due_probes(now);
        }
    }

    /// An answer to a probe, which came `via`.
    pub(crate) fn handle_pong(&mut self, id: u64, via: Via, now: Instant) {
        let Via::Direct(source) = via else {
            return;
        };
        let Some(sent) = self.candidates.answered(source, id) else {
            return;
        };
        if let Some(direct) = &mut self.direct
            && direct.addr == source
        {
            self.wide |= direct.width.answered(id, sent);
        }
        let rtt = now.saturating_duration_since(sent);
        let better = |direct: &Direct| direct.addr == source || direct.is_beaten_by(rtt, now);
        if self.direct.as_deref().is_none_or(better) {
            match &mut self.direct {
                Some(direct) if direct.addr == source => direct.confirm(sent, now),
                other => *other = Some(Box::new(Direct::new(source, rtt, now))),
            }
            self.next_round = Some(now + UPGRADE);
            self.round = 0;
            self.guess.succeed();
        }
    }

    /// Runs what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if !self.awake {
            return;
        }
        if self.idle_at().is_none_or(|at| at <= now) {
            self.awake = false;
            self.alert_until = None;
            self.candidates.stop();
            self.guess.stop();
            return;
        }
        self.watch_direct(now);
        self.handle_guess(now);
        if self.next_round.is_some_and(|at| at <= now) {
            self.start_round(now);
        }
        self.send_due_probes(now);
    }

    /// When [`Agent::handle_timeout`] wants to be called; `None` while the path
    /// is not in use.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if !self.awake {
            return None;
        }
        let direct = self
            .direct
            .as_ref()
            .map(|direct| direct.probe_at().min(direct.width.due()));
        let all = [
            self.idle_at(),
            self.next_round,
            self.candidates.next_due(),
            self.guess.due(),
            direct,
        ];
        all.into_iter().flatten().min()
    }

    /// The next control message to be sent, and the way it must go.
    pub(crate) fn poll_transmit(&mut self) -> Option<(Via, Message)> {
        self.out.pop_front()
    }

    fn idle_at(&self) -> Option<Instant> {
        let unused = self.last_used.map(|at| at + IN_USE);
        unused.max(self.alert_until)
    }

    /// Whether something was sent lately.
    pub(crate) fn is_used(&self, now: Instant) -> bool {
        self.last_used.is_some_and(|at| now < at + IN_USE)
    }

    /// Whether there is a direct path beyond doubt.
    fn is_certain(&self, now: Instant) -> bool {
        self.direct
            .as_ref()
            .is_some_and(|direct| !direct.in_doubt(now))
    }

    /// The peer wants something: timers run for that long.
    fn rouse(&mut self, now: Instant, alert: Duration) {
        self.awake = true;
        self.alert_until = self.alert_until.max(Some(now + alert));
    }

    /// The path is needed: timers run from now on.
    fn wake(&mut self, now: Instant) {
        let used = self.is_used(now);
        self.last_used = Some(now);
        if used {
            return;
        }
        self.awake = true;
        if let Some(direct) = &mut self.direct {
            direct.handle_wake(now);
        } else {
            // Look for a direct path soon, but not more often than in use.
            self.round = 0;
            let soon = self.round_at.map_or(now, |at| (at + ROUNDS[0]).max(now));
            self.next_round = Some(soon);
        }
    }

    fn watch_direct(&mut self, now: Instant) {
        let Some(direct) = &mut self.direct else {
            return;
        };
        let addr = direct.addr;
        let wide = direct.width.check(self.next_id, direct.rtt, now);
        let check = direct.check(now);
        if wide {
            self.probe(addr, true, now);
        }
        match check {
            Check::Fine => {}
            Check::Probe => self.probe(addr, false, now),
            Check::GiveUp => {
                self.direct = None;
                self.round = 0;
                self.next_round = Some(now);
            }
        }
    }

    fn start_round(&mut self, now: Instant) {
        self.round_at = Some(now);
        if self.candidates.iter().next().is_some() {
            self.probed_at = Some(now);
        }
        let pause = match &self.direct {
            Some(_) => UPGRADE,
            None => ROUNDS[self.round.min(ROUNDS.len() - 1)],
        };
        self.next_round = Some(now + pause);
        self.round += 1;
        let told = |at: Instant| now.saturating_duration_since(at) < ROUND_PAUSE;
        let worth_telling = self.is_used(now) || !self.told;
        if !self.is_certain(now) && worth_telling && !self.told_at.is_some_and(told) {
            self.told_at = Some(now);
            self.told = true;
            let endpoints = self.endpoints.to_vec();
            let outside = self.guess.ours().map(Message::Outside);
            let call = Message::CallMeMaybe { endpoints };
            let told = outside.into_iter().chain([call]);
            self.out.extend(told.map(|message| (Via::Relay, message)));
        }
        if self.direct.is_none() {
            self.guess.plan(now);
        }
        self.candidates.start_all(now, self.direct.is_some());
        self.send_due_probes(now);
    }

    fn send_due_probes(&mut self, now: Instant) {
        while let Some(addr) = self.candidates.pop_due(now) {
            self.probe(addr, false, now);
        }
    }

    fn probe(&mut self, addr: SocketAddr, wide: bool, now: Instant) {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let keep = Some(addr);
        self.candidates.add(addr, keep);
        self.candidates.sent(addr, id, now);
        self.out
            .push_back((Via::Direct(addr), Message::Probe { id, wide }));
    }
}

/// Whether an address may be probed: something a datagram can be sent to, and
/// meant for one host.
fn is_plausible(addr: &SocketAddr) -> bool {
    let good = match addr.ip() {
        IpAddr::V4(ip) => !ip.is_broadcast(),
        // A link-local address means nothing without the interface.
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    };
    good && addr.port() != 0 && !addr.ip().is_unspecified() && !addr.ip().is_multicast()
}
