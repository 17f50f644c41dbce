//! Random meshes that change step by step: following the steps gives what computing anew gives; and stories of single rules.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use isthmus_datapath::{Backend as Row, Frontend, Inspection, IpCacheRow, ServiceView};
use isthmus_remote_cluster::{ExportMode, RemoteClusterState, RemoteConfig, RemoteSnapshot};
use isthmus_sources::Snapshot;
use isthmus_topology::{
    Backend, BackendState, ClusterId, ClusterName, Identity, IpIdentity, LocalService, MaxClusters, Node,
    NodeAddress, NodeAddressKind, NodeName, Protocol, RemoteService, Scope, ServiceAffinity, ServiceName,
    ServicePort, TrafficPolicy, Zone,
};
use isthmus_tunnel::{Plan, Settings, TunnelInputs};
use proptest::prelude::*;

use super::*;
use crate::args::ServiceChoice;
use crate::intents::Me;
use crate::services::choice;

const PORT: ServicePort = ServicePort {
    protocol: Protocol::Tcp,
    port: 80,
};

fn id(n: u32) -> ClusterId {
    ClusterId::new(n, MaxClusters::C255).expect("id")
}

fn cluster(n: u32) -> ClusterName {
    ClusterName::new(format!("c{n}")).expect("name")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("ip")
}

fn node(c: u32, n: u8) -> Node {
    let address = |kind, text: String| NodeAddress { kind, ip: ip(&text) };
    Node {
        cluster: cluster(c),
        cluster_id: id(c),
        name: NodeName::new(format!("n{n}")).expect("name"),
        addresses: vec![
            address(NodeAddressKind::InternalIP, format!("172.30.{c}.{n}")),
            address(NodeAddressKind::CiliumInternalIP, format!("10.{c}.{n}.1")),
        ],
        hostnames: Vec::new(),
        pod_cidrs: vec![format!("10.{c}.{n}.0/24").parse().expect("cidr")],
        health_ipv4: None,
        health_ipv6: None,
        ingress_ipv4: None,
        ingress_ipv6: None,
        encryption_key: 0,
        wireguard_pub_key: String::new(),
        boot_id: String::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    }
}

fn entry(c: u32, net: &str, host: Option<String>, number: u32) -> IpIdentity {
    let prefix: IpNet = net.parse().expect("prefix");
    IpIdentity {
        prefix,
        host_entry: prefix.prefix_len() == prefix.max_prefix_len(),
        host_ip: host.map(|text| ip(&text)),
        identity: Identity((c << 16) + number),
        key: 0,
        namespace: String::new(),
        pod: String::new(),
        service_account: String::new(),
        named_ports: Vec::new(),
    }
}

fn service_name(n: u8) -> ServiceName {
    ServiceName::new("demo", format!("s{n}")).expect("name")
}

fn local_service(n: u8, vip: u8, outside: bool, global: bool, backends: &[u8]) -> LocalService {
    let backend = |b: &u8| Backend {
        ip: ip(&format!("10.1.{}.{}", 1 + b % 2, 10 + b)),
        ports: BTreeMap::from([("http".to_owned(), PORT)]),
        state: BackendState::Active,
        node: Some(NodeName::new(format!("n{}", 1 + b % 2)).expect("name")),
        hostname: String::new(),
        zone: Zone::default(),
    };
    LocalService {
        name: service_name(n),
        global,
        shared: global,
        affinity: ServiceAffinity::Local,
        headless: false,
        cluster_ips: vec![ip(&format!("10.100.0.{vip}"))],
        load_balancer_ips: outside
            .then(|| ip(&format!("203.0.113.{vip}")))
            .into_iter()
            .collect(),
        external_ips: Vec::new(),
        load_balancer_class: None,
        ports: BTreeMap::from([("http".to_owned(), PORT)]),
        external_traffic_policy: TrafficPolicy::Cluster,
        internal_traffic_policy: TrafficPolicy::Cluster,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        selector: BTreeMap::new(),
        backends: backends.iter().map(backend).collect(),
    }
}

