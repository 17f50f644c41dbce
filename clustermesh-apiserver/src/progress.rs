//! How far the export is: counted by the writer, read by status and metrics.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use isthmus_kvstore::Family;
use jiff::Timestamp;

/// Counters of the whole export.
#[derive(Debug)]
pub(crate) struct Progress {
    families: BTreeMap<Family, FamilyProgress>,
    /// For keys that belong to no family: cluster-config, canaries, heartbeat.
    pub(crate) own: FamilyProgress,
    failures: AtomicU64,
    writes: AtomicU64,
    write_nanos: AtomicU64,
    heartbeat: Mutex<Option<Timestamp>>,
    ready: OnceLock<Instant>,
}

/// Counters of one family.
#[derive(Debug, Default)]
pub(crate) struct FamilyProgress {
    synced: AtomicBool,
    puts: AtomicU64,
    deletes: AtomicU64,
    failures: AtomicU64,
}

impl FamilyProgress {
    pub(crate) fn put(&self) {
        self.puts.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn deleted(&self) {
        self.deletes.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn set_synced(&self) {
        self.synced.store(true, Ordering::Release);
    }

    pub(crate) fn synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    pub(crate) fn puts(&self) -> u64 {
        self.puts.load(Ordering::Relaxed)
    }

    pub(crate) fn deletes(&self) -> u64 {
        self.deletes.load(Ordering::Relaxed)
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            families: Family::ALL
                .into_iter()
                .map(|family| (family, FamilyProgress::default()))
                .collect(),
            own: FamilyProgress::default(),
            failures: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            write_nanos: AtomicU64::new(0),
            heartbeat: Mutex::new(None),
            ready: OnceLock::new(),
        }
    }
}

impl Progress {
    /// The counters of a family.
    pub(crate) fn family(&self, family: Family) -> &FamilyProgress {
        // Every family is there from the start.
        self.families.get(&family).unwrap_or(&self.own)
    }

    /// Families without a canary yet.
    pub(crate) fn unsynced(&self) -> Vec<Family> {
        self.families
            .iter()
            .filter(|(_, progress)| !progress.synced())
            .map(|(family, _)| *family)
            .collect()
    }

    /// Remembers when the last canary was written.
    pub(crate) fn note_ready(&self) {
        if self.unsynced().is_empty() {
            self.ready.get_or_init(Instant::now);
        }
    }

    /// When the last canary was written.
    pub(crate) fn ready_at(&self) -> Option<Instant> {
        self.ready.get().copied()
    }

    pub(crate) fn write_failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn wrote(&self, count: usize, taken: Duration) {
        self.writes.fetch_add(count as u64, Ordering::Relaxed);
        self.write_nanos.fetch_add(
            u64::try_from(taken.as_nanos()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }

    /// Writes that the store refused, writes, and seconds spent writing.
    pub(crate) fn totals(&self) -> (u64, u64, f64) {
        let nanos = self.write_nanos.load(Ordering::Relaxed);
        (
            self.failures.load(Ordering::Relaxed),
            self.writes.load(Ordering::Relaxed),
            nanos as f64 / 1e9,
        )
    }

    pub(crate) fn beat(&self, at: Timestamp) {
        *self.heartbeat.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    pub(crate) fn heartbeat(&self) -> Option<Timestamp> {
        *self.heartbeat.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
