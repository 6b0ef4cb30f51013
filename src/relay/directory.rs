//! Who is in which network, and who is there now.
//!
//! Pure: it knows no sockets. Changes come in from the store (`apply`) or from
//! other relays over it ([`elsewhere`]), connections come and go (`connect`,
//! `disconnect`: [`presence`]), and what a connection has to be told goes out
//! (`greeting`, `news`: [`news`]).

mod elsewhere;
mod find;
mod network;
mod news;
mod presence;

use std::collections::HashMap;

use derp::NodeKey;
use mesh::{NetworkId, NodeRecord, SignKey, SignedRecord};

use self::network::Network;
use super::papers::Papers;
use super::store::{Change, NetworkState, Rotated};
use crate::coord::handover::Issuers;
use crate::paper::Paper;

pub(crate) use find::{Census, Found, Listed};
pub(crate) use news::{Cursor, Greeting, Line, News, Slot, line};
pub(crate) use presence::{ConnectionId, NotLive};

/// See the module.
#[derive(Default)]
pub(crate) struct Directory {
    networks: HashMap<NetworkId, Network>,
    /// In how many networks a key is live.
    enrolled: HashMap<NodeKey, u32>,
}

/// What the relay needs to know of a node that says hello.
pub(crate) struct Standing {
    pub(crate) record: NodeRecord,
    /// The first issuer of the network, which is what a node names when it signs.
    pub(crate) root: SignKey,
    pub(crate) revoked: bool,
}

impl Directory {
    /// Adds a network as the store has it.
    pub(crate) fn add(&mut self, state: NetworkState) {
        for row in &state.nodes {
            if row.revoked.is_none() {
                self.enrol(row.record.key);
            }
        }
        self.networks.insert(state.id.clone(), Network::new(state));
    }

    /// Takes in a change that the store made. Changes of one network come in
    /// the order of their revisions.
    pub(crate) fn apply(&mut self, change: Change) {
        let key = change.node.record.key;
        let Some(network) = self.networks.get_mut(&change.node.record.network) else {
            return;
        };
        let was_live = network.is_live(&key);
        let is_live = change.node.revoked.is_none();
        network.revision = change.revision;
        network.mark(change.revision);
        network.put(change.node);
        match (was_live, is_live) {
            (false, true) => self.enrol(key),
            (true, false) => {
                // That waits for nobody.
                network.hurry();
                self.withdraw(&key);
            }
            (true, true) | (false, false) => {}
        }
    }

    /// Another issuer signs from here on, and has signed everything anew.
    pub(crate) fn rotate(&mut self, network: &NetworkId, rotated: Rotated) {
        if let Some(network) = self.networks.get_mut(network) {
            network.rotate(rotated);
        }
    }

    /// Takes in a paper that the store has changed.
    pub(crate) fn file(&mut self, paper: Paper) {
        if let Some(network) = self.networks.get_mut(&paper.network) {
            network.papers.put(paper, &network.issuer);
        }
    }

    /// Forgets a network; the keys of its live nodes and their connections.
    pub(crate) fn remove(&mut self, id: &NetworkId) -> Vec<(NodeKey, Option<ConnectionId>)> {
        let nodes = self.networks.remove(id).map(|network| network.nodes);
        let live = nodes.into_iter().flatten();
        let live: Vec<_> = live
            .filter(|(_, node)| node.is_live())
            .map(|(key, node)| (key, node.connection))
            .collect();
        for (key, _) in &live {
            self.withdraw(key);
        }
        live
    }

    /// Forgets grants that ended long ago.
    pub(crate) fn drop_old(&mut self, now: u64) {
        for network in self.networks.values_mut() {
            network.papers.drop_old(now);
        }
    }

    /// Who has signed for a network, and who does now.
    pub(crate) fn issuers(&self, network: &NetworkId) -> Option<&Issuers> {
        Some(&self.networks.get(network)?.issuers)
    }

    /// The papers of a network.
    pub(crate) fn papers(&self, network: &NetworkId) -> Option<&Papers> {
        Some(&self.networks.get(network)?.papers)
    }

    /// Whether the key is live in any network.
    pub(crate) fn is_enrolled(&self, key: &NodeKey) -> bool {
        self.enrolled.contains_key(key)
    }

    /// What there is to know of a node that claims `key`.
    pub(crate) fn standing(&self, network: &NetworkId, key: &NodeKey) -> Option<Standing> {
        let network = self.networks.get(network)?;
        let node = network.nodes.get(key)?;
        Some(Standing {
            record: node.row.record.clone(),
            root: *network.issuers.root(),
            revoked: node.row.revoked.is_some(),
        })
    }

    /// The signed record of a live node.
    pub(crate) fn record(&self, network: &NetworkId, key: &NodeKey) -> Option<SignedRecord> {
        let node = self.networks.get(network)?.nodes.get(key)?;
        node.is_live().then(|| node.signed.clone())
    }

    /// The key is live in one more network.
    fn enrol(&mut self, key: NodeKey) {
        *self.enrolled.entry(key).or_default() += 1;
    }

    /// The key is live in one network less.
    fn withdraw(&mut self, key: &NodeKey) {
        if let Some(count) = self.enrolled.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.enrolled.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests;
