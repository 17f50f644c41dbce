//! Plans told as meshes of nodes, and properties over random meshes.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use isthmus_topology::{
    ClusterId, ClusterName, Identity, MaxClusters, Node, NodeAddress, NodeAddressKind, NodeName,
};
use isthmus_tunnel::{
    Mode, Observed, ObservedDevice, Op, Plan, Prune, Route, Settings, TunnelInputs, diff, plan,
};
use proptest::prelude::*;

fn node(cluster: u32, name: &str, endpoint: Option<&str>, overlay: &[&str], cidrs: &[&str]) -> Node {
    let address = |kind, ip: &str| NodeAddress {
        kind,
        ip: ip.parse().expect("ip"),
    };
    let endpoint = endpoint.iter().map(|ip| address(NodeAddressKind::InternalIP, ip));
    let inside = overlay
        .iter()
        .map(|ip| address(NodeAddressKind::CiliumInternalIP, ip));
    Node {
        cluster: ClusterName::new(format!("c{cluster}")).expect("name"),
        cluster_id: ClusterId::new(cluster, MaxClusters::C255).expect("id"),
        name: NodeName::new(name).expect("name"),
        addresses: endpoint.chain(inside).collect(),
        hostnames: Vec::new(),
        pod_cidrs: cidrs.iter().map(|net| net.parse().expect("cidr")).collect(),
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

fn net(text: &str) -> IpNet {
    text.parse().expect("prefix")
}

fn plan_of(local: &Node, others: &[Node], settings: &Settings) -> Plan {
    let nodes: Vec<&Node> = others.iter().collect();
    let plan = plan(&TunnelInputs {
        settings,
        local,
        nodes: &nodes,
    });
    assert_eq!(plan.check(), Vec::<String>::new());
    plan
}

fn east_1() -> Node {
    node(
        1,
        "east-1",
        Some("172.30.1.1"),
        &["10.1.1.1", "fd00:10:1:1::1"],
        &["10.1.1.0/24", "fd00:10:1:1::/64"],
    )
}

/// ```text
///  c1/east-1 172.30.1.1  pods 10.1.1.0/24 ──┐
///  c1/east-2 172.30.1.2  pods 10.1.2.0/24 ──┤ underlay, MTU 1500
///  c2/west-1 172.30.2.1  pods 10.2.1.0/24 ──┘
/// ```
#[test]
fn a_remote_node_costs_one_route_and_one_fallback_for_each_prefix() {
    let others = [
        node(
            2,
            "west-1",
            Some("172.30.2.1"),
            &["10.2.1.1", "fd00:10:2:1::1"],
            &["10.2.1.0/24", "fd00:10:2:1::/64"],
        ),
        node(1, "east-2", Some("172.30.1.2"), &["10.1.2.1"], &["10.1.2.0/24"]),
    ];
    let plan = plan_of(&east_1(), &others, &Settings::default());
    let device = plan.device.as_ref().expect("device");
    assert_eq!((device.mtu, device.port), (1450, 8472));
    assert_eq!(device.mac.to_string(), "02:49:ac:1e:01:01");
    assert_eq!(
        device.addresses,
        BTreeSet::from([net("10.1.1.1/32"), net("fd00:10:1:1::1/128")])
    );
    let to = |via: Option<&str>, source: &str| Route {
        via: via.map(|ip| ip.parse().expect("ip")),
        source: Some(source.parse().expect("ip")),
    };
    let expected = BTreeMap::from([
        (net("10.2.1.0/24"), to(Some("10.2.1.1"), "10.1.1.1")),
        (net("10.2.1.1/32"), to(None, "10.1.1.1")),
        (
            net("fd00:10:2:1::/64"),
            to(Some("fd00:10:2:1::1"), "fd00:10:1:1::1"),
        ),
        (net("fd00:10:2:1::1/128"), to(None, "fd00:10:1:1::1")),
    ]);
    assert_eq!(
        plan.routes, expected,
        "pods of the own cluster are the CNI's affair"
    );
    let fallback = plan.ipcache[&net("10.2.1.0/24")];
    assert_eq!(
        fallback.endpoint,
        Some("172.30.2.1".parse::<IpAddr>().expect("ip"))
    );
    assert_eq!(
        plan.ipcache[&net("172.30.2.1/32")].identity,
        Identity::REMOTE_NODE
    );
    assert!(
        plan.ipcache[&net("172.30.2.1/32")].skip_tunnel,
        "the underlay is not reached by the tunnel"
    );
    assert_eq!(plan.ipcache[&net("10.1.1.1/32")].identity, Identity::HOST);

    let settings = Settings {
        own_cluster: true,
        ..Settings::default()
    };
    let whole = plan_of(&east_1(), &others, &settings);
    assert!(
        whole.routes.contains_key(&net("10.1.2.0/24")),
        "unless it is asked for"
    );
}

#[test]
fn an_ipv6_underlay_costs_twenty_bytes_more() {
    let local = node(1, "a", Some("fd00:30::1"), &[], &["fd00:10:1::/64"]);
    let plan = plan_of(&local, &[], &Settings::default());
    assert_eq!(plan.device.expect("device").mtu, 1430);
}

/// The first claim stays: own cluster, lower id, name. Everything else of the refused node works.
#[test]
fn overlapping_pod_cidrs_are_refused_and_nothing_else_suffers() {
    let others = [
        node(
            3,
            "late",
            Some("172.30.3.1"),
            &["10.3.1.1"],
            &["10.2.0.0/16", "10.3.1.0/24"],
        ),
        node(2, "west-1", Some("172.30.2.1"), &["10.2.1.1"], &["10.2.1.0/24"]),
        node(4, "thief", Some("172.30.4.1"), &["10.4.0.1"], &["10.1.1.128/25"]),
    ];
    let plan = plan_of(&east_1(), &others, &Settings::default());
    let reasons: Vec<String> = plan.refused.iter().map(ToString::to_string).collect();
    assert_eq!(
        reasons,
        [
            "pod CIDR 10.2.0.0/16 of c3/late overlaps 10.2.1.0/24 of c2/west-1 and is not used: give every node of the mesh \
             its own pod CIDR",
            "pod CIDR 10.1.1.128/25 of c4/thief overlaps 10.1.1.0/24 of c1/east-1 and is not used: give every node of the \
             mesh its own pod CIDR",
        ]
    );
    for kept in ["10.2.1.0/24", "10.3.1.0/24", "10.4.0.1/32"] {
        assert!(plan.routes.contains_key(&net(kept)), "{kept}");
    }
}

#[test]
fn a_tunnel_never_runs_through_itself() {
    let others = [
        node(
            2,
            "west-1",
            Some("172.30.2.1"),
            &["10.2.1.1"],
            &["172.30.0.0/16", "10.2.1.0/24"],
        ),
        node(2, "west-2", None, &["10.2.2.1"], &["10.2.2.0/24"]),
        node(3, "twin", Some("172.30.1.1"), &[], &["10.3.1.0/24"]),
    ];
    let plan = plan_of(&east_1(), &others, &Settings::default());
    let reasons: Vec<String> = plan.refused.iter().map(ToString::to_string).collect();
    assert!(
        reasons[0].contains("contains 172.30.1.1, where the tunnel to c1/east-1 ends"),
        "{reasons:?}"
    );
    assert!(reasons[1].contains("c2/west-2 has no InternalIP"), "{reasons:?}");
    assert!(
        reasons[2].contains("address 172.30.1.1/32 of c3/twin belongs to c1/east-1 already"),
        "{reasons:?}"
    );
    assert_eq!(
        plan.routes.keys().copied().collect::<Vec<_>>(),
        [net("10.2.1.0/24"), net("10.2.1.1/32")]
    );
}

/// What a perfect kernel would have after the ops.
fn apply(observed: &mut Observed, ops: &[Op]) {
    for op in ops {
        match op {
            Op::AddDevice(d) => {
                let port = match Settings::default().mode {
                    Mode::Vxlan { port } => Some(port),
                };
                let (mac, mtu) = (Some(d.mac), d.mtu);
                let addresses = BTreeSet::new();
                observed.device = Some(ObservedDevice {
                    port,
                    mac,
                    mtu,
                    up: false,
                    no_arp: false,
                    addresses,
                });
            }
            Op::DeleteDevice(_) => {
                observed.device = None;
                observed.routes.clear();
            }
            Op::PutRoute(net, route) => {
                observed.routes.insert(*net, Some(route.clone()));
            }
            Op::DeleteRoute(net) => {
                observed.routes.remove(net);
            }
            Op::AddRule(rule) => {
                observed.rules.insert(*rule);
            }
            Op::DeleteRule(rule) => {
                observed.rules.remove(rule);
            }
            Op::SetMac(_, mac) => observed.device.as_mut().expect("device").mac = Some(*mac),
            Op::SetMtu(_, mtu) => observed.device.as_mut().expect("device").mtu = *mtu,
            Op::SetNoArp(_) => observed.device.as_mut().expect("device").no_arp = true,
            Op::SetUp(_) => observed.device.as_mut().expect("device").up = true,
            Op::AddAddress(_, net) => {
                observed.device.as_mut().expect("device").addresses.insert(*net);
            }
            Op::DeleteAddress(_, net) => {
                observed.device.as_mut().expect("device").addresses.remove(net);
            }
        }
    }
}

#[test]
fn what_an_earlier_process_left_stays_until_every_source_was_heard() {
    let west = node(2, "west-1", Some("172.30.2.1"), &["10.2.1.1"], &["10.2.1.0/24"]);
    let settings = Settings::default();
    let before = plan_of(&east_1(), &[west], &settings);
    let mut kernel = Observed::default();
    apply(&mut kernel, &diff(&before, &Observed::default(), Prune::All));

    let unheard = plan_of(&east_1(), &[], &settings);
    assert_eq!(
        diff(&unheard, &kernel, Prune::Only(&BTreeSet::new())),
        [],
        "a restart writes nothing"
    );
    let taken_back = BTreeSet::from([net("10.2.1.0/24")]);
    assert_eq!(
        diff(&unheard, &kernel, Prune::Only(&taken_back)),
        [Op::DeleteRoute(net("10.2.1.0/24"))]
    );
    let all = diff(&unheard, &kernel, Prune::All);
    assert_eq!(all.len(), 3, "both routes and the rule: {all:?}");
}

#[test]
fn a_foreign_device_of_our_name_is_replaced() {
    let plan = plan_of(&east_1(), &[], &Settings::default());
    let foreign = ObservedDevice {
        port: None,
        mac: None,
        mtu: 1500,
        up: true,
        no_arp: false,
        addresses: BTreeSet::new(),
    };
    let observed = Observed {
        device: Some(foreign),
        ..Observed::default()
    };
    let ops = diff(&plan, &observed, Prune::All);
    assert_eq!(ops[0], Op::DeleteDevice("isthmus_vxlan".into()));
    assert!(matches!(ops[1], Op::AddDevice(_)));
}

fn any_node() -> impl Strategy<Value = Node> {
    // Few different values, so that they collide often.
    let cidr = (0u8..6, 0u8..4, prop_oneof![Just(16u8), Just(24), Just(25)])
        .prop_map(|(b, c, len)| format!("10.{b}.{c}.0/{len}"));
    let endpoint = prop_oneof![
        (0u8..6).prop_map(|d| format!("172.30.0.{d}")),
        (0u8..3).prop_map(|d| format!("10.0.{d}.9"))
    ];
    let overlay = (0u8..6, 0u8..4).prop_map(|(b, c)| format!("10.{b}.{c}.1"));
    let parts = (
        1u32..4,
        0u8..3,
        prop::option::of(endpoint),
        prop::option::of(overlay),
        prop::collection::vec(cidr, 0..3),
    );
    parts.prop_map(|(cluster, name, endpoint, overlay, cidrs)| {
        let overlay: Vec<&str> = overlay.iter().map(String::as_str).collect();
        let cidrs: Vec<&str> = cidrs.iter().map(String::as_str).collect();
        node(
            cluster,
            &format!("n{name}"),
            endpoint.as_deref(),
            &overlay,
            &cidrs,
        )
    })
}

proptest! {
    #[test]
    fn every_plan_keeps_its_invariants_and_is_reached_in_one_go(
        others in prop::collection::vec(any_node(), 0..8),
        before in prop::collection::vec(any_node(), 0..8),
        own_cluster in any::<bool>(),
    ) {
        let settings = Settings { own_cluster, ..Settings::default() };
        let local = east_1();
        let mut kernel = Observed::default();
        let first = plan_of(&local, &before, &settings);
        let ops = diff(&first, &kernel, Prune::All);
        apply(&mut kernel, &ops);
        prop_assert_eq!(diff(&first, &kernel, Prune::All), vec![]);
        let second = plan_of(&local, &others, &settings);
        let ops = diff(&second, &kernel, Prune::All);
        apply(&mut kernel, &ops);
        prop_assert_eq!(diff(&second, &kernel, Prune::All), vec![]);
        prop_assert_eq!(kernel.routes.len(), second.routes.len());
    }

    #[test]
    fn the_order_of_nodes_does_not_matter(mut others in prop::collection::vec(any_node(), 0..6)) {
        others.sort_by_key(|n| (n.cluster_id, n.name.clone()));
        others.dedup_by_key(|n| (n.cluster_id, n.name.clone()));
        let forward = plan_of(&east_1(), &others, &Settings::default());
        others.reverse();
        prop_assert_eq!(forward, plan_of(&east_1(), &others, &Settings::default()));
    }
}
