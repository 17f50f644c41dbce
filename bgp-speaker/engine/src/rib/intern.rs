//! Every set of attributes once: equal sets (with equal next hops) have one number and one copy.
use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;

use hashbrown::{DefaultHashBuilder, HashTable};
use isthmus_bgp_packet::{Attributes, AttributesView, Origin};

/// The number of an interned set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AttrId(pub(crate) u32);

/// What route choice needs of a set, worked out once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rank {
    pub(crate) local_pref: u32,
    pub(crate) hops: u32,
    pub(crate) origin: Origin,
    pub(crate) med: u32,
    pub(crate) neighbor: Option<u32>,
    pub(crate) originator: Option<u32>,
    pub(crate) clusters: u32,
}

/// LOCAL_PREF of routes that have none.
pub(crate) const DEFAULT_LOCAL_PREF: u32 = 100;

impl Rank {
    fn of(view: AttributesView<'_>) -> Self {
        let path = view.as_path();
        Self {
            local_pref: view.local_pref().unwrap_or(DEFAULT_LOCAL_PREF),
            hops: path.hops(),
            origin: view.origin(),
            med: view.med().unwrap_or(0),
            neighbor: path.first(),
            originator: view.originator_id().map(Into::into),
            clusters: u32::try_from(view.cluster_list().len()).unwrap_or(u32::MAX),
        }
    }
}

/// An interned set.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) next_hop: Option<IpAddr>,
    pub(crate) attributes: Attributes,
    pub(crate) rank: Rank,
    uses: u32,
}

/// All sets in use, counted.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
}

impl Interner {
    /// The number of a set; it counts one use for the caller.
    pub(crate) fn intern(&mut self, next_hop: Option<IpAddr>, attributes: &[u8]) -> AttrId {
        let hash = self.hash(next_hop, attributes);
        let same = |id: &u32| {
            self.entries[*id as usize]
                .as_ref()
                .is_some_and(|entry| entry.next_hop == next_hop && entry.attributes.as_bytes() == attributes)
        };
        if let Some(id) = self.table.find(hash, same).copied() {
            self.keep(AttrId(id));
            return AttrId(id);
        }
        let rank = Rank::of(AttributesView::new(attributes));
        let entry = Entry {
            next_hop,
            attributes: Attributes::from_canonical(attributes),
            rank,
            uses: 1,
        };
        let id = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
        });
        self.entries[id as usize] = Some(entry);
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.table.insert_unique(hash, id, |id| {
            let entry = entries[*id as usize].as_ref();
            entry.map_or(0, |entry| {
                hash_of(hasher, entry.next_hop, entry.attributes.as_bytes())
            })
        });
        AttrId(id)
    }

    fn hash(&self, next_hop: Option<IpAddr>, attributes: &[u8]) -> u64 {
        hash_of(&self.hasher, next_hop, attributes)
    }

    /// One more use.
    pub(crate) fn keep(&mut self, id: AttrId) {
        if let Some(entry) = &mut self.entries[id.0 as usize] {
            entry.uses += 1;
        }
    }

    /// One use less; the last one frees the number.
    pub(crate) fn release(&mut self, id: AttrId) {
        let Some(entry) = &mut self.entries[id.0 as usize] else {
            return;
        };
        entry.uses -= 1;
        if entry.uses > 0 {
            return;
        }
        let hash = hash_of(&self.hasher, entry.next_hop, entry.attributes.as_bytes());
        if let Ok(found) = self.table.find_entry(hash, |other| *other == id.0) {
            found.remove();
        }
        self.entries[id.0 as usize] = None;
        self.free.push(id.0);
    }

    /// A set in use. Numbers come from [`Interner::intern`] and are held while they are used, so there is one.
    pub(crate) fn entry(&self, id: AttrId) -> &Entry {
        self.entries[id.0 as usize]
            .as_ref()
            .expect("an attribute set in use is interned")
    }

    /// How many sets are in use.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}

fn hash_of(hasher: &DefaultHashBuilder, next_hop: Option<IpAddr>, attributes: &[u8]) -> u64 {
    use std::hash::Hasher;
    let mut state = hasher.build_hasher();
    next_hop.hash(&mut state);
    state.write(attributes);
    state.finish()
}

#[cfg(test)]
mod tests {
    use isthmus_bgp_packet::AttributesBuilder;

    use super::*;

    #[test]
    fn equal_sets_share_a_number_until_the_last_use_ends() {
        let set = |med| AttributesBuilder::originated(Origin::Igp).med(Some(med)).build();
        let mut interner = Interner::default();
        let one = interner.intern(None, set(1).as_bytes());
        assert_eq!(interner.intern(None, set(1).as_bytes()), one);
        let hop = interner.intern(Some([192, 0, 2, 1].into()), set(1).as_bytes());
        assert_ne!(hop, one, "the next hop belongs to the set");
        assert_eq!(interner.len(), 2);
        interner.release(one);
        assert_eq!(interner.entry(one).rank.med, 1);
        interner.release(one);
        assert_eq!(interner.len(), 1);
        assert_eq!(
            interner.intern(None, set(2).as_bytes()),
            one,
            "freed numbers are used again"
        );
        assert_eq!(interner.entry(hop).rank.med, 1);
    }
}
