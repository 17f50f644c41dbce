//! The daemon from manifests to what a reader sees.
//!
//! ```text
//!   manifests/ ──► clustermesh-apiserver ──► etcd API ◄── reader `remote`
//!                         └── admin socket: status, readiness, metrics
//! ```

mod rig;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use etcd_client::{EventType, GetOptions, WatchOptions};
use isthmus_testkit::wait_until_async;
use isthmus_trust::ClientName;
use rig::{PATIENCE, Rig, Row, rows};

const NODE: &str = "
apiVersion: v1
kind: Node
metadata: {name: east-1}
spec: {podCIDR: 10.1.1.0/24, podCIDRs: [10.1.1.0/24]}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
";

fn service(name: &str, port: u16) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop, annotations: {{service.cilium.io/global: 'true'}}}}
spec: {{clusterIP: 10.96.0.10, clusterIPs: [10.96.0.10], selector: {{app: {name}}}, ports: [{{name: http, port: {port}, protocol: TCP}}]}}
"
    )
}

fn pod(name: &str, address: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, labels: {{app: web}}}}
spec: {{nodeName: east-1, serviceAccountName: default, containers: [{{name: c, image: i}}]}}
status: {{phase: Running, podIP: {address}, podIPs: [{{ip: {address}}}], hostIP: 192.0.2.1}}
"
    )
}

fn find<'a>(rows: &'a [Row], key: &str) -> &'a Row {
    rows.iter()
        .find(|row| row.key == key)
        .unwrap_or_else(|| panic!("{key} in {rows:#?}"))
}