fn remote_service(c: u32, n: u8, backends: &[u8]) -> RemoteService {
    let port = BTreeMap::from([("http".to_owned(), PORT)]);
    RemoteService {
        cluster: cluster(c),
        cluster_id: id(c),
        name: service_name(n),
        frontends: BTreeMap::new(),
        backends: backends
            .iter()
            .map(|b| (ip(&format!("10.{c}.{}.{}", 1 + b % 2, 10 + b)), port.clone()))
            .collect(),
        hostnames: BTreeMap::new(),
        zones: BTreeMap::new(),
        labels: BTreeMap::new(),
        selector: BTreeMap::new(),
        include_external: true,
        shared: true,
    }
}

fn remote(c: u32) -> RemoteClusterState {
    let mut state = RemoteClusterState::new(cluster(c));
    state.config = Some(RemoteConfig {
        id: id(c),
        max_clusters: MaxClusters::C255,
        synced_canaries: true,
        cached: false,
        service_exports: None,
        slices: ExportMode::Services,
    });
    let s = &mut state.status.synced;
    (s.nodes, s.services, s.identities, s.endpoints) = (true, true, true, true);
    state
}

fn intents(local: Vec<LocalService>, ips: Vec<IpIdentity>, states: Vec<RemoteClusterState>) -> Intents {
    Intents {
        me: Arc::new(Me {
            cluster: id(1),
            max: MaxClusters::C255,
            node: NodeName::new("n1").expect("name"),
            services: ServiceChoice::Global,
        }),
        local: Snapshot {
            complete: true,
            nodes: Arc::new(
                [node(1, 1), node(1, 2)]
                    .map(|n| (n.name.clone(), Arc::new(n)))
                    .into(),
            ),
            services: Arc::new(local.into_iter().map(|s| (s.name.clone(), Arc::new(s))).collect()),
            ips: Arc::new(ips.into_iter().map(|e| (e.prefix, Arc::new(e))).collect()),
            ..Snapshot::default()
        },
        remote: Arc::new(RemoteSnapshot {
            configured: true,
            clusters: states
                .into_iter()
                .map(|s| (s.name.clone(), Arc::new(s)))
                .collect(),
            ..RemoteSnapshot::default()
        }),
        dead: BTreeSet::new(),
        masquerade: true,
    }
}

fn plan_of(intents: &Intents) -> Plan {
    let nodes = intents.other_nodes();
    let local = intents.own_node().expect("own node");
    isthmus_tunnel::plan(&TunnelInputs {
        settings: &Settings::default(),
        local,
        nodes: &nodes,
    })
}

fn fresh(intents: &Intents) -> Wanted {
    let mut wanted = Wanted::default();
    assert_eq!(
        wanted.update(None, intents, &plan_of(intents), false, false),
        Update::All
    );
    wanted
}

fn inside(vip: u8) -> Frontend {
    Frontend {
        ip: ip(&format!("10.100.0.{vip}")),
        port: PORT,
        scope: Scope::Internal,
    }
}

fn rows(ips: &[&str]) -> BTreeSet<Row> {
    ips.iter()
        .map(|text| Row {
            ip: ip(text),
            port: 80,
        })
        .collect()
}

fn west(backends: &[u8]) -> RemoteClusterState {
    let mut state = remote(2);
    for n in [1, 2] {
        state
            .nodes
            .insert(NodeName::new(format!("n{n}")).expect("name"), node(2, n));
    }
    state
        .services
        .insert(service_name(1), remote_service(2, 1, backends));
    state
}

#[test]
fn a_global_service_has_a_group_for_each_cluster_and_others_have_none() {
    let local = vec![
        local_service(1, 1, false, true, &[0, 1]),
        local_service(2, 2, false, false, &[0]),
    ];
    let wanted = fresh(&intents(local, Vec::new(), vec![west(&[0])]));
    let groups = &wanted.desired.services[&inside(1)].groups;
    assert_eq!(
        *groups,
        BTreeMap::from([(1, rows(&["10.1.1.10", "10.1.2.11"])), (2, rows(&["10.2.1.10"]))])
    );
    assert!(
        !wanted.desired.services.contains_key(&inside(2)),
        "a ClusterIP of its own cluster only is the CNI's"
    );
}

