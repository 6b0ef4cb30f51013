//! One WireGuard tunnel, and what boringtun leaves to its user.
//!
//! boringtun knows the protocol; this wrapper adds what a node needs around it:
//!
//! - no datagram reaches boringtun together with a buffer that is too short for
//!   it (it panics on that, before anything is authenticated);
//! - a lost initiation is repeated after 50 ms, not after the 5 s of the
//!   protocol, and a lost response when the same initiation comes again
//!   ([`ladder`]);
//! - what waits for a session waits here, and starts no handshake beside the one
//!   that is under way: two nodes that begin at the same time would otherwise
//!   replace their own initiations, with each packet, before an answer can come;
//! - a handshake limiter shared by all tunnels, always given a source address,
//!   and a limit for each address ([`limits`]);
//! - tunnels that gave up, expired or slept are replaced, never left dead: a
//!   [`Tunnel`] says with [`Tunnel::is_spent`] that it may be dropped, and a new
//!   one costs nothing but the next handshake.
//!
//! boringtun has a clock of its own, in which it ends keys after 180 s. What is
//! decided here follows `now`: when a handshake is repeated or begun anew, when
//! the initiator makes new keys (after 120 s), and when old ones are done with.

pub(crate) mod demux;
mod ladder;
mod limits;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use derp::{NodeKey, NodeSecret};
use ladder::{Answers, Ladder, Step};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::packet::SEAL_LEN;

/// The longest handshake message; every output buffer holds at least that.
pub(crate) const MAX_HANDSHAKE: usize = 148;
/// The longest packet a tunnel takes; ours are shorter. Bounds the buffer that
/// sending a queued one needs.
const MAX_PACKET: usize = 2048;
/// Packets that wait for a session; later ones are lost.
const MAX_QUEUED: usize = 256;
/// Handshake messages a second, over all peers, before senders must prove their
/// address with a cookie. A handshake costs about half a millisecond.
pub(crate) const HANDSHAKES_PER_SECOND: u64 = 256;

/// Timers run this often while a handshake is under way.
const TICK_BUSY: Duration = Duration::from_millis(250);
/// And this often while there is traffic.
const TICK: Duration = Duration::from_secs(1);
/// Without traffic for that long no timer runs (the protocol's passive
/// keepalive is due after 10 s).
const QUIET_AFTER: Duration = Duration::from_secs(20);
/// Without traffic for that long every session has expired (180 s).
const IDLE: Duration = Duration::from_secs(190);
/// The initiator of a session makes a new one after that long, if it is used.
const REKEY_AFTER: Duration = Duration::from_secs(120);
/// Keys are not used for longer than that.
const REJECT_AFTER: Duration = Duration::from_secs(180);
/// A peer that has not answered for that long gets its queue dropped. boringtun
/// itself would give up at 90 s, and for good.
const GIVE_UP: Duration = Duration::from_secs(60);
/// boringtun retires a tunnel for good at 540 s without a handshake, which only
/// a machine that slept gets to see.
const SLEPT: Duration = Duration::from_secs(400);
/// A cookie restarts the handshake at most that often.
const COOKIE_PAUSE: Duration = Duration::from_secs(1);
/// A stranger's packet, or silence, restarts the handshake at most that often.
const FORCE_PAUSE: Duration = Duration::from_secs(1);

/// The outcome of [`Tunnel::seal`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sealed {
    /// That many bytes of ciphertext are in the buffer.
    Data(usize),
    /// There is no session yet. The packet waits (up to 256 do, later ones are
    /// lost), and a handshake is under way.
    Queued,
    /// The packet, or the room for it, has not the right length.
    Refused,
}

/// The outcome of [`Tunnel::open`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// That many bytes of an authentic inner packet are in the buffer.
    Packet(usize),
    /// Authentic, but nothing to deliver: a handshake message or a keepalive.
    Nothing,
    /// A packet of a session that we do not have.
    Stale,
    /// Not authentic, repeated, or malformed.
    Refused,
}

