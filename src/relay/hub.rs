//! The directory, shared, and the connections that listen to it.
//!
//! One lock around the pure [`Directory`]; nothing is awaited under it. A
//! connection is woken when its network changed and then asks for the news
//! since its cursor, so there is no queue that could overflow.

use std::collections::HashMap;
use std::sync::Arc;

use derp::NodeKey;
use derp::io::server::Admission;
use mesh::{NetworkId, NodeName, SignedRecord};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use super::directory::{
    Census, ConnectionId, Cursor, Directory, Found, Greeting, Listed, News, NotLive, Slot, Standing,
};
use super::papers::{Has, Papers};
use super::store::cluster::{Head, Part, Since};
use super::store::{Change, Death, NetworkState, Rotated};
use crate::coord::handover::Issuers;
use crate::paper::Paper;

/// See the module.
#[derive(Default)]
pub(crate) struct Hub {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    directory: Directory,
    cuts: HashMap<ConnectionId, oneshot::Sender<Cut>>,
    bells: HashMap<NetworkId, watch::Sender<()>>,
    /// Rings with each of them.
    any: watch::Sender<()>,
    connections: u64,
}

/// Why the hub ends a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The same node has a newer one.
    Replaced,
    /// The node was revoked.
    Revoked,
    /// The whole network was deleted.
    Deleted(Arc<Death>),
}

/// A connection that is on the books.
pub(crate) struct Opened {
    pub(crate) id: ConnectionId,
    /// Fires when the connection has to end.
    pub(crate) cut: oneshot::Receiver<Cut>,
    /// Changes when there may be news.
    pub(crate) bell: watch::Receiver<()>,
    pub(crate) greeting: Greeting,
}

impl Hub {
    /// Adds a network.
    pub(crate) fn add(&self, state: NetworkState) {
        let mut inner = self.inner.lock();
        inner.directory.add(state);
        inner.any.send_replace(());
    }

    /// Takes in a change that the store made, tells who listens, and cuts
    /// the connection of a node that was revoked.
    pub(crate) fn apply(&self, change: Change) {
        let mut inner = self.inner.lock();
        let record = &change.node.record;
        let (network, key) = (record.network.clone(), record.key);
        let revoked = change.node.revoked.is_some();
        let connection = inner.directory.connection(&network, &key);
        inner.directory.apply(change);
        if let Some(connection) = connection.filter(|_| revoked) {
            inner.cut(connection, Cut::Revoked);
        }
        inner.ring(&network);
    }

    /// See [`Directory::heads`].
    pub(crate) fn heads(&self) -> Vec<Head> {
        self.inner.lock().directory.heads()
    }

    /// See [`Directory::head`].
    pub(crate) fn head(&self, network: &NetworkId) -> Option<Head> {
        self.inner.lock().directory.head(network)
    }

    /// See [`Directory::since`].
    pub(crate) fn since(&self, network: &NetworkId) -> Option<Since> {
        self.inner.lock().directory.since(network)
    }

    /// See [`Directory::catch_up`]; who listens is told, and who was revoked is cut. Their keys.
    pub(crate) fn catch_up(&self, network: &NetworkId, part: Part, now: u64) -> Vec<NodeKey> {
        let mut inner = self.inner.lock();
        let gone = inner.directory.catch_up(network, part, now);
        for connection in gone.iter().filter_map(|(_, connection)| *connection) {
            inner.cut(connection, Cut::Revoked);
        }
        inner.ring(network);
        gone.into_iter().map(|(key, _)| key).collect()
    }

    /// See [`Directory::is_elsewhere`]; who listens is told.
    pub(crate) fn is_elsewhere(
        &self,
        network: &NetworkId,
        key: &NodeKey,
        is_there: bool,
        now: u64,
    ) {
        let mut inner = self.inner.lock();
        inner.directory.is_elsewhere(network, key, is_there, now);
        inner.ring(network);
    }

    /// Cuts a connection in whose place the node has a newer one, at another relay.
    pub(crate) fn replace(&self, connection: ConnectionId) {
        self.inner.lock().cut(connection, Cut::Replaced);
    }

    /// Puts a connection on the books. The one this node had is cut.
    pub(crate) fn open(
        &self,
        network: &NetworkId,
        key: &NodeKey,
        has: Has,
        slot: Slot,
    ) -> Result<Opened, NotLive> {
        let mut inner = self.inner.lock();
        inner.connections += 1;
        let id = ConnectionId(inner.connections);
        if let Some(before) = inner.directory.connect(network, key, id)? {
            inner.cut(before, Cut::Replaced);
        }
        let greeting = inner.directory.greeting(network, key, has, slot);
        let (sender, cut) = oneshot::channel();
        inner.cuts.insert(id, sender);
        inner.ring(network);
        let bell = inner.bells.entry(network.clone()).or_default().subscribe();
        Ok(Opened {
            id,
            cut,
            bell,
            greeting: greeting.ok_or(NotLive)?,
        })
    }