#[test]
fn backends_on_a_node_that_does_not_answer_are_left_out() {
    let mut now = intents(
        vec![local_service(1, 1, false, true, &[0])],
        Vec::new(),
        vec![west(&[0, 1])],
    );
    now.dead.insert((id(2), NodeName::new("n1").expect("name")));
    assert_eq!(
        fresh(&now).desired.services[&inside(1)].groups[&2],
        rows(&["10.2.2.11"])
    );
}

#[test]
fn without_masquerade_packets_from_outside_stay_on_this_node() {
    let mut now = intents(
        vec![local_service(1, 1, true, true, &[0, 1])],
        Vec::new(),
        vec![west(&[0])],
    );
    now.masquerade = false;
    let wanted = fresh(&now);
    let outside = |scope| Frontend {
        ip: ip("203.0.113.1"),
        port: PORT,
        scope,
    };
    assert_eq!(
        wanted.desired.services[&outside(Scope::External)].groups,
        BTreeMap::from([(1, rows(&["10.1.1.10"]))])
    );
    assert_eq!(
        wanted.desired.services[&outside(Scope::Internal)].groups.len(),
        2,
        "pods are not affected"
    );
}

#[test]
fn a_local_policy_binds_packets_from_outside_and_not_pods() {
    let mut service = local_service(1, 1, true, true, &[0, 1]);
    service.external_traffic_policy = TrafficPolicy::Local;
    let wanted = fresh(&intents(vec![service], Vec::new(), vec![west(&[0])]));
    let outside = |scope| Frontend {
        ip: ip("203.0.113.1"),
        port: PORT,
        scope,
    };
    let groups = |scope| &wanted.desired.services[&outside(scope)].groups;
    assert_eq!(
        *groups(Scope::External),
        BTreeMap::from([(1, rows(&["10.1.1.10"]))]),
        "this node's only"
    );
    assert_eq!(
        groups(Scope::Internal),
        &wanted.desired.services[&inside(1)].groups
    );
}

#[test]
fn a_service_in_too_many_clusters_keeps_its_own_and_the_first() {
    let states = (2..=20).map(|c| {
        let mut state = remote(c);
        state.services.insert(service_name(1), remote_service(c, 1, &[0]));
        state
    });
    let mut service = local_service(1, 1, false, true, &[0]);
    service.affinity = ServiceAffinity::Remote;
    let now = intents(vec![service], Vec::new(), states.collect());
    let groups = fresh(&now).desired.services[&inside(1)].groups.clone();
    let most = u16::try_from(isthmus_bpf_abi::MAX_GROUPS).expect("small");
    assert_eq!(
        groups.keys().copied().collect::<Vec<_>>(),
        (1..=most).collect::<Vec<_>>()
    );
}

#[test]
fn two_services_with_one_address_are_named_and_the_first_keeps_it() {
    let local = vec![
        local_service(1, 7, false, true, &[0]),
        local_service(2, 7, false, true, &[1]),
    ];
    let wanted = fresh(&intents(local, Vec::new(), Vec::new()));
    assert_eq!(
        wanted.desired.services[&inside(7)].groups[&1],
        rows(&["10.1.1.10"])
    );
    assert!(
        wanted.problems[0]
            .contains("service demo/s2 wants 10.100.0.7:80/TCP internal, which demo/s1 has already")
    );
}

