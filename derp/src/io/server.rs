//! The relay itself: one task a connection (`driver`) around the [`Router`].

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::driver::Driver;
use super::input::Input;
use super::{fill, nonce, step, upgrade};
use crate::frame::Receives;
use crate::handshake::{self, Introduction, MeshKey, Verdict};
use crate::pace::{Pace, Rate};
use crate::router::{ConnId, Counters, Limits, Router};
use crate::{Error, NodeKey, NodeSecret};

/// How many tasks a thread of the runtime should poll before it looks for what has come in
/// ([`tokio::runtime::Builder::event_interval`]). Each of ours does some ten microseconds' work when
/// there is much to do, so that after tokio's 61 a packet may have waited for most of a millisecond;
/// to look costs less than one.
pub const EVENT_INTERVAL: u32 = 8;

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

/// What a relay may be told; the default is one that stands alone.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The bounds of its queues.
    pub limits: Limits,
    /// What the servers of its region share; whoever holds it may forward
    /// packets here and learns who is connected.
    pub mesh_key: Option<MeshKey>,
    /// How much one client may send; other servers of the region may more.
    pub rate: Option<Rate>,
}

/// How many are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    /// Connections, those with other servers of the region among them.
    pub connections: usize,
    /// Other servers of the region that we are connected to.
    pub links: usize,
    /// Clients that those have.
    pub away: usize,
}

/// Wakes the task of a connection.
pub(super) type Handle = Arc<Notify>;

/// The router, as these tasks use it.
pub(super) type Routing = Router<Handle>;

/// A relay; clones share it.
#[derive(Clone)]
pub struct Server {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) secret: NodeSecret,
    key: NodeKey,
    pub(super) mesh_key: Option<MeshKey>,
    rate: Option<Rate>,
    admission: Arc<dyn Admission>,
    router: Mutex<Routing>,
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
        let options = Options {
            limits,
            ..Options::default()
        };
        Self::with_options(secret, admission, options)
    }

    /// A relay that is told more than that.
    pub fn with_options(
        secret: NodeSecret,
        admission: Arc<dyn Admission>,
        options: Options,
    ) -> Self {
        let key = secret.public();
        Self {
            shared: Arc::new(Shared {
                secret,
                key,
                mesh_key: options.mesh_key,
                rate: options.rate,
                admission,
                router: Mutex::new(Router::new(options.limits)),
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

    /// The same, when `bytes` of the request have been read already.
    ///
    /// # Errors
    ///
    /// As for [`Server::serve_http`].
    pub async fn serve_begun<S>(
        &self,
        mut io: S,
        remote: SocketAddr,
        bytes: BytesMut,
    ) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let early = upgrade::accept_begun(&mut io, &self.shared.key, bytes).await?;
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

    /// The same, and ends each connection as soon as all that waits for it is
    /// written: for a server that stops in a moment.
    pub fn depart(&self, reconnect_in: Duration, try_for: Duration) {
        self.routing(|router| {
            router.handle_restart(reconnect_in, try_for);
            router.handle_leave();
        });
    }

    /// How many connections there are.
    pub fn clients(&self) -> usize {
        self.router().len()
    }

    /// How many are connected, and where.
    pub fn census(&self) -> Census {
        let router = self.router();
        Census {
            connections: router.len(),
            links: router.links(),
            away: router.away(),
        }
    }

    /// Whether a client with this key is connected to another server of the
    /// region.
    pub fn is_away(&self, key: &NodeKey) -> bool {
        self.router().is_away(key)
    }

    /// Whether there is a link to the server of the region with this key.
    pub fn is_linked(&self, server: &NodeKey) -> bool {
        self.router().is_linked(server)
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
        let rate = self.shared.rate.filter(|_| !client.is_mesh);
        let pace = rate.map(|rate| Pace::new(rate, Instant::now().into_std()));
        let registered = self.register(|router, handle, now, seed| {
            router.handle_connect(client, handle, now, seed)
        })?;
        if !self.may(&client) {
            // Revoked since it was asked, before there was a connection to cut.
            return Err(Error::Refused(key.to_string()));
        }
        tracing::debug!(%remote, ?key, "client connected");
        let result = Driver::new(&registered, reader, writer, input, reply)
            .paced(pace)
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
        let shared = &self.shared;
        let handshake = handshake::Server::new(shared.secret.clone(), shared.mesh_key.clone());
        writer.write_all(&handshake.greeting()).await?;
        writer.flush().await?;
        let (frame, len) = input.frame(reader).await?;
        let verdict = handshake.handle_frame(&frame, nonce()?, |client| self.may(client))?;
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

    /// The mesh key admits whoever holds it.
    fn may(&self, client: &Introduction) -> bool {
        client.is_mesh || self.shared.admission.admits(&client.key)
    }

    /// Registers a client *before* it hears that it is accepted, so that it can
    /// be reached from that moment on.
    pub(super) fn register(
        &self,
        add: impl FnOnce(&mut Routing, Handle, std::time::Instant, u64) -> ConnId,
    ) -> Result<Registered, Error> {
        let mut seed = [0; 8];
        fill(&mut seed)?;
        let seed = u64::from_ne_bytes(seed);
        let notify = Arc::new(Notify::new());
        let handle = Arc::clone(&notify);
        let now = Instant::now().into_std();
        let id = self.routing(|router| add(router, handle, now, seed));
        let server = self.clone();
        Ok(Registered { server, id, notify })
    }

    fn router(&self) -> MutexGuard<'_, Routing> {
        let router = self.shared.router.lock();
        router.unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the router, then wakes whom it concerns.
    pub(super) fn routing<T>(&self, work: impl FnOnce(&mut Routing) -> T) -> T {
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

/// A connection in the router, until dropped.
pub(super) struct Registered {
    pub(super) server: Server,
    pub(super) id: ConnId,
    pub(super) notify: Handle,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.server
            .routing(|router| router.handle_disconnect(self.id));
    }
}
