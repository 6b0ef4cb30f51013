//! Looking for nodes by their names.

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

impl Directory {
    /// The live nodes of this name and owner, in all networks.
    pub(crate) fn nodes_named(&self, name: &NodeName, owner: &str) -> Vec<Found> {
        let networks = self.networks.iter();
        let mut found: Vec<_> = networks
            .flat_map(|(id, network)| network.nodes.values().map(move |node| (id, node)))
            .filter(|(_, node)| node.row.revoked.is_none())
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
}
