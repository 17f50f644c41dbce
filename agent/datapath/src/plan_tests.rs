//! The plan against a model of the maps: whatever is wanted after whatever was there, the maps end as wanted, and no reader
//! sees anything in between that is neither the old nor the new.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use isthmus_bpf_abi::{BACKEND_ACTIVE, BackendValue, SvcKey, SvcValue};
use isthmus_topology::{Protocol, Scope, ServiceAffinity, ServicePort};
use proptest::prelude::*;

use crate::config::Capacity;
use crate::desired::{Backend, Desired, Frontend, IpCacheRow, ServiceRow};
use crate::observed::{Observed, groups_of};
use crate::plan::{Plan, plan, plan_prefix, plan_service, svc_key};

const CAPACITY: Capacity = Capacity {
    services: 8,
    slots: 256,
    backends: 64,
    ipcache: 64,
    sockets: 1,
    flows: 1,
};

fn frontend(n: u8) -> Frontend {
    let port = ServicePort {
        protocol: Protocol::Tcp,
        port: 80,
    };
    Frontend {
        ip: IpAddr::from([10, 96, 0, n]),
        port,
        scope: Scope::Internal,
    }
}

fn backend(n: u8) -> Backend {
    Backend {
        ip: IpAddr::from([10, 1, 0, n]),
        port: 8080,
    }
}

fn service(groups: &[(u16, &[u8])]) -> ServiceRow {
    let set = |list: &[u8]| list.iter().map(|n| backend(*n)).collect();
    ServiceRow {
        affinity: ServiceAffinity::Local,
        groups: groups
            .iter()
            .map(|(cluster, list)| (*cluster, set(list)))
            .collect(),
    }
}

fn wanted(rows: &[(u8, ServiceRow)]) -> Desired {
    Desired {
        services: rows.iter().map(|(n, row)| (frontend(*n), row.clone())).collect(),
        ..Desired::default()
    }
}

/// Plans, notes, and checks that nothing is left to do.
fn settle(observed: &mut Observed, desired: &Desired) -> Plan {
    let plan = plan(desired, observed);
    observed.note(&plan);
    assert_eq!(
        crate::plan::plan(desired, observed).len(),
        0,
        "a second plan has nothing to do"
    );
    plan
}

/// ```text
/// what changes                       backends slots services cleared
/// first sight of 2 + 1 backends         3       3      1        0
/// nothing                               0       0      0        0
/// one more where the run has room       1       1      1        0
/// affinity                              0       0      1        0
/// a whole cluster leaves                0       0      1        1
/// ```
#[test]
fn small_changes_are_few_writes() {
    let mut observed = Observed::empty(&CAPACITY);
    let mut row = service(&[(1, &[1, 2]), (2, &[9])]);
    let counts = |plan: &Plan| {
        (
            plan.backends.len(),
            plan.slots.len(),
            plan.services.len(),
            plan.cleared.len(),
        )
    };
    assert_eq!(
        counts(&settle(&mut observed, &wanted(&[(1, row.clone())]))),
        (3, 3, 1, 0)
    );
    assert_eq!(
        counts(&settle(&mut observed, &wanted(&[(1, row.clone())]))),
        (0, 0, 0, 0)
    );
    row.groups.insert(1, [1, 2, 3].map(backend).into());
    assert_eq!(
        counts(&settle(&mut observed, &wanted(&[(1, row.clone())]))),
        (1, 3, 1, 0),
        "the run of two was full"
    );
    row.groups.insert(1, [1, 2, 3, 4].map(backend).into());
    assert_eq!(
        counts(&settle(&mut observed, &wanted(&[(1, row.clone())]))),
        (1, 1, 1, 0),
        "the run of four had room"
    );
    row.affinity = ServiceAffinity::Remote;
    assert_eq!(
        counts(&settle(&mut observed, &wanted(&[(1, row.clone())]))),
        (0, 0, 1, 0)
    );
    row.groups.remove(&2);
    assert_eq!(
        counts(&settle(&mut observed, &wanted(&[(1, row.clone())]))),
        (0, 0, 1, 1)
    );
    assert_eq!((observed.services(), observed.backends()), (1, 4));
}

#[test]
fn a_backend_of_two_services_is_one_and_goes_with_the_second() {
    let mut observed = Observed::empty(&CAPACITY);
    let row = service(&[(1, &[1])]);
    let plan = settle(&mut observed, &wanted(&[(1, row.clone()), (2, row.clone())]));
    assert_eq!((plan.backends.len(), plan.services.len()), (1, 2));
    let plan = settle(&mut observed, &wanted(&[(2, row)]));
    assert_eq!((plan.removed.len(), plan.cleared.len()), (1, 0));
    assert_eq!(settle(&mut observed, &wanted(&[])).cleared.len(), 1);
}

