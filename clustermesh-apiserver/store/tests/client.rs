//! The crate etcd-client against the store: what a reader of the mesh does.

mod rig;

use etcd_client::{Compare, CompareOp, EventType, GetOptions, PutOptions, Txn, TxnOp, WatchOptions};
use rig::Rig;

const IPS: &str = "cilium/state/ip/v1/default/";

fn fill(rig: &Rig, count: usize) {
    for i in 0..count {
        let key = format!("{IPS}10.1.{}.{}", i / 256, i % 256);
        rig.store.put(key.as_bytes(), b"value", 0).unwrap();
    }
}

/// List in pages of 256 at the revision of the first page (clustermesh.md §2.2), while somebody writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_in_pages_is_one_moment() {
    let rig = Rig::start().await;
    fill(&rig, 1_000);
    let mut client = rig.client("remote-west").await;
    let (mut from, mut revision, mut keys, mut pages) = (IPS.as_bytes().to_vec(), 0, Vec::new(), 0);
    let end = "cilium/state/ip/v1/default0";
    loop {
        let options = GetOptions::new()
            .with_range(end)
            .with_limit(256)
            .with_revision(revision);
        let response = client.get(from.clone(), Some(options)).await.unwrap();
        let header = response.header().unwrap();
        assert_eq!(header.cluster_id(), rig.store.identity().cluster_id);
        if pages == 0 {
            revision = header.revision();
            assert_eq!(response.count(), 1_000);
        }
        pages += 1;
        keys.extend(response.kvs().iter().map(|kv| kv.key().to_vec()));
        // Between the pages one key goes and one comes.
        rig.store
            .delete(format!("{IPS}10.1.3.{pages}").as_bytes())
            .unwrap();
        rig.store
            .put(format!("{IPS}10.2.0.{pages}").as_bytes(), b"new", 0)
            .unwrap();
        if !response.more() {
            break;
        }
        from = [keys.last().unwrap().as_slice(), &[0]].concat();
    }
    assert_eq!((pages, keys.len()), (4, 1_000));
    assert!(
        keys.is_sorted()
            && keys
                .iter()
                .all(|key| !key.starts_with(b"cilium/state/ip/v1/default/10.2."))
    );

    // The watch from the next revision on shows exactly what came in between.
    let options = WatchOptions::new()
        .with_range(end)
        .with_start_revision(revision + 1);
    let mut stream = client.watch(IPS, Some(options)).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 8 {
        let response = stream.message().await.unwrap().unwrap();
        seen.extend(
            response
                .events()
                .iter()
                .map(|event| (event.event_type(), event.kv().unwrap().mod_revision())),
        );
        assert!(
            seen.last()
                .is_none_or(|(_, last)| response.header().unwrap().revision() >= *last)
        );
    }
    let want: Vec<_> = (1..=8)
        .map(|n| {
            (
                if n % 2 == 1 {
                    EventType::Delete
                } else {
                    EventType::Put
                },
                revision + n,
            )
        })
        .collect();
    assert_eq!(seen, want);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_from_compacted_history_is_cancelled_with_the_revision() {
    let rig = Rig::start().await;
    fill(&rig, 10);
    let mut admin = rig.client("admin-east").await;
    admin.compact(8, None).await.unwrap();
    let mut client = rig.client("remote").await;
    let watch = async |client: &mut etcd_client::Client, from| {
        let options = WatchOptions::new().with_prefix().with_start_revision(from);
        client.watch(IPS, Some(options)).await.unwrap()
    };
    let mut stream = watch(&mut client, 5).await;
    let response = stream.message().await.unwrap().unwrap();
    assert!(
        response.created() && !response.canceled(),
        "the acknowledgement comes first"
    );
    let response = stream.message().await.unwrap().unwrap();
    assert!(response.canceled() && response.compact_revision() == 8);
    assert!(
        response.header().unwrap().revision() == 11,
        "the header is full even here"
    );
    // From the compacted revision itself on everything is there.
    let mut stream = watch(&mut client, 8).await;
    assert!(stream.message().await.unwrap().unwrap().created());
    let response = stream.message().await.unwrap().unwrap();
    assert_eq!(response.events().len(), 4);
    let list = client
        .get(IPS, Some(GetOptions::new().with_prefix().with_revision(7)))
        .await;
    assert!(
        list.unwrap_err()
            .to_string()
            .contains("required revision has been compacted")
    );
}

