//! The client against Debian's etcd, filled with what Cilium's own exporter was recorded to write (1.20): the cluster
//! `clustera` (id 1) as itself, `clusterb` (id 2) as KVStoreMesh copies it.
mod rig;

use std::time::{Duration, Instant};

use isthmus_remote_cluster::{Change, RemoteClusterState};
use isthmus_topology::{Identity, ServiceName};
use rig::{Etcd, Node, Outcome, Wire, name, possible};

const WEB: &str = "cilium/state/services/v1/clustera/demo/web";
const IP: &str = "cilium/state/ip/v1/default/10.1.0.21";

fn recorded(key: &str) -> String {
    let found = rig::entries("clustera").into_iter().find(|(k, _)| k == key);
    String::from_utf8(found.expect("recorded").1).expect("text")
}

fn web() -> ServiceName {
    ServiceName::new("demo", "web").expect("a name")
}

/// An etcd with clustera's state, behind a wire, in the configuration.
async fn clustera(node: &Node) -> Result<(Etcd, Wire), Box<dyn std::error::Error>> {
    let etcd = Etcd::start(&node.certificates, isthmus_testkit::free_tcp_port()?).await?;
    etcd.load("clustera").await?;
    let wire = Wire::to(etcd.port).await?;
    node.configure("clustera", wire.port)?;
    Ok((etcd, wire))
}

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

/// While the wire is cut, a node, an address and a service are deleted and the history is compacted: nobody can send those
/// deletes any more, so the next list makes them up. Meanwhile everything stays.
#[tokio::test(flavor = "multi_thread")]
async fn state_survives_a_cut_and_deletes_are_made_up_after_a_compaction() -> Outcome {
    if !possible("state_survives_a_cut_and_deletes_are_made_up_after_a_compaction") {
        return Ok(());
    }
    let node = Node::new()?;
    let (etcd, wire) = clustera(&node).await?;
    let mut follower = node.start();
    follower.ready("clustera").await?;
    wire.cut();
    let away = follower
        .cluster("clustera", "the cut is noticed", |c| !c.status.connected)
        .await?;
    assert!(!away.status.ready && away.status.num_failures > 0);
    assert!(away.status.synced.all(), "what was complete stays usable");
    etcd.delete(IP).await?;
    etcd.delete(WEB).await?;
    etcd.delete("cilium/state/nodes/v1/clustera/a-node-2").await?;
    etcd.compact().await?;
    assert_eq!((away.nodes.len(), away.ips.len(), away.services.len()), (2, 3, 3));
    wire.mend();
    let back = follower.ready("clustera").await?;
    assert_eq!((back.nodes.len(), back.ips.len(), back.services.len()), (1, 2, 2));
    let deleted: Vec<_> = back.ips.diff(&away.ips).collect();
    assert_eq!(deleted.len(), 1, "{deleted:?}");
    Ok(())
}

