//! The mesh with sockets, clocks and a runtime: the [`Mesh`] handle.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use derp::NodeKey;

use crate::{Error, Identity, SignKey};

/// How a node takes part.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's keys.
    pub identity: Arc<Identity>,
    /// The UDP port to bind, 0 for any.
    pub udp_port: u16,
    /// Whether UDP is used at all; if not, everything goes over the relay.
    pub direct: bool,
}

/// Where the relay is.
#[derive(Clone)]
pub struct Relay {
    /// `http://host[:port]` or `https://host[:port]`.
    pub url: String,
    /// How to verify an `https` relay.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// The relay's STUN address; not used yet.
    pub stun: Option<SocketAddr>,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// Somebody this node may talk to, from a verified record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The peer's WireGuard and relay key.
    pub key: NodeKey,
    /// The key with which the peer speaks TLS.
    pub sign_key: SignKey,
}

/// How packets reach a peer at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Straight to this UDP address.
    Direct(SocketAddr),
    /// Over the relay.
    Relayed,
    /// Not at all: no tunnel is up.
    None,
}

/// What is known about the way to a peer.
#[derive(Clone, Copy, Debug)]
pub struct PeerStatus {
    /// The path in use.
    pub path: Path,
    /// The round-trip time, if one was measured.
    pub rtt: Option<Duration>,
    /// When the last authentic packet came in.
    pub last_heard: Option<Instant>,
}

/// The answer to [`Mesh::ping`].
#[derive(Clone, Copy, Debug)]
pub struct Pong {
    /// From sending the question to reading the answer.
    pub rtt: Duration,
    /// The path on which the answer came.
    pub path: Path,
}

/// A stream that a peer has opened.
#[derive(Debug)]
pub struct Incoming {
    /// Who opened it; proven by WireGuard and by TLS.
    pub peer: NodeKey,
    /// Towards the peer.
    pub send: quinn::SendStream,
    /// From the peer.
    pub recv: quinn::RecvStream,
}

/// A node in the mesh. Clones are handles to the same node.
#[derive(Clone)]
pub struct Mesh;

#[expect(clippy::unused_async, reason = "the bodies follow")]
impl Mesh {
    /// Binds the sockets and starts the node. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Network`] when a port cannot be bound.
    pub async fn start(_config: Config) -> Result<Self, Error> {
        Err(Error::Closed)
    }

    /// Says which relay to stay connected to, or none. The connection is made,
    /// and made again whenever it is lost, in the background.
    pub fn set_relay(&self, _relay: Option<Relay>) {}

    /// Lets a peer in, or changes its signing key.
    pub fn upsert_peer(&self, _peer: Peer) {}

    /// Shuts a peer out: its tunnel and connections end at once.
    pub fn remove_peer(&self, _key: &NodeKey) {}

    /// Opens a stream to a peer, connecting first if necessary.
    ///
    /// # Errors
    ///
    /// [`Error::PeerUnknown`], [`Error::PeerUnreachable`],
    /// [`Error::PeerRefused`] or [`Error::RelayUnreachable`].
    pub async fn open(
        &self,
        _key: &NodeKey,
    ) -> Result<(quinn::SendStream, quinn::RecvStream), Error> {
        Err(Error::Closed)
    }

    /// The next stream a peer opens; `None` once the mesh is closed.
    pub async fn accept(&self) -> Option<Incoming> {
        None
    }

    /// What is known about the way to a peer; `None` for strangers.
    pub fn status(&self, _key: &NodeKey) -> Option<PeerStatus> {
        None
    }

    /// Sends one echo through the tunnel, over the path in use.
    ///
    /// # Errors
    ///
    /// As [`Mesh::open`].
    pub async fn ping(&self, _key: &NodeKey) -> Result<Pong, Error> {
        Err(Error::Closed)
    }

    /// Whether the relay is connected right now.
    pub fn relay_connected(&self) -> bool {
        false
    }

    /// Says good-bye to the peers and stops.
    pub async fn close(&self) {}
}
