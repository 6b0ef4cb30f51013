//! The relay itself: one task a connection around the [`Router`].
//!
//! The task reads, routes all that a read brought under one lock, and writes
//! what others have queued for its client, many frames in one write. Reading
//! stops while a frame waits for room in the queue of its destination.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

use super::input::Input;
use super::{STEP_TIMEOUT, WRITE_TIMEOUT, fill, nonce, step, upgrade};
use crate::frame::Receives;
use crate::handshake::{self, Introduction, Verdict};
use crate::router::{ConnId, Counters, Limits, Outcome, Router, Transmit};
use crate::{Error, NodeKey, NodeSecret};

/// Who may use the relay.
pub trait Admission: Send + Sync {
    /// Whether the holder of `key` may connect. Asked for each connection,
    /// when the client has proven that it holds the key and once more when its
    /// connection is registered. It should not block.
    fn admits(&self, key: &NodeKey) -> bool;
}

impl<F: Fn(&NodeKey) -> bool + Send + Sync> Admission for F {
    fn admits(&self, key: &NodeKey) -> bool {
        self(key)
    }
}

/// A relay; clones share it.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    secret: NodeSecret,
    key: NodeKey,
    admission: Arc<dyn Admission>,
    router: Mutex<Router<Arc<Notify>>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("key", &self.shared.key)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// A relay with the given key pair.
    pub fn new(secret: NodeSecret, admission: Arc<dyn Admission>) -> Self {
        Self::with_limits(secret, admission, Limits::default())
    }

    /// A relay with other limits than the usual ones.
    pub fn with_limits(secret: NodeSecret, admission: Arc<dyn Admission>, limits: Limits) -> Self {
        let key = secret.public();
        Self {
            shared: Arc::new(Shared {
                secret,
                key,
                admission,
                router: Mutex::new(Router::new(limits)),
            }),
        }
    }

    /// The public key, which the HTTP upgrade announces.
    pub fn public_key(&self) -> NodeKey {
        self.shared.key
    }

    /// Serves one client on a connection that is past the HTTP upgrade, until
    /// it is gone. `remote` is for the log. Dropping the future disconnects
    /// the client.
    ///
    /// The caller should have turned on `TCP_NODELAY`: what is written here is
    /// already as large as it should be.
    ///
    /// # Errors
    ///
    /// Why the connection ended, unless the client closed it.
    pub async fn serve<S>(&self, io: S, remote: SocketAddr) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.serve_after(io, remote, BytesMut::new()).await
    }

    /// Does the HTTP upgrade too, see [`upgrade::accept_http`].
    ///
    /// # Errors
    ///
    /// As for [`Server::serve`], and when the client asks for something else.
    pub async fn serve_http<S>(&self, mut io: S, remote: SocketAddr) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let early = upgrade::accept_http(&mut io, &self.shared.key).await?;
        self.serve_after(io, remote, early).await
    }

    /// Cuts every connection of `key`. Whoever revokes a key first makes the
    /// [`Admission`] refuse it, so that it cannot come back.
    pub fn disconnect(&self, key: &NodeKey) {
        self.routing(|router| router.handle_revoke(key));
    }

    /// Tells the clients that can hear it to come back later.
    pub fn announce_restart(&self, reconnect_in: Duration, try_for: Duration) {
        self.routing(|router| router.handle_restart(reconnect_in, try_for));
    }

    /// How many connections there are.
    pub fn clients(&self) -> usize {
        self.router().len()
    }

    /// Whether a client with this key is connected.
    pub fn is_connected(&self, key: &NodeKey) -> bool {
        self.router().contains(key)
    }

    /// What happened since the start.
    pub fn counters(&self) -> Counters {
        self.router().counters()
    }

    async fn serve_after<S>(&self, io: S, remote: SocketAddr, early: BytesMut) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut reader, mut writer) = tokio::io::split(io);
        let mut input = Input::new(Receives::Server, early);
        let (client, reply) = step(
            "the handshake",
            self.shake_hands(&mut reader, &mut writer, &mut input),
        )
        .await?;
        let key = client.key;
        let registered = self.register(client)?;
        if !self.shared.admission.admits(&key) {
            // Revoked since it was asked, before there was a connection to cut.
            return Err(Error::Refused(key.to_string()));
        }
        tracing::debug!(%remote, ?key, "client connected");
        let result = Driver::new(&registered, reader, writer, input, reply)
            .run()
            .await;
        tracing::debug!(%remote, ?key, ?result, "client disconnected");
        result
    }

    async fn shake_hands<S: AsyncRead + AsyncWrite>(
        &self,
        reader: &mut ReadHalf<S>,
        writer: &mut WriteHalf<S>,
        input: &mut Input,
    ) -> Result<(Introduction, Vec<u8>), Error> {
        let handshake = handshake::Server::new(self.shared.secret.clone(), None);
        writer.write_all(&handshake.greeting()).await?;
        writer.flush().await?;
        let (frame, len) = input.frame(reader).await?;
        let verdict = handshake.handle_frame(&frame, nonce()?, |client| {
            self.shared.admission.admits(&client.key)
        })?;
        input.consume(len);
        match verdict {
            Verdict::Accepted { client, reply } => Ok((client, reply)),
            Verdict::Refused { key, reply } => {
                writer.write_all(&reply).await?;
                writer.shutdown().await?;
                Err(Error::Refused(key.to_string()))
            }
        }
    }

    /// Registers a client *before* it hears that it is accepted, so that it can
    /// be reached from that moment on.
    fn register(&self, client: Introduction) -> Result<Registered, Error> {
        let mut seed = [0; 8];
        fill(&mut seed)?;
        let notify = Arc::new(Notify::new());
        let handle = Arc::clone(&notify);
        let now = Instant::now().into_std();
        let id = self
            .routing(|router| router.handle_connect(client, handle, now, u64::from_ne_bytes(seed)));
        let server = self.clone();
        Ok(Registered { server, id, notify })
    }

    fn router(&self) -> MutexGuard<'_, Router<Arc<Notify>>> {
        let router = self.shared.router.lock();
        router.unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the router, then wakes whom it concerns.
    fn routing<T>(&self, work: impl FnOnce(&mut Router<Arc<Notify>>) -> T) -> T {
        let mut wakes = Vec::new();
        let mut router = self.router();
        let result = work(&mut router);
        router.poll_wakes(&mut wakes);
        drop(router);
        for handle in wakes {
            handle.notify_one();
        }
        result
    }
}

