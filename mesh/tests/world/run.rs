//! The world's clock: what happens next, and what must hold whenever something
//! has happened.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use derp::client::{Client, Event, Heard};

use super::net::{Host, Net};
use super::node::{Call, Got, Node, Sealed, secret};
use super::relay::{Relay, State, TCP_RTO, WINDOW};
use super::rng::Rng;
use crate::home::Action;
use crate::packet::{FULL_DATAGRAM, QUIC_MTU, WIDE_DATAGRAM};
use crate::path::Via;

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
const STUN_PORT: u16 = 3478;
const OTHER_PORT: u16 = 3479;
/// The relay's own line.
const RELAY_DELAY: Duration = Duration::from_millis(1);
/// A direct path that no longer carries full packets may be trusted for that
/// long, if it is in use.
const TRUSTED_IN_VAIN: Duration = Duration::from_millis(1500);
/// The same for a path that still carries small ones. A probe that got through just before is
/// answered after a round trip, the next one follows a heartbeat later, and is waited for as long
/// as three round trips, each of up to 270 ms.
const TRUSTED_FOR_SMALL: Duration = Duration::from_millis(3200);
/// The larger size is used alone where it has arrived in that time: a path is asked every minute.
const WIDE_FRESH: Duration = Duration::from_secs(63);
/// QUIC goes back to the size that always arrives after so many in vain.
const WIDE_TRIES: usize = 2;
/// Distinct initiations of a pair within a minute of peace.
const MAX_INITIATIONS: usize = 6;
/// Steps in one moment: more is a loop.
const MAX_STEPS: usize = 5000;

/// What can happen.
enum What {
    Datagram {
        host: usize,
        port: u16,
        source: SocketAddr,
        bytes: Rc<[u8]>,
    },
    ToRelay(u64, Vec<u8>),
    ToNode(u64, Vec<u8>),
    Connected(u64),
    Reset(u64, usize),
    Timer(usize),
    Relay,
}

/// A path that is trusted alone, and does not carry full packets.
#[derive(Clone, Copy)]
struct InVain {
    addr: SocketAddr,
    since: Instant,
    /// Since when it carries nothing at all.
    dead: Option<Instant>,
}

struct Happening {
    at: Instant,
    order: u64,
    what: What,
}

/// The answer to a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    pub(super) started: Instant,
    pub(super) took: Duration,
}

/// When a pair began handshakes, and with which index.
type Initiations = VecDeque<(Instant, [u8; 4])>;

/// Everything there is.
pub(super) struct World {
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) rng: Rng,
    pub(super) net: Net,
    pub(super) relay: Relay,
    pub(super) nodes: Vec<Node>,
    queue: BinaryHeap<Reverse<Happening>>,
    order: u64,
    relay_due: Option<Instant>,
    next_call: u64,
    pub(super) answered: Vec<Answered>,
    /// How long a call may take after the last disturbance.
    pub(super) bound: Duration,
    /// When something last happened to a node, or to the relay.
    pub(super) disturbed: Vec<Instant>,
    pub(super) relay_disturbed: Instant,
    /// The relay says nothing to connections that it does not know.
    pub(super) relay_mute: bool,
    /// Pairs that had a direct path when the relay went, and have not been
    /// disturbed since.
    pub(super) proven: Vec<(usize, usize)>,
    /// Since when a path that is trusted has not carried full packets.
    in_vain: HashMap<(usize, usize), InVain>,
    /// When a datagram of the larger size last got from a node to an address.
    wide_arrived: HashMap<(usize, SocketAddr), Instant>,
    ways: HashMap<(usize, usize), Vec<Via>>,
    initiations: BTreeMap<(usize, usize), Initiations>,
    pub(super) sent: Vec<u64>,
    trace: VecDeque<String>,
}

impl World {
    pub(super) fn new(seed: u64, bound: Duration) -> Self {
        let start = Instant::now();
        Self {
            start,
            now: start,
            rng: Rng::new(seed),
            net: Net::new(),
            relay: Relay::new(),
            nodes: vec![],
            queue: BinaryHeap::new(),
            order: 0,
            relay_due: None,
            next_call: 1,
            answered: vec![],
            bound,
            disturbed: vec![],
            relay_disturbed: start,
            relay_mute: false,
            proven: vec![],
            in_vain: HashMap::new(),
            wide_arrived: HashMap::new(),
            ways: HashMap::new(),
            initiations: BTreeMap::new(),
            sent: vec![],
            trace: VecDeque::new(),
        }
    }

