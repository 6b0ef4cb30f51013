//! What other relays over the same database do: changes that they have made, and nodes that are
//! connected to them.

use std::collections::HashSet;

use derp::NodeKey;
use mesh::NetworkId;

use super::network::Node;
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
            let was_live = before.is_some_and(Node::is_live);
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
            self.enrol(key);
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
        node.elsewhere = is_there && node.is_live();
        if was_online || node.is_online() {
            node.row.seen = Some(now);
        }
        if was_online != node.is_online() {
            network.touch(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh::SignKey;

    use super::super::tests::{
        NOW, change, delta, empty, issuer, key, network, revision, row, slot,
    };
    use super::*;
    use crate::coord::handover::Issuers;
    use crate::relay::papers::Has;

    #[test]
    fn who_is_at_another_relay_is_online() {
        let mut directory = empty();
        for (n, number) in [(0, 1), (1, 2)] {
            directory.apply(change(n, number, false));
        }
        let me = ConnectionId(1);
        directory.connect(&network(), &key(0), me).unwrap();
        let greeting = directory.greeting(&network(), &key(0), Has::default(), slot());
        let mut cursor = greeting.unwrap().cursor;
        let mut news = |directory: &mut Directory| {
            let news = directory.news(&network(), &key(0), cursor, slot()).unwrap();
            cursor = news.cursor;
            let frame = news.frames.first().map(delta);
            frame.map(|delta| (delta.online, delta.offline))
        };
        directory.is_elsewhere(&network(), &key(1), true, NOW);
        assert_eq!(news(&mut directory), Some((vec![key(1)], vec![])));
        assert!(directory.list(&network())[1].connected);
        // It comes here, and what it was elsewhere counts no more.
        let here = ConnectionId(2);
        directory.connect(&network(), &key(1), here).unwrap();
        assert_eq!(news(&mut directory), None);
        directory.disconnect(&network(), &key(1), here, NOW);
        assert_eq!(news(&mut directory), Some((vec![], vec![key(1)])));
        // And back, before the connection here is over.
        directory.connect(&network(), &key(1), here).unwrap();
        directory.is_elsewhere(&network(), &key(1), true, NOW);
        directory.disconnect(&network(), &key(1), here, NOW);
        assert_eq!(news(&mut directory), Some((vec![key(1)], vec![])));
    }

    #[test]
    fn what_another_relay_has_changed_is_news() {
        let mut directory = empty();
        for (n, number) in [(0, 1), (1, 2)] {
            directory.apply(change(n, number, false));
        }
        let me = ConnectionId(1);
        directory.connect(&network(), &key(0), me).unwrap();
        let other = ConnectionId(2);
        directory.connect(&network(), &key(1), other).unwrap();
        let greeting = directory.greeting(&network(), &key(0), Has::default(), slot());
        let cursor = greeting.unwrap().cursor;
        let mut gone = row(1, 4);
        gone.revoked = Some(NOW);
        let part = |nodes, is_all| Part {
            issuer: issuer(),
            issuers: Issuers::new(network(), SignKey::from(&issuer().verifying_key())),
            revision: revision(4),
            history: vec![revision(3), revision(4)],
            nodes,
            papers: Vec::new(),
            is_all,
        };
        let cut = directory.catch_up(&network(), part(vec![row(2, 3), gone], false), NOW);
        assert_eq!(cut, [(key(1), Some(other))]);
        let news = directory.news(&network(), &key(0), cursor, slot()).unwrap();
        let news = delta(&news.frames[0]);
        assert_eq!((news.upsert.len(), news.removed), (1, vec![key(1)]));
        assert_eq!(news.revision, revision(4));
        assert!(directory.is_enrolled(&key(2)) && !directory.is_enrolled(&key(1)));
        // The same again changes nothing.
        let since = directory.since(&network()).unwrap();
        assert_eq!(since.revision, revision(4));
        // A database that was put back under it: who is not in it is out.
        let cut = directory.catch_up(&network(), part(vec![row(0, 1)], true), NOW);
        assert_eq!(cut, [(key(2), None)]);
        assert!(directory.is_enrolled(&key(0)) && !directory.is_enrolled(&key(2)));
    }
}
