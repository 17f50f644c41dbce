//! The leases on which the keys hang: at most 1,000 keys each (clustermesh.md §1.4), because a lease's cost in etcd grows
//! with its keys and readers expect the same picture from us.
use std::collections::BTreeMap;

/// Most keys on one lease.
pub(crate) const KEYS_MAX: usize = 1_000;

/// Leases in use with the number of keys on each. Pure: who owns it grants and renews them.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    keys: BTreeMap<i64, usize>,
}

impl Leases {
    /// A lease with room, if there is one.
    pub(crate) fn with_room(&self) -> Option<i64> {
        // The newest first: the older ones are full.
        self.keys
            .iter()
            .rev()
            .find(|(_, keys)| **keys < KEYS_MAX)
            .map(|(id, _)| *id)
    }

    pub(crate) fn contains(&self, id: i64) -> bool {
        self.keys.contains_key(&id)
    }

    pub(crate) fn add(&mut self, id: i64) {
        self.keys.entry(id).or_insert(0);
    }

    pub(crate) fn remove(&mut self, id: i64) {
        self.keys.remove(&id);
    }

    pub(crate) fn attach(&mut self, id: i64) {
        if let Some(keys) = self.keys.get_mut(&id) {
            *keys += 1;
        }
    }

    pub(crate) fn detach(&mut self, id: i64) {
        if let Some(keys) = self.keys.get_mut(&id) {
            *keys = keys.saturating_sub(1);
        }
    }

    pub(crate) fn ids(&self) -> Vec<i64> {
        self.keys.keys().copied().collect()
    }
}
