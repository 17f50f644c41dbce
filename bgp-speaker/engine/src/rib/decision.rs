//! Choosing the best path (RFC 4271 §9.1.2). Deterministic: the order in which paths came does not matter, and router
//! identifiers are always compared.
//!
//! 1. our own route; 2. highest LOCAL_PREF; 3. shortest AS path; 4. lowest ORIGIN; 5. lowest MED among paths of the same neighbour AS;
//! 6. external before internal; 7. lowest originator or router identifier; 8. shortest cluster list (RFC 4456 §9);
//! 9. lowest address of the peer.
use std::cmp::{Ordering, Reverse};
use std::net::IpAddr;

use super::Path;
use super::intern::{Interner, Rank};
use crate::view::RouteSource;

/// What route choice needs to know about where a path came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SourceInfo {
    pub(crate) internal: bool,
    pub(crate) router_id: u32,
    pub(crate) address: IpAddr,
}

/// The best of the usable paths.
pub(crate) fn best<'a>(
    paths: &'a [Path],
    interner: &Interner,
    info: impl Fn(RouteSource) -> Option<SourceInfo>,
) -> Option<Path> {
    let mut usable = paths.iter().filter(|path| path.is_usable());
    let first = usable.next()?;
    let Some(second) = usable.next() else {
        return Some(*first);
    };
    let ranked = |path: &'a Path| (path, interner.entry(path.attr).rank);
    let mut candidates: Vec<(&Path, Rank)> = [first, second].into_iter().chain(usable).map(ranked).collect();
    keep_least(&mut candidates, |(path, rank)| {
        (
            path.source != RouteSource::Local,
            Reverse(rank.local_pref),
            rank.hops,
            rank.origin,
        )
    });
    let all: Vec<Rank> = candidates.iter().map(|(_, rank)| *rank).collect();
    candidates.retain(|(_, rank)| !all.iter().any(|other| beats_by_med(other, rank)));
    candidates
        .into_iter()
        .min_by(|a, b| tie_break(a, b, &info))
        .map(|(path, _)| *path)
}

fn keep_least<T, K: Ord>(list: &mut Vec<T>, key: impl Fn(&T) -> K) {
    let Some(least) = list.iter().map(&key).min() else {
        return;
    };
    list.retain(|one| key(one) == least);
}

fn beats_by_med(other: &Rank, rank: &Rank) -> bool {
    other.neighbor == rank.neighbor && other.med < rank.med
}

fn tie_break(
    a: &(&Path, Rank),
    b: &(&Path, Rank),
    info: &impl Fn(RouteSource) -> Option<SourceInfo>,
) -> Ordering {
    let key = |(path, rank): &(&Path, Rank)| {
        let info = info(path.source);
        let router = rank.originator.or(info.map(|info| info.router_id));
        (
            info.is_some_and(|info| info.internal),
            router,
            rank.clusters,
            info.map(|info| info.address),
            path.source,
        )
    };
    key(a).cmp(&key(b))
}

#[cfg(test)]
mod tests {
    use isthmus_bgp_packet::{AttributesBuilder, Origin};

    use super::*;
    use crate::config::PeerId;

    /// Peers 1 to 9 have the router id and the address of their number; from 6 on they are internal.
    fn info(source: RouteSource) -> Option<SourceInfo> {
        match source {
            RouteSource::Local => None,
            RouteSource::Peer(PeerId(n)) => Some(SourceInfo {
                internal: n >= 6,
                router_id: if n == 5 { 4 } else { n },
                address: [192, 0, 2, u8::try_from(n).unwrap()].into(),
            }),
        }
    }

    fn winner(paths: &[(u32, AttributesBuilder)]) -> u32 {
        let mut interner = Interner::default();
        let mut list: Vec<Path> = paths
            .iter()
            .map(|(peer, attributes)| {
                let source = if *peer == 0 {
                    RouteSource::Local
                } else {
                    RouteSource::Peer(PeerId(*peer))
                };
                Path::new(source, interner.intern(None, attributes.build().as_bytes()))
            })
            .collect();
        let mut winners: Vec<u32> = Vec::new();
        for _ in 0..list.len() {
            list.rotate_left(1);
            winners.push(match best(&list, &interner, info).unwrap().source {
                RouteSource::Local => 0,
                RouteSource::Peer(PeerId(n)) => n,
            });
        }
        winners.dedup();
        assert_eq!(
            winners.len(),
            1,
            "the order of the paths must not matter: {winners:?}"
        );
        winners[0]
    }

    /// Each row differs in one step of the list and must be won by the first path, whatever later steps would say.
    #[test]
    fn every_step_in_its_order() {
        let route = |path: &[u32]| AttributesBuilder::originated(Origin::Igp).as_path(path);
        let table: &[(&str, &[(u32, AttributesBuilder)])] = &[
            (
                "own route",
                &[(0, route(&[])), (1, route(&[]).local_pref(Some(900)))],
            ),
            (
                "local preference",
                &[(9, route(&[1, 2, 3]).local_pref(Some(101))), (6, route(&[]))],
            ),
            ("path length", &[(2, route(&[1])), (1, route(&[1, 2]))]),
            (
                "origin",
                &[(2, route(&[1])), (1, route(&[1]).origin(Origin::Incomplete))],
            ),
            (
                "MED, same neighbour",
                &[(2, route(&[1]).med(Some(5))), (1, route(&[1]).med(Some(6)))],
            ),
            (
                "MED, missing is zero",
                &[(2, route(&[1])), (1, route(&[1]).med(Some(6)))],
            ),
            (
                "MED of another neighbour",
                &[(1, route(&[1]).med(Some(6))), (2, route(&[2]).med(Some(5)))],
            ),
            ("external", &[(5, route(&[1])), (6, route(&[1]))]),
            ("router id", &[(1, route(&[1])), (2, route(&[1]))]),
            (
                "originator id",
                &[(8, route(&[1]).raw(0x80, 9, vec![0, 0, 0, 1])), (7, route(&[1]))],
            ),
            (
                "cluster list",
                &[
                    (
                        8,
                        route(&[1])
                            .raw(0x80, 9, vec![0, 0, 0, 1])
                            .raw(0x80, 10, vec![1; 4]),
                    ),
                    (
                        7,
                        route(&[1])
                            .raw(0x80, 9, vec![0, 0, 0, 1])
                            .raw(0x80, 10, vec![1; 8]),
                    ),
                ],
            ),
            ("peer address", &[(4, route(&[1])), (5, route(&[1]))]),
        ];
        for (name, paths) in table {
            assert_eq!(winner(paths), paths[0].0, "{name}");
        }
    }

    /// The well-known trap of MED: three paths of which each beats another. Elimination makes the result independent of order.
    #[test]
    fn med_is_compared_within_a_neighbour_only() {
        let route = |path: &[u32], med| {
            AttributesBuilder::originated(Origin::Igp)
                .as_path(path)
                .med(Some(med))
        };
        assert_eq!(
            winner(&[(3, route(&[1], 10)), (2, route(&[2], 0)), (1, route(&[1], 20))]),
            2
        );
    }

    #[test]
    fn rejected_paths_are_no_candidates() {
        let mut interner = Interner::default();
        let set = AttributesBuilder::originated(Origin::Igp).build();
        let mut path = Path::new(RouteSource::Local, interner.intern(None, set.as_bytes()));
        path.set_rejected(true);
        assert_eq!(best(&[path], &interner, info), None);
    }
}