/// A tunnel to one peer.
pub(crate) struct Tunnel {
    tunn: Tunn,
    ladder: Option<Ladder>,
    answers: Answers,
    queue: VecDeque<Vec<u8>>,
    /// Receiver indices of sessions that have carried data from the peer.
    confirmed: [Option<u32>; 4],
    established: bool,
    /// There was a session when it was asked last, and only a tick ends one. To ask is to look at
    /// the clock, which is too much for each packet.
    sealable: bool,
    /// When the present session came up, and whether we had begun it.
    session: Option<(Instant, bool)>,
    handshake_since: Option<Instant>,
    forced_at: Option<Instant>,
    cookie_at: Option<Instant>,
    last_tick: Instant,
    last_traffic: Instant,
    expired: bool,
    /// It need not be looked at before then.
    sound_until: Instant,
}

impl Tunnel {
    /// A tunnel without a session. `index` is the peer's number in the table of
    /// receiver indices, below 2^24.
    pub(crate) fn new(
        secret: &NodeSecret,
        peer: &NodeKey,
        index: u32,
        limiter: &Arc<RateLimiter>,
        now: Instant,
    ) -> Self {
        let tunn = Tunn::new(
            StaticSecret::from(secret.to_bytes()),
            PublicKey::from(*peer.as_bytes()),
            None,
            None,
            index,
            Some(Arc::clone(limiter)),
        );
        Self {
            tunn,
            ladder: None,
            answers: Answers::default(),
            queue: VecDeque::new(),
            confirmed: [None; 4],
            established: false,
            sealable: false,
            session: None,
            handshake_since: None,
            forced_at: None,
            cookie_at: None,
            last_tick: now,
            last_traffic: now,
            expired: false,
            sound_until: now,
        }
    }

    /// Whether packets can be sealed right now.
    pub(crate) fn has_session(&self) -> bool {
        self.tunn.time_since_last_handshake().is_some()
    }

    /// Whether the tunnel is of no use any more. Looked at for each packet, found out once a second.
    pub(crate) fn is_spent(&mut self, now: Instant) -> bool {
        if now < self.sound_until && !self.expired {
            return false;
        }
        self.sound_until = now + TICK;
        let gave_up = |since: Instant| now.saturating_duration_since(since) >= GIVE_UP;
        let old = |(at, _)| now.saturating_duration_since(at) >= REJECT_AFTER;
        self.expired
            || self.session.is_some_and(old)
            || self.handshake_since.is_some_and(gave_up)
            || now.saturating_duration_since(self.last_traffic) >= IDLE
    }

    /// True once after each session that came up.
    pub(crate) fn take_established(&mut self) -> bool {
        std::mem::take(&mut self.established)
    }

    /// Encrypts an inner packet of at most 2048 bytes into `out`, which must be
    /// [`SEAL_LEN`] longer and hold at least [`MAX_HANDSHAKE`] bytes. `emit` gets the initiation,
    /// if one is due.
    pub(crate) fn seal(
        &mut self,
        packet: &[u8],
        out: &mut [u8],
        now: Instant,
        emit: &mut Vec<Vec<u8>>,
    ) -> Sealed {
        let needed = MAX_HANDSHAKE.max(packet.len() + SEAL_LEN);
        if packet.len() > MAX_PACKET || out.len() < needed {
            return Sealed::Refused;
        }
        if now.saturating_duration_since(self.last_tick) >= TICK {
            self.tick(now, emit);
        }
        self.last_traffic = now;
        self.sealable = self.sealable || self.has_session();
        if !self.sealable {
            if self.queue.len() < MAX_QUEUED {
                self.queue.push_back(packet.to_vec());
            }
            if self.handshake_since.is_none() {
                self.initiate_anew(now, emit);
            }
            return Sealed::Queued;
        }
        match self.tunn.encapsulate(packet, out) {
            TunnResult::WriteToNetwork(bytes) => Sealed::Data(bytes.len()),
            _ => Sealed::Refused,
        }
    }

