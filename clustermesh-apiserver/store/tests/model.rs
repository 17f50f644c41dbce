//! The core against a model that keeps a whole copy of all keys for every revision.
//!
//! | step | core | model |
//! |---|---|---|
//! | put, delete, txn, lease | index, log, revision | clone the last copy, change it |
//! | range at a revision | versions of each key | look into that copy |
//! | events from a revision | log | difference of neighbouring copies |
//! | compact | prune | refuse older copies |

use std::collections::BTreeMap;

use etcd_client::proto::{
    PbCompare, PbDeleteRequest, PbPutRequest, PbRangeRequest, PbRangeResponse, PbTargetUnion, PbTxnOpRequest,
    PbTxnRequest, PbTxnRequestOp,
};
use isthmus_store::StoreError;
use isthmus_store::mvcc::{EventFilter, Identity, Mvcc, Retention, Span};
use proptest::prelude::*;

#[derive(Clone, Debug, PartialEq)]
struct Value {
    value: Vec<u8>,
    create: i64,
    modified: i64,
    version: i64,
    lease: i64,
}

type Copy = BTreeMap<Vec<u8>, Value>;

#[derive(Debug)]
struct Model {
    /// Number n is the state at revision n + 1.
    copies: Vec<Copy>,
    compacted: i64,
}

impl Model {
    fn revision(&self) -> i64 {
        self.copies.len() as i64
    }

    fn at(&self, revision: i64) -> &Copy {
        &self.copies[(revision - 1) as usize]
    }

    fn newest(&self) -> &Copy {
        self.at(self.revision())
    }

    fn change(&mut self, change: impl FnOnce(&mut Copy, i64)) {
        let mut copy = self.newest().clone();
        change(&mut copy, self.revision() + 1);
        if copy != *self.newest() {
            self.copies.push(copy);
        }
    }
}

fn put_into(copy: &mut Copy, key: &[u8], value: &[u8], lease: i64, revision: i64) {
    let before = copy.get(key);
    let fresh = Value {
        value: value.to_vec(),
        create: before.map_or(revision, |b| b.create),
        modified: revision,
        version: before.map_or(1, |b| b.version + 1),
        lease,
    };
    copy.insert(key.to_vec(), fresh);
}

#[derive(Clone, Debug)]
enum Step {
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
        leased: bool,
    },
    Delete {
        span: (Vec<u8>, Vec<u8>),
    },
    /// Create `key` if it is not there, else delete it and put `other`.
    Txn {
        key: Vec<u8>,
        other: Vec<u8>,
    },
    Range {
        span: (Vec<u8>, Vec<u8>),
        back: i64,
        limit: i64,
        descend: bool,
    },
    Pages {
        span: (Vec<u8>, Vec<u8>),
        limit: i64,
    },
    Events {
        span: (Vec<u8>, Vec<u8>),
        back: i64,
    },
    Compact {
        back: i64,
    },
    Revoke,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    // Few keys, so that they are written again and again; one byte only sometimes, so that prefixes matter.
    prop::collection::vec(prop::sample::select(vec![b'a', b'b', b'/', 0xff]), 1..4)
}

fn span() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    (key(), prop_oneof![Just(vec![]), Just(vec![0]), key()])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (key(), prop::collection::vec(any::<u8>(), 0..4), any::<bool>())
            .prop_map(|(key, value, leased)| Step::Put { key, value, leased }),
        2 => span().prop_map(|span| Step::Delete { span }),
        2 => (key(), key()).prop_map(|(key, other)| Step::Txn { key, other }),
        4 => (span(), 0..20i64, 0..4i64, any::<bool>())
            .prop_map(|(span, back, limit, descend)| Step::Range { span, back, limit, descend }),
        2 => (span(), 1..3i64).prop_map(|(span, limit)| Step::Pages { span, limit }),
        3 => (span(), 0..20i64).prop_map(|(span, back)| Step::Events { span, back }),
        1 => (0..10i64).prop_map(|back| Step::Compact { back }),
        1 => Just(Step::Revoke),
    ]
}