    /// Puts nodes on these hosts, then the relay on one more, and starts them.
    pub(super) fn populate(&mut self, hosts: Vec<Host>) {
        let nodes = hosts.len();
        self.net.hosts = hosts;
        let mut line = self.net.hosts[0].clone();
        line.segment = Some(0);
        line.ip = self.net.address_in(0, 200);
        line.delay = RELAY_DELAY;
        (line.loss, line.twice, line.mtu, line.no_udp) = (0, 0, 1500, false);
        self.net.hosts.push(line);
        self.disturbed = vec![self.now; nodes];
        self.sent = vec![0; nodes];
        for node in 0..nodes {
            let fresh = self.fresh_node(node, nodes);
            self.nodes.push(fresh);
            self.start_node(node);
        }
    }

    fn fresh_node(&mut self, node: usize, nodes: usize) -> Node {
        let boot = self.rng.next();
        let port = 40_000 + self.rng.below(1000) as u16;
        Node::new(node, nodes, boot, port)
    }

    fn start_node(&mut self, node: usize) {
        let now = self.local(node);
        let server = SocketAddr::new(self.relay_ip(), STUN_PORT);
        let it = &mut self.nodes[node];
        it.home.set_wanted(true, now);
        it.reflector.set_server(Some(server), now);
        self.refresh(node);
    }

    pub(super) fn relay_ip(&self) -> IpAddr {
        self.net.hosts[self.nodes_len()].ip
    }

    fn nodes_len(&self) -> usize {
        self.net.hosts.len() - 1
    }

    /// A node's own clock.
    pub(super) fn local(&self, node: usize) -> Instant {
        let lag = self.nodes.get(node).map_or(Duration::ZERO, |n| n.lag);
        self.now - lag
    }

    pub(super) fn note(&mut self, text: impl FnOnce() -> String) {
        let at = self.now.duration_since(self.start).as_secs_f64();
        self.trace.push_back(format!("{at:9.3} {}", text()));
        if self.trace.len() > 60 {
            self.trace.pop_front();
        }
    }

    pub(super) fn fail(&self, why: &str) -> String {
        let at = self.now.duration_since(self.start).as_secs_f64();
        let mut text: String = self.trace.iter().map(|line| format!("{line}\n")).collect();
        text.push_str(&format!("{at:9.3} FAILED: {why}"));
        text
    }

    fn push(&mut self, at: Instant, what: What) {
        self.order += 1;
        let order = self.order;
        self.queue.push(Reverse(Happening { at, order, what }));
    }

