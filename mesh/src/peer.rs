//! Everything about one peer, without a socket: the tunnel, the paths, and the
//! control messages between the two nodes.
//!
//! [`Core::seal`] turns QUIC datagrams into WireGuard datagrams and
//! [`Core::route`] says where to send them; [`Core::handle`] takes what came in
//! and gives back QUIC datagrams. Everything else (handshakes, probes, answers)
//! comes out of [`Core::poll_transmit`].
//!
//! When a session comes up, both sides say hello with the random number of this
//! run of the program, and repeat it until it is acknowledged. A new number
//! means that the peer was restarted: connections to its old process are dead,
//! which nobody would notice for half a minute otherwise ([`Event::Restarted`]).
//!
//! When something was sent and nothing comes back for 750 ms, the peer is asked
//! with an echo; after 1.5 s the session itself is doubted and a new handshake
//! begins beside it. A data packet of a session that we do not have, forwarded
//! by the relay from a peer we know, has the same effect at once: the peer still
//! talks to our previous run.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::rate_limiter::RateLimiter;
use derp::{NodeKey, NodeSecret};

use crate::address_of;
use crate::control::Message;
use crate::packet::{HEADER_LEN, Pair, Port, SEAL_LEN};
use crate::path::{Agent, Route, Via};
use crate::wg::{MAX_HANDSHAKE, Opened, Sealed, Tunnel};

/// The largest QUIC datagram that is passed on in either direction. Larger ones
/// are dropped; ours are never larger than [`crate::packet::QUIC_MTU`].
pub(crate) const MAX_QUIC_DATAGRAM: usize = 1472;
/// Room for an inner packet with the largest payload.
pub(crate) const MAX_INNER: usize = MAX_QUIC_DATAGRAM + HEADER_LEN;

const HELLO_PAUSE: Duration = Duration::from_millis(250);
const HELLO_TRIES: u32 = 8;
/// Nothing came back for that long: ask.
const ASK_AFTER: Duration = Duration::from_millis(750);
/// No answer either: the session may be dead, make a new one.
const DOUBT_AFTER: Duration = Duration::from_millis(1500);
/// The id of the echo that asks after a silence; [`Core::echo`] takes others.
const SILENCE_ECHO: u64 = 0;
/// After a good-bye, stray packets do not bring the tunnel up again.
const MUTE: Duration = Duration::from_secs(1);

/// What a peer is made of.
pub(crate) struct Setup {
    pub(crate) secret: NodeSecret,
    pub(crate) local: NodeKey,
    pub(crate) remote: NodeKey,
    /// The peer's number in receiver indices, below 2^24.
    pub(crate) index: u32,
    pub(crate) limiter: Arc<RateLimiter>,
    /// This run of the program; random.
    pub(crate) boot: u64,
    /// Whether to look for direct paths.
    pub(crate) direct: bool,
    /// The first probe id; random.
    pub(crate) first_id: u64,
}

/// A datagram to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Transmit {
    pub(crate) via: Via,
    pub(crate) bytes: Vec<u8>,
}

/// Something the owner of the peer must know.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The peer's present run said hello, for the first time in this session.
    Hello { boot: u64 },
    /// An echo was answered.
    Echoed { id: u64, via: Via },
    /// The peer said good-bye.
    Departed,
}

