//! Every path to every prefix, and the best one of each.
//!
//! A prefix has a slot with a number that stays while anybody uses it; per-peer state is indexed by that number. The hash index
//! is only for look-ups: everything that walks over the table walks over the slots, in the order in which they were made.
pub(crate) mod adj_out;
pub(crate) mod decision;
pub(crate) mod intern;
mod paths;

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use ipnet::IpNet;
use isthmus_bgp_packet::Family;

use self::decision::SourceInfo;
use self::intern::{AttrId, Interner};
use self::paths::Paths;
use crate::view::RouteSource;

/// One path: whence, and with what attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) source: RouteSource,
    pub(crate) attr: AttrId,
    flags: u8,
}

const REJECTED: u8 = 1;
const STALE: u8 = 2;

impl Path {
    pub(crate) const fn new(source: RouteSource, attr: AttrId) -> Self {
        Self {
            source,
            attr,
            flags: 0,
        }
    }

    /// Import policy lets it into route choice.
    pub(crate) const fn is_usable(&self) -> bool {
        self.flags & REJECTED == 0
    }

    pub(crate) const fn is_stale(&self) -> bool {
        self.flags & STALE != 0
    }

    pub(crate) const fn set_rejected(&mut self, rejected: bool) {
        self.flags = self.flags & !REJECTED | if rejected { REJECTED } else { 0 };
    }

    pub(crate) const fn set_stale(&mut self, stale: bool) {
        self.flags = self.flags & !STALE | if stale { STALE } else { 0 };
    }
}

/// A prefix.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) prefix: IpNet,
    pub(crate) paths: Paths,
    /// The path that was best when [`Rib::select`] last looked. Its attributes are kept in use by this.
    pub(crate) best: Option<Path>,
    /// How many peers have been sent the prefix.
    pub(crate) adverts: u32,
    changed: bool,
}

/// All prefixes of a family.
#[derive(Debug, Default)]
pub(crate) struct Table {
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    pub(crate) slots: Vec<Slot>,
    free: Vec<u32>,
    changed: Vec<u32>,
}

impl Table {
    pub(crate) fn find(&self, prefix: &IpNet) -> Option<u32> {
        let hash = self.hasher.hash_one(prefix);
        self.index
            .find(hash, |id| self.slots[*id as usize].prefix == *prefix)
            .copied()
    }

    fn find_or_add(&mut self, prefix: IpNet) -> u32 {
        if let Some(id) = self.find(&prefix) {
            return id;
        }
        let slot = Slot {
            prefix,
            paths: Paths::default(),
            best: None,
            adverts: 0,
            changed: false,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.slots[id as usize] = slot;
                id
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        let hash = hasher.hash_one(prefix);
        self.index
            .insert_unique(hash, id, |id| hasher.hash_one(slots[*id as usize].prefix));
        id
    }

    fn touch(&mut self, id: u32) {
        let slot = &mut self.slots[id as usize];
        if !slot.changed {
            slot.changed = true;
            self.changed.push(id);
        }
    }

    /// Gives a slot back if nobody uses it.
    pub(crate) fn free_if_unused(&mut self, id: u32) {
        let slot = &self.slots[id as usize];
        if !slot.paths.is_empty() || slot.best.is_some() || slot.adverts > 0 || slot.changed {
            return;
        }
        let hash = self.hasher.hash_one(slot.prefix);
        if let Ok(found) = self.index.find_entry(hash, |other| *other == id) {
            found.remove();
            self.free.push(id);
        }
    }

    /// The numbers of all slots in use.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u32> + use<> {
        0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// How many prefixes there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }
}

/// The tables of all families with the attributes of their paths.
#[derive(Debug, Default)]
pub(crate) struct Rib {
    pub(crate) interner: Interner,
    tables: [Table; 2],
}

impl Rib {
    pub(crate) const fn table(&self, family: Family) -> &Table {
        &self.tables[family.index()]
    }

    /// Sets the path of a source, which takes over the use that the caller holds of its attributes. Returns what was there.
    pub(crate) fn insert(&mut self, prefix: IpNet, path: Path) -> Option<Path> {
        let table = &mut self.tables[Family::of(&prefix).index()];
        let id = table.find_or_add(prefix);
        let slot = &mut table.slots[id as usize];
        let Some(at) = slot.paths.iter().position(|old| old.source == path.source) else {
            slot.paths.push(path);
            table.touch(id);
            return None;
        };
        let old = std::mem::replace(&mut slot.paths[at], path);
        if old.attr != path.attr || old.is_usable() != path.is_usable() {
            table.touch(id);
        }
        self.interner.release(old.attr);
        Some(old)
    }

    /// Removes the path of a source. Returns what was there.
    pub(crate) fn remove(&mut self, prefix: &IpNet, source: RouteSource) -> Option<Path> {
        let family = Family::of(prefix);
        let id = self.tables[family.index()].find(prefix)?;
        self.remove_at(family, id, source)
    }

    fn remove_at(&mut self, family: Family, id: u32, source: RouteSource) -> Option<Path> {
        let table = &mut self.tables[family.index()];
        let slot = &mut table.slots[id as usize];
        let at = slot.paths.iter().position(|path| path.source == source)?;
        let old = slot.paths.swap_remove(at);
        table.touch(id);
        self.interner.release(old.attr);
        Some(old)
    }

