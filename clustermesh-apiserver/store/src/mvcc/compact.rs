//! Forgetting old revisions.

use std::collections::VecDeque;

use super::Mvcc;
use crate::error::StoreError;

impl Mvcc {
    /// Declares all before `revision` unreadable. The memory is freed by [`Mvcc::compact_step`].
    pub fn compact(&mut self, revision: i64) -> Result<(), StoreError> {
        if revision > self.revision {
            return Err(StoreError::FutureRevision);
        }
        if revision <= self.compacted {
            return Err(StoreError::Compacted);
        }
        self.compacted = revision;
        Ok(())
    }

    /// Frees what up to `budget` compacted changes have left; answers whether there is more to do.
    pub fn compact_step(&mut self, budget: usize) -> bool {
        for _ in 0..budget {
            let Some(record) = self
                .log
                .pop_front_if(|record| record.mod_revision < self.compacted)
            else {
                return false;
            };
            self.bytes -= self.index.prune(record.key(), self.compacted);
        }
        self.log
            .front()
            .is_some_and(|record| record.mod_revision < self.compacted)
    }
}

/// Decides how far to compact: what is younger than an hour stays, unless superseded versions fill their budget, and
/// then still what a list under way needs. Pure: [`Retention::target`] is asked about once a minute.
#[derive(Debug)]
pub struct Retention {
    /// Least age of a revision that is compacted, milliseconds.
    min_age: u64,
    /// Bytes of superseded versions beyond which the age does not matter.
    budget: u64,
    /// Time and newest revision then, ascending.
    samples: VecDeque<(u64, i64)>,
}

/// Milliseconds between samples.
const SAMPLE_EVERY: u64 = 60_000;

impl Default for Retention {
    fn default() -> Self {
        Self::new(3_600_000, 32 << 20)
    }
}

impl Retention {
    /// Keeps `min_age` milliseconds of history in up to `budget` bytes.
    pub fn new(min_age: u64, budget: u64) -> Self {
        Self {
            min_age,
            budget,
            samples: VecDeque::new(),
        }
    }

    /// The revision to compact at, if it is time. `oldest_list` is the revision of the slowest list under way.
    pub fn target(&mut self, now: u64, store: &Mvcc, oldest_list: Option<i64>) -> Option<i64> {
        let sizes = store.sizes();
        if self
            .samples
            .back()
            .is_none_or(|(time, _)| now >= time + SAMPLE_EVERY)
        {
            self.samples.push_back((now, sizes.revision));
        }
        let mut target = 0;
        while let Some((_, revision)) = self.samples.pop_front_if(|(time, _)| *time + self.min_age <= now) {
            target = revision;
        }
        if sizes.bytes - sizes.bytes_live > self.budget {
            target = target.max(sizes.compacted + (sizes.revision - sizes.compacted) / 2);
        }
        let target = oldest_list.map_or(target, |list| target.min(list));
        (target > sizes.compacted).then_some(target)
    }
}
