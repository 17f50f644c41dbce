//! One cluster, two nodes, one edge router:
//!
//! ```text
//!   router ---- node-1 (this one): 10.1.1.0/24, fd00:1::/64
//!          \--- node-2           : 10.1.2.0/24
//!   service demo/web, LoadBalancer 203.0.113.10, port http
//! ```
use super::*;

fn name<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: fmt::Debug,
{
    text.parse().expect("a valid name")
}

fn node(node: &str, cidrs: &[&str]) -> Node {
    Node {
        cluster: name("east"),
        cluster_id: isthmus_topology::ClusterId::new(1, isthmus_topology::MaxClusters::default())
            .expect("1 is an id"),
        name: name(node),
        addresses: Vec::new(),
        hostnames: Vec::new(),
        pod_cidrs: cidrs.iter().map(|cidr| cidr.parse().expect("a CIDR")).collect(),
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

fn http(port: u16) -> BTreeMap<PortName, ServicePort> {
    let port = ServicePort {
        protocol: isthmus_topology::Protocol::Tcp,
        port,
    };
    BTreeMap::from([("http".to_owned(), port)])
}

fn backend(ip: &str, on: &str, state: BackendState) -> Backend {
    Backend {
        ip: ip.parse().expect("an address"),
        ports: http(8080),
        state,
        node: Some(name(on)),
        hostname: String::new(),
        zone: isthmus_topology::Zone::default(),
    }
}

fn web(policy: TrafficPolicy, backends: Vec<Backend>) -> LocalService {
    LocalService {
        name: name("demo/web"),
        global: false,
        shared: false,
        affinity: isthmus_topology::ServiceAffinity::None,
        headless: false,
        cluster_ips: Vec::new(),
        load_balancer_ips: vec!["203.0.113.10".parse().expect("an address")],
        external_ips: Vec::new(),
        load_balancer_class: None,
        ports: http(80),
        external_traffic_policy: policy,
        internal_traffic_policy: TrafficPolicy::Cluster,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        selector: BTreeMap::new(),
        backends,
    }
}

fn nodes(list: &[Node]) -> BTreeMap<NodeName, Arc<Node>> {
    list.iter()
        .map(|node| (node.name.clone(), Arc::new(node.clone())))
        .collect()
}

fn services(list: &[LocalService]) -> BTreeMap<ServiceName, Arc<LocalService>> {
    list.iter()
        .map(|service| (service.name.clone(), Arc::new(service.clone())))
        .collect()
}

/// The verdict for 203.0.113.10 on node-1.
fn verdict(service: LocalService, remote: usize) -> Verdict {
    let by_ip = service.load_balancer_ips.iter().map(|ip| (*ip, remote)).collect();
    let remote_backends = BTreeMap::from([(service.name.clone(), by_ip)]);
    let origin = Origin::Service(service.name.clone());
    let tables = Tables {
        node: &name("node-1"),
        nodes: &BTreeMap::new(),
        services: &services(&[service]),
        remote_backends: &remote_backends,
    };
    plan(tables)[&"203.0.113.10/32".parse::<IpNet>().expect("a prefix")][&origin].clone()
}

const ACTIVE: BackendState = BackendState::Active;

#[test]
fn own_pod_cidrs_of_both_families_and_nobody_elses() {
    let both = [
        node("node-1", &["10.1.1.0/24", "fd00:1::/64"]),
        node("node-2", &["10.1.2.0/24"]),
    ];
    let tables = Tables {
        node: &name("node-1"),
        nodes: &nodes(&both),
        services: &BTreeMap::new(),
        remote_backends: &BTreeMap::new(),
    };
    let plan = plan(tables);
    let prefixes: Vec<String> = plan.keys().map(ToString::to_string).collect();
    assert_eq!(prefixes, ["10.1.1.0/24", "fd00:1::/64"]);
    assert!(plan.values().all(advertised));
}

/// | policy  | backends                      | remote | global | route |
/// |---------|-------------------------------|--------|--------|-------|
/// | Cluster | node-2 active                 | 0      | no     | yes   |
/// | Cluster | node-1 terminating, not ready | 0      | no     | no    |
/// | Cluster | none                          | 2      | no     | no    |
/// | Cluster | none                          | 2      | yes    | yes   |
/// | Local   | node-1 active                 | 0      | no     | yes   |
/// | Local   | node-2 active                 | 5      | yes    | no    |
#[test]
fn a_route_only_while_somebody_can_answer() {
    let on_1 = || backend("10.1.1.7", "node-1", ACTIVE);
    let on_2 = || backend("10.1.2.7", "node-2", ACTIVE);
    let dying = vec![
        backend("10.1.1.8", "node-1", BackendState::Terminating),
        backend("10.1.1.9", "node-1", BackendState::NotReady),
    ];
    let global = |service: LocalService| LocalService {
        global: true,
        ..service
    };
    let cluster = |backends| web(TrafficPolicy::Cluster, backends);
    let local = |backends| web(TrafficPolicy::Local, backends);

    let yes = |node, cluster, remote| Verdict::Backends {
        node,
        cluster,
        remote,
    };
    assert_eq!(verdict(cluster(vec![on_2()]), 0), yes(0, 1, 0));
    assert_eq!(verdict(cluster(dying), 0), Verdict::NoBackend);
    assert_eq!(verdict(cluster(Vec::new()), 2), Verdict::NoBackend);
    assert_eq!(verdict(global(cluster(Vec::new())), 2), yes(0, 0, 2));
    assert_eq!(verdict(local(vec![on_1(), on_2()]), 0), yes(1, 2, 0));
    assert_eq!(
        verdict(global(local(vec![on_2()])), 5),
        Verdict::NoBackendOnNode(1)
    );
}

#[test]
fn a_backend_without_a_port_of_the_service_cannot_answer() {
    let mut other = backend("10.1.1.7", "node-1", ACTIVE);
    other.ports = BTreeMap::from([("metrics".to_owned(), http(9090)["http"])]);
    assert_eq!(
        verdict(web(TrafficPolicy::Cluster, vec![other]), 0),
        Verdict::NoBackend
    );
}

/// An IPv6 address is not served by IPv4 pods: one route of two.
#[test]
fn each_family_needs_backends_of_its_own() {
    let dual = LocalService {
        load_balancer_ips: ["203.0.113.10", "2001:db8::10"]
            .map(|ip| ip.parse().expect("an address"))
            .to_vec(),
        ..web(
            TrafficPolicy::Cluster,
            vec![backend("10.1.1.7", "node-1", ACTIVE)],
        )
    };
    let tables = Tables {
        node: &name("node-1"),
        nodes: &BTreeMap::new(),
        services: &services(&[dual]),
        remote_backends: &BTreeMap::new(),
    };
    let plan = plan(tables);
    let yes: Vec<String> = plan
        .iter()
        .filter(|(_, origins)| advertised(origins))
        .map(|(prefix, _)| prefix.to_string())
        .collect();
    assert_eq!((plan.len(), yes), (2, vec!["203.0.113.10/32".to_owned()]));
}

#[test]
fn only_our_load_balancer_class() {
    let classed = |class: &str| LocalService {
        load_balancer_class: Some(class.to_owned()),
        ..web(
            TrafficPolicy::Cluster,
            vec![backend("10.1.1.7", "node-1", ACTIVE)],
        )
    };
    assert!(verdict(classed(LOAD_BALANCER_CLASS), 0).advertised());
    assert_eq!(
        verdict(classed("metallb.io/metallb"), 0),
        Verdict::ForeignClass("metallb.io/metallb".to_owned())
    );
}

/// Two services share 203.0.113.10 on different ports: the route stays until both have lost their backends.
#[test]
fn a_shared_address_stays_while_one_of_its_services_lives() {
    let alive = web(
        TrafficPolicy::Cluster,
        vec![backend("10.1.1.7", "node-1", ACTIVE)],
    );
    let dead = LocalService {
        name: name("demo/dead"),
        ..web(TrafficPolicy::Cluster, Vec::new())
    };
    let any = |list: &[LocalService]| {
        let tables = Tables {
            node: &name("node-1"),
            nodes: &BTreeMap::new(),
            services: &services(list),
            remote_backends: &BTreeMap::new(),
        };
        plan(tables).into_values().any(|origins| advertised(&origins))
    };
    assert!(any(&[alive, dead.clone()]));
    assert!(!any(&[dead]));
}

#[test]
fn nonsense_addresses_are_never_advertised() {
    for ip in [
        "0.0.0.0",
        "127.0.0.1",
        "169.254.1.1",
        "224.0.0.5",
        "255.255.255.255",
        "::1",
        "fe80::1",
        "ff02::1",
    ] {
        let prefix = IpNet::from(ip.parse::<IpAddr>().expect("an address"));
        assert!(!routable(&prefix), "{prefix}");
    }
    for cidr in ["0.0.0.0/0", "::/0", "10.0.0.0/0"] {
        assert!(!routable(&cidr.parse().expect("a CIDR")), "{cidr}");
    }
    assert!(routable(&"10.1.1.0/24".parse().expect("a CIDR")));
    assert!(routable(&"2001:db8::/64".parse().expect("a CIDR")));
}
