//! The ordered index of all keys, in chunks that know how many of their keys live.
//!
//! A list in pages asks on every page how many keys lie behind it (`count` of a Range reply). With the counts of the
//! chunks that costs one step for each 512 keys instead of one for each key.

use std::sync::Arc;

use super::record::Record;
use super::span::Span;

/// Keys in a chunk before it is split.
const CHUNK_MAX: usize = 512;

/// All kept versions of one key; the newest apart, because most keys have only that one.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) newest: Arc<Record>,
    /// Ascending.
    pub(crate) older: Vec<Arc<Record>>,
}

impl Entry {
    /// The version that was current at `revision`, unless the key did not exist then.
    pub(crate) fn at(&self, revision: i64) -> Option<&Arc<Record>> {
        let record = if self.newest.mod_revision <= revision {
            &self.newest
        } else {
            let place = self
                .older
                .partition_point(|record| record.mod_revision <= revision);
            self.older.get(place.checked_sub(1)?)?
        };
        (!record.is_deletion()).then_some(record)
    }
}

#[derive(Debug, Default)]
struct Chunk {
    entries: Vec<Entry>,
    /// Entries whose newest version is no deletion.
    live: usize,
    /// Highest revision in the chunk.
    newest: i64,
}

impl Chunk {
    fn recount(&mut self) {
        self.live = self
            .entries
            .iter()
            .filter(|entry| !entry.newest.is_deletion())
            .count();
        self.newest = self
            .entries
            .iter()
            .map(|entry| entry.newest.mod_revision)
            .max()
            .unwrap_or(0);
    }

    fn find(&self, key: &[u8]) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| entry.newest.key().cmp(key))
    }
}

/// The index.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// None is empty.
    chunks: Vec<Chunk>,
}

impl Index {
    /// Keys that exist now.
    pub(crate) fn live(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.live).sum()
    }

    pub(crate) fn entry(&self, key: &[u8]) -> Option<&Entry> {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        chunk.find(key).ok().map(|place| &chunk.entries[place])
    }

    /// The newest version of `key` if it exists now.
    pub(crate) fn newest(&self, key: &[u8]) -> Option<&Arc<Record>> {
        self.entry(key)
            .map(|entry| &entry.newest)
            .filter(|record| !record.is_deletion())
    }

    /// Makes `record` the newest version of its key.
    pub(crate) fn push(&mut self, record: Arc<Record>) {
        let number = self.chunk_of(record.key());
        let Some(chunk) = self.chunks.get_mut(number) else {
            let mut chunk = Chunk {
                entries: vec![Entry {
                    newest: record,
                    older: Vec::new(),
                }],
                ..Chunk::default()
            };
            chunk.recount();
            return self.chunks.push(chunk);
        };
        chunk.newest = record.mod_revision;
        chunk.live += usize::from(!record.is_deletion());
        match chunk.find(record.key()) {
            Ok(place) => {
                let entry = &mut chunk.entries[place];
                chunk.live -= usize::from(!entry.newest.is_deletion());
                let old = std::mem::replace(&mut entry.newest, record);
                entry.older.push(old);
            }
            Err(place) => {
                chunk.entries.insert(
                    place,
                    Entry {
                        newest: record,
                        older: Vec::new(),
                    },
                );
                if chunk.entries.len() > CHUNK_MAX {
                    self.split(number);
                }
            }
        }
    }

    /// Halves a chunk, or cuts off its last key if it is the last chunk: keys that come in order then fill theirs.
    fn split(&mut self, number: usize) {
        let last = number + 1 == self.chunks.len();
        let chunk = &mut self.chunks[number];
        let place = if last {
            chunk.entries.len() - 1
        } else {
            chunk.entries.len() / 2
        };
        let mut rest = Chunk {
            entries: chunk.entries.split_off(place),
            ..Chunk::default()
        };
        // Growing has doubled its room, and a chunk that is cut off at its end grows no more.
        chunk.entries.shrink_to_fit();
        chunk.recount();
        rest.recount();
        self.chunks.insert(number + 1, rest);
    }

    /// Forgets the versions of `key` that nobody can read any more when all before `revision` is compacted, and
    /// answers the bytes that became free.
    pub(crate) fn prune(&mut self, key: &[u8], revision: i64) -> u64 {
        let number = self.chunk_of(key);
        let Some(chunk) = self.chunks.get_mut(number) else {
            return 0;
        };
        let Ok(place) = chunk.find(key) else { return 0 };
        let entry = &mut chunk.entries[place];
        if entry.newest.mod_revision <= revision {
            let mut freed: u64 = entry.older.drain(..).map(|record| record.cost()).sum();
            entry.older.shrink_to_fit();
            if entry.newest.is_deletion() {
                freed += entry.newest.cost();
                chunk.entries.remove(place);
                if chunk.entries.is_empty() {
                    self.chunks.remove(number);
                }
            }
            return freed;
        }
        let keep = entry
            .older
            .partition_point(|record| record.mod_revision <= revision)
            .saturating_sub(1);
        let mut freed = entry.older.drain(..keep).map(|record| record.cost()).sum();
        if entry
            .older
            .first()
            .is_some_and(|first| first.is_deletion() && first.mod_revision <= revision)
        {
            freed += entry.older.remove(0).cost();
        }
        freed
    }

    /// Entries of the span, in order.
    pub(crate) fn entries<'a>(&'a self, span: &'a Span) -> impl Iterator<Item = &'a Entry> {
        let first = self.chunk_of(span.start());
        let chunks = self.chunks.get(first..).unwrap_or_default();
        let skip = chunks
            .first()
            .map_or(0, |chunk| chunk.find(span.start()).unwrap_or_else(|place| place));
        let head = chunks.first().map_or(&[][..], |chunk| &chunk.entries[skip..]);
        let tail = chunks
            .get(1..)
            .unwrap_or_default()
            .iter()
            .flat_map(|chunk| chunk.entries.iter());
        head.iter()
            .chain(tail)
            .take_while(|entry| span.reaches(entry.newest.key()))
    }

    /// Keys of the span that existed at `revision`.
    pub(crate) fn count(&self, span: &Span, revision: i64) -> usize {
        if let Some(key) = span.single() {
            return usize::from(self.entry(key).is_some_and(|entry| entry.at(revision).is_some()));
        }
        let first = self.chunk_of(span.start());
        let mut count = 0;
        for chunk in self.chunks.get(first..).unwrap_or_default() {
            let inside = |entry: &&Entry| span.contains(entry.newest.key());
            let (Some(low), Some(high)) = (chunk.entries.first(), chunk.entries.last()) else {
                continue;
            };
            if !span.reaches(low.newest.key()) && low.newest.key() >= span.start() {
                break;
            }
            let whole = inside(&low) && inside(&high) && chunk.newest <= revision;
            count += match whole {
                true => chunk.live,
                false => chunk
                    .entries
                    .iter()
                    .filter(inside)
                    .filter(|entry| entry.at(revision).is_some())
                    .count(),
            };
        }
        count
    }

    /// Number of the chunk in which `key` is or would be.
    fn chunk_of(&self, key: &[u8]) -> usize {
        let after = self.chunks.partition_point(|chunk| {
            chunk
                .entries
                .first()
                .is_some_and(|entry| entry.newest.key() <= key)
        });
        after.saturating_sub(1)
    }
}