/// A client in the router, until dropped.
struct Registered {
    server: Server,
    id: ConnId,
    notify: Arc<Notify>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.server
            .routing(|router| router.handle_disconnect(self.id));
    }
}

/// One connection past its handshake.
struct Driver<'a, S> {
    client: &'a Registered,
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    input: Input,
    /// What is being written, and how much of it is.
    chunk: Vec<u8>,
    written: usize,
    /// Written, but perhaps not on its way.
    unflushed: bool,
    /// There may be something to write.
    ask: bool,
    /// Somebody wants something of this connection, perhaps its end.
    woken: bool,
    /// Until when the first frame of the input waits for room.
    blocked: Option<Instant>,
    /// When the client must have taken something of what is being written.
    write_by: Instant,
    keep_alive_at: Instant,
}

impl<'a, S: AsyncRead + AsyncWrite> Driver<'a, S> {
    fn new(
        client: &'a Registered,
        reader: ReadHalf<S>,
        writer: WriteHalf<S>,
        input: Input,
        reply: Vec<u8>,
    ) -> Self {
        let now = Instant::now();
        Self {
            client,
            reader,
            writer,
            input,
            chunk: reply,
            written: 0,
            unflushed: false,
            ask: true,
            woken: true,
            blocked: None,
            write_by: now + STEP_TIMEOUT,
            keep_alive_at: now,
        }
    }

