//! The link to the relay, which is made again for ever.
//!
//! One task connects, reads, and connects again after 50 ms to 1 s. While
//! nothing comes in for 5 s it asks the relay with a ping; 3 s without an answer
//! end the connection, since a relay that has vanished sends no farewell. What
//! it reads waits in a queue for the receive half; when that is full the task
//! stops reading, and TCP holds the relay up.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use derp::io::client::{self, Event, SendError, Sender};
use derp::{NodeKey, NodeSecret};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use super::Relay;

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// A connection that held for that long was a success: begin anew.
const STABLE: Duration = Duration::from_secs(5);
const PING_AFTER: Duration = Duration::from_secs(5);
const PONG_WITHIN: Duration = Duration::from_secs(3);
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Peers remembered as absent; what is forgotten is said again.
const MAX_ABSENT: usize = 4096;
/// Bytes that may wait for the receive half.
const QUEUE_LEN: usize = 1 << 20;

/// The link, shared by its task, the send half and the receive half.
#[derive(Default)]
pub(super) struct Link {
    sender: RwLock<Option<Sender>>,
    target: watch::Sender<Option<Relay>>,
    /// The connection came or went.
    changed: Notify,
    queue: Mutex<Queue>,
    drained: Notify,
    /// The relay has answered a ping.
    answered: Notify,
    /// When the relay last said of a peer that it is not there.
    absent: Mutex<HashMap<NodeKey, Instant>>,
}

#[derive(Default)]
struct Queue {
    packets: VecDeque<(NodeKey, Bytes)>,
    len: usize,
    reader: Option<Waker>,
}

impl Link {
    /// Says which relay to be connected to, or none. Saying it again changes
    /// nothing.
    pub(super) fn set_target(&self, relay: Option<Relay>) {
        self.target.send_if_modified(|target| {
            let same = match (&*target, &relay) {
                (Some(old), Some(new)) => old.is_reached_like(new),
                (None, None) => true,
                _ => false,
            };
            *target = relay;
            !same
        });
    }

    /// Whether the relay is connected now.
    pub(super) fn is_connected(&self) -> bool {
        self.sender.read().is_some()
    }

    /// Sends a packet.
    ///
    /// # Errors
    ///
    /// When the relay's queue is full, or there is no connection: nothing was
    /// sent, [`Link::room`] says when to try again. Who waits through a restart
    /// of the relay goes on the moment it is back.
    pub(super) fn send(&self, to: &NodeKey, packet: &[u8]) -> Result<(), NoRoom> {
        match self.sender.read().as_ref().map(|s| s.try_send(to, packet)) {
            None | Some(Err(SendError::Full | SendError::Closed)) => Err(NoRoom),
            Some(Ok(()) | Err(SendError::TooLarge)) => Ok(()),
        }
    }

    /// When the relay last said that the peer is not there, if nothing has come
    /// from it since.
    pub(super) fn missed(&self, peer: &NodeKey) -> Option<Instant> {
        self.absent.lock().get(peer).copied()
    }

    /// Waits until the relay takes packets.
    pub(super) async fn room(&self) {
        loop {
            let changed = self.changed.notified();
            let sender = self.sender.read().clone();
            if let Some(sender) = sender.filter(|sender| !sender.is_closed()) {
                tokio::select! {
                    () = sender.room() => return,
                    () = changed => {}
                }
            } else {
                changed.await;
            }
        }
    }

    /// Waits until the relay has answered, and so has read what was sent before.
    pub(super) async fn written(&self) {
        let changed = self.changed.notified();
        let answered = self.answered.notified();
        let sender = self.sender.read().clone();
        if let Some(sender) = sender {
            sender.ping(*b"got all?");
            tokio::select! {
                () = answered => {}
                () = changed => {}
            }
        }
    }

