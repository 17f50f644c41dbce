//! Debian's `etcdctl` against the store of cluster `east`.
//!
//! ```text
//!   etcdctl (admin-east, remote-west, local-east) ── mutual TLS ── store
//! ```
//! Skips, and says so, where the package etcd-client is not installed.

mod rig;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use rig::{Rig, has};

const NODES: &str = "cilium/state/nodes/v1/east/";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_writing_and_old_revisions() {
    if !has("etcdctl", "etcd-client") {
        return;
    }
    let rig = Rig::start().await;
    for n in 1..=3 {
        assert_eq!(
            rig.ok("admin-east", &["put", &format!("{NODES}n{n}"), &format!("v{n}")])
                .await,
            "OK\n"
        );
    }
    assert_eq!(
        rig.ok("remote", &["get", &format!("{NODES}n2")]).await,
        format!("{NODES}n2\nv2\n")
    );
    let all = rig.ok("remote-west", &["get", "--prefix", NODES]).await;
    assert_eq!(all, format!("{NODES}n1\nv1\n{NODES}n2\nv2\n{NODES}n3\nv3\n"));
    let two = rig
        .ok(
            "remote",
            &["get", "--prefix", NODES, "--limit", "2", "--keys-only"],
        )
        .await;
    assert_eq!(two, format!("{NODES}n1\n\n{NODES}n2\n\n"));
    let last = rig
        .ok(
            "remote",
            &["get", "--prefix", NODES, "--order", "DESCEND", "--limit=1"],
        )
        .await;
    assert_eq!(last, format!("{NODES}n3\nv3\n"));

    rig.ok("admin-east", &["put", &format!("{NODES}n1"), "new"]).await;
    assert_eq!(rig.ok("admin-east", &["del", &format!("{NODES}n2")]).await, "1\n");
    // Revision 1 is the empty store, the puts made 2, 3 and 4.
    let then = rig.ok("remote", &["get", "--prefix", NODES, "--rev", "3"]).await;
    assert_eq!(then, format!("{NODES}n1\nv1\n{NODES}n2\nv2\n"));
    let now = rig
        .ok("remote", &["get", "--prefix", NODES, "--print-value-only"])
        .await;
    assert_eq!(now, "new\nv3\n");

    assert_eq!(
        rig.ok("admin-east", &["compact", "5"]).await,
        "compacted revision 5\n"
    );
    let gone = rig
        .refused("remote", &["get", "--prefix", NODES, "--rev", "3"])
        .await;
    assert!(
        gone.contains("etcdserver: mvcc: required revision has been compacted"),
        "{gone}"
    );
    let future = rig.refused("remote", &["get", NODES, "--rev", "99"]).await;
    assert!(
        future.contains("etcdserver: mvcc: required revision is a future revision"),
        "{future}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_common_name_has_its_role() {
    if !has("etcdctl", "etcd-client") {
        return;
    }
    let rig = Rig::start().await;
    let key = format!("{NODES}n1");
    for (name, args) in [
        ("remote", vec!["put", key.as_str(), "x"]),
        ("remote-west", vec!["put", &key, "x"]),
        ("local-east", vec!["put", &key, "x"]),
        ("admin-west", vec!["put", &key, "x"]),
        ("remote", vec!["del", &key]),
        ("remote", vec!["lease", "grant", "60"]),
        ("remote", vec!["compact", "1"]),
        ("remote", vec!["get", "cilium/cluster-config/west"]),
        ("remote", vec!["get", "--prefix", ""]),
        ("local-east", vec!["get", "--prefix", NODES]),
        ("local-west", vec!["get", "--prefix", "cilium/cache/"]),
        ("remote", vec!["user", "list"]),
    ] {
        let refusal = rig.refused(name, &args).await;
        assert!(
            refusal.contains("permission denied"),
            "{name} {args:?}: {refusal}"
        );
    }
    assert_eq!(rig.store.denied(), 12);
    rig.ok("admin-east", &["put", &key, "x"]).await;
    rig.ok("root", &["put", "anything", "y"]).await;
    assert_eq!(
        rig.ok("remote", &["get", &key, "--print-value-only"]).await,
        "x\n"
    );
    rig.ok("remote", &["get", "cilium/cluster-config/east"]).await;
    rig.ok("local-east", &["get", "--prefix", "cilium/cache/"]).await;

    assert_eq!(
        rig.ok("root", &["user", "list"]).await,
        "admin-east\nlocal-east\nremote\nroot\n"
    );
    assert_eq!(rig.ok("root", &["role", "list"]).await, "local\nremote\nroot\n");
    let role = rig.ok("root", &["role", "get", "remote"]).await;
    assert!(
        role.contains("[cilium/state/, cilium/state0)") && role.contains("cilium/cluster-config/east"),
        "{role}"
    );
    assert!(
        rig.ok("root", &["user", "get", "remote-west"])
            .await
            .contains("remote")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_hold_keys_until_they_end() {
    if !has("etcdctl", "etcd-client") {
        return;
    }
    let rig = Rig::start().await;
    let granted = rig.ok("admin-east", &["lease", "grant", "300"]).await;
    let id = granted.split_whitespace().nth(1).unwrap().to_owned();
    assert!(granted.contains("TTL(300s)"), "{granted}");
    rig.ok("admin-east", &["put", "--lease", &id, "a", "1"]).await;
    rig.ok("admin-east", &["put", "--lease", &id, "b", "2"]).await;
    let facts = rig
        .ok("admin-east", &["lease", "timetolive", &id, "--keys"])
        .await;
    assert!(
        facts.contains("granted with TTL(300s), remaining(") && facts.contains("[a b]"),
        "{facts}"
    );
    assert!(rig.ok("admin-east", &["lease", "list"]).await.contains(&id));
    let once = rig
        .ok("admin-east", &["lease", "keep-alive", "--once", &id])
        .await;
    assert!(once.contains("keepalived with TTL(300)"), "{once}");
    assert!(
        rig.ok("admin-east", &["lease", "revoke", &id])
            .await
            .contains("revoked")
    );
    assert_eq!(rig.ok("admin-east", &["get", "--prefix", ""]).await, "");
    let gone = rig
        .refused("admin-east", &["put", "--lease", &id, "a", "1"])
        .await;
    assert!(gone.contains("requested lease not found"), "{gone}");
    assert!(
        rig.ok("admin-east", &["lease", "timetolive", &id])
            .await
            .contains("already expired")
    );

    // A lease that nobody renews ends by itself.
    let short = rig.store.lease_grant(2).unwrap();
    rig.store.put(b"fleeting", b"x", short).unwrap();
    let mut bell = rig.store.changes();
    let ended = bell.wait_for(|_| rig.store.get(b"fleeting").is_none());
    tokio::time::timeout(Duration::from_secs(10), ended)
        .await
        .expect("ended in time")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_and_transactions() {
    if !has("etcdctl", "etcd-client") {
        return;
    }
    let rig = Rig::start().await;
    let status = rig.ok("remote", &["endpoint", "status", "-w", "json"]).await;
    let identity = rig.store.identity();
    assert!(
        status.contains(&format!("\"cluster_id\":{}", identity.cluster_id)),
        "{status}"
    );
    assert!(
        status.contains(&format!("\"leader\":{}", identity.member_id)),
        "{status}"
    );
    assert!(
        status.contains("\"revision\":1") && status.contains("\"raft_term\":2"),
        "{status}"
    );
    let members = rig.ok("remote", &["member", "list"]).await;
    assert!(
        members.contains("started") && members.contains(&rig.server.address().to_string()),
        "{members}"
    );

    let mut command = rig.etcdctl("admin-east");
    command.args(["txn"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let output = tokio::task::spawn_blocking(move || {
        use std::io::Write as _;
        let mut child = command.spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(b"create(\"k\") = \"0\"\n\nput k v\n\nget k\n\n")
            .unwrap();
        child.wait_with_output().unwrap()
    });
    let output = String::from_utf8(output.await.unwrap().stdout).unwrap();
    assert!(output.contains("SUCCESS") && output.contains("OK"), "{output}");
    assert_eq!(
        rig.ok("admin-east", &["get", "k", "--print-value-only"]).await,
        "v\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_follow_and_replay() {
    if !has("etcdctl", "etcd-client") {
        return;
    }
    let rig = Rig::start().await;
    let key = format!("{NODES}n1");
    rig.store.put(key.as_bytes(), b"one", 0).unwrap();
    let mut command = rig.etcdctl("remote");
    command
        .args(["watch", "--prefix", NODES, "--rev", "1"])
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (lines_in, lines) = mpsc::channel();
    let stdout = child.stdout.take().unwrap();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = lines_in.send(line);
        }
    });
    let expect = async |want: &[&str]| {
        for want in want {
            let line = lines
                .recv_timeout(Duration::from_secs(20))
                .expect("an event in time");
            assert_eq!(&line, want);
        }
    };
    expect(&["PUT", &key, "one"]).await;
    rig.store.put(key.as_bytes(), b"two", 0).unwrap();
    expect(&["PUT", &key, "two"]).await;
    rig.store
        .put(b"cilium/state/services/v1/x", b"elsewhere", 0)
        .unwrap();
    rig.store.delete(key.as_bytes()).unwrap();
    expect(&["DELETE", &key]).await;
    assert_eq!(
        rig.store
            .clients()
            .iter()
            .map(|client| client.watches)
            .sum::<u64>(),
        1
    );
    child.kill().unwrap();
    child.wait().unwrap();

    // A watch of keys that the role does not cover is refused, not silent.
    let refusal = rig
        .refused("remote", &["watch", "--prefix", "cilium/cache/"])
        .await;
    assert!(refusal.contains("permission denied"), "{refusal}");
}
