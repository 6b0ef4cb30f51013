//! The peers, found by key, by overlay address and by tunnel number.

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::Arc;

use derp::NodeKey;
use foldhash::fast::RandomState;

use super::entry::Entry;

/// All peers. A lookup is done for every packet; changes are rare. Who is in here was let in: a
/// hash that withstands an attacker's choice of keys would cost each packet more than it is worth.
#[derive(Default)]
pub(super) struct Table {
    by_key: HashMap<NodeKey, Arc<Entry>, RandomState>,
    by_address: HashMap<Ipv6Addr, Arc<Entry>, RandomState>,
    by_index: HashMap<u32, Arc<Entry>, RandomState>,
}

impl Table {
    pub(super) fn by_key(&self, key: &NodeKey) -> Option<&Arc<Entry>> {
        self.by_key.get(key)
    }

    pub(super) fn by_address(&self, address: &Ipv6Addr) -> Option<&Arc<Entry>> {
        self.by_address.get(address)
    }

    pub(super) fn by_index(&self, index: u32) -> Option<&Arc<Entry>> {
        self.by_index.get(&index)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_key.values()
    }

    pub(super) fn insert(&mut self, entry: &Arc<Entry>) {
        self.by_key.insert(entry.key, Arc::clone(entry));
        self.by_address.insert(entry.address, Arc::clone(entry));
        self.by_index.insert(entry.index, Arc::clone(entry));
    }

    pub(super) fn remove(&mut self, key: &NodeKey) -> Option<Arc<Entry>> {
        let entry = self.by_key.remove(key)?;
        self.by_address.remove(&entry.address);
        self.by_index.remove(&entry.index);
        Some(entry)
    }
}
