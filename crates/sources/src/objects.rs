//! All objects of a cluster, and which file each came from. Pure.
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use crate::object::{Kind, Object, ObjectKey};

/// A file, or a place of another source, at the time at which it was read.
#[derive(Debug)]
pub struct Origin {
    /// The file.
    pub file: Arc<Path>,
    /// When it was written: the age of objects that do not tell their own.
    pub written: Timestamp,
}

/// An object and where it was written. There may be a hundred thousand: what a file's objects share is kept once.
#[derive(Debug, Clone)]
pub struct Placed {
    /// The object.
    pub object: Arc<Object>,
    /// Its file.
    pub origin: Arc<Origin>,
    /// Its first line, 0 if unknown.
    pub line: u32,
}

/// An object that is written more than once: the first one counts, the others wait for its place.
#[derive(Debug)]
struct Slot {
    first: Placed,
    waiting: Vec<Placed>,
}

/// The objects of a cluster. Knows what changed since it was last asked.
#[derive(Debug, Default)]
pub struct Objects {
    slots: BTreeMap<Arc<ObjectKey>, Slot>,
    of_file: BTreeMap<Arc<Path>, BTreeSet<Arc<ObjectKey>>>,
    changed: BTreeSet<Arc<ObjectKey>>,
    /// Keys that are written more than once.
    doubled: BTreeSet<Arc<ObjectKey>>,
}

impl Objects {
    /// Replaces what a file holds; no key may come twice. An object that did not change keeps its `Arc`, and one that
    /// another file holds as well waits for its turn. `written` is the age of objects that do not tell their own.
    pub fn replace_file(&mut self, origin: &Arc<Origin>, objects: Vec<(ObjectKey, Object, u32)>) {
        let file = &origin.file;
        let before = self.of_file.remove(file).unwrap_or_default();
        let mut kept = BTreeSet::new();
        for (key, object, line) in objects {
            let key = Arc::new(key);
            kept.insert(key.clone());
            let (object, origin) = (Arc::new(object), origin.clone());
            self.put(key, Placed { object, origin, line });
        }
        for gone in before.difference(&kept) {
            self.remove(gone, file);
        }
        if !kept.is_empty() {
            self.of_file.insert(file.clone(), kept);
        }
    }

    /// Forgets everything that a file held.
    pub fn remove_file(&mut self, file: &Arc<Path>) {
        let (file, written) = (file.clone(), Timestamp::UNIX_EPOCH);
        self.replace_file(&Arc::new(Origin { file, written }), Vec::new());
    }

    /// The objects that a file holds: what stays in force while the file is broken.
    pub fn of_file(&self, file: &Arc<Path>) -> impl Iterator<Item = (&ObjectKey, &Placed)> {
        let keys = self.of_file.get(file).into_iter().flatten();
        keys.filter_map(move |key| {
            let slot = self.slots.get(key)?;
            let mut placed = std::iter::once(&slot.first).chain(&slot.waiting);
            Some((&**key, placed.find(|p| p.origin.file == *file)?))
        })
    }

    /// The objects of a kind, by namespace and name.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&Arc<ObjectKey>, &Placed)> {
        let first = ObjectKey::new(kind, "", "");
        let from_first = self
            .slots
            .range(first..)
            .take_while(move |(key, _)| key.kind == kind);
        from_first.map(|(key, slot)| (key, &slot.first))
    }

    /// One object.
    pub fn find(&self, key: &ObjectKey) -> Option<&Placed> {
        self.slots.get(key).map(|slot| &slot.first)
    }

    /// One object, with the key that is kept of it.
    pub(crate) fn find_with_key(&self, key: &ObjectKey) -> Option<(&Arc<ObjectKey>, &Placed)> {
        self.slots
            .get_key_value(key)
            .map(|(key, slot)| (key, &slot.first))
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// What was added, changed or removed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<Arc<ObjectKey>> {
        std::mem::take(&mut self.changed)
    }

    /// Objects that are written more than once: the one that counts, and one that does not.
    pub fn doubles(&self) -> impl Iterator<Item = (&ObjectKey, &Placed, &Placed)> {
        self.doubled.iter().flat_map(|key| {
            let slot = self.slots.get(key).into_iter();
            slot.flat_map(move |slot| slot.waiting.iter().map(move |other| (&**key, &slot.first, other)))
        })
    }

    fn put(&mut self, key: Arc<ObjectKey>, placed: Placed) {
        let Some(slot) = self.slots.get_mut(&key) else {
            self.changed.insert(key.clone());
            self.slots.insert(
                key,
                Slot {
                    first: placed,
                    waiting: Vec::new(),
                },
            );
            return;
        };
        let mut all = std::iter::once(&mut slot.first).chain(&mut slot.waiting);
        match all.find(|p| p.origin.file == placed.origin.file) {
            Some(mine) if mine.object == placed.object => {
                (mine.line, mine.origin) = (placed.line, placed.origin);
            }
            Some(mine) => {
                *mine = placed;
                self.changed.insert(key);
            }
            None => {
                slot.waiting.push(placed);
                self.doubled.insert(key);
            }
        }
    }

    fn remove(&mut self, key: &Arc<ObjectKey>, file: &Arc<Path>) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        slot.waiting.retain(|p| p.origin.file != *file);
        if slot.first.origin.file == *file {
            self.changed.insert(key.clone());
            if slot.waiting.is_empty() {
                self.slots.remove(key);
            } else {
                slot.first = slot.waiting.remove(0);
            }
        }
        if self.slots.get(key).is_none_or(|slot| slot.waiting.is_empty()) {
            self.doubled.remove(key);
        }
    }
}
