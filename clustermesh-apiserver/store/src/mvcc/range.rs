//! Reading: KV.Range, now or at an old revision.

use std::sync::Arc;

use etcd_client::proto::{PbRangeRequest, PbRangeResponse};

use super::record::Record;
use super::{Mvcc, Span};
use crate::error::StoreError;

/// `SortOrder` of the API.
const ASCEND: i32 = 1;
const DESCEND: i32 = 2;
/// `SortTarget` of the API.
const BY_KEY: i32 = 0;
const BY_VERSION: i32 = 1;
const BY_CREATE: i32 = 2;
const BY_MOD: i32 = 3;
const BY_VALUE: i32 = 4;

impl Mvcc {
    /// KV.Range.
    pub fn range(&self, request: &PbRangeRequest) -> Result<PbRangeResponse, StoreError> {
        check_range(request)?;
        self.check_revision(request.revision)?;
        let mut response = self.apply_range(request, self.revision);
        response.header = Some(self.header());
        Ok(response)
    }

    /// The newest versions of all keys of a span, in order.
    pub fn records(&self, span: &Span) -> Vec<Arc<Record>> {
        self.index
            .entries(span)
            .filter_map(|entry| entry.at(self.revision))
            .cloned()
            .collect()
    }

    /// How many keys a span holds now.
    pub fn count(&self, span: &Span) -> usize {
        self.index.count(span, self.revision)
    }

    /// Refuses a revision that cannot be read: 0 (now) always can.
    pub(super) fn check_revision(&self, revision: i64) -> Result<(), StoreError> {
        if revision > self.revision {
            return Err(StoreError::FutureRevision);
        }
        if revision > 0 && revision < self.compacted {
            return Err(StoreError::Compacted);
        }
        Ok(())
    }

    /// Carries out a checked Range; `newest` is the revision that counts as now (inside a transaction that has written,
    /// the one that it makes). The header is left to the caller.
    pub(super) fn apply_range(&self, request: &PbRangeRequest, newest: i64) -> PbRangeResponse {
        let span = Span::new(&request.key, &request.range_end);
        let revision = if request.revision > 0 {
            request.revision
        } else {
            newest
        };
        let count = self.index.count(&span, revision) as i64;
        let mut response = PbRangeResponse {
            header: None,
            kvs: Vec::new(),
            more: false,
            count,
        };
        if request.count_only {
            return response;
        }
        let limit = usize::try_from(request.limit)
            .ok()
            .filter(|limit| *limit > 0)
            .unwrap_or(usize::MAX);
        let wanted = self
            .index
            .entries(&span)
            .filter_map(|entry| entry.at(revision))
            .filter(|record| passes(request, record));
        let (order, target) = sorting(request);
        let mut records: Vec<&Arc<Record>> = match order == DESCEND || target != BY_KEY {
            true => sorted(wanted.collect(), order, target),
            false => wanted.take(limit.saturating_add(1)).collect(),
        };
        response.more = records.len() > limit;
        records.truncate(limit);
        response.kvs = records
            .iter()
            .map(|record| record.to_pb(request.keys_only))
            .collect();
        response
    }
}

/// What of a Range can be refused by its looks.
pub(super) fn check_range(request: &PbRangeRequest) -> Result<(), StoreError> {
    if request.key.is_empty() {
        return Err(StoreError::EmptyKey);
    }
    let known =
        (0..=DESCEND).contains(&request.sort_order) && (BY_KEY..=BY_VALUE).contains(&request.sort_target);
    if known {
        Ok(())
    } else {
        Err(StoreError::InvalidSortOption)
    }
}

/// Order and target; a target other than the key is sorted upwards if no order is given, as in etcd.
fn sorting(request: &PbRangeRequest) -> (i32, i32) {
    match request.sort_order {
        0 => (ASCEND, request.sort_target),
        order => (order, request.sort_target),
    }
}

fn sorted(mut records: Vec<&Arc<Record>>, order: i32, target: i32) -> Vec<&Arc<Record>> {
    match target {
        BY_VERSION => records.sort_by_key(|record| record.version),
        BY_CREATE => records.sort_by_key(|record| record.create_revision),
        BY_MOD => records.sort_by_key(|record| record.mod_revision),
        BY_VALUE => records.sort_by(|a, b| a.value().cmp(b.value())),
        _ => {}
    }
    if order == DESCEND {
        records.reverse();
    }
    records
}

fn passes(request: &PbRangeRequest, record: &Record) -> bool {
    let within = |value: i64, low: i64, high: i64| (low == 0 || value >= low) && (high == 0 || value <= high);
    within(
        record.mod_revision,
        request.min_mod_revision,
        request.max_mod_revision,
    ) && within(
        record.create_revision,
        request.min_create_revision,
        request.max_create_revision,
    )
}
