//! What this node believes about its network.
//!
//! Pure: frames of the relay and the time go in, and the state is asked for.
//! Only what the issuer signed gets in, each record for its own key; of two
//! records for one key the one issued later counts, so that an old one cannot
//! be played back.

use std::collections::BTreeMap;

use mesh::{NetworkId, NodeKey, NodeName, NodeRecord, SignKey, SignedRecord};
use serde::{Deserialize, Serialize};

use super::PeerView;
use crate::coord::{Delta, Peer, Revision};

/// See the module.
pub(crate) struct Netmap {
    network: NetworkId,
    issuer: SignKey,
    key: NodeKey,
    me: Entry,
    revision: Option<Revision>,
    peers: BTreeMap<NodeKey, Entry>,
    /// The parts of a snapshot whose last part is not there yet.
    staged: Vec<Peer>,
}

#[derive(Clone)]
struct Entry {
    signed: SignedRecord,
    record: NodeRecord,
    online: bool,
}

/// What is written to disk: nothing in it is believed without its signature.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Saved {
    revision: Option<Revision>,
    records: Vec<SignedRecord>,
}

/// A record that did not verify.
#[derive(Debug)]
pub(crate) struct Unbelievable(pub(crate) mesh::Error);

impl Netmap {
    /// Knows nothing but this node itself, whose record was verified.
    pub(crate) fn new(issuer: SignKey, signed: SignedRecord, record: NodeRecord) -> Self {
        Self {
            network: record.network.clone(),
            issuer,
            key: record.key,
            me: Entry {
                signed,
                record,
                online: true,
            },
            revision: None,
            peers: BTreeMap::new(),
            staged: Vec::new(),
        }
    }

    /// Takes up where an earlier process was. Records that are expired or not
    /// right are left out, and then a snapshot will be needed.
    pub(crate) fn restore(&mut self, saved: Saved, now: u64) {
        let mut whole = true;
        for signed in saved.records {
            let peer = Peer {
                record: signed,
                online: false,
            };
            whole &= self.put(peer, now).is_ok();
        }
        self.revision = saved.revision.filter(|_| whole);
    }

    /// What to keep on disk.
    pub(crate) fn save(&self) -> Saved {
        let entries = [&self.me].into_iter().chain(self.peers.values());
        Saved {
            revision: self.revision,
            records: entries.map(|entry| entry.signed.clone()).collect(),
        }
    }

    /// This node's own record.
    pub(crate) fn me(&self) -> &NodeRecord {
        &self.me.record
    }

    /// The state to go on from.
    pub(crate) fn revision(&self) -> Option<Revision> {
        self.revision
    }

    /// The peers by name. Where two have one name, the one issued later has
    /// it.
    pub(crate) fn peers(&self) -> BTreeMap<NodeName, PeerView> {
        let mut peers = BTreeMap::<NodeName, PeerView>::new();
        for entry in self.peers.values() {
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
        self.staged.extend(peers);
        if more {
            return (false, Vec::new());
        }
        let before = std::mem::take(&mut self.peers);
        let mut bad = Vec::new();
        for peer in std::mem::take(&mut self.staged) {
            bad.extend(self.put(peer, now).err());
        }
        for (key, entry) in &mut self.peers {
            // An older record of a peer that we knew better.
            if let Some(known) = before.get(key) {
                entry.keep_newer(known);
            }
        }
        self.revision = Some(revision);
        (true, bad)
    }

    /// What changed. Returns what was left out.
    pub(crate) fn handle_delta(&mut self, delta: Delta, now: u64) -> Vec<Unbelievable> {
        for key in &delta.removed {
            self.peers.remove(key);
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
        let put = delta.upsert.into_iter().map(|peer| self.put(peer, now));
        let bad = put.filter_map(Result::err).collect();
        self.revision = Some(delta.revision);
        bad
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

    /// Drops peers whose records ended; whether there were any.
    pub(crate) fn handle_time(&mut self, now: u64) -> bool {
        let before = self.peers.len();
        self.peers.retain(|_, entry| entry.record.expires > now);
        self.peers.len() != before
    }

    fn put(&mut self, peer: Peer, now: u64) -> Result<(), Unbelievable> {
        let record = peer.record.verify(&self.issuer, &self.network, now);
        let mut entry = Entry {
            record: record.map_err(Unbelievable)?,
            signed: peer.record,
            online: peer.online,
        };
        if entry.record.key == self.key {
            entry.keep_newer(&self.me);
            self.me = entry;
            return Ok(());
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
        if known.record.issued > self.record.issued {
            self.record = known.record.clone();
            self.signed = known.signed.clone();
        }
    }
}
