//! An ordered table that is cheap to publish: a clone shares everything, a change copies one small chunk.
//!
//! The owner changes its table in place; whenever it wants to publish, it clones it (one reference count). A consumer keeps
//! the clone that it applied last and asks the next one for [`Table::diff`], which skips the chunks that both share, so that
//! its cost follows what changed and not what is there. No consumer can miss a change by being slow.
use std::cmp::Ordering;
use std::sync::Arc;

/// Entries of a chunk at most: what one change copies after a publication.
const CHUNK: usize = 256;
/// Below this a chunk is joined with a neighbour.
const SPARSE: usize = 32;

type Entry<K, V> = Arc<(K, V)>;
type Chunk<K, V> = Arc<Vec<Entry<K, V>>>;

/// A map in key order whose clones are snapshots.
#[derive(Debug)]
pub struct Table<K, V> {
    chunks: Arc<Vec<Chunk<K, V>>>,
    len: usize,
    generation: u64,
}

/// One difference between two snapshots of a table.
#[derive(Debug, PartialEq, Eq)]
pub enum Change<'a, K, V> {
    /// The entry is new (`old` is none) or has another value.
    Put {
        /// Its key.
        key: &'a K,
        /// Its value now.
        value: &'a V,
        /// Its value before.
        old: Option<&'a V>,
    },
    /// The entry is gone.
    Delete {
        /// Its key.
        key: &'a K,
        /// Its last value.
        old: &'a V,
    },
}

impl<K, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Self {
            chunks: Arc::clone(&self.chunks),
            len: self.len,
            generation: self.generation,
        }
    }
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self {
            chunks: Arc::new(Vec::new()),
            len: 0,
            generation: 0,
        }
    }
}

impl<K: Ord, V: PartialEq> PartialEq for Table<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.diff(other).next().is_none()
    }
}

impl<K: Ord, V> Table<K, V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Grows by one with every change of an entry; never falls, not even when the table is cleared.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        let (chunk, found) = self.find(key);
        let position = found.ok()?;
        Some(&self.chunks[chunk][position].1)
    }

    /// All entries in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.chunks
            .iter()
            .flat_map(|chunk| chunk.iter().map(|entry| (&entry.0, &entry.1)))
    }

    /// All values in key order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// What has to be done to make `older` into `self`, in key order.
    pub fn diff<'a>(&'a self, older: &'a Self) -> Diff<'a, K, V> {
        Diff {
            new: Cursor::of(&self.chunks),
            old: Cursor::of(&older.chunks),
        }
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        if self.len > 0 {
            self.chunks = Arc::new(Vec::new());
            self.len = 0;
            self.generation += 1;
        }
    }

    /// Removes one entry and says whether it was there.
    pub fn remove(&mut self, key: &K) -> bool {
        let (index, Ok(position)) = self.find(key) else {
            return false;
        };
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(&mut chunks[index]);
        chunk.remove(position);
        if chunk.is_empty() {
            chunks.remove(index);
        } else if chunk.len() < SPARSE {
            join(chunks, index);
        }
        self.len -= 1;
        self.generation += 1;
        true
    }

    /// The chunk that holds the key or should, and the position in it.
    fn find(&self, key: &K) -> (usize, Result<usize, usize>) {
        let after = self
            .chunks
            .partition_point(|chunk| chunk.first().is_some_and(|first| first.0 <= *key));
        let index = after.saturating_sub(1);
        let found = self
            .chunks
            .get(index)
            .map_or(Err(0), |chunk| chunk.binary_search_by(|entry| entry.0.cmp(key)));
        (index, found)
    }
}

