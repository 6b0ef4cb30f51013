//! Addresses that might work, and the probes that went to them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Addresses remembered for one peer. A new one pushes out the one that has
/// been silent for longest.
const MAX_CANDIDATES: usize = 16;
/// In a round each address is probed at once and after these pauses: the first
/// probe often only opens our own NAT, and the peer's needs a moment.
const PAUSES_MS: [u64; 4] = [100, 200, 400, 800];
/// Probes whose answer is still awaited, per address.
const MAX_OUTSTANDING: usize = 8;

/// An address at which the peer might be reached.
pub(super) struct Candidate {
    pub(super) addr: SocketAddr,
    outstanding: Vec<(u64, Instant)>,
    /// Index of the next pause of the round.
    step: usize,
    due: Option<Instant>,
    answered: Option<Instant>,
    fresh: bool,
}

impl Candidate {
    fn start(&mut self, now: Instant) {
        self.step = 0;
        self.due = Some(now);
        self.fresh = false;
    }
}

/// All candidates of one peer.
#[derive(Default)]
pub(super) struct Candidates {
    list: Vec<Candidate>,
}

impl Candidates {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.list.iter()
    }

    pub(super) fn get(&self, addr: SocketAddr) -> Option<&Candidate> {
        self.list.iter().find(|candidate| candidate.addr == addr)
    }

    /// Remembers an address. `keep` is not pushed out.
    pub(super) fn add(&mut self, addr: SocketAddr, keep: Option<SocketAddr>) {
        if self.get(addr).is_some() {
            return;
        }
        if self.list.len() >= MAX_CANDIDATES {
            let others = self.list.iter().enumerate();
            let others = others.filter(|(_, c)| Some(c.addr) != keep);
            let Some((at, _)) = others.min_by_key(|(_, c)| c.answered) else {
                return;
            };
            self.list.remove(at);
        }
        self.list.push(Candidate {
            addr,
            outstanding: Vec::new(),
            step: 0,
            due: None,
            answered: None,
            fresh: true,
        });
    }

    /// Begins a round with every address; `once` sends one probe to each.
    pub(super) fn start_all(&mut self, now: Instant, once: bool) {
        for candidate in &mut self.list {
            candidate.start(now);
            if once {
                candidate.step = PAUSES_MS.len();
            }
        }
    }

    /// Ends all rounds.
    pub(super) fn stop(&mut self) {
        for candidate in &mut self.list {
            candidate.due = None;
        }
    }

    /// Whether some address has never been in a round.
    pub(super) fn has_fresh(&self) -> bool {
        self.list.iter().any(|candidate| candidate.fresh)
    }

    /// Probes an address at once; begins a round with it, unless it is in one.
    pub(super) fn restart(&mut self, addr: SocketAddr, now: Instant) {
        let Some(candidate) = self.list.iter_mut().find(|c| c.addr == addr) else {
            return;
        };
        match &mut candidate.due {
            Some(due) => *due = now,
            None => candidate.start(now),
        }
    }

    /// The next address to be probed now.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<SocketAddr> {
        let is_due = |c: &&mut Candidate| c.due.is_some_and(|at| at <= now);
        let candidate = self.list.iter_mut().find(is_due)?;
        let pause = PAUSES_MS.get(candidate.step);
        candidate.due = pause.map(|ms| now + Duration::from_millis(*ms));
        candidate.step += 1;
        Some(candidate.addr)
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.list.iter().filter_map(|candidate| candidate.due).min()
    }

    /// A probe has gone out.
    pub(super) fn sent(&mut self, addr: SocketAddr, id: u64, now: Instant) {
        if let Some(candidate) = self.list.iter_mut().find(|c| c.addr == addr) {
            if candidate.outstanding.len() >= MAX_OUTSTANDING {
                candidate.outstanding.remove(0);
            }
            candidate.outstanding.push((id, now));
        }
    }

    /// A probe was answered from `source`: when it was sent, if it went there.
    pub(super) fn answered(&mut self, source: SocketAddr, id: u64) -> Option<Instant> {
        let candidate = self.list.iter_mut().find(|c| c.addr == source)?;
        let at = candidate.outstanding.iter().position(|(i, _)| *i == id)?;
        let (_, sent) = candidate.outstanding[at];
        candidate.outstanding.drain(..=at);
        candidate.due = None;
        candidate.answered = Some(sent);
        Some(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(n: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], 1))
    }

    #[test]
    fn the_longest_silent_address_makes_room() {
        let now = Instant::now();
        let mut all = Candidates::default();
        for n in 0..MAX_CANDIDATES as u8 {
            all.add(addr(n), None);
        }
        all.sent(addr(0), 1, now);
        assert_eq!(all.answered(addr(0), 1), Some(now));
        all.add(addr(100), Some(addr(1)));
        assert_eq!(all.iter().count(), MAX_CANDIDATES);
        assert!(all.get(addr(0)).is_some(), "it has answered");
        assert!(all.get(addr(1)).is_some(), "it is in use");
        assert!(all.get(addr(2)).is_none());
        assert!(all.get(addr(100)).is_some());
    }

    #[test]
    fn only_the_probed_address_may_answer() {
        let now = Instant::now();
        let mut all = Candidates::default();
        all.add(addr(1), None);
        all.add(addr(2), None);
        all.sent(addr(1), 5, now);
        assert_eq!(all.answered(addr(2), 5), None);
        assert_eq!(all.answered(addr(1), 6), None);
        assert_eq!(all.answered(addr(1), 5), Some(now));
        assert_eq!(all.answered(addr(1), 5), None, "once");
    }

    #[test]
    fn a_round_ends() {
        let mut now = Instant::now();
        let mut all = Candidates::default();
        all.add(addr(1), None);
        all.start_all(now, false);
        let mut probes = 0;
        while let Some(due) = all.next_due() {
            now = due;
            assert_eq!(all.pop_due(now), Some(addr(1)));
            assert_eq!(all.pop_due(now), None);
            probes += 1;
        }
        assert_eq!(probes, PAUSES_MS.len() + 1);
    }
}
