//! What the nodes that are connected here have told of themselves ([`crate::coord::report`]), and a
//! bell for those who look on.

use std::collections::HashMap;

use derp::NodeKey;
use mesh::NetworkId;
use parking_lot::Mutex;

use super::directory::ConnectionId;
use crate::coord::report::Report;

/// See the module. A report goes with the connection by which it came.
#[derive(Default)]
pub(crate) struct Reports {
    last: Mutex<HashMap<(NetworkId, NodeKey), (ConnectionId, Report)>>,
}

impl Reports {
    /// A node says how it is.
    pub(crate) fn put(
        &self,
        network: &NetworkId,
        key: &NodeKey,
        connection: ConnectionId,
        report: Report,
    ) {
        let mut last = self.last.lock();
        let at = last.entry((network.clone(), *key));
        let kept = at.or_insert_with(|| (connection, Report::default()));
        // A connection that is being replaced may still have something to say.
        if kept.0.0 <= connection.0 {
            *kept = (connection, report);
        }
    }

    /// That connection is over.
    pub(crate) fn leave(&self, network: &NetworkId, key: &NodeKey, connection: ConnectionId) {
        let mut last = self.last.lock();
        let at = (network.clone(), *key);
        if last.get(&at).is_some_and(|(kept, _)| *kept == connection) {
            last.remove(&at);
        }
    }

    /// The last that a node has said, if it is connected.
    pub(crate) fn of(&self, network: &NetworkId, key: &NodeKey) -> Option<Report> {
        let last = self.last.lock();
        let found = last.get(&(network.clone(), *key));
        found.map(|(_, report)| report.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_goes_with_its_connection() {
        let (reports, key) = (Reports::default(), NodeKey::from_bytes([1; 32]));
        let home: NetworkId = "home".parse().unwrap();
        let (one, two) = (ConnectionId(1), ConnectionId(2));
        let told = Report {
            sessions: Some(Vec::new()),
            ..Report::default()
        };
        reports.put(&home, &key, one, told.clone());
        assert_eq!(reports.of(&home, &key), Some(told.clone()));
        reports.put(&home, &key, two, Report::default());
        // What comes late from the one before changes nothing.
        reports.put(&home, &key, one, told);
        reports.leave(&home, &key, one);
        assert_eq!(reports.of(&home, &key), Some(Report::default()));
        reports.leave(&home, &key, two);
        assert_eq!(reports.of(&home, &key), None);
    }
}
