//! What other relays over the same database do: changes that they have made, and nodes that are
//! connected to them.

use std::collections::HashSet;

use derp::NodeKey;
use mesh::NetworkId;

use super::{ConnectionId, Directory};
use crate::relay::store::cluster::{Head, Part, Since};

impl Directory {
    /// Where the networks are, in no order. Of shared values the directory knows nothing.
    pub(crate) fn heads(&self) -> Vec<Head> {
        self.networks
            .keys()
            .filter_map(|id| self.head(id))
            .collect()
    }

    /// Where a network is.
    pub(crate) fn head(&self, id: &NetworkId) -> Option<Head> {
        let network = self.networks.get(id)?;
        Some(Head {
            network: id.clone(),
            revision: network.revision,
            serial: network.papers.serial(),
            shared: 0,
        })
    }

    /// Up to where a network is known.
    pub(crate) fn since(&self, network: &NetworkId) -> Option<Since> {
        let network = self.networks.get(network)?;
        Some(Since {
            root: *network.issuers.root(),
            revision: network.revision,
            serial: network.papers.serial(),
        })
    }

    /// Takes in what was not known of a network; the nodes that are live no more, and their
    /// connections.
    pub(crate) fn catch_up(
        &mut self,
        id: &NetworkId,
        mut part: Part,
        now: u64,
    ) -> Vec<(NodeKey, Option<ConnectionId>)> {
        let Some(network) = self.networks.get_mut(id) else {
            return Vec::new();
        };
        if part.is_all {
            network.marks.clear();
            // Nodes that this database does not have do not belong to the network.
            let listed: HashSet<_> = part.nodes.iter().map(|row| row.record.key).collect();
            let nodes = network.nodes.values().map(|node| &node.row);
            let lost = nodes.filter(|row| !listed.contains(&row.record.key));
            let lost: Vec<_> = lost.cloned().collect();
            part.nodes.extend(lost.into_iter().map(|mut row| {
                row.revoked.get_or_insert(now);
                row
            }));
        }
        if network.issuers.count() != part.issuers.count() {
            network.issuer = part.issuer;
            network.issuers = part.issuers;
            network.hurry();
        }
        network.revision = part.revision;
        for revision in part.history.into_iter().chain([part.revision]) {
            network.mark(revision);
        }
        for paper in part.papers {
            network.papers.put(paper, &network.issuer);
        }
        let (mut came, mut gone) = (Vec::new(), Vec::new());
        for mut row in part.nodes {
            let (key, is_live) = (row.record.key, row.revoked.is_none());
            let before = network.nodes.get(&key);
            let was_live = before.is_some_and(|node| node.row.revoked.is_none());
            let connection = before.and_then(|node| node.connection);
            // The store hears of it later than the directory.
            row.seen = row.seen.max(before.and_then(|node| node.row.seen));
            network.put(row);
            match (was_live, is_live) {
                (false, true) => came.push(key),
                (true, false) => gone.push((key, connection)),
                (true, true) | (false, false) => {}
            }
        }
        if !gone.is_empty() {
            // That waits for nobody.
            network.hurry();
        }
        for key in came {
            *self.enrolled.entry(key).or_default() += 1;
        }
        for (key, _) in &gone {
            self.withdraw(key);
        }
        gone
    }

    /// A node is connected to another relay, or to none any more.
    pub(crate) fn is_elsewhere(
        &mut self,
        network: &NetworkId,
        key: &NodeKey,
        is_there: bool,
        now: u64,
    ) {
        let Some(network) = self.networks.get_mut(network) else {
            return;
        };
        let Some(node) = network.nodes.get_mut(key) else {
            return;
        };
        let was_online = node.is_online();
        node.elsewhere = is_there && node.row.revoked.is_none();
        if was_online || node.is_online() {
            node.row.seen = Some(now);
        }
        if was_online != node.is_online() {
            network.touch(key);
        }
    }
}
