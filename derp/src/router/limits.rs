//! The bounds of the router, each with its reason.

use std::time::Duration;

use crate::queue;

/// Bounds that a test may want to be smaller; the defaults are for service.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes in the queue to one client.
    pub queue: usize,
    /// How long a sender is held up by one full queue before its packet is
    /// dropped. Long enough for a path of 4 Mbit/s to drain half the queue and
    /// for a busy machine to catch its breath, so that faster receivers lose
    /// nothing; what the sender has for others is late by that much, once.
    pub patience: Duration,
    /// Connections with the same key. One is normal, two for a moment when a
    /// machine changes networks; the oldest goes when there are more.
    pub duplicates: usize,
    /// Clients that one client is remembered to have exchanged packets with,
    /// who are told when it goes. Beyond that nobody is told, and learns it
    /// when sending to it.
    pub known: usize,
    /// Time between two keep-alives. Middle boxes forget connections after
    /// minutes; a client gives up after two of silence.
    pub keep_alive: Duration,
    /// At most so much is added to a keep-alive's time, and no more than half of that
    /// time, so that the clients that arrived together after a restart do not stay in
    /// step.
    pub jitter: Duration,
    /// A client that answers pings and has said nothing for this long is gone.
    pub silence: Duration,
    /// As `keep_alive`, for our connection to another server of the region: there are
    /// few of them, and while one is dead without a word what goes by it is lost.
    pub link_keep_alive: Duration,
    /// As `silence`, for the same. Megabytes may be on their way before an answer.
    pub link_silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: queue::BULK_LIMIT,
            patience: Duration::from_secs(1),
            duplicates: 4,
            known: 4096,
            keep_alive: Duration::from_secs(60),
            jitter: Duration::from_secs(5),
            silence: Duration::from_secs(150),
            link_keep_alive: Duration::from_secs(3),
            link_silence: Duration::from_secs(12),
        }
    }
}

/// Clients at other servers of the region that are remembered. Beyond that they
/// cannot be reached from here.
pub(super) const MAX_AWAY: usize = 1 << 20;

/// "Not here" notices that a client may get at once.
pub(super) const NOT_HERE_BURST: u32 = 10;
/// Time after which it may get another. A client that sends at full rate to
/// somebody who is away should not be answered at full rate.
pub(super) const NOT_HERE_EVERY: Duration = Duration::from_millis(200);

/// Times that a client may have the other servers told at once that it is here, and
/// time after which it may once more. It says so again while it misses one of them,
/// and each time costs all of them something.
pub(super) const TELL_BURST: u32 = 4;
pub(super) const TELL_EVERY: Duration = Duration::from_secs(2);

/// What happened since the router started; each only grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections.
    pub connected: u64,
    /// Connections that ended.
    pub disconnected: u64,
    /// Packets queued for their destination.
    pub packets: u64,
    /// Bytes in them, without headers and keys.
    pub bytes: u64,
    /// Packets for somebody who is not here, dropped.
    pub not_here: u64,
    /// Times a sender was held up by a full queue.
    pub held_up: u64,
    /// Packets dropped because a queue stayed full.
    pub dropped: u64,
    /// Control frames that found no room in the queue of a client that does
    /// not read.
    pub control_dropped: u64,
    /// Clients that call this relay their home.
    pub preferred: u64,
    /// Packets given to another server of the region, of all packets.
    pub forwarded: u64,
    /// Times a client's reads paused because it sent more than it may.
    pub throttled: u64,
}
