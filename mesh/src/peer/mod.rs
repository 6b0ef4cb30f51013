//! Everything about one peer, without a socket: the tunnel, the paths, and the
//! control messages between the two nodes.
//!
//! [`Core::seal`] turns QUIC datagrams into WireGuard datagrams and
//! [`Core::route_for`] says where to send them; [`Core::handle`] takes what came in
//! and gives back QUIC datagrams. Everything else (handshakes, probes, answers)
//! comes out of [`Core::poll_transmit`].
//!
//! When a session comes up, both sides say hello with the random number of this
//! run of the program, and repeat it until it is acknowledged. A new number
//! means that the peer was restarted: connections to its old process are dead,
//! which nobody would notice for half a minute otherwise ([`Event::Hello`]).
//!
//! When something was sent and nothing comes back for 750 ms, the peer is asked
//! with an echo; after 1.5 s the session itself is doubted and a new handshake
//! begins beside it. A data packet of a session that we do not have, forwarded
//! by the relay from a peer we know, has the same effect at once: the peer still
//! talks to our previous run.
//!
//! What is heard after such a silence is told ([`Event::Revived`]): QUIC has
//! waited longer with each try, and would go on for as long as the silence was. Who
//! answers the echo at once was there all the time and had nothing to say. If that
//! were told as well, what follows from it would end in such a pause again, and two
//! peers at rest would keep each other awake for ever.

mod talk;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::rate_limiter::RateLimiter;
use derp::{NodeKey, NodeSecret};

use crate::address_of;
use crate::control::Message;
use crate::packet::{HEADER_LEN, Pair, Port};
use crate::path::{Agent, Around, Obstacle, Route, Via};
use crate::reflect::Mapping;
use crate::wg::{Opened, Sealed, Tunnel};

/// The largest QUIC datagram that is passed on in either direction. Larger ones
/// are dropped; ours are never larger than [`crate::packet::WIDE_MTU`].
pub(crate) const MAX_QUIC_DATAGRAM: usize = 1472;
/// Room for an inner packet with the largest payload.
pub(crate) const MAX_INNER: usize = MAX_QUIC_DATAGRAM + HEADER_LEN;

/// Nothing came back for that long: ask.
const ASK_AFTER: Duration = Duration::from_millis(750);
/// An echo is answered at once within that time, or two round trips.
const AT_ONCE: Duration = Duration::from_millis(350);
/// No answer either: the session may be dead, make a new one.
const DOUBT_AFTER: Duration = Duration::from_millis(1500);

/// After so long a sleep a session is not worth trying: it ends after 180 s,
/// and the peer may have begun another one.
const SESSION_OUTLIVED: Duration = Duration::from_secs(100);

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
    /// The peer sees us at this address.
    Seen(SocketAddr),
    /// Something came from the peer again, after it had been silent.
    Revived,
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
    /// It has been silent for so long that the session was doubted.
    doubted: bool,
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
            doubted: false,
            last_heard: None,
            muted_until: None,
            out: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Says where this node can be reached, best first.
    pub(crate) fn set_endpoints(&mut self, endpoints: Arc<[SocketAddr]>) {
        self.agent.set_endpoints(endpoints);
    }

    /// Says what is known about this node's surroundings.
    pub(crate) fn set_around(&mut self, around: &Arc<Around>) {
        self.agent.set_around(around);
    }

    /// Why there is no direct path, if there is none.
    pub(crate) fn obstacle(&self, now: Instant) -> Option<Obstacle> {
        self.agent.obstacle(now)
    }

    /// How the peer's NAT chooses addresses, as the peer says.
    pub(crate) fn peer_mapping(&self) -> Mapping {
        self.agent.peer_mapping()
    }

    /// Encrypts a QUIC datagram into `out` and returns the length. `scratch`
    /// holds at least [`MAX_INNER`] bytes, `out` [`crate::packet::SEAL_LEN`] more. `None` means
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
            Sealed::Queued | Sealed::Refused => None,
        }
    }

    /// Where a QUIC datagram of this length goes now, if it may be that long. Counts as use of
    /// the path.
    pub(crate) fn route_for(&mut self, len: usize, now: Instant) -> Option<Route> {
        self.agent.route_for(len, now)
    }

    /// Whether something was sent lately.
    pub(crate) fn is_used(&self, now: Instant) -> bool {
        self.agent.is_used(now)
    }

    /// Whether the direct path carries datagrams of [`crate::packet::WIDE_MTU`].
    pub(crate) fn is_wide(&self, now: Instant) -> bool {
        self.agent.is_wide(now)
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
    /// least as long as the datagram and [`crate::wg::MAX_HANDSHAKE`]. Returns where in
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
        if self.tunnel.as_mut().is_some_and(|t| t.take_established()) {
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

    /// The relay is connected (again): what waited for it goes on.
    pub(crate) fn handle_relay_up(&mut self, now: Instant) {
        let mut emitted = Vec::new();
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.hurry(now, &mut emitted);
        }
        self.emit(emitted, now);
    }

    /// The peer is connected to the relay again, as somebody says: whoever waits
    /// for an answer need not wait for the next try.
    pub(crate) fn handle_return(&mut self, now: Instant) {
        let waits = self.doubted || self.silent_since.is_some();
        let Some(tunnel) = &mut self.tunnel else {
            return;
        };
        let mut emitted = Vec::new();
        tunnel.hurry(now, &mut emitted);
        if emitted.is_empty() && waits {
            tunnel.initiate(true, now, &mut emitted);
        }
        self.emit(emitted, now);
        self.events.push_back(Event::Revived);
    }

    /// This machine has other addresses now.
    pub(crate) fn handle_move(&mut self, now: Instant) {
        self.agent.handle_move(now);
        self.flush_agent(now);
    }

    /// This machine has slept for so long, at least as far as it can tell.
    pub(crate) fn handle_sleep(&mut self, slept: Duration, now: Instant) {
        if slept >= SESSION_OUTLIVED {
            self.drop_tunnel();
        }
        self.handle_move(now);
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

    /// Takes a decrypted packet. Returns where in it a QUIC datagram is, if it is one.
    pub(crate) fn handle_packet(
        &mut self,
        via: Via,
        packet: &[u8],
        now: Instant,
    ) -> Option<Range<usize>> {
        // Authentic, but another source address than the key's: not for us.
        let port = self.pair.parse(packet)?;
        self.end_silence(now);
        self.agent.handle_heard(via, now);
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

    /// Something authentic has come.
    fn end_silence(&mut self, now: Instant) {
        self.last_heard = Some(now);
        self.asked = false;
        let silence = self.silent_since.take();
        let pause = ASK_AFTER + AT_ONCE.max(self.agent.rtt().unwrap_or_default() * 2);
        let was_silent = silence.is_some_and(|since| now.saturating_duration_since(since) >= pause);
        if std::mem::take(&mut self.doubted) || was_silent {
            self.events.push_back(Event::Revived);
        }
    }

    fn session_came_up(&mut self, now: Instant) {
        self.greeted = false;
        self.hello = Some((now, 0));
        // What was under way in the session before may be lost.
        self.doubted = true;
        self.end_silence(now);
        self.agent.handle_session(now);
        self.say_hello(now);
        self.flush_agent(now);
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
            .as_mut()
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
}
