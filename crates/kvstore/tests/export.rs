//! What a cluster exports, and what it keeps to itself (spec §4.1).
//!
//! ```text
//!   namespace   annotation          addresses, identities, services
//!   demo        none                as the cluster's default says
//!   private     global: "false"     never
//!   open        global: "true"      always
//! ```
use std::collections::BTreeMap;
use std::sync::Arc;

use isthmus_kvstore::{ExportInputs, ExportMode, ExportTables, Key, export};
use isthmus_topology::{
    Backend, BackendState, ClusterId, ClusterName, ExportKind, GlobalNamespaces, Identity, IpIdentity,
    Labels, LocalService, MaxClusters, NodeName, Protocol, ServiceAffinity, ServiceExport, ServiceName,
    ServicePort, ServiceSlice, SessionAffinity, SliceFamily, TrafficPolicy, Zone,
};

const NAMESPACES: [&str; 3] = ["demo", "open", "private"];

#[derive(Default)]
struct Cluster {
    identities: BTreeMap<Identity, Arc<Labels>>,
    ips: BTreeMap<ipnet::IpNet, Arc<IpIdentity>>,
    services: BTreeMap<ServiceName, Arc<LocalService>>,
    slices: BTreeMap<ServiceName, Arc<ServiceSlice>>,
    service_exports: BTreeMap<ServiceName, Arc<ServiceExport>>,
}

fn backend(ip: &str, state: BackendState) -> Backend {
    let port = ServicePort {
        protocol: Protocol::Tcp,
        port: 8080,
    };
    Backend {
        ip: ip.parse().expect("an address"),
        ports: BTreeMap::from([("http".to_owned(), port)]),
        state,
        node: NodeName::new("n").ok(),
        hostname: String::new(),
        zone: Zone::default(),
    }
}

fn service(name: &ServiceName) -> LocalService {
    use BackendState::{Active, NotReady, Terminating};
    LocalService {
        name: name.clone(),
        global: true,
        shared: true,
        affinity: ServiceAffinity::None,
        headless: false,
        cluster_ips: vec!["10.96.0.1".parse().expect("an address")],
        load_balancer_ips: vec!["203.0.113.1".parse().expect("an address")],
        external_ips: Vec::new(),
        load_balancer_class: None,
        ports: BTreeMap::from([(
            "http".to_owned(),
            ServicePort {
                protocol: Protocol::Tcp,
                port: 80,
            },
        )]),
        external_traffic_policy: TrafficPolicy::Cluster,
        internal_traffic_policy: TrafficPolicy::Cluster,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        selector: BTreeMap::new(),
        backends: vec![
            backend("10.1.0.1", Active),
            backend("10.1.0.2", Terminating),
            backend("10.1.0.3", NotReady),
        ],
    }
}

/// One pod, service, slice and service export in each namespace.
fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    for (n, namespace) in (1_u32..).zip(NAMESPACES) {
        let name = ServiceName::new(namespace, "web").expect("valid");
        let mut labels = Labels::default();
        labels.insert("k8s", "io.kubernetes.pod.namespace", namespace);
        cluster.identities.insert(Identity(65_536 + n), Arc::new(labels));
        let prefix = format!("10.1.0.{n}/32").parse().expect("a prefix");
        let row = IpIdentity {
            prefix,
            host_entry: true,
            host_ip: None,
            identity: Identity(65_536 + n),
            key: 0,
            namespace: namespace.to_owned(),
            pod: "web-1".to_owned(),
            service_account: String::new(),
            named_ports: Vec::new(),
        };
        cluster.ips.insert(prefix, Arc::new(row));
        cluster.services.insert(name.clone(), Arc::new(service(&name)));
        let slice = ServiceSlice {
            namespace: namespace.to_owned(),
            name: "web-a".to_owned(),
            labels: BTreeMap::from([(ServiceSlice::SERVICE_NAME.to_owned(), "web".to_owned())]),
            annotations: BTreeMap::new(),
            family: SliceFamily::IPv4,
            endpoints: Vec::new(),
            ports: Vec::new(),
        };
        cluster.slices.insert(
            ServiceName::new(namespace, "web-a").expect("valid"),
            Arc::new(slice),
        );
        let export = ServiceExport {
            name: name.clone(),
            created: "2026-01-01T00:00:00Z".to_owned(),
            annotations: BTreeMap::new(),
            labels: BTreeMap::new(),
            ports: Vec::new(),
            kind: ExportKind::ClusterSetIP,
            session_affinity: SessionAffinity::None,
            session_affinity_timeout: None,
            ip_families: Vec::new(),
            internal_traffic_policy: None,
            traffic_distribution: None,
        };
        cluster.service_exports.insert(name, Arc::new(export));
    }
    cluster
}