impl<K: Ord, V: PartialEq> Table<K, V> {
    /// Sets an entry and says whether that changed anything.
    pub fn insert(&mut self, key: K, value: V) -> bool {
        let (index, found) = self.find(&key);
        if let Ok(position) = found
            && self.chunks[index][position].1 == value
        {
            return false;
        }
        let chunks = Arc::make_mut(&mut self.chunks);
        if chunks.is_empty() {
            chunks.push(Arc::new(Vec::new()));
        }
        let entry = Arc::new((key, value));
        match found {
            Ok(position) => Arc::make_mut(&mut chunks[index])[position] = entry,
            Err(position) => {
                place(chunks, index, position, entry);
                self.len += 1;
            }
        }
        self.generation += 1;
        true
    }
}

/// Puts a new entry into its chunk, which is divided first if it is full. Entries that come in order fill their chunks.
fn place<K, V>(chunks: &mut Vec<Chunk<K, V>>, index: usize, position: usize, entry: Entry<K, V>) {
    let full = chunks[index].len() >= CHUNK;
    if !full {
        Arc::make_mut(&mut chunks[index]).insert(position, entry);
    } else if position == CHUNK {
        chunks.insert(index + 1, Arc::new(vec![entry]));
    } else {
        let chunk = Arc::make_mut(&mut chunks[index]);
        let mut upper = chunk.split_off(CHUNK / 2);
        if position <= chunk.len() {
            chunk.insert(position, entry);
        } else {
            upper.insert(position - chunk.len(), entry);
        }
        chunks.insert(index + 1, Arc::new(upper));
    }
}

/// Joins a sparse chunk with the next one, or the one before it, if that leaves room to grow.
fn join<K, V>(chunks: &mut Vec<Chunk<K, V>>, index: usize) {
    let first = if index + 1 < chunks.len() {
        index
    } else {
        index.saturating_sub(1)
    };
    let second = first + 1;
    if second < chunks.len() && chunks[first].len() + chunks[second].len() <= CHUNK / 2 {
        let upper = chunks.remove(second);
        Arc::make_mut(&mut chunks[first]).extend(upper.iter().cloned());
    }
}

/// A place in a table: chunk and position.
struct Cursor<'a, K, V> {
    chunks: &'a [Chunk<K, V>],
    chunk: usize,
    position: usize,
}

impl<'a, K, V> Cursor<'a, K, V> {
    fn of(chunks: &'a [Chunk<K, V>]) -> Self {
        Self {
            chunks,
            chunk: 0,
            position: 0,
        }
    }

    fn entry(&self) -> Option<&'a Entry<K, V>> {
        self.chunks.get(self.chunk)?.get(self.position)
    }

    fn step(&mut self) {
        self.position += 1;
        if self
            .chunks
            .get(self.chunk)
            .is_none_or(|chunk| self.position >= chunk.len())
        {
            self.chunk += 1;
            self.position = 0;
        }
    }

    /// The chunk that begins here, if the cursor is at a beginning.
    fn fresh(&self) -> Option<&'a Chunk<K, V>> {
        (self.position == 0)
            .then(|| self.chunks.get(self.chunk))
            .flatten()
    }
}

/// The differences between two snapshots of a table: see [`Table::diff`].
pub struct Diff<'a, K, V> {
    new: Cursor<'a, K, V>,
    old: Cursor<'a, K, V>,
}

impl<K, V> Diff<'_, K, V> {
    fn skip_shared(&mut self) {
        while let (Some(new), Some(old)) = (self.new.fresh(), self.old.fresh()) {
            if !Arc::ptr_eq(new, old) {
                return;
            }
            self.new.chunk += 1;
            self.old.chunk += 1;
        }
    }
}

