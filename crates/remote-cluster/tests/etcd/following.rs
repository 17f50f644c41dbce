//! A remote cluster is read, followed, and goes with its file.
use std::time::{Duration, Instant};

use isthmus_topology::Identity;

use crate::rig::{Node, Outcome, Wire, name, possible};
use crate::{IP, WEB, clustera, recorded, rig, web};

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_cluster_is_read_completely_and_followed() -> Outcome {
    if !possible("a_recorded_cluster_is_read_completely_and_followed") {
        return Ok(());
    }
    let node = Node::new()?;
    let (etcd, _wire) = clustera(&node).await?;
    let mut follower = node.start();
    let state = follower.ready("clustera").await?;
    let status = serde_json::to_value(&state.status)?;
    for (member, value) in [
        ("num-nodes", 2),
        ("num-shared-services", 3),
        ("num-endpoints", 3),
        ("num-identities", 1),
        ("num-endpoint-slices", 2),
        ("num-service-exports", 1),
        ("num-failures", 0),
        ("num-rejected", 0),
    ] {
        assert_eq!(status[member], value, "{member} in {status:#}");
    }
    assert_eq!(status["config"]["cluster-id"], 1);
    assert_eq!(status["config"]["sync-canaries"], true);
    assert_eq!(
        status["config"]["endpoint-slices-export-mode"],
        "services-and-endpointslices"
    );
    assert_eq!(status["synced"]["service-exports"], true);
    let entry = state.ips.get(&"10.1.0.21/32".parse()?).expect("the pod");
    assert_eq!((entry.identity, entry.pod.as_str()), (Identity(68_001), "web-1"));
    assert!(state.identities.get(&Identity(68_001)).is_some());
    assert!(state.nodes.values().all(|n| n.tunnel_endpoint().is_some()));
    assert_eq!(state.services.get(&web()).map(|s| s.backends.len()), Some(3));

    // A changed backend, a new and a deleted address.
    etcd.put(WEB, recorded(WEB).replace("10.1.0.21", "10.1.0.77"))
        .await?;
    follower
        .cluster("clustera", "the backend moved", |c| {
            let moved = "10.1.0.77".parse().expect("ip");
            c.services
                .get(&web())
                .is_some_and(|s| s.backends.contains_key(&moved))
        })
        .await?;
    let new = recorded(IP).replace("10.1.0.21", "10.1.0.99");
    etcd.put(&IP.replace("10.1.0.21", "10.1.0.99"), new).await?;
    etcd.delete(IP).await?;
    let state = follower
        .cluster("clustera", "the old address is gone", |c| {
            !c.ips.iter().any(|(ip, _)| ip.to_string() == "10.1.0.21/32")
        })
        .await?;
    assert!(state.ips.get(&"10.1.0.99/32".parse()?).is_some());
    // Exported no more: shared=false means delete.
    etcd.put(WEB, recorded(WEB).replace("\"shared\":true", "\"shared\":false"))
        .await?;
    let state = follower
        .cluster("clustera", "the service is not shared any more", |c| {
            c.services.get(&web()).is_none()
        })
        .await?;
    assert_eq!((state.status.num_failures, state.rejected.total()), (0, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_published_within_milliseconds() -> Outcome {
    if !possible("a_change_is_published_within_milliseconds") {
        return Ok(());
    }
    let node = Node::new()?;
    let (etcd, _wire) = clustera(&node).await?;
    let mut follower = node.start();
    follower.ready("clustera").await?;
    let mut times = Vec::new();
    for n in 100..150 {
        let ip = format!("10.1.0.{n}");
        let value = recorded(IP).replace("10.1.0.21", &ip);
        let key = IP.replace("10.1.0.21", &ip);
        let prefix = format!("{ip}/32").parse()?;
        let start = Instant::now();
        // The put's own reply comes after the commit: the time includes etcd's.
        let (put, seen) = tokio::join!(
            etcd.put(&key, value),
            follower.cluster("clustera", "the address is there", |c| c
                .ips
                .get(&prefix)
                .is_some())
        );
        put?;
        seen?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("put to snapshot: median {median:?}, worst {worst:?}");
    assert!(median < Duration::from_millis(30), "median {median:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_come_change_and_go_with_their_files() -> Outcome {
    if !possible("clusters_come_change_and_go_with_their_files") {
        return Ok(());
    }
    let node = Node::new()?;
    let mut follower = node.start();
    let empty = follower.until("the directory is read", |s| s.configured).await?;
    assert!(empty.clusters.is_empty() && empty.ready());
    let (etcd, wire) = clustera(&node).await?;
    follower.ready("clustera").await?;
    // A broken file: the connection stays as it is, and the reason is told.
    node.write("clustera", "endpoints: [\n")?;
    let broken = follower
        .until("the fault is told", |s| !s.problems.is_empty())
        .await?;
    assert!(broken.problems[0].last_good_in_use && broken.problems[0].reason.contains("line "));
    assert!(broken.clusters[&name("clustera")].status.ready);
    // Another address for the same cluster: another connection, nothing lost.
    let other = Wire::to(etcd.port).await?;
    node.configure("clustera", other.port)?;
    let endpoint = format!("https://clustera.mesh.cilium.io:{}", other.port);
    let moved = follower
        .cluster("clustera", "the endpoint is the new one", |c| {
            c.status.endpoint == endpoint && c.status.ready
        })
        .await?;
    assert_eq!((moved.ips.len(), moved.status.num_failures), (3, 0));
    wire.cut();
    // New certificates: connected anew with them.
    std::fs::remove_file(node.certificates.dir.join("remote.crt"))?;
    std::fs::remove_file(node.certificates.dir.join("remote.key"))?;
    rig::Certificates::make(&node.certificates.dir)?;
    follower
        .cluster("clustera", "it reconnected", |c| {
            c.status.last_failure_reason.contains("certificate files changed")
        })
        .await?;
    follower.ready("clustera").await?;
    // Removed: all its entries go at once.
    node.remove("clustera")?;
    follower.until("it is gone", |s| s.clusters.is_empty()).await?;
    node.configure("clustera", other.port)?;
    assert_eq!(follower.ready("clustera").await?.ips.len(), 3);
    Ok(())
}

/// Without canaries nothing is read but the configuration; each canary opens its table.
#[tokio::test(flavor = "multi_thread")]
async fn tables_wait_for_their_canaries() -> Outcome {
    if !possible("tables_wait_for_their_canaries") {
        return Ok(());
    }
    let node = Node::new()?;
    let (etcd, _wire) = clustera(&node).await?;
    etcd.delete_all("cilium/synced/").await?;
    let mut follower = node.start();
    let waiting = follower
        .cluster("clustera", "it waits", |c| {
            c.status.status.contains("the canary of ip")
        })
        .await?;
    assert!(waiting.status.connected && !waiting.status.ready && waiting.ips.is_empty());
    etcd.put(
        "cilium/synced/clustera/cilium/state/ip/v1",
        "2026-11-20T10:53:17Z",
    )
    .await?;
    let state = follower
        .cluster("clustera", "the addresses are read", |c| {
            c.status.synced.endpoints
        })
        .await?;
    assert_eq!(state.ips.len(), 3);
    assert!(!state.status.ready && state.nodes.is_empty() && !state.status.synced.nodes);
    for resource in [
        "nodes",
        "identities",
        "services",
        "endpointslices",
        "serviceexports",
    ] {
        let key = format!("cilium/synced/clustera/cilium/state/{resource}/v1");
        etcd.put(&key, "2026-11-20T10:53:17Z").await?;
    }
    follower.ready("clustera").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_kvstoremesh_is_read_from_its_cache_tree() -> Outcome {
    if !possible("a_copy_of_kvstoremesh_is_read_from_its_cache_tree") {
        return Ok(());
    }
    let node = Node::new()?;
    let (etcd, wire) = clustera(&node).await?;
    // The local etcd holds both: what it exports itself and what it copied.
    etcd.load("clusterb").await?;
    node.configure("clusterb", wire.port)?;
    let mut follower = node.start();
    let state = follower.ready("clusterb").await?;
    assert!(state.status.config.kvstoremesh);
    assert_eq!(
        (
            state.nodes.len(),
            state.ips.len(),
            state.services.len(),
            state.identities.len()
        ),
        (2, 3, 3, 1)
    );
    assert!(state.ips.values().all(|ip| ip.identity == Identity(132_001)));
    follower.ready("clustera").await?;
    Ok(())
}
