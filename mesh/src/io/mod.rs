//! The mesh with sockets, clocks and a runtime: the [`Mesh`] handle.
//!
//! Around the state machine of each peer (`crate::peer`) stand: the UDP sockets
//! (`udp`), the link to the relay (`relay`), one QUIC endpoint for all peers
//! (`endpoint`) on a socket of our own that encrypts what it sends (`socket`,
//! `outbox`) and decrypts what it receives (`receive`, `pack`), the connections
//! (`links`, `dial`, `accept`, `tls`) and the timers.
//!
//! A packet on the direct path meets no channel and no task of ours: quinn's
//! connection task encrypts and sends, quinn's endpoint task receives and
//! decrypts.

mod accept;
mod awareness;
mod dial;
mod endpoint;
mod entry;
mod fan;
mod gate;
mod inside;
mod links;
mod node;
mod outbox;
mod pack;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use pack::pack_anything;
mod platform;
mod portmap;
mod receive;
mod reflect;
mod relay;
mod socket;
mod status;
mod table;
mod timers;
mod tls;
mod udp;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use derp::NodeKey;
use dial::On;
use inside::Inside;
use links::code;
use relay::Target;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::timeout;

pub use derp::io::proxy::Proxy;
pub use status::{Nat, PeerStatus, Traffic};

use crate::path::Via;
use crate::peer::Event;
use crate::{Error, Identity, SignKey};

/// How long a ping waits in all.
const PING_WITHIN: Duration = Duration::from_secs(10);
/// An echo is repeated after that long at first, then after twice that.
const PING_PAUSE: Duration = Duration::from_millis(50);
/// How long closing waits for the farewells to be sent.
const CLOSE_WITHIN: Duration = Duration::from_millis(300);

/// How a node takes part.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's keys.
    pub identity: Arc<Identity>,
    /// The UDP port to bind, 0 for any.
    pub udp_port: u16,
    /// Whether UDP is used at all; if not, everything goes over the relay.
    pub direct: bool,
    /// Whether the gateway is asked for a port, where there is a NAT.
    pub port_mapping: bool,
}

/// Where the relay is.
#[derive(Clone)]
pub struct Relay {
    /// `http://host[:port]` or `https://host[:port]`.
    pub url: String,
    /// How to verify an `https` relay.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// The HTTP proxy that leads to it, if one does.
    pub proxy: Option<Proxy>,
    /// The relay's STUN server, which tells us our address as others see it.
    pub stun: Option<SocketAddr>,
}

impl Relay {
    /// Whether a connection to one is a connection to the other.
    fn is_reached_like(&self, other: &Self) -> bool {
        let tls = match (&self.tls, &other.tls) {
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            (None, None) => true,
            _ => false,
        };
        tls && self.url == other.url && self.proxy == other.proxy
    }
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

/// A node in the mesh. Clones are handles to the same node, which ends when the
/// last one is dropped, or with [`Mesh::close`].
#[derive(Clone)]
pub struct Mesh {
    owner: Arc<Owner>,
}

struct Owner {
    inside: Arc<Inside>,
    accepted: Mutex<mpsc::Receiver<Incoming>>,
}

impl Mesh {
    /// Binds the sockets and starts the node. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Network`] when a port cannot be bound.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let (inside, accepted) = Inside::start(&config).await?;
        let accepted = Mutex::new(accepted);
        Ok(Self {
            owner: Arc::new(Owner { inside, accepted }),
        })
    }

    /// Says which relay to stay connected to, or none. The connection is made,
    /// and made again whenever it is lost, in the background.
    pub fn set_relay(&self, relay: Option<Relay>) {
        self.set_stun(relay.as_ref().and_then(|relay| relay.stun));
        let target = relay.map(|relay| Target { relay, key: None });
        self.inside().node.relays.first.set_target(target);
    }

    /// Says which other relay to stay connected to, for when the first one is not
    /// there, or none; with its key, since it must not be the first one once more. The
    /// relays must pass on packets for each other's clients, or peers are not found
    /// by it. Saying it again changes nothing.
    pub fn set_standby(&self, relay: Option<(Relay, NodeKey)>) {
        let target = relay.map(|(relay, key)| Target {
            relay,
            key: Some(key),
        });
        self.inside().node.relays.other.set_target(target);
    }