    /// Decrypts a datagram into `out`, which must be at least as long. `reply`
    /// gets what has to go back the way the datagram came.
    pub(crate) fn open(
        &mut self,
        source: IpAddr,
        datagram: &[u8],
        out: &mut [u8],
        now: Instant,
        reply: &mut Vec<Vec<u8>>,
    ) -> Opened {
        let opened = self.open_one(source, datagram, out, now, reply);
        if opened != Opened::Refused && !self.queue.is_empty() && self.has_session() {
            self.drain_queue(reply);
        }
        opened
    }

    fn open_one(
        &mut self,
        source: IpAddr,
        datagram: &[u8],
        out: &mut [u8],
        now: Instant,
        reply: &mut Vec<Vec<u8>>,
    ) -> Opened {
        if datagram.is_empty() || out.len() < datagram.len().max(MAX_HANDSHAKE) {
            return Opened::Refused;
        }
        let kind = datagram[0];
        if let Some(answer) = self.answers.repeat(datagram, now) {
            reply.push(answer.to_vec());
            return Opened::Nothing;
        }
        let result = self.tunn.decapsulate(Some(source), datagram, out);
        match result {
            TunnResult::WriteToTunnelV6(packet, _) => {
                let len = packet.len();
                self.heard(datagram, now);
                Opened::Packet(len)
            }
            TunnResult::WriteToNetwork(bytes) => {
                let bytes = bytes.to_vec();
                match (kind, bytes[0]) {
                    (1, 2) => self.answers.remember(datagram, &bytes, now),
                    (2, 4) => self.completed(datagram, now),
                    _ => {}
                }
                reply.push(bytes);
                Opened::Nothing
            }
            TunnResult::Done if kind == 3 => {
                self.cookie_came(now, reply);
                Opened::Nothing
            }
            TunnResult::Done => {
                self.heard(datagram, now);
                Opened::Nothing
            }
            TunnResult::Err(WireGuardError::NoCurrentSession | WireGuardError::WrongIndex)
                if kind == 4 =>
            {
                Opened::Stale
            }
            // An IPv4 packet is none of ours.
            TunnResult::Err(_) | TunnResult::WriteToTunnelV4(..) => Opened::Refused,
        }
    }

    /// Starts a handshake: at once if none is under way, or, with `force`, also
    /// beside a session that no longer seems to work.
    pub(crate) fn initiate(&mut self, force: bool, now: Instant, emit: &mut Vec<Vec<u8>>) {
        let recent = |at: Option<Instant>| {
            at.is_some_and(|at| now.saturating_duration_since(at) < FORCE_PAUSE)
        };
        if self.handshake_since.is_some()
            || (!force && self.has_session())
            || recent(self.forced_at)
        {
            return;
        }
        self.forced_at = Some(now);
        self.last_traffic = now;
        self.initiate_anew(now, emit);
    }

    /// Runs the timers that are due.
    pub(crate) fn tick(&mut self, now: Instant, emit: &mut Vec<Vec<u8>>) {
        let slept = |age: Duration| age >= SLEPT;
        if self.tunn.time_since_last_handshake().is_some_and(slept)
            || slept(now.saturating_duration_since(self.last_tick))
        {
            self.expired = true;
            return;
        }
        match self.ladder.as_mut().map(|ladder| ladder.poll(now)) {
            Some(Step::Repeat(bytes)) => emit.push(bytes.to_vec()),
            Some(Step::Anew) => {
                if let Some(bytes) = self.initiation() {
                    self.ladder = Some(Ladder::later(&bytes, now));
                    emit.push(bytes);
                }
            }
            Some(Step::Wait) | None => {}
        }
        if self.wants_new_keys(now) {
            self.initiate_anew(now, emit);
        }
        if now.saturating_duration_since(self.last_tick) < TICK_BUSY {
            return;
        }
        self.last_tick = now;
        self.sealable = false;
        let mut buf = [0; MAX_HANDSHAKE];
        match self.tunn.update_timers(&mut buf) {
            TunnResult::WriteToNetwork(bytes) => {
                let bytes = bytes.to_vec();
                if is_initiation(&bytes) {
                    self.start_ladder(&bytes, now);
                }
                emit.push(bytes);
            }
            TunnResult::Err(WireGuardError::ConnectionExpired) => self.expired = true,
            _ => {}
        }
    }

