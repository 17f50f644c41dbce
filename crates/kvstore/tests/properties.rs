//! What holds for all values: what is written is read again as the same, and no bytes make a decoder panic.
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use isthmus_kvstore::{
    ClusterConfig, Family, Key, Tree, entry_key, ip, node, service, service_export, slice,
};
use isthmus_topology::{
    ClusterId, ClusterName, Identity, IpIdentity, MaxClusters, NamedPort, Node, NodeAddress, NodeAddressKind,
    NodeName, Protocol, RemoteService, ServiceName, ServicePort, ServiceSlice, SliceEndpoint, SliceFamily,
    SlicePort, Zone,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

fn cluster() -> impl Strategy<Value = ClusterName> {
    "[a-c][a-z0-9]{0,8}".prop_map(|name| ClusterName::new(name).expect("the pattern is valid"))
}

fn id() -> impl Strategy<Value = ClusterId> {
    (1_u32..=511).prop_map(|id| ClusterId::new(id, MaxClusters::C511).expect("in range"))
}

fn text() -> impl Strategy<Value = String> {
    "[ -~äß\u{2028}\n]{0,12}"
}

fn map() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(text(), text(), 0..4)
}

fn prefix() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<u32>(), 0_u8..=32).prop_map(|(bits, len)| (IpAddr::from(bits.to_be_bytes()), len));
    let v6 = (any::<u128>(), 0_u8..=128).prop_map(|(bits, len)| (IpAddr::from(bits.to_be_bytes()), len));
    prop_oneof![v4, v6].prop_map(|(ip, len)| IpNet::new(ip, len).expect("length fits").trunc())
}

fn service_name() -> impl Strategy<Value = ServiceName> {
    ("[a-z]{1,8}", "[a-z]{1,8}").prop_map(|(ns, name)| ServiceName::new(ns, name).expect("valid"))
}

fn port() -> impl Strategy<Value = ServicePort> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
    (protocol, any::<u16>()).prop_map(|(protocol, port)| ServicePort { protocol, port })
}

fn ports() -> impl Strategy<Value = BTreeMap<IpAddr, BTreeMap<String, ServicePort>>> {
    btree_map(any::<IpAddr>(), btree_map(text(), port(), 0..3), 0..4)
}

prop_compose! {
    fn any_service()(
        cluster in cluster(), cluster_id in id(), name in service_name(), frontends in ports(), backends in ports(),
        hostnames in btree_map(any::<IpAddr>(), text(), 0..3), labels in map(), selector in map(),
        zones in btree_map(any::<IpAddr>(), (text(), vec(text(), 0..3)), 0..3),
        include_external in any::<bool>(), shared in any::<bool>(),
    ) -> RemoteService {
        let zone = |(ip, (zone, for_zones))| (ip, Zone { zone, for_zones });
        let zones = zones.into_iter().map(zone).collect();
        RemoteService {
            cluster, cluster_id, name, frontends, backends, hostnames, zones, labels, selector, include_external, shared,
        }
    }
}

prop_compose! {
    fn any_node()(
        cluster in cluster(), cluster_id in id(), name in "[a-z.-]{1,12}", cidrs in vec(prefix(), 0..5),
        addresses in vec(any::<IpAddr>(), 0..4), health_ipv4 in any::<Option<std::net::Ipv4Addr>>(),
        ingress_ipv6 in any::<Option<std::net::Ipv6Addr>>(), encryption_key in any::<u8>(),
        wireguard_pub_key in text(), boot_id in text(), labels in map(), annotations in map(),
    ) -> Node {
        let (v4, v6): (Vec<_>, Vec<_>) = cidrs.into_iter().partition(|c| c.addr().is_ipv4());
        let address = |ip| NodeAddress { kind: NodeAddressKind::InternalIP, ip };
        Node {
            cluster, cluster_id,
            name: NodeName::new(name).expect("valid"),
            addresses: addresses.into_iter().map(address).collect(),
            hostnames: Vec::new(),
            pod_cidrs: v4.into_iter().chain(v6).collect(),
            health_ipv4, health_ipv6: None, ingress_ipv4: None, ingress_ipv6,
            encryption_key, wireguard_pub_key, boot_id, labels, annotations,
        }
    }
}

