//! Everything there is in a world, and its clock: what happens next.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::call::Answered;
use super::net::{Host, Net};
use super::node::Node;
use super::promise::Watched;
use super::relay::{ConnAt, RELAY_DELAY, Relay};
use super::rng::Rng;
use crate::path::Via;
use crate::standby::Which;

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
/// Steps in one moment: more is a loop.
const MAX_STEPS: usize = 5000;

/// What can happen.
pub(super) enum What {
    /// A datagram arrives at a port of a host.
    Datagram {
        host: usize,
        port: u16,
        source: SocketAddr,
        bytes: Rc<[u8]>,
    },
    /// Bytes arrive at the relay on this connection.
    ToRelay(ConnAt, Vec<u8>),
    /// Bytes arrive at the node that has this connection.
    ToNode(ConnAt, Vec<u8>),
    /// A connection with the relay is there, and greeted.
    Connected(ConnAt),
    /// The other end knows nothing of this connection of a node.
    Reset(ConnAt, usize),
    /// The timer of a node goes off.
    Timer(usize),
    /// The timer of a relay goes off.
    Relay(usize),
    /// Relays find each other, unless something has happened to them since.
    Link(u64),
    /// A relay hears that its links with the other one are over, unless the same.
    Unlink(usize, u64),
    /// Bytes of the other one arrive at a relay, by its own link or by the other's.
    ToOtherRelay(Between, Vec<u8>),
}

/// From one relay to the other.
pub(super) struct Between {
    pub(super) to: usize,
    /// By the link that `to` has made.
    pub(super) by_own: bool,
    /// While there are these links.
    pub(super) links: u64,
}

/// Everything there is.
pub(super) struct World {
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) rng: Rng,
    pub(super) net: Net,
    pub(super) relays: Vec<Relay>,
    /// The relays are not to find each other.
    pub(super) apart: bool,
    /// They have found each other.
    pub(super) linked: bool,
    /// How often something has happened to their links.
    pub(super) links: u64,
    /// The links that lead nowhere, and neither relay knows.
    pub(super) cut_links: Option<u64>,
    /// Since when both relays could have noticed that.
    pub(super) together: Instant,
    pub(super) nodes: Vec<Node>,
    /// By which relay each node is found.
    pub(super) first: Vec<usize>,
    /// Which relays each node cannot reach.
    pub(super) barred: Vec<[bool; 2]>,
    /// What is to happen and when; at one time, in the order in which it was pushed.
    queue: BTreeMap<(Instant, u64), What>,
    order: u64,
    pub(super) next_call: u64,
    pub(super) answered: Vec<Answered>,
    /// How long a call may take after the last disturbance.
    pub(super) bound: Duration,
    /// When something last happened to a node, or to a relay.
    pub(super) disturbed: Vec<Instant>,
    pub(super) relay_disturbed: Instant,
    /// Relays say nothing to connections that they do not know.
    pub(super) relay_mute: bool,
    /// Pairs that had a direct path when the last relay went, and have not been
    /// disturbed since.
    pub(super) proven: Vec<(usize, usize)>,
    pub(super) watched: Watched,
    /// The ways that payloads from one node to another took last.
    pub(super) ways: HashMap<(usize, usize), Vec<Via>>,
    /// Packets of each node, datagrams and writes to relays.
    pub(super) sent: Vec<u64>,
    trace: VecDeque<String>,
}

impl World {
    /// With one relay, or two.
    pub(super) fn new(seed: u64, relays: usize, bound: Duration) -> Self {
        let start = Instant::now();
        Self {
            start,
            now: start,
            rng: Rng::new(seed),
            net: Net::new(),
            relays: (0..relays).map(|_| Relay::new()).collect(),
            apart: false,
            linked: false,
            links: 0,
            cut_links: None,
            together: start,
            nodes: vec![],
            first: vec![],
            barred: vec![],
            queue: BTreeMap::new(),
            order: 0,
            next_call: 1,
            answered: vec![],
            bound,
            disturbed: vec![],
            relay_disturbed: start,
            relay_mute: false,
            proven: vec![],
            watched: Watched::default(),
            ways: HashMap::new(),
            sent: vec![],
            trace: VecDeque::new(),
        }
    }

