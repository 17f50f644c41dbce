//! What a remote cluster survives.
use std::time::{Duration, Instant};

use isthmus_remote_cluster::{Change, RemoteClusterState};

use crate::rig::{Etcd, Node, Outcome, name, possible};
use crate::{IP, WEB, clustera, recorded, rig};

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
