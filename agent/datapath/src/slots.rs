//! Runs of slots, each a power of two long and aligned to its length (a buddy allocator). Its state is what the service map
//! holds, so it is rebuilt from there after a restart.
use std::collections::BTreeSet;

/// Longest run: log2 of 65536.
pub(crate) const MAX_ORDER: u8 = 16;

/// Which runs are free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotRuns {
    free: Vec<BTreeSet<u32>>,
}

/// log2 of the shortest run that holds `count` slots.
pub(crate) fn order_of(count: usize) -> u8 {
    count.max(1).next_power_of_two().trailing_zeros() as u8
}

impl SlotRuns {
    /// All of `capacity` slots free; what is beyond the last full run of a power of two is used as well.
    pub(crate) fn new(capacity: u32) -> Self {
        let mut runs = Self {
            free: vec![BTreeSet::new(); usize::from(MAX_ORDER) + 1],
        };
        let mut at = 0;
        while at < capacity {
            let fits = (capacity - at).ilog2();
            let aligned = if at == 0 {
                u32::from(MAX_ORDER)
            } else {
                at.trailing_zeros()
            };
            let order = fits.min(aligned).min(u32::from(MAX_ORDER));
            runs.free[order as usize].insert(at);
            at += 1 << order;
        }
        runs
    }

    /// Takes the lowest run of this order.
    pub(crate) fn alloc(&mut self, order: u8) -> Option<u32> {
        let from = (order..=MAX_ORDER).find(|o| !self.free[usize::from(*o)].is_empty())?;
        let base = self.free[usize::from(from)].pop_first()?;
        for split in (order..from).rev() {
            self.free[usize::from(split)].insert(base + (1 << split));
        }
        Some(base)
    }

    /// Takes this very run; false if some of it is taken already or it is no run.
    pub(crate) fn reserve(&mut self, base: u32, order: u8) -> bool {
        if order > MAX_ORDER {
            return false;
        }
        let start = |o: u8| base >> o << o;
        let Some(from) = (order..=MAX_ORDER).find(|o| self.free[usize::from(*o)].contains(&start(*o))) else {
            return false;
        };
        if start(order) != base {
            return false;
        }
        self.free[usize::from(from)].remove(&start(from));
        for split in (order..from).rev() {
            self.free[usize::from(split)].insert(start(split) ^ (1 << split));
        }
        true
    }

    /// Gives a run back and joins it with its free neighbours.
    pub(crate) fn free(&mut self, mut base: u32, mut order: u8) {
        while order < MAX_ORDER && self.free[usize::from(order)].remove(&(base ^ (1 << order))) {
            base &= !(1 << order);
            order += 1;
        }
        self.free[usize::from(order)].insert(base);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn orders_are_the_next_power_of_two() {
        let orders = [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (65_535, 16)];
        for (count, order) in orders {
            assert_eq!(order_of(count), order, "{count}");
        }
    }

    #[test]
    fn a_full_table_says_so_and_serves_again_after_a_free() {
        let mut runs = SlotRuns::new(8);
        let four = runs.alloc(2).unwrap();
        assert!(runs.alloc(2).is_some());
        assert_eq!(runs.alloc(0), None);
        runs.free(four, 2);
        assert_eq!(runs.alloc(1), Some(four));
    }

    proptest! {
        /// Whatever is taken and given back, no two runs overlap, all stay inside, a rebuilt allocator accepts exactly the
        /// same runs, and after all are given back everything is free again.
        #[test]
        fn runs_never_overlap(ops in prop::collection::vec((0u8..6, any::<bool>(), any::<prop::sample::Index>()), 0..200)) {
            let capacity = 500;
            let mut runs = SlotRuns::new(capacity);
            let mut taken: Vec<(u32, u8)> = Vec::new();
            for (order, give_back, which) in ops {
                if give_back && !taken.is_empty() {
                    let (base, order) = taken.swap_remove(which.index(taken.len()));
                    runs.free(base, order);
                } else if let Some(base) = runs.alloc(order) {
                    prop_assert!(base + (1 << order) <= capacity && base % (1 << order) == 0);
                    for (other, o) in &taken {
                        prop_assert!(base + (1 << order) <= *other || other + (1 << o) <= base);
                    }
                    taken.push((base, order));
                }
            }
            let mut rebuilt = SlotRuns::new(capacity);
            for (base, order) in &taken {
                prop_assert!(rebuilt.reserve(*base, *order));
                prop_assert!(!rebuilt.clone().reserve(*base, *order));
            }
            prop_assert_eq!(&rebuilt, &runs);
            for (base, order) in taken {
                runs.free(base, order);
            }
            prop_assert_eq!(runs, SlotRuns::new(capacity));
        }
    }
}
