//! Getting a connection to a peer.
//!
//! Whoever needs one waits until there is one, dialled by us or by the peer. One
//! task a peer dials, as long as somebody waits. An attempt is given up, and the
//! next one begun, after a few seconds or as soon as the peer turns out to have
//! been restarted: its old run cannot answer any more.
//!
//! An attempt that has a ticket of an earlier connection need not be waited for by
//! a call that may be made twice: its stream goes out with the first packet. The
//! peer may not know the ticket any more; it then takes the connection and refuses
//! the stream, and the call is made again by whoever made it.

use std::sync::Arc;
use std::time::Duration;

use quinn::{Connecting, Connection, ConnectionError, RecvStream, SendStream};
use tokio::time::timeout;

use super::entry::Entry;
use super::inside::Inside;
use super::links::{Side, Unconfirmed};
use super::tls::server_name;
use super::{Instant, endpoint};
use crate::Error;

/// How long a call waits for a connection and a stream.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// A peer that the relay does not know may just be starting again; after that
/// long it is away.
const ABSENT: Duration = Duration::from_secs(5);
/// The relay must have said so not before that (the handshake is repeated after
/// 3.25 s, which asks it again).
const ABSENT_STILL: Duration = Duration::from_secs(3);
const ABSENT_CHECK: Duration = Duration::from_millis(250);
/// How long one attempt may take: three round trips of a very slow path.
const ATTEMPT: Duration = Duration::from_secs(4);
/// After a failed attempt.
const PAUSE: Duration = Duration::from_millis(100);

/// On which connections a stream may be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    /// Those whose handshake has come to its end.
    Confirmed,
    /// Those, too, that resume an earlier one.
    Early,
}

