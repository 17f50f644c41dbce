//! The story of every test: cluster `one` (id 1) has the Service demo/web on 172.20.0.1:80, port name "http"; clusters 2 and 3
//! export a service of that name. What ends up behind the frontend, by cluster?
use proptest::prelude::*;

use super::*;
use crate::{Backend, ClusterName, MaxClusters, Protocol, Zone};

const HTTP: ServicePort = ServicePort {
    protocol: Protocol::Tcp,
    port: 80,
};
const TARGET: ServicePort = ServicePort {
    protocol: Protocol::Tcp,
    port: 8080,
};

fn id(n: u32) -> ClusterId {
    ClusterId::new(n, MaxClusters::C255).expect("valid id")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).expect("node")
}

fn backend(address: &str, state: BackendState, on: &str) -> Backend {
    let ports = BTreeMap::from([("http".to_owned(), TARGET)]);
    Backend {
        ip: ip(address),
        ports,
        state,
        node: Some(node(on)),
        hostname: String::new(),
        zone: Zone::default(),
    }
}

fn web(backends: Vec<Backend>) -> LocalService {
    LocalService {
        name: ServiceName::new("demo", "web").expect("name"),
        global: true,
        shared: true,
        affinity: ServiceAffinity::None,
        headless: false,
        cluster_ips: vec![ip("172.20.0.1")],
        load_balancer_ips: vec![],
        external_ips: vec![],
        load_balancer_class: None,
        ports: BTreeMap::from([("http".to_owned(), HTTP)]),
        external_traffic_policy: TrafficPolicy::Cluster,
        internal_traffic_policy: TrafficPolicy::Cluster,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        selector: BTreeMap::new(),
        backends,
    }
}

fn exported(cluster: u32, backends: &[(&str, &str, ServicePort)]) -> RemoteService {
    let mut by_ip: BTreeMap<IpAddr, BTreeMap<PortName, ServicePort>> = BTreeMap::new();
    for (address, name, port) in backends {
        by_ip
            .entry(ip(address))
            .or_default()
            .insert((*name).to_owned(), *port);
    }
    RemoteService {
        cluster: ClusterName::new(format!("c{cluster}")).expect("name"),
        cluster_id: id(cluster),
        name: ServiceName::new("demo", "web").expect("name"),
        frontends: BTreeMap::from([(ip("172.21.0.9"), BTreeMap::from([("http".to_owned(), HTTP)]))]),
        backends: by_ip,
        hostnames: BTreeMap::new(),
        zones: BTreeMap::new(),
        labels: BTreeMap::new(),
        selector: BTreeMap::new(),
        include_external: true,
        shared: true,
    }
}

/// Merges and writes each frontend as `address -> cluster: backends`.
fn table(local: &LocalService, remote: &[&RemoteService]) -> Vec<String> {
    let others = remote.iter().map(|r| (r.cluster_id, *r)).collect();
    let remote = BTreeMap::from([(local.name.clone(), others)]);
    let merged = merge_services(id(1), Some(&node("n1")), [local], &remote);
    let frontends = merged.values().flat_map(|service| &service.frontends);
    let group = |(id, backends): (&ClusterId, &Vec<MergedBackend>)| {
        let list: Vec<_> = backends.iter().map(|b| format!("{}:{}", b.ip, b.port)).collect();
        format!("{id}: {}", list.join(" "))
    };
    frontends
        .map(|(f, m)| {
            format!(
                "{f} -> {}",
                m.groups.iter().map(group).collect::<Vec<_>>().join(" | ")
            )
        })
        .collect()
}

#[test]
fn remote_backends_join_by_name_and_port_name() {
    let local = web(vec![backend("10.1.0.1", BackendState::Active, "n1")]);
    let two = exported(
        2,
        &[
            ("10.2.0.1", "http", TARGET),
            ("10.2.0.2", "metrics", TARGET),
            ("fd00::2", "http", TARGET),
        ],
    );
    let three = exported(
        3,
        &[(
            "10.3.0.1",
            "http",
            ServicePort {
                protocol: Protocol::Udp,
                port: 8080,
            },
        )],
    );
    assert_eq!(
        table(&local, &[&two, &three]),
        ["172.20.0.1:80/TCP -> 1: 10.1.0.1:8080 | 2: 10.2.0.1:8080"]
    );
}

#[test]
fn a_service_that_is_not_global_here_takes_no_remote_backends() {
    let mut local = web(vec![backend("10.1.0.1", BackendState::Active, "n1")]);
    local.global = false;
    let two = exported(2, &[("10.2.0.1", "http", TARGET)]);
    assert_eq!(table(&local, &[&two]), ["172.20.0.1:80/TCP -> 1: 10.1.0.1:8080"]);
}