/// cluster-config, then resources, then canaries; all under leases; heartbeat at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_come_in_ciliums_order() {
    let rig = Rig::new("east");
    rig.manifest("node.yaml", NODE);
    rig.manifest("web.yaml", &service("web", 80));
    rig.manifest("pod.yaml", &pod("web-1", "10.1.1.10"));
    let _server = rig.start().await;
    let mut client = rig.admin_client().await;
    let all = rows(&mut client, "cilium/").await;
    let config = find(&all, "cilium/cluster-config/east");
    assert_eq!(
        String::from_utf8_lossy(&config.value),
        r#"{"id":1,"capabilities":{"syncedCanaries":true,"maxConnectedClusters":255,"serviceExportsEnabled":true,"endpointSlicesExportMode":"services-and-endpointslices"}}"#
    );
    let heartbeat = find(&all, "cilium/.heartbeat");
    assert!(String::from_utf8_lossy(&heartbeat.value).ends_with('Z'));
    let canaries: Vec<_> = all
        .iter()
        .filter(|row| row.key.starts_with("cilium/synced/east/"))
        .collect();
    let named: BTreeSet<_> = canaries
        .iter()
        .map(|row| row.key.rsplit('/').nth(1).unwrap())
        .collect();
    let families = [
        "endpointslices",
        "identities",
        "ip",
        "nodes",
        "serviceexports",
        "services",
    ];
    assert_eq!(
        named,
        BTreeSet::from(families),
        "one canary each, switched off or not"
    );
    find(&all, "cilium/synced/east/cilium/state/identities/v1");
    for state in all.iter().filter(|row| row.key.starts_with("cilium/state/")) {
        assert!(
            config.created < state.created,
            "cluster-config before {}",
            state.key
        );
        assert!(
            canaries.iter().all(|canary| canary.created > state.created),
            "canaries after {}",
            state.key
        );
    }
    find(&all, "cilium/state/nodes/v1/east/east-1");
    find(&all, "cilium/state/services/v1/east/shop/web");
    find(&all, "cilium/state/ip/v1/default/10.1.1.10");
    assert!(all.iter().all(|row| row.lease != 0 && row.version == 1));
    let lease = client.lease_time_to_live(config.lease, None).await.unwrap();
    assert_eq!(lease.granted_ttl(), 900);

    let status = rig.status().await;
    assert!(
        status.ready && status.waiting_for.is_empty() && status.manifest_errors.is_empty(),
        "{status:#?}"
    );
    assert_eq!(status.store.keys as usize, all.len());
    let count = |name: &str| {
        status
            .resources
            .iter()
            .find(|row| row.resource == name)
            .unwrap()
            .keys
    };
    assert_eq!(
        (
            count("nodes"),
            count("services"),
            count("ip"),
            count("identities")
        ),
        (1, 1, 1, 1)
    );
    assert!(
        status
            .clients
            .iter()
            .any(|client| client.common_name == "admin-east" && client.role == "root")
    );
    let metrics = || async { rig.admin().text("/metrics").await.unwrap() };
    wait_until_async(PATIENCE, "the metrics are up to date", async || {
        let text = metrics().await;
        text.contains(r#"cilium_clustermesh_apiserver_bootstrap_seconds{source_cluster="east"}"#)
            && text.contains(r#"cilium_clustermesh_apiserver_kvstore_initial_sync_completed{scope="state/ip/v1",source_cluster="east",action="write"} 1"#)
    })
    .await
    .unwrap();
}

/// What changes in a file arrives at a reader's watch in milliseconds, and nothing else moves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_reaches_the_reader_at_once() {
    let rig = Rig::new("east");
    rig.manifest("node.yaml", NODE);
    rig.manifest("web.yaml", &service("web", 80));
    let server = rig.start().await;
    let mut reader = rig.client(&ClientName::RemotePeer("west".into())).await;
    let mut stream = reader
        .watch("cilium/state/", Some(WatchOptions::new().with_prefix()))
        .await
        .unwrap();
    assert!(stream.message().await.unwrap().unwrap().created());

    let mut times = Vec::new();
    for n in 0..20u8 {
        let begun = Instant::now();
        rig.manifest("pod.yaml", &pod("web-1", &format!("10.1.1.{}", 100 + n)));
        let want = format!("cilium/state/ip/v1/default/10.1.1.{}", 100 + n);
        'wait: loop {
            let message = tokio::time::timeout(PATIENCE, stream.message()).await;
            let response = message.expect("an event in time").unwrap().unwrap();
            for event in response.events() {
                if event.kv().unwrap().key() == want.as_bytes() {
                    break 'wait;
                }
            }
        }
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    println!(
        "manifest to reader: median {:?}, worst {:?}",
        times[10], times[19]
    );
    assert!(times[10] < Duration::from_millis(200), "{times:?}");

    // A file that breaks keeps its last good version, and says where it is broken.
    let before = rig.status().await;
    rig.manifest("web.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {ports: [{port: nonsense}]}\n");
    wait_until_async(PATIENCE, "the problem is reported", async || {
        !rig.status().await.manifest_errors.is_empty()
    })
    .await
    .unwrap();
    let status = rig.status().await;
    let problem = &status.manifest_errors[0];
    assert!(
        problem.file.ends_with("web.yaml") && problem.line > 0,
        "{problem:?}"
    );
    let keys = |status: &isthmus_admin::apiserver::ApiserverStatus| {
        status
            .resources
            .iter()
            .map(|row| (row.resource.clone(), row.keys))
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&status), keys(&before));

    // A file that goes takes its objects with it.
    rig.remove_manifest("web.yaml");
    let get = async |reader: &mut etcd_client::Client| {
        reader
            .get("cilium/state/services/v1/east/shop/web", None)
            .await
            .unwrap()
            .kvs()
            .len()
    };
    let gone = tokio::time::timeout(PATIENCE, async {
        while get(&mut reader).await != 0 {
            tokio::task::yield_now().await;
        }
    });
    gone.await.expect("the service goes");

    // SIGTERM revokes nothing and deletes nothing: the reader only sees the connection end.
    let events = async {
        let mut deleted = 0;
        while let Ok(Some(response)) = stream.message().await {
            let is = |event: &&etcd_client::Event| event.event_type() == EventType::Delete;
            deleted += response
                .events()
                .iter()
                .filter(is)
                .filter(|e| e.kv().unwrap().key().starts_with(b"cilium/state/nodes"))
                .count();
        }
        deleted
    };
    kill_gently(&server);
    assert_eq!(
        tokio::time::timeout(PATIENCE, events)
            .await
            .expect("the stream ends"),
        0
    );
}

