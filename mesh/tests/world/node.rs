//! A node of the world: the same state machines as a real one, with the glue
//! of `io` around them written out without sockets.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::rate_limiter::RateLimiter;
use derp::client::Client;
use derp::{NodeKey, NodeSecret};

use super::call::Call;
use crate::home::Home;
use crate::packet::QUIC_MTU;
use crate::path::{Around, Via};
use crate::peer::{Core, Event, Setup, Transmit};
use crate::reflect::Reflector;
use crate::standby::{Connection, Refusal, Standby, Standing, Which};
use crate::wg::demux::{Class, Demux, Initiator, classify};

/// Numbers of nodes fit into receiver indices so often.
const INDEX_STEP: u32 = 64;

/// The first port of a fan, and how many there are.
const FAN: u16 = 20_000;
pub(super) const FAN_PORTS: u16 = 256;

/// What came out of a datagram.
pub(super) enum Got {
    Nothing,
    /// A payload from this node.
    Payload(usize, Vec<u8>),
}

/// What became of a payload.
pub(super) struct Sealed {
    pub(super) ways: Vec<Via>,
    /// It has the larger size.
    pub(super) wide: bool,
    pub(super) bytes: Option<Vec<u8>>,
}

/// What a node has to do with one relay.
#[derive(Default)]
pub(super) struct Link {
    pub(super) home: Home,
    /// The number of the connection, or of the attempt at one.
    pub(super) conn: Option<u64>,
    pub(super) client: Client,
    /// Of connections and attempts, those that failed.
    pub(super) failed: u64,
    /// Who is not there, as the relay says.
    pub(super) absent: BTreeSet<usize>,
}

/// One node.
pub(super) struct Node {
    pub(super) me: usize,
    pub(super) key: NodeKey,
    /// The keys of all nodes.
    keys: Vec<NodeKey>,
    secret: NodeSecret,
    demux: Demux,
    limiter: Arc<RateLimiter>,
    around: Arc<Around>,
    pub(super) boot: u64,
    pub(super) port: u16,
    /// Where a fan was opened to.
    pub(super) fan: Option<SocketAddr>,
    /// Addresses that are reached by a port of the fan, as `io::fan` has it.
    pub(super) lanes: HashMap<SocketAddr, u16>,
    /// With the relay by which it is found, and with the one that stands by.
    pub(super) links: [Link; 2],
    standby: Standby,
    pub(super) reflector: Reflector,
    pub(super) cores: Vec<Option<Core>>,
    /// How far its clock is behind the world's: the sum of its sleeps.
    pub(super) lag: Duration,
    pub(super) asleep: Option<Instant>,
    /// When its timer goes off, in the world's time.
    pub(super) scheduled: Option<Instant>,
    pub(super) endpoints: Arc<[SocketAddr]>,
    pub(super) calls: Vec<Call>,
    /// Datagrams that the state machines want sent.
    pub(super) out: VecDeque<(usize, Transmit)>,
    buf: Vec<u8>,
}

pub(super) fn secret(of: usize) -> NodeSecret {
    NodeSecret::from_bytes([of as u8 + 1; 32])
}

impl Node {
    pub(super) fn new(me: usize, nodes: usize, boot: u64, port: u16) -> Self {
        let secret = secret(me);
        // boringtun counts in real seconds, of which a world takes few.
        let demux = Demux::with_limit(&secret, u64::MAX);
        let mut node = Self {
            me,
            key: secret.public(),
            keys: (0..nodes).map(|node| self::secret(node).public()).collect(),
            limiter: Arc::clone(demux.limiter()),
            around: Arc::default(),
            demux,
            secret,
            boot,
            port,
            fan: None,
            lanes: HashMap::new(),
            links: Default::default(),
            standby: Standby::default(),
            reflector: Reflector::default(),
            cores: vec![],
            lag: Duration::ZERO,
            asleep: None,
            scheduled: None,
            endpoints: Arc::default(),
            calls: vec![],
            out: VecDeque::new(),
            buf: vec![0; 70_000],
        };
        for peer in 0..nodes {
            let core = (peer != me).then(|| node.core(peer));
            node.cores.push(core);
        }
        node
    }