#[test]
fn shared_false_counts_as_deleted() {
    let mut two = exported(2, &[("10.2.0.1", "http", TARGET)]);
    two.shared = false;
    assert_eq!(table(&web(vec![]), &[&two]), ["172.20.0.1:80/TCP -> "]);
}

#[test]
fn terminating_backends_serve_only_when_nothing_is_active() {
    let leaving = backend("10.1.0.2", BackendState::Terminating, "n1");
    let active = backend("10.1.0.1", BackendState::Active, "n1");
    let dead = backend("10.1.0.3", BackendState::NotReady, "n1");
    let both = web(vec![active, leaving.clone(), dead.clone()]);
    assert_eq!(table(&both, &[]), ["172.20.0.1:80/TCP -> 1: 10.1.0.1:8080"]);
    assert_eq!(
        table(&web(vec![leaving, dead]), &[]),
        ["172.20.0.1:80/TCP -> 1: 10.1.0.2:8080"]
    );
}

#[test]
fn policy_local_keeps_the_nodes_own_backends_and_drops_remote_ones() {
    let here = backend("10.1.0.1", BackendState::Active, "n1");
    let there = backend("10.1.1.1", BackendState::Active, "n2");
    let mut local = web(vec![here, there]);
    local.load_balancer_ips = vec![ip("203.0.113.10")];
    local.external_traffic_policy = TrafficPolicy::Local;
    let two = exported(2, &[("10.2.0.1", "http", TARGET)]);
    let expected = [
        "172.20.0.1:80/TCP -> 1: 10.1.0.1:8080 10.1.1.1:8080 | 2: 10.2.0.1:8080",
        "203.0.113.10:80/TCP -> 1: 10.1.0.1:8080",
    ];
    assert_eq!(table(&local, &[&two]), expected);
}

#[test]
fn headless_services_and_sctp_ports_have_no_frontend() {
    let mut headless = web(vec![]);
    headless.headless = true;
    assert!(table(&headless, &[]).is_empty());
    let mut sctp = web(vec![]);
    sctp.ports = BTreeMap::from([(
        "http".to_owned(),
        ServicePort {
            protocol: Protocol::Sctp,
            port: 80,
        },
    )]);
    assert!(table(&sctp, &[]).is_empty());
}

proptest! {
    /// Whatever is merged: no empty group, families never mix, and the own cluster's group holds only own backends.
    #[test]
    fn groups_are_never_empty_and_families_never_mix(
        locals in proptest::collection::vec((0u8..4, any::<bool>(), 0u8..3), 0..8),
        remotes in proptest::collection::vec((2u32..5, any::<u8>(), any::<bool>()), 0..12),
        v6_frontend in any::<bool>(),
    ) {
        let states = [BackendState::Active, BackendState::Terminating, BackendState::NotReady];
        let address = |cluster: u32, n: u8, v6: bool| if v6 { format!("fd00:{cluster}::{n:x}") } else { format!("10.{cluster}.0.{n}") };
        let backends = locals.iter().map(|(n, v6, s)| backend(&address(1, *n, *v6), states[usize::from(*s)], "n1"));
        let mut local = web(backends.collect());
        local.cluster_ips = vec![ip(if v6_frontend { "fd01::1" } else { "172.20.0.1" })];
        let mut by_cluster: BTreeMap<u32, Vec<(String, &str, ServicePort)>> = BTreeMap::new();
        for (cluster, n, v6) in &remotes {
            by_cluster.entry(*cluster).or_default().push((address(*cluster, *n, *v6), "http", TARGET));
        }
        let exports: Vec<RemoteService> = by_cluster.iter().map(|(cluster, list)| {
            let list: Vec<_> = list.iter().map(|(a, n, p)| (a.as_str(), *n, *p)).collect();
            exported(*cluster, &list)
        }).collect();
        let others = exports.iter().map(|r| (r.cluster_id, r)).collect();
        let merged = merge_services(id(1), None, [&local], &BTreeMap::from([(local.name.clone(), others)]));
        for (frontend, merged) in merged.values().flat_map(|s| &s.frontends) {
            for (cluster, group) in &merged.groups {
                prop_assert!(!group.is_empty());
                prop_assert!(group.iter().all(|b| b.ip.is_ipv6() == frontend.ip.is_ipv6()));
                let own = address(u32::from(cluster.value()), 0, frontend.ip.is_ipv6());
                prop_assert!(group.iter().all(|b| b.ip.to_string().starts_with(&own[..own.len() - 1])));
            }
        }
    }
}
