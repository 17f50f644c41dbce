//! The client against our own store, in process: recorded state, refusals by role, replaced replicas, and size.
mod rig;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isthmus_kvstore::{Family, Tree, canary_key, cluster_config_key, entry_key};
use isthmus_remote_cluster::RemoteClusterState;
use isthmus_store::mvcc::Retention;
use isthmus_store::{AccessPolicy, AuthMode, ServeOptions, Server, StoreHandle, Write};
use isthmus_topology::ClusterName;
use isthmus_trust::{PairFiles, ServerTls, TlsFiles};
use rig::{Node, Outcome, Wire, name};

/// A store of a cluster, served with the node's certificates.
async fn serve(node: &Node, cluster: &str) -> Result<(StoreHandle, Server), Box<dyn std::error::Error>> {
    let dir = &node.certificates.dir;
    let files = TlsFiles {
        pair: PairFiles::new(dir.join("server.crt"), dir.join("server.key")),
        bundle: dir.join("ca.crt"),
    };
    let tls = Arc::new(ServerTls::load(files, jiff::Timestamp::now())?);
    let store = StoreHandle::new(
        AccessPolicy::new(cluster, AuthMode::Migration),
        Retention::default(),
    );
    let listen: SocketAddr = "127.0.0.1:0".parse()?;
    let server = Server::start(&store, ServeOptions { listen, tls }).await?;
    Ok((store, server))
}

fn load(store: &StoreHandle) -> Outcome {
    for (key, value) in rig::entries("clustera") {
        store.put(key.as_bytes(), &value, 0)?;
    }
    Ok(())
}

