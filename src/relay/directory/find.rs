//! Looking for nodes, and counting them.

use derp::NodeKey;
use mesh::{NetworkId, NodeName};

use super::Directory;

/// A node that was looked for by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) network: NetworkId,
    pub(crate) key: NodeKey,
    pub(crate) name: NodeName,
}

/// A node as `GET /api/v1/nodes` shows it.
pub(crate) struct Listed {
    pub(crate) name: NodeName,
    pub(crate) key: NodeKey,
    pub(crate) owner: String,
    pub(crate) connected: bool,
    pub(crate) last_seen: Option<u64>,
}

/// How many there are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) networks: u64,
    /// Live ones, once for each network they are in.
    pub(crate) nodes: u64,
    /// To this relay.
    pub(crate) connected: u64,
}

impl Directory {
    /// The live nodes of this name and owner, in all networks.
    pub(crate) fn nodes_named(&self, name: &NodeName, owner: &str) -> Vec<Found> {
        let networks = self.networks.iter();
        let mut found: Vec<_> = networks
            .flat_map(|(id, network)| network.nodes.values().map(move |node| (id, node)))
            .filter(|(_, node)| node.is_live())
            .filter(|(_, node)| node.row.record.name == *name && node.row.record.owner == owner)
            .map(|(id, node)| Found {
                network: id.clone(),
                key: node.row.record.key,
                name: name.clone(),
            })
            .collect();
        found.sort_by(|a, b| a.network.as_str().cmp(b.network.as_str()));
        found
    }

    /// The live nodes of a network, by name.
    pub(crate) fn list(&self, network: &NetworkId) -> Vec<Listed> {
        let nodes = self.networks.get(network).map(|network| &network.nodes);
        let live = nodes.into_iter().flatten().map(|(_, node)| node);
        let mut listed: Vec<_> = live
            .filter(|node| node.is_live())
            .map(|node| Listed {
                name: node.row.record.name.clone(),
                key: node.row.record.key,
                owner: node.row.record.owner.clone(),
                connected: node.is_online(),
                last_seen: node.row.seen,
            })
            .collect();
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        listed
    }

    /// Counts.
    pub(crate) fn census(&self) -> Census {
        let mut census = Census::default();
        for network in self.networks.values() {
            census.networks += 1;
            for node in network.nodes.values() {
                census.nodes += u64::from(node.is_live());
                census.connected += u64::from(node.connection.is_some());
            }
        }
        census
    }

    /// Live nodes whose records end before `deadline`, connected or not: only a
    /// revocation takes a member out, while the end of a record bounds how long
    /// a reader believes it without hearing from the relay.
    pub(crate) fn ending_before(&self, deadline: u64) -> Vec<(NetworkId, NodeKey)> {
        let networks = self.networks.iter();
        let nodes = networks.flat_map(|(id, network)| {
            let nodes = network.nodes.iter();
            nodes.map(move |(key, node)| (id, key, node))
        });
        nodes
            .filter(|(_, _, node)| node.is_live())
            .filter(|(_, _, node)| node.row.record.expires < deadline)
            .map(|(id, key, _)| (id.clone(), *key))
            .collect()
    }
}
