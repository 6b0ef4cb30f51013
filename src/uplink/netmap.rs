//! What this node believes about its network.
//!
//! Pure: frames of the relay and the time go in, and the state is asked for.
//! Only what the issuer signed gets in, each record for its own key; of two
//! records for one key the one issued later counts, so that an old one cannot
//! be played back. What a later issuer has signed counts before what an earlier
//! one has ([`crate::coord::handover`]).
//!
//! Who was taken out stays out, whatever the relay says later ([`gone`]). What
//! is believed outlives the process ([`saved`]).

mod gone;
mod saved;

use std::collections::BTreeMap;

use mesh::{NodeKey, NodeName, NodeRecord, SignedRecord};

use self::gone::{Gone, TakenOut};
use super::PeerView;
use crate::coord::handover::{Broken, Issuers, SignedHandover};
use crate::coord::{Delta, Peer, Revision};

pub(crate) use saved::Saved;

/// See the module.
pub(crate) struct Netmap {
    issuers: Issuers,
    key: NodeKey,
    me: Entry,
    revision: Option<Revision>,
    peers: BTreeMap<NodeKey, Entry>,
    /// The parts of a snapshot whose last part is not there yet.
    staged: Vec<Peer>,
    gone: TakenOut,
}

#[derive(Clone)]
struct Entry {
    signed: SignedRecord,
    record: NodeRecord,
    /// The number of the issuer's key that signed it.
    by: u32,
    online: bool,
}

/// Peers in one snapshot, in all its parts; a relay that sends more is not kept in memory.
const MAX_PEERS: usize = 100_000;

/// Why a record is not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unbelievable {
    #[error("{0}")]
    Unsigned(#[from] mesh::Error),
    #[error(
        "node {0} was taken out of the network, and the relay knows nothing of it: its database \
         was put back; revoke the node again"
    )]
    Gone(NodeName),
}

impl Netmap {
    /// Knows nothing but this node itself, whose record was verified.
    pub(crate) fn new(issuers: Issuers, signed: SignedRecord, record: NodeRecord) -> Self {
        Self {
            issuers,
            key: record.key,
            me: Entry {
                signed,
                record,
                by: 0,
                online: true,
            },
            revision: None,
            peers: BTreeMap::new(),
            staged: Vec::new(),
            gone: TakenOut::default(),
        }
    }

    /// Forgets everybody else: the network is no more.
    pub(crate) fn forget_peers(&mut self) {
        self.peers.clear();
        self.gone = TakenOut::default();
        self.revision = None;
    }

    /// Who speaks for the network.
    pub(crate) const fn issuers(&self) -> &Issuers {
        &self.issuers
    }

    /// The issuer has handed over; whether that was news.
    pub(crate) fn handle_handovers(&mut self, links: &[SignedHandover]) -> Result<bool, Broken> {
        self.issuers.extend(links)
    }

    /// This node's own record.
    pub(crate) fn me(&self) -> &NodeRecord {
        &self.me.record
    }

    /// The state to go on from.
    pub(crate) fn revision(&self) -> Option<Revision> {
        self.revision
    }

    /// The peers by name whose records hold at `now`, signed by a key that does. Where two have one name,
    /// the one issued later has it.
    pub(crate) fn peers(&self, now: u64) -> BTreeMap<NodeName, PeerView> {
        let mut peers = BTreeMap::<NodeName, PeerView>::new();
        let valid = self
            .peers
            .values()
            .filter(|entry| entry.record.expires > now && self.issuers.believes(entry.by, now));
        for entry in valid {
            let record = &entry.record;
            let before = peers.get(&record.name);
            if before.is_none_or(|before| before.record.issued < record.issued) {
                let view = PeerView {
                    record: record.clone(),
                    online: entry.online,
                };
                peers.insert(record.name.clone(), view);
            }
        }
        peers
    }

    /// A new connection: whatever the one before left half-said is void.
    pub(crate) fn handle_connected(&mut self) {
        self.staged.clear();
    }