    /// Takes a connection off the books.
    pub(crate) fn close(&self, network: &NetworkId, key: &NodeKey, id: ConnectionId, now: u64) {
        let mut inner = self.inner.lock();
        inner.cuts.remove(&id);
        inner.directory.disconnect(network, key, id, now);
        inner.ring(network);
    }

    /// See [`Directory::news`].
    pub(crate) fn news(
        &self,
        network: &NetworkId,
        key: &NodeKey,
        cursor: Cursor,
        slot: Slot,
    ) -> Option<News> {
        let mut inner = self.inner.lock();
        inner.directory.news(network, key, cursor, slot)
    }

    /// Takes in a paper that the store has changed, and tells who listens.
    pub(crate) fn file(&self, paper: Paper) {
        let mut inner = self.inner.lock();
        let network = paper.network.clone();
        inner.directory.file(paper);
        inner.ring(&network);
    }

    /// Looks into the papers of a network.
    pub(crate) fn papers<T>(
        &self,
        network: &NetworkId,
        look: impl FnOnce(&Papers) -> T,
    ) -> Option<T> {
        self.inner.lock().directory.papers(network).map(look)
    }

    /// Changes when there may be news of a network.
    pub(crate) fn bell(&self, network: &NetworkId) -> watch::Receiver<()> {
        let mut inner = self.inner.lock();
        inner.bells.entry(network.clone()).or_default().subscribe()
    }

    /// Changes when there may be news of any network.
    pub(crate) fn any_bell(&self) -> watch::Receiver<()> {
        self.inner.lock().any.subscribe()
    }

    /// Somebody may want to look again, though no network has changed.
    pub(crate) fn ring_any(&self) {
        self.inner.lock().any.send_replace(());
    }

    /// See [`Directory::drop_old`].
    pub(crate) fn drop_old(&self, now: u64) {
        self.inner.lock().directory.drop_old(now);
    }

    /// Forgets a network and cuts the connections of its nodes; their keys. Nobody was in one
    /// without an obituary.
    pub(crate) fn remove(&self, network: &NetworkId, death: Option<Death>) -> Vec<NodeKey> {
        let why = death.map_or(Cut::Revoked, |death| Cut::Deleted(Arc::new(death)));
        let mut inner = self.inner.lock();
        let live = inner.directory.remove(network);
        for connection in live.iter().filter_map(|(_, connection)| *connection) {
            inner.cut(connection, why.clone());
        }
        inner.ring(network);
        live.into_iter().map(|(key, _)| key).collect()
    }

    /// See [`Directory::standing`].
    pub(crate) fn standing(&self, network: &NetworkId, key: &NodeKey) -> Option<Standing> {
        self.inner.lock().directory.standing(network, key)
    }

    /// See [`Directory::record`].
    pub(crate) fn record(&self, network: &NetworkId, key: &NodeKey) -> Option<SignedRecord> {
        self.inner.lock().directory.record(network, key)
    }

    /// Whether there is such a network.
    pub(crate) fn has(&self, network: &NetworkId) -> bool {
        self.inner.lock().directory.issuers(network).is_some()
    }

    /// See [`Directory::issuers`].
    pub(crate) fn issuers(&self, network: &NetworkId) -> Option<Issuers> {
        self.inner.lock().directory.issuers(network).cloned()
    }

    /// See [`Directory::rotate`]; who listens is told.
    pub(crate) fn rotate(&self, network: &NetworkId, rotated: Rotated) {
        let mut inner = self.inner.lock();
        inner.directory.rotate(network, rotated);
        inner.ring(network);
    }

    /// See [`Directory::list`].
    pub(crate) fn list(&self, network: &NetworkId) -> Vec<Listed> {
        self.inner.lock().directory.list(network)
    }

    /// See [`Directory::nodes_named`].
    pub(crate) fn nodes_named(&self, name: &NodeName, owner: &str) -> Vec<Found> {
        self.inner.lock().directory.nodes_named(name, owner)
    }

    /// See [`Directory::census`].
    pub(crate) fn census(&self) -> Census {
        self.inner.lock().directory.census()
    }

    /// See [`Directory::seen`].
    pub(crate) fn seen(&self, network: &NetworkId, key: &NodeKey, now: u64) {
        self.inner.lock().directory.seen(network, key, now);
    }

    /// See [`Directory::ending_before`].
    pub(crate) fn ending_before(&self, deadline: u64) -> Vec<(NetworkId, NodeKey)> {
        self.inner.lock().directory.ending_before(deadline)
    }
}

impl Admission for Hub {
    fn admits(&self, key: &NodeKey) -> bool {
        self.inner.lock().directory.is_enrolled(key)
    }
}

impl Inner {
    fn cut(&mut self, connection: ConnectionId, why: Cut) {
        if let Some(sender) = self.cuts.remove(&connection) {
            // Nobody listens any more: it is ending anyway.
            let _ = sender.send(why);
        }
    }

    fn ring(&self, network: &NetworkId) {
        if let Some(bell) = self.bells.get(network) {
            bell.send_replace(());
        }
        self.any.send_replace(());
    }
}
