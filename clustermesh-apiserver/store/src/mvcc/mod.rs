//! The core: keys with all their versions, leases, and the log of changes. Pure: no clock, no I/O, no tasks; whoever
//! calls it passes the time (milliseconds of any monotonic clock) and holds the lock.
//!
//! ```text
//!   put k ──► Record (rev 7) ──┬──► Index: k → newest, older…     (Range, also at an old revision)
//!                              └──► log: … rev 6, rev 7            (Watch, from any revision that is kept)
//! ```
//! A revision is one transaction: its changes become visible together and watches never split them.

mod compact;
mod events;
mod index;
mod lease;
mod range;
mod record;
mod span;
mod txn;
mod write;

pub use compact::Retention;
pub use events::{Event, EventBatch, EventFilter};
pub(crate) use lease::LeaseFacts;
pub use lease::{LEASE_TTL_MAX, LEASE_TTL_MIN};
pub use record::Record;
pub use span::Span;
pub(crate) use span::after_prefix;

use std::collections::VecDeque;
use std::sync::Arc;

use etcd_client::proto::PbResponseHeader;

use index::Index;
use lease::LeaseTable;

/// Largest key and value together that is accepted, as etcd's default (1.5 MiB).
pub const REQUEST_MAX: usize = 1536 * 1024;

/// Who this store is in the header of every reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Not 0, and new whenever the history of revisions begins anew (clustermesh.md §2.1).
    pub cluster_id: u64,
    /// Not 0.
    pub member_id: u64,
}

/// The store's state.
#[derive(Debug)]
pub struct Mvcc {
    identity: Identity,
    revision: i64,
    /// Nothing before this revision can be read; 0 before the first compaction.
    compacted: i64,
    index: Index,
    log: VecDeque<Arc<Record>>,
    leases: LeaseTable,
    bytes: u64,
    bytes_live: u64,
}

/// Sizes of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Newest revision.
    pub revision: i64,
    /// Oldest readable revision; 0 if all are.
    pub compacted: i64,
    /// Keys that exist.
    pub keys: u64,
    /// Bytes of all versions that are kept.
    pub bytes: u64,
    /// Bytes of the versions that are current.
    pub bytes_live: u64,
    /// Changes in the log.
    pub log: u64,
    /// Open leases.
    pub leases: u64,
}

impl Mvcc {
    /// An empty store at revision 1, as etcd begins.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            revision: 1,
            compacted: 0,
            index: Index::default(),
            log: VecDeque::new(),
            leases: LeaseTable::default(),
            bytes: 0,
            bytes_live: 0,
        }
    }

    /// The newest revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The oldest revision that can be read; 0 if nothing was compacted.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Who this store is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The newest version of `key`, if it exists.
    pub fn newest(&self, key: &[u8]) -> Option<&Arc<Record>> {
        self.index.newest(key)
    }

    /// The header of a reply made now.
    pub fn header(&self) -> PbResponseHeader {
        let Identity {
            cluster_id,
            member_id,
        } = self.identity;
        PbResponseHeader {
            cluster_id,
            member_id,
            revision: self.revision,
            raft_term: RAFT_TERM,
        }
    }

    /// Sizes, for status.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            revision: self.revision,
            compacted: self.compacted,
            keys: self.index.live() as u64,
            bytes: self.bytes,
            bytes_live: self.bytes_live,
            log: self.log.len() as u64,
            leases: self.leases.len() as u64,
        }
    }
}

/// There is one member and it always leads; etcd's single members say 2.
pub(crate) const RAFT_TERM: u64 = 2;