fn expected(copy: &Copy, span: &Span, limit: i64, descend: bool) -> (Vec<(Vec<u8>, Value)>, i64, bool) {
    let mut all: Vec<_> = copy
        .iter()
        .filter(|(key, _)| span.contains(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let count = all.len() as i64;
    if descend {
        all.reverse();
    }
    let more = limit > 0 && count > limit;
    if more {
        all.truncate(limit as usize);
    }
    (all, count, more)
}

fn got(response: &PbRangeResponse) -> (Vec<(Vec<u8>, Value)>, i64, bool) {
    let rows = response.kvs.iter().map(|kv| {
        let value = Value {
            value: kv.value.clone(),
            create: kv.create_revision,
            modified: kv.mod_revision,
            version: kv.version,
            lease: kv.lease,
        };
        (kv.key.clone(), value)
    });
    (rows.collect(), response.count, response.more)
}

struct Run {
    store: Mvcc,
    model: Model,
    lease: i64,
}

impl Run {
    fn new() -> Self {
        let mut store = Mvcc::new(Identity {
            cluster_id: 7,
            member_id: 9,
        });
        let (lease, _) = store.lease_grant(0, 0, 900).unwrap();
        Self {
            store,
            model: Model {
                copies: vec![Copy::new()],
                compacted: 0,
            },
            lease,
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Put { key, value, leased } => self.put(key, value, if *leased { self.lease } else { 0 }),
            Step::Delete { span } => self.delete(span),
            Step::Txn { key, other } => self.txn(key, other),
            Step::Range {
                span,
                back,
                limit,
                descend,
            } => self.range(span, *back, *limit, *descend),
            Step::Pages { span, limit } => self.pages(span, *limit),
            Step::Events { span, back } => self.events(span, *back),
            Step::Compact { back } => self.compact(*back),
            Step::Revoke => self.revoke(),
        }
        assert_eq!(self.store.revision(), self.model.revision(), "after {step:?}");
        assert_eq!(self.store.sizes().keys, self.model.newest().len() as u64);
    }

    fn put(&mut self, key: &[u8], value: &[u8], lease: i64) {
        let before = self.model.newest().get(key).cloned();
        let request = PbPutRequest {
            key: key.into(),
            value: value.into(),
            lease,
            prev_kv: true,
            ..Default::default()
        };
        let response = self.store.put(&request).unwrap();
        assert_eq!(
            response.prev_kv.map(|kv| kv.mod_revision),
            before.map(|b| b.modified)
        );
        self.model
            .change(|copy, revision| put_into(copy, key, value, lease, revision));
    }

    fn delete(&mut self, (key, range_end): &(Vec<u8>, Vec<u8>)) {
        let span = Span::new(key, range_end);
        let doomed: Vec<_> = self
            .model
            .newest()
            .keys()
            .filter(|k| span.contains(k))
            .cloned()
            .collect();
        let request = PbDeleteRequest {
            key: key.clone(),
            range_end: range_end.clone(),
            prev_kv: true,
        };
        let response = self.store.delete(&request).unwrap();
        assert_eq!(
            response.prev_kvs.into_iter().map(|kv| kv.key).collect::<Vec<_>>(),
            doomed
        );
        self.model.change(|copy, _| copy.retain(|k, _| !span.contains(k)));
    }

    fn txn(&mut self, key: &[u8], other: &[u8]) {
        let op = |request| PbTxnRequestOp {
            request: Some(request),
        };
        let put = |key: &[u8]| {
            op(PbTxnOpRequest::RequestPut(PbPutRequest {
                key: key.into(),
                value: b"t".into(),
                ..Default::default()
            }))
        };
        let delete = PbTxnOpRequest::RequestDeleteRange(PbDeleteRequest {
            key: key.into(),
            ..Default::default()
        });
        let get = PbTxnOpRequest::RequestRange(PbRangeRequest {
            key: other.into(),
            ..Default::default()
        });
        let request = PbTxnRequest {
            compare: vec![PbCompare {
                key: key.into(),
                target: 1,
                target_union: Some(PbTargetUnion::CreateRevision(0)),
                ..Default::default()
            }],
            success: vec![put(key)],
            failure: vec![op(delete), put(other), op(get)],
        };
        let result = self.store.txn(&request);
        if key == other {
            assert_eq!(result, Err(StoreError::DuplicateKey));
            return;
        }
        let create = !self.model.newest().contains_key(key);
        let response = result.unwrap();
        assert_eq!(response.succeeded, create);
        self.model.change(|copy, revision| {
            if create {
                put_into(copy, key, b"t", 0, revision);
            } else {
                copy.remove(key);
                put_into(copy, other, b"t", 0, revision);
            }
        });
    }

    fn range(&self, (key, range_end): &(Vec<u8>, Vec<u8>), back: i64, limit: i64, descend: bool) {
        let revision = self.model.revision() - back;
        let request = PbRangeRequest {
            key: key.clone(),
            range_end: range_end.clone(),
            revision: revision.max(0),
            limit,
            sort_order: if descend { 2 } else { 0 },
            ..Default::default()
        };
        let result = self.store.range(&request);
        if revision > 0 && revision < self.model.compacted {
            assert_eq!(result, Err(StoreError::Compacted));
            return;
        }
        let copy = if revision > 0 {
            self.model.at(revision)
        } else {
            self.model.newest()
        };
        let want = expected(copy, &Span::new(key, range_end), limit, descend);
        assert_eq!(got(&result.unwrap()), want, "{request:?}");
    }

    /// The list of a mesh reader: pages at the revision of the first, each from the last key and a NUL byte on.
    fn pages(&self, (key, range_end): &(Vec<u8>, Vec<u8>), limit: i64) {
        if range_end.is_empty() {
            return;
        }
        let (mut from, mut all) = (key.clone(), Vec::new());
        loop {
            let request = PbRangeRequest {
                key: from.clone(),
                range_end: range_end.clone(),
                limit,
                revision: self.store.revision(),
                ..Default::default()
            };
            let response = self.store.range(&request).unwrap();
            all.extend(got(&response).0);
            match response.kvs.last() {
                Some(last) if response.more => from = [&last.key[..], b"\0"].concat(),
                _ => break,
            }
        }
        assert_eq!(
            all,
            expected(self.model.newest(), &Span::new(key, range_end), 0, false).0
        );
    }

    fn events(&self, (key, range_end): &(Vec<u8>, Vec<u8>), back: i64) {
        let span = Span::new(key, range_end);
        let from = (self.model.revision() - back).max(self.model.compacted.max(1) + 1);
        let filter = EventFilter {
            span: span.clone(),
            no_put: false,
            no_delete: false,
            prev_kv: false,
        };
        let mut want = Vec::new();
        for revision in from..=self.model.revision() {
            let (old, new) = (self.model.at(revision - 1), self.model.at(revision));
            let keys = old
                .keys()
                .chain(new.keys())
                .collect::<std::collections::BTreeSet<_>>();
            for key in keys
                .into_iter()
                .filter(|key| span.contains(key) && old.get(*key) != new.get(*key))
            {
                want.push((revision, key.clone(), new.get(key).map(|v| v.value.clone())));
            }
        }
        let batch = self.store.events(from, &filter);
        assert_eq!(batch.next, self.model.revision().max(from - 1) + 1);
        let mut seen: Vec<_> = batch
            .events
            .iter()
            .map(|event| {
                let record = &event.record;
                let value = (!record.is_deletion()).then(|| record.value().to_vec());
                (record.mod_revision, record.key().to_vec(), value)
            })
            .collect();
        assert!(seen.is_sorted_by_key(|(revision, ..)| *revision));
        seen.sort();
        want.sort();
        assert_eq!(seen, want);
    }

    fn compact(&mut self, back: i64) {
        let revision = self.model.revision() - back;
        let result = self.store.compact(revision);
        if revision <= self.model.compacted {
            assert_eq!(result, Err(StoreError::Compacted));
            return;
        }
        result.unwrap();
        self.model.compacted = revision;
        // In small bites, as the daemon does.
        while self.store.compact_step(2) {}
    }

    fn revoke(&mut self) {
        let lease = self.lease;
        self.store.lease_revoke(lease).unwrap();
        self.model
            .change(|copy, _| copy.retain(|_, value| value.lease != lease));
        self.lease = self.store.lease_grant(0, 0, 900).unwrap().0;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_core_behaves_like_the_model(steps in prop::collection::vec(step(), 1..120)) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step);
        }
        // At the end everything is compacted: what is left is what is live, to the byte.
        let revision = run.store.revision();
        if revision > run.store.compacted() {
            run.store.compact(revision).unwrap();
            while run.store.compact_step(3) {}
        }
        let sizes = run.store.sizes();
        prop_assert!(sizes.log <= 150, "only changes of the last revision stay in the log: {}", sizes.log);
    }
}

