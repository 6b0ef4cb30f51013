//! One peer at run time: its state machine, what waits to be sent to it, and
//! its connections, each behind a lock of its own.
//!
//! Locks are taken in the order `outbox`, `state`, and never two entries at
//! once, so sending to a peer (which holds its outbox through the system call)
//! and receiving from it only meet for the length of an encryption.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use derp::NodeKey;
use parking_lot::Mutex;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::sync::{Notify, oneshot};

use super::links::Links;
use super::outbox::Outbox;
use super::tls::Tls;
use crate::packet::Port;
use crate::path::Via;
use crate::peer::Core;
use crate::{Error, SignKey};

/// A peer of this node.
pub(super) struct Entry {
    pub(super) key: NodeKey,
    pub(super) sign_key: SignKey,
    pub(super) address: Ipv6Addr,
    /// The peer's number in WireGuard's receiver indices.
    pub(super) index: u32,
    pub(super) state: Mutex<State>,
    pub(super) outbox: Mutex<Outbox>,
    pub(super) links: Mutex<Links>,
    /// Something about `links` is different now.
    pub(super) changed: Notify,
    /// How the peer is dialled, once it has been, and by which tickets.
    tls: OnceLock<Arc<QuicClientConfig>>,
    /// Who waits for which echo.
    pub(super) echoes: Mutex<HashMap<u64, oneshot::Sender<Via>>>,
}

/// The state machine and when it is to be woken.
pub(super) struct State {
    pub(super) core: Core,
    pub(super) scheduled: Option<Instant>,
    /// Whether there was a direct path when last looked at.
    pub(super) was_direct: bool,
}

impl Entry {
    pub(super) fn new(key: NodeKey, sign_key: SignKey, index: u32, core: Core) -> Self {
        Self {
            key,
            sign_key,
            address: crate::address_of(&key),
            index,
            state: Mutex::new(State {
                core,
                scheduled: None,
                was_direct: false,
            }),
            outbox: Mutex::default(),
            links: Mutex::default(),
            changed: Notify::new(),
            tls: OnceLock::new(),
            echoes: Mutex::default(),
        }
    }

    /// How the peer is dialled.
    pub(super) fn tls(&self, tls: &Tls) -> Result<Arc<QuicClientConfig>, Error> {
        if let Some(config) = self.tls.get() {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(tls.client(&self.sign_key)?);
        Ok(Arc::clone(self.tls.get_or_init(|| config)))
    }

    /// Where quinn finds the peer: an address that never changes.
    pub(super) fn inner_address(&self) -> SocketAddr {
        inner_address(self.address)
    }

    /// Stands for the peer's address in the handshake limiter when a packet
    /// comes over the relay.
    pub(super) const fn synthetic_ip(&self) -> IpAddr {
        IpAddr::V6(self.address)
    }
}

/// The socket address of a node inside the overlay.
pub(super) const fn inner_address(address: Ipv6Addr) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(address), Port::Quic.number())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_not_talked_to_costs_little() {
        // Besides this there are three map entries.
        let size = size_of::<Entry>();
        assert!(size <= 1184, "{size} bytes");
    }
}
