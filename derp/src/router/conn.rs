//! One connection, as the router sees it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::ConnId;
use super::limits::{Counters, Limits, NOT_HERE_BURST, NOT_HERE_EVERY, TELL_BURST, TELL_EVERY};
use super::region::Watch;
use crate::NodeKey;
use crate::frame::{Body, KeepAlive, Ping};
use crate::handshake::Introduction;
use crate::queue::Queue;

/// What is at the other end of a connection.
#[derive(Debug)]
pub(super) enum Role {
    /// A client.
    Client,
    /// Another server of the region, which has connected here; and what it is
    /// to be told, once it has asked who is here.
    Server(Option<Watch>),
    /// Another server of the region, to which we have connected.
    Link,
}

#[derive(Debug)]
pub(super) struct Conn<H> {
    pub(super) client: Introduction,
    pub(super) role: Role,
    /// Wakes whoever drives the connection.
    pub(super) handle: H,
    pub(super) queue: Queue,
    /// The writer has taken everything and waits to be woken.
    pub(super) idle: bool,
    /// Why the connection is to be closed, once it is.
    pub(super) closing: Option<&'static str>,
    /// To be closed once all is written.
    pub(super) leaving: bool,
    /// Who waits for room in `queue`.
    pub(super) waiters: HashSet<ConnId>,
    /// Somebody ran out of patience with `queue` and it is not low since:
    /// nobody waits for it.
    pub(super) overloaded: bool,
    /// Since when this connection's next packet waits for room elsewhere.
    pub(super) blocked_since: Option<Instant>,
    /// Where the last packet went.
    pub(super) route: Option<Route>,
    pub(super) preferred: bool,
    not_here: Bucket,
    told: Bucket,
    heard_at: Instant,
    due_at: Instant,
    jitter: u64,
}

/// A destination looked up before; good while nobody came or went.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub(super) to: NodeKey,
    pub(super) conn: ConnId,
    pub(super) epoch: u64,
}

impl<H> Conn<H> {
    pub(super) fn new(
        client: Introduction,
        role: Role,
        handle: H,
        limits: &Limits,
        now: Instant,
        seed: u64,
    ) -> Self {
        // Many clients share the one to another server.
        let queue = match role {
            Role::Link => limits.queue.saturating_mul(4),
            Role::Client | Role::Server(_) => limits.queue,
        };
        let mut conn = Self {
            client,
            role,
            handle,
            queue: Queue::new(queue),
            idle: false,
            closing: None,
            leaving: false,
            waiters: HashSet::new(),
            overloaded: false,
            blocked_since: None,
            route: None,
            preferred: false,
            not_here: Bucket::new(now, NOT_HERE_BURST, NOT_HERE_EVERY),
            told: Bucket::new(now, TELL_BURST, TELL_EVERY),
            heard_at: now,
            due_at: now,
            jitter: seed,
        };
        conn.schedule(limits, now);
        conn
    }

    /// Whether another server of the region has connected here.
    pub(super) const fn is_server(&self) -> bool {
        matches!(self.role, Role::Server(_))
    }

    /// Whether we have connected to another server of the region.
    pub(super) const fn is_link(&self) -> bool {
        matches!(self.role, Role::Link)
    }

    /// When [`Conn::handle_timeout`] is due.
    pub(super) const fn due_at(&self) -> Instant {
        self.due_at
    }

    pub(super) const fn heard(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// When due, queues what keeps the connection open, or closes one that is dead. Only
    /// a client that answers pings can be known to be dead.
    pub(super) fn handle_timeout(
        &mut self,
        limits: &Limits,
        now: Instant,
        counters: &mut Counters,
    ) {
        let silence = now.saturating_duration_since(self.heard_at);
        let (keep_alive, most) = self.patience(limits);
        if !self.client.can_ack_pings {
            self.control(&KeepAlive, counters);
        } else if silence >= most {
            self.closing.get_or_insert("the other side is silent");
        } else if silence >= keep_alive / 2 {
            let data = self.jitter.to_be_bytes();
            self.control(&Ping { data }, counters);
        } else {
            self.control(&KeepAlive, counters);
        }
        self.schedule(limits, now);
    }

    /// Queues a frame that is not a packet, if there is room.
    pub(super) fn control<'a>(&mut self, frame: &impl Body<'a>, counters: &mut Counters) {
        if self.queue.push_urgent(frame).is_err() {
            counters.control_dropped += 1;
        }
    }

    /// Whether the other servers may be told once more that the client is here.
    pub(super) fn may_tell(&mut self, now: Instant) -> bool {
        self.told.take(now)
    }

    /// Whether another "not here" may be sent now.
    pub(super) fn may_say_not_here(&mut self, now: Instant) -> bool {
        self.not_here.take(now)
    }

    /// The time between two keep-alives, and how long the other side may be silent.
    const fn patience(&self, limits: &Limits) -> (Duration, Duration) {
        match self.role {
            Role::Link => (limits.link_keep_alive, limits.link_silence),
            Role::Client | Role::Server(_) => (limits.keep_alive, limits.silence),
        }
    }

    fn schedule(&mut self, limits: &Limits, now: Instant) {
        // xorshift64*: nothing depends on it being hard to guess.
        let mut x = self.jitter | 1;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.jitter = x.wrapping_mul(0x2545_f491_4f6c_dd1d);
        let (keep_alive, _) = self.patience(limits);
        let jitter = limits.jitter.min(keep_alive / 2);
        let range = u64::try_from(jitter.as_millis()).unwrap_or(u64::MAX);
        let extra = (self.jitter >> 33) % range.max(1);
        self.due_at = now + keep_alive + Duration::from_millis(extra);
    }
}

/// Lets a burst pass, then one from time to time.
#[derive(Debug)]
struct Bucket {
    tokens: u32,
    since: Instant,
    burst: u32,
    every: Duration,
}

impl Bucket {
    const fn new(now: Instant, burst: u32, every: Duration) -> Self {
        Self {
            tokens: burst,
            since: now,
            burst,
            every,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since);
        let earned = passed.as_millis() / self.every.as_millis();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.tokens = self.tokens.saturating_add(earned).min(self.burst);
            self.since = now;
        }
        let some = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_a_burst_and_then_a_trickle() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start, NOT_HERE_BURST, NOT_HERE_EVERY);
        let given = (0..100).filter(|_| bucket.take(start)).count();
        assert_eq!(given, NOT_HERE_BURST as usize);
        assert!(bucket.take(start + NOT_HERE_EVERY));
        assert!(!bucket.take(start + NOT_HERE_EVERY));
        let later = start + NOT_HERE_EVERY * 1000;
        let given = (0..100).filter(|_| bucket.take(later)).count();
        assert_eq!(given, NOT_HERE_BURST as usize);
    }
}