    /// A part of a snapshot. Returns whether the state is complete again, and
    /// what was left out.
    pub(crate) fn handle_snapshot(
        &mut self,
        revision: Revision,
        peers: Vec<Peer>,
        more: bool,
        now: u64,
    ) -> (bool, Vec<Unbelievable>) {
        let room = MAX_PEERS.saturating_sub(self.staged.len());
        self.staged.extend(peers.into_iter().take(room));
        if more {
            return (false, Vec::new());
        }
        let known = self.revision.replace(revision);
        let before = std::mem::take(&mut self.peers);
        let mut bad = Vec::new();
        for peer in std::mem::take(&mut self.staged) {
            bad.extend(self.put_or_forget(peer, now));
        }
        for (key, entry) in &mut self.peers {
            // An older record of a peer that we knew better.
            if let Some(known) = before.get(key) {
                entry.keep_newer(known);
            }
        }
        // What cannot be read may be any of them. And in an earlier state than ours, those are
        // missing who have joined since.
        let is_later = known.is_some_and(|known| known.number <= revision.number);
        if is_later && self.revision.is_some() {
            for (key, entry) in before {
                if !self.peers.contains_key(&key) {
                    self.gone.take_out(key, Gone::Until(entry.record.issued));
                }
            }
        }
        (true, bad)
    }

    /// What changed. Returns what was left out.
    pub(crate) fn handle_delta(&mut self, delta: Delta, now: u64) -> Vec<Unbelievable> {
        for key in &delta.removed {
            self.peers.remove(key);
            self.gone.take_out(*key, Gone::Revoked);
        }
        if delta.resumed {
            for entry in self.peers.values_mut() {
                entry.online = false;
            }
        }
        for (keys, online) in [(&delta.online, true), (&delta.offline, false)] {
            for key in keys {
                if let Some(entry) = self.peers.get_mut(key) {
                    entry.online = online;
                }
            }
        }
        // A hole stays a hole until a snapshot fills it.
        if delta.resumed || self.revision.is_some() {
            self.revision = Some(delta.revision);
        }
        let upsert = delta.upsert.into_iter();
        upsert
            .filter_map(|peer| self.put_or_forget(peer, now))
            .collect()
    }

    /// The relay's word on this node itself.
    pub(crate) fn handle_own(
        &mut self,
        record: SignedRecord,
        now: u64,
    ) -> Result<(), Unbelievable> {
        let peer = Peer {
            record,
            online: true,
        };
        self.put(peer, now)
    }

    /// Puts a peer in. One that cannot be believed leaves a hole: perhaps it
    /// is this machine's clock that is wrong, so the next connection asks for
    /// a snapshot.
    fn put_or_forget(&mut self, peer: Peer, now: u64) -> Option<Unbelievable> {
        let bad = self.put(peer, now).err();
        if let Some(Unbelievable::Unsigned(_)) = bad {
            self.revision = None;
        }
        bad
    }

    fn put(&mut self, peer: Peer, now: u64) -> Result<(), Unbelievable> {
        let (record, by) = self.issuers.verify(&peer.record, now)?;
        let mut entry = Entry {
            record,
            by,
            signed: peer.record,
            online: peer.online,
        };
        if entry.record.key == self.key {
            entry.keep_newer(&self.me);
            self.me = entry;
            return Ok(());
        }
        let record = &entry.record;
        if !self.gone.admits(record) {
            return Err(Unbelievable::Gone(record.name.clone()));
        }
        if let Some(known) = self.peers.get(&entry.record.key) {
            entry.keep_newer(known);
        }
        self.peers.insert(entry.record.key, entry);
        Ok(())
    }
}

