//! The connection to one relay, which is made again for ever.
//!
//! One task connects, reads, and does what `crate::home` decides: when to
//! connect, when to ask, when to give up. What it reads waits in a queue for the
//! receive half; when that is full the task stops reading, and TCP holds the
//! relay up.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use derp::io::client::{self, Event, Receiver, SendError, Sender};
use derp::{NodeKey, NodeSecret};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use crate::home::{Action, Home};
use crate::io::Relay;
use crate::io::timers::sleep_until;
use crate::io::udp::Traffic;
use crate::standby::{Connection, Refusal};

/// Peers remembered as absent; what is forgotten is said again.
const MAX_ABSENT: usize = 4096;
/// How long to wait where another relay is than the one that is wanted.
const WRONG: Duration = Duration::from_secs(10);
/// Bytes that may wait for the receive half.
const QUEUE_LEN: usize = 1 << 20;

/// The link, shared by its task, the send half and the receive half.
pub(in crate::io) struct Link {
    home: Mutex<Home>,
    /// Something is due earlier than the task knows.
    sooner: Notify,
    sender: RwLock<Option<Sender>>,
    /// Connections that there were.
    number: AtomicU64,
    /// Of them and of attempts, those that failed.
    failed: AtomicU64,
    target: watch::Sender<Option<Target>>,
    /// The key of the relay at the other end, or of the last one.
    server: watch::Sender<Option<NodeKey>>,
    /// See [`super::Relays`].
    changed: Arc<Notify>,
    queue: Mutex<Queue>,
    drained: Notify,
    /// The relay has answered a ping.
    answered: Notify,
    pub(super) traffic: Traffic,
    /// When the relay last said of a peer that it is not there.
    absent: Mutex<HashMap<NodeKey, Instant>>,
}

/// What to be connected to.
#[derive(Clone, Debug)]
pub(in crate::io) struct Target {
    pub(in crate::io) relay: Relay,
    /// Another relay at the same place will not do.
    pub(in crate::io) key: Option<NodeKey>,
}

#[derive(Default)]
struct Queue {
    packets: VecDeque<(NodeKey, Bytes)>,
    len: usize,
    reader: Option<Waker>,
}

impl Link {
    pub(super) fn new(changed: Arc<Notify>) -> Self {
        Self {
            home: Mutex::default(),
            sooner: Notify::new(),
            sender: RwLock::default(),
            number: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            target: watch::Sender::default(),
            server: watch::Sender::default(),
            changed,
            queue: Mutex::default(),
            drained: Notify::new(),
            answered: Notify::new(),
            traffic: Traffic::default(),
            absent: Mutex::default(),
        }
    }

    /// Says which relay to be connected to, or none. Saying it again changes
    /// nothing.
    pub(in crate::io) fn set_target(&self, to: Option<Target>) {
        self.target.send_if_modified(|target| {
            let same = match (&*target, &to) {
                (Some(old), Some(new)) => {
                    old.relay.is_reached_like(&new.relay) && old.key == new.key
                }
                (None, None) => true,
                _ => false,
            };
            *target = to;
            !same
        });
    }

    /// The key of the relay at the other end, or of the last one; and a wake-up when
    /// it becomes another one.
    pub(in crate::io) fn server(&self) -> watch::Receiver<Option<NodeKey>> {
        self.server.subscribe()
    }

    /// Whether the relay is connected now.
    pub(in crate::io) fn is_connected(&self) -> bool {
        self.sender.read().is_some()
    }

    /// Sends a packet.
    ///
    /// # Errors
    ///
    /// When the relay's queue is full, or there is no connection: nothing was
    /// sent.
    pub(super) fn send(&self, to: &NodeKey, packet: &[u8]) -> Result<(), Refusal> {
        let sent = self.sender.read().as_ref().map(|s| s.try_send(to, packet));
        if sent.is_some() && self.home.lock().handle_sent(Instant::now()) {
            self.sooner.notify_one();
        }
        match sent {
            None | Some(Err(SendError::Closed)) => Err(Refusal::Gone),
            Some(Err(SendError::Full)) => Err(Refusal::Full),
            Some(Ok(())) => {
                self.traffic.sent.fetch_add(1, Relaxed);
                let len = packet.len() as u64;
                self.traffic.sent_bytes.fetch_add(len, Relaxed);
                Ok(())
            }
            Some(Err(SendError::TooLarge)) => Ok(()),
        }
    }

