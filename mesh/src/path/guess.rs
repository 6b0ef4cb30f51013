//! Guessing a port: the way between a NAT that gives its node another address
//! for each of those it talks to (hard) and one that does not (easy).
//!
//! Nobody can tell where the node behind the hard one may be reached, and the
//! NAT lets nobody in whom its node has not written to. So the hard side opens
//! many ports towards the one address of the easy side ([`Via::Fan`]), and the
//! easy side knocks at ports by chance, each once. Of 64 512 ports 256 are open:
//! half of all pairs meet within 175 knocks, 95 of 100 within 755, and all but
//! three of ten thousand within the 2 048 that an attempt has. A knock is small
//! and needs no answer: where one comes in, both sides begin to probe, and from
//! there it goes as with any other address.
//!
//! The easy side leads: it knows from [`Message::Outside`] how both look, asks
//! the other one by the relay to open up, and knocks 100 times a second. It does
//! so only while the path is in use, after ordinary probes had their chance, and
//! next only after a pause that grows with each failure. Between two hard sides,
//! or two easy ones, nothing is guessed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::{Agent, Via, is_plausible};
use crate::control::Message;
use crate::reflect::{Mapping, Outside};

/// Ordinary probes get that long after a round has begun.
const AFTER_ROUND: Duration = Duration::from_millis(1800);
/// From asking the other side to open up to the first knock: what it takes by
/// the relay.
const HEAD_START: Duration = Duration::from_millis(200);
const KNOCKS: u32 = 2048;
/// Attempts of one node at one time; the others wait for their next round.
const AT_ONCE: usize = 2;
const KNOCK_PAUSE: Duration = Duration::from_millis(10);
/// From the start of one attempt to the next, by attempts that failed before;
/// the last one repeats.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(30),
    Duration::from_secs(120),
    Duration::from_secs(600),
    Duration::from_secs(1800),
];
/// The hard side sends from all its ports so often in one attempt, so that
/// one lost datagram closes no port and the NAT forgets none.
const OPENINGS: u32 = 6;
const OPENING_PAUSE: Duration = Duration::from_secs(4);
/// A peer may ask for another fan of ports after that long.
const OPEN_AGAIN: Duration = Duration::from_secs(20);
/// Ports that NATs give out.
const FIRST_PORT: u32 = 1024;
const PORTS: u32 = 65_536 - FIRST_PORT;

/// What all agents of a node share.
#[derive(Debug, Default)]
pub(crate) struct Around {
    /// How the node looks from outside its NAT, as far as is known.
    pub(crate) outside: Option<Outside>,
    /// Attempts under way; with many hard peers they would become a flood.
    pub(crate) attempts: Arc<AtomicUsize>,
}

/// What is known about both sides. Of a peer that has not been heard this is
/// small: there may be thousands.
#[derive(Debug, Default)]
pub(super) struct Guess {
    around: Arc<Around>,
    state: Option<Box<State>>,
}

/// The peer, and the attempt under way.
#[derive(Debug, Default)]
struct State {
    theirs: Option<Outside>,
    /// When an attempt may begin, if it is still needed then.
    planned: Option<Instant>,
    /// No attempt before then.
    rested: Option<Instant>,
    failures: usize,
    knocks: Option<Knocks>,
    openings: Option<Openings>,
    opened: Option<Instant>,
}

/// One attempt's place among them.
#[derive(Debug)]
struct Turn(Arc<AtomicUsize>);

