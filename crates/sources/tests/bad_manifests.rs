//! What bad manifests get: a message that names file, line, cause and cure, and what was good before stays.
mod rig;

use rig::{Rig, node, service};

fn joined(parts: &[String]) -> String {
    parts.join("---\n")
}

#[tokio::test]
async fn a_broken_file_is_reported_and_its_last_good_objects_stay() {
    let good = joined(&[service("web", "10.96.0.1"), service("db", "10.96.0.2")]);
    let mut rig = Rig::with(&[("services.yaml", &good)]).await;
    assert_eq!(rig.source.snapshot().services.len(), 2);
    let before = rig.source.snapshot();

    // The second document loses its bracket; the first one changes.
    rig.write(
        "services.yaml",
        &good.replace("10.96.0.1", "10.96.0.9").replacen(
            "demo}\nspec:\n  clusterIP: 10.96.0.2",
            "demo\nspec:\n  clusterIP: 10.96.0.2",
            1,
        ),
    );
    rig.until("a problem", |s| !s.problems.is_empty()).await;
    let now = rig.source.snapshot();
    assert!(
        rig.problems()[0].starts_with("services.yaml:11:"),
        "{:?}",
        rig.problems()
    );
    assert_eq!(now.services.len(), 2, "db stays");
    let ip = |s: &isthmus_sources::Snapshot, name: &str| {
        let service = s
            .services
            .values()
            .find(|s| s.name.name == name)
            .expect("the service");
        service.cluster_ips[0].to_string()
    };
    assert_eq!(
        (ip(&now, "web"), ip(&now, "db")),
        ("10.96.0.9".into(), "10.96.0.2".into())
    );
    assert!(!now.partial, "the file has been good before");
    let since = now.problems[0].since;

    rig.write("services.yaml", &good);
    rig.until("no problem", |s| s.problems.is_empty()).await;
    assert_eq!(ip(&rig.source.snapshot(), "web"), "10.96.0.1");
    assert!(since <= jiff::Timestamp::now() && before.revision < now.revision);
}

#[tokio::test]
async fn a_file_that_was_never_good_makes_the_snapshot_partial() {
    let mut rig = Rig::with(&[("a.yaml", &service("web", "10.96.0.1")), ("b.yaml", "kind: [")]).await;
    let snapshot = rig.source.snapshot();
    assert!(snapshot.complete && snapshot.partial);
    assert_eq!(snapshot.services.len(), 1);
    rig.write("b.yaml", &service("db", "10.96.0.2"));
    rig.until("both", |s| s.services.len() == 2 && !s.partial).await;
}

#[tokio::test]
async fn unknown_fields_are_named_with_what_was_probably_meant() {
    let text = "# two documents\napiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  lables: {a: b}\nspec:\n  ports:\n  \
                - port: 80\n    targetport: 8080\n---\n"
        .to_owned()
        + &service("db", "10.96.0.2");
    let cilium = "apiVersion: cilium.io/v2\nkind: CiliumNode\nmetadata: {name: n}\nspec: {ipam: {podCidrs: [10.1.0.0/24]}}\n";
    let rig = Rig::with(&[("svc.yaml", &text), ("node.yaml", cilium)]).await;
    assert_eq!(
        rig.problems(),
        [
            "node.yaml:4:15: spec.ipam.podCidrs: unknown field, did you mean \"podCIDRs\"?",
            "svc.yaml:6:3: metadata.lables: unknown field, did you mean \"labels\"?",
            "svc.yaml:10:5: spec.ports[0].targetport: unknown field, did you mean \"targetPort\"?",
        ]
    );
    let names: Vec<_> = rig
        .source
        .snapshot()
        .services
        .keys()
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, ["demo/db"], "the other document of the file is read");
}

/// ```text
///   east-1  10.1.0.0/24   stays
///   east-2  10.1.0.0/24   refused, named with east-1
///   east-3  10.1.0.0/16   overlaps: refused
/// ```
#[tokio::test]
async fn one_pod_cidr_belongs_to_one_node() {
    let mut rig = Rig::with(&[("1.yaml", &node("east-2", "192.0.2.2", "10.1.0.0/24"))]).await;
    rig.write("2.yaml", &node("east-1", "192.0.2.1", "10.1.0.0/24"));
    rig.write("3.yaml", &node("east-3", "192.0.2.3", "10.1.0.0/16"));
    rig.until("two conflicts", |s| s.problems.len() == 2).await;
    assert_eq!(
        rig.problems(),
        [
            "2.yaml:1: nodes east-2 and east-1 both have pod CIDR 10.1.0.0/24: it stays with east-2; give east-1 another",
            "3.yaml:1: pod CIDR 10.1.0.0/16 of node east-3 overlaps 10.1.0.0/24 of node east-2, which keeps it; give \
             east-3 another",
        ]
    );
    let snapshot = rig.source.snapshot();
    let cidrs: Vec<_> = snapshot
        .nodes
        .values()
        .map(|n| (n.name.to_string(), n.pod_cidrs.len()))
        .collect();
    assert_eq!(
        cidrs,
        [("east-1".into(), 0), ("east-2".into(), 1), ("east-3".into(), 0)]
    );

    std::fs::remove_file(rig.path("1.yaml")).expect("removed");
    rig.until("east-1 has it", |s| {
        s.nodes
            .values()
            .any(|n| n.name.as_str() == "east-1" && n.pod_cidrs.len() == 1)
    })
    .await;
}