    /// When [`Tunnel::tick`] wants to be called next.
    pub(crate) fn poll_timeout(&self) -> Instant {
        let quiet = self.last_tick.saturating_duration_since(self.last_traffic) >= QUIET_AFTER;
        let tick = if self.handshake_since.is_some() {
            self.last_tick + TICK_BUSY
        } else if quiet {
            self.last_traffic + IDLE
        } else {
            self.last_tick + TICK
        };
        let step = self.ladder.as_ref().map(Ladder::due);
        step.map_or(tick, |step| step.min(tick))
    }

    /// A handshake that is under way begins anew at once: there is a new way to
    /// the peer.
    pub(crate) fn hurry(&mut self, now: Instant, emit: &mut Vec<Vec<u8>>) {
        if self.handshake_since.is_some() {
            self.initiate_anew(now, emit);
        }
    }

    fn initiate_anew(&mut self, now: Instant, emit: &mut Vec<Vec<u8>>) {
        if let Some(bytes) = self.initiation() {
            self.start_ladder(&bytes, now);
            emit.push(bytes);
        }
    }

    fn initiation(&mut self) -> Option<Vec<u8>> {
        let mut buf = [0; MAX_HANDSHAKE];
        match self.tunn.format_handshake_initiation(&mut buf, true) {
            TunnResult::WriteToNetwork(bytes) => Some(bytes.to_vec()),
            _ => None,
        }
    }

    /// Whether the keys that we asked for have become old while in use.
    fn wants_new_keys(&self, now: Instant) -> bool {
        let old = |(at, ours)| ours && now.saturating_duration_since(at) >= REKEY_AFTER;
        let used = now.saturating_duration_since(self.last_traffic) < QUIET_AFTER;
        self.handshake_since.is_none() && used && self.session.is_some_and(old)
    }

    fn start_ladder(&mut self, initiation: &[u8], now: Instant) {
        self.handshake_since.get_or_insert(now);
        self.ladder = Some(Ladder::new(initiation, now));
    }

    /// The peer has answered our initiation.
    fn completed(&mut self, response: &[u8], now: Instant) {
        if let Some(index) = response.get(8..12).and_then(|b| b.first_chunk()) {
            self.confirm(u32::from_le_bytes(*index), true, now);
        }
        self.last_traffic = now;
    }

    /// The peer has sent authentic data.
    fn heard(&mut self, datagram: &[u8], now: Instant) {
        self.last_traffic = now;
        if let Some(index) = demux::data_index(datagram)
            && !self.confirmed.contains(&Some(index))
        {
            self.confirm(index, false, now);
        }
    }

    fn confirm(&mut self, index: u32, ours: bool, now: Instant) {
        self.session = Some((now, ours));
        self.confirmed.rotate_right(1);
        self.confirmed[0] = Some(index);
        self.established = true;
        self.ladder = None;
        self.handshake_since = None;
    }

    fn cookie_came(&mut self, now: Instant, emit: &mut Vec<Vec<u8>>) {
        let recent = |at: Instant| now.saturating_duration_since(at) < COOKIE_PAUSE;
        if self.handshake_since.is_some() && !self.cookie_at.is_some_and(recent) {
            self.cookie_at = Some(now);
            self.initiate_anew(now, emit);
        }
    }

    /// Sends what waited for a session.
    fn drain_queue(&mut self, emit: &mut Vec<Vec<u8>>) {
        let mut buf = [0; MAX_PACKET + SEAL_LEN];
        for packet in std::mem::take(&mut self.queue) {
            if let TunnResult::WriteToNetwork(bytes) = self.tunn.encapsulate(&packet, &mut buf) {
                emit.push(bytes.to_vec());
            }
        }
    }
}

fn is_initiation(bytes: &[u8]) -> bool {
    bytes.first() == Some(&1)
}