/// An id that is given to another backend has another generation, so that a flow that remembers it can tell.
#[test]
fn a_reused_id_has_another_generation() {
    let mut observed = Observed::empty(&CAPACITY);
    let first = settle(&mut observed, &wanted(&[(1, service(&[(1, &[1])]))])).backends[0];
    settle(&mut observed, &wanted(&[]));
    let second = settle(&mut observed, &wanted(&[(1, service(&[(1, &[2])]))])).backends[0];
    assert_eq!(first.0, second.0);
    assert!(second.1.generation > first.1.generation);
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let mut observed = Observed::empty(&CAPACITY);
    let many: Vec<u8> = (1..=100).collect();
    let rows = [(1, service(&[(1, &[1])])), (2, service(&[(1, &many)]))];
    let plan = plan(&wanted(&rows), &observed);
    assert_eq!(plan.refused.len(), 1);
    assert_eq!(
        (
            plan.backends.len(),
            plan.slots.len(),
            plan.services.len(),
            plan.taken.len()
        ),
        (1, 1, 1, 1)
    );
    observed.note(&plan);
    let mut rows: Vec<_> = (1..=9).map(|n| (n, service(&[(1, &[1])]))).collect();
    let plan = crate::plan::plan(&wanted(&rows), &observed);
    assert_eq!((plan.services.len(), plan.refused.len()), (7, 1), "eight fit");
    rows.truncate(8);
    settle(&mut observed, &wanted(&rows));
}

#[test]
fn single_rows_change_nothing_else() {
    let mut observed = Observed::empty(&CAPACITY);
    settle(
        &mut observed,
        &wanted(&[(1, service(&[(1, &[1])])), (2, service(&[(1, &[2])]))]),
    );
    let plan = plan_service(&frontend(1), Some(&service(&[(1, &[3])])), &observed).unwrap();
    assert_eq!(
        (plan.services.len(), plan.removed.len(), plan.cleared.len()),
        (1, 0, 1)
    );
    observed.note(&plan);
    let plan = plan_service(&frontend(1), None, &observed).unwrap();
    assert_eq!(
        (plan.services.len(), plan.removed.len(), plan.cleared.len()),
        (0, 1, 1)
    );
    observed.note(&plan);
    assert_eq!(observed.services(), 1);

    let (prefix, row) = (
        "fd00::/64".parse().unwrap(),
        IpCacheRow {
            identity: 7,
            endpoint: None,
            key: 0,
            skip_tunnel: false,
        },
    );
    for (row, writes) in [
        (Some(&row), (1, 0)),
        (Some(&row), (0, 0)),
        (None, (0, 1)),
        (None, (0, 0)),
    ] {
        let plan = plan_prefix(&prefix, row, &observed);
        assert_eq!((plan.ipcache.len(), plan.ipcache_removed.len()), writes);
        observed.note(&plan);
    }
}

/// The maps as the kernel has them, written one entry at a time.
#[derive(Clone)]
struct Kernel {
    services: BTreeMap<SvcKey, SvcValue>,
    slots: Vec<u32>,
    backends: Vec<BackendValue>,
}

type Shown = BTreeSet<(u16, [u8; 16], u16)>;

impl Kernel {
    /// What a connect to `key` may be given; `None` if there is no such service.
    fn shown(&self, key: &SvcKey) -> Option<Shown> {
        let svc = self.services.get(key)?;
        let mut shown = Shown::new();
        for group in groups_of(svc) {
            for slot in group.base()..group.base() + u32::from(group.count) {
                let held = self.backends[self.slots[slot as usize] as usize];
                assert_eq!(
                    (held.state, held.cluster),
                    (BACKEND_ACTIVE, group.cluster),
                    "a slot shows a wrong backend"
                );
                shown.insert((held.cluster, held.ip, held.port));
            }
        }
        Some(shown)
    }

    /// Calls `look` after every single write of the plan.
    fn apply(&mut self, plan: &Plan, mut look: impl FnMut(&Self)) {
        for (id, value) in &plan.backends {
            self.backends[*id as usize] = *value;
            look(self);
        }
        for (slot, id) in &plan.slots {
            self.slots[*slot as usize] = *id;
            look(self);
        }
        for (key, value) in &plan.services {
            self.services.insert(*key, *value);
            look(self);
        }
        for key in &plan.removed {
            self.services.remove(key);
            look(self);
        }
        for (id, value) in &plan.cleared {
            self.backends[*id as usize] = *value;
            look(self);
        }
    }
}