    fn core(&self, peer: usize) -> Core {
        let run = (self.boot & 0x3ff) as u32;
        Core::new(Setup {
            secret: self.secret.clone(),
            local: self.key,
            remote: self.keys[peer],
            index: run * INDEX_STEP + peer as u32,
            limiter: Arc::clone(&self.limiter),
            boot: self.boot,
            direct: true,
            first_id: self.boot << 32,
        })
    }

    pub(super) fn link(&self, which: Which) -> &Link {
        &self.links[which as usize]
    }

    pub(super) fn link_mut(&mut self, which: Which) -> &mut Link {
        &mut self.links[which as usize]
    }

    /// Which node has this key.
    pub(super) fn holder(&self, key: &NodeKey) -> Option<usize> {
        self.keys.iter().position(|known| known == key)
    }

    /// Gives a packet to the relays, as `io::relay` does. Without room it is lost.
    pub(super) fn relay(&mut self, peer: usize, packet: &[u8], now: Instant) {
        if !self.link(Which::Other).home.is_up() {
            let _ = self.give(Which::First, peer, packet, now);
            return;
        }
        let standing = |which| Standing {
            in_doubt: self.link(which).home.is_in_doubt(),
            misses_peer: self.link(which).absent.contains(&peer),
        };
        let plan = self.standby.plan(&self.keys[peer], packet, now, standing);
        let _ = plan.carry_out(|which| self.give(which, peer, packet, now));
    }

    fn give(
        &mut self,
        which: Which,
        peer: usize,
        packet: &[u8],
        now: Instant,
    ) -> Result<(), Refusal> {
        let key = self.keys[peer];
        let link = self.link_mut(which);
        if !link.home.is_up() {
            return Err(Refusal::Gone);
        }
        link.home.handle_sent(now);
        let given = link.client.handle_send(&key, packet);
        given.map_err(|_| Refusal::Full)
    }

    /// A connection with a relay has come or gone: relays and peers are told, as `io::relay` does.
    pub(super) fn handle_connections(&mut self, now: Instant) {
        let connections = self.links.each_ref().map(|link| match link.conn {
            Some(conn) if link.home.is_up() => Connection::There(conn),
            _ => Connection::Missing(link.failed),
        });
        let change = self.standby.handle_connections(connections);
        for (link, note) in self.links.iter_mut().zip(change.notes) {
            if let Some(preferred) = note {
                let _ = link.client.handle_note(preferred);
            }
        }
        if change.rerouted {
            for core in self.cores.iter_mut().flatten() {
                core.handle_relay_up(now);
            }
        }
    }

    pub(super) fn core_mut(&mut self, peer: usize) -> &mut Core {
        self.cores[peer].as_mut().unwrap()
    }

    /// Tells the peers' state machines our addresses, if they have changed.
    pub(super) fn refresh_endpoints(&mut self, own: Option<SocketAddr>) {
        let found = self.reflector.endpoints(None, own.as_slice());
        if self.endpoints[..] != found[..] {
            self.endpoints = found.into();
        }
        let outside = self.reflector.outside();
        if self.around.outside != outside {
            let attempts = Arc::clone(&self.around.attempts);
            self.around = Arc::new(Around { outside, attempts });
        }
        for core in self.cores.iter_mut().flatten() {
            core.set_endpoints(Arc::clone(&self.endpoints));
            core.set_around(&self.around);
        }
    }

    /// The ports of a fan.
    pub(super) fn fan_ports() -> std::ops::Range<u16> {
        FAN..FAN + FAN_PORTS
    }

    /// Whether it has this port open, for a datagram from there. By which port
    /// of a fan the first one comes in, that is used from then on.
    pub(super) fn listens(&mut self, port: u16, source: SocketAddr) -> bool {
        if self.fan == Some(source) && Self::fan_ports().contains(&port) {
            self.fan = None;
            self.lanes.insert(source, port);
        }
        self.port == port || self.lanes.get(&source) == Some(&port)
    }

    /// The machine is elsewhere: what was guessed is void.
    pub(super) fn forget_lanes(&mut self) {
        self.fan = None;
        self.lanes.clear();
    }

    /// The port by which an address is reached.
    pub(super) fn port_for(&self, to: SocketAddr) -> u16 {
        self.lanes.get(&to).copied().unwrap_or(self.port)
    }

