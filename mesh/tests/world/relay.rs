//! The relays of the world: derp's router as a function, and the TCP
//! connections to it as byte streams that arrive late but whole and in order.
//!
//! Where there are two they are of one region, with a link from each to the other.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use derp::frame::{self, Receives};
use derp::handshake::Introduction;
use derp::router::{ConnId, Limits, Outcome, Router, Transmit};

use super::node::secret;

/// Bytes on their way on one connection, each way; more wait.
pub(super) const WINDOW: usize = 256 << 10;

/// The relay's own line.
pub(super) const RELAY_DELAY: Duration = Duration::from_millis(1);

/// How the relay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Up,
    /// The process has ended: its machine says so.
    Ended,
    /// The machine has lost its power: nobody says anything.
    Dark,
}

/// A connection: the number of its relay, and its own.
pub(super) type ConnAt = (usize, u64);

/// What the router calls its links with the other relay, which it never needs to wake.
const LINK: u64 = u64::MAX;

/// The relays' keys are those of nodes that there are not.
const FIRST_KEY: usize = 200;

/// One connection.
pub(super) struct Conn {
    pub(super) node: usize,
    /// Its ends cannot reach each other any more, and do not know.
    pub(super) cut: bool,
    /// On the relay's side, when it is up.
    id: Option<ConnId>,
    /// The moment the last bytes arrive: none overtakes another.
    pub(super) last_to_relay: Instant,
    pub(super) last_to_node: Instant,
    pub(super) flying_to_relay: usize,
    pub(super) flying_to_node: usize,
    /// Bytes that the router has not taken yet.
    waiting: VecDeque<u8>,
    retry: Option<Instant>,
}

/// The relay and its connections.
pub(super) struct Relay {
    pub(super) state: State,
    router: Router<u64>,
    pub(super) conns: BTreeMap<u64, Conn>,
    next: u64,
    /// Our link to the other relay, and the one that it has made to us.
    links: Option<[ConnId; 2]>,
    /// When its timer goes off.
    pub(super) scheduled: Option<Instant>,
}

impl Relay {
    pub(super) fn new() -> Self {
        Self {
            state: State::Up,
            router: Router::new(Limits::default()),
            conns: BTreeMap::new(),
            next: 0,
            links: None,
            scheduled: None,
        }
    }

    /// A node begins to connect.
    pub(super) fn open(&mut self, node: usize, now: Instant) -> u64 {
        self.next += 1;
        let conn = Conn {
            node,
            cut: false,
            id: None,
            last_to_relay: now,
            last_to_node: now,
            flying_to_relay: 0,
            flying_to_node: 0,
            waiting: VecDeque::new(),
            retry: None,
        };
        self.conns.insert(self.next, conn);
        self.next
    }

    /// The handshake is done, as the relay sees it.
    pub(super) fn accept(&mut self, conn: u64, now: Instant) {
        let Some(entry) = self.conns.get_mut(&conn) else {
            return;
        };
        let client = Introduction {
            key: secret(entry.node).public(),
            can_ack_pings: true,
            is_mesh: false,
            is_prober: false,
        };
        entry.id = Some(self.router.handle_connect(client, conn, now, conn));
    }

    /// A connection is over, and the relay knows.
    pub(super) fn close(&mut self, conn: u64) {
        if let Some(id) = self.conns.remove(&conn).and_then(|conn| conn.id) {
            self.router.handle_disconnect(id);
        }
    }

    /// The process ends; the numbers of its connections.
    pub(super) fn end(&mut self, state: State) -> Vec<u64> {
        self.state = state;
        self.links = None;
        self.router = Router::new(Limits::default());
        std::mem::take(&mut self.conns).into_keys().collect()
    }

    /// Takes bytes that came in on a connection.
    pub(super) fn receive(&mut self, conn: u64, bytes: &[u8], now: Instant) {
        if let Some(entry) = self.conns.get_mut(&conn) {
            entry.flying_to_relay -= bytes.len();
            entry.waiting.extend(bytes);
        }
        self.work_off(conn, now);
    }

    /// Gives the router what waits, as far as it takes it.
    fn work_off(&mut self, conn: u64, now: Instant) {
        let Some(entry) = self.conns.get_mut(&conn) else {
            return;
        };
        let Some(id) = entry.id else { return };
        entry.retry = None;
        let bytes = entry.waiting.make_contiguous();
        let mut taken = 0;
        let mut broken = false;
        loop {
            match frame::decode(Receives::Server, &bytes[taken..]) {
                Ok(Some((frame, len))) => match self.router.handle_frame(id, &frame, now) {
                    Ok(Outcome::Taken) => taken += len,
                    Ok(Outcome::Blocked(until)) => {
                        entry.retry = Some(until);
                        break;
                    }
                    Err(_) => {
                        broken = true;
                        break;
                    }
                },
                Ok(None) => break,
                Err(error) => panic!("a node sent to the relay: {error}"),
            }
        }
        entry.waiting.drain(..taken);
        if broken {
            self.close(conn);
        }
    }

