//! A connection to a relay.
//!
//! [`connect`] returns two halves. What the [`Sender`] takes is queued, and a
//! task writes it, many packets in one write. The [`Receiver`] reads when it is
//! asked: who does not call [`Receiver::recv`] hears nothing, answers no pings,
//! and makes the relay hold up those who send to it. The connection lives as
//! long as the receiver.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, io};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::dial::{Address, Io, dial};
use super::input::Input;
use super::proxy::Proxy;
use super::{READ_TIMEOUT, STEP_TIMEOUT, WRITE_TIMEOUT, nonce, step, upgrade};
use crate::client::Heard;
pub use crate::client::{Event, SendError};
use crate::frame::Receives;
use crate::handshake::{self, Step};
use crate::{Error, NodeKey, NodeSecret, client};

/// Where the relay is and who we are.
#[derive(Debug, Clone)]
pub struct Config {
    /// `http://host[:port]` or `https://host[:port]`; the path `/derp` is
    /// added.
    pub url: String,
    /// The key pair to be reached by.
    pub secret: NodeSecret,
    /// How to check the relay's certificate; needed for `https`.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// The proxy that leads there, if one does.
    pub proxy: Option<Proxy>,
}

/// Connects, asks for the upgrade and proves who we are. Each step may take ten
/// seconds, one address of the relay three.
///
/// # Errors
///
/// [`Error::Refused`] when the relay does not admit the key and says so; else
/// what went wrong.
pub async fn connect(config: &Config) -> Result<(Sender, Receiver), Error> {
    connect_to(config, None).await
}

/// The same, to the relay with this key alone, if one is named: no other one at the
/// URL is told who we are.
///
/// # Errors
///
/// As [`connect`]; and [`Error::Another`] for another relay.
pub async fn connect_to(
    config: &Config,
    server: Option<NodeKey>,
) -> Result<(Sender, Receiver), Error> {
    let address = Address::parse(&config.url)?;
    let io = dial(&address, config.tls.as_ref(), config.proxy.as_ref()).await?;
    let mut us = handshake::Client::new(config.secret.clone(), nonce()?);
    if let Some(server) = server {
        us = us.with_server(server);
    }
    open(us, &address, io).await
}

/// Does what is left when bytes can flow.
async fn open(
    us: handshake::Client,
    address: &Address,
    mut io: Io,
) -> Result<(Sender, Receiver), Error> {
    let early = step(
        "the HTTP upgrade",
        upgrade::request_http(&mut io, &address.authority, &address.path),
    )
    .await?;
    let mut input = Input::new(Receives::Client, early);
    let server = step("the handshake", shake_hands(&mut io, &mut input, us)).await?;
    let (reader, writer) = tokio::io::split(io);
    let shared = Arc::new(Shared::default());
    let (failed, failure) = oneshot::channel();
    let writing = write_all(Arc::clone(&shared), writer, failed);
    tokio::spawn(writing);
    let sender = Sender {
        shared: Arc::clone(&shared),
    };
    let receiver = Receiver {
        server,
        reader,
        input,
        failure,
        heard_at: Instant::now(),
        shared,
    };
    Ok((sender, receiver))
}

/// Proves who we are; the key of the server.
pub(super) async fn shake_hands(
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    input: &mut Input,
    mut handshake: handshake::Client,
) -> Result<NodeKey, Error> {
    loop {
        let (frame, len) = input.frame(io).await?;
        let step = handshake.handle_frame(&frame)?;
        input.consume(len);
        match step {
            Step::Wait => {}
            Step::Send(bytes) => {
                io.write_all(&bytes).await?;
                io.flush().await?;
            }
            Step::Done { server } => return Ok(server),
        }
    }
}

/// What the halves and the writing task share.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write, or the connection is over.
    work: Notify,
    /// There is room again, or the connection is over.
    room: Notify,
}