    /// The key of the relay that is connected, or was last, and a wake-up when it
    /// becomes another one: behind one URL there may be several.
    pub fn relay_key(&self) -> watch::Receiver<Option<NodeKey>> {
        self.inside().node.relays.first.server()
    }

    /// Says which STUN server to ask for our address as others see it, or none;
    /// for when it becomes known later than the relay.
    pub fn set_stun(&self, server: Option<SocketAddr>) {
        self.inside().node.reflection.set_server(server);
    }

    /// Lets a peer in. With another signing key than before, its connections
    /// end and it has to prove the new one.
    pub fn upsert_peer(&self, peer: Peer) {
        if let Some(old) = self.inside().node.upsert(&peer) {
            old.cut();
        }
    }

    /// A peer that was not connected to the relay is again: what waits for it
    /// goes on at once.
    pub fn handle_return(&self, key: &NodeKey) {
        let node = &self.inside().node;
        if let Some(entry) = node.by_key(key) {
            entry.state.lock().core.handle_return(Instant::now());
            node.service(&entry);
        }
    }

    /// Shuts a peer out: its tunnel and connections end at once.
    pub fn remove_peer(&self, key: &NodeKey) {
        let node = &self.inside().node;
        let removed = node.table.write().remove(key);
        if let Some(entry) = removed {
            entry.cut();
            entry.state.lock().core.say_bye(Instant::now());
            node.service(&entry);
        }
    }

    /// Opens a stream to a peer, connecting first if necessary. Waits at most
    /// ten seconds.
    ///
    /// # Errors
    ///
    /// [`Error::PeerUnknown`], [`Error::PeerUnreachable`],
    /// [`Error::PeerRefused`] or [`Error::RelayUnreachable`].
    pub async fn open(
        &self,
        key: &NodeKey,
    ) -> Result<(quinn::SendStream, quinn::RecvStream), Error> {
        self.open_on(key, On::Confirmed).await
    }

    /// As [`Mesh::open`], for what may be done twice without harm. Without a
    /// connection, but with the ticket of an earlier one in this run, nothing is
    /// waited for: what is written goes out with the first packet of the handshake
    /// (0-RTT). [`quinn::RecvStream::is_0rtt`] says whether that is so.
    ///
    /// Such a stream can still fail, after four seconds at most: with
    /// [`quinn::ReadError::ZeroRttRejected`] when the peer does not take what is
    /// early, or when no connection comes about; else as any does when its
    /// connection is lost. Then it is for the caller to do it again, on a stream by
    /// [`Mesh::open`].
    ///
    /// # Errors
    ///
    /// As [`Mesh::open`].
    pub async fn open_early(
        &self,
        key: &NodeKey,
    ) -> Result<(quinn::SendStream, quinn::RecvStream), Error> {
        self.open_on(key, On::Early).await
    }

    async fn open_on(
        &self,
        key: &NodeKey,
        on: On,
    ) -> Result<(quinn::SendStream, quinn::RecvStream), Error> {
        let inside = self.inside();
        let entry = inside.node.by_key(key).ok_or(Error::PeerUnknown)?;
        // The common case: a connection that works, and room for a stream.
        let live = entry.links.lock().live().cloned();
        if let Some(connection) = live
            && let Some(Ok(streams)) = now_or_never(connection.open_bi()).await
        {
            return Ok(streams);
        }
        tokio::select! {
            opened = inside.open(&entry, on) => opened,
            () = inside.stopped() => Err(Error::Closed),
        }
    }

    /// The next stream a peer opens; `None` once the mesh is closed.
    pub async fn accept(&self) -> Option<Incoming> {
        self.owner.accepted.lock().await.recv().await
    }

    /// Sends an echo through the tunnel, over the path in use, and again until
    /// it is answered, for at most ten seconds.
    ///
    /// # Errors
    ///
    /// As [`Mesh::open`].
    pub async fn ping(&self, key: &NodeKey) -> Result<Pong, Error> {
        let node = &self.inside().node;
        let entry = node.by_key(key).ok_or(Error::PeerUnknown)?;
        let echoes = async {
            let mut pause = PING_PAUSE;
            loop {
                let id = node.next_echo();
                let (answer, answered) = oneshot::channel();
                entry.echoes.lock().insert(id, answer);
                let started = Instant::now();
                entry.state.lock().core.echo(id, started);
                node.service(&entry);
                let answered = timeout(pause, answered).await;
                entry.echoes.lock().remove(&id);
                if let Ok(Ok(via)) = answered {
                    let path = match via {
                        Via::Direct(addr) | Via::Fan(addr) => Path::Direct(addr),
                        Via::Relay => Path::Relayed,
                    };
                    let rtt = started.elapsed();
                    return Pong { rtt, path };
                }
                pause *= 2;
            }
        };
        tokio::select! {
            answered = timeout(PING_WITHIN, echoes) => {
                answered.map_err(|_| self.inside().unreachable(&entry))
            }
            () = self.inside().stopped() => Err(Error::Closed),
        }
    }

