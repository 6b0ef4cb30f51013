//! Noticing that the machine has moved to another network, or has slept.
//!
//! Both end what was known about ways: addresses, NATs, TCP connections. A
//! change of addresses is told by the system, where it can, and looked for every
//! 30 s anyhow. Sleep shows in the clocks: the one that stands still meanwhile
//! falls behind the one that does not, or, if both have gone on (the process was
//! stopped, or its machine), a timer goes off much too late.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::time::timeout;

use super::node::Node;
use super::platform::{self, Changes};
use crate::nat64::{self, Prefix};
use crate::reflect::has_moved;

/// The machine's addresses are looked up again this often.
const LOOK: Duration = Duration::from_secs(30);
/// After word of a change, more is likely to follow at once.
const SETTLE: Duration = Duration::from_millis(50);
/// How long the name that shows a translator may take to resolve.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);
/// The clocks are compared this often.
const TICK: Duration = Duration::from_secs(1);
/// Being so late is no busy machine any more.
const SLEPT: Duration = Duration::from_secs(4);

/// Both clocks at one moment.
#[derive(Clone, Copy)]
struct Clocks {
    steady: Instant,
    wall: SystemTime,
}

impl Clocks {
    fn now() -> Self {
        Self {
            steady: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// How long the machine has slept of the time since `before`, when it
    /// wanted to be awake again after `pause`. A clock that is set says
    /// the same as a sleep, which does no harm.
    fn slept_since(self, before: Self, pause: Duration) -> Option<Duration> {
        let steady = self.steady.saturating_duration_since(before.steady);
        let wall = self.wall.duration_since(before.wall).unwrap_or(steady);
        let late = wall.max(steady).saturating_sub(pause);
        (late >= SLEPT).then_some(late)
    }
}

impl Node {
    /// Notices sleep, until the task is aborted.
    pub(super) async fn run_clocks(self: Arc<Self>) {
        let mut before = Clocks::now();
        loop {
            tokio::time::sleep(TICK).await;
            let now = Clocks::now();
            if let Some(slept) = now.slept_since(before, TICK) {
                self.handle_sleep(slept);
            }
            before = now;
        }
    }

    /// Notices other addresses, until the task is aborted.
    pub(super) async fn run_addresses(self: Arc<Self>) {
        let mut changes = Changes::watch();
        let mut before = platform::host_addresses();
        self.find_translator(&before).await;
        loop {
            tokio::select! {
                () = changes.next() => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(LOOK) => {}
            }
            let now = platform::host_addresses();
            if has_moved(&before, &now) {
                tracing::info!("the machine has moved to another network");
                self.handle_move();
                self.find_translator(&now).await;
            } else {
                self.refresh_endpoints();
            }
            before = now;
        }
    }
}

impl Node {
    /// Looks for a translator to IPv4, if the machine has IPv6 only.
    async fn find_translator(&self, own: &[IpAddr]) {
        let Some(udp) = &self.udp else {
            return;
        };
        let has = |v4: bool| own.iter().any(|ip| !ip.is_loopback() && ip.is_ipv4() == v4);
        udp.set_translator(None);
        if has(true) || !has(false) {
            return;
        }
        let resolving = tokio::net::lookup_host((nat64::NAME, 0));
        let Ok(Ok(answers)) = timeout(RESOLVE_WITHIN, resolving).await else {
            return;
        };
        let v6 = answers.filter_map(|answer| match answer.ip() {
            IpAddr::V6(ip) => Some(ip),
            IpAddr::V4(_) => None,
        });
        udp.set_translator(Prefix::discover(v6));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_shows_in_either_clock() {
        let start = Clocks::now();
        let after = |steady, wall| Clocks {
            steady: start.steady + Duration::from_secs(steady),
            wall: start.wall + Duration::from_secs(wall),
        };
        assert_eq!(after(1, 1).slept_since(start, TICK), None);
        assert_eq!(after(4, 4).slept_since(start, TICK), None, "a busy machine");
        let minute = Some(Duration::from_secs(59));
        assert_eq!(after(1, 60).slept_since(start, TICK), minute);
        assert_eq!(after(60, 60).slept_since(start, TICK), minute);
        let set_back = Clocks {
            wall: start.wall - Duration::from_secs(60),
            ..after(1, 0)
        };
        assert_eq!(set_back.slept_since(start, TICK), None);
    }
}
