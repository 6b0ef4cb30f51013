//! Who was told to wait, and for what.
//!
//! quinn asks a socket "may I send?" before it says to whom. Here the answer
//! depends on that: one peer is reached over the relay, whose queue is full,
//! another straight. So a task whose send is refused is remembered together with
//! the reason, and finds it again when it asks; everybody else is let through.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use quinn::UdpPoller;
use tokio::task;

use super::node::Node;
use super::outbox::Blocked;

/// Refusals remembered. More connections than that rarely wait at once.
const MAX_REFUSED: usize = 4096;
/// Whoever waits for the relay tries again after that long.
const RETRY: Duration = Duration::from_secs(1);

/// Tasks whose last send was refused.
#[derive(Default)]
pub(super) struct Gate {
    refused: Mutex<HashMap<task::Id, Blocked>>,
    count: AtomicUsize,
}

impl Gate {
    /// The running task is to wait. The error is what quinn expects then.
    pub(super) fn refuse(&self, blocked: Blocked) -> io::Error {
        if let Some(id) = task::try_id() {
            let mut refused = self.refused.lock();
            if refused.len() >= MAX_REFUSED {
                // Mostly of tasks that have ended. Others are refused again.
                refused.clear();
            }
            refused.insert(id, blocked);
            self.count.store(refused.len(), Relaxed);
        }
        io::ErrorKind::WouldBlock.into()
    }

    /// What the running task has to wait for, if it was refused.
    fn take(&self) -> Option<Blocked> {
        // Read without a lock: only this task adds an entry for itself.
        if self.count.load(Relaxed) == 0 {
            return None;
        }
        let mut refused = self.refused.lock();
        let blocked = refused.remove(&task::try_id()?);
        self.count.store(refused.len(), Relaxed);
        blocked
    }
}

impl Node {
    /// Waits until sending is worth another attempt.
    pub(super) async fn unblocked(&self, blocked: Blocked) {
        match (blocked, &self.udp) {
            (Blocked::Relay, _) => {
                // A direct path found meanwhile will do as well. Trying now and
                // then shows the path agent that one is needed.
                let rerouted = self.rerouted.notified();
                tokio::select! {
                    () = self.relays.room() => {}
                    () = rerouted => {}
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
            (Blocked::Udp(family), Some(udp)) => udp.writable(family).await,
            (Blocked::Udp(_), None) => {}
        }
    }
}

type Wait = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// Waits on behalf of one connection.
pub(super) struct Poller {
    node: Arc<Node>,
    wait: Option<Wait>,
}

impl Poller {
    pub(super) const fn new(node: Arc<Node>) -> Self {
        Self { node, wait: None }
    }
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.wait.is_none() {
            let Some(blocked) = self.node.gate.take() else {
                return Poll::Ready(Ok(()));
            };
            let node = Arc::clone(&self.node);
            self.wait = Some(Box::pin(async move { node.unblocked(blocked).await }));
        }
        let wait = self.wait.as_mut().map(|wait| wait.as_mut().poll(cx));
        if matches!(wait, Some(Poll::Pending)) {
            return Poll::Pending;
        }
        self.wait = None;
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Poller")
    }
}