    /// Says good-bye to the peers and stops. Waits until that is sent, for a
    /// moment.
    pub async fn close(&self) {
        let inside = self.inside();
        inside.endpoint.close(code::BYE, b"bye");
        // What a peer does not get, it will find out by itself.
        let _ = timeout(CLOSE_WITHIN, inside.endpoint.wait_idle()).await;
        let entries: Vec<_> = inside.node.table.read().iter().cloned().collect();
        for entry in entries {
            entry.state.lock().core.say_bye(Instant::now());
            inside.node.service(&entry);
        }
        inside.node.mapper.give_back().await;
        if inside.node.relays.is_connected() {
            // The link's writing task needs a turn before its connection goes.
            let _ = timeout(CLOSE_WITHIN, inside.node.relays.written()).await;
        }
        inside.stop();
    }

    /// For tests: UDP stops working, or works again.
    #[doc(hidden)]
    pub fn test_break_udp(&self, broken: bool) {
        if let Some(udp) = &self.inside().node.udp {
            udp.dead.store(broken, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// For tests: datagrams of more bytes do not arrive.
    #[doc(hidden)]
    pub fn test_limit_udp(&self, longest: usize) {
        if let Some(udp) = &self.inside().node.udp {
            udp.longest
                .store(longest, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// For tests: how long the QUIC datagrams to a peer may be, if there is a connection.
    #[doc(hidden)]
    pub fn test_datagram_size(&self, key: &NodeKey) -> Option<u16> {
        let entry = self.inside().node.by_key(key)?;
        let links = entry.links.lock();
        Some(links.live()?.stats().path.current_mtu)
    }

    /// For tests: a peer is heard that had been silent.
    #[doc(hidden)]
    pub fn test_revive(&self, key: &NodeKey) {
        let node = &self.inside().node;
        if let Some(entry) = node.by_key(key) {
            node.report(&entry, Event::Revived);
        }
    }

    /// For tests: QUIC's datagrams to a peer so far, if there is a connection.
    #[doc(hidden)]
    pub fn test_datagrams(&self, key: &NodeKey) -> Option<u64> {
        let entry = self.inside().node.by_key(key)?;
        let links = entry.links.lock();
        Some(links.live()?.stats().frame_tx.datagram)
    }

    /// For measurements: each datagram is sent by itself, as where the system does not segment.
    #[doc(hidden)]
    pub fn test_send_singly(&self) {
        if let Some(udp) = &self.inside().node.udp {
            let unsegmented = &udp.unsegmented;
            unsegmented.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// For tests: the connections with a peer end, the tunnel does not. What the
    /// peer has sent on them is lost.
    #[doc(hidden)]
    pub fn test_drop_connections(&self, key: &NodeKey) {
        if let Some(entry) = self.inside().node.by_key(key) {
            entry.links.lock().close(code::BYE, b"dropped");
        }
    }

    /// For tests: no ticket is known any more, as when many other peers have come.
    #[doc(hidden)]
    pub fn test_forget_tickets(&self) {
        self.inside().tls.forget_tickets();
    }

    /// For tests: the node vanishes without a word, as if killed.
    #[doc(hidden)]
    pub fn test_vanish(self) {
        let inside = self.inside();
        let node = &inside.node;
        node.silenced
            .store(true, std::sync::atomic::Ordering::Relaxed);
        self.test_break_udp(true);
        inside.stop();
    }

    fn inside(&self) -> &Arc<Inside> {
        &self.owner.inside
    }
}

/// What a future gives at once.
async fn now_or_never<F: Future>(future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.inside.endpoint.close(code::BYE, b"dropped");
        self.inside.stop();
    }
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh")
            .field("key", &self.inside().node.identity.key())
            .finish_non_exhaustive()
    }
}
