//! Which nodes are connected to this relay, each by one connection: the newest.

use derp::NodeKey;
use mesh::NetworkId;

use super::Directory;

/// One coordination connection; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// The node is not a live member of the network.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotLive;

impl Directory {
    /// `connection` is now the one of this node. Returns the one it takes
    /// the place of, or an error when the node is not (or no longer) live.
    pub(crate) fn connect(
        &mut self,
        network: &NetworkId,
        key: &NodeKey,
        connection: ConnectionId,
    ) -> Result<Option<ConnectionId>, NotLive> {
        let network = self.networks.get_mut(network).ok_or(NotLive)?;
        let node = network.nodes.get_mut(key).ok_or(NotLive)?;
        if !node.is_live() {
            return Err(NotLive);
        }
        let was_online = node.is_online();
        let before = node.connection.replace(connection);
        node.elsewhere = false;
        if !was_online {
            network.touch(key);
        }
        Ok(before)
    }

    /// `connection` is over. Does nothing if another one has taken its place.
    pub(crate) fn disconnect(
        &mut self,
        network: &NetworkId,
        key: &NodeKey,
        connection: ConnectionId,
        now: u64,
    ) {
        let Some(network) = self.networks.get_mut(network) else {
            return;
        };
        let Some(node) = network.nodes.get_mut(key) else {
            return;
        };
        if node.connection == Some(connection) {
            node.connection = None;
            node.row.seen = Some(now);
            if !node.is_online() {
                network.touch(key);
            }
        }
    }

    /// Notes that a node was connected at `now`.
    pub(crate) fn seen(&mut self, network: &NetworkId, key: &NodeKey, now: u64) {
        let network = self.networks.get_mut(network);
        if let Some(node) = network.and_then(|network| network.nodes.get_mut(key)) {
            node.row.seen = Some(now);
        }
    }

    /// The connection a node has.
    pub(crate) fn connection(&self, network: &NetworkId, key: &NodeKey) -> Option<ConnectionId> {
        self.networks.get(network)?.nodes.get(key)?.connection
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, change, empty, key, network};
    use super::*;

    #[test]
    fn an_old_connection_does_not_take_the_new_one_off_the_books() {
        let mut directory = empty();
        directory.apply(change(0, 1, false));
        let (old, new) = (ConnectionId(1), ConnectionId(2));
        assert_eq!(directory.connect(&network(), &key(0), old), Ok(None));
        assert_eq!(directory.connect(&network(), &key(0), new), Ok(Some(old)));
        directory.disconnect(&network(), &key(0), old, NOW);
        assert_eq!(directory.connection(&network(), &key(0)), Some(new));
        assert!(directory.list(&network())[0].connected);
        directory.disconnect(&network(), &key(0), new, NOW);
        assert_eq!(directory.connection(&network(), &key(0)), None);
    }

    #[test]
    fn only_live_members_connect() {
        let mut directory = empty();
        let id = ConnectionId(1);
        assert_eq!(directory.connect(&network(), &key(0), id), Err(NotLive));
        directory.apply(change(0, 1, false));
        assert!(directory.is_enrolled(&key(0)));
        directory.apply(change(0, 2, true));
        assert!(!directory.is_enrolled(&key(0)));
        assert_eq!(directory.connect(&network(), &key(0), id), Err(NotLive));
        let elsewhere = "work".parse().unwrap();
        assert_eq!(directory.connect(&elsewhere, &key(0), id), Err(NotLive));
        assert!(directory.standing(&network(), &key(0)).unwrap().revoked);
        assert!(directory.record(&network(), &key(0)).is_none());
    }
}