prop_compose! {
    fn any_ip()(
        prefix in prefix(), host in any::<bool>(), host_ip in any::<Option<IpAddr>>(), identity in any::<u32>(),
        key in any::<u8>(), namespace in text(), pod in text(), service_account in text(),
        named in vec((text(), port()), 0..3),
    ) -> IpIdentity {
        let prefix = if host { IpNet::from(prefix.addr()) } else { prefix };
        let named_port = |(name, p): (String, ServicePort)| NamedPort { name, port: p.port, protocol: p.protocol };
        IpIdentity {
            prefix, host_entry: host, host_ip, identity: Identity(identity), key, namespace, pod, service_account,
            named_ports: named.into_iter().map(named_port).collect(),
        }
    }
}

prop_compose! {
    fn any_endpoint()(
        addresses in vec(any::<std::net::Ipv4Addr>(), 0..3), ready in any::<Option<bool>>(),
        serving in any::<Option<bool>>(), terminating in any::<Option<bool>>(),
        hostname in proptest::option::of(text()), deprecated_topology in map(),
        node_name in proptest::option::of(text()), zone in proptest::option::of(text()), for_zones in vec(text(), 0..3),
    ) -> SliceEndpoint {
        let addresses = addresses.iter().map(ToString::to_string).collect();
        SliceEndpoint {
            addresses, ready, serving, terminating, hostname, deprecated_topology, node_name, zone, for_zones,
        }
    }
}

prop_compose! {
    fn any_slice()(
        name in service_name(), labels in map(), annotations in map(), endpoints in vec(any_endpoint(), 0..4),
        ports in vec((proptest::option::of(text()), any::<Option<i32>>()), 0..3),
    ) -> ServiceSlice {
        let port = |(name, port)| SlicePort { name, protocol: Some("TCP".into()), port, app_protocol: None };
        ServiceSlice {
            namespace: name.namespace, name: name.name, labels, annotations, family: SliceFamily::IPv4, endpoints,
            ports: ports.into_iter().map(port).collect(),
        }
    }
}

proptest! {
    #[test]
    fn nodes_round_trip(value in any_node()) {
        prop_assert_eq!(node::decode(&node::encode(&value)), Ok(value));
    }

    #[test]
    fn ip_entries_round_trip_and_their_key_names_them(value in any_ip(), cluster in cluster()) {
        let key = entry_key(Tree::Cache, Family::Ip, &cluster, ip::suffix(&value));
        prop_assert_eq!(Key::parse(key.as_bytes()).map(|k| k.to_string()), Ok(key));
        prop_assert_eq!(ip::decode(&ip::encode(&value)), Ok(value));
    }

    #[test]
    fn services_round_trip(value in any_service()) {
        prop_assert_eq!(service::decode(&service::encode(&value)), Ok(value));
    }

    #[test]
    fn slices_round_trip(value in any_slice(), cluster in cluster(), id in id()) {
        let read = slice::decode(&slice::encode(&value, &cluster, id));
        prop_assert_eq!(read.map(|v| (v.slice, v.cluster, v.cluster_id)), Ok((value, cluster, id)));
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in vec(any::<u8>(), 0..200)) {
        decode_all(&bytes);
    }

    /// Damage to a good value reaches deeper than random bytes do.
    #[test]
    fn no_damage_makes_a_decoder_panic(
        value in any_slice(), svc in any_service(), node in any_node(), ip in any_ip(),
        at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let name = ClusterName::new("c1").expect("valid");
        let id = ClusterId::new(1, MaxClusters::C255).expect("valid");
        for mut bytes in [
            slice::encode(&value, &name, id), service::encode(&svc), node::encode(&node), ip::encode(&ip),
            zstd::bulk::compress(&[byte; 40], 1).expect("a frame"),
        ] {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            decode_all(&bytes);
        }
    }
}

fn decode_all(bytes: &[u8]) {
    let _ = Key::parse(bytes);
    let _ = ClusterConfig::decode(bytes);
    let _ = isthmus_kvstore::identity::decode(bytes);
    let _ = node::decode(bytes);
    let _ = ip::decode(bytes);
    let _ = service::decode(bytes);
    let _ = service_export::decode(bytes);
    let _ = slice::decode(bytes);
}
