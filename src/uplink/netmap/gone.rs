//! Who was taken out of the network. They stay out, whatever the relay says later: its database may
//! have been put back to before, and the record in it is as well signed as ever.

use std::collections::BTreeMap;

use mesh::{NodeKey, NodeRecord};
use serde::{Deserialize, Serialize};

/// Keys that are remembered because they were taken out.
const MAX_GONE: usize = 20_000;

/// See the module.
#[derive(Default, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct TakenOut(BTreeMap<NodeKey, Gone>);

/// What is no longer believed of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Gone {
    /// What was issued until then, unix seconds: it was in no snapshot any more. It may have
    /// joined again since.
    Until(u64),
    /// Anything: it was revoked, and a key that was is so for ever.
    Revoked,
}

impl TakenOut {
    /// Remembers that a key was taken out, as far as there is room.
    pub(super) fn take_out(&mut self, key: NodeKey, gone: Gone) {
        let is_room = self.0.len() < MAX_GONE;
        match self.0.get_mut(&key) {
            Some(known) => *known = gone.max(*known),
            None if is_room => {
                self.0.insert(key, gone);
            }
            None => {}
        }
    }

    /// Whether a record may come in. Of a key that has joined again nothing is remembered.
    pub(super) fn admits(&mut self, record: &NodeRecord) -> bool {
        match self.0.get(&record.key) {
            Some(Gone::Until(last)) if record.issued > *last => {
                self.0.remove(&record.key);
                true
            }
            Some(_) => false,
            None => true,
        }
    }

    /// Whether nobody was taken out.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use mesh::{NodeRecord, SignedRecord};

    use super::super::Unbelievable;
    use super::super::tests::{NOW, names, new_map, peer, record, revision, upsert};
    use crate::coord::Peer;
    use crate::uplink::netmap::Netmap;

    /// A database that was put back, or a relay that plays an old state back: the record is
    /// signed as well as ever.
    #[test]
    fn b11_s26_who_was_taken_out_stays_out_after_a_roll_back() {
        let snapshot = |map: &mut Netmap, number, records: &[&NodeRecord]| {
            let peers = records.iter().map(|record| peer(record)).collect();
            map.handle_snapshot(revision(number), peers, false, NOW).1
        };
        let (stays, revoked) = (record(2, "dev-2"), record(3, "dev-3"));
        let mut map = new_map();
        assert!(snapshot(&mut map, 7, &[&stays, &revoked]).is_empty());
        let mut delta = upsert(peer(&stays));
        delta.removed = vec![revoked.key];
        map.handle_delta(delta, NOW);
        assert_eq!(names(&map), ["dev-2"]);

        let bad = snapshot(&mut map, 5, &[&stays, &revoked]);
        assert!(matches!(&bad[..], [Unbelievable::Gone(name)] if *name == revoked.name));
        assert_eq!(names(&map), ["dev-2"]);
        // It is no hole: the next connection goes on from here.
        assert_eq!(map.revision(), Some(revision(5)));
        // A record that the relay renews is none of a key that was revoked either.
        let mut renewed = revoked.clone();
        renewed.issued += 500;
        assert_eq!(map.handle_delta(upsert(peer(&renewed)), NOW).len(), 1);
        assert_eq!(names(&map), ["dev-2"]);

        // Nor does a restart make it forget.
        let saved = serde_json::to_string(&map.save()).unwrap();
        let mut fresh = new_map();
        fresh.restore(serde_json::from_str(&saved).unwrap(), NOW);
        assert_eq!(snapshot(&mut fresh, 5, &[&stays, &renewed]).len(), 1);
        assert_eq!(names(&fresh), ["dev-2"]);
    }

    /// The same for one that was revoked while this node was away for so long that it gets a
    /// snapshot.
    #[test]
    fn b11_s26_who_is_in_no_snapshot_is_in_by_a_newer_record_only() {
        let (mut map, old) = (new_map(), record(3, "dev-3"));
        map.handle_snapshot(revision(1), vec![peer(&old)], false, NOW);
        map.handle_snapshot(revision(2), vec![], false, NOW);
        let bad = map.handle_snapshot(revision(1), vec![peer(&old)], false, NOW);
        assert_eq!(bad.1.len(), 1);
        assert!(names(&map).is_empty());
        let mut again = old;
        again.issued += 1;
        assert!(map.handle_delta(upsert(peer(&again)), NOW).is_empty());
        assert_eq!(names(&map), ["dev-3"]);

        // In a state of before it joined it is not, and that says nothing.
        map.handle_snapshot(revision(1), vec![], false, NOW);
        assert!(names(&map).is_empty());
        assert!(map.handle_delta(upsert(peer(&again)), NOW).is_empty());
        assert_eq!(names(&map), ["dev-3"]);

        // A snapshot of which something cannot be read says nothing of who is missing.
        let unsigned = Peer {
            record: SignedRecord::sign(&again, &SigningKey::from_bytes(&[4; 32])),
            online: true,
        };
        map.handle_snapshot(revision(3), vec![unsigned], false, NOW);
        assert!(names(&map).is_empty());
        assert!(map.handle_delta(upsert(peer(&again)), NOW).is_empty());
        assert_eq!(names(&map), ["dev-3"]);
    }
}