fn sizes(c: &RemoteClusterState) -> [usize; 6] {
    [
        c.nodes.len(),
        c.identities.len(),
        c.ips.len(),
        c.services.len(),
        c.slices.len(),
        c.exports.len(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_store_is_read_as_an_etcd_is() -> Outcome {
    let node = Node::new()?;
    let (store, server) = serve(&node, "clustera").await?;
    load(&store)?;
    node.configure("clustera", server.address().port())?;
    let mut follower = node.start();
    let state = follower.ready("clustera").await?;
    assert_eq!(sizes(&state), [2, 1, 3, 3, 2, 1]);
    store.delete(b"cilium/state/ip/v1/default/10.1.0.21")?;
    follower
        .cluster("clustera", "a delete arrives", |c| c.ips.len() == 2)
        .await?;
    assert_eq!(
        follower.clusters.snapshot().clusters[&name("clustera")]
            .status
            .num_failures,
        0
    );
    Ok(())
}

/// A load balancer moves the connection from one replica of the apiserver to another, which lacks a key: another cluster id,
/// everything is read anew.
#[tokio::test(flavor = "multi_thread")]
async fn another_replica_is_read_anew() -> Outcome {
    let node = Node::new()?;
    let (first, first_server) = serve(&node, "clustera").await?;
    let (second, second_server) = serve(&node, "clustera").await?;
    load(&first)?;
    load(&second)?;
    second.delete(b"cilium/state/ip/v1/default/10.1.0.21")?;
    let (to_first, to_second) = (
        Wire::to(first_server.address().port()).await?,
        Wire::to(second_server.address().port()).await?,
    );
    node.configure("clustera", to_first.port)?;
    // Two endpoints: when the first fails, the second is tried in turn.
    let path = node.options.directory.join("clustera");
    let file = std::fs::read_to_string(&path)?;
    let (one, two) = (to_first.port, to_second.port);
    let both = format!("- https://clustera.mesh.cilium.io:{one}\n- https://clustera.mesh.cilium.io:{two}");
    std::fs::write(
        &path,
        file.replace(&format!("- https://clustera.mesh.cilium.io:{one}"), &both),
    )?;
    let mut follower = node.start();
    assert_eq!(follower.ready("clustera").await?.ips.len(), 3);
    to_first.cut();
    let state = follower
        .cluster("clustera", "the second replica is read", |c| {
            c.status.ready && c.ips.len() == 2
        })
        .await?;
    assert!(
        state.status.endpoint.ends_with(&two.to_string()),
        "{}",
        state.status.endpoint
    );
    Ok(())
}

/// The certificate is `remote`, but the store is another cluster's: the configuration's name is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_says_so_in_the_status() -> Outcome {
    let node = Node::new()?;
    let (_store, server) = serve(&node, "north").await?;
    node.configure("clustera", server.address().port())?;
    let mut follower = node.start();
    let state = follower
        .cluster("clustera", "the refusal is told", |c| {
            c.status.status.contains("permission denied")
        })
        .await?;
    println!("{}", state.status.status);
    assert!(state.status.connected && !state.status.ready && state.status.num_failures == 0);
    Ok(())
}

fn address(n: u32) -> String {
    std::net::Ipv4Addr::from((10 << 24) + n).to_string()
}

/// The writes that make cluster `big` with so many addresses.
fn big(cluster: &ClusterName, addresses: u32) -> Vec<Write> {
    let put = |key: String, value: String| Write::Put {
        key: key.into(),
        value: value.into(),
        lease: 0,
    };
    let config = r#"{"id":1,"capabilities":{"syncedCanaries":true,"maxConnectedClusters":255}}"#;
    let mut writes = vec![put(cluster_config_key(cluster), config.to_owned())];
    for family in Family::ALL {
        writes.push(put(
            canary_key(cluster, Tree::State, family),
            "2026-11-20T10:53:17Z".to_owned(),
        ));
    }
    writes.extend((0..addresses).map(|n| put(ip_key(cluster, n), ip_value(n, 0))));
    writes
}

fn ip_key(cluster: &ClusterName, n: u32) -> String {
    entry_key(Tree::State, Family::Ip, cluster, address(n))
}

fn ip_value(n: u32, version: u8) -> String {
    let (ip, host, id) = (address(n), n % 1000 / 250, 65_536 + n % 500);
    format!(
        r#"{{"IP":"{ip}","Mask":null,"HostIP":"192.168.{host}.{}","ID":{id},"Key":{version},"Metadata":"","K8sNamespace":"demo","K8sPodName":"pod-{n}"}}"#,
        n % 250
    )
}

/// 100,000 addresses are read for the first time; then single changes are timed while 2,000 others a second go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_big_cluster_is_read_quickly_and_followed_under_churn() -> Outcome {
    const ADDRESSES: u32 = 100_000;
    let node = Node::new()?;
    let cluster = name("big");
    let (store, server) = serve(&node, "big").await?;
    assert!(store.apply(big(&cluster, ADDRESSES)).is_ok());
    node.configure("big", server.address().port())?;
    let start = Instant::now();
    let mut follower = node.start();
    let state = follower.ready("big").await?;
    let took = start.elapsed();
    println!("first sync of {} addresses: {took:.2?}", state.ips.len());
    assert_eq!(state.ips.len(), usize::try_from(ADDRESSES)?);

    let churn = {
        let (store, cluster) = (store.clone(), cluster.clone());
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(10));
            let mut n = 0;
            loop {
                tick.tick().await;
                for _ in 0..20 {
                    n = (n + 7919) % (ADDRESSES / 2);
                    let value = ip_value(n, 1);
                    store
                        .put(ip_key(&cluster, n).as_bytes(), value.as_bytes(), 0)
                        .expect("put");
                }
            }
        })
    };
    let mut times = Vec::new();
    let mut before = state;
    let mut changes = 0;
    for n in 0..100 {
        let n = ADDRESSES / 2 + n * 37;
        let prefix = format!("{}/32", address(n)).parse()?;
        let start = Instant::now();
        store.put(ip_key(&cluster, n).as_bytes(), ip_value(n, 255).as_bytes(), 0)?;
        let now = follower
            .cluster("big", "the change arrives", |c| {
                c.ips.get(&prefix).is_some_and(|e| e.key == 255)
            })
            .await?;
        times.push(start.elapsed());
        changes += now.ips.diff(&before.ips).count();
        before = now;
    }
    churn.abort();
    times.sort_unstable();
    println!(
        "put to snapshot under churn: median {:.2?}, p99 {:.2?}; {changes} changes in the diffs",
        times[times.len() / 2],
        times[times.len() - 2]
    );
    assert!(changes >= 100);
    assert!(times[times.len() / 2] < Duration::from_millis(50), "{times:?}");
    Ok(())
}