/// The state of one peer.
pub(crate) struct Core {
    setup: Setup,
    pair: Pair,
    tunnel: Option<Box<Tunnel>>,
    agent: Agent,
    remote_boot: Option<u64>,
    /// Whether the peer has said hello in this session.
    greeted: bool,
    hello: Option<(Instant, u32)>,
    silent_since: Option<Instant>,
    asked: bool,
    last_heard: Option<Instant>,
    muted_until: Option<Instant>,
    out: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Core {
    pub(crate) fn new(setup: Setup) -> Self {
        Self {
            pair: Pair {
                local: address_of(&setup.local),
                remote: address_of(&setup.remote),
            },
            agent: Agent::new(setup.direct, setup.first_id),
            setup,
            tunnel: None,
            remote_boot: None,
            greeted: false,
            hello: None,
            silent_since: None,
            asked: false,
            last_heard: None,
            muted_until: None,
            out: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Says where this node can be reached, best first.
    pub(crate) fn set_endpoints(&mut self, endpoints: &[SocketAddr]) {
        self.agent.set_endpoints(endpoints);
    }

    /// Encrypts a QUIC datagram into `out` and returns the length. `scratch`
    /// holds at least [`MAX_INNER`] bytes, `out` [`SEAL_LEN`] more. `None` means
    /// that it waits for a session, or was too large.
    pub(crate) fn seal(
        &mut self,
        payload: &[u8],
        scratch: &mut [u8],
        out: &mut [u8],
        now: Instant,
    ) -> Option<usize> {
        if payload.len() > MAX_QUIC_DATAGRAM {
            return None;
        }
        let len = self.pair.build(Port::Quic, payload, scratch);
        self.silent_since.get_or_insert(now);
        let mut emitted = Vec::new();
        let sealed = self
            .tunnel(now)
            .seal(&scratch[..len], out, now, &mut emitted);
        self.emit(emitted, now);
        match sealed {
            Sealed::Data(len) => Some(len),
            Sealed::Queued => None,
        }
    }

    /// Where data goes now. Counts as use of the path.
    pub(crate) fn route(&mut self, now: Instant) -> Route {
        self.agent.route(now)
    }

    /// Where data would go, without using the path.
    pub(crate) fn current_route(&self, now: Instant) -> Route {
        self.agent.current(now)
    }

    /// Whether there is a direct path.
    pub(crate) const fn has_direct(&self) -> bool {
        self.agent.has_direct()
    }

    /// Whether a session is up.
    pub(crate) fn has_session(&self) -> bool {
        self.tunnel
            .as_ref()
            .is_some_and(|tunnel| tunnel.has_session())
    }

    /// The round-trip time of the direct path.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.agent.rtt()
    }

    /// When the last authentic packet came in.
    pub(crate) const fn last_heard(&self) -> Option<Instant> {
        self.last_heard
    }

    /// The peer's run, if it has said hello in the present session.
    pub(crate) fn remote_boot(&self) -> Option<u64> {
        self.remote_boot.filter(|_| self.greeted)
    }

    /// Brings a session up, unless there is one.
    pub(crate) fn connect(&mut self, now: Instant) {
        let mut emitted = Vec::new();
        self.tunnel(now).initiate(false, now, &mut emitted);
        self.emit(emitted, now);
    }

    /// Sends an echo on the path in use.
    pub(crate) fn echo(&mut self, id: u64, now: Instant) {
        self.connect(now);
        let route = self.agent.route(now);
        self.send(&Message::Echo { id }, route, now);
    }

    /// Says good-bye, if there is somebody to say it to.
    pub(crate) fn say_bye(&mut self, now: Instant) {
        let mut route = self.agent.current(now);
        route.relay = true;
        self.send(&Message::Bye, route, now);
    }

    /// Takes a datagram from the peer and decrypts it into `buf`, which is at
    /// least as long as the datagram and [`MAX_HANDSHAKE`]. Returns where in
    /// `buf` a QUIC datagram is, if it was one. `source` stands for the sender
    /// in the handshake limiter.
    pub(crate) fn handle(
        &mut self,
        via: Via,
        source: IpAddr,
        datagram: &[u8],
        buf: &mut [u8],
        now: Instant,
    ) -> Option<Range<usize>> {
        let mut reply = Vec::new();
        let opened = self
            .tunnel(now)
            .open(source, datagram, buf, now, &mut reply);
        let reply = reply.into_iter().map(|bytes| Transmit { via, bytes });
        self.out.extend(reply);
        if self.tunnel(now).take_established() {
            self.session_came_up(now);
        }
        match opened {
            Opened::Packet(len) => self.handle_packet(via, &buf[..len], now),
            Opened::Stale if via == Via::Relay => {
                self.handle_stray(now);
                None
            }
            Opened::Stale | Opened::Nothing | Opened::Refused => None,
        }
    }

    /// A data packet came over the relay that belongs to no session of ours:
    /// the peer does not know that we have none.
    pub(crate) fn handle_stray(&mut self, now: Instant) {
        if self.muted_until.is_some_and(|until| now < until) {
            return;
        }
        let mut emitted = Vec::new();
        self.tunnel(now).initiate(true, now, &mut emitted);
        self.emit(emitted, now);
    }

    /// Runs what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.run_tunnel(now);
        self.agent.handle_timeout(now);
        self.say_hello(now);
        self.watch_silence(now);
        self.flush_agent(now);
    }

    /// When [`Core::handle_timeout`] wants to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let tunnel = self.tunnel.as_ref().map(|tunnel| tunnel.poll_timeout());
        let hello = self.hello.map(|(due, _)| due);
        let patience = if self.asked { DOUBT_AFTER } else { ASK_AFTER };
        let silence = self.silent_since.map(|since| since + patience);
        let all = [tunnel, self.agent.poll_timeout(), hello, silence];
        all.into_iter().flatten().min()
    }