/// What the kernel chooses among (bpf/abi) and what status says must be the same.
#[test]
fn status_says_what_the_kernel_does() {
    use isthmus_topology::ServiceAffinity as A;
    let row = |affinity, clusters: &[u16]| isthmus_datapath::ServiceRow {
        affinity,
        groups: clusters.iter().map(|id| (*id, rows(&["10.9.9.9"]))).collect(),
    };
    for (affinity, groups, alive, eligible) in [
        (A::None, &[1, 2, 3][..], &[1, 2, 3][..], &[1, 2, 3][..]),
        (A::Local, &[1, 2, 3], &[1, 2, 3], &[1]),
        (A::Local, &[2, 3], &[1, 2, 3], &[2, 3]),
        (A::Remote, &[1, 2, 3], &[1, 3], &[3]),
        (A::Remote, &[1, 2, 3], &[1], &[1]),
        (A::None, &[2], &[1], &[]),
    ] {
        let found = choice(1, &row(affinity, groups), |id| alive.contains(&id));
        assert_eq!(
            found.eligible,
            eligible.iter().copied().collect(),
            "{affinity} {groups:?} {alive:?}"
        );
    }
}

#[test]
fn ip_entries_in_another_clusters_prefix_are_left_out() {
    let mut state = west(&[]);
    for (net, n) in [("10.2.1.20/32", 1), ("10.1.1.20/32", 2), ("192.0.2.7/32", 3)] {
        state.ips.insert(
            net.parse().expect("net"),
            entry(2, net, Some("172.30.2.1".into()), n),
        );
    }
    let own = vec![
        entry(1, "10.1.1.10/32", Some("172.30.1.1".into()), 1),
        entry(1, "10.1.2.11/32", Some("172.30.1.2".into()), 1),
    ];
    let wanted = fresh(&intents(Vec::new(), own, vec![state]));
    let row = |net: &str| {
        wanted
            .desired
            .ipcache
            .get(&net.parse::<IpNet>().expect("net"))
            .copied()
    };
    assert_eq!(
        row("10.2.1.20/32").and_then(|r| r.endpoint),
        Some(ip("172.30.2.1"))
    );
    assert_eq!(row("10.1.1.20/32"), None, "this cluster's prefix");
    assert_eq!(wanted.foreign_ips, 1);
    assert!(row("192.0.2.7/32").is_some(), "nobody's prefix");
    assert_eq!(
        row("10.1.1.10/32").and_then(|r| r.endpoint),
        None,
        "a pod of this node"
    );
    let neighbour = row("10.1.2.11/32").expect("row");
    assert!(
        neighbour.skip_tunnel && neighbour.endpoint == Some(ip("172.30.1.2")),
        "{neighbour:?}"
    );
    assert_eq!(
        row("10.2.1.1/32").map(|r| r.identity),
        Some(6),
        "a node's own address"
    );
}

/// ```text
///  before: s1 has backends in 1, 2, 3     now: 2 has synced without s1's backend, 3 is away
/// ```
#[test]
fn adopted_rows_stay_until_their_own_cluster_has_spoken() {
    let view = |id: u16| {
        (
            id,
            vec![Row {
                ip: ip(&format!("10.{id}.1.10")),
                port: 80,
            }],
        )
    };
    let held = ServiceView {
        id: 1,
        affinity: ServiceAffinity::Local,
        groups: BTreeMap::from([view(1), view(2), view(3)]),
    };
    let pod = |c: u32| {
        let row = IpCacheRow {
            identity: (c << 16) + 1,
            endpoint: None,
            key: 0,
            skip_tunnel: false,
        };
        (format!("10.{c}.1.10/32").parse::<IpNet>().expect("net"), row)
    };
    let inspection = Inspection {
        services: BTreeMap::from([(inside(1), held.clone()), (inside(9), held)]),
        ipcache: BTreeMap::from([pod(2), pod(3)]),
        ..Inspection::default()
    };
    let mut wanted = Wanted::keeping(Adopted::of(inspection));
    assert!(wanted.adopted.knew(3) && !wanted.adopted.knew(4));
    let mut away = RemoteClusterState::new(cluster(3));
    away.config = None;
    let service = local_service(1, 1, false, true, &[0]);
    let mut back = remote(2);
    back.services.insert(service_name(1), remote_service(2, 1, &[1]));
    let now = intents(vec![service.clone()], Vec::new(), vec![back, away]);
    assert_eq!(
        wanted.update(None, &now, &plan_of(&now), false, false),
        Update::All
    );
    let groups = &wanted.desired.services[&inside(1)].groups;
    assert_eq!(groups[&2], rows(&["10.2.2.11"]), "cluster 2 has spoken");
    assert_eq!(groups[&3], rows(&["10.3.1.10"]), "cluster 3 has not");
    assert!(
        !wanted.desired.services.contains_key(&inside(9)),
        "this cluster has no such service any more"
    );
    let kept: Vec<_> = wanted
        .desired
        .ipcache
        .keys()
        .filter(|net| **net == pod(2).0 || **net == pod(3).0)
        .collect();
    assert_eq!(kept, [&pod(3).0]);

    let later = intents(vec![service], Vec::new(), vec![remote(2), remote(3)]);
    wanted.update(Some(&now), &later, &plan_of(&later), false, false);
    assert_eq!(wanted.desired, fresh(&later).desired, "all have spoken");
}

