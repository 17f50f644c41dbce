//! Which backend a new connection gets. The same code runs in the kernel and in `cargo test`.

use crate::{AFFINITY_LOCAL, AFFINITY_REMOTE, Group, SvcValue};

/// Words of the alive bitmap.
pub const ALIVE_WORDS: usize = 16;
/// Cluster ids are below this.
pub const MAX_CLUSTERS: u16 = (ALIVE_WORDS * 64) as u16;
/// One bit for each cluster: set while its data path works.
pub type Alive = [u64; ALIVE_WORDS];

/// True if the bit of `cluster` is set.
#[inline(always)]
pub fn alive_bit(alive: &Alive, cluster: u16) -> bool {
    alive_word(alive, cluster) == 1
}

/// Chooses a slot for a new connection, or `None` if no live cluster has a backend.
///
/// Eligible are the groups that have backends and whose cluster is alive. Affinity prefers some of them: *local* the group
/// of cluster `local`, *remote* all others, *none* all; if no preferred group is eligible, every eligible one is used.
/// Among these every backend is equally likely for a uniform `rand`. Groups beyond `n_groups` must be zero.
///
/// The tests of a group are masks, not branches: the verifier follows every path, and branches in loops multiply paths.
#[inline(always)]
pub fn choose(svc: &SvcValue, alive: &Alive, local: u16, rand: u32) -> Option<u32> {
    let (mut eligible, mut preferred) = (0u32, 0u32);
    for group in &svc.groups {
        let count = usable(alive, group);
        eligible += count;
        preferred += count & preference(svc.affinity, group.cluster, local);
    }
    let (total, all) = if preferred > 0 {
        (preferred, 0)
    } else {
        (eligible, u32::MAX)
    };
    if total == 0 {
        return None;
    }
    let mut pick = ((rand as u64 * total as u64) >> 32) as u32;
    for group in &svc.groups {
        let count = usable(alive, group) & (all | preference(svc.affinity, group.cluster, local));
        if pick < count {
            return Some(group.base() + pick);
        }
        pick -= count;
    }
    None
}

/// All ones if a group of `cluster` is preferred, else zero.
#[inline(always)]
fn preference(affinity: u8, cluster: u16, local: u16) -> u32 {
    let is_local = mask((cluster ^ local) as u32);
    let (here, elsewhere) = (
        mask((affinity ^ AFFINITY_REMOTE) as u32),
        mask((affinity ^ AFFINITY_LOCAL) as u32),
    );
    // Of the two preferences each excludes one side.
    (is_local & !here) | (!is_local & !elsewhere)
}

/// All ones if `x` (below 2³¹) is zero, else zero.
#[inline(always)]
fn mask(x: u32) -> u32 {
    0u32.wrapping_sub(x.wrapping_sub(1) >> 31)
}

/// How many backends of a group may be chosen.
#[inline(always)]
fn usable(alive: &Alive, group: &Group) -> u32 {
    group.count as u32 & 0u32.wrapping_sub(alive_word(alive, group.cluster) as u32)
}

#[inline(always)]
fn alive_word(alive: &Alive, cluster: u16) -> u64 {
    alive[(cluster >> 6) as usize & (ALIVE_WORDS - 1)] >> (cluster & 63) & 1
}

/// Spreads a number over 32 bits, the same on every node (the finalizer of splitmix64).
#[inline(always)]
pub fn mix(mut x: u64) -> u32 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) as u32
}

/// A number for [`choose`] that is the same for every packet of a flow, on every node.
#[inline(always)]
pub fn flow_hash(src: &[u8; 16], dst: &[u8; 16], sport: u16, dport: u16, proto: u8) -> u32 {
    let ports = (sport as u64) << 32 | (dport as u64) << 8 | proto as u64;
    mix(half(src, 0)
        ^ half(src, 8).rotate_left(17)
        ^ half(dst, 0).rotate_left(29)
        ^ half(dst, 8).rotate_left(41)
        ^ mix_wide(ports))
}

#[inline(always)]
fn mix_wide(x: u64) -> u64 {
    (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd)
}

