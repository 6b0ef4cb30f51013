//! A connection to a relay.
//!
//! [`connect`] returns two halves. What the [`Sender`] takes is queued, and a
//! task writes it, many packets in one write. The [`Receiver`] reads when it is
//! asked: who does not call [`Receiver::recv`] hears nothing, answers no pings,
//! and makes the relay hold up those who send to it. The connection lives as
//! long as the receiver.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::input::Input;
use super::{READ_TIMEOUT, STEP_TIMEOUT, WRITE_TIMEOUT, nonce, step, upgrade};
use crate::client::Heard;
pub use crate::client::{Event, SendError};
use crate::frame::Receives;
use crate::handshake::{self, Step};
use crate::{Error, NodeKey, NodeSecret, client};

/// How long one address of the relay may take. When a relay is replaced behind
/// an address that stays (a container behind a service), an attempt may have
/// been sent after the old one, and all its repetitions go the same way; only
/// a new attempt finds the new relay.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(3);

type ReadIo = Box<dyn AsyncRead + Send + Unpin>;
type WriteIo = Box<dyn AsyncWrite + Send + Unpin>;

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
}

/// Connects, asks for the upgrade and proves who we are. Each step may take ten
/// seconds, one address of the relay three.
///
/// # Errors
///
/// [`Error::Refused`] when the relay does not admit the key and says so; else
/// what went wrong.
pub async fn connect(config: &Config) -> Result<(Sender, Receiver), Error> {
    let address = Address::parse(&config.url)?;
    let tcp = step("connecting to the relay", async {
        let host = address.host.trim_matches(['[', ']']);
        Ok(dial(host, address.port).await?)
    })
    .await?;
    if !address.tls {
        return open(config, &address, tcp).await;
    }
    let tls = config
        .tls
        .clone()
        .ok_or_else(|| Error::BadUrl("https needs a TLS configuration".into()))?;
    let name = rustls_pki_types::ServerName::try_from(address.host.trim_matches(['[', ']']))
        .map_err(|_| Error::BadUrl(config.url.clone()))?
        .to_owned();
    let stream = step("the TLS handshake", async {
        let connector = tokio_rustls::TlsConnector::from(tls);
        Ok(connector.connect(name, tcp).await?)
    })
    .await?;
    open(config, &address, stream).await
}

/// Tries one address of the relay after the other.
async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((host, port)).await? {
        let attempt = timeout(ADDRESS_TIMEOUT, TcpStream::connect(address));
        match attempt.await.unwrap_or_else(|late| Err(late.into())) {
            Ok(tcp) => {
                // What we write is as large as it should be; waiting for more
                // costs up to 40 ms a packet.
                tcp.set_nodelay(true)?;
                return Ok(tcp);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Does what is left when bytes can flow.
async fn open<S>(config: &Config, address: &Address, mut io: S) -> Result<(Sender, Receiver), Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let early = step(
        "the HTTP upgrade",
        upgrade::request_http(&mut io, &address.authority, &address.path),
    )
    .await?;
    let mut input = Input::new(Receives::Client, early);
    let server = step(
        "the handshake",
        shake_hands(&mut io, &mut input, &config.secret),
    )
    .await?;
    let (reader, writer) = tokio::io::split(io);
    let shared = Arc::new(Shared::default());
    let (failed, failure) = oneshot::channel();
    let writing = write_all(Arc::clone(&shared), Box::new(writer), failed);
    tokio::spawn(writing);
    let sender = Sender {
        shared: Arc::clone(&shared),
    };
    let receiver = Receiver {
        server,
        reader: Box::new(reader),
        input,
        failure,
        heard_at: Instant::now(),
        shared,
    };
    Ok((sender, receiver))
}

async fn shake_hands(
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    input: &mut Input,
    secret: &NodeSecret,
) -> Result<NodeKey, Error> {
    let mut handshake = handshake::Client::new(secret.clone(), nonce()?);
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

    /// Notes that this relay is (or is not) where we are usually to be found;
    /// for its statistics.
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
    reader: ReadIo,
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
async fn write_all(shared: Arc<Shared>, mut io: WriteIo, failed: oneshot::Sender<Error>) {
    if let Err(error) = write_chunks(&shared, &mut io).await {
        // The receiver may be gone, which is why we are here.
        let _ = failed.send(error);
    }
    shared.close();
    let _ = timeout(STEP_TIMEOUT, io.shutdown()).await;
}

async fn write_chunks(shared: &Shared, io: &mut WriteIo) -> Result<(), Error> {
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

/// A parsed [`Config::url`].
#[derive(Debug, PartialEq, Eq)]
struct Address {
    tls: bool,
    authority: String,
    host: String,
    port: u16,
    path: String,
}

impl Address {
    fn parse(url: &str) -> Result<Self, Error> {
        let bad = || Error::BadUrl(url.to_owned());
        let uri: http::Uri = url.parse().map_err(|_| bad())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad()),
        };
        let authority = uri.authority().ok_or_else(bad)?;
        // A password in it would end up in the Host header and in logs.
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(bad());
        }
        let base = uri.path().trim_end_matches('/');
        Ok(Self {
            tls,
            authority: authority.to_string(),
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            path: format!("{base}{}", upgrade::PATH),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::server::Server;

    fn config() -> Config {
        Config {
            url: "http://relay.test".into(),
            secret: NodeSecret::from_bytes([1; 32]),
            tls: None,
        }
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
        let config = config();
        let address = Address::parse(&config.url).unwrap();
        let opened = tokio::select! {
            opened = open(&config, &address, ours) => opened,
            ended = &mut serving => panic!("{ended:?}"),
        };
        let (sender, receiver) = opened.unwrap();
        (sender, receiver, serving)
    }

    #[tokio::test(start_paused = true)]
    async fn a_relay_that_says_nothing_is_given_up() {
        let (ours, _theirs) = tokio::io::duplex(16 << 10);
        let address = Address::parse("http://relay.test").unwrap();
        let opened = open(&config(), &address, ours).await;
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

    #[test]
    fn addresses() {
        let parse = |url: &str| Address::parse(url).map(|at| (at.tls, at.host, at.port, at.path));
        let expect = |url, tls, host: &str, port, path: &str| {
            let expected = (tls, host.to_owned(), port, path.to_owned());
            assert_eq!(parse(url).unwrap(), expected, "{url}");
        };
        expect("http://relay.test", false, "relay.test", 80, "/derp");
        expect("https://relay.test/", true, "relay.test", 443, "/derp");
        expect("http://127.0.0.1:8080", false, "127.0.0.1", 8080, "/derp");
        expect("https://[::1]:8443/a/", true, "[::1]", 8443, "/a/derp");
        for bad in [
            "",
            "relay.test",
            "ftp://relay.test",
            "http://",
            "http://user:word@relay.test",
            "http://a b",
        ] {
            assert!(matches!(parse(bad), Err(Error::BadUrl(_))), "{bad:?}");
        }
    }
}