/// The exported keys, shortened to what follows `cilium/state/`.
fn keys(cluster: &Cluster, default: bool, mode: ExportMode, service_exports_enabled: bool) -> Vec<String> {
    let annotated = [("open".to_owned(), true), ("private".to_owned(), false)];
    let namespaces = GlobalNamespaces {
        default,
        annotated: annotated.into(),
    };
    let name = ClusterName::new("east").expect("valid");
    let id = ClusterId::new(1, MaxClusters::C255).expect("valid");
    let inputs = ExportInputs {
        cluster: &name,
        id,
        namespaces: &namespaces,
        mode,
        service_exports_enabled,
    };
    let tables = ExportTables {
        nodes: &BTreeMap::new(),
        identities: &cluster.identities,
        ips: &cluster.ips,
        services: &cluster.services,
        slices: &cluster.slices,
        service_exports: &cluster.service_exports,
    };
    let table = export(&inputs, &tables);
    assert!(table.keys().all(|key| Key::parse(key.as_bytes()).is_ok()));
    table
        .keys()
        .map(|key| key.trim_start_matches("cilium/state/").to_owned())
        .collect()
}

#[test]
fn namespaces_that_do_not_take_part_keep_everything_to_themselves() {
    let both = ExportMode::ServicesAndEndpointSlices;
    let of = |namespace: &str, n: u32| {
        [
            format!("endpointslices/v1/east/{namespace}/web-a"),
            format!("identities/v1/id/{}", 65_536 + n),
            format!("ip/v1/default/10.1.0.{n}"),
            format!("serviceexports/v1/east/{namespace}/web"),
            format!("services/v1/east/{namespace}/web"),
        ]
    };
    let sorted = |mut keys: Vec<String>| {
        keys.sort();
        keys
    };
    let with_default = sorted([of("demo", 1), of("open", 2)].concat());
    assert_eq!(keys(&cluster(), true, both, true), with_default);
    assert_eq!(keys(&cluster(), false, both, true), of("open", 2));
}

#[test]
fn the_mode_decides_in_which_form_services_are_written() {
    let families = |mode, exports| {
        let keys = keys(&cluster(), false, mode, exports);
        let family = |key: &String| key.split('/').next().map(str::to_owned);
        keys.iter()
            .filter_map(family)
            .filter(|f| f != "identities" && f != "ip")
            .collect::<Vec<_>>()
    };
    assert_eq!(families(ExportMode::Services, false), ["services"]);
    assert_eq!(
        families(ExportMode::EndpointSlicesOnly, false),
        ["endpointslices"]
    );
    assert_eq!(
        families(ExportMode::Services, true),
        ["serviceexports", "services"]
    );
}

#[test]
fn a_service_that_is_not_shared_takes_its_slices_with_it_and_not_its_export() {
    let mut cluster = cluster();
    for service in cluster.services.values_mut() {
        Arc::make_mut(service).shared = false;
    }
    let keys = keys(&cluster, true, ExportMode::ServicesAndEndpointSlices, true);
    assert!(
        !keys
            .iter()
            .any(|key| key.starts_with("services/") || key.starts_with("endpointslices/")),
        "{keys:?}"
    );
    assert!(
        keys.iter().any(|key| key.starts_with("serviceexports/")),
        "MCS-API has its own switch"
    );
}

/// LoadBalancer addresses stay at home; endpoints that end but still serve are exported; headless services have no
/// frontend.
#[test]
fn what_is_told_of_a_service() {
    let name = ServiceName::new("demo", "web").expect("valid");
    let cluster = ClusterName::new("east").expect("valid");
    let id = ClusterId::new(1, MaxClusters::C255).expect("valid");
    let exported = isthmus_kvstore::service::exported(&service(&name), &cluster, id);
    let texts = |ips: Vec<&std::net::IpAddr>| ips.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(exported.frontends.keys().collect()), ["10.96.0.1"]);
    assert_eq!(
        texts(exported.backends.keys().collect()),
        ["10.1.0.1", "10.1.0.2"]
    );
    let headless = LocalService {
        headless: true,
        ..service(&name)
    };
    assert!(
        isthmus_kvstore::service::exported(&headless, &cluster, id)
            .frontends
            .is_empty()
    );
}
