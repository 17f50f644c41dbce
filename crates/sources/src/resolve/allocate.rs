//! Gives identities to sets of labels on clusters where Cilium does not (spec §1.6, §1.11).
//!
//! The number wanted by a set of labels is a hash of them, so that every daemon of the cluster, and every start of it, comes
//! to the same number without asking anybody. Two sets that want one number are told apart by taking the next free one; the
//! order of arrival then matters, which is what the remembered assignments are for. A number is never given to other labels
//! while it is in use, nor afterwards before all others have been given.
use std::collections::{BTreeMap, BTreeSet};

use isthmus_topology::{Identity, IdentityRange};

/// Which identity belongs to which labels (in their text form).
#[derive(Debug)]
pub(crate) struct Allocator {
    range: IdentityRange,
    by_labels: BTreeMap<String, Identity>,
    by_number: BTreeMap<Identity, String>,
    changed: bool,
}

/// Every identity of the cluster is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exhausted;

impl Allocator {
    /// Starts with what was given before; what is not in the range is left out.
    pub(crate) fn new(range: IdentityRange, remembered: BTreeMap<String, Identity>) -> Self {
        let mut allocator = Self {
            range,
            by_labels: BTreeMap::new(),
            by_number: BTreeMap::new(),
            changed: false,
        };
        for (labels, identity) in remembered {
            if range.contains(identity) && !allocator.by_number.contains_key(&identity) {
                allocator.note(labels, identity);
            }
        }
        allocator
    }

    /// The identity of these labels. `foreign` are numbers that CiliumIdentities hold.
    pub(crate) fn identity(
        &mut self,
        labels: &str,
        foreign: &BTreeSet<Identity>,
        in_use: &dyn Fn(Identity) -> bool,
    ) -> Result<Identity, Exhausted> {
        if let Some(known) = self
            .by_labels
            .get(labels)
            .filter(|known| !foreign.contains(known))
        {
            return Ok(*known);
        }
        let free = |id: &Identity| !foreign.contains(id) && !self.by_number.contains_key(id);
        let unused = |id: &Identity| !foreign.contains(id) && !in_use(*id);
        let found = self
            .probe(labels)
            .find(free)
            .or_else(|| self.probe(labels).find(unused));
        let identity = found.ok_or(Exhausted)?;
        self.note(labels.to_owned(), identity);
        self.changed = true;
        Ok(identity)
    }

    /// Gives the number to these labels alone.
    fn note(&mut self, labels: String, identity: Identity) {
        if let Some(others) = self.by_number.insert(identity, labels.clone()) {
            self.by_labels.remove(&others);
        }
        if let Some(before) = self.by_labels.insert(labels, identity) {
            self.by_number.remove(&before);
        }
    }

    /// What to remember, if it changed since the last call.
    pub(crate) fn take_changed(&mut self) -> Option<BTreeMap<String, Identity>> {
        std::mem::take(&mut self.changed).then(|| self.by_labels.clone())
    }

    /// All numbers of the range, beginning with the wanted one. The lowest is left out, as Cilium does.
    fn probe(&self, labels: &str) -> impl Iterator<Item = Identity> + use<> {
        let (first, count) = (self.range.first + 1, self.range.last - self.range.first);
        let wanted = (hash(labels) % u64::from(count)) as u32;
        (0..count).map(move |step| Identity(first + (wanted + step) % count))
    }
}

/// FNV-1a with a final mix: the same on every machine and in every version.
fn hash(text: &str) -> u64 {
    let mixed = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mixed ^ (mixed >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use isthmus_topology::{ClusterId, MaxClusters};

    fn range() -> IdentityRange {
        IdentityRange::of(
            ClusterId::new(1, MaxClusters::C255).expect("valid"),
            MaxClusters::C255,
        )
    }

    #[test]
    fn the_same_labels_get_the_same_number_at_every_start() {
        let none = BTreeSet::new();
        let give = |labels: &str| Allocator::new(range(), BTreeMap::new()).identity(labels, &none, &|_| true);
        assert_eq!(give("k8s:app=web;"), give("k8s:app=web;"));
        assert_ne!(give("k8s:app=web;"), give("k8s:app=db;"));
        assert_eq!(
            give("k8s:app=web;"),
            Ok(Identity(99_131)),
            "a released number must not change"
        );
    }

    /// A small range, so that every number of it can be given.
    const SMALL: IdentityRange = IdentityRange {
        first: 65_536,
        last: 66_536,
    };

    #[test]
    fn two_sets_never_share_a_number_and_the_remembered_order_holds() {
        let none = BTreeSet::new();
        let mut allocator = Allocator::new(SMALL, BTreeMap::new());
        let mut given = BTreeSet::new();
        for n in 0..900 {
            let identity = allocator
                .identity(&format!("k8s:app={n};"), &none, &|_| true)
                .expect("room");
            assert!(SMALL.contains(identity) && given.insert(identity));
        }
        let remembered = allocator.take_changed().expect("new numbers");
        let mut again = Allocator::new(SMALL, remembered.clone());
        for n in (0..900).rev() {
            let labels = format!("k8s:app={n};");
            assert_eq!(
                again.identity(&labels, &none, &|_| true).ok(),
                remembered.get(&labels).copied()
            );
        }
    }

    #[test]
    fn numbers_are_given_again_only_when_all_are_gone_and_never_while_in_use() {
        let none = BTreeSet::new();
        let mut allocator = Allocator::new(SMALL, BTreeMap::new());
        let web = allocator.identity("web", &none, &|_| false).expect("room");
        for n in 1..1000 {
            allocator
                .identity(&n.to_string(), &none, &|_| false)
                .expect("room");
        }
        assert_eq!(allocator.identity("late", &none, &|_| true), Err(Exhausted));
        assert_eq!(allocator.identity("late", &none, &|id| id != web), Ok(web));
        assert_eq!(allocator.identity("web", &none, &|_| true), Err(Exhausted));
    }

    #[test]
    fn numbers_of_cilium_identities_are_not_given() {
        let mut allocator = Allocator::new(range(), BTreeMap::new());
        let wanted = allocator
            .identity("web", &BTreeSet::new(), &|_| true)
            .expect("room");
        let foreign = BTreeSet::from([wanted]);
        let mut other = Allocator::new(range(), BTreeMap::new());
        assert_ne!(other.identity("web", &foreign, &|_| true), Ok(wanted));
    }
}