#[inline(always)]
fn half(ip: &[u8; 16], at: usize) -> u64 {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *ip;
    u64::from_be_bytes(if at == 0 {
        [a, b, c, d, e, f, g, h]
    } else {
        [i, j, k, l, m, n, o, p]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AFFINITY_NONE, MAX_GROUPS};
    use proptest::prelude::*;

    const LOCAL: u16 = 1;
    /// Affinity, groups as (cluster, count), live clusters, clusters reached.
    type Case<'a> = (u8, &'a [(u16, u16)], &'a [u16], &'a [u16]);

    fn service(affinity: u8, groups: &[(u16, u16)]) -> SvcValue {
        let mut svc = SvcValue {
            affinity,
            n_groups: groups.len() as u8,
            ..SvcValue::default()
        };
        for (i, (cluster, count)) in groups.iter().enumerate() {
            svc.groups[i] = Group::new(*cluster, *count, 1000 * i as u32, 9);
        }
        svc
    }

    fn alive(clusters: &[u16]) -> Alive {
        let mut words = [0; ALIVE_WORDS];
        for c in clusters {
            words[usize::from(c / 64)] |= 1 << (c % 64);
        }
        words
    }

    /// The clusters that get traffic, found by trying 64 evenly spread numbers.
    fn reached(svc: &SvcValue, alive: &Alive) -> Vec<u16> {
        let mut seen: Vec<u16> = (0..64u32)
            .filter_map(|i| choose(svc, alive, LOCAL, i << 26))
            .map(|slot| svc.groups[slot as usize / 1000].cluster)
            .collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    /// ```text
    /// east = 1 (here), west = 2, south = 3; two backends each
    /// affinity  alive            reached
    /// local     all              east
    /// local     all but east     west south
    /// local     east has none    west south        one count written
    /// remote    all              west south
    /// remote    only east        east
    /// none      all but west     east south        one bit written
    /// any       nobody           -
    /// ```
    #[test]
    fn affinity_prefers_and_falls_back() {
        let two = [(1, 2), (2, 2), (3, 2)];
        let cases: [Case<'_>; 7] = [
            (AFFINITY_LOCAL, &two, &[1, 2, 3], &[1]),
            (AFFINITY_LOCAL, &two, &[2, 3], &[2, 3]),
            (AFFINITY_LOCAL, &[(1, 0), (2, 2), (3, 2)], &[1, 2, 3], &[2, 3]),
            (AFFINITY_REMOTE, &two, &[1, 2, 3], &[2, 3]),
            (AFFINITY_REMOTE, &two, &[1], &[1]),
            (AFFINITY_NONE, &two, &[1, 3], &[1, 3]),
            (AFFINITY_LOCAL, &two, &[], &[]),
        ];
        for (affinity, groups, live, expected) in cases {
            assert_eq!(
                reached(&service(affinity, groups), &alive(live)),
                expected,
                "{affinity} {groups:?} {live:?}"
            );
        }
    }

    #[test]
    fn every_backend_gets_its_share() {
        let svc = service(AFFINITY_NONE, &[(1, 1), (2, 3)]);
        let mut hits = std::collections::BTreeMap::new();
        for i in 0..4000u32 {
            let slot = choose(&svc, &alive(&[1, 2]), LOCAL, mix(u64::from(i))).unwrap();
            *hits.entry(slot).or_insert(0u32) += 1;
        }
        assert_eq!(hits.keys().copied().collect::<Vec<_>>(), [0, 1000, 1001, 1002]);
        assert!(hits.values().all(|n| (850..1150).contains(n)), "{hits:?}");
    }

    #[test]
    fn the_hash_of_a_flow_depends_on_each_of_its_parts() {
        let (a, b) = ([1; 16], [2; 16]);
        let flow = flow_hash(&a, &b, 1, 2, 6);
        let others = [
            flow_hash(&b, &a, 1, 2, 6),
            flow_hash(&a, &b, 3, 2, 6),
            flow_hash(&a, &b, 1, 3, 6),
            flow_hash(&a, &b, 1, 2, 17),
            flow_hash(&a, &a, 1, 2, 6),
        ];
        assert!(!others.contains(&flow));
    }

    fn any_service() -> impl Strategy<Value = SvcValue> {
        (
            0u8..4,
            prop::collection::btree_map(0u16..1024, 0u16..300, 0..=MAX_GROUPS),
        )
            .prop_map(|(affinity, groups)| service(affinity, &groups.into_iter().collect::<Vec<_>>()))
    }

    proptest! {
        /// Whatever is chosen lies in a live group with backends, in a preferred one if there is such a group; and
        /// nothing is chosen only if nothing is eligible.
        #[test]
        fn a_choice_is_always_eligible(svc in any_service(), alive in any::<Alive>(), local in 0u16..1024, rand: u32) {
            let groups = &svc.groups[..svc.n_groups.into()];
            let live = |g: &&Group| g.count > 0 && alive_bit(&alive, g.cluster);
            let liked = |g: &&Group| match svc.affinity {
                AFFINITY_LOCAL => g.cluster == local,
                AFFINITY_REMOTE => g.cluster != local,
                _ => true,
            };
            match choose(&svc, &alive, local, rand) {
                None => prop_assert_eq!(groups.iter().filter(live).count(), 0),
                Some(slot) => {
                    let group = groups.iter().find(|g| (g.base()..g.base() + u32::from(g.count)).contains(&slot));
                    let group = group.expect("a slot of no group");
                    prop_assert!(live(&group));
                    if groups.iter().filter(live).any(|g| liked(&g)) {
                        prop_assert!(liked(&group));
                    }
                }
            }
        }
    }
}