impl Turn {
    fn take(attempts: &Arc<AtomicUsize>) -> Option<Self> {
        let more = |taken| (taken < AT_ONCE).then_some(taken + 1);
        let taken = attempts.fetch_update(Relaxed, Relaxed, more);
        taken.is_ok().then(|| Self(Arc::clone(attempts)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[derive(Debug)]
struct Knocks {
    _turn: Turn,
    at: IpAddr,
    ports: Ports,
    left: u32,
    due: Instant,
}

#[derive(Debug)]
struct Openings {
    to: SocketAddr,
    left: u32,
    due: Instant,
}

/// All ports, each once, in an order that depends on a seed.
#[derive(Debug)]
struct Ports {
    at: u32,
    step: u32,
}

impl Ports {
    fn new(seed: u64) -> Self {
        // Any step without a factor in common with the number of ports
        // (2^10 * 3^2 * 7) goes through all of them.
        let mut step = ((seed >> 32) as u32 % PORTS) | 1;
        while step.is_multiple_of(3) || step.is_multiple_of(7) {
            step += 2;
        }
        Self {
            at: seed as u32 % PORTS,
            step: step % PORTS,
        }
    }
}

impl Iterator for Ports {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        self.at = (self.at + self.step) % PORTS;
        u16::try_from(FIRST_PORT + self.at).ok()
    }
}

impl Guess {
    fn is(side: Option<Outside>, mapping: Mapping) -> bool {
        side.is_some_and(|side| side.mapping == mapping)
    }

    fn seen(&self) -> Option<Outside> {
        self.state.as_ref().and_then(|state| state.theirs)
    }

    /// Whether we are the easy side of such a pair.
    fn leads(&self) -> bool {
        Self::is(self.ours(), Mapping::Same) && Self::is(self.seen(), Mapping::Varies)
    }

    /// How the peer's NAT chooses.
    pub(super) fn theirs(&self) -> Mapping {
        self.seen().map_or(Mapping::Unknown, |side| side.mapping)
    }

    /// Whether both sides are hard: there is nothing to be guessed.
    pub(super) fn is_hopeless(&self) -> bool {
        Self::is(self.ours(), Mapping::Varies) && Self::is(self.seen(), Mapping::Varies)
    }

    /// Whether an attempt is under way.
    pub(super) fn is_busy(&self) -> bool {
        let state = self.state.as_ref();
        state.is_some_and(|state| state.knocks.is_some() || state.openings.is_some())
    }

    /// What is to be told to the peer about us.
    pub(super) fn ours(&self) -> Option<Outside> {
        self.around.outside
    }

    /// A path was found.
    pub(super) fn succeed(&mut self) {
        self.stop();
        if let Some(state) = &mut self.state {
            state.failures = 0;
        }
    }

    /// Nobody needs a path any more.
    pub(super) fn stop(&mut self) {
        if let Some(state) = &mut self.state {
            state.planned = None;
            state.knocks = None;
            state.openings = None;
        }
    }

    /// The machine is elsewhere: everything may be tried again.
    pub(super) fn handle_move(&mut self) {
        self.stop();
        if let Some(state) = &mut self.state {
            state.rested = None;
            state.opened = None;
            state.failures = 0;
        }
    }

    /// The peer is gone.
    pub(super) fn handle_departure(&mut self) {
        self.state = None;
    }

    /// A round of ordinary probes has begun.
    pub(super) fn plan(&mut self, now: Instant) {
        if !self.leads() {
            return;
        }
        if let Some(state) = &mut self.state
            && state.knocks.is_none()
            && state.planned.is_none()
        {
            state.planned = Some((now + AFTER_ROUND).max(state.rested.unwrap_or(now)));
        }
    }

    /// When something is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let state = self.state.as_ref()?;
        let knock = state.knocks.as_ref().map(|knocks| knocks.due);
        let opening = state.openings.as_ref().map(|openings| openings.due);
        let all = [state.planned, knock, opening];
        all.into_iter().flatten().min()
    }

    /// Whether an attempt was planned for now; it is not any more.
    fn take_plan(&mut self, now: Instant) -> bool {
        let state = self.state.as_mut();
        let plan = state.map(|state| &mut state.planned);
        plan.is_some_and(|plan| plan.take_if(|at| *at <= now).is_some())
    }

    fn begin(&mut self, seed: u64, now: Instant) -> Option<Message> {
        let from = self.ours()?.addr;
        let state = self.state.as_mut()?;
        let at = state.theirs?.addr;
        let turn = Turn::take(&self.around.attempts)?;
        let pause = PAUSES[state.failures.min(PAUSES.len() - 1)];
        state.rested = Some(now + pause);
        state.failures += 1;
        state.knocks = Some(Knocks {
            _turn: turn,
            at: at.ip(),
            ports: Ports::new(seed),
            left: KNOCKS,
            due: now + HEAD_START,
        });
        Some(Message::OpenUp { from })
    }

    fn next_knock(&mut self, now: Instant) -> Option<SocketAddr> {
        let state = self.state.as_mut()?;
        let knocks = state.knocks.as_mut().filter(|knocks| knocks.due <= now)?;
        if knocks.left == 0 {
            state.knocks = None;
            return None;
        }
        knocks.left -= 1;
        // Late is late: what was missed is not made up for in a burst.
        knocks.due = now + KNOCK_PAUSE;
        Some(SocketAddr::new(knocks.at, knocks.ports.next()?))
    }

    fn next_opening(&mut self, now: Instant) -> Option<SocketAddr> {
        let state = self.state.as_mut()?;
        let openings = state.openings.as_mut().filter(|open| open.due <= now)?;
        if openings.left == 0 {
            state.openings = None;
            return None;
        }
        openings.left -= 1;
        openings.due = now + OPENING_PAUSE;
        Some(openings.to)
    }

    /// The peer asks us to open ports towards it. Whether we do.
    fn open(&mut self, from: SocketAddr, now: Instant) -> bool {
        let hard = Self::is(self.ours(), Mapping::Varies);
        let Some(state) = self.state.as_mut().filter(|_| hard) else {
            return false;
        };
        // Only towards where the relay's server sees the peer, as it told us.
        let theirs = state.theirs.is_some_and(|side| side.addr == from);
        let again = state.opened.is_none_or(|at| now >= at + OPEN_AGAIN);
        if !(theirs && again) {
            return false;
        }
        state.opened = Some(now);
        state.openings = Some(Openings {
            to: from,
            left: OPENINGS,
            due: now,
        });
        true
    }
}

impl Agent {
    /// Says what is known about this node's surroundings.
    pub(crate) fn set_around(&mut self, around: &Arc<Around>) {
        let before = std::mem::replace(&mut self.guess.around, Arc::clone(around));
        if before.outside != around.outside {
            self.tell_soon();
        }
    }

    /// How the peer looks from outside its NAT.
    pub(crate) fn handle_outside(&mut self, outside: Outside, now: Instant) {
        if !self.enabled || !is_plausible(&outside.addr) {
            return;
        }
        let state = self.guess.state.get_or_insert_default();
        if state.theirs.replace(outside) != Some(outside) && self.round_at.is_some() {
            state.planned = None;
            self.guess.plan(now);
        }
    }

    /// The peer is about to knock, from this address.
    pub(crate) fn handle_open_up(&mut self, from: SocketAddr, now: Instant) {
        let wanted = self.enabled && !self.is_certain(now) && is_plausible(&from);
        if wanted && self.guess.open(from, now) {
            self.rouse(now, OPENING_PAUSE * OPENINGS);
            self.handle_guess(now);
        }
    }

    /// A knock, which came `via`: somebody has found a way in.
    pub(crate) fn handle_knock(&mut self, via: Via, now: Instant) {
        let Via::Direct(source) = via else {
            return;
        };
        if !self.enabled || !is_plausible(&source) || self.is_certain(now) {
            return;
        }
        self.rouse(now, super::ALERT);
        let keep = self.direct.as_ref().map(|direct| direct.addr);
        self.candidates.add(source, keep);
        self.candidates.restart(source, now);
        self.send_due_probes(now);
    }

    /// Runs what is due of the guessing.
    pub(super) fn handle_guess(&mut self, now: Instant) {
        if self.is_certain(now) {
            self.guess.stop();
            return;
        }
        let wanted = self.direct.is_none() && self.is_used(now) && self.guess.leads();
        if self.guess.take_plan(now) && wanted {
            let seed = self.next_id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let asked = self.guess.begin(seed, now);
            self.out.extend(asked.map(|message| (Via::Relay, message)));
        }
        if let Some(at) = self.guess.next_knock(now) {
            self.out.push_back((Via::Direct(at), Message::Knock));
        }
        if let Some(to) = self.guess.next_opening(now) {
            self.out.push_back((Via::Fan(to), Message::Knock));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const EASY: Outside = outside(1, Mapping::Same);
    const HARD: Outside = outside(2, Mapping::Varies);

    const fn outside(host: u8, mapping: Mapping) -> Outside {
        let ip = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, host));
        let addr = SocketAddr::new(ip, 1000);
        Outside { addr, mapping }
    }

    fn around(ours: Outside, attempts: &Arc<AtomicUsize>) -> Arc<Around> {
        Arc::new(Around {
            outside: Some(ours),
            attempts: Arc::clone(attempts),
        })
    }

    /// An agent in use that has probed and found nothing.
    fn agent(ours: Outside, theirs: Outside, now: Instant) -> Agent {
        let mut agent = Agent::new(true, 77);
        agent.set_around(&around(ours, &Arc::default()));
        agent.handle_session(now);
        agent.handle_outside(theirs, now);
        agent.handle_call_me_maybe(&[theirs.addr], now);
        agent
    }

    /// Lets time pass, in use or not; what went out, of the guessing.
    fn run(
        agent: &mut Agent,
        now: &mut Instant,
        time: Duration,
        used: bool,
    ) -> Vec<(Via, Message)> {
        let until = *now + time;
        let mut out = vec![];
        let mut steps = 0;
        while *now < until {
            if used {
                agent.route(*now);
            }
            agent.handle_timeout(*now);
            out.extend(std::iter::from_fn(|| agent.poll_transmit()));
            let next = agent.poll_timeout().unwrap_or(until);
            let next = next.min(*now + Duration::from_secs(1));
            *now = next.clamp(*now, until);
            steps += 1;
            assert!(steps < 100_000, "the clock stands still");
        }
        out.retain(|(_, message)| matches!(message, Message::Knock | Message::OpenUp { .. }));
        out
    }

    fn knocks(out: &[(Via, Message)]) -> usize {
        let knock = |(via, message): &&(Via, Message)| {
            *message == Message::Knock && matches!(via, Via::Direct(_))
        };
        out.iter().filter(knock).count()
    }

    #[test]
    fn every_port_has_its_turn() {
        for seed in [0, 1, 0x1234_5678_9abc_def0, u64::MAX] {
            let ports: BTreeSet<_> = Ports::new(seed).take(PORTS as usize).collect();
            assert_eq!(ports.len(), PORTS as usize);
            assert_eq!(ports.first(), Some(&1024));
        }
    }

    #[test]
    fn the_easy_side_asks_and_knocks_and_rests() {
        let mut now = Instant::now();
        let mut easy = agent(EASY, HARD, now);
        let early = run(&mut easy, &mut now, AFTER_ROUND, true);
        assert_eq!(early, [], "ordinary probes come first");
        let out = run(&mut easy, &mut now, Duration::from_secs(24), true);
        let from = EASY.addr;
        assert_eq!(out[0], (Via::Relay, Message::OpenUp { from }));
        assert_eq!(knocks(&out), KNOCKS as usize);
        let ports: BTreeSet<_> = out[1..]
            .iter()
            .map(|(via, _)| match via {
                Via::Direct(at) if at.ip() == HARD.addr.ip() => at.port(),
                other => panic!("knocks at {other:?}"),
            })
            .collect();
        assert_eq!(ports.len(), KNOCKS as usize, "each port once");
        let later = run(&mut easy, &mut now, Duration::from_secs(21_600), true);
        let attempts = later.len() - knocks(&later);
        assert!(
            (12..=17).contains(&attempts),
            "{attempts} attempts in six hours"
        );
    }

    #[test]
    fn nothing_is_guessed_between_equals_or_for_nobody() {
        for (ours, theirs) in [(EASY, EASY), (HARD, HARD), (HARD, EASY)] {
            let mut now = Instant::now();
            let mut agent = agent(ours, theirs, now);
            let out = run(&mut agent, &mut now, Duration::from_secs(600), true);
            assert_eq!(out, [], "{ours:?} {theirs:?}");
            assert_eq!(agent.guess.is_hopeless(), ours == HARD && theirs == HARD);
        }
        let mut now = Instant::now();
        let mut unused = agent(EASY, HARD, now);
        unused.last_used = None;
        let out = run(&mut unused, &mut now, Duration::from_secs(600), false);
        assert_eq!(out, []);
    }

    #[test]
    fn a_node_knocks_for_two_peers_at_a_time() {
        let attempts = Arc::default();
        let start = Instant::now();
        let mut agents: Vec<_> = (0..4).map(|_| agent(EASY, HARD, start)).collect();
        let mut counts = vec![];
        for agent in &mut agents {
            agent.set_around(&around(EASY, &attempts));
            let out = run(agent, &mut start.clone(), Duration::from_secs(3), true);
            counts.push(knocks(&out) > 0);
        }
        assert_eq!(counts, [true, true, false, false]);
        agents.remove(0);
        let mut now = start + Duration::from_secs(3);
        let out = run(&mut agents[2], &mut now, Duration::from_secs(9), true);
        assert!(knocks(&out) > 0, "the turn was given back");
    }

    #[test]
    fn a_path_ends_the_knocking() {
        let mut now = Instant::now();
        let mut easy = agent(EASY, HARD, now);
        let out = run(&mut easy, &mut now, Duration::from_secs(4), true);
        assert!((100..300).contains(&knocks(&out)), "{}", knocks(&out));
        let hole = SocketAddr::new(HARD.addr.ip(), 5000);
        easy.handle_probe(1, Via::Direct(hole), now);
        let probe = |(via, message)| match message {
            Message::Probe { id, .. } if via == Via::Direct(hole) => Some(id),
            _ => None,
        };
        let id = std::iter::from_fn(|| easy.poll_transmit()).find_map(probe);
        easy.handle_pong(id.unwrap(), Via::Direct(hole), now);
        assert_eq!(easy.current(now).direct, Some(hole));
        let out = run(&mut easy, &mut now, Duration::from_secs(2), true);
        assert_eq!(out, []);
    }

    #[test]
    fn the_hard_side_opens_only_where_the_peer_is_and_not_too_often() {
        let mut now = Instant::now();
        let mut hard = agent(HARD, EASY, now);
        let elsewhere = SocketAddr::from(([203, 0, 113, 1], 1000));
        hard.handle_open_up(elsewhere, now);
        let fans = |out: &[(Via, Message)]| {
            let fan = |(via, _): &&(Via, Message)| *via == Via::Fan(EASY.addr);
            out.iter().filter(fan).count()
        };
        let out = run(&mut hard, &mut now, Duration::from_secs(1), false);
        assert_eq!(out, []);
        for _ in 0..100 {
            hard.handle_open_up(EASY.addr, now);
        }
        let out = run(&mut hard, &mut now, Duration::from_secs(1), false);
        assert_eq!((fans(&out), out.len()), (1, 1));
        let mut total = 1;
        for _ in 0..60 {
            hard.handle_open_up(EASY.addr, now);
            total += fans(&run(&mut hard, &mut now, Duration::from_secs(1), false));
        }
        assert!(total <= 16, "{total} fans in a minute");
        // A knock that comes in is followed up.
        hard.handle_knock(Via::Direct(EASY.addr), now);
        let sent: Vec<_> = std::iter::from_fn(|| hard.poll_transmit()).collect();
        assert!(
            sent.iter()
                .any(|(via, message)| *via == Via::Direct(EASY.addr)
                    && matches!(message, Message::Probe { .. })),
            "{sent:?}"
        );
    }
}