impl Entry {
    /// Keeps what `known` says of the same key if that is newer.
    fn keep_newer(&mut self, known: &Self) {
        if (known.by, known.record.issued) > (self.by, self.record.issued) {
            self.record = known.record.clone();
            self.by = known.by;
            self.signed = known.signed.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use mesh::{NetworkId, SignKey};

    use super::*;
    use crate::coord::Mark;
    use crate::coord::handover::Handover;

    pub(super) const NOW: u64 = 1_800_000_000;

    fn network() -> NetworkId {
        "home".parse().unwrap()
    }

    fn issuer() -> SigningKey {
        SigningKey::from_bytes(&[3; 32])
    }

    fn public(key: &SigningKey) -> SignKey {
        SignKey::from(&key.verifying_key())
    }

    pub(super) fn record(n: u8, name: &str) -> NodeRecord {
        NodeRecord {
            network: network(),
            name: name.parse().unwrap(),
            key: NodeKey::from_bytes([n; 32]),
            sign_key: SignKey::from_bytes([n; 32]),
            owner: "admin".to_owned(),
            groups: Vec::new(),
            issued: NOW,
            expires: NOW + 1_000,
        }
    }

    pub(super) fn peer(record: &NodeRecord) -> Peer {
        Peer {
            record: SignedRecord::sign(record, &issuer()),
            online: true,
        }
    }

    pub(super) fn new_map() -> Netmap {
        let me = record(1, "me");
        let signed = SignedRecord::sign(&me, &issuer());
        Netmap::new(Issuers::new(network(), public(&issuer())), signed, me)
    }

    pub(super) fn revision(number: u64) -> Revision {
        let mark = Mark([7; 8]);
        Revision { number, mark }
    }

    pub(super) fn upsert(peer: Peer) -> Delta {
        Delta {
            revision: revision(2),
            upsert: vec![peer],
            removed: Vec::new(),
            online: Vec::new(),
            offline: Vec::new(),
            resumed: false,
        }
    }

    pub(super) fn names(map: &Netmap) -> Vec<String> {
        map.peers(NOW).keys().map(ToString::to_string).collect()
    }

    #[test]
    fn b12_u07_a_relay_cannot_make_up_a_peer() {
        let good = record(2, "dev-2");
        let mut foreign = record(3, "dev-3");
        foreign.network = "work".parse().unwrap();
        let mut expired = record(4, "dev-4");
        expired.expires = NOW;
        let by_another = Peer {
            record: SignedRecord::sign(&record(5, "dev-5"), &SigningKey::from_bytes(&[4; 32])),
            online: true,
        };
        let mut map = new_map();
        let peers = vec![
            peer(&good),
            peer(&foreign),
            peer(&expired),
            by_another.clone(),
        ];
        let (complete, bad) = map.handle_snapshot(revision(1), peers, false, NOW);
        assert!(complete);
        assert_eq!(bad.len(), 3);
        assert_eq!(names(&map), ["dev-2"]);
        assert_eq!(map.handle_delta(upsert(by_another), NOW).len(), 1);
        assert_eq!(names(&map), ["dev-2"]);
    }

    #[test]
    fn an_old_record_is_not_played_back() {
        let mut map = new_map();
        let mut newer = record(2, "dev-2");
        newer.issued += 100;
        newer.expires += 100;
        map.handle_delta(upsert(peer(&newer)), NOW);
        map.handle_delta(upsert(peer(&record(2, "old-name"))), NOW);
        assert_eq!(names(&map), ["dev-2"]);
        let old = vec![peer(&record(2, "old-name"))];
        map.handle_snapshot(revision(9), old, false, NOW);
        assert_eq!(names(&map), ["dev-2"]);

        let mut mine = record(1, "me");
        mine.issued += 50;
        let signed = peer(&mine).record;
        map.handle_own(signed, NOW).unwrap();
        map.handle_own(peer(&record(1, "me")).record, NOW).unwrap();
        assert_eq!(map.me().issued, NOW + 50);
    }

    #[test]
    fn a_snapshot_counts_when_it_is_whole() {
        let mut map = new_map();
        map.handle_snapshot(revision(1), vec![], false, NOW);
        map.handle_delta(upsert(peer(&record(2, "dev-2"))), NOW);
        let first = vec![peer(&record(3, "dev-3"))];
        assert!(!map.handle_snapshot(revision(5), first, true, NOW).0);
        assert_eq!(names(&map), ["dev-2"]);
        assert_eq!(map.revision(), Some(revision(2)));
        let second = vec![peer(&record(4, "dev-4")), peer(&record(1, "me"))];
        assert!(map.handle_snapshot(revision(5), second, false, NOW).0);
        assert_eq!(names(&map), ["dev-3", "dev-4"]);
        assert_eq!(map.revision(), Some(revision(5)));
        // One without an end is not kept in memory.
        for _ in 0..11 {
            let many = vec![peer(&record(4, "dev-4")); MAX_PEERS / 10];
            map.handle_snapshot(revision(6), many, true, NOW);
        }
        assert_eq!(map.staged.len(), MAX_PEERS);
        map.handle_connected();
        // A part whose rest never came.
        map.handle_snapshot(revision(6), vec![peer(&record(5, "dev-5"))], true, NOW);
        map.handle_connected();
        map.handle_snapshot(revision(6), vec![peer(&record(6, "dev-6"))], false, NOW);
        assert_eq!(names(&map), ["dev-6"]);
    }

    #[test]
    fn the_newer_of_two_with_one_name_has_it() {
        let mut map = new_map();
        let mut newer = record(3, "dev-2");
        newer.issued += 1;
        for record in [&record(2, "dev-2"), &newer, &record(4, "dev-2")] {
            map.handle_delta(upsert(peer(record)), NOW);
        }
        let peers = map.peers(NOW);
        assert_eq!(peers[&newer.name].record, newer);
    }

    #[test]
    fn peers_whose_records_ended_are_hidden() {
        let mut map = new_map();
        map.handle_delta(upsert(peer(&record(2, "dev-2"))), NOW);
        assert_eq!(map.peers(NOW + 999).len(), 1);
        assert!(map.peers(NOW + 1_000).is_empty());
        // The clock was wrong and was put right.
        assert_eq!(map.peers(NOW).len(), 1);
    }

    #[test]
    fn a_hole_is_filled_by_a_snapshot() {
        let mut map = new_map();
        map.handle_snapshot(revision(1), vec![], false, NOW);
        assert_eq!(map.revision(), Some(revision(1)));
        // By a clock that is a day late, the record is of the future.
        let late = NOW - 86_400;
        assert_eq!(
            map.handle_delta(upsert(peer(&record(2, "dev-2"))), late)
                .len(),
            1
        );
        assert_eq!(map.revision(), None);
        map.handle_delta(upsert(peer(&record(3, "dev-3"))), NOW);
        assert_eq!(map.revision(), None);
        let all = vec![peer(&record(2, "dev-2")), peer(&record(3, "dev-3"))];
        map.handle_snapshot(revision(2), all, false, NOW);
        assert_eq!(map.revision(), Some(revision(2)));
        assert_eq!(names(&map), ["dev-2", "dev-3"]);
    }

    #[test]
    fn records_of_the_old_issuer_hold_until_it_retires() {
        let next = SigningKey::from_bytes(&[4; 32]);
        let handover = Handover {
            network: network(),
            number: 1,
            old: public(&issuer()),
            new: public(&next),
            issued: NOW,
            retires: NOW + 100,
        };
        let link = SignedHandover::sign(&handover, &issuer(), &next);
        let by_next = |record: &NodeRecord| Peer {
            record: SignedRecord::sign(record, &next),
            online: true,
        };
        let mut map = new_map();
        let known = [2, 3].map(|n| peer(&record(n, &format!("dev-{n}"))));
        map.handle_snapshot(revision(1), known.to_vec(), false, NOW);
        // Not before it is told.
        assert_eq!(
            map.handle_delta(upsert(by_next(&record(2, "dev-2"))), NOW)
                .len(),
            1
        );
        assert_eq!(map.handle_handovers(std::slice::from_ref(&link)), Ok(true));
        assert_eq!(map.handle_handovers(&[link]), Ok(false));
        assert_eq!(names(&map), ["dev-2", "dev-3"]);
        assert!(
            map.handle_delta(upsert(by_next(&record(2, "dev-2"))), NOW)
                .is_empty()
        );
        // What the old key signs now does not take the place of what the new one has signed.
        let mut late = record(2, "stolen");
        late.issued += 90;
        assert!(map.handle_delta(upsert(peer(&late)), NOW).is_empty());
        assert_eq!(names(&map), ["dev-2", "dev-3"]);
        let names_at = |now| {
            map.peers(now)
                .into_keys()
                .map(|name| name.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(names_at(NOW + 99), ["dev-2", "dev-3"]);
        assert_eq!(names_at(NOW + 100), ["dev-2"]);
        assert_eq!(
            map.handle_delta(upsert(peer(&record(4, "dev-4"))), NOW + 100)
                .len(),
            1
        );
    }
}
