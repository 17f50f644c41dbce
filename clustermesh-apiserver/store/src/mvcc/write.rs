//! Changes: put and delete, each call one revision.

use std::sync::Arc;

use etcd_client::proto::{PbDeleteRequest, PbDeleteResponse, PbPutRequest, PbPutResponse};

use super::record::Record;
use super::{Mvcc, REQUEST_MAX, Span};
use crate::error::StoreError;

impl Mvcc {
    /// KV.Put.
    pub fn put(&mut self, request: &PbPutRequest) -> Result<PbPutResponse, StoreError> {
        check_put(request)?;
        self.check_put_state(request)?;
        let revision = self.revision + 1;
        let mut response = self.apply_put(request, revision);
        self.revision = revision;
        response.header = Some(self.header());
        Ok(response)
    }

    /// KV.DeleteRange.
    pub fn delete(&mut self, request: &PbDeleteRequest) -> Result<PbDeleteResponse, StoreError> {
        if request.key.is_empty() {
            return Err(StoreError::EmptyKey);
        }
        let revision = self.revision + 1;
        let mut response = self.apply_delete(request, revision);
        if response.deleted > 0 {
            self.revision = revision;
        }
        response.header = Some(self.header());
        Ok(response)
    }

    /// What of a put can be refused only in view of what is stored.
    pub(super) fn check_put_state(&self, request: &PbPutRequest) -> Result<(), StoreError> {
        if request.lease != 0 && !self.leases.exists(request.lease) {
            return Err(StoreError::LeaseNotFound);
        }
        if (request.ignore_value || request.ignore_lease) && self.index.newest(&request.key).is_none() {
            return Err(StoreError::KeyNotFound);
        }
        Ok(())
    }

    /// Carries out a checked put at `revision`; the header is left to the caller.
    pub(super) fn apply_put(&mut self, request: &PbPutRequest, revision: i64) -> PbPutResponse {
        let before = self.index.newest(&request.key).cloned();
        let kept = before.as_deref();
        let value = match (request.ignore_value, kept) {
            (true, Some(before)) => before.value(),
            _ => &request.value,
        };
        let lease = match (request.ignore_lease, kept) {
            (true, Some(before)) => before.lease,
            _ => request.lease,
        };
        let mut record = Record::new(&request.key, value, lease, revision);
        if let Some(before) = kept {
            record.create_revision = before.create_revision;
            record.version = before.version + 1;
        }
        self.push(record, kept);
        let prev_kv = before
            .filter(|_| request.prev_kv)
            .map(|before| before.to_pb(false));
        PbPutResponse {
            header: None,
            prev_kv,
        }
    }

    /// Carries out a checked delete at `revision`; the header is left to the caller.
    pub(super) fn apply_delete(&mut self, request: &PbDeleteRequest, revision: i64) -> PbDeleteResponse {
        let span = Span::new(&request.key, &request.range_end);
        let doomed: Vec<_> = self
            .index
            .entries(&span)
            .filter(|entry| !entry.newest.is_deletion())
            .map(|entry| Arc::clone(&entry.newest))
            .collect();
        self.bury(&doomed, revision);
        let prev_kvs = match request.prev_kv {
            true => doomed.iter().map(|record| record.to_pb(false)).collect(),
            false => Vec::new(),
        };
        PbDeleteResponse {
            header: None,
            deleted: doomed.len() as i64,
            prev_kvs,
        }
    }

    /// Writes deletions of these keys at `revision`.
    pub(super) fn bury(&mut self, doomed: &[Arc<Record>], revision: i64) {
        for record in doomed {
            self.push(Record::deletion(record.key(), revision), Some(record));
        }
    }

    fn push(&mut self, record: Record, before: Option<&Record>) {
        if let Some(before) = before {
            self.leases.detach(before.lease);
            self.bytes_live -= before.cost();
        }
        self.bytes += record.cost();
        if !record.is_deletion() {
            self.leases.attach(record.lease);
            self.bytes_live += record.cost();
        }
        let record = Arc::new(record);
        self.log.push_back(Arc::clone(&record));
        self.index.push(record);
    }
}

/// What of a put can be refused by its looks.
pub(super) fn check_put(request: &PbPutRequest) -> Result<(), StoreError> {
    if request.key.is_empty() {
        return Err(StoreError::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(StoreError::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(StoreError::LeaseProvided);
    }
    if request.key.len() + request.value.len() > REQUEST_MAX {
        return Err(StoreError::RequestTooLarge);
    }
    Ok(())
}