#[derive(Default)]
struct State {
    client: client::Client,
    /// The writer has taken everything and waits for `work`.
    idle: bool,
    closed: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something that may queue bytes, and sees that they are written.
    fn queueing<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let result = work(&mut state);
        let wake = state.idle && state.client.wants_write();
        state.idle &= !wake;
        drop(state);
        if wake {
            self.work.notify_one();
        }
        result
    }

    /// Whether nobody needs to wait for room.
    fn has_room(&self) -> bool {
        let state = self.state();
        state.closed || state.client.has_room()
    }

    fn close(&self) {
        self.state().closed = true;
        self.work.notify_one();
        self.room.notify_waiters();
    }
}

/// The half of a connection that sends. Clones share the queue.
#[derive(Clone)]
pub struct Sender {
    shared: Arc<Shared>,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

impl Sender {
    /// Queues a packet for `to`. The queue takes a megabyte; handshakes of
    /// WireGuard overtake the rest in it.
    ///
    /// # Errors
    ///
    /// When the queue is full, the packet longer than 64 KiB, or the connection
    /// over. Nothing is queued then.
    pub fn try_send(&self, to: &NodeKey, packet: &[u8]) -> Result<(), SendError> {
        self.shared.queueing(|state| {
            if state.closed {
                return Err(SendError::Closed);
            }
            state.client.handle_send(to, packet)
        })
    }

    /// Waits until the queue has room for a packet of any length, or the
    /// connection is over.
    pub async fn room(&self) {
        loop {
            let mut notified = std::pin::pin!(self.shared.room.notified());
            // Listen first, then look, or the moment in between is missed.
            notified.as_mut().enable();
            if self.shared.has_room() {
                return;
            }
            notified.await;
        }
    }

    /// Asks the relay to answer with [`Event::Pong`]. It may leave pings
    /// unanswered that come faster than it is read.
    pub fn ping(&self, data: [u8; 8]) {
        // No room: thousands of pings wait, and one more tells nothing more.
        let _ = self.shared.queueing(|state| state.client.handle_ping(data));
    }

    /// Notes that this relay is (or is not) where we are to be found. That it is it
    /// passes on to the other relays of its region, which may not know yet that we
    /// have left them.
    pub fn note_preferred(&self, preferred: bool) {
        let _ = self
            .shared
            .queueing(|state| state.client.handle_note(preferred));
    }

    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        self.shared.state().closed
    }
}

