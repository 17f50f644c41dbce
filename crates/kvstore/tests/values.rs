//! Forms that the recordings do not show, and what bad values get.
use isthmus_kvstore::{
    ClusterConfig, ExportMode, Key, KeyError, ValueError, ip, node, service, service_export, slice,
};

fn node_json(members: &str) -> String {
    format!(r#"{{"Name":"n","Cluster":"c1","ClusterID":1,{members}}}"#)
}

#[test]
fn a_cidr_is_an_object_or_text_or_null() {
    let forms = [
        (
            r#""IPv4AllocCIDR":{"IP":"10.1.0.0","Mask":"////AA=="}"#,
            vec!["10.1.0.0/24"],
        ),
        (r#""IPv4AllocCIDR":"10.1.0.0/24""#, vec!["10.1.0.0/24"]),
        (r#""IPv4AllocCIDR":null"#, vec![]),
        (
            r#""IPv6AllocCIDR":"fd00::/64","IPv6SecondaryAllocCIDRs":["fd01::/64"]"#,
            vec!["fd00::/64", "fd01::/64"],
        ),
    ];
    for (members, expected) in forms {
        let node = node::decode(node_json(members).as_bytes()).expect(members);
        let cidrs: Vec<_> = node.pod_cidrs.iter().map(ToString::to_string).collect();
        assert_eq!(cidrs, expected, "{members}");
    }
}

#[test]
fn unset_addresses_are_empty_or_null_and_broken_ones_are_named() {
    let unset =
        node::decode(node_json(r#""IPv4HealthIP":null,"IPv6HealthIP":"","IPAddresses":null"#).as_bytes());
    assert_eq!(unset.expect("unset").health_ipv4, None);
    for (members, member) in [
        (r#""IPv4HealthIP":"x""#, "IPv4HealthIP"),
        (r#""IPAddresses":[{"Type":"InternalIP","IP":"x"}]"#, "IPAddresses"),
        (r#""IPv4AllocCIDR":"10.0.0.0/40""#, "IPv4AllocCIDR"),
        (r#""IPv6AllocCIDR":"10.0.0.0/24""#, "IPv6AllocCIDR"),
        (
            r#""IPv4AllocCIDR":{"IP":"10.1.0.0","Mask":"/wD/AA=="}"#,
            "IPv4AllocCIDR",
        ),
    ] {
        match node::decode(node_json(members).as_bytes()) {
            Err(ValueError::Member { member: found, .. }) => assert_eq!(found, member),
            other => panic!("{members}: {other:?}"),
        }
    }
}

#[test]
fn a_prefix_entry_has_its_length_in_the_key() {
    let entry =
        ip::decode(br#"{"IP":"10.9.0.0","Mask":"//8AAA==","HostIP":"","ID":2,"Key":0,"Metadata":""}"#);
    let entry = entry.expect("a prefix");
    assert_eq!(ip::suffix(&entry), "10.9.0.0/16");
    assert_eq!(
        String::from_utf8(ip::encode(&entry)).expect("text"),
        r#"{"IP":"10.9.0.0","Mask":"//8AAA==","HostIP":"","ID":2,"Key":0,"Metadata":""}"#
    );
    assert!(ip::decode(br#"{"IP":null,"Mask":null}"#).is_err());
}

#[test]
fn cluster_configs_of_old_and_new_exporters() {
    let old = ClusterConfig::decode(br#"{"id":5,"capabilities":{"syncedCanaries":true}}"#).expect("old");
    assert_eq!(
        (old.service_exports_enabled, old.export_mode),
        (None, ExportMode::Services)
    );
    assert_eq!(
        old.encode(),
        br#"{"id":5,"capabilities":{"syncedCanaries":true}}"#
    );
    let unknown = br#"{"id":5,"capabilities":{"endpointSlicesExportMode":"telepathy"}}"#;
    assert!(
        ClusterConfig::decode(unknown).is_err(),
        "its data could not be understood"
    );
    assert!(ClusterConfig { id: 300, ..old }.cluster_id().is_err());
    let big = ClusterConfig {
        id: 300,
        max_connected_clusters: 511,
        ..old
    };
    assert_eq!(big.cluster_id().map(isthmus_topology::ClusterId::value), Ok(300));
}

#[test]
fn service_exports_of_older_writers_have_only_the_capitalised_members() {
    let value = br#"{"cluster":"c1","name":"web","namespace":"demo","Labels":{"tier":"front"},
        "exportCreationTimestamp":"2026-01-01T00:00:00Z","ports":[],"type":"Headless","sessionAffinity":"ClientIP",
        "sessionAffinityConfig":{"clientIP":{"timeoutSeconds":60}}}"#;
    let export = service_export::decode(value).expect("an export").export;
    assert_eq!(export.labels.get("tier").map(String::as_str), Some("front"));
    assert_eq!(export.session_affinity_timeout, Some(60));
    let zero = String::from_utf8_lossy(value).replace("2026-01-01", "0001-01-01");
    assert!(service_export::decode(zero.as_bytes()).is_err());
}

#[test]
fn a_service_needs_names_and_addresses() {
    for bad in [
        "{}",
        "[]",
        "",
        r#"{"cluster":"c","namespace":"n","name":"","clusterID":1}"#,
        r#"{"cluster":"c","namespace":"n","name":"s","clusterID":0}"#,
        r#"{"cluster":"c","namespace":"n","name":"s","clusterID":1,"backends":{"x":{}}}"#,
        r#"{"cluster":"c","namespace":"n","name":"s","clusterID":1,"backends":{"10.0.0.1":{"":{"Protocol":"TCP","Port":70000}}}}"#,
    ] {
        assert!(service::decode(bad.as_bytes()).is_err(), "{bad}");
    }
}

/// 64 MiB of zeros fit in a frame of a few kilobytes.
#[test]
fn a_frame_that_holds_too_much_is_refused() {
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).expect("a frame");
    assert!(bomb.len() < 1 << 20);
    let refused = slice::decode(&bomb);
    assert!(
        matches!(refused, Err(ValueError::TooLarge(_) | ValueError::Zstd(_))),
        "{refused:?}"
    );
    assert!(matches!(slice::decode(b"not zstd"), Err(ValueError::Zstd(_))));
}

#[test]
fn foreign_and_broken_keys() {
    for key in [
        "cilium/.initlock/x/y",
        "cilium/state/nodes/v2/c/n",
        "cilium/state/identities/v1/value/x",
        "cilium/synced/c1/cilium/state/nodes",
        "other",
        "",
    ] {
        assert!(
            matches!(Key::parse(key.as_bytes()), Err(KeyError::Unknown(_))),
            "{key}"
        );
    }
    for key in [
        "cilium/state/identities/v1/id/x",
        "cilium/state/identities/v1/id/+5",
        "cilium/state/ip/v1/default/x/8",
    ] {
        assert!(
            matches!(Key::parse(key.as_bytes()), Err(KeyError::Suffix { .. })),
            "{key}"
        );
    }
    assert!(matches!(
        Key::parse(b"cilium/cluster-config/A"),
        Err(KeyError::Name { .. })
    ));
    assert!(matches!(Key::parse(b"\xff"), Err(KeyError::NotUtf8)));
}