    /// Encrypts for a peer; `None` while it waits for a session. Also says
    /// which ways it is to go. What is longer than may be at present is sent in
    /// the size that always may, as QUIC would.
    pub(super) fn seal(&mut self, peer: usize, payload: &[u8], now: Instant) -> Sealed {
        let (mut scratch, mut out) = ([0; 2048], vec![0; 2048]);
        let core = self.core_mut(peer);
        let (route, payload) = match core.route_for(payload.len(), now) {
            Some(route) => (route, payload),
            None => (core.route_for(QUIC_MTU, now).unwrap(), &payload[..QUIC_MTU]),
        };
        let wide = payload.len() > QUIC_MTU;
        let sealed = core.seal(payload, &mut scratch, &mut out, now);
        let mut ways: Vec<_> = route.direct.into_iter().map(Via::Direct).collect();
        ways.extend(route.relay.then_some(Via::Relay));
        let bytes = sealed.map(|len| {
            out.truncate(len);
            out
        });
        Sealed { ways, wide, bytes }
    }

    /// Takes a datagram, as `io::receive` does.
    pub(super) fn receive(
        &mut self,
        via: Via,
        relayed_from: Option<(usize, Which)>,
        bytes: &[u8],
        now: Instant,
    ) -> Got {
        let peer = match classify(bytes) {
            Class::Garbage => {
                if let Via::Direct(source) = via {
                    self.reflector.handle(source, bytes, now);
                }
                return Got::Nothing;
            }
            Class::For(index) => {
                let run = (self.boot & 0x3ff) as u32;
                let peer = (index % INDEX_STEP) as usize;
                let ours = index / INDEX_STEP == run && peer < self.cores.len();
                if !ours || peer == self.me {
                    if let Some((from, _)) = relayed_from {
                        self.core_mut(from).handle_stray(now);
                    }
                    return Got::Nothing;
                }
                peer
            }
            Class::Initiation => match (relayed_from, via) {
                (Some((from, _)), _) => from,
                (None, Via::Direct(source)) => {
                    match self.demux.initiator(source.ip(), bytes, now) {
                        Initiator::Key(key) => {
                            match self.holder(&key).filter(|peer| *peer != self.me) {
                                Some(peer) => peer,
                                None => return Got::Nothing,
                            }
                        }
                        _ => return Got::Nothing,
                    }
                }
                (None, Via::Relay | Via::Fan(_)) => return Got::Nothing,
            },
        };
        let source = match via {
            Via::Direct(addr) | Via::Fan(addr) => addr.ip(),
            Via::Relay => [10, 0, 0, peer as u8].into(),
        };
        let mut buf = std::mem::take(&mut self.buf);
        let core = self.cores[peer].as_mut().unwrap();
        let before = core.last_heard();
        let got = core.handle(via, source, bytes, &mut buf, now);
        if let Some((_, which)) = relayed_from
            && (got.is_some() || core.last_heard() != before)
        {
            let key = self.keys[peer];
            self.standby.handle_authentic(&key, which, now);
        }
        let got = got.map(|range| buf[range].to_vec());
        self.buf = buf;
        got.map_or(Got::Nothing, |payload| Got::Payload(peer, payload))
    }

    /// Collects what the state machines want sent. Most events are for
    /// connections, which nobody has here.
    pub(super) fn collect(&mut self) {
        for (peer, core) in self.cores.iter_mut().enumerate() {
            let Some(core) = core else { continue };
            while let Some(transmit) = core.poll_transmit() {
                self.out.push_back((peer, transmit));
            }
            while let Some(event) = core.poll_event() {
                if let Event::Seen(seen) = event {
                    self.reflector.handle_seen(seen);
                }
            }
        }
    }

    /// When it wants to be woken, by its own clock.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let cores = self.cores.iter().flatten().filter_map(Core::poll_timeout);
        let calls = self.calls.iter().map(|call| call.next - self.lag);
        let homes = self.links.iter();
        let homes = homes.filter_map(|link| link.home.poll_timeout(now));
        let reflector = self.reflector.poll_timeout();
        cores.chain(calls).chain(homes).chain(reflector).min()
    }
}