#[derive(Debug, Clone)]
enum Step {
    Local(u8, Option<(u8, bool, bool, Vec<u8>)>),
    Remote(u32, u8, Option<Vec<u8>>),
    LocalIp(u8, Option<u32>),
    RemoteIp(u32, u8, u8, Option<u32>),
    Node(u32, u8, bool),
    Dead(u32, u8),
}

fn any_step() -> impl Strategy<Value = Step> {
    let backends = || prop::collection::vec(0u8..4, 0..4);
    let service = prop::option::of((1u8..5, any::<bool>(), any::<bool>(), backends()));
    prop_oneof![
        4 => (1u8..4, service).prop_map(|(n, s)| Step::Local(n, s)),
        4 => (2u32..4, 1u8..4, prop::option::of(backends())).prop_map(|(c, n, b)| Step::Remote(c, n, b)),
        2 => (10u8..13, prop::option::of(1u32..4)).prop_map(|(d, i)| Step::LocalIp(d, i)),
        4 => (2u32..4, 1u8..4, 10u8..13, prop::option::of(1u32..4)).prop_map(|(c, b, d, i)| Step::RemoteIp(c, b, d, i)),
        1 => (2u32..4, 1u8..3, any::<bool>()).prop_map(|(c, n, on)| Step::Node(c, n, on)),
        1 => (2u32..4, 1u8..3).prop_map(|(c, n)| Step::Dead(c, n)),
    ]
}

/// One step, with everything that stays the same shared with the intents before, as the sources do it.
fn take(mut now: Intents, step: &Step) -> Intents {
    let change = |now: &mut Intents, c: u32, edit: &dyn Fn(&mut RemoteClusterState)| {
        let mut snapshot = (*now.remote).clone();
        let state = snapshot.clusters.get_mut(&cluster(c)).expect("cluster");
        edit(Arc::make_mut(state));
        now.remote = Arc::new(snapshot);
    };
    match step {
        Step::Local(n, service) => {
            let table = Arc::make_mut(&mut now.local.services);
            table.remove(&service_name(*n));
            if let Some((vip, outside, global, backends)) = service {
                table.insert(
                    service_name(*n),
                    Arc::new(local_service(*n, *vip, *outside, *global, backends)),
                );
            }
        }
        Step::Remote(c, n, backends) => change(&mut now, *c, &|state| {
            state.services.remove(&service_name(*n));
            if let Some(backends) = backends {
                state
                    .services
                    .insert(service_name(*n), remote_service(*c, *n, backends));
            }
        }),
        Step::LocalIp(d, number) => {
            let net = format!("10.1.1.{d}/32");
            let table = Arc::make_mut(&mut now.local.ips);
            table.remove(&net.parse().expect("net"));
            if let Some(number) = number {
                table.insert(net.parse().expect("net"), Arc::new(entry(1, &net, None, *number)));
            }
        }
        Step::RemoteIp(c, b, d, number) => change(&mut now, *c, &|state| {
            let net = format!("10.{b}.1.{d}/32");
            state.ips.remove(&net.parse().expect("net"));
            if let Some(number) = number {
                state.ips.insert(
                    net.parse().expect("net"),
                    entry(*c, &net, Some(format!("172.30.{c}.1")), *number),
                );
            }
        }),
        Step::Node(c, n, on) => change(&mut now, *c, &|state| {
            let name = NodeName::new(format!("n{n}")).expect("name");
            state.nodes.remove(&name);
            if *on {
                state.nodes.insert(name, node(*c, *n));
            }
        }),
        Step::Dead(c, n) => {
            let key = (id(*c), NodeName::new(format!("n{n}")).expect("name"));
            if !now.dead.remove(&key) {
                now.dead.insert(key);
            }
        }
    }
    now
}

