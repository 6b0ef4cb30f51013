//! What of a netmap is written to disk, so that a later process takes up where this one was.

use mesh::SignedRecord;
use serde::{Deserialize, Serialize};

use super::Netmap;
use super::gone::TakenOut;
use crate::coord::{Peer, Revision};

/// What is written to disk: nothing in it is believed without its signature.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Saved {
    revision: Option<Revision>,
    records: Vec<SignedRecord>,
    #[serde(default, skip_serializing_if = "TakenOut::is_empty")]
    gone: TakenOut,
}

impl Netmap {
    /// Takes up where an earlier process was. Records that are expired or not
    /// right are left out, and then a snapshot will be needed.
    pub(crate) fn restore(&mut self, saved: Saved, now: u64) {
        self.revision = saved.revision;
        self.gone = saved.gone;
        for signed in saved.records {
            let peer = Peer {
                record: signed,
                online: false,
            };
            self.put_or_forget(peer, now);
        }
    }

    /// What to keep on disk.
    pub(crate) fn save(&self) -> Saved {
        let entries = [&self.me].into_iter().chain(self.peers.values());
        Saved {
            revision: self.revision,
            records: entries.map(|entry| entry.signed.clone()).collect(),
            gone: self.gone.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, names, new_map, peer, record, revision, upsert};

    #[test]
    fn what_was_saved_is_believed_only_by_its_signature() {
        let mut map = new_map();
        map.handle_snapshot(revision(1), vec![], false, NOW);
        map.handle_delta(upsert(peer(&record(2, "dev-2"))), NOW);
        let saved = || serde_json::to_string(&map.save()).unwrap();
        let restored = |text: &str, now| {
            let mut fresh = new_map();
            fresh.restore(serde_json::from_str(text).unwrap(), now);
            (names(&fresh), fresh.revision())
        };
        let whole = (vec!["dev-2".to_owned()], Some(revision(2)));
        assert_eq!(restored(&saved(), NOW), whole);
        assert_eq!(restored(&saved(), NOW + 1_000), (vec![], None));
        let mut broken: serde_json::Value = serde_json::from_str(&saved()).unwrap();
        broken["records"][1]["signature"] = broken["records"][0]["signature"].clone();
        assert_eq!(restored(&broken.to_string(), NOW), (vec![], None));
    }
}
