//! The log of changes, read by watches.

use std::sync::Arc;

use etcd_client::proto::PbEvent;

use super::record::Record;
use super::{Mvcc, Span};

/// `EventType` of the API.
const PUT: i32 = 0;
const DELETE: i32 = 1;

/// What one watch wants to see.
#[derive(Clone, Debug)]
pub struct EventFilter {
    /// The watched keys.
    pub span: Span,
    /// Leave out puts.
    pub no_put: bool,
    /// Leave out deletions.
    pub no_delete: bool,
    /// Give the version before, too.
    pub prev_kv: bool,
}

/// One change of one key.
#[derive(Clone, Debug)]
pub struct Event {
    /// The new version.
    pub record: Arc<Record>,
    /// The version before it, if asked for and still kept.
    pub previous: Option<Arc<Record>>,
}

impl Event {
    pub(crate) fn to_pb(&self) -> PbEvent {
        PbEvent {
            r#type: if self.record.is_deletion() { DELETE } else { PUT },
            kv: Some(self.record.to_pb(false)),
            prev_kv: self.previous.as_ref().map(|previous| previous.to_pb(false)),
        }
    }
}

/// Changes of whole revisions.
#[derive(Debug)]
pub struct EventBatch {
    /// The changes, oldest first.
    pub events: Vec<Event>,
    /// From where to read on: every change before this revision was looked at.
    pub next: i64,
}

/// Most records that one call looks at, and most events and bytes that it gives, each beyond the revision in which it is reached.
const SCAN_MAX: usize = 20_000;
const EVENTS_MAX: usize = 1_000;
const BYTES_MAX: u64 = 1 << 20;

impl Mvcc {
    /// Changes from revision `from` on that pass the filter; whole revisions only, bounded in number and bytes.
    /// Changes before [`Mvcc::compacted`] are gone: the caller checks that first.
    pub fn events(&self, from: i64, filter: &EventFilter) -> EventBatch {
        let first = self.log.partition_point(|record| record.mod_revision < from);
        let mut batch = EventBatch {
            events: Vec::new(),
            next: self.revision.max(from - 1) + 1,
        };
        let (mut bytes, mut last) = (0, from - 1);
        for (seen, record) in self.log.range(first..).enumerate() {
            let full = seen >= SCAN_MAX || batch.events.len() >= EVENTS_MAX || bytes >= BYTES_MAX;
            if full && record.mod_revision != last {
                batch.next = record.mod_revision;
                break;
            }
            last = record.mod_revision;
            let unwanted = if record.is_deletion() {
                filter.no_delete
            } else {
                filter.no_put
            };
            if unwanted || !filter.span.contains(record.key()) {
                continue;
            }
            bytes += record.cost();
            let previous = filter.prev_kv.then(|| self.before(record)).flatten();
            batch.events.push(Event {
                record: Arc::clone(record),
                previous,
            });
        }
        batch
    }

    fn before(&self, record: &Record) -> Option<Arc<Record>> {
        self.index
            .entry(record.key())?
            .at(record.mod_revision - 1)
            .cloned()
    }
}
