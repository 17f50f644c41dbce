//! What is believed of a remote cluster's values, and what is not.
use isthmus_kvstore::ExportMode;
use isthmus_topology::{ClusterId, MaxClusters, SliceEndpoint, SliceFamily, SlicePort};
use proptest::prelude::*;

use super::*;
use crate::Rejections;

fn mirror() -> Mirror {
    let mut mirror = Mirror::new(ClusterName::new("clustera").expect("name"));
    mirror.adopt(RemoteConfig {
        id: ClusterId::new(1, MaxClusters::C255).expect("id"),
        max_clusters: MaxClusters::C255,
        synced_canaries: true,
        cached: false,
        service_exports: None,
        slices: ExportMode::Services,
    });
    mirror
}

fn put(mirror: &mut Mirror, resource: Resource, suffix: &str, value: &str) -> bool {
    mirror.put(
        resource,
        suffix.as_bytes(),
        value.as_bytes(),
        Timestamp::UNIX_EPOCH,
    )
}

fn ip(address: &str, mask: &str, id: u32) -> String {
    format!(r#"{{"IP":"{address}","Mask":{mask},"HostIP":"192.168.0.1","ID":{id},"Key":0,"Metadata":""}}"#)
}

fn shown(mirror: &Mirror) -> Vec<String> {
    let show = |(prefix, entry): (&IpNet, &IpIdentity)| format!("{prefix}={}", entry.identity);
    mirror.state.ips.iter().map(show).collect()
}

/// | put                    | shown            |
/// |------------------------|------------------|
/// | 10.0.0.1/32 as 70000   | 10.0.0.1 = 70000 |
/// | 10.0.0.1 as 70001      | 10.0.0.1 = 70001 |
/// | 10.0.0.1/32 as 70002   | 10.0.0.1 = 70001 |
/// | delete 10.0.0.1        | 10.0.0.1 = 70002 |
/// | delete 10.0.0.1/32     |                  |
#[test]
fn a_prefix_of_full_length_never_hides_a_host_entry() {
    let mut mirror = mirror();
    let full = "\"/////w==\"";
    assert!(put(
        &mut mirror,
        Resource::Ips,
        "10.0.0.1/32",
        &ip("10.0.0.1", full, 70_000)
    ));
    assert_eq!(shown(&mirror), ["10.0.0.1/32=70000"]);
    assert!(put(
        &mut mirror,
        Resource::Ips,
        "10.0.0.1",
        &ip("10.0.0.1", "null", 70_001)
    ));
    assert_eq!(shown(&mirror), ["10.0.0.1/32=70001"]);
    assert!(put(
        &mut mirror,
        Resource::Ips,
        "10.0.0.1/32",
        &ip("10.0.0.1", full, 70_002)
    ));
    assert_eq!(shown(&mirror), ["10.0.0.1/32=70001"]);
    mirror.delete(Resource::Ips, b"10.0.0.1");
    assert_eq!(shown(&mirror), ["10.0.0.1/32=70002"]);
    mirror.delete(Resource::Ips, b"10.0.0.1/32");
    assert_eq!(shown(&mirror), [""; 0]);
}

#[test]
fn a_hidden_prefix_is_deleted_where_it_is() {
    let mut mirror = mirror();
    put(
        &mut mirror,
        Resource::Ips,
        "10.0.0.1",
        &ip("10.0.0.1", "null", 70_001),
    );
    put(
        &mut mirror,
        Resource::Ips,
        "10.0.0.1/32",
        &ip("10.0.0.1", "\"/////w==\"", 70_002),
    );
    mirror.delete(Resource::Ips, b"10.0.0.1/32");
    mirror.delete(Resource::Ips, b"10.0.0.1");
    assert_eq!(shown(&mirror), [""; 0]);
}

#[test]
fn the_remote_host_is_a_remote_node_here() {
    let mut mirror = mirror();
    assert!(put(
        &mut mirror,
        Resource::Ips,
        "10.0.0.1",
        &ip("10.0.0.1", "null", 1)
    ));
    assert_eq!(shown(&mirror), ["10.0.0.1/32=6"]);
}

#[test]
fn a_refused_value_leaves_the_last_good_one_and_is_counted() {
    let mut mirror = mirror();
    assert!(put(
        &mut mirror,
        Resource::Ips,
        "10.0.0.1",
        &ip("10.0.0.1", "null", 70_000)
    ));
    for (suffix, value) in [
        ("10.0.0.1", ip("10.0.0.1", "null", 140_000)),
        ("10.0.0.1", ip("10.0.0.2", "null", 70_000)),
        ("10.0.0.1", "{".to_owned()),
        ("10.0.0.1", String::new()),
        ("10.0.0.1", ip("10.0.0.1", "\"/wD/AA==\"", 70_000)),
    ] {
        assert!(!put(&mut mirror, Resource::Ips, suffix, &value), "{value}");
    }
    assert_eq!(shown(&mirror), ["10.0.0.1/32=70000"]);
    assert_eq!(mirror.state.rejected.total(), 5);
    let first = &mirror.state.rejected.recent[0];
    assert_eq!(first.key, "cilium/state/ip/v1/default/10.0.0.1");
    assert!(first.reason.contains("140000 is outside"), "{}", first.reason);
    for _ in 0..100 {
        put(&mut mirror, Resource::Nodes, "n", "");
    }
    assert_eq!(mirror.state.rejected.recent.len(), Rejections::KEPT);
    assert_eq!(mirror.state.rejected.total(), 105);
}

#[test]
fn nothing_is_believed_before_the_configuration_is_known() {
    let mut mirror = Mirror::new(ClusterName::new("clustera").expect("name"));
    assert!(!put(
        &mut mirror,
        Resource::Ips,
        "10.0.0.1",
        &ip("10.0.0.1", "null", 70_000)
    ));
}

/// Keys and values that Cilium's exporter was recorded to write, as far as they are text.
fn recorded() -> impl Iterator<Item = (&'static str, &'static str)> {
    let dump = include_str!("../../../../tests/replay/clustermesh-1.20/export-clustera.txt");
    let entry = |block: &'static str| {
        let key = block.lines().next()?;
        let value = block.lines().find_map(|line| line.strip_prefix("VALUE "))?;
        (!value.starts_with("zstd frame")).then_some((key, value))
    };
    dump.split("KEY   ").filter_map(entry)
}