fn kill_gently(server: &isthmus_testkit::Process) {
    let status = std::process::Command::new("kill")
        .arg(server.pid().to_string())
        .status()
        .unwrap();
    assert!(status.success());
}

/// 2,500 addresses need three leases; a lease that somebody revokes is made good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_holds_at_most_a_thousand_keys() {
    let rig = Rig::new("east");
    rig.manifest("node.yaml", NODE);
    let pods: Vec<_> = (0..2_500)
        .map(|n| pod(&format!("p{n}"), &format!("10.{}.{}.9", 2 + n / 200, n % 200)))
        .collect();
    rig.manifest("pods.yaml", &pods.join("---"));
    let _server = rig.start().await;
    let mut client = rig.admin_client().await;
    let ips = rows(&mut client, "cilium/state/ip/").await;
    assert_eq!(ips.len(), 2_500);
    let mut leases: Vec<_> = rows(&mut client, "cilium/")
        .await
        .iter()
        .map(|row| row.lease)
        .collect();
    leases.sort_unstable();
    let sizes: Vec<_> = leases.chunk_by(|a, b| a == b).map(<[_]>::len).collect();
    assert!(
        sizes.len() == 3 && sizes.iter().all(|size| *size <= 1_000),
        "{sizes:?}"
    );
}

/// A restart begins a new history: another cluster_id, so that readers list anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_told_by_the_cluster_id() {
    let rig = Rig::new("east");
    rig.manifest("node.yaml", NODE);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut server = rig.start().await;
        let mut client = rig.client(&ClientName::Remote).await;
        let response = client.get("cilium/cluster-config/east", None).await.unwrap();
        ids.push(response.header().unwrap().cluster_id());
        server.kill().unwrap();
    }
    assert!(ids[0] != ids[1] && ids[0] != 0 && ids[1] != 0, "{ids:?}");
}

/// Fed with what Cilium 1.20 was fed with, it writes the keys that Cilium wrote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_recorded_cluster_has_the_recorded_keys() {
    let replay = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/replay/clustermesh-1.20");
    let read = |name: &str| std::fs::read_to_string(replay.join(name)).unwrap();
    let rig = Rig::new("clustera");
    rig.manifest("input.yaml", &read("input-clustera.yaml"));
    let _server = rig.start().await;
    let mut client = rig.admin_client().await;
    let ours: BTreeSet<_> = rows(&mut client, "cilium/")
        .await
        .into_iter()
        .map(|row| row.key)
        .collect();
    let own = |key: &&str| {
        key.starts_with("cilium/state/")
            || key.starts_with("cilium/synced/clustera/")
            || ["cilium/.heartbeat", "cilium/cluster-config/clustera"].contains(key)
    };
    let recording = read("export-clustera.txt");
    let recorded: BTreeSet<_> = recording
        .lines()
        .filter_map(|line| line.strip_prefix("KEY   "))
        .filter(own)
        .map(str::to_owned)
        .collect();
    assert!(recorded.len() > 15);
    assert_eq!(ours, recorded);

    // The recorded pages: a reader's list with limit 1 gives the same keys in the same order.
    let mut paged = Vec::new();
    let (mut from, mut revision) = (b"cilium/state/".to_vec(), 0);
    loop {
        let options = GetOptions::new()
            .with_range("cilium/state0")
            .with_limit(1)
            .with_revision(revision);
        let response = client.get(from.clone(), Some(options)).await.unwrap();
        revision = response.header().unwrap().revision();
        paged.extend(
            response
                .kvs()
                .iter()
                .map(|kv| String::from_utf8(kv.key().to_vec()).unwrap()),
        );
        if !response.more() {
            break;
        }
        from = [paged.last().unwrap().as_bytes(), &[0]].concat();
    }
    let state: Vec<_> = recorded
        .iter()
        .filter(|key| key.starts_with("cilium/state/"))
        .cloned()
        .collect();
    assert_eq!(paged, state);
}
