//! Leases: a promise to renew; what is attached goes when the promise is broken.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::record::Record;
use super::{Mvcc, Span};
use crate::error::StoreError;

/// Shortest lease in seconds, that of an etcd with default timings.
pub const LEASE_TTL_MIN: i64 = 2;
/// Longest lease in seconds.
pub const LEASE_TTL_MAX: i64 = 9_000_000_000;

#[derive(Debug)]
struct Lease {
    /// Seconds.
    ttl: i64,
    /// Milliseconds on the caller's clock.
    deadline: u64,
    /// Keys attached.
    attached: u64,
}

/// All leases. Which keys hang on a lease stands in the keys alone: to know them the index is walked, which happens only
/// when a lease ends, and costs nothing for 100,000 keys while none does.
#[derive(Debug, Default)]
pub(super) struct LeaseTable {
    leases: BTreeMap<i64, Lease>,
    /// Source of fresh ids.
    counter: u64,
}

impl LeaseTable {
    pub(super) fn len(&self) -> usize {
        self.leases.len()
    }

    pub(super) fn exists(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    pub(super) fn attach(&mut self, id: i64) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.attached += 1;
        }
    }

    pub(super) fn detach(&mut self, id: i64) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.attached = lease.attached.saturating_sub(1);
        }
    }

    /// A positive id that is not in use, spread by a mixing function so that ids of two stores seldom meet.
    fn fresh_id(&mut self, salt: u64) -> i64 {
        loop {
            self.counter += 1;
            let mut id = salt.wrapping_add(self.counter.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            id = (id ^ (id >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            id = (id ^ (id >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let id = ((id ^ (id >> 31)) & i64::MAX as u64) as i64;
            if id != 0 && !self.exists(id) {
                return id;
            }
        }
    }
}

/// What is known of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseFacts {
    /// Seconds it was granted for.
    pub(crate) granted: i64,
    /// Seconds left.
    pub(crate) left: i64,
}

impl Mvcc {
    /// Opens a lease of `ttl` seconds (raised to [`LEASE_TTL_MIN`]); id 0 asks for a fresh one. Answers id and seconds.
    pub fn lease_grant(&mut self, now: u64, id: i64, ttl: i64) -> Result<(i64, i64), StoreError> {
        if ttl > LEASE_TTL_MAX {
            return Err(StoreError::LeaseTtlTooLarge);
        }
        if self.leases.exists(id) {
            return Err(StoreError::LeaseExists);
        }
        let ttl = ttl.max(LEASE_TTL_MIN);
        let id = if id == 0 {
            self.leases.fresh_id(self.identity.cluster_id)
        } else {
            id
        };
        let deadline = deadline(now, ttl);
        self.leases.leases.insert(
            id,
            Lease {
                ttl,
                deadline,
                attached: 0,
            },
        );
        Ok((id, ttl))
    }

    /// Renews a lease and answers its seconds; `None` if there is no such lease.
    pub fn lease_renew(&mut self, now: u64, id: i64) -> Option<i64> {
        let lease = self.leases.leases.get_mut(&id)?;
        lease.deadline = deadline(now, lease.ttl);
        Some(lease.ttl)
    }

    /// Ends a lease and deletes its keys, at one revision.
    pub fn lease_revoke(&mut self, id: i64) -> Result<(), StoreError> {
        if !self.leases.exists(id) {
            return Err(StoreError::LeaseNotFound);
        }
        self.end_leases(&[id]);
        Ok(())
    }

    /// Ends the leases that were not renewed in time; answers how many.
    pub fn lease_expire(&mut self, now: u64) -> usize {
        let due: Vec<i64> = self
            .leases
            .leases
            .iter()
            .filter(|(_, lease)| lease.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        self.end_leases(&due);
        due.len()
    }

    /// When the next lease ends, if none is renewed until then.
    pub fn lease_deadline(&self) -> Option<u64> {
        self.leases.leases.values().map(|lease| lease.deadline).min()
    }

    /// Seconds of a lease; `None` if there is no such lease.
    pub(crate) fn lease_facts(&self, now: u64, id: i64) -> Option<LeaseFacts> {
        let lease = self.leases.leases.get(&id)?;
        let left = lease.deadline.saturating_sub(now) / 1000;
        Some(LeaseFacts {
            granted: lease.ttl,
            left: i64::try_from(left).unwrap_or(i64::MAX),
        })
    }

    /// All lease ids, ascending.
    pub(crate) fn lease_ids(&self) -> impl Iterator<Item = i64> + '_ {
        self.leases.leases.keys().copied()
    }

    /// The keys that hang on a lease, in order.
    pub(crate) fn lease_keys(&self, id: i64) -> Vec<Vec<u8>> {
        self.attached(&[id])
            .iter()
            .map(|record| record.key().to_vec())
            .collect()
    }

    fn attached(&self, ids: &[i64]) -> Vec<Arc<Record>> {
        let wanted = |record: &Record| !record.is_deletion() && ids.contains(&record.lease);
        let all = Span::new(b"\0", b"\0");
        self.index
            .entries(&all)
            .map(|entry| &entry.newest)
            .filter(|record| wanted(record))
            .cloned()
            .collect()
    }

    fn end_leases(&mut self, ids: &[i64]) {
        let count = |id: &i64| self.leases.leases.get(id).map_or(0, |lease| lease.attached);
        let doomed = match ids.iter().map(count).sum::<u64>() {
            0 => Vec::new(),
            _ => self.attached(ids),
        };
        for id in ids {
            let keys: Vec<_> = doomed
                .iter()
                .filter(|record| record.lease == *id)
                .cloned()
                .collect();
            if !keys.is_empty() {
                self.bury(&keys, self.revision + 1);
                self.revision += 1;
            }
            self.leases.leases.remove(id);
        }
    }
}

fn deadline(now: u64, ttl: i64) -> u64 {
    now.saturating_add(ttl.unsigned_abs().saturating_mul(1000))
}