impl Inside {
    /// Opens a stream to a peer.
    pub(super) async fn open(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        on: On,
    ) -> Result<(SendStream, RecvStream), Error> {
        let opened = timeout(OPEN_WITHIN, async {
            loop {
                let connection = self.connection(entry, on).await?;
                match connection.open_bi().await {
                    Ok(streams) => return Ok(streams),
                    // It died under our hands; a dead one is not live. A peer that ends each
                    // at once is not dialled as fast as it does.
                    Err(_) => {
                        entry.links.lock().forget(&connection);
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        });
        tokio::select! {
            opened = opened => opened.unwrap_or_else(|_| Err(self.unreachable(entry))),
            () = self.absent(entry) => {
                Err(Error::PeerUnreachable("it is not connected to the relay".to_owned()))
            }
        }
    }

    /// Resolves when the relay keeps missing the peer, and there is no other way
    /// to it.
    async fn absent(&self, entry: &Entry) {
        let started = Instant::now();
        loop {
            tokio::time::sleep(ABSENT_CHECK).await;
            let missed = self.node.relays.missed(&entry.key);
            let still = missed.is_some_and(|at| at >= started + ABSENT_STILL);
            let session = entry.state.lock().core.has_session();
            if started.elapsed() >= ABSENT && still && !session {
                return;
            }
        }
    }

    /// A connection that works, ours or the peer's.
    async fn connection(self: &Arc<Self>, entry: &Arc<Entry>, on: On) -> Result<Connection, Error> {
        let _waiting = Waiting::new(entry);
        loop {
            let mut changed = std::pin::pin!(entry.changed.notified());
            // Listen first, then look.
            changed.as_mut().enable();
            {
                let mut links = entry.links.lock();
                let usable = match on {
                    On::Confirmed => links.live(),
                    On::Early => links.live_or_early(),
                };
                if let Some(connection) = usable {
                    return Ok(connection.clone());
                }
                if links.removed {
                    return Err(Error::PeerUnknown);
                }
                if let Some(reason) = links.refused.take() {
                    return Err(Error::PeerRefused(reason));
                }
                if !links.dialling {
                    links.dialling = true;
                    let inside = Arc::clone(self);
                    let entry = Arc::clone(entry);
                    self.spawn(async move { inside.dial(&entry).await });
                }
            }
            changed.await;
        }
    }

    /// Dials until there is a connection or nobody waits for one.
    async fn dial(self: Arc<Self>, entry: &Arc<Entry>) {
        let _dialling = Dialling(entry);
        loop {
            match timeout(ATTEMPT, self.attempt(entry)).await {
                Ok(Ok(connection)) => {
                    let boot = entry.state.lock().core.remote_boot();
                    if entry
                        .links
                        .lock()
                        .add(Side::Dialled, connection.clone(), boot)
                    {
                        tracing::debug!(peer = ?entry.key, "connected");
                        self.serve(entry, connection);
                    }
                    return;
                }
                Ok(Err(Failure::Refused(reason))) => {
                    tracing::info!(peer = ?entry.key, reason, "the peer is not who it should be");
                    entry.links.lock().refused = Some(reason);
                    return;
                }
                // Whether anybody still wants it is looked at below.
                Ok(Err(Failure::Changed)) => {}
                Ok(Err(Failure::Other(reason))) => {
                    tracing::debug!(peer = ?entry.key, reason, "an attempt to connect failed");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(_) => tracing::debug!(peer = ?entry.key, "no answer"),
            }
            let links = entry.links.lock();
            if links.waiting == 0 || links.removed || links.live().is_some() {
                return;
            }
        }
    }

    async fn attempt(&self, entry: &Arc<Entry>) -> Result<Connection, Failure> {
        let restarts = entry.links.lock().restarts;
        entry.state.lock().core.connect(Instant::now());
        self.node.service(entry);
        let other = |error: &dyn std::fmt::Display| Failure::Other(error.to_string());
        let config = endpoint::client(&self.tls, entry).map_err(|e| other(&e))?;
        let name = server_name(self.node.boot);
        let connecting = self
            .endpoint
            .connect_with(config, entry.inner_address(), &name)
            .map_err(|e| other(&e))?;
        tokio::select! {
            connected = connected(entry, connecting) => connected.map_err(|error| match error {
                ConnectionError::TransportError(error) if is_about_identity(error.code) => {
                    Failure::Refused(error.to_string())
                }
                error => other(&error),
            }),
            () = changed(entry, restarts) => Err(Failure::Changed),
        }
    }

    /// Why nothing came about.
    pub(super) fn unreachable(&self, entry: &Entry) -> Error {
        let direct = {
            let state = entry.state.lock();
            state.core.current_route(Instant::now()).direct.is_some()
        };
        if direct || self.node.relays.is_connected() {
            Error::PeerUnreachable("it does not answer".to_owned())
        } else {
            Error::RelayUnreachable
        }
    }
}

/// Waits for the end of the handshake. Where a ticket is at hand, calls need not.
async fn connected(entry: &Entry, connecting: Connecting) -> Result<Connection, ConnectionError> {
    let (connection, handshake) = match connecting.into_0rtt() {
        Ok(early) => early,
        Err(connecting) => return connecting.await,
    };
    let unconfirmed = Unconfirmed::new(entry, connection);
    unconfirmed.offer();
    // Whether what was early was taken is known to its streams; the connection is
    // a good one in either case.
    handshake.await;
    unconfirmed.confirm()
}

enum Failure {
    /// Somebody else's key at one of the ends.
    Refused(String),
    /// The peer was restarted or removed meanwhile.
    Changed,
    Other(String),
}

/// Waits until the peer is another run, or removed.
async fn changed(entry: &Entry, before: u64) {
    loop {
        let mut changed = std::pin::pin!(entry.changed.notified());
        changed.as_mut().enable();
        {
            let links = entry.links.lock();
            if links.restarts != before || links.removed {
                return;
            }
        }
        changed.await;
    }
}

/// TLS alerts about certificates: 42 to 49, 51, 116 (RFC 8446, 6.2), as QUIC
/// carries them.
fn is_about_identity(code: quinn::TransportErrorCode) -> bool {
    let code = u64::from(code);
    matches!(code, 0x12a..=0x131 | 0x133 | 0x174)
}

/// Counts a waiting call for as long as it waits.
struct Waiting<'a>(&'a Entry);

impl<'a> Waiting<'a> {
    fn new(entry: &'a Entry) -> Self {
        entry.links.lock().waiting += 1;
        Self(entry)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.links.lock().waiting -= 1;
    }
}

/// The dialling task, which ends in many ways, has ended.
struct Dialling<'a>(&'a Entry);

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        self.0.links.lock().dialling = false;
        self.0.changed.notify_waiters();
    }
}