    async fn run(mut self) -> Result<(), Error> {
        let mut timer = Box::pin(sleep_until(self.keep_alive_at));
        loop {
            self.route()?;
            self.set(&mut timer);
            let writing = self.is_writing();
            tokio::select! {
                () = self.client.notify.notified() => {
                    self.ask = true;
                    self.woken = true;
                    self.blocked = None;
                }
                written = write(&mut self.writer, &self.chunk[self.written..]), if writing => {
                    self.wrote(written?)?;
                }
                read = self.input.read(&mut self.reader), if self.blocked.is_none() => {
                    match read {
                        Err(Error::Closed(_)) => return Ok(()),
                        other => other?,
                    }
                }
                () = &mut timer => self.handle_timeout()?,
            }
        }
    }

    /// Routes what was read and takes the next chunk to write, as far as
    /// either is possible.
    fn route(&mut self) -> Result<(), Error> {
        let fetch = self.ask && self.chunk.is_empty();
        let pending = self.blocked.is_none() && self.input.peek()?.is_some();
        if !fetch && !pending && !self.woken {
            return Ok(());
        }
        self.woken = false;
        let Registered { server, id, .. } = self.client;
        let (id, now) = (*id, Instant::now());
        server.routing(|router| {
            if let Some(reason) = router.poll_close(id) {
                return Err(Error::Closed(reason));
            }
            while self.blocked.is_none()
                && let Some((frame, len)) = self.input.peek()?
            {
                match router.handle_frame(id, &frame, now.into_std())? {
                    Outcome::Taken => self.input.consume(len),
                    Outcome::Blocked(until) => self.blocked = Some(Instant::from_std(until)),
                }
            }
            if fetch {
                match router.poll_transmit(id) {
                    Transmit::Chunk(chunk) => {
                        self.chunk = chunk;
                        self.write_by = now + WRITE_TIMEOUT;
                    }
                    Transmit::Idle => self.ask = false,
                    Transmit::Close(reason) => return Err(Error::Closed(reason)),
                }
            }
            Ok(())
        })
    }

    fn is_writing(&self) -> bool {
        self.unflushed || !self.chunk.is_empty()
    }

    fn wrote(&mut self, written: usize) -> Result<(), Error> {
        if written == 0 && !self.chunk.is_empty() {
            return Err(Error::Closed("the client takes no bytes"));
        }
        self.unflushed = written > 0;
        self.written += written;
        self.write_by = Instant::now() + WRITE_TIMEOUT;
        if self.written == self.chunk.len() {
            self.chunk = Vec::new();
            self.written = 0;
        }
        Ok(())
    }

    /// Sets the timer to no later than it has to go off. It may go off early,
    /// which costs less than setting it with each write.
    fn set(&self, timer: &mut Pin<Box<Sleep>>) {
        let mut due = self.keep_alive_at;
        if self.is_writing() {
            due = due.min(self.write_by);
        }
        if let Some(until) = self.blocked {
            due = due.min(until);
        }
        if due < timer.deadline() || timer.is_elapsed() {
            timer.as_mut().reset(due);
        }
    }

    fn handle_timeout(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if self.is_writing() && now >= self.write_by {
            let (what, limit) = ("writing to the client", WRITE_TIMEOUT);
            return Err(Error::Timeout { what, limit });
        }
        if self.blocked.is_some_and(|until| now >= until) {
            self.blocked = None;
        }
        if now >= self.keep_alive_at {
            let id = self.client.id;
            let next = self.client.server.routing(|router| {
                router.handle_timeout(id, now.into_std());
                router.poll_timeout(id)
            });
            self.keep_alive_at = next.map_or(now + WRITE_TIMEOUT, Instant::from_std);
            self.input.rest();
            self.woken = true;
        }
        Ok(())
    }
}

/// Writes some of `bytes`, or flushes when there are none.
async fn write(io: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<usize> {
    if bytes.is_empty() {
        io.flush().await?;
        return Ok(0);
    }
    io.write(bytes).await
}
