//! When which peer wants to be woken: a heap and one task.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::entry::Entry;
use super::node::Node;

/// Deadlines of peers. One that is replaced by an earlier one stays in the heap
/// and is ignored when it comes up.
#[derive(Default)]
pub(super) struct Timers {
    heap: Mutex<BinaryHeap<Reverse<Deadline>>>,
    sooner: Notify,
}

struct Deadline {
    due: Instant,
    entry: Weak<Entry>,
}

impl Timers {
    pub(super) fn push(&self, due: Instant, entry: &Arc<Entry>) {
        let mut heap = self.heap.lock();
        let first = heap.peek().is_none_or(|Reverse(first)| due < first.due);
        let entry = Arc::downgrade(entry);
        heap.push(Reverse(Deadline { due, entry }));
        if first {
            self.sooner.notify_one();
        }
    }

    fn pop(&self, now: Instant) -> Option<Deadline> {
        let mut heap = self.heap.lock();
        if heap.peek()?.0.due > now {
            return None;
        }
        heap.pop().map(|Reverse(deadline)| deadline)
    }

    fn next(&self) -> Option<Instant> {
        self.heap.lock().peek().map(|Reverse(first)| first.due)
    }
}

impl Node {
    /// Wakes peers until the task is aborted.
    pub(super) async fn run_timers(self: Arc<Self>) {
        loop {
            let now = Instant::now();
            while let Some(Deadline { due, entry }) = self.timers.pop(now) {
                if let Some(entry) = entry.upgrade() {
                    self.wake(&entry, due, now);
                }
            }
            let next = self.timers.next();
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.timers.sooner.notified() => {}
            }
        }
    }
}

/// Sleeps until then, or for ever.
pub(super) async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

impl PartialEq for Deadline {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Deadline {}

impl PartialOrd for Deadline {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Deadline {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}