#[test]
fn many_keys_in_any_order_are_counted_and_found() {
    // 5,000 keys fill several chunks; inserted with a stride so that chunks split in the middle.
    let mut store = Mvcc::new(Identity {
        cluster_id: 1,
        member_id: 1,
    });
    let n = 5_000u64;
    for i in 0..n {
        let key = format!("k/{:05}", (i * 1_777) % n).into_bytes();
        store
            .put(&PbPutRequest {
                key,
                value: b"v".into(),
                ..Default::default()
            })
            .unwrap();
    }
    let count = |store: &Mvcc, key: &str, end: &str, revision: i64| {
        let request = PbRangeRequest {
            key: key.into(),
            range_end: end.into(),
            count_only: true,
            revision,
            ..Default::default()
        };
        store.range(&request).unwrap().count
    };
    assert_eq!(count(&store, "k/", "k0", 0), 5_000);
    assert_eq!(count(&store, "k/01000", "k/03000", 0), 2_000);
    assert_eq!(
        count(&store, "k/", "k0", 2_501),
        2_500,
        "one key a revision, from revision 2 on"
    );
    for i in (0..n).step_by(2) {
        let key = format!("k/{i:05}").into_bytes();
        store
            .delete(&PbDeleteRequest {
                key,
                ..Default::default()
            })
            .unwrap();
    }
    assert_eq!(count(&store, "k/", "k0", 0), 2_500);
    assert_eq!(count(&store, "k/01000", "k/03000", 0), 1_000);
    assert_eq!(count(&store, "k/01000", "k/03000", 5_001), 2_000);
    let full = store.sizes();
    store.compact(store.revision()).unwrap();
    while store.compact_step(100) {}
    let lean = store.sizes();
    assert_eq!(count(&store, "k/01000", "k/03000", 0), 1_000);
    assert!(lean.bytes < full.bytes / 2 && lean.log <= 1, "{full:?} {lean:?}");
}

