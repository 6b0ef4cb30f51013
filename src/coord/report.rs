//! What a node tells its relay of itself while it is connected: which way it reaches its peers, how
//! long that takes, and, if its owner wants that, which sessions there are. For the relay's page;
//! nothing is decided by it, and the relay keeps the last report as long as the connection.

use derp::NodeKey;
use serde::{Deserialize, Serialize};

/// Ways in one report, at most: it has to fit into the longest message that a node sends.
pub(crate) const MAX_PATHS: usize = 64;

/// Sessions in one report, at most.
pub(crate) const MAX_SESSIONS: usize = 32;

/// The longest name of a session in a report, bytes.
pub(crate) const MAX_NAME: usize = 64;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// To peers with which there is a tunnel now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) paths: Vec<Way>,
    /// None when the node tells nothing of its sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sessions: Option<Vec<Session>>,
}

/// The way to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Way {
    /// Which one.
    pub(crate) peer: NodeKey,
    /// Not by the relay.
    pub(crate) direct: bool,
    /// The round trip, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rtt_us: Option<u32>,
}

/// A session, as its owner wants the relay to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// Its number.
    pub(crate) id: u32,
    /// Its name, if it was given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// `running`, `completed` or `killed`.
    pub(crate) status: String,
}

impl Report {
    /// Whether it keeps to the limits.
    pub(crate) fn is_sound(&self) -> bool {
        let sessions = self.sessions.as_deref().unwrap_or_default();
        let is_sound = |session: &Session| {
            let name = session.name.as_deref().unwrap_or_default();
            name.len() <= MAX_NAME && session.status.len() <= MAX_NAME
        };
        self.paths.len() <= MAX_PATHS
            && sessions.len() <= MAX_SESSIONS
            && sessions.iter().all(is_sound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_report_fits_into_a_message() {
        let way = Way {
            peer: NodeKey::from_bytes([255; 32]),
            direct: false,
            rtt_us: Some(u32::MAX),
        };
        let session = Session {
            id: u32::MAX,
            // A name that has to be escaped is none of ours; a quote is the worst that is text.
            name: Some("\"".repeat(MAX_NAME)),
            status: "completed".to_owned(),
        };
        let report = Report {
            paths: vec![way; MAX_PATHS],
            sessions: Some(vec![session; MAX_SESSIONS]),
        };
        assert!(report.is_sound());
        assert!(serde_json::to_string(&report).unwrap().len() < 15 * 1024);
        let mut long = report.clone();
        long.paths.push(long.paths[0].clone());
        assert!(!long.is_sound());
        let mut long = report;
        long.sessions.as_mut().unwrap()[0].name = Some("x".repeat(MAX_NAME + 1));
        assert!(!long.is_sound());
    }
}