    /// Removes the paths of a source that `which` picks. Returns them.
    pub(crate) fn remove_all(
        &mut self,
        family: Family,
        source: RouteSource,
        which: impl Fn(&Path) -> bool,
    ) -> Vec<Path> {
        let mut removed = Vec::new();
        for id in self.tables[family.index()].ids() {
            let paths = &self.tables[family.index()].slots[id as usize].paths;
            if paths.iter().any(|path| path.source == source && which(path)) {
                removed.extend(self.remove_at(family, id, source));
            }
        }
        removed
    }

    /// Lets `change` alter the flags of every path of a source.
    pub(crate) fn change_all(
        &mut self,
        family: Family,
        source: RouteSource,
        mut change: impl FnMut(&Interner, &IpNet, &mut Path),
    ) {
        let Self { interner, tables } = self;
        let table = &mut tables[family.index()];
        for id in table.ids() {
            let slot = &mut table.slots[id as usize];
            let Some(path) = slot.paths.iter_mut().find(|path| path.source == source) else {
                continue;
            };
            let was = path.is_usable();
            change(interner, &slot.prefix, path);
            if path.is_usable() != was {
                table.touch(id);
            }
        }
    }

    /// Chooses again for every prefix with a change, and returns the slots whose best path is another one now.
    pub(crate) fn select(
        &mut self,
        family: Family,
        info: impl Fn(RouteSource) -> Option<SourceInfo>,
    ) -> Vec<u32> {
        let Self { interner, tables } = self;
        let table = &mut tables[family.index()];
        let mut moved = Vec::new();
        for id in std::mem::take(&mut table.changed) {
            let slot = &mut table.slots[id as usize];
            slot.changed = false;
            let best = decision::best(&slot.paths, interner, &info);
            let same = match (slot.best, best) {
                (Some(old), Some(new)) => (old.source, old.attr) == (new.source, new.attr),
                (None, None) => true,
                _ => false,
            };
            if same {
                slot.best = best;
                table.free_if_unused(id);
                continue;
            }
            if let Some(new) = best {
                interner.keep(new.attr);
            }
            if let Some(old) = std::mem::replace(&mut slot.best, best) {
                interner.release(old.attr);
            }
            moved.push(id);
        }
        moved
    }

    /// True if [`Rib::select`] has something to do.
    pub(crate) fn has_changes(&self) -> bool {
        self.tables.iter().any(|table| !table.changed.is_empty())
    }

    /// A peer was sent (`+1`) or no longer has (`-1`) the prefix of a slot.
    pub(crate) fn count_advert(&mut self, family: Family, id: u32, more: bool) {
        let table = &mut self.tables[family.index()];
        let slot = &mut table.slots[id as usize];
        if more {
            slot.adverts += 1;
        } else {
            slot.adverts -= 1;
            table.free_if_unused(id);
        }
    }

    /// Gives back a slot that moved to having no path and that no peer was sent.
    pub(crate) fn free_if_unused(&mut self, family: Family, id: u32) {
        self.tables[family.index()].free_if_unused(id);
    }
}

#[cfg(test)]
mod tests {
    use isthmus_bgp_packet::{AttributesBuilder, Origin};

    use super::*;
    use crate::config::PeerId;

    #[test]
    fn slots_are_given_back_and_used_again() {
        let mut rib = Rib::default();
        let set = AttributesBuilder::originated(Origin::Igp).build();
        let prefix: IpNet = "10.0.0.0/8".parse().unwrap();
        let source = RouteSource::Peer(PeerId(1));
        for _ in 0..3 {
            let attr = rib.interner.intern(None, set.as_bytes());
            assert_eq!(rib.insert(prefix, Path::new(source, attr)), None);
            assert_eq!(rib.select(Family::Ipv4Unicast, |_| None), [0]);
            rib.count_advert(Family::Ipv4Unicast, 0, true);
            assert!(rib.remove(&prefix, source).is_some());
            assert_eq!(rib.select(Family::Ipv4Unicast, |_| None), [0]);
            assert_eq!(rib.table(Family::Ipv4Unicast).len(), 1, "a peer still has it");
            rib.count_advert(Family::Ipv4Unicast, 0, false);
            assert_eq!(rib.table(Family::Ipv4Unicast).len(), 0);
            assert_eq!(rib.interner.len(), 0, "no attributes leak");
        }
        assert_eq!(rib.table(Family::Ipv4Unicast).slots.len(), 1);
    }

    #[test]
    fn a_path_set_twice_changes_nothing() {
        let mut rib = Rib::default();
        let set = AttributesBuilder::originated(Origin::Igp).build();
        let prefix: IpNet = "2001:db8::/32".parse().unwrap();
        for round in 0..2 {
            let attr = rib.interner.intern(None, set.as_bytes());
            rib.insert(prefix, Path::new(RouteSource::Local, attr));
            let moved = rib.select(Family::Ipv6Unicast, |_| None).len();
            assert_eq!(moved, usize::from(round == 0));
        }
        assert!(!rib.has_changes());
    }
}