    /// The relay has been asked whether it is still there, and has not answered yet.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.home.lock().is_in_doubt()
    }

    /// Which connection it is that there is now.
    pub(super) fn number(&self) -> Option<u64> {
        let sender = self.sender.read();
        sender.is_some().then(|| self.number.load(Relaxed))
    }

    /// How the connection is now.
    pub(super) fn connection(&self) -> Connection {
        match self.number() {
            Some(number) => Connection::There(number),
            None => Connection::Missing(self.failed.load(Relaxed)),
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

    /// What packets are given to, while it is there.
    pub(super) fn sender(&self) -> Option<Sender> {
        let sender = self.sender.read().clone();
        sender.filter(|sender| !sender.is_closed())
    }

    /// Waits until the relay has answered, and so has read what was sent before; or until the
    /// connection is over.
    pub(super) async fn written(&self) {
        let mut answered = std::pin::pin!(self.answered.notified());
        answered.as_mut().enable();
        let number = self.number();
        if let Some(sender) = self.sender() {
            sender.ping(*b"got all?");
        }
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if number.is_none() || self.number() != number {
                return;
            }
            tokio::select! {
                () = answered.as_mut() => return,
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
    pub(in crate::io) async fn run(self: Arc<Self>, secret: NodeSecret) {
        let mut target = self.target.subscribe();
        target.mark_changed();
        let mut end = End::None;
        loop {
            let now = Instant::now();
            let action = self.home.lock().handle_timeout(now);
            match action {
                Some(Action::Connect) => {
                    if let Some(target) = self.target.borrow().clone() {
                        end = End::connect(target, secret.clone());
                    }
                }
                Some(Action::Ping) => {
                    end.ping();
                    self.changed.notify_waiters();
                }
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
                self.home.lock().handle_connected(Instant::now());
                self.note_server(receiver.server());
                self.set_sender(Some(sender.clone()));
                *end = End::Up(sender, receiver);
            }
            News::Event(event) => {
                self.handle_heard();
                self.handle_event(event).await;
            }
            News::Wrong(error) => {
                // It may take its place for long.
                self.home.lock().handle_restarting(WRONG);
                self.lose(end, &error);
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
        self.failed.fetch_add(1, Relaxed);
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

    fn handle_heard(&self) {
        let mut home = self.home.lock();
        let was_in_doubt = home.is_in_doubt();
        home.handle_heard(Instant::now());
        if was_in_doubt {
            self.changed.notify_waiters();
        }
    }

    fn note_server(&self, key: NodeKey) {
        self.server.send_if_modified(|known| {
            let is_news = *known != Some(key);
            *known = Some(key);
            is_news
        });
    }

    fn set_sender(&self, sender: Option<Sender>) {
        {
            // Whoever looks sees a connection with its own number.
            let mut current = self.sender.write();
            self.number.fetch_add(u64::from(sender.is_some()), Relaxed);
            *current = sender;
        }
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
    /// Another relay is there.
    Wrong(String),
}

impl End {
    fn connect(Target { relay, key }: Target, secret: NodeSecret) -> Self {
        let config = client::Config {
            url: relay.url,
            secret,
            tls: relay.tls,
            proxy: relay.proxy,
        };
        Self::Connecting(Box::pin(
            async move { client::connect_to(&config, key).await },
        ))
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
                Err(error @ derp::Error::Another) => News::Wrong(error.to_string()),
                Err(error) => News::Lost(error.to_string()),
            },
            Self::Up(_, receiver) => match receiver.recv().await {
                Ok(event) => News::Event(event),
                Err(error) => News::Lost(error.to_string()),
            },
        }
    }
}

/// A random number; without randomness pauses are merely regular.
fn chance() -> u16 {
    let mut random = [0; 2];
    let _ = getrandom::fill(&mut random);
    u16::from_le_bytes(random)
}

#[cfg(test)]
mod tests {
    use derp::io::server::Server;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;
    use crate::io::relay::Relays;
    use crate::standby::Which;

    #[tokio::test]
    async fn a_full_queue_holds_the_reader_up_until_it_is_drained() {
        let link = Arc::new(Link::new(Arc::default()));
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

    /// A connection to a relay of its own, and its end, which closes it when dropped.
    async fn connected() -> (Sender, Receiver) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let secret = NodeSecret::from_bytes([9; 32]);
        let server = Server::new(secret.clone(), Arc::new(|_: &NodeKey| true));
        tokio::spawn(async move {
            let (tcp, remote) = listener.accept().await.unwrap();
            let _ = server.serve_http(tcp, remote).await;
        });
        let config = client::Config {
            url,
            secret,
            tls: None,
            proxy: None,
        };
        client::connect(&config).await.unwrap()
    }

    #[tokio::test]
    async fn what_a_closed_connection_does_not_take_goes_by_the_other_relay() {
        let relays = Relays::default();
        let key = NodeKey::from_bytes([1; 32]);
        let (closed, receiver) = connected().await;
        let (open, _receiver) = connected().await;
        drop(receiver);
        while !closed.is_closed() {
            tokio::task::yield_now().await;
        }
        // The task of the first link does not know it yet.
        relays.first.set_sender(Some(closed));
        assert!(relays.send(&key, b"x").is_err());
        relays.other.set_sender(Some(open));
        assert!(relays.send(&key, b"x").is_ok());
        assert_eq!(relays.other.traffic.sent.load(Relaxed), 1);
    }

    #[tokio::test]
    async fn what_is_in_doubt_goes_by_both_relays() {
        let relays = Relays::default();
        let key = NodeKey::from_bytes([1; 32]);
        let (one, _receiver) = connected().await;
        let (two, _receiver) = connected().await;
        relays.first.set_sender(Some(one));
        relays.other.set_sender(Some(two));
        // Nothing was asked: neither is in doubt.
        relays.first.home.lock().handle_connected(Instant::now());
        relays.other.home.lock().handle_connected(Instant::now());
        for (packet, by_other) in [
            ([4, 0, 0, 0, 7], 0),
            ([1, 0, 0, 0, 7], 1),
            ([2, 0, 0, 0, 7], 2),
            ([3, 0, 0, 0, 7], 2),
        ] {
            assert!(relays.send(&key, &packet).is_ok());
            assert_eq!(relays.other.traffic.sent.load(Relaxed), by_other);
        }
        assert_eq!(relays.first.traffic.sent.load(Relaxed), 4);
        // Who is heard by the other one is answered by both for a while, and there after that.
        relays.handle_authentic(&key, Which::Other);
        assert!(relays.send(&key, b"data").is_ok());
        let sent = [&relays.first, &relays.other].map(|link| link.traffic.sent.load(Relaxed));
        assert_eq!(sent, [5, 3]);
        relays.handle_authentic(&key, Which::First);
        assert!(relays.send(&key, b"data").is_ok());
        let sent = [&relays.first, &relays.other].map(|link| link.traffic.sent.load(Relaxed));
        assert_eq!(sent, [6, 3]);
        // While the first one has not answered, by both.
        let action = relays.first.home.lock().handle_timeout(Instant::now());
        assert_eq!(action, Some(Action::Ping));
        assert!(relays.send(&key, b"data").is_ok());
        relays.first.handle_heard();
        assert!(relays.send(&key, b"data").is_ok());
        let sent = [&relays.first, &relays.other].map(|link| link.traffic.sent.load(Relaxed));
        assert_eq!(sent, [8, 4]);
    }
}
