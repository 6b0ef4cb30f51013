//! A node's link to its relay: how it joins a network, and how it learns who
//! else is in it.
//!
//! [`join()`] redeems an invite once; what comes out, the [`Membership`], is kept
//! by the caller. [`Uplink`] then keeps one coordination connection for as
//! long as it lives ([`crate::coord`] has the messages), comes back by itself
//! whatever happens to the relay, and publishes what it knows as a
//! [`NetworkView`]. Every record is verified against the issuer that the
//! invite named, or one that followed it: a relay can keep peers from this
//! node, but it cannot make any up.
//!
//! [`api`] has the routes for users: networks, invites, nodes; [`kv`] the values
//! that a network shares.

pub mod api;
mod back;
pub(crate) mod cache;
mod chain;
pub(crate) mod dial;
pub(crate) mod events;
pub(crate) mod http;
mod join;
pub mod kv;
mod link;
pub(crate) mod netmap;
pub(crate) mod papers;
pub mod tls;
mod url;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use mesh::{Identity, NetworkId, NodeName, NodeRecord, SignKey, SignedRecord};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub use crate::coord::RelayPlace;
use crate::coord::Revision;
use crate::coord::handover::SignedHandover;
use crate::coord::report::Report;
use crate::error::Result;
use crate::ssh::Door;

pub use back::Visit;
pub(crate) use back::come;
pub(crate) use dial::{dial, proxy};
pub use join::{join, sign, sign_request};
pub(crate) use link::jittered;
pub use papers::Rules;
pub use tls::client_config;
pub(crate) use url::RelayUrl;

/// Visits that are announced and not taken up, at most.
const MAX_VISITS: usize = 16;

/// A node's place in a network; what `membership.json` holds. No secrets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Membership {
    /// Where the relay is, as the user gave it: `http(s)://host[:port]`.
    pub relay_url: String,
    /// The network.
    pub network: NetworkId,
    /// This node's name in it.
    pub name: NodeName,
    /// The first issuer of the network, which tells it from others of its name.
    pub issuer: SignKey,
    /// From the first issuer to the one that signed `record`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handovers: Vec<SignedHandover>,
    /// This node's own record.
    pub record: SignedRecord,
}

/// Where a node keeps what it has heard; neither file need exist.
#[derive(Debug, Clone)]
pub struct Files {
    /// Records and papers: without them the relay is asked for all.
    pub cache: PathBuf,
    /// The hand-overs of the issuer.
    pub issuers: PathBuf,
}

/// A peer, as far as this node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerView {
    /// Verified.
    pub record: NodeRecord,
    /// It is connected to the relay; the last known answer while this node
    /// itself is not.
    pub online: bool,
}

/// The network, as far as this node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkView {
    /// The network.
    pub network: NetworkId,
    /// This node's own record.
    pub me: NodeRecord,
    /// This node is connected to the relay and what follows is current.
    pub connected: bool,
    /// When it was connected again after it had not been.
    pub back: Option<Instant>,
    /// The state of the membership that this is.
    pub revision: Option<Revision>,
    /// All other nodes.
    pub peers: BTreeMap<NodeName, PeerView>,
    /// The groups and the grants, as last heard.
    pub rules: Arc<Rules>,
    /// The relay where this node is, or tries to be: the one where it joined, or one of `relays`.
    pub relay: String,
    /// Where it may be else, as the relays say.
    pub relays: Vec<RelayPlace>,
    /// Where the relay answers STUN, once it was reached.
    pub stun: Option<SocketAddr>,
    /// Who signs for the network now.
    pub issuer: SignKey,
    /// How often the issuer has handed over.
    pub handovers: u32,
    /// The network is no more; its issuer says so.
    pub deleted: bool,
    /// Why `connected` is false, for people.
    pub last_error: Option<String>,
}

/// The kept connection; it ends when this is dropped.
pub struct Uplink {
    view: watch::Receiver<Arc<NetworkView>>,
    told: watch::Sender<Option<Report>>,
    task: JoinHandle<()>,
}

impl Uplink {
    /// Starts to connect, and returns at once; also the visits over SSH that the relay announces,
    /// of the kinds in `doors`. Until the relay answers, the view is what `files` last knew.
    ///
    /// Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the membership does not hold together: its record is not signed
    /// by its issuer or is not this identity's, or its URL is none.
    pub fn start(
        membership: Membership,
        identity: Arc<Identity>,
        files: Files,
        doors: Vec<Door>,
    ) -> Result<(Self, mpsc::Receiver<Visit>)> {
        let (tell, visits) = mpsc::channel(MAX_VISITS);
        let told = watch::Sender::new(None);
        let news = told.subscribe();
        let (link, view) = link::Link::new(membership, identity, files, (doors, tell), news)?;
        let task = tokio::spawn(link.run());
        Ok((Self { view, told, task }, visits))
    }

    /// Takes what the relay is to be told of this node; the last is told.
    pub(crate) fn teller(&self) -> watch::Sender<Option<Report>> {
        self.told.clone()
    }

    /// What is known, and a wake-up when it changes.
    pub fn view(&self) -> watch::Receiver<Arc<NetworkView>> {
        self.view.clone()
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        self.task.abort();
    }
}