    /// Lets time pass.
    pub(super) fn run_until(&mut self, until: Instant) -> Result<(), String> {
        let mut steps = (self.now, 0);
        loop {
            let next = self.queue.peek().map(|Reverse(next)| next.at);
            if next.is_none_or(|at| at > until) {
                self.now = until;
                return self.check_calls();
            }
            let Some(Reverse(Happening { at, what, .. })) = self.queue.pop() else {
                continue;
            };
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
            } => self.datagram(host, port, source, &bytes),
            What::ToRelay(conn, bytes) => {
                if self.relay.state == State::Up && !self.is_cut(conn) {
                    self.relay.receive(conn, &bytes, self.now);
                }
                self.serve_relay();
                Ok(())
            }
            What::ToNode(conn, bytes) => self.hear_relay(conn, &bytes),
            What::Connected(conn) => {
                self.connected(conn);
                Ok(())
            }
            What::Reset(conn, node) => {
                if self.nodes[node].conn == Some(conn) && self.is_awake(node) {
                    self.lose_conn(node);
                    self.serve(node)?;
                }
                Ok(())
            }
            What::Timer(node) => self.timer(node),
            What::Relay => {
                self.relay_due = None;
                self.relay.handle_timeout(self.now);
                self.serve_relay();
                Ok(())
            }
        }
    }

    pub(super) fn is_awake(&self, node: usize) -> bool {
        self.nodes[node].asleep.is_none()
    }

    fn is_cut(&self, conn: u64) -> bool {
        self.relay.conns.get(&conn).is_none_or(|conn| conn.cut)
    }

    fn datagram(
        &mut self,
        host: usize,
        port: u16,
        source: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), String> {
        if host == self.nodes_len() {
            self.answer_stun(source, port, bytes);
            return Ok(());
        }
        if !self.is_awake(host) || !self.nodes[host].listens(port, source) {
            return Ok(());
        }
        self.take(host, Via::Direct(source), None, bytes)
    }

    /// A node has got a datagram.
    fn take(
        &mut self,
        node: usize,
        via: Via,
        from: Option<usize>,
        bytes: &[u8],
    ) -> Result<(), String> {
        let now = self.local(node);
        let got = self.nodes[node].receive(via, from, bytes, now);
        if let Got::Payload(peer, payload) = got {
            self.payload(node, peer, &payload)?;
        }
        self.refresh(node);
        self.serve(node)
    }

    /// A call, or the answer to one: a byte, and the call's number.
    fn payload(&mut self, node: usize, peer: usize, payload: &[u8]) -> Result<(), String> {
        let Some((kind, id)) = payload.split_first() else {
            return Ok(());
        };
        let id = u64::from_be_bytes(*id.first_chunk().unwrap());
        if *kind == 1 {
            let mut answer = payload.to_vec();
            answer[0] = 2;
            return self.send(node, peer, &answer);
        }
        let calls = &mut self.nodes[node].calls;
        if let Some(at) = calls.iter().position(|call| call.id == id) {
            let call = calls.swap_remove(at);
            self.answered.push(Answered {
                started: call.started,
                took: self.now.duration_since(call.started),
            });
        }
        Ok(())
    }

    fn timer(&mut self, node: usize) -> Result<(), String> {
        if self.nodes[node].scheduled != Some(self.now) {
            return Ok(());
        }
        self.nodes[node].scheduled = None;
        if !self.is_awake(node) {
            return Ok(());
        }
        let now = self.local(node);
        for core in self.nodes[node].cores.iter_mut().flatten() {
            if core.poll_timeout().is_some_and(|due| due <= now) {
                core.handle_timeout(now);
            }
        }
        let mut id = [0; 12];
        id[..8].copy_from_slice(&self.rng.next().to_le_bytes());
        if let Some((to, request)) = self.nodes[node].reflector.handle_timeout(now, id) {
            self.send_udp(node, to, &request);
        }
        while let Some(action) = self.nodes[node].home.handle_timeout(now) {
            self.act(node, action);
        }
        self.repeat_calls(node)?;
        self.serve(node)
    }

    fn act(&mut self, node: usize, action: Action) {
        if action != Action::Ping {
            self.note(|| format!("{node} relay: {action:?}"));
        }
        match action {
            Action::Connect => {
                let conn = self.relay.open(node, self.now);
                self.nodes[node].conn = Some(conn);
                let host = &self.net.hosts[node];
                let trip = 2 * (host.delay + RELAY_DELAY);
                match (host.segment, self.relay.state) {
                    (None, _) | (_, State::Dark) => {}
                    (_, State::Ended) => self.push(self.now + trip, What::Reset(conn, node)),
                    // TCP, then the upgrade with the handshake of the protocol.
                    (_, State::Up) => self.push(self.now + 3 * trip, What::Connected(conn)),
                }
            }
            Action::Ping => drop(self.nodes[node].client.handle_ping(*b"are you?")),
            Action::Drop(_) => {
                if let Some(conn) = self.nodes[node].conn {
                    // The relay hears of it, if it hears anything.
                    if self.relay.state == State::Up && !self.is_cut(conn) {
                        self.relay.close(conn);
                    }
                    self.lose_conn(node);
                }
            }
        }
    }

    fn lose_conn(&mut self, node: usize) {
        let (now, chance) = (self.local(node), self.rng.next() as u16);
        let it = &mut self.nodes[node];
        it.conn = None;
        it.client = Client::new();
        it.home.handle_lost(now, chance);
    }

    fn connected(&mut self, conn: u64) {
        let Some(node) = self.relay.conns.get(&conn).map(|conn| conn.node) else {
            return;
        };
        let current = self.nodes[node].conn == Some(conn) && self.is_awake(node);
        if current && !self.is_cut(conn) && self.relay.state == State::Up {
            self.note(|| format!("{node} relay: connected"));
            self.relay.accept(conn, self.now);
            let now = self.local(node);
            self.nodes[node].home.handle_connected(now);
            for core in self.nodes[node].cores.iter_mut().flatten() {
                core.handle_relay_up(now);
            }
            if let Err(why) = self.serve(node) {
                panic!("{why}");
            }
            self.schedule(node);
            self.serve_relay();
        }
    }

    fn hear_relay(&mut self, conn: u64, bytes: &[u8]) -> Result<(), String> {
        let Some(entry) = self.relay.conns.get_mut(&conn) else {
            return Ok(());
        };
        let node = entry.node;
        let awake = self.nodes[node].asleep.is_none();
        if entry.cut || !awake || self.nodes[node].conn != Some(conn) {
            return Ok(());
        }
        entry.flying_to_node -= bytes.len();
        let now = self.local(node);
        let mut rest = Bytes::copy_from_slice(bytes);
        while !rest.is_empty() {
            let len = 5 + u32::from_be_bytes(*rest[1..].first_chunk().unwrap()) as usize;
            let raw = rest.split_to(len);
            self.nodes[node].home.handle_heard(now);
            match derp::client::read(&raw).unwrap() {
                Heard::Event(Event::Packet { from, data }) => {
                    let known = |peer: &usize| secret(*peer).public() == from;
                    let from = (0..self.nodes.len()).find(known).unwrap();
                    self.take(node, Via::Relay, Some(from), &data)?;
                }
                Heard::Asked(data) => self.nodes[node].client.handle_asked(data),
                _ => {}
            }
        }
        self.serve(node)?;
        self.serve_relay();
        Ok(())
    }

    /// Carries out what a node's state machines want, and sets its timer.
    pub(super) fn serve(&mut self, node: usize) -> Result<(), String> {
        self.nodes[node].collect();
        while let Some((peer, transmit)) = self.nodes[node].out.pop_front() {
            if transmit.bytes.first() == Some(&1) {
                self.count_initiation(node, peer, &transmit.bytes)?;
            }
            self.transmit(node, peer, transmit.via, &transmit.bytes);
        }
        self.write(node);
        self.schedule(node);
        Ok(())
    }

    fn transmit(&mut self, node: usize, peer: usize, via: Via, bytes: &[u8]) {
        match via {
            Via::Direct(to) => self.send_udp(node, to, bytes),
            Via::Fan(to) => {
                self.note(|| format!("{node} opens ports to {to}"));
                self.nodes[node].fan = Some(to);
                for port in Node::fan_ports() {
                    self.sent[node] += 1;
                    self.carry((node, port), to, bytes);
                }
            }
            Via::Relay if self.nodes[node].home.is_up() => {
                let (now, key) = (self.local(node), self.nodes[peer].key);
                let it = &mut self.nodes[node];
                it.home.handle_sent(now);
                // Without room it is lost.
                let _ = it.client.handle_send(&key, bytes);
            }
            Via::Relay => {}
        }
    }

    /// Writes to the connection with the relay.
    fn write(&mut self, node: usize) {
        let Some(conn) = self.nodes[node]
            .conn
            .filter(|_| self.nodes[node].home.is_up())
        else {
            return;
        };
        while let Some(entry) = self.relay.conns.get_mut(&conn) {
            if entry.flying_to_relay >= WINDOW {
                return;
            }
            let Some(bytes) = self.nodes[node].client.poll_transmit() else {
                return;
            };
            self.sent[node] += 1;
            entry.flying_to_relay += bytes.len();
            let host = &self.net.hosts[node];
            let late = if self.rng.permille(host.loss) {
                TCP_RTO
            } else {
                Duration::ZERO
            };
            let at = self.now + host.delay + RELAY_DELAY + self.rng.micros(500) + late;
            entry.last_to_relay = entry.last_to_relay.max(at);
            let at = entry.last_to_relay;
            if entry.cut || self.relay.state == State::Dark {
                continue;
            }
            self.push(at, What::ToRelay(conn, bytes));
        }
        // The relay has restarted and knows nothing of this connection.
        if self.relay.state != State::Dark
            && !self.relay_mute
            && self.net.hosts[node].segment.is_some()
        {
            let at = self.now + 2 * self.net.hosts[node].delay;
            self.push(at, What::Reset(conn, node));
        }
    }

    fn serve_relay(&mut self) {
        if self.relay.state != State::Up {
            return;
        }
        for (conn, bytes) in self.relay.collect(self.now) {
            let Some(entry) = self.relay.conns.get_mut(&conn) else {
                continue;
            };
            let host = &self.net.hosts[entry.node];
            let late = if self.rng.permille(host.loss) {
                TCP_RTO
            } else {
                Duration::ZERO
            };
            let at = self.now + host.delay + RELAY_DELAY + self.rng.micros(500) + late;
            entry.last_to_node = entry.last_to_node.max(at);
            let at = entry.last_to_node;
            if !entry.cut {
                self.push(at, What::ToNode(conn, bytes));
            }
        }
        if let Some(due) = self.relay.due()
            && self.relay_due.is_none_or(|at| due < at)
        {
            let due = due.max(self.now);
            self.relay_due = Some(due);
            self.push(due, What::Relay);
        }
    }

    fn schedule(&mut self, node: usize) {
        let now = self.local(node);
        let it = &self.nodes[node];
        if let Some(due) = it.due(now) {
            let due = (due + it.lag).max(self.now);
            if it.scheduled.is_none_or(|at| due < at) {
                self.nodes[node].scheduled = Some(due);
                self.push(due, What::Timer(node));
            }
        }
    }

    /// Sends a datagram into the network.
    pub(super) fn send_udp(&mut self, node: usize, to: SocketAddr, bytes: &[u8]) {
        self.sent[node] += 1;
        let port = self.nodes[node].port_for(to);
        self.carry((node, port), to, bytes);
    }

    fn carry(&mut self, from: (usize, u16), to: SocketAddr, bytes: &[u8]) {
        let (now, size) = (self.now, bytes.len());
        let Some(there) = self.net.carry(from, to, size, now, &mut self.rng) else {
            return;
        };
        if size == WIDE_DATAGRAM {
            self.wide_arrived.insert((from.0, to), now);
        }
        let [a, b] = [from.0, there.host].map(|host| &self.net.hosts[host]);
        let near = a.segment == b.segment && a.segment != Some(0);
        let delay = if near { MS } else { a.delay + b.delay };
        let jitter = (a.jitter + b.jitter).as_micros() as u64;
        let (loss, twice) = ([a.loss, b.loss], a.twice + b.twice);
        if loss.iter().any(|loss| self.rng.permille(*loss)) {
            return;
        }
        let copies = 1 + usize::from(self.rng.permille(twice));
        let bytes: Rc<[u8]> = bytes.into();
        for _ in 0..copies {
            let at = now + delay + self.rng.micros(jitter);
            let what = What::Datagram {
                host: there.host,
                port: there.port,
                source: there.source,
                bytes: Rc::clone(&bytes),
            };
            self.push(at, what);
        }
    }

    fn answer_stun(&mut self, source: SocketAddr, port: u16, request: &[u8]) {
        let IpAddr::V4(ip) = source.ip() else { return };
        let known = [STUN_PORT, OTHER_PORT].contains(&port);
        if !known || request.len() != 20 || self.relay.state != State::Up {
            return;
        }
        let mut answer = request.to_vec();
        answer[..4].copy_from_slice(&[1, 1, 0, 24]);
        answer.extend([0, 1, 0, 8, 0, 1]);
        answer.extend(source.port().to_be_bytes());
        answer.extend(ip.octets());
        answer.extend([0x80, 0x2c, 0, 8, 0, 1]);
        answer.extend(OTHER_PORT.to_be_bytes());
        answer.extend([0; 4]);
        self.carry((self.nodes_len(), port), source, &answer);
    }

    /// Its addresses may be others.
    pub(super) fn refresh(&mut self, node: usize) {
        let host = &self.net.hosts[node];
        let own = host
            .segment
            .map(|_| SocketAddr::new(host.ip, self.nodes[node].port));
        self.nodes[node].refresh_endpoints(own);
    }

    /// Begins a call.
    pub(super) fn call(&mut self, from: usize, to: usize, size: usize) -> Result<(), String> {
        let id = self.next_call;
        self.next_call += 1;
        let now = self.local(from);
        self.nodes[from].core_mut(to).connect(now);
        self.nodes[from].calls.push(Call {
            id,
            to,
            size,
            tries: 0,
            started: self.now,
            next: self.now,
            pause: 100 * MS,
        });
        self.repeat_calls(from)?;
        self.serve(from)
    }

    fn repeat_calls(&mut self, node: usize) -> Result<(), String> {
        let now = self.now;
        let mut due = vec![];
        for call in &mut self.nodes[node].calls {
            if call.next <= now {
                call.next = now + call.pause;
                call.pause = (call.pause * 2).min(2 * SECOND);
                if call.tries >= WIDE_TRIES {
                    call.size = call.size.min(QUIC_MTU);
                }
                call.tries += 1;
                due.push((call.to, call.id, call.size));
            }
        }
        for (to, id, size) in due {
            let mut payload = vec![0; size.max(9)];
            payload[0] = 1;
            payload[1..9].copy_from_slice(&id.to_be_bytes());
            self.send(node, to, &payload)?;
        }
        Ok(())
    }

    /// Sends a payload to a peer, and looks at the way it takes.
    pub(super) fn send(&mut self, node: usize, peer: usize, payload: &[u8]) -> Result<(), String> {
        let now = self.local(node);
        let Sealed { ways, wide, bytes } = self.nodes[node].seal(peer, payload, now);
        if self.ways.get(&(node, peer)) != Some(&ways) {
            self.note(|| format!("{node} sends to {peer}: {ways:?}"));
            self.ways.insert((node, peer), ways.clone());
        }
        if let [Via::Direct(addr)] = ways[..] {
            self.check_path(node, peer, addr)?;
            if wide {
                self.check_wide(node, addr)?;
            }
        } else {
            self.in_vain.remove(&(node, peer));
        }
        for via in ways {
            if let Some(bytes) = &bytes {
                self.transmit(node, peer, via, bytes);
            }
        }
        self.serve(node)
    }

    /// A path that is trusted alone carries full packets, or did a moment ago.
    fn check_path(&mut self, node: usize, peer: usize, addr: SocketAddr) -> Result<(), String> {
        if self.arrives(node, peer, addr, FULL_DATAGRAM) {
            self.in_vain.remove(&(node, peer));
            return Ok(());
        }
        let now = self.now;
        let small = self.arrives(node, peer, addr, 200);
        let fresh = InVain {
            addr,
            since: now,
            dead: None,
        };
        let in_vain = self.in_vain.entry((node, peer)).or_insert(fresh);
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

    /// The larger size is used alone where it has arrived lately.
    fn check_wide(&self, node: usize, addr: SocketAddr) -> Result<(), String> {
        let arrived = self.wide_arrived.get(&(node, addr));
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

    /// Since when nothing has happened to both.
    pub(super) fn peace(&self, a: usize, b: usize) -> Instant {
        self.disturbed[a]
            .max(self.disturbed[b])
            .max(self.relay_disturbed)
    }

    fn count_initiation(&mut self, node: usize, peer: usize, bytes: &[u8]) -> Result<(), String> {
        let index = *bytes[4..].first_chunk::<4>().unwrap();
        let pair = (node.min(peer), node.max(peer));
        let peace = self.peace(node, peer) + 12 * SECOND;
        let now = self.now;
        let able = self.relay.state == State::Up
            && [node, peer]
                .iter()
                .all(|n| self.is_awake(*n) && self.net.hosts[*n].segment.is_some());
        let recent = self.initiations.entry(pair).or_default();
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

    /// No call waits for longer than it may.
    pub(super) fn check_calls(&mut self) -> Result<(), String> {
        for node in 0..self.nodes.len() {
            for call in &self.nodes[node].calls {
                let (a, b) = (node, call.to);
                let on = |n: usize| self.is_awake(n) && self.net.hosts[n].segment.is_some();
                let up = self.relay.state == State::Up;
                let proven = self.proven.contains(&(a.min(b), a.max(b)));
                if !(on(a) && on(b) && (up || proven)) {
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
        if self.relay.waiting() > (4 << 20) {
            return Err(self.fail("the relay's queues grow"));
        }
        Ok(())
    }

    /// The program on a node is killed and started again.
    pub(super) fn restart_node(&mut self, node: usize) {
        if let Some(conn) = self.nodes[node].conn.filter(|conn| !self.is_cut(*conn)) {
            self.relay.close(conn);
        }
        let lag = self.nodes[node].lag;
        self.nodes[node] = self.fresh_node(node, self.nodes.len());
        self.nodes[node].lag = lag;
        self.start_node(node);
        self.schedule(node);
    }

    /// The connections of a node lead nowhere any more, and nobody knows.
    pub(super) fn cut_conns(&mut self, node: usize) {
        for conn in self.relay.conns.values_mut() {
            conn.cut |= conn.node == node;
        }
    }

    /// The relay's process ends, or its machine.
    pub(super) fn end_relay(&mut self, state: State) {
        for conn in self.relay.end(state) {
            for node in 0..self.nodes.len() {
                if state == State::Ended && self.nodes[node].conn == Some(conn) {
                    let at = self.now + self.net.hosts[node].delay;
                    self.push(at, What::Reset(conn, node));
                }
            }
        }
    }

    /// Sets a node's timer, after it was changed from outside.
    pub(super) fn rouse(&mut self, node: usize) -> Result<(), String> {
        self.refresh(node);
        self.serve(node)
    }
}

impl PartialEq for Happening {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Happening {}

impl PartialOrd for Happening {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Happening {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}