impl<'a, K: Ord, V: PartialEq> Iterator for Diff<'a, K, V> {
    type Item = Change<'a, K, V>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.skip_shared();
            let (new, old) = (self.new.entry(), self.old.entry());
            let order = match (new, old) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(new), Some(old)) => new.0.cmp(&old.0),
            };
            if order.is_le() {
                self.new.step();
            }
            if order.is_ge() {
                self.old.step();
            }
            match (order, new, old) {
                (Ordering::Greater, _, Some(old)) => {
                    return Some(Change::Delete {
                        key: &old.0,
                        old: &old.1,
                    });
                }
                (Ordering::Less, Some(new), _) => {
                    return Some(Change::Put {
                        key: &new.0,
                        value: &new.1,
                        old: None,
                    });
                }
                (_, Some(new), Some(old)) if !Arc::ptr_eq(new, old) && new.1 != old.1 => {
                    return Some(Change::Put {
                        key: &new.0,
                        value: &new.1,
                        old: Some(&old.1),
                    });
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Op {
        Insert(u16, u8),
        Remove(u16),
        RemoveRange(u16, u16),
        Clear,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            60 => (0..2000_u16, 0..4_u8).prop_map(|(k, v)| Op::Insert(k, v)),
            20 => (0..2000_u16).prop_map(Op::Remove),
            4 => (0..2000_u16, 0..400_u16).prop_map(|(k, n)| Op::RemoveRange(k, n)),
            1 => Just(Op::Clear),
        ]
    }

    fn apply(table: &mut Table<u16, u8>, model: &mut BTreeMap<u16, u8>, op: &Op) {
        match *op {
            Op::Insert(k, v) => assert_eq!(table.insert(k, v), model.insert(k, v) != Some(v)),
            Op::Remove(k) => assert_eq!(table.remove(&k), model.remove(&k).is_some()),
            Op::RemoveRange(from, n) => {
                for k in from..from.saturating_add(n) {
                    assert_eq!(table.remove(&k), model.remove(&k).is_some());
                }
            }
            Op::Clear => {
                table.clear();
                model.clear();
            }
        }
    }

    proptest! {
        /// Any run of operations leaves the table equal to a plain map, and the diff to an earlier snapshot turns that
        /// snapshot into it.
        #[test]
        fn a_table_is_a_map_and_its_diffs_are_complete(
            seed in 0..1500_u16,
            before in proptest::collection::vec(op(), 0..300),
            after in proptest::collection::vec(op(), 0..60),
        ) {
            let (mut table, mut model) = (Table::default(), BTreeMap::new());
            for k in 0..seed {
                apply(&mut table, &mut model, &Op::Insert(k, 0));
            }
            before.iter().for_each(|op| apply(&mut table, &mut model, op));
            let (snapshot, mut replayed) = (table.clone(), model.clone());
            after.iter().for_each(|op| apply(&mut table, &mut model, op));
            prop_assert_eq!(snapshot.iter().collect::<Vec<_>>(), replayed.iter().collect::<Vec<_>>());
            for change in table.diff(&snapshot) {
                match change {
                    Change::Put { key, value, old } => prop_assert_eq!(replayed.insert(*key, *value), old.copied()),
                    Change::Delete { key, old } => prop_assert_eq!(replayed.remove(key), Some(*old)),
                }
            }
            prop_assert_eq!(&replayed, &model);
            prop_assert_eq!(table.iter().collect::<Vec<_>>(), model.iter().collect::<Vec<_>>());
            prop_assert_eq!(table.len(), model.len());
            for k in 0..2000 {
                prop_assert_eq!(table.get(&k), model.get(&k));
            }
        }
    }

    #[test]
    fn entries_that_come_in_order_fill_their_chunks() {
        let mut table = Table::default();
        for k in 0..100_000_u32 {
            table.insert(k, ());
        }
        assert_eq!(table.chunks.len(), 100_000_usize.div_ceil(CHUNK));
        assert_eq!(table.generation(), 100_000);
    }

    #[test]
    fn a_change_after_a_publication_copies_one_chunk() {
        let mut table = Table::default();
        for k in 0..10_000_u32 {
            table.insert(k, 0);
        }
        let published = table.clone();
        table.insert(5_000, 1);
        let shared = table.chunks.iter().zip(published.chunks.iter());
        assert_eq!(shared.filter(|(a, b)| !Arc::ptr_eq(a, b)).count(), 1);
        assert_eq!(table.diff(&published).count(), 1);
        assert_eq!(published.get(&5_000), Some(&0));
    }
}
