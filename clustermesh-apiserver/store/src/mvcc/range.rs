//! Reading: KV.Range, now or at an old revision.

use std::sync::Arc;

use etcd_client::proto::{PbRangeRequest, PbRangeResponse};

use super::record::Record;
use super::{Mvcc, Span};
use crate::error::StoreError;

/// `SortOrder` of the API.
const NO_ORDER: i32 = 0;
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
        // As in etcd, the limit cuts before the sorting if no order was asked for, and behind it if one was.
        let cut = if request.sort_order == NO_ORDER {
            limit.saturating_add(1)
        } else {
            usize::MAX
        };
        let mut records = match request.sort_target {
            BY_KEY if request.sort_order != DESCEND => wanted.take(limit.saturating_add(1)).collect(),
            _ if filters(request) => sorted(wanted.collect(), request),
            _ => sorted(wanted.take(cut).collect(), request),
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

/// Sorts records that come in the order of their keys; equal ones stay in it, upwards and downwards, as in etcd.
fn sorted<'a>(mut records: Vec<&'a Arc<Record>>, request: &PbRangeRequest) -> Vec<&'a Arc<Record>> {
    let compare = |a: &Record, b: &Record| match request.sort_target {
        BY_VERSION => a.version.cmp(&b.version),
        BY_CREATE => a.create_revision.cmp(&b.create_revision),
        BY_MOD => a.mod_revision.cmp(&b.mod_revision),
        BY_VALUE => a.value().cmp(b.value()),
        _ => a.key().cmp(b.key()),
    };
    if request.sort_order == DESCEND {
        records.sort_by(|a, b| compare(b, a));
    } else {
        records.sort_by(|a, b| compare(a, b));
    }
    records
}

/// Whether the request leaves records out by their revisions.
fn filters(request: &PbRangeRequest) -> bool {
    let bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    bounds.iter().any(|bound| *bound != 0)
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