    /// Links it with the other relay, whose number that is.
    pub(super) fn link(&mut self, other: usize, now: Instant) {
        self.unlink();
        let key = secret(FIRST_KEY + other).public();
        let server = Introduction {
            key,
            can_ack_pings: true,
            is_mesh: true,
            is_prober: false,
        };
        let ours = self.router.handle_link(key, LINK, now, LINK);
        let theirs = self.router.handle_connect(server, LINK, now, LINK);
        self.links = Some([ours, theirs]);
    }

    /// Whether it has links with the other relay, or believes so.
    pub(super) const fn has_links(&self) -> bool {
        self.links.is_some()
    }

    /// The links with the other relay are over, and this one knows.
    pub(super) fn unlink(&mut self) {
        for link in self.links.take().into_iter().flatten() {
            self.router.handle_disconnect(link);
        }
    }

    /// Takes bytes of the other relay: by its link to us, or by ours to it.
    pub(super) fn hear_relay(&mut self, by_ours: bool, bytes: &[u8], now: Instant) {
        let Some([ours, theirs]) = self.links else {
            return;
        };
        let (link, receives) = match by_ours {
            true => (ours, Receives::Client),
            false => (theirs, Receives::Server),
        };
        let mut rest = bytes;
        while let Some((frame, len)) = frame::decode(receives, rest).unwrap() {
            let outcome = self.router.handle_frame(link, &frame, now);
            assert_eq!(outcome.unwrap(), Outcome::Taken, "nobody waits for a link");
            rest = &rest[len..];
        }
        assert!(rest.is_empty(), "a relay has written half a frame");
    }

    /// What to write to the other relay now, each with whether by our link to it; and whether that
    /// is given up.
    pub(super) fn collect_links(&mut self) -> (Vec<(bool, Vec<u8>)>, bool) {
        let mut out = vec![];
        let mut over = false;
        for (link, by_ours) in self.links.into_iter().flatten().zip([true, false]) {
            loop {
                match self.router.poll_transmit(link) {
                    Transmit::Chunk(bytes) => out.push((by_ours, bytes)),
                    Transmit::Idle => break,
                    Transmit::Close(_) => {
                        over = true;
                        break;
                    }
                }
            }
        }
        if over {
            self.unlink();
        }
        (out, over)
    }

    /// Runs what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let due: Vec<u64> = self.conns.keys().copied().collect();
        for conn in due {
            if self.conns[&conn].retry.is_some_and(|at| at <= now) {
                self.work_off(conn, now);
            }
            if let Some(id) = self.conns.get(&conn).and_then(|conn| conn.id) {
                self.router.handle_timeout(id, now);
            }
        }
        for link in self.links.into_iter().flatten() {
            self.router.handle_timeout(link, now);
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        let retries = self.conns.values().filter_map(|conn| conn.retry);
        let ids = self.conns.values().filter_map(|conn| conn.id);
        let ids = ids.chain(self.links.into_iter().flatten());
        let router = ids.filter_map(|id| self.router.poll_timeout(id));
        retries.chain(router).min()
    }

    /// What to write to whom now. A connection that is cut takes no more than
    /// its window.
    pub(super) fn collect(&mut self, now: Instant) -> Vec<(u64, Vec<u8>)> {
        let mut out = vec![];
        let mut wakes = vec![];
        self.router.poll_wakes(&mut wakes);
        wakes.sort_unstable();
        wakes.dedup();
        for conn in wakes {
            self.work_off(conn, now);
        }
        let conns: Vec<u64> = self.conns.keys().copied().collect();
        for conn in conns {
            while let Some(entry) = self.conns.get_mut(&conn) {
                let Some(id) = entry.id.filter(|_| entry.flying_to_node < WINDOW) else {
                    break;
                };
                match self.router.poll_transmit(id) {
                    Transmit::Chunk(bytes) => {
                        entry.flying_to_node += bytes.len();
                        out.push((conn, bytes));
                    }
                    Transmit::Idle => break,
                    Transmit::Close(_) => self.close(conn),
                }
            }
        }
        out
    }

    /// Bytes that wait on the relay's side: bounded, whoever sleeps.
    pub(super) fn waiting(&self) -> usize {
        let waiting = |conn: &Conn| conn.waiting.len() + conn.flying_to_node;
        self.conns.values().map(waiting).max().unwrap_or_default()
    }
}