#[test]
fn a_lease_ends_when_it_is_not_renewed() {
    let mut store = Mvcc::new(Identity {
        cluster_id: 1,
        member_id: 1,
    });
    let (id, ttl) = store.lease_grant(0, 0, 10).unwrap();
    assert_eq!((ttl, store.lease_deadline()), (10, Some(10_000)));
    for key in ["a", "b"] {
        let request = PbPutRequest {
            key: key.into(),
            lease: id,
            ..Default::default()
        };
        store.put(&request).unwrap();
    }
    store
        .put(&PbPutRequest {
            key: b"c".into(),
            ..Default::default()
        })
        .unwrap();
    // Attached to nothing any more: stays.
    store
        .put(&PbPutRequest {
            key: b"b".into(),
            ..Default::default()
        })
        .unwrap();
    assert_eq!(store.lease_renew(9_000, id), Some(10));
    assert_eq!(store.lease_expire(18_999), 0);
    let before = store.revision();
    assert_eq!(store.lease_expire(19_000), 1);
    assert_eq!(store.revision(), before + 1);
    assert!(store.newest(b"a").is_none() && store.newest(b"b").is_some() && store.newest(b"c").is_some());
    assert_eq!(store.lease_renew(19_000, id), None);
    let gone = PbPutRequest {
        key: b"a".into(),
        lease: id,
        ..Default::default()
    };
    assert_eq!(store.put(&gone), Err(StoreError::LeaseNotFound));
    assert_eq!(store.lease_grant(0, 5, 1).unwrap(), (5, 2), "raised to the least");
    assert_eq!(store.lease_grant(0, 5, 1), Err(StoreError::LeaseExists));
    assert_eq!(
        store.lease_grant(0, 6, 9_000_000_001),
        Err(StoreError::LeaseTtlTooLarge)
    );
}

#[test]
fn history_is_kept_an_hour_or_until_its_budget_but_never_from_under_a_list() {
    let minute = 60_000;
    let mut store = Mvcc::new(Identity {
        cluster_id: 1,
        member_id: 1,
    });
    let put = |store: &mut Mvcc, times: usize| {
        for _ in 0..times {
            let request = PbPutRequest {
                key: b"k".into(),
                value: vec![0; 1_000],
                ..Default::default()
            };
            store.put(&request).unwrap();
        }
    };
    let mut retention = Retention::new(60 * minute, 1 << 20);
    put(&mut store, 10);
    assert_eq!(retention.target(0, &store, None), None);
    put(&mut store, 10);
    assert_eq!(retention.target(59 * minute, &store, None), None);
    assert_eq!(
        retention.target(60 * minute, &store, Some(5)),
        Some(5),
        "a list still reads revision 5"
    );
    store.compact(5).unwrap();
    assert_eq!(
        retention.target(119 * minute, &store, None),
        Some(21),
        "the sample of minute 59"
    );
    store.compact(21).unwrap();
    while store.compact_step(100) {}
    put(&mut store, 2_000);
    let target = retention.target(119 * minute, &store, None).unwrap();
    assert!(
        (900..1_100).contains(&target),
        "half of the history goes when its bytes exceed the budget: {target}"
    );
}