/// The recorded values of every table are taken, and taking them twice changes nothing.
#[test]
fn what_cilium_wrote_is_taken() {
    let mut mirror = mirror();
    let mut generations = [0; 2];
    for generation in &mut generations {
        for (key, value) in recorded() {
            for resource in Resource::ALL {
                let feed = crate::feed::Feed::Table(resource);
                let prefix = feed.prefix(&mirror.state.name, Tree::State);
                if let Some(suffix) = key.strip_prefix(&prefix) {
                    assert!(put(&mut mirror, resource, suffix, value), "{key}");
                }
            }
        }
        let state = &mirror.state;
        *generation = state.nodes.generation() + state.ips.generation() + state.services.generation();
    }
    let state = &mirror.state;
    assert_eq!(
        [
            state.nodes.len(),
            state.identities.len(),
            state.ips.len(),
            state.services.len()
        ],
        [2, 1, 3, 3]
    );
    assert_eq!(generations[0], generations[1]);
}

/// clustera exports slices only: `web` has the two ready endpoints of its slice and the serving one, by address, with both
/// ports; without its slice it is gone.
#[test]
fn services_are_made_of_slices_where_there_is_nothing_else() {
    let mut mirror = mirror();
    let config = mirror.state.config.expect("adopted");
    let slices = ExportMode::EndpointSlicesOnly;
    mirror.adopt(RemoteConfig { slices, ..config });
    let endpoint = |ip: &str, ready, serving| SliceEndpoint {
        addresses: vec![ip.to_owned()],
        ready: Some(ready),
        serving: Some(serving),
        zone: Some("zone-a".to_owned()),
        ..SliceEndpoint::default()
    };
    let port = |name: &str, protocol: &str, port| SlicePort {
        name: Some(name.to_owned()),
        protocol: Some(protocol.to_owned()),
        port: Some(port),
        app_protocol: None,
    };
    let slice = ServiceSlice {
        namespace: "demo".to_owned(),
        name: "web-abc12".to_owned(),
        labels: [(ServiceSlice::SERVICE_NAME.to_owned(), "web".to_owned())].into(),
        annotations: BTreeMap::new(),
        family: SliceFamily::IPv4,
        endpoints: vec![
            endpoint("10.1.0.21", true, true),
            endpoint("10.1.0.22", false, true),
            endpoint("10.1.0.23", false, false),
        ],
        ports: vec![
            port("http", "TCP", 8080),
            port("dns", "UDP", 5353),
            port("x", "TCP", 0),
        ],
    };
    let cluster = mirror.state.name.clone();
    let value = isthmus_kvstore::slice::encode(&slice, &cluster, config.id);
    let at = Timestamp::UNIX_EPOCH;
    assert!(mirror.put(Resource::EndpointSlices, b"demo/web-abc12", &value, at));
    let web = ServiceName::new("demo", "web").expect("a name");
    let service = mirror.state.services.get(&web).expect("made");
    let backends: Vec<_> = service
        .backends
        .iter()
        .map(|(ip, ports)| format!("{ip} {}", ports.len()))
        .collect();
    assert_eq!(backends, ["10.1.0.21 2", "10.1.0.22 2"]);
    assert_eq!(service.zones.len(), 2);
    mirror.delete(Resource::EndpointSlices, b"demo/web-abc12");
    assert!(mirror.state.services.is_empty() && mirror.state.slices.is_empty());
}

proptest! {
    /// No key and no value makes it panic; what is refused changes nothing.
    #[test]
    fn foreign_bytes_do_no_harm(
        resource in proptest::sample::select(Resource::ALL.to_vec()),
        suffix in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            "[0-9a-f.:/]{1,20}".prop_map(String::into_bytes),
        ],
        value in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            "[{}\\[\\]\":,a-zA-Z0-9=;/.]{0,80}".prop_map(String::into_bytes),
        ],
    ) {
        let mut mirror = mirror();
        let taken = mirror.put(resource, &suffix, &value, Timestamp::UNIX_EPOCH);
        prop_assert_eq!(taken, mirror.state.rejected.total() == 0);
        mirror.delete(resource, &suffix);
        prop_assert!(mirror.state.ips.is_empty() && mirror.state.nodes.is_empty() && mirror.state.services.is_empty());
    }
}
