//! The bookkeeping of one table that is listed and then watched (spec §2.2): which keys are known, what a new list says
//! about them, and which list or watch is needed next.
//!
//! ```text
//!            start             last page               watch canceled: compacted, failed
//!   Idle ───────────▶ Listing ───────────▶ Watching ──────────────▶ Listing (at once, or after a delay)
//!     ▲                │    ▲ page: compacted (at once), failed (after a delay)
//!     └── disconnected ┘────┘
//! ```
//! A key that a complete list does not have any more is deleted when that list ends, never before; so entries survive
//! any number of broken connections, and a delete that nobody saw is made up for.
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::backoff::Backoff;

/// A key without the prefix of its table.
pub(crate) type Suffix = Box<[u8]>;

/// What happened to a key while it was watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// The key without the prefix.
    pub(crate) suffix: Suffix,
    /// Its new value; none if it was deleted.
    pub(crate) value: Option<Vec<u8>>,
    /// The revision of the change.
    pub(crate) revision: i64,
}

/// What the owner has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Request the page that begins at this suffix, at this revision (0: the newest).
    List {
        /// Empty for the first page.
        from: Vec<u8>,
        /// 0 for the first page, then the revision of the first page.
        revision: i64,
    },
    /// Create a watch from this revision on.
    Watch {
        /// First revision of interest.
        revision: i64,
    },
    /// Set an entry.
    Put {
        /// Its key.
        suffix: Suffix,
        /// Its value.
        value: Vec<u8>,
    },
    /// Delete an entry.
    Delete {
        /// Its key.
        suffix: Suffix,
    },
    /// Everything that the list had has been put, and everything that it had not has been deleted.
    Synced,
}

/// A page does not ascend, or begins before the one before it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutOfOrder;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    /// A page is requested; 0 is the first one's revision.
    Listing {
        revision: i64,
    },
    /// A list failed and is tried again then.
    Waiting {
        until: Instant,
    },
    /// Everything before this revision has been seen.
    Watching {
        next: i64,
    },
}

/// The list and watch of one table.
#[derive(Debug)]
pub(crate) struct ListWatch {
    state: State,
    /// Every key that may be there, with the number of the list that last confirmed it.
    known: BTreeMap<Suffix, u32>,
    lists: u32,
    /// Where the page that is requested begins.
    from: Vec<u8>,
    synced: bool,
    retry: Backoff,
    actions: VecDeque<Action>,
}

impl ListWatch {
    /// A table of which nothing is known. Failed lists are tried again after delays from `min` to `max`.
    pub(crate) fn new(min: Duration, max: Duration, seed: u64) -> Self {
        Self {
            state: State::Idle,
            known: BTreeMap::new(),
            lists: 0,
            from: Vec::new(),
            synced: false,
            retry: Backoff::new(min, max, seed),
            actions: VecDeque::new(),
        }
    }

    /// What to do next.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } => Some(until),
            _ => None,
        }
    }

    /// True from the end of a list until the connection breaks or another list is needed.
    pub(crate) fn is_synced(&self) -> bool {
        self.synced
    }

    /// True between [`Self::start`] and [`Self::disconnected`].
    pub(crate) fn is_started(&self) -> bool {
        self.state != State::Idle
    }

    /// How often the list has failed in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.retry.attempts()
    }

    /// The connection is up and the table may be read.
    pub(crate) fn start(&mut self) {
        if self.state == State::Idle {
            self.list();
        }
    }

    /// The connection is gone: all entries stay, and the next list decides about them.
    pub(crate) fn disconnected(&mut self) {
        self.state = State::Idle;
        self.synced = false;
        // Puts and deletes that were already decided stay decided; requests have nobody left to answer them.
        self.actions
            .retain(|action| matches!(action, Action::Put { .. } | Action::Delete { .. }));
    }

    /// All entries have been dropped by the owner.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
        self.actions
            .retain(|action| !matches!(action, Action::Put { .. } | Action::Delete { .. }));
    }

    /// The page that was requested last; `revision` is its header's. One that does not go on where the one before it
    /// ended is refused: with such a server a list would never end.
    pub(crate) fn page(
        &mut self,
        revision: i64,
        entries: Vec<(Suffix, Vec<u8>)>,
        more: bool,
    ) -> Result<(), OutOfOrder> {
        let State::Listing { revision: at } = self.state else {
            return Ok(());
        };
        let ascends = entries.is_sorted_by(|(a, _), (b, _)| a < b);
        if !ascends || entries.first().is_some_and(|(first, _)| **first < *self.from) {
            return Err(OutOfOrder);
        }
        let revision = if at == 0 { revision } else { at };
        // The next page is requested before this one is worked on: the two overlap.
        let next = entries.last().filter(|_| more).map(|(last, _)| {
            let mut from = last.to_vec();
            from.push(0);
            from
        });
        self.state = match next {
            Some(from) => {
                self.from.clone_from(&from);
                self.actions.push_back(Action::List { from, revision });
                State::Listing { revision }
            }
            None => State::Watching { next: revision + 1 },
        };
        for (suffix, value) in entries {
            self.known.insert(suffix.clone(), self.lists);
            self.actions.push_back(Action::Put { suffix, value });
        }
        if matches!(self.state, State::Watching { .. }) {
            self.complete(revision);
        }
        Ok(())
    }

    fn complete(&mut self, revision: i64) {
        let current = self.lists;
        let stale = self.known.extract_if(.., |_, list| *list != current);
        self.actions
            .extend(stale.map(|(suffix, _)| Action::Delete { suffix }));
        self.synced = true;
        self.retry.reset();
        self.actions.push_back(Action::Synced);
        self.actions.push_back(Action::Watch {
            revision: revision + 1,
        });
    }

    /// The revision of a list or watch has been compacted away: everything is listed anew, at once.
    pub(crate) fn compacted(&mut self) {
        if self.state != State::Idle {
            self.list();
        }
    }

    /// A list or watch was refused: everything is listed anew, after a delay.
    pub(crate) fn failed(&mut self, now: Instant) {
        if self.state != State::Idle {
            self.synced = false;
            let until = now + self.retry.next();
            self.state = State::Waiting { until };
        }
    }

    /// The delay after a failure may be over.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if matches!(self.state, State::Waiting { until } if until <= now) {
            self.list();
        }
    }

    /// Changes that the watch has seen. Says how many deletes there were of keys that were not there.
    pub(crate) fn events(&mut self, events: Vec<Event>) -> usize {
        let State::Watching { next } = &mut self.state else {
            return 0;
        };
        let mut unknown = 0;
        for event in events {
            // Not the header's revision: a server that lags sends old events under its newest revision, in several parts.
            *next = (*next).max(event.revision + 1);
            match event.value {
                Some(value) => {
                    self.known.insert(event.suffix.clone(), self.lists);
                    self.actions.push_back(Action::Put {
                        suffix: event.suffix,
                        value,
                    });
                }
                None if self.known.remove(&event.suffix).is_some() => {
                    self.actions.push_back(Action::Delete { suffix: event.suffix });
                }
                None => unknown += 1,
            }
        }
        unknown
    }

    /// The stream of the watch ended without an error: it goes on where it was.
    pub(crate) fn rewatch(&mut self) {
        if let State::Watching { next } = self.state {
            self.actions.push_back(Action::Watch { revision: next });
        }
    }

    fn list(&mut self) {
        self.state = State::Listing { revision: 0 };
        self.synced = false;
        self.lists = self.lists.wrapping_add(1);
        self.from.clear();
        self.actions.push_back(Action::List {
            from: Vec::new(),
            revision: 0,
        });
    }
}

#[cfg(test)]
mod tests;