/// The half of a connection that receives. Dropping it closes the connection.
pub struct Receiver {
    server: NodeKey,
    reader: ReadHalf<Io>,
    input: Input,
    /// Why the writing task ended.
    failure: oneshot::Receiver<Error>,
    heard_at: Instant,
    shared: Arc<Shared>,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl Receiver {
    /// The key of the relay.
    pub const fn server(&self) -> NodeKey {
        self.server
    }

    /// The next event. May be dropped before it is done without losing one.
    ///
    /// # Errors
    ///
    /// The connection is over, and why. Silence for two minutes counts as its
    /// end.
    pub async fn recv(&mut self) -> Result<Event, Error> {
        let event = self.next().await;
        if event.is_err() {
            self.shared.close();
        }
        event
    }

    async fn next(&mut self) -> Result<Event, Error> {
        loop {
            while let Some((_, len)) = self.input.peek()? {
                match client::read(&self.input.split(len))? {
                    Heard::Event(event) => return Ok(event),
                    Heard::Asked(data) => {
                        self.shared
                            .queueing(|state| state.client.handle_asked(data));
                    }
                    Heard::Nothing => {}
                }
            }
            let silent = Error::Timeout {
                what: "hearing from the relay",
                limit: READ_TIMEOUT,
            };
            let reading = self.input.read(&mut self.reader);
            tokio::select! {
                read = timeout_at(self.heard_at + READ_TIMEOUT, reading) => {
                    read.unwrap_or(Err(silent))?;
                    self.heard_at = Instant::now();
                }
                failure = &mut self.failure => {
                    return Err(failure.unwrap_or(Error::Closed("the writing task ended")));
                }
            }
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// The task that writes until the connection is over.
async fn write_all(shared: Arc<Shared>, mut io: WriteHalf<Io>, failed: oneshot::Sender<Error>) {
    if let Err(error) = write_chunks(&shared, &mut io).await {
        // The receiver may be gone, which is why we are here.
        let _ = failed.send(error);
    }
    shared.close();
    let _ = timeout(STEP_TIMEOUT, io.shutdown()).await;
}

async fn write_chunks(shared: &Shared, io: &mut WriteHalf<Io>) -> Result<(), Error> {
    loop {
        let chunk = {
            let mut state = shared.state();
            if state.closed {
                return Ok(());
            }
            let chunk = state.client.poll_transmit();
            state.idle = chunk.is_none();
            if state.client.has_room() {
                shared.room.notify_waiters();
            }
            chunk
        };
        let Some(chunk) = chunk else {
            within(io.flush()).await?;
            shared.work.notified().await;
            continue;
        };
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            let written = within(io.write(rest)).await?;
            if written == 0 {
                return Err(Error::Closed("the relay takes no bytes"));
            }
            rest = &rest[written..];
        }
    }
}

async fn within<T>(writing: impl Future<Output = io::Result<T>>) -> Result<T, Error> {
    let limit = WRITE_TIMEOUT;
    let what = "writing to the relay";
    match timeout(limit, writing).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Error::Timeout { what, limit }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::server::Server;

    fn us() -> handshake::Client {
        handshake::Client::new(NodeSecret::from_bytes([1; 32]), [0; 24])
    }

    /// A connection in memory to a relay that freezes once it is open: its
    /// end stays open as long as what is returned with it, but nobody is
    /// there.
    async fn frozen() -> (Sender, Receiver, impl Future<Output = Result<(), Error>>) {
        let (ours, theirs) = tokio::io::duplex(16 << 10);
        let secret = NodeSecret::from_bytes([2; 32]);
        let server = Server::new(secret, Arc::new(|_: &NodeKey| true));
        let remote = "192.0.2.1:1".parse().unwrap();
        let mut serving = Box::pin(async move { server.serve_http(theirs, remote).await });
        let address = Address::parse("http://relay.test").unwrap();
        let opened = tokio::select! {
            opened = open(us(), &address, Box::new(ours)) => opened,
            ended = &mut serving => panic!("{ended:?}"),
        };
        let (sender, receiver) = opened.unwrap();
        (sender, receiver, serving)
    }

    #[tokio::test(start_paused = true)]
    async fn a_relay_that_says_nothing_is_given_up() {
        let (ours, _theirs) = tokio::io::duplex(16 << 10);
        let address = Address::parse("http://relay.test").unwrap();
        let opened = open(us(), &address, Box::new(ours)).await;
        assert!(matches!(opened, Err(Error::Timeout { .. })));

        let (sender, mut receiver, _relay) = frozen().await;
        let ended = receiver.recv().await;
        let limit = READ_TIMEOUT;
        assert!(matches!(ended, Err(Error::Timeout { limit: at, .. }) if at == limit));
        assert!(sender.is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_relay_that_takes_nothing_is_given_up() {
        let (sender, mut receiver, _relay) = frozen().await;
        let to = NodeKey::from_bytes([3; 32]);
        while sender.try_send(&to, &[7; 1000]).is_ok() {}
        let ended = receiver.recv().await;
        let limit = WRITE_TIMEOUT;
        assert!(matches!(ended, Err(Error::Timeout { limit: at, .. }) if at == limit));
        // Whoever waits for room is not forgotten.
        sender.room().await;
        let sent = sender.try_send(&to, b"late");
        assert_eq!(sent, Err(SendError::Closed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_has_room_again_when_the_relay_reads() {
        let (sender, _receiver, relay) = frozen().await;
        let to = NodeKey::from_bytes([3; 32]);
        while sender.try_send(&to, &[7; 1000]).is_ok() {}
        assert_eq!(sender.try_send(&to, &[7; 1000]), Err(SendError::Full));
        tokio::select! {
            () = sender.room() => {}
            ended = relay => panic!("{ended:?}"),
        }
        sender.try_send(&to, &[7; 60_000]).unwrap();
    }
}
