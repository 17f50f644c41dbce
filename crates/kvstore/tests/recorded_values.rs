//! Every value that Cilium's own exporter and mirror wrote is read, believed, and written again as the same bytes.
mod recording;

use isthmus_kvstore::{
    ClusterConfig, Exporter, Family, Key, Tree, identity, ip, node, service, service_export, slice, validate,
};
use isthmus_topology::{ClusterId, ClusterName, Identity, MaxClusters};

fn exporter(name: &str, id: u32) -> Exporter {
    let max = MaxClusters::C255;
    Exporter {
        cluster: ClusterName::new(name).expect("recorded name"),
        id: ClusterId::new(id, max).expect("recorded id"),
        max,
    }
}

/// Which of the two recorded clusters wrote an entry, read from the etcd of `local`.
fn writer(local: &str, cluster: Option<&ClusterName>) -> Exporter {
    let name = cluster.map_or(local, ClusterName::as_str);
    exporter(name, if name == "clustera" { 1 } else { 2 })
}

/// Decodes, validates and encodes one entry.
fn round_trip(family: Family, suffix: &str, value: &[u8], exporter: &Exporter) -> Result<Vec<u8>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    match family {
        Family::Nodes => {
            let decoded = node::decode(value).map_err(|e| text(&e))?;
            validate::node(suffix, &decoded, exporter).map_err(|e| text(&e))?;
            Ok(node::encode(&decoded))
        }
        Family::Identities => {
            let labels = identity::decode(value).map_err(|e| text(&e))?;
            let id = Identity(suffix.parse().map_err(|_| "not a number")?);
            validate::identity(id, &labels, exporter).map_err(|e| text(&e))?;
            Ok(identity::encode(&labels))
        }
        Family::Ip => {
            let decoded = ip::decode(value).map_err(|e| text(&e))?;
            validate::ip(suffix, &decoded, exporter).map_err(|e| text(&e))?;
            Ok(ip::encode(&decoded))
        }
        Family::Services => {
            let decoded = service::decode(value).map_err(|e| text(&e))?;
            validate::service(suffix, &decoded, exporter).map_err(|e| text(&e))?;
            Ok(service::encode(&decoded))
        }
        Family::EndpointSlices => {
            let decoded = slice::decode(value).map_err(|e| text(&e))?;
            validate::slice(suffix, &decoded, exporter).map_err(|e| text(&e))?;
            Ok(slice::encode(
                &decoded.slice,
                &decoded.cluster,
                decoded.cluster_id,
            ))
        }
        Family::ServiceExports => {
            let decoded = service_export::decode(value).map_err(|e| text(&e))?;
            validate::service_export(suffix, &decoded, exporter).map_err(|e| text(&e))?;
            Ok(service_export::encode(&decoded.export, &decoded.cluster))
        }
    }
}

/// Compressors differ, so frames are compared by what they hold.
fn comparable(family: Family, value: &[u8]) -> Vec<u8> {
    match family {
        Family::EndpointSlices => slice::decompress(value).expect("a zstd frame"),
        _ => value.to_vec(),
    }
}

/// 1.19 writes the member `NodeIdentity`, which 1.20 dropped; so do we.
fn as_1_20(value: Vec<u8>) -> Vec<u8> {
    let text = String::from_utf8(value).expect("nodes are text");
    text.replace("\"NodeIdentity\":0,", "").into_bytes()
}

/// Reads a whole recorded etcd; returns how many entries of each family it held.
fn replay(name: &str, local: &str) -> Vec<(Family, usize)> {
    let mut counts: Vec<_> = Family::ALL.into_iter().map(|family| (family, 0)).collect();
    for (text, value) in recording::dump(name) {
        if text.starts_with(isthmus_kvstore::KVSTOREMESH_LOCK) {
            assert!(Key::parse(text.as_bytes()).is_err(), "locks are not ours");
            continue;
        }
        let key = Key::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(key.to_string(), text, "a key is written as it was read");
        match key {
            Key::Entry {
                family,
                cluster,
                suffix,
                ..
            } => {
                let exporter = writer(local, cluster.as_ref());
                let ours = round_trip(family, &suffix, &value, &exporter)
                    .unwrap_or_else(|error| panic!("{name}: {text}: {error}"));
                let theirs = if family == Family::Nodes {
                    as_1_20(value)
                } else {
                    value
                };
                assert_eq!(
                    comparable(family, &ours),
                    comparable(family, &theirs),
                    "{name}: {text}"
                );
                if let Some(count) = counts.iter_mut().find(|(f, _)| *f == family) {
                    count.1 += 1;
                }
            }
            Key::ClusterConfig(cluster) => {
                let config = ClusterConfig::decode(&value).expect("a cluster config");
                assert_eq!(config.encode(), value, "{text}");
                assert_eq!(config.cluster_id(), Ok(writer(local, Some(&cluster)).id));
                assert_eq!(config.cached, cluster.as_str() != local);
            }
            Key::Canary { tree, cluster, .. } => assert_eq!(tree == Tree::Cache, cluster.as_str() != local),
            Key::Heartbeat => {}
        }
    }
    counts
}

#[test]
fn cilium_1_20_exporter_and_mirror() {
    use Family::{EndpointSlices, Identities, Ip, Nodes, ServiceExports, Services};
    let twice = [
        (Nodes, 4),
        (Identities, 2),
        (Ip, 6),
        (Services, 6),
        (EndpointSlices, 4),
        (ServiceExports, 2),
    ];
    assert_eq!(replay("clustermesh-1.20/export-clustera.txt", "clustera"), twice);
    assert_eq!(
        replay("clustermesh-1.20/export-and-mirror-clusterb.txt", "clusterb"),
        twice
    );
}

#[test]
fn cilium_1_19_exporter_and_mirror() {
    use Family::{EndpointSlices, Identities, Ip, Nodes, ServiceExports, Services};
    let once = [
        (Nodes, 2),
        (Identities, 1),
        (Ip, 3),
        (Services, 3),
        (EndpointSlices, 0),
        (ServiceExports, 1),
    ];
    assert_eq!(replay("clustermesh-1.19/export-clustera.txt", "clustera"), once);
    assert_eq!(
        replay("clustermesh-1.19/mirror-clusterb.txt", "clusterb"),
        once.map(|(family, n)| (family, 2 * n))
    );
}

#[test]
fn values_of_another_cluster_are_not_believed() {
    let dump = recording::dump("clustermesh-1.20/export-clustera.txt");
    let other = exporter("clusterb", 2);
    for (text, value) in dump {
        let Ok(Key::Entry {
            tree: Tree::State,
            family,
            suffix,
            ..
        }) = Key::parse(text.as_bytes())
        else {
            continue;
        };
        let refused = round_trip(family, &suffix, &value, &other);
        assert!(refused.is_err(), "{text} was believed to be clusterb's");
        let misplaced = round_trip(family, &format!("{suffix}0"), &value, &exporter("clustera", 1));
        if family != Family::Identities {
            assert!(misplaced.is_err(), "{text} was believed under another key");
        }
    }
}