/// The exporter's pod is replaced: same address, empty etcd, another cluster id, fewer entries.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_etcd_behind_the_same_address_replaces_what_the_old_one_had() -> Outcome {
    if !possible("a_new_etcd_behind_the_same_address_replaces_what_the_old_one_had") {
        return Ok(());
    }
    let node = Node::new()?;
    let (mut old, wire) = clustera(&node).await?;
    let mut follower = node.start();
    follower.ready("clustera").await?;
    old.kill()?;
    let away = follower
        .cluster("clustera", "the end is noticed", |c| !c.status.connected)
        .await?;
    assert_eq!(away.ips.len(), 3);
    let new = Etcd::start(&node.certificates, old.port).await?;
    for (key, value) in rig::entries("clustera") {
        if key != IP && key != WEB {
            new.put(&key, value).await?;
        }
    }
    let back = follower.ready("clustera").await?;
    assert_eq!((back.ips.len(), back.services.len(), back.nodes.len()), (2, 2, 2));
    drop(wire);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_not_valid_is_refused_and_the_last_good_one_stays() -> Outcome {
    if !possible("a_value_that_is_not_valid_is_refused_and_the_last_good_one_stays") {
        return Ok(());
    }
    let node = Node::new()?;
    let (etcd, _wire) = clustera(&node).await?;
    let mut follower = node.start();
    let good = follower.ready("clustera").await?;
    let bad: [(&str, String); 6] = [
        (WEB, "{\"cluster\":".to_owned()),
        (WEB, recorded(WEB).replace("clustera", "other")),
        (IP, recorded(IP).replace("68001", "132001")),
        (IP, "null".to_owned()),
        ("cilium/state/identities/v1/id/68001", "k8s:app=web;".to_owned()),
        ("cilium/state/nodes/v1/clustera/a-node-1", "{}".to_owned()),
    ];
    for (key, value) in &bad {
        etcd.put(key, value.clone()).await?;
    }
    etcd.put("cilium/state/identities/v1/id/x", "k8s:a=b;").await?;
    let state = follower
        .cluster("clustera", "all are refused", |c| c.rejected.total() == 7)
        .await?;
    assert_eq!(state.services, good.services);
    assert_eq!(state.ips, good.ips);
    assert_eq!(state.identities, good.identities);
    assert_eq!(state.nodes, good.nodes);
    let reasons: Vec<_> = state
        .rejected
        .recent
        .iter()
        .map(|r| format!("{}: {}", r.key, r.reason))
        .collect();
    println!("{}", reasons.join("\n"));
    assert!(
        reasons
            .iter()
            .any(|r| r.starts_with(&format!("{IP}: identity 132001 is outside"))),
        "{reasons:#?}"
    );
    assert!(state.status.ready && state.status.num_rejected == 7);
    // The bad values are still there when everything is read again.
    node.configure("clustera", etcd.port)?;
    let again = follower
        .cluster("clustera", "all are refused again", |c| {
            c.rejected.total() == 12 && c.status.ready
        })
        .await?;
    assert_eq!(again.ips, good.ips);
    etcd.put(WEB, recorded(WEB).replace("10.1.0.21", "10.1.0.77"))
        .await?;
    follower
        .cluster("clustera", "a good value is taken again", |c| {
            c.services != good.services
        })
        .await?;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_etcd_is_left_and_joined_again() -> Outcome {
    if !possible("a_silent_etcd_is_left_and_joined_again") {
        return Ok(());
    }
    let mut node = Node::new()?;
    node.options.timing.heartbeat_timeout = Duration::from_millis(1500);
    let (etcd, _wire) = clustera(&node).await?;
    let mut follower = node.start();
    follower.ready("clustera").await?;
    // With a heartbeat every 250 ms the connection stays for longer than the limit.
    for beat in 0..10 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        etcd.put("cilium/.heartbeat", format!("2026-11-20T11:02:{beat:02}Z"))
            .await?;
    }
    assert_eq!(
        follower.clusters.snapshot().clusters[&name("clustera")]
            .status
            .num_failures,
        0
    );
    let left = follower
        .cluster("clustera", "the silence is noticed", |c| {
            c.status.num_failures == 1
        })
        .await?;
    assert_eq!(left.status.last_failure_reason, "no heartbeat for 1.5 s");
    assert_eq!(left.ips.len(), 3);
    follower
        .cluster("clustera", "it is joined again", |c| {
            c.status.ready && c.status.num_failures == 1
        })
        .await?;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_does_not_fit_is_refused_with_both_sides_named() -> Outcome {
    if !possible("a_cluster_that_does_not_fit_is_refused_with_both_sides_named") {
        return Ok(());
    }
    let node = Node::new()?;
    let (etcd, wire) = clustera(&node).await?;
    let mut follower = node.start();
    follower.ready("clustera").await?;
    node.configure("clusterb", wire.port)?;
    let table = [
        (r#"{"id":9,"capabilities":{}}"#, "id of the local cluster east"),
        (
            r#"{"id":1,"capabilities":{}}"#,
            "clusterb has cluster id 1, which is the id of clustera",
        ),
        (r#"{"id":300,"capabilities":{}}"#, "out of range"),
        (
            r#"{"id":2,"capabilities":{"maxConnectedClusters":511}}"#,
            "255 here in east, 511 in clusterb",
        ),
        (
            r#"{"id":2,"capabilities":{"endpointSlicesExportMode":"x"}}"#,
            "not valid",
        ),
        ("{", "not valid"),
    ];
    for (config, reason) in table {
        etcd.put("cilium/cluster-config/clusterb", config).await?;
        let state = follower
            .cluster("clusterb", reason, |c| {
                c.status.last_failure_reason.contains(reason)
            })
            .await?;
        assert!(!state.status.ready && state.ips.is_empty());
    }
    etcd.load("clusterb").await?;
    follower.ready("clusterb").await?;
    assert!(follower.ready("clustera").await?.status.num_failures == 0);
    Ok(())
}

/// The cluster gets another id (it was made anew): nothing of the old one stays, not even while the new one is read.
#[tokio::test(flavor = "multi_thread")]
async fn another_id_is_another_cluster() -> Outcome {
    if !possible("another_id_is_another_cluster") {
        return Ok(());
    }
    let node = Node::new()?;
    let (etcd, wire) = clustera(&node).await?;
    let mut follower = node.start();
    follower.ready("clustera").await?;
    wire.cut();
    follower
        .cluster("clustera", "the cut is noticed", |c| !c.status.connected)
        .await?;
    etcd.put("cilium/cluster-config/clustera", r#"{"id":3,"capabilities":{}}"#)
        .await?;
    wire.mend();
    let state = follower
        .cluster("clustera", "it has another id", |c| {
            c.status.config.cluster_id == 3 && c.status.ready
        })
        .await?;
    assert!(state.ips.is_empty() && state.nodes.is_empty() && state.services.is_empty());
    assert!(
        state.rejected.total() > 0,
        "the entries of the old id are refused"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn services_of_a_cluster_that_is_away_expire_if_the_user_says_so() -> Outcome {
    if !possible("services_of_a_cluster_that_is_away_expire_if_the_user_says_so") {
        return Ok(());
    }
    let mut node = Node::new()?;
    node.options.cache_ttl = Some(Duration::from_millis(300));
    let (_etcd, wire) = clustera(&node).await?;
    let mut follower = node.start();
    follower.ready("clustera").await?;
    wire.cut();
    let expired = follower
        .cluster("clustera", "services expire", |c| c.services.is_empty())
        .await?;
    assert_eq!(
        (expired.slices.len(), expired.status.num_cache_revocations),
        (0, 1)
    );
    assert_eq!(
        (expired.ips.len(), expired.nodes.len(), expired.identities.len()),
        (3, 2, 1)
    );
    wire.mend();
    assert_eq!(follower.ready("clustera").await?.services.len(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_certificate_is_named() -> Outcome {
    if !possible("a_wrong_certificate_is_named") {
        return Ok(());
    }
    let node = Node::new()?;
    let (_etcd, wire) = clustera(&node).await?;
    // The certificate is for *.mesh.cilium.io and for 127.0.0.1, not for this name.
    let file = std::fs::read_to_string(node.options.directory.join("clustera"))?;
    node.write(
        "clustera",
        &file.replace("clustera.mesh.cilium.io", "elsewhere.example"),
    )?;
    let mut follower = node.start();
    let state = follower
        .cluster("clustera", "it fails", |c| c.status.num_failures > 0)
        .await?;
    println!("{}", state.status.last_failure_reason);
    assert!(
        state.status.last_failure_reason.contains("certificate"),
        "{}",
        state.status.last_failure_reason
    );
    // By its address it is good.
    node.write("clustera", &file.replace("clustera.mesh.cilium.io", "127.0.0.1"))?;
    follower.ready("clustera").await?;
    std::fs::remove_file(node.certificates.dir.join("remote.key"))?;
    let state = follower
        .cluster("clustera", "the key is missed", |c| {
            c.status.last_failure_reason.contains("remote.key")
        })
        .await?;
    println!("{}", state.status.last_failure_reason);
    assert_eq!(state.ips.len(), 3);
    drop(wire);
    Ok(())
}

/// | what is wrong                             | the status names          |
/// |-------------------------------------------|---------------------------|
/// | nobody listens                            | the address               |
/// | the name has no address                   | the name and the alias    |
/// | what listens is no TLS server             | the handshake             |
/// | the server's authority is another one     | the certificate's issuer  |
/// | the client's authority is another one     | what the server objects to |
/// | the client's certificate has expired      | the file and the time     |
#[tokio::test(flavor = "multi_thread")]
async fn why_a_connection_fails_is_told() -> Outcome {
    if !possible("why_a_connection_fails_is_told") {
        return Ok(());
    }
    let node = Node::new()?;
    let etcd = Etcd::start(&node.certificates, isthmus_testkit::free_tcp_port()?).await?;
    etcd.load("clustera").await?;
    let mut follower = node.start();
    node.configure("clustera", isthmus_testkit::free_tcp_port()?)?;
    let path = node.options.directory.join("clustera");
    let dead = std::fs::read_to_string(&path)?;
    let unnamed = dead
        .replace("hostname: clustera", "hostname: other")
        .replace("clustera.mesh", "nowhere.invalid");
    node.configure("clustera", etcd.port)?;
    let good = std::fs::read_to_string(&path)?;
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = plain.local_addr()?.port();
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        while let Ok((mut stream, _)) = plain.accept().await {
            drop(stream.write_all(b"220 mail.example ESMTP\r\n").await);
        }
    });
    let others = rig::Certificates::make(&node.certificates.dir.join("others"))?;
    let file = |name: &str| node.certificates.dir.join(name).display().to_string();
    let other = |name: &str| others.dir.join(name).display().to_string();
    let foreign_client = good
        .replace(&file("remote.crt"), &other("remote.crt"))
        .replace(&file("remote.key"), &other("remote.key"));
    let table = [
        ("nobody listens", dead, "nothing listens there"),
        ("no address", unnamed, "cilium-host-aliases"),
        (
            "no TLS",
            good.replace(&format!(":{}", etcd.port), &format!(":{port}")),
            "does not speak TLS",
        ),
        (
            "foreign server",
            good.replace(&file("ca.crt"), &other("ca.crt")),
            "authority of the same name",
        ),
        ("foreign client", foreign_client, "our client certificate"),
        ("expired", expired(&node, &good)?, "expired"),
    ];
    for (what, text, reason) in table {
        node.write("clustera", &text)?;
        let state = follower
            .cluster("clustera", what, |c| {
                c.status.num_failures > 0 && c.status.last_failure_reason.contains(reason)
            })
            .await?;
        println!("{what}: {}", state.status.last_failure_reason);
    }
    node.write("clustera", &good)?;
    follower.ready("clustera").await?;
    Ok(())
}

/// The good configuration with a client certificate that ended yesterday.
fn expired(node: &Node, good: &str) -> Result<String, Box<dyn std::error::Error>> {
    use isthmus_trust::{Authority, ClientName, LeafRequest, PairFiles, Validity};
    let dir = &node.certificates.dir;
    let now = jiff::Timestamp::now();
    let ago = |days: i64| now.checked_sub(jiff::SignedDuration::from_hours(24 * days));
    let validity = Validity {
        from: ago(30)?,
        until: ago(2)?,
    };
    let (ca, _) = Authority::ensure("test CA", &dir.join("ca.crt"), &dir.join("ca.key"), now)?;
    let pair = PairFiles::new(dir.join("old.crt"), dir.join("old.key"));
    ca.issue(&LeafRequest::client(&ClientName::Remote, validity))?
        .save(&pair)?;
    Ok(good
        .replace("remote.crt", "old.crt")
        .replace("remote.key", "old.key"))
}

/// Three seconds of everything at once: 60 addresses come, change and go, the history is compacted, the wire is cut and mended.
/// In the end the table is what etcd holds, and every step from snapshot to snapshot was a difference of it.
#[tokio::test(flavor = "multi_thread")]
async fn after_any_disturbance_the_table_is_what_etcd_holds() -> Outcome {
    if !possible("after_any_disturbance_the_table_is_what_etcd_holds") {
        return Ok(());
    }
    let node = Node::new()?;
    let (etcd, wire) = clustera(&node).await?;
    let mut follower = node.start();
    let mut before = follower.ready("clustera").await?;
    let mut applied: Ips = before.ips.iter().map(|(k, v)| (*k, v.clone())).collect();
    let start = Instant::now();
    let (mut random, mut cuts) = (1_u64, 0);
    while start.elapsed() < Duration::from_secs(3) {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let (dice, n) = ((random >> 33) % 100, (random >> 40) % 60);
        let ip = format!("10.1.7.{n}");
        let key = IP.replace("10.1.0.21", &ip);
        let value = recorded(IP)
            .replace("10.1.0.21", &ip)
            .replace("255", &(dice % 8).to_string());
        match dice {
            0..55 => etcd.put(&key, value).await?,
            55..92 => etcd.delete(&key).await?,
            92 | 93 => etcd.compact().await?,
            94 => {
                wire.cut();
                cuts += 1;
            }
            _ => wire.mend(),
        }
        let now = follower.clusters.snapshot();
        let now = &now.clusters[&name("clustera")];
        apply(&mut applied, now, &before);
        before = std::sync::Arc::clone(now);
    }
    wire.mend();
    etcd.put(
        "cilium/state/ip/v1/default/10.1.8.8",
        recorded(IP).replace("10.1.0.21", "10.1.8.8"),
    )
    .await?;
    let last = "10.1.8.8/32".parse()?;
    let state = follower
        .cluster("clustera", "the last change arrives", |c| {
            c.status.ready && c.ips.get(&last).is_some()
        })
        .await?;
    apply(&mut applied, &state, &before);
    let held = etcd.values("cilium/state/ip/v1/default/").await?;
    let held: Ips = held
        .iter()
        .map(|value| isthmus_kvstore::ip::decode(value).map(|entry| (entry.prefix, entry)))
        .collect::<Result<_, _>>()?;
    let shown: Ips = state.ips.iter().map(|(k, v)| (*k, v.clone())).collect();
    println!(
        "{cuts} cuts, {} failures, {} addresses",
        state.status.num_failures,
        shown.len()
    );
    assert_eq!(shown, held);
    assert_eq!(applied, held);
    assert!(cuts > 0 && state.rejected.total() == 0);
    Ok(())
}

type Ips = std::collections::BTreeMap<ipnet::IpNet, isthmus_topology::IpIdentity>;

/// What a consumer does with a new snapshot.
fn apply(applied: &mut Ips, now: &RemoteClusterState, before: &RemoteClusterState) {
    for change in now.ips.diff(&before.ips) {
        match change {
            Change::Put { key, value, old } => assert_eq!(applied.insert(*key, value.clone()).as_ref(), old),
            Change::Delete { key, old } => assert_eq!(applied.remove(key).as_ref(), Some(old)),
        }
    }
}