fn any_row() -> impl Strategy<Value = ServiceRow> {
    let backends = prop::collection::btree_set((0u8..10).prop_map(backend), 0..7);
    let affinity = prop_oneof![
        Just(ServiceAffinity::None),
        Just(ServiceAffinity::Local),
        Just(ServiceAffinity::Remote)
    ];
    (affinity, prop::collection::btree_map(1u16..4, backends, 0..4))
        .prop_map(|(affinity, groups)| ServiceRow { affinity, groups })
}

fn any_desired() -> impl Strategy<Value = BTreeMap<u8, ServiceRow>> {
    prop::collection::btree_map(0u8..5, any_row(), 0..5)
}

fn desired_shown(row: &ServiceRow) -> Shown {
    let v4 = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => isthmus_bpf_abi::mapped_v4(ip.octets()),
        IpAddr::V6(ip) => ip.octets(),
    };
    row.groups
        .iter()
        .flat_map(|(cluster, set)| set.iter().map(move |b| (*cluster, v4(b.ip), b.port)))
        .collect()
}

proptest! {
    #[test]
    fn readers_see_the_old_or_the_new(steps in prop::collection::vec(any_desired(), 1..8)) {
        let mut observed = Observed::empty(&CAPACITY);
        let mut kernel = Kernel {
            services: BTreeMap::new(),
            slots: observed.slots.clone(),
            backends: observed.backends.clone(),
        };
        let keys: Vec<SvcKey> = (0..5).map(|n| svc_key(&frontend(n)).unwrap()).collect();
        for rows in steps {
            let desired = wanted(&rows.clone().into_iter().collect::<Vec<_>>());
            let plan = plan(&desired, &observed);
            prop_assert!(plan.refused.is_empty());
            let before: Vec<_> = keys.iter().map(|key| kernel.shown(key)).collect();
            let after: Vec<_> = (0..5u8).map(|n| rows.get(&n).map(desired_shown)).collect();
            kernel.apply(&plan, |now| {
                for (n, key) in keys.iter().enumerate() {
                    let shown = now.shown(key);
                    assert!(shown == before[n] || shown == after[n], "frontend {n}: {shown:?}");
                }
            });
            let end: Vec<_> = keys.iter().map(|key| kernel.shown(key)).collect();
            prop_assert_eq!(end, after);
            observed.note(&plan);

            // What a restarted agent reads back leads to the same: nothing to do, and the same slots free.
            let read = Observed::restore(
                &CAPACITY, kernel.services.clone(), kernel.slots.clone(), kernel.backends.clone(), BTreeMap::new(),
            );
            prop_assert_eq!(crate::plan::plan(&desired, &read).len(), 0);
            prop_assert_eq!(&read.runs, &observed.runs);
            prop_assert_eq!(&read.refs, &observed.refs);
            prop_assert_eq!(&read.backend_ids, &observed.backend_ids);
        }
    }

    /// Maps full of nonsense are no reason to fail: what cannot be right is written anew.
    #[test]
    fn damaged_maps_are_written_anew(
        runs in prop::collection::vec((any::<u32>(), any::<u16>()), 5),
        slots in prop::collection::vec(any::<u32>(), 256),
        rows in any_desired(),
    ) {
        let services = runs.iter().zip(0u8..).map(|((run, count), n)| {
            let mut svc = SvcValue { svc_id: u32::from(n), n_groups: 1 + n * 60, ..SvcValue::default() };
            svc.groups[0] = isthmus_bpf_abi::Group { cluster: 1, count: *count, run: *run };
            (svc_key(&frontend(n)).unwrap(), svc)
        }).collect();
        let backends = vec![BackendValue::default(); 64];
        let mut observed = Observed::restore(&CAPACITY, services, slots, backends, BTreeMap::new());
        let desired = wanted(&rows.into_iter().collect::<Vec<_>>());
        let damaged = observed.damaged.len();
        let plan = settle(&mut observed, &desired);
        prop_assert!(plan.removed.len() <= damaged.max(5) && observed.damaged.is_empty());
        for (frontend, row) in &desired.services {
            let shown: BTreeSet<_> = observed.service_views()[frontend].groups.values().flatten().copied().collect();
            let wanted: BTreeSet<_> = row.groups.values().flatten().copied().collect();
            prop_assert_eq!(shown, wanted);
        }
    }
}