#[tokio::test]
async fn an_object_in_two_files_counts_once_and_the_other_waits() {
    let mut rig = Rig::with(&[
        ("a.yaml", &service("web", "10.96.0.1")),
        ("b.yaml", &service("web", "10.96.0.2")),
    ])
    .await;
    let problems = rig.problems();
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].starts_with("b.yaml:1: Service demo/web is also in "),
        "{problems:?}"
    );
    assert!(
        problems[0].ends_with("a.yaml:1, which counts: remove one of them"),
        "{problems:?}"
    );
    std::fs::remove_file(rig.path("a.yaml")).expect("removed");
    rig.until("the other one counts", |s| {
        s.problems.is_empty()
            && s.services
                .values()
                .any(|s| s.cluster_ips[0].to_string() == "10.96.0.2")
    })
    .await;

    rig.write(
        "b.yaml",
        &joined(&[service("web", "10.96.0.3"), service("web", "10.96.0.4")]),
    );
    rig.until("a double", |s| !s.problems.is_empty()).await;
    assert_eq!(
        rig.problems(),
        ["b.yaml:8: Service demo/web is in this file twice; the one of line 1 counts: remove one of them"]
    );
}

#[tokio::test]
async fn addresses_and_numbers_are_checked_where_they_stand() {
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, namespace: demo}\naddressType: IPv4\n\
                 endpoints:\n- addresses: [10.1.0.1]\n- addresses: [\"fd00::1\"]\n";
    let identity =
        "apiVersion: cilium.io/v2\nkind: CiliumIdentity\nmetadata: {name: \"132001\"}\nsecurity-labels: {}\n";
    let rig = Rig::with(&[
        ("a.yaml", &node("n", "192.0.2.300", "10.1.0.0/24")),
        ("b.yaml", &node("m", "192.0.2.3", "10.1.0.0/33")),
        ("c.yaml", slice),
        (
            "d.yaml",
            &service("web", "10.96.0.1").replace("port: 80", "port: 80000"),
        ),
        ("e.yaml", identity),
        ("f.yaml", "just text\n"),
        ("g.yaml", "a: b\n"),
    ])
    .await;
    let problems = rig.problems();
    let expected = [
        "a.yaml:5:41: status.addresses[0].address: \"192.0.2.300\" is not an IP address",
        "b.yaml:4:19: spec.podCIDRs[0]: \"10.1.0.0/33\" is not a CIDR: write it as 10.1.0.0/24 or fd00::/64",
        "c.yaml:7:15: endpoints[1].addresses[0]: fd00::1 is not IPv4, the slice's addressType",
        "d.yaml:6:24: spec.ports[0].port: 80000 is not a port: write 1 to 65535",
        "e.yaml:3:12: metadata.name: identity 132001 is outside 65536 to 131071, the range of cluster east (id 1)",
    ];
    assert_eq!(problems[..5], expected);
    assert!(problems[5].starts_with("f.yaml:1:"), "{problems:?}");
    assert_eq!(
        problems[6],
        "g.yaml:1:1: not a Kubernetes object: apiVersion or kind is missing"
    );
}

#[tokio::test]
async fn other_kinds_are_kept_or_noted() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: demo}\nspec: {anything: 1}\n---\n\
                apiVersion: cilium.io/v2\nkind: CiliumBGPPeerConfig\nmetadata: {name: tor}\nspec: {timers: {holdTimeSeconds: 9}}\n\
                ---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: demo}\n";
    let rig = Rig::with(&[
        ("all.yaml", text),
        ("notes.txt", "not a manifest"),
        (".hidden.yaml", "["),
    ])
    .await;
    let snapshot = rig.source.snapshot();
    assert!(snapshot.problems.is_empty(), "{:?}", snapshot.problems);
    assert_eq!(snapshot.raw.len(), 1);
    assert_eq!(snapshot.raw[0].json["spec"]["timers"]["holdTimeSeconds"], 9);
    assert_eq!(
        (snapshot.raw[0].line, snapshot.raw[0].kind.as_str()),
        (6, "CiliumBGPPeerConfig")
    );
    let ignored: Vec<_> = snapshot
        .ignored
        .iter()
        .map(|i| (i.kind.as_str(), i.name.as_str(), i.line))
        .collect();
    assert_eq!(
        ignored,
        [("Deployment", "demo/web", 1), ("ConfigMap", "demo/c", 11)]
    );
}
