//! Remembers since when something has been wrong, and tells the log once.
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use crate::Problem;
use crate::fault::Fault;

/// The problems that are known.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    since: BTreeMap<(Arc<Path>, String), Timestamp>,
    current: Arc<Vec<Problem>>,
}

impl Problems {
    /// Takes what is wrong now; logs what is new and what is gone. Pointer-equal to the last answer if nothing changed.
    pub(crate) fn update(&mut self, faults: Vec<(Arc<Path>, Fault)>, now: Timestamp) -> Arc<Vec<Problem>> {
        let mut since = BTreeMap::new();
        let mut problems = Vec::with_capacity(faults.len());
        for (file, Fault { line, column, reason }) in faults {
            let key = (file.clone(), reason.clone());
            let known = self.since.remove(&key);
            let first = since.get(&key).copied().or(known);
            if first.is_none() {
                tracing::warn!(file = %file.display(), line, column, reason, "manifest refused");
            }
            let begun = first.unwrap_or(now);
            since.insert(key, begun);
            problems.push(Problem {
                file,
                line,
                column,
                reason,
                since: begun,
            });
        }
        for (file, reason) in self.since.keys() {
            tracing::info!(file = %file.display(), reason, "manifest mended");
        }
        self.since = since;
        if *self.current != problems {
            self.current = Arc::new(problems);
        }
        self.current.clone()
    }
}