    /// The next packet that came in, or registers the task.
    pub(super) fn poll_recv(&self, cx: &Context<'_>) -> Option<(NodeKey, Bytes)> {
        let mut queue = self.queue.lock();
        let Some((from, packet)) = queue.packets.pop_front() else {
            match &mut queue.reader {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return None;
        };
        let was_full = queue.len >= QUEUE_LEN;
        queue.len -= packet.len();
        if was_full && queue.len < QUEUE_LEN {
            self.drained.notify_one();
        }
        Some((from, packet))
    }

    /// Keeps the link up until the task is aborted.
    pub(super) async fn run(self: Arc<Self>, secret: NodeSecret) {
        let mut target = self.target.subscribe();
        let mut backoff = BACKOFF_MIN;
        loop {
            let Some(relay) = target.borrow_and_update().clone() else {
                if target.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let config = client::Config {
                url: relay.url,
                secret: secret.clone(),
                tls: relay.tls,
            };
            let started = Instant::now();
            tokio::select! {
                () = self.connect_and_read(&config) => {}
                _ = target.changed() => {
                    self.set_sender(None);
                    backoff = BACKOFF_MIN;
                    continue;
                }
            }
            self.set_sender(None);
            if started.elapsed() >= STABLE {
                backoff = BACKOFF_MIN;
            }
            tokio::select! {
                () = tokio::time::sleep(jittered(backoff)) => {}
                _ = target.changed() => {}
            }
            backoff = backoff.mul_f32(1.5).min(BACKOFF_MAX);
        }
    }

    async fn connect_and_read(&self, config: &client::Config) {
        let connected = timeout(CONNECT_WITHIN, client::connect(config)).await;
        let (sender, receiver) = match connected {
            Ok(Ok(halves)) => halves,
            Ok(Err(error)) => {
                tracing::debug!(url = config.url, %error, "the relay is not there");
                return;
            }
            Err(_) => {
                tracing::debug!(url = config.url, "the relay does not answer");
                return;
            }
        };
        tracing::info!(url = config.url, "connected to the relay");
        self.set_sender(Some(sender.clone()));
        let reason = self.read(receiver, &sender).await;
        tracing::info!(
            url = config.url,
            reason,
            "the connection to the relay is over"
        );
    }

    /// Reads until the connection is over, and says why.
    async fn read(&self, mut receiver: client::Receiver, sender: &Sender) -> String {
        let mut asked = false;
        loop {
            let patience = if asked { PONG_WITHIN } else { PING_AFTER };
            match timeout(patience, receiver.recv()).await {
                Ok(Ok(event)) => {
                    asked = false;
                    self.handle_event(event).await;
                }
                Ok(Err(error)) => return error.to_string(),
                Err(_) if asked => return "no answer to a ping".to_owned(),
                Err(_) => {
                    asked = true;
                    sender.ping(*b"are you?");
                }
            }
        }
    }

    async fn handle_event(&self, event: Event) {
        match event {
            Event::Packet { from, data } => self.enqueue(from, data).await,
            Event::PeerGone { key, reason } => {
                tracing::debug!(?key, reason, "not on the relay");
                let mut absent = self.absent.lock();
                if absent.len() >= MAX_ABSENT {
                    absent.clear();
                }
                absent.insert(key, Instant::now());
            }
            Event::Pong(_) => self.answered.notify_waiters(),
            Event::Health(text) if !text.is_empty() => tracing::info!(text, "the relay says"),
            _ => {}
        }
    }

    async fn enqueue(&self, from: NodeKey, packet: Bytes) {
        {
            let mut absent = self.absent.lock();
            if !absent.is_empty() {
                absent.remove(&from);
            }
        }
        let full = {
            let mut queue = self.queue.lock();
            queue.len += packet.len();
            queue.packets.push_back((from, packet));
            if let Some(reader) = queue.reader.take() {
                reader.wake();
            }
            queue.len >= QUEUE_LEN
        };
        if full {
            self.drained.notified().await;
        }
    }

    fn set_sender(&self, sender: Option<Sender>) {
        *self.sender.write() = sender;
        self.absent.lock().clear();
        self.changed.notify_waiters();
    }
}

/// The relay takes no packets at the moment.
#[derive(Debug)]
pub(super) struct NoRoom;

/// Between half and all of a pause, so that a thousand nodes do not come back
/// in the same moment.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 2];
    // Without randomness the pause is merely regular.
    let _ = getrandom::fill(&mut random);
    pause.mul_f32(0.5 + f32::from(u16::from_le_bytes(random)) / 131_070.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_never_longer_and_at_least_half() {
        for _ in 0..1000 {
            let pause = jittered(BACKOFF_MAX);
            assert!(
                pause >= BACKOFF_MAX / 2 && pause <= BACKOFF_MAX,
                "{pause:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_full_queue_holds_the_reader_up_until_it_is_drained() {
        let link = Arc::new(Link::default());
        let key = NodeKey::from_bytes([1; 32]);
        let filler = Bytes::from(vec![0; QUEUE_LEN]);
        let writer = Arc::clone(&link);
        let task = tokio::spawn(async move {
            writer.enqueue(key, filler).await;
            writer.enqueue(key, Bytes::from_static(b"next")).await;
        });
        let next = std::future::poll_fn(|cx| match link.poll_recv(cx) {
            Some((_, packet)) if packet == "next" => std::task::Poll::Ready(()),
            Some(_) => {
                cx.waker().wake_by_ref();
                std::task::Poll::Pending
            }
            None => std::task::Poll::Pending,
        });
        timeout(Duration::from_secs(10), next).await.unwrap();
        timeout(Duration::from_secs(10), task)
            .await
            .unwrap()
            .unwrap();
    }
}