    /// Puts nodes on these hosts, then each relay on one more, and starts them.
    pub(super) fn populate(&mut self, hosts: Vec<Host>) {
        let nodes = hosts.len();
        self.net.hosts = hosts;
        let mut line = self.net.hosts[0].clone();
        line.segment = Some(0);
        line.delay = RELAY_DELAY;
        (line.loss, line.twice, line.mtu, line.no_udp) = (0, 0, 1500, false);
        for relay in 0..self.relays.len() {
            line.ip = self.net.address_in(0, 200 + relay);
            self.net.hosts.push(line.clone());
        }
        let among = self.relays.len();
        self.first = match among {
            1 => vec![0; nodes],
            _ => (0..nodes).map(|_| self.rng.index(among)).collect(),
        };
        self.barred = vec![[false; 2]; nodes];
        self.relink();
        self.disturbed = vec![self.now; nodes];
        self.sent = vec![0; nodes];
        for node in 0..nodes {
            let fresh = self.fresh_node(node, nodes);
            self.nodes.push(fresh);
            self.start_node(node);
        }
    }

    /// Where a relay is.
    pub(super) fn relay_ip(&self, relay: usize) -> IpAddr {
        self.net.hosts[self.nodes_len() + relay].ip
    }

    /// Which relay that is to a node.
    pub(super) fn relay_of(&self, node: usize, which: Which) -> usize {
        (self.first[node] + which as usize) % self.relays.len()
    }

    /// How many nodes there are: the number of the first relay's host.
    pub(super) fn nodes_len(&self) -> usize {
        self.net.hosts.len() - self.relays.len()
    }

    /// A node's own clock.
    pub(super) fn local(&self, node: usize) -> Instant {
        let lag = self.nodes.get(node).map_or(Duration::ZERO, |n| n.lag);
        self.now - lag
    }

    /// Writes down what happened; the last of it is shown with a failure.
    pub(super) fn note(&mut self, text: impl FnOnce() -> String) {
        let at = self.now.duration_since(self.start).as_secs_f64();
        self.trace.push_back(format!("{at:9.3} {}", text()));
        if self.trace.len() > 60 {
            self.trace.pop_front();
        }
    }

    /// What is said of a promise that was broken, and what happened before.
    pub(super) fn fail(&self, why: &str) -> String {
        let at = self.now.duration_since(self.start).as_secs_f64();
        let mut text: String = self.trace.iter().map(|line| format!("{line}\n")).collect();
        text.push_str(&format!("{at:9.3} FAILED: {why}"));
        text
    }

    /// Lets something happen at that time.
    pub(super) fn push(&mut self, at: Instant, what: What) {
        self.order += 1;
        self.queue.insert((at, self.order), what);
    }

    /// Lets time pass.
    pub(super) fn run_until(&mut self, until: Instant) -> Result<(), String> {
        let mut steps = (self.now, 0);
        loop {
            let next = self.queue.first_entry();
            let Some(next) = next.filter(|next| next.key().0 <= until) else {
                self.now = until;
                self.check_links()?;
                return self.check_calls();
            };
            let ((at, _), what) = next.remove_entry();
            self.now = at.max(self.now);
            steps = if steps.0 == self.now {
                (steps.0, steps.1 + 1)
            } else {
                (self.now, 0)
            };
            if steps.1 > MAX_STEPS {
                return Err(self.fail("the clock stands still"));
            }
            self.happen(what)?;
        }
    }

    /// The same, for a while.
    pub(super) fn run_for(&mut self, time: Duration) -> Result<(), String> {
        self.run_until(self.now + time)
    }

    fn happen(&mut self, what: What) -> Result<(), String> {
        match what {
            What::Datagram {
                host,
                port,
                source,
                bytes,
            } => return self.datagram(host, port, source, &bytes),
            What::ToRelay(conn, bytes) => self.reach_relay(conn, &bytes),
            What::ToNode(conn, bytes) => return self.hear_relay(conn, &bytes),
            What::Connected(conn) => return self.connected(conn),
            What::Reset(conn, node) => return self.reset(conn, node),
            What::Timer(node) => return self.timer(node),
            What::Relay(relay) => self.relay_timer(relay),
            What::Link(links) => self.link_relays(links),
            What::Unlink(relay, links) => self.unlink_relay(relay, links),
            What::ToOtherRelay(between, bytes) => self.reach_other_relay(&between, &bytes),
        }
        Ok(())
    }

    /// Whether its machine does not sleep.
    pub(super) fn is_awake(&self, node: usize) -> bool {
        self.nodes[node].asleep.is_none()
    }

    /// Whether it is awake, and plugged in somewhere.
    pub(super) fn is_there(&self, node: usize) -> bool {
        self.is_awake(node) && self.net.hosts[node].segment.is_some()
    }
}
