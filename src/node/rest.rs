//! A node that nobody calls gives back the memory that its calls needed.
//!
//! Who calls only counts and tells the time; one task looks, once each few seconds while there are
//! calls and never while there are none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// After so much time without a call. What a session printed is summed up within five seconds,
/// which is the last that follows from its launch.
const QUIET: Duration = Duration::from_secs(8);

/// Calls, and whether somebody looks.
#[derive(Debug)]
pub(super) struct Rest {
    begun: Instant,
    calls: AtomicU64,
    /// When the last one came, in milliseconds since the beginning.
    last_ms: AtomicU64,
    resting: AtomicBool,
    woken: Notify,
}

impl Default for Rest {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            calls: AtomicU64::new(0),
            last_ms: AtomicU64::new(0),
            resting: AtomicBool::new(false),
            woken: Notify::new(),
        }
    }
}

impl Rest {
    /// There is a call.
    pub(super) fn handle_call(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now, Ordering::SeqCst);
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.resting.swap(false, Ordering::SeqCst) {
            self.woken.notify_one();
        }
    }

    /// Looks after it, for ever.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            let before = self.calls.load(Ordering::SeqCst);
            let last = Duration::from_millis(self.last_ms.load(Ordering::SeqCst));
            let due = self.begun + last + QUIET;
            tokio::time::sleep_until(due.into()).await;
            if self.rests(before) {
                session::io::give_back_text();
                self.woken.notified().await;
            }
        }
    }

    /// Whether no call has come since there were so many; the next one then wakes who looks.
    fn rests(&self, before: u64) -> bool {
        // In this order: a call that comes between the two is seen, or wakes.
        self.resting.store(true, Ordering::SeqCst);
        let rests = self.calls.load(Ordering::SeqCst) == before;
        if !rests {
            self.resting.store(false, Ordering::SeqCst);
        }
        rests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_rests_when_no_call_has_come_and_the_next_wakes_it() {
        let rest = Rest::default();
        rest.handle_call();
        assert!(!rest.rests(0), "there was a call");
        assert!(rest.rests(1));
        rest.handle_call();
        assert!(!rest.rests(1));
        // Ends, because of the call.
        rest.woken.notified().await;
    }
}