/// The cost of one changed endpoint must not grow with the mesh. Prints what it measures.
#[test]
fn one_change_among_many_services_touches_one_service() {
    const SERVICES: u16 = 20_000;
    let name = |n: u16| ServiceName::new("demo", format!("many{n}")).expect("name");
    let many = |n: u16, backends: &[u8]| {
        let [a, b] = n.to_be_bytes();
        let mut service = local_service(1, 1, false, true, backends);
        service.name = name(n);
        service.cluster_ips = vec![IpAddr::from([10, 101, a, b])];
        service
    };
    let mut state = west(&[]);
    for n in 0..SERVICES {
        state.services.insert(
            name(n),
            RemoteService {
                name: name(n),
                ..remote_service(2, 1, &[0])
            },
        );
    }
    let old = intents(
        (0..SERVICES).map(|n| many(n, &[0, 1])).collect(),
        Vec::new(),
        vec![state],
    );
    let plan = plan_of(&old);
    let mut wanted = Wanted::default();
    let started = std::time::Instant::now();
    wanted.update(None, &old, &plan, false, false);
    let all = started.elapsed();
    let mut next = old.clone();
    Arc::make_mut(&mut next.local.services).insert(name(777), Arc::new(many(777, &[0])));
    let started = std::time::Instant::now();
    let update = wanted.update(Some(&old), &next, &plan, true, false);
    let one = started.elapsed();
    println!("{SERVICES} services: all {all:?}, one change {one:?}");
    let Update::Rows(frontends, prefixes) = update else {
        panic!("everything was computed anew")
    };
    assert_eq!((frontends.len(), prefixes.len()), (1, 0));
    assert_eq!(wanted.desired, fresh(&next).desired);
    assert!(one * 5 < all, "{one:?} is not small beside {all:?}");
}

proptest! {
    #[test]
    fn following_the_steps_gives_what_computing_anew_gives(steps in prop::collection::vec(any_step(), 1..40)) {
        let mut old = intents(Vec::new(), Vec::new(), vec![remote(2), remote(3)]);
        let mut wanted = fresh(&old);
        for step in &steps {
            let next = take(old.clone(), step);
            let (plan, before) = (plan_of(&next), wanted.desired.clone());
            let same_plan = plan == plan_of(&old);
            let update = wanted.update(Some(&old), &next, &plan, same_plan, false);
            let anew = fresh(&next);
            prop_assert_eq!(&wanted.desired, &anew.desired, "after {:?}", step);
            prop_assert_eq!(&wanted.merged, &anew.merged);
            prop_assert_eq!((&wanted.problems, wanted.foreign_ips), (&anew.problems, anew.foreign_ips));
            if let Update::Rows(frontends, prefixes) = update {
                for key in before.services.keys().chain(anew.desired.services.keys()) {
                    let same = before.services.get(key) == anew.desired.services.get(key);
                    prop_assert!(same || frontends.contains(key), "{} changed unseen", key);
                }
                for key in before.ipcache.keys().chain(anew.desired.ipcache.keys()) {
                    let same = before.ipcache.get(key) == anew.desired.ipcache.get(key);
                    prop_assert!(same || prefixes.contains(key), "{} changed unseen", key);
                }
            }
            old = next;
        }
    }
}