/// Nodes, services and ips on one stream, as a mesh reader has them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_watches_share_a_stream() {
    let rig = Rig::start().await;
    let mut client = rig.client("remote").await;
    let prefix = || WatchOptions::new().with_prefix();
    let mut stream = client
        .watch("cilium/state/nodes/", Some(prefix().with_prev_key()))
        .await
        .unwrap();
    stream
        .watch("cilium/state/services/", Some(prefix()))
        .await
        .unwrap();
    stream.watch("cilium/cache/", Some(prefix())).await.unwrap();
    let mut ids = Vec::new();
    while ids.len() < 2 {
        let response = stream.message().await.unwrap().unwrap();
        assert!(
            response.created() && response.events().is_empty(),
            "the acknowledgement comes first"
        );
        ids.push(response.watch_id());
    }
    let refused = stream.message().await.unwrap().unwrap();
    assert!(
        refused.created() && refused.canceled(),
        "a peer may not watch the cache"
    );
    assert!(refused.cancel_reason().contains("etcdserver: permission denied"));

    rig.store.put(b"cilium/state/nodes/a", b"1", 0).unwrap();
    rig.store.put(b"cilium/state/services/b", b"2", 0).unwrap();
    rig.store.put(b"cilium/state/nodes/a", b"3", 0).unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let response = stream.message().await.unwrap().unwrap();
        for event in response.events() {
            let previous = event.prev_kv().map(|kv| kv.value().to_vec());
            seen.push((
                response.watch_id(),
                event.kv().unwrap().value().to_vec(),
                previous,
            ));
        }
    }
    seen.sort();
    let want = [
        (ids[0], b"1".to_vec(), None),
        (ids[0], b"3".to_vec(), Some(b"1".to_vec())),
        (ids[1], b"2".to_vec(), None),
    ];
    assert_eq!(seen, want);

    stream.request_progress().await.unwrap();
    let progress = stream.message().await.unwrap().unwrap();
    assert_eq!(
        (progress.watch_id(), progress.header().unwrap().revision()),
        (-1, 4)
    );
    stream.cancel(ids[0]).await.unwrap();
    let cancelled = stream.message().await.unwrap().unwrap();
    assert!(cancelled.canceled() && cancelled.watch_id() == ids[0]);
    rig.store.put(b"cilium/state/nodes/a", b"4", 0).unwrap();
    rig.store.put(b"cilium/state/services/b", b"5", 0).unwrap();
    let response = stream.message().await.unwrap().unwrap();
    assert_eq!(response.events()[0].kv().unwrap().value(), b"5");
}

/// The changes of one transaction, or of one lease that ends, arrive together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_is_never_split() {
    let rig = Rig::start().await;
    let mut client = rig.client("root").await;
    let mut stream = client
        .watch("t/", Some(WatchOptions::new().with_prefix()))
        .await
        .unwrap();
    assert!(stream.message().await.unwrap().unwrap().created());
    let lease = client.lease_grant(60, None).await.unwrap().id();
    let ops: Vec<_> = (0..100)
        .map(|n| {
            TxnOp::put(
                format!("t/{n}"),
                vec![0; 20_000],
                Some(PutOptions::new().with_lease(lease)),
            )
        })
        .collect();
    let txn = Txn::new()
        .when([Compare::version("t/0", CompareOp::Equal, 0)])
        .and_then(ops);
    assert!(client.txn(txn).await.unwrap().succeeded());
    let response = stream.message().await.unwrap().unwrap();
    assert_eq!(
        response.events().len(),
        100,
        "2 MB in one response, because it is one revision"
    );
    client.lease_revoke(lease).await.unwrap();
    let response = stream.message().await.unwrap().unwrap();
    assert_eq!(response.events().len(), 100);
    assert!(
        response
            .events()
            .iter()
            .all(|event| event.event_type() == EventType::Delete)
    );
}

/// A stranger's certificate, and none at all, get no further than the handshake, and that is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_counted() {
    let (rig, other) = (Rig::start().await, Rig::start().await);
    let foreign = other.pair("remote");
    std::fs::copy(&foreign.certificate, rig.dir.path().join("x.crt")).unwrap();
    let read = |path: &std::path::Path| std::fs::read(path).unwrap();
    let tls = etcd_client::TlsOptions::new()
        .ca_certificate(etcd_client::Certificate::from_pem(read(
            &rig.dir.path().join("ca.crt"),
        )))
        .identity(etcd_client::Identity::from_pem(
            read(&foreign.certificate),
            read(&foreign.key),
        ))
        .domain_name("east.mesh.cilium.io");
    let url = format!("https://{}", rig.server.address());
    let options = etcd_client::ConnectOptions::new().with_tls(tls);
    if let Ok(mut client) = etcd_client::Client::connect([url], Some(options)).await {
        client.get("cilium/cluster-config/east", None).await.unwrap_err();
    }
    // The client hears of it a moment before it is counted.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while rig.store.tls_failures().count == 0 && std::time::Instant::now() < deadline {
        tokio::task::yield_now().await;
    }
    let last = rig.store.tls_failures().last.unwrap();
    assert!(last.contains("invalid peer certificate"), "{last}");
}
