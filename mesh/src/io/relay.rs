//! The link to the relay, which is made again for ever.
//!
//! One task connects, reads, and does what `crate::home` decides: when to
//! connect, when to ask, when to give up. What it reads waits in a queue for the
//! receive half; when that is full the task stops reading, and TCP holds the
//! relay up.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use derp::io::client::{self, Event, Receiver, SendError, Sender};
use derp::{NodeKey, NodeSecret};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use super::Relay;
use super::timers::sleep_until;
use super::udp::Traffic;
use crate::home::{Action, Home};

/// Peers remembered as absent; what is forgotten is said again.
const MAX_ABSENT: usize = 4096;
/// Bytes that may wait for the receive half.
const QUEUE_LEN: usize = 1 << 20;

/// The link, shared by its task, the send half and the receive half.
#[derive(Default)]
pub(super) struct Link {
    home: Mutex<Home>,
    /// Something is due earlier than the task knows.
    sooner: Notify,
    /// A connection came up.
    pub(super) came_up: Notify,
    sender: RwLock<Option<Sender>>,
    target: watch::Sender<Option<Relay>>,
    /// The connection came or went.
    changed: Notify,
    queue: Mutex<Queue>,
    drained: Notify,
    /// The relay has answered a ping.
    answered: Notify,
    pub(super) traffic: Traffic,
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
        let sent = self.sender.read().as_ref().map(|s| s.try_send(to, packet));
        if sent.is_some() && self.home.lock().handle_sent(Instant::now()) {
            self.sooner.notify_one();
        }
        match sent {
            None | Some(Err(SendError::Full | SendError::Closed)) => Err(NoRoom),
            Some(Ok(())) => {
                self.traffic.sent.fetch_add(1, Relaxed);
                let len = packet.len() as u64;
                self.traffic.sent_bytes.fetch_add(len, Relaxed);
                Ok(())
            }
            Some(Err(SendError::TooLarge)) => Ok(()),
        }
    }

    /// The machine has other addresses now, or has slept: the connection is
    /// made anew.
    pub(super) fn handle_move(&self) {
        self.home.lock().handle_move(Instant::now());
        self.sooner.notify_one();
    }

    /// The round-trip time to the relay.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.home.lock().rtt()
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
        target.mark_changed();
        let mut end = End::None;
        loop {
            let now = Instant::now();
            let action = self.home.lock().handle_timeout(now);
            match action {
                Some(Action::Connect) => {
                    if let Some(relay) = self.target.borrow().clone() {
                        end = End::connect(relay, secret.clone());
                    }
                }
                Some(Action::Ping) => end.ping(),
                Some(Action::Drop(reason)) => self.lose(&mut end, reason),
                None => {}
            }
            let due = self.home.lock().arm(now);
            tokio::select! {
                changed = target.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let wanted = target.borrow_and_update().is_some();
                    self.set_sender(None);
                    end = End::None;
                    self.home.lock().set_wanted(wanted, Instant::now());
                }
                () = sleep_until(due) => {}
                () = self.sooner.notified() => {}
                news = end.news() => self.handle_news(&mut end, news).await,
            }
        }
    }

    /// Something came from the relay, or there is a connection, or none.
    async fn handle_news(&self, end: &mut End, news: News) {
        match news {
            News::Up(sender, receiver) => {
                tracing::info!("connected to the relay");
                self.set_sender(Some(sender.clone()));
                self.home.lock().handle_connected(Instant::now());
                *end = End::Up(sender, receiver);
                self.came_up.notify_one();
            }
            News::Event(event) => {
                self.home.lock().handle_heard(Instant::now());
                self.handle_event(event).await;
            }
            News::Lost(error) => self.lose(end, &error),
        }
    }

    fn lose(&self, end: &mut End, reason: &str) {
        match end {
            End::Up(..) => tracing::info!(reason, "the connection to the relay is over"),
            _ => tracing::debug!(reason, "the relay is not there"),
        }
        *end = End::None;
        self.set_sender(None);
        self.home.lock().handle_lost(Instant::now(), chance());
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
            Event::Restarting { reconnect_in, .. } => {
                tracing::info!(?reconnect_in, "the relay restarts");
                self.home.lock().handle_restarting(reconnect_in);
            }
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
        let received = &self.traffic.received_bytes;
        received.fetch_add(packet.len() as u64, Relaxed);
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

type Connecting = dyn Future<Output = Result<(Sender, Receiver), derp::Error>> + Send;

/// Our end of the connection.
enum End {
    None,
    Connecting(Pin<Box<Connecting>>),
    Up(Sender, Receiver),
}

/// What one can hear at our end.
enum News {
    Up(Sender, Receiver),
    Event(Event),
    Lost(String),
}

impl End {
    fn connect(relay: Relay, secret: NodeSecret) -> Self {
        let config = client::Config {
            url: relay.url,
            secret,
            tls: relay.tls,
            proxy: relay.proxy,
        };
        Self::Connecting(Box::pin(async move { client::connect(&config).await }))
    }

    fn ping(&self) {
        if let Self::Up(sender, _) = self {
            sender.ping(*b"are you?");
        }
    }

    /// May be dropped before it is done without losing anything.
    async fn news(&mut self) -> News {
        match self {
            Self::None => std::future::pending().await,
            Self::Connecting(connecting) => match connecting.await {
                Ok((sender, receiver)) => News::Up(sender, receiver),
                Err(error) => News::Lost(error.to_string()),
            },
            Self::Up(_, receiver) => match receiver.recv().await {
                Ok(event) => News::Event(event),
                Err(error) => News::Lost(error.to_string()),
            },
        }
    }
}

/// The relay takes no packets at the moment.
#[derive(Debug)]
pub(super) struct NoRoom;

/// A random number; without randomness pauses are merely regular.
fn chance() -> u16 {
    let mut random = [0; 2];
    let _ = getrandom::fill(&mut random);
    u16::from_le_bytes(random)
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

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
