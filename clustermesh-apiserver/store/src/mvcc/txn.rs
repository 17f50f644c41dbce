//! KV.Txn: compares decide, then a list of operations becomes one revision.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use etcd_client::proto::{
    PbCompare, PbDeleteRequest, PbPutRequest, PbRangeRequest, PbResponseOp, PbTargetUnion, PbTxnOpRequest,
    PbTxnOpResponse, PbTxnRequest, PbTxnRequestOp, PbTxnResponse,
};

use super::range::check_range;
use super::record::Record;
use super::write::check_put;
use super::{Mvcc, Span};
use crate::error::StoreError;

/// Operations in one branch, etcd's default.
const OPS_MAX: usize = 128;
/// Transactions inside transactions; a limit of our own, so that a request cannot exhaust the stack.
const DEPTH_MAX: usize = 16;

/// `CompareTarget` of the API for values.
const TARGET_VALUE: i32 = 3;

/// A transaction whose compares are decided: the branch to run.
struct Plan<'a> {
    succeeded: bool,
    ops: Vec<PlanOp<'a>>,
}

enum PlanOp<'a> {
    Range(&'a PbRangeRequest),
    Put(&'a PbPutRequest),
    Delete(&'a PbDeleteRequest),
    Txn(Plan<'a>),
}

impl Mvcc {
    /// KV.Txn. Either all of the chosen branch happens, at one revision, or nothing and an error.
    pub fn txn(&mut self, request: &PbTxnRequest) -> Result<PbTxnResponse, StoreError> {
        check_shape(request, 0)?;
        let plan = self.decide(request);
        self.check_plan(&plan)?;
        let mut wrote = false;
        let revision = self.revision + 1;
        let mut response = self.run(&plan, revision, &mut wrote);
        if wrote {
            self.revision = revision;
        }
        response.header = Some(self.header());
        Ok(response)
    }

    /// Decides all compares, also those inside, on what is stored before anything is written, as etcd does.
    fn decide<'a>(&self, request: &'a PbTxnRequest) -> Plan<'a> {
        let succeeded = request.compare.iter().all(|compare| self.holds(compare));
        let branch = if succeeded {
            &request.success
        } else {
            &request.failure
        };
        let ops = branch.iter().filter_map(|op| {
            Some(match op.request.as_ref()? {
                PbTxnOpRequest::RequestRange(range) => PlanOp::Range(range),
                PbTxnOpRequest::RequestPut(put) => PlanOp::Put(put),
                PbTxnOpRequest::RequestDeleteRange(delete) => PlanOp::Delete(delete),
                PbTxnOpRequest::RequestTxn(txn) => PlanOp::Txn(self.decide(txn)),
            })
        });
        Plan {
            succeeded,
            ops: ops.collect(),
        }
    }

    fn check_plan(&self, plan: &Plan<'_>) -> Result<(), StoreError> {
        plan.ops.iter().try_for_each(|op| match op {
            PlanOp::Range(range) => self.check_revision(range.revision),
            PlanOp::Put(put) => self.check_put_state(put),
            PlanOp::Delete(_) => Ok(()),
            PlanOp::Txn(inner) => self.check_plan(inner),
        })
    }

    fn run(&mut self, plan: &Plan<'_>, revision: i64, wrote: &mut bool) -> PbTxnResponse {
        let mut responses = Vec::with_capacity(plan.ops.len());
        for op in &plan.ops {
            let mut header = self.header();
            let response = match op {
                PlanOp::Range(range) => {
                    let mut response = self.apply_range(range, self.revision + i64::from(*wrote));
                    header.revision += i64::from(*wrote);
                    response.header = Some(header);
                    PbTxnOpResponse::ResponseRange(response)
                }
                PlanOp::Put(put) => {
                    *wrote = true;
                    let mut response = self.apply_put(put, revision);
                    header.revision = revision;
                    response.header = Some(header);
                    PbTxnOpResponse::ResponsePut(response)
                }
                PlanOp::Delete(delete) => {
                    let mut response = self.apply_delete(delete, revision);
                    *wrote |= response.deleted > 0;
                    header.revision += i64::from(*wrote);
                    response.header = Some(header);
                    PbTxnOpResponse::ResponseDeleteRange(response)
                }
                PlanOp::Txn(inner) => {
                    let mut response = self.run(inner, revision, wrote);
                    header.revision += i64::from(*wrote);
                    response.header = Some(header);
                    PbTxnOpResponse::ResponseTxn(response)
                }
            };
            responses.push(PbResponseOp {
                response: Some(response),
            });
        }
        PbTxnResponse {
            header: None,
            succeeded: plan.succeeded,
            responses,
        }
    }

    /// Whether a compare holds for the key, or for every key of its span.
    fn holds(&self, compare: &PbCompare) -> bool {
        let span = Span::new(&compare.key, &compare.range_end);
        let mut found = false;
        let all = self
            .index
            .entries(&span)
            .filter(|entry| !entry.newest.is_deletion())
            .all(|entry| {
                found = true;
                compares(compare, Some(&entry.newest))
            });
        // No key: numbers compare as 0, but a value never holds.
        if found {
            all
        } else {
            compare.target != TARGET_VALUE && compares(compare, None)
        }
    }
}

fn compares(compare: &PbCompare, record: Option<&Record>) -> bool {
    let number = |is: fn(&Record) -> i64| record.map_or(0, is);
    let order = match (&compare.target_union, compare.target) {
        (Some(PbTargetUnion::Version(wanted)), _) => number(|r| r.version).cmp(wanted),
        (Some(PbTargetUnion::CreateRevision(wanted)), _) => number(|r| r.create_revision).cmp(wanted),
        (Some(PbTargetUnion::ModRevision(wanted)), _) => number(|r| r.mod_revision).cmp(wanted),
        (Some(PbTargetUnion::Lease(wanted)), _) => number(|r| r.lease).cmp(wanted),
        (Some(PbTargetUnion::Value(wanted)), _) => record.map_or(&[][..], Record::value).cmp(wanted),
        // A wanted value that is zero or empty may be left out on the wire.
        (None, 0) => number(|r| r.version).cmp(&0),
        (None, 1) => number(|r| r.create_revision).cmp(&0),
        (None, 2) => number(|r| r.mod_revision).cmp(&0),
        (None, 4) => number(|r| r.lease).cmp(&0),
        (None, _) => record.map_or(&[][..], Record::value).cmp(&[]),
    };
    match compare.result {
        0 => order == Ordering::Equal,
        1 => order == Ordering::Greater,
        2 => order == Ordering::Less,
        _ => order != Ordering::Equal,
    }
}

/// What of a transaction can be refused by its looks: sizes, empty keys, a key written twice.
fn check_shape(request: &PbTxnRequest, depth: usize) -> Result<(), StoreError> {
    let most = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    if most > OPS_MAX || depth > DEPTH_MAX {
        return Err(StoreError::TooManyOps);
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(StoreError::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match op.request.as_ref() {
            Some(PbTxnOpRequest::RequestRange(range)) => check_range(range)?,
            Some(PbTxnOpRequest::RequestPut(put)) => check_put(put)?,
            Some(PbTxnOpRequest::RequestDeleteRange(delete)) if delete.key.is_empty() => {
                return Err(StoreError::EmptyKey);
            }
            Some(PbTxnOpRequest::RequestDeleteRange(_)) => {}
            Some(PbTxnOpRequest::RequestTxn(inner)) => check_shape(inner, depth + 1)?,
            // etcd says "key not found" to an operation of no kind.
            None => return Err(StoreError::KeyNotFound),
        }
    }
    written(&request.success)?;
    written(&request.failure).map(|_| ())
}

/// Keys put and spans deleted by a branch; a key written twice is an error.
fn written(ops: &[PbTxnRequestOp]) -> Result<(BTreeSet<&[u8]>, Vec<Span>), StoreError> {
    let (mut puts, mut deletes) = (BTreeSet::new(), Vec::new());
    for op in ops {
        match op.request.as_ref() {
            Some(PbTxnOpRequest::RequestPut(put)) if !puts.insert(put.key.as_slice()) => {
                return Err(StoreError::DuplicateKey);
            }
            Some(PbTxnOpRequest::RequestDeleteRange(delete)) => {
                deletes.push(Span::new(&delete.key, &delete.range_end));
            }
            Some(PbTxnOpRequest::RequestTxn(inner)) => {
                // Only one branch of the inner transaction runs, so its branches may write the same key.
                let (mut inner_puts, inner_deletes) = written(&inner.success)?;
                let (other_puts, other_deletes) = written(&inner.failure)?;
                inner_puts.extend(other_puts);
                if inner_puts.into_iter().any(|key| !puts.insert(key)) {
                    return Err(StoreError::DuplicateKey);
                }
                deletes.extend(inner_deletes.into_iter().chain(other_deletes));
            }
            _ => {}
        }
    }
    match puts
        .iter()
        .any(|key| deletes.iter().any(|span| span.contains(key)))
    {
        true => Err(StoreError::DuplicateKey),
        false => Ok((puts, deletes)),
    }
}