    /// Whether there is something to transmit or to report.
    pub(crate) fn has_output(&self) -> bool {
        !self.out.is_empty() || !self.events.is_empty()
    }

    /// The next datagram to be sent.
    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.pop_front()
    }

    /// The next event.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn handle_packet(&mut self, via: Via, packet: &[u8], now: Instant) -> Option<Range<usize>> {
        // Authentic, but another source address than the key's: not for us.
        let port = self.pair.parse(packet)?;
        self.last_heard = Some(now);
        self.silent_since = None;
        self.asked = false;
        self.agent.handle_heard(via);
        if port == Port::Control {
            if let Some(message) = Message::decode(&packet[HEADER_LEN..]) {
                self.handle_control(via, message, now);
            }
            return None;
        }
        let payload = packet.len() - HEADER_LEN;
        (1..=MAX_QUIC_DATAGRAM)
            .contains(&payload)
            .then_some(HEADER_LEN..packet.len())
    }

    fn handle_control(&mut self, via: Via, message: Message, now: Instant) {
        match message {
            Message::Hello { boot } => self.handle_hello(via, boot, now),
            Message::HelloSeen { boot } if boot == self.setup.boot => self.hello = None,
            Message::HelloSeen { .. } => {}
            Message::CallMeMaybe { endpoints } => {
                self.agent.handle_call_me_maybe(&endpoints, now);
            }
            Message::Probe { id } => self.agent.handle_probe(id, via, now),
            Message::Pong { id, .. } => self.agent.handle_pong(id, via, now),
            Message::Echo { id } => self.send_via(&Message::EchoReply { id }, via, now),
            // Our own question after a silence; that something came is enough.
            Message::EchoReply { id: SILENCE_ECHO } => {}
            Message::EchoReply { id } => self.events.push_back(Event::Echoed { id, via }),
            Message::Bye => self.handle_bye(now),
        }
        self.flush_agent(now);
    }

    fn handle_hello(&mut self, via: Via, boot: u64, now: Instant) {
        self.send_via(&Message::HelloSeen { boot }, via, now);
        if self.remote_boot.is_some_and(|known| known != boot) {
            self.agent.handle_restart(now);
        }
        if !self.greeted || self.remote_boot != Some(boot) {
            self.greeted = true;
            self.remote_boot = Some(boot);
            self.events.push_back(Event::Hello { boot });
        }
    }

    fn handle_bye(&mut self, now: Instant) {
        self.drop_tunnel();
        self.agent.handle_departure();
        self.remote_boot = None;
        self.muted_until = Some(now + MUTE);
        self.events.push_back(Event::Departed);
    }

    fn session_came_up(&mut self, now: Instant) {
        self.greeted = false;
        self.hello = Some((now, 0));
        self.silent_since = None;
        self.asked = false;
        self.last_heard = Some(now);
        self.agent.handle_session(now);
        self.say_hello(now);
        self.flush_agent(now);
    }

    fn say_hello(&mut self, now: Instant) {
        let Some((due, tries)) = self.hello else {
            return;
        };
        if due > now {
            return;
        }
        self.hello = (tries + 1 < HELLO_TRIES).then_some((now + HELLO_PAUSE, tries + 1));
        let mut route = self.agent.current(now);
        route.relay |= tries > 0;
        let boot = self.setup.boot;
        self.send(&Message::Hello { boot }, route, now);
    }

    fn run_tunnel(&mut self, now: Instant) {
        let Some(tunnel) = &mut self.tunnel else {
            return;
        };
        let mut emitted = Vec::new();
        tunnel.tick(now, &mut emitted);
        if tunnel.is_spent(now) {
            self.drop_tunnel();
        }
        self.emit(emitted, now);
    }

    fn watch_silence(&mut self, now: Instant) {
        let Some(since) = self.silent_since else {
            return;
        };
        if !self.has_session() {
            // The handshake asks louder than we could.
            self.silent_since = None;
            return;
        }
        let silence = now.saturating_duration_since(since);
        if silence >= DOUBT_AFTER {
            self.silent_since = None;
            self.asked = false;
            let mut emitted = Vec::new();
            self.tunnel(now).initiate(true, now, &mut emitted);
            self.emit(emitted, now);
        } else if silence >= ASK_AFTER && !self.asked {
            self.asked = true;
            let route = self.agent.current(now);
            self.send(&Message::Echo { id: SILENCE_ECHO }, route, now);
        }
    }

    fn drop_tunnel(&mut self) {
        self.tunnel = None;
        self.greeted = false;
        self.hello = None;
        self.silent_since = None;
        self.asked = false;
    }

    fn tunnel(&mut self, now: Instant) -> &mut Tunnel {
        if self
            .tunnel
            .as_ref()
            .is_some_and(|tunnel| tunnel.is_spent(now))
        {
            self.drop_tunnel();
        }
        let setup = &self.setup;
        self.tunnel.get_or_insert_with(|| {
            let Setup { secret, remote, .. } = setup;
            Box::new(Tunnel::new(
                secret,
                remote,
                setup.index,
                &setup.limiter,
                now,
            ))
        })
    }

    /// Routes what the tunnel wants sent. An initiation goes every way there is,
    /// since it is needed most when no way is known to work.
    fn emit(&mut self, emitted: Vec<Vec<u8>>, now: Instant) {
        for bytes in emitted {
            let Route { direct, relay } = self.agent.current(now);
            let initiation = bytes.first() == Some(&1);
            let mut ways: Vec<_> = direct.into_iter().map(Via::Direct).collect();
            if initiation && direct.is_none() {
                ways.extend(self.agent.possible().map(Via::Direct));
            }
            if relay || initiation {
                ways.push(Via::Relay);
            }
            for via in ways {
                let bytes = bytes.clone();
                self.out.push_back(Transmit { via, bytes });
            }
        }
    }

    fn flush_agent(&mut self, now: Instant) {
        while let Some((via, message)) = self.agent.poll_transmit() {
            self.send_via(&message, via, now);
        }
    }

    fn send(&mut self, message: &Message, route: Route, now: Instant) {
        if let Some(addr) = route.direct {
            self.send_via(message, Via::Direct(addr), now);
        }
        if route.relay {
            self.send_via(message, Via::Relay, now);
        }
    }

    /// Sends a control message, if there is a session; else it is lost, and
    /// whoever needs it sends it again.
    fn send_via(&mut self, message: &Message, via: Via, now: Instant) {
        if !self.has_session() {
            return;
        }
        let payload = message.encode();
        let mut packet = vec![0; HEADER_LEN + payload.len()];
        let len = self.pair.build(Port::Control, &payload, &mut packet);
        let mut bytes = vec![0; (len + SEAL_LEN).max(MAX_HANDSHAKE)];
        let mut emitted = Vec::new();
        let sealed = self
            .tunnel(now)
            .seal(&packet, &mut bytes, now, &mut emitted);
        if let Sealed::Data(len) = sealed {
            bytes.truncate(len);
            self.out.push_back(Transmit { via, bytes });
        }
        self.emit(emitted, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wg::demux::Demux;

    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    struct World {
        now: Instant,
        cores: [Core; 2],
        addrs: [SocketAddr; 2],
        relay: bool,
        udp: bool,
        got: [Vec<Vec<u8>>; 2],
    }

    fn core(mine: u8, theirs: u8, boot: u64) -> Core {
        let [mine, theirs] = [mine, theirs].map(|n| NodeSecret::from_bytes([n; 32]));
        Core::new(Setup {
            local: mine.public(),
            remote: theirs.public(),
            index: boot as u32 & 0xff_ffff,
            limiter: Arc::clone(Demux::new(&mine).limiter()),
            boot,
            direct: true,
            first_id: 1,
            secret: mine,
        })
    }

    impl World {
        fn new() -> Self {
            let addrs = [1, 2].map(|n| SocketAddr::from(([127, 0, 0, n], 1000)));
            let mut cores = [core(1, 2, 11), core(2, 1, 22)];
            cores[0].set_endpoints(&addrs[..1]);
            cores[1].set_endpoints(&addrs[1..]);
            Self {
                now: Instant::now(),
                cores,
                addrs,
                relay: true,
                udp: true,
                got: [vec![], vec![]],
            }
        }

        fn send(&mut self, from: usize, payload: &[u8]) {
            let (mut scratch, mut out) = ([0; 2048], [0; 2048]);
            let core = &mut self.cores[from];
            let route = core.route(self.now);
            if let Some(len) = core.seal(payload, &mut scratch, &mut out, self.now) {
                let direct = route.direct.map(Via::Direct);
                let relay = route.relay.then_some(Via::Relay);
                for via in direct.into_iter().chain(relay) {
                    self.deliver(from, via, &out[..len]);
                }
            }
            self.exchange();
        }

        fn deliver(&mut self, from: usize, via: Via, bytes: &[u8]) {
            let to = 1 - from;
            let via = match via {
                Via::Relay if self.relay => Via::Relay,
                Via::Direct(addr) if self.udp && addr == self.addrs[to] => {
                    Via::Direct(self.addrs[from])
                }
                _ => return,
            };
            let mut buf = vec![0; 70_000];
            let got = self.cores[to].handle(via, SOURCE, bytes, &mut buf, self.now);
            self.got[to].extend(got.map(|range| buf[range].to_vec()));
        }

        /// Delivers until nobody has anything to say.
        fn exchange(&mut self) {
            loop {
                let next = (0..2).find_map(|from| Some((from, self.cores[from].poll_transmit()?)));
                let Some((from, transmit)) = next else {
                    return;
                };
                self.deliver(from, transmit.via, &transmit.bytes);
            }
        }

        fn run(&mut self, time: Duration) {
            let until = self.now + time;
            while self.now < until {
                let timers = self.cores.iter().filter_map(Core::poll_timeout);
                self.now = timers.min().unwrap_or(until).clamp(self.now, until);
                for core in &mut self.cores {
                    core.handle_timeout(self.now);
                }
                self.exchange();
            }
        }

        fn events(&mut self, of: usize) -> Vec<Event> {
            std::iter::from_fn(|| self.cores[of].poll_event()).collect()
        }
    }

    #[test]
    fn the_first_packet_brings_up_everything() {
        let mut world = World::new();
        world.send(0, b"hello");
        assert_eq!(world.got[1], [b"hello"]);
        assert_eq!(world.events(0), [Event::Hello { boot: 22 }]);
        assert_eq!(world.events(1), [Event::Hello { boot: 11 }]);
        let route = world.cores[0].route(world.now);
        assert_eq!((route.direct, route.relay), (Some(world.addrs[1]), false));
        world.send(1, b"back");
        assert_eq!(world.got[0], [b"back"]);
    }

    #[test]
    fn a_lost_handshake_or_hello_is_repeated() {
        let mut world = World::new();
        world.relay = false;
        world.send(0, b"hello");
        world.run(Duration::from_millis(120));
        world.relay = true;
        world.run(Duration::from_millis(100));
        assert_eq!(world.got[1], [b"hello"]);
        assert_eq!(world.cores[0].remote_boot(), Some(22));
    }

    #[test]
    fn packets_in_doubt_arrive_once() {
        let mut world = World::new();
        world.send(0, b"hello");
        world.run(Duration::from_secs(30));
        let route = world.cores[0].current_route(world.now);
        assert!(route.direct.is_some() && route.relay);
        world.send(0, b"again");
        assert_eq!(world.got[1], [&b"hello"[..], b"again"]);
    }

    #[test]
    fn a_restarted_peer_is_known_by_its_number() {
        let mut world = World::new();
        world.send(0, b"hello");
        world.events(0);
        for boot in 100..110 {
            world.cores[1] = core(2, 1, boot);
            world.got[1].clear();
            // The relay forwards a packet of the old session.
            world.udp = false;
            world.run(Duration::from_secs(2));
            world.send(0, b"anybody there?");
            world.run(Duration::from_secs(2));
            assert_eq!(world.events(0), [Event::Hello { boot }]);
            world.send(0, b"you again");
            assert_eq!(world.got[1].last().unwrap(), b"you again");
        }
    }

    #[test]
    fn a_restarted_peer_is_found_without_the_relay() {
        let mut world = World::new();
        world.send(0, b"hello");
        world.events(0);
        world.relay = false;
        world.cores[1] = core(2, 1, 33);
        world.send(0, b"lost");
        world.run(Duration::from_secs(4));
        assert_eq!(world.events(0), [Event::Hello { boot: 33 }]);
    }

    #[test]
    fn an_echo_is_answered_on_the_path_in_use() {
        let mut world = World::new();
        world.send(0, b"hello");
        world.events(0);
        world.cores[0].echo(77, world.now);
        world.exchange();
        let via = Via::Direct(world.addrs[1]);
        assert_eq!(world.events(0), [Event::Echoed { id: 77, via }]);
    }

    #[test]
    fn a_good_bye_ends_the_session_and_strays_do_not_revive_it() {
        let mut world = World::new();
        world.send(0, b"hello");
        world.events(1);
        let (mut scratch, mut late) = ([0; 2048], [0; 2048]);
        let len = world.cores[0].seal(b"late", &mut scratch, &mut late, world.now);
        world.cores[0].say_bye(world.now);
        world.exchange();
        assert_eq!(world.events(1), [Event::Departed]);
        assert!(!world.cores[1].has_session());
        world.deliver(0, Via::Relay, &late[..len.unwrap()]);
        assert_eq!(world.cores[1].poll_transmit(), None);
        assert_eq!(world.got[1], [b"hello"]);
    }

    #[test]
    fn an_authentic_packet_with_a_foreign_source_is_dropped() {
        let mut world = World::new();
        world.send(0, b"hello");
        world.cores[0].pair.local = "fd7a:115c:a1e0::bad".parse().unwrap();
        world.send(0, b"forged");
        assert_eq!(world.got[1], [b"hello"]);
    }

    #[test]
    fn an_oversized_payload_is_dropped() {
        let mut world = World::new();
        world.send(0, b"hello");
        let (mut scratch, mut out) = ([0; 4096], [0; 4096]);
        let payload = [0; MAX_QUIC_DATAGRAM + 1];
        let core = &mut world.cores[0];
        assert_eq!(core.seal(&payload, &mut scratch, &mut out, world.now), None);
        // A peer that does not care about the limit.
        let len = core.pair.build(Port::Quic, &payload, &mut scratch);
        let tunnel = core.tunnel(world.now);
        let sealed = tunnel.seal(&scratch[..len], &mut out, world.now, &mut vec![]);
        let Sealed::Data(len) = sealed else {
            panic!("no session");
        };
        world.deliver(0, Via::Relay, &out[..len]);
        assert_eq!(world.got[1], [b"hello"]);
    }

    #[test]
    fn an_idle_peer_costs_no_timer_and_no_tunnel() {
        let mut world = World::new();
        world.send(0, b"hello");
        world.run(Duration::from_secs(400));
        for core in &world.cores {
            assert!(core.tunnel.is_none());
            assert_eq!(core.poll_timeout(), None);
        }
        world.send(0, b"once more");
        assert_eq!(world.got[1].last().unwrap(), b"once more");
    }
}
