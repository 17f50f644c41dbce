//! Each row: what is wrong with the pair, and what the report must say.
use std::path::Path;

use isthmus_admin::apiserver::StoreView;
use isthmus_trust::{LeafRequest, ServerNames, Validity};

use super::*;
use crate::connect::write;

fn now() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().expect("time")
}

fn cluster(name: &str, id: u32) -> ClusterFile {
    ClusterFile {
        name: name.into(),
        id,
        max_connected_clusters: 255,
        pod_cidrs: vec![format!("10.{id}.0.0/16").parse().expect("CIDR")],
        endpoints: vec![format!("https://172.30.{id}.2:2379")],
        nodes: vec![format!("{name}-1")],
    }
}

/// A cluster's directory with certificates that were made at `made` for a year.
fn context(root: &Path, cluster: ClusterFile, made: Timestamp) -> Context {
    let dir = root.join(&cluster.name);
    std::fs::create_dir_all(dir.join("pki")).expect("directory");
    let context = Context { dir, cluster };
    let validity = Validity::days(made, 365);
    let authority = Authority::create(&format!("CA {}", context.name()), validity).expect("authority");
    authority
        .save(&context.pki("ca.crt"), &context.pki("ca.key"))
        .expect("saved");
    let ips = context
        .cluster
        .endpoints
        .iter()
        .filter_map(|e| host(e)?.parse().ok())
        .collect();
    let names = ServerNames {
        ips,
        ..ServerNames::default()
    };
    let request = LeafRequest::server(&names, validity).expect("request");
    let files = PairFiles::new(context.pki("server.crt"), context.pki("server.key"));
    authority
        .issue(&request)
        .and_then(|pair| pair.save(&files))
        .expect("issued");
    context
}

fn answers(context: &Context) -> Result<ApiserverStatus, String> {
    let version = if context.name() == "old" { "0.3.9" } else { "0.1.0" };
    Ok(ApiserverStatus {
        cluster_name: context.name().to_owned(),
        cluster_id: if context.name() == "liar" {
            77
        } else {
            context.cluster.id
        },
        max_connected_clusters: 255,
        version: version.into(),
        ready: true,
        waiting_for: Vec::new(),
        started_at: String::new(),
        resources: Vec::new(),
        store: StoreView {
            listen: ([127, 0, 0, 1], 2379).into(),
            cluster_id: "1".into(),
            revision: 1,
            compacted: 0,
            keys: 0,
            bytes: 0,
            leases: 0,
            watches: 0,
            denied: 0,
            tls_failures: 0,
            last_tls_failure: None,
            heartbeat_at: None,
        },
        clients: Vec::new(),
        certificate: isthmus_admin::apiserver::CertificateView {
            common_name: String::new(),
            names: Vec::new(),
            issuer: String::new(),
            not_after: String::new(),
            fingerprint: String::new(),
        },
        authorities: Vec::new(),
        certificate_fault: None,
        manifest_errors: Vec::new(),
    })
}

fn found(pair: &[Context; 2]) -> Vec<(bool, String)> {
    let report = check(pair, &[], now(), &answers);
    report.findings.iter().map(|f| (f.bad, f.to_string())).collect()
}

#[test]
fn two_good_clusters_have_no_findings() {
    let dir = tempfile::tempdir().expect("directory");
    let made = |c| context(dir.path(), c, now());
    let report = check(
        &[made(cluster("east", 1)), made(cluster("west", 2))],
        &[],
        now(),
        &answers,
    );
    assert_eq!(report.findings, []);
    assert!(report.checks >= 14, "{}", report.checks);
    assert_eq!(
        report.title,
        "east (id 1, 10.1.0.0/16) ↔ west (id 2, 10.2.0.0/16)"
    );
}

/// | the other cluster                    | finding                                     | stops |
#[test]
fn everything_that_is_wrong_is_found_with_its_cause() {
    type Spoil = fn(&mut ClusterFile);
    let rows: [(&str, Spoil, &str, bool); 9] = [
        ("the same id", |c| c.id = 1, "east and west both have id 1", true),
        ("id out of range", |c| c.id = 256, "west: ", true),
        ("id zero", |c| c.id = 0, "west: ", true),
        (
            "odd maximum",
            |c| c.max_connected_clusters = 300,
            "maxConnectedClusters is 300",
            true,
        ),
        (
            "other maximum",
            |c| c.max_connected_clusters = 511,
            "maxConnectedClusters is 255 in east and 511 in west",
            true,
        ),
        (
            "overlap",
            |c| c.pod_cidrs.push("10.1.128.0/17".parse().expect("CIDR")),
            "pod CIDRs overlap: 10.1.0.0/16 of east and 10.1.128.0/17",
            true,
        ),
        (
            "no endpoint",
            |c| c.endpoints.clear(),
            "west names no endpoint",
            true,
        ),
        (
            "odd endpoint",
            |c| c.endpoints = vec!["etcd.example:2379".into()],
            "is no https URL",
            true,
        ),
        (
            "other version",
            |c| c.name = "old".into(),
            "east runs 0.1.0 and old runs 0.3.9",
            false,
        ),
    ];
    for (row, spoil, text, stops) in rows {
        let dir = tempfile::tempdir().expect("directory");
        let mut west = cluster("west", 2);
        spoil(&mut west);
        let pair = [
            context(dir.path(), cluster("east", 1), now()),
            context(dir.path(), west, now()),
        ];
        let found = found(&pair);
        assert!(
            found.iter().any(|(bad, f)| f.contains(text) && *bad == stops),
            "{row}: {found:?}"
        );
    }
}

#[test]
fn a_cluster_is_not_joined_to_itself_nor_to_one_that_another_daemon_serves() {
    let dir = tempfile::tempdir().expect("directory");
    let east = context(dir.path(), cluster("east", 1), now());
    assert!(
        found(&[east.clone(), east.clone()])
            .iter()
            .any(|(_, f)| f.contains("both clusters are called east"))
    );
    let liar = context(dir.path(), cluster("liar", 2), now());
    assert!(
        found(&[east, liar])
            .iter()
            .any(|(bad, f)| *bad && f.contains("exports liar (id 77)"))
    );
}

#[test]
fn expired_foreign_and_misnamed_certificates_are_found() {
    let dir = tempfile::tempdir().expect("directory");
    let east = context(dir.path(), cluster("east", 1), now());
    let expired = context(
        dir.path(),
        cluster("west", 2),
        "2024-01-01T00:00:00Z".parse().expect("time"),
    );
    let said = found(&[east.clone(), expired]);
    assert_eq!(
        said.iter().filter(|(bad, f)| *bad && f.contains("west")).count(),
        2,
        "{said:?}"
    );

    let soon = context(
        dir.path(),
        cluster("soon", 3),
        "2025-11-25T00:00:00Z".parse().expect("time"),
    );
    assert!(
        found(&[east.clone(), soon])
            .iter()
            .all(|(bad, f)| !bad && f.contains("expires in"))
    );

    // A server certificate that another authority has issued.
    let foreign = context(dir.path(), cluster("foreign", 4), now());
    for file in ["server.crt", "server.key"] {
        std::fs::copy(east.pki(file), foreign.pki(file)).expect("copied");
    }
    assert!(
        found(&[east.clone(), foreign])
            .iter()
            .any(|(bad, f)| *bad && f.contains("server certificate of foreign"))
    );

    let mut moved = context(dir.path(), cluster("moved", 5), now());
    moved.cluster.endpoints = vec!["https://198.51.100.7:2379".into()];
    let said = found(&[east, moved]);
    assert!(
        said.iter()
            .any(|(bad, f)| *bad && f.contains("does not name 198.51.100.7")),
        "{said:?}"
    );
}

#[test]
fn writing_twice_changes_nothing_and_removing_leaves_nothing() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let east = context(dir.path(), cluster("east", 1), now());
    let west = context(dir.path(), cluster("west", 2), now());
    let first = write::write(&east, &west, now())?;
    assert!(first.changed);
    assert!((360..=366).contains(&first.days), "{}", first.days);
    let config = std::fs::read_to_string(east.clustermesh().join("west"))?;
    assert!(
        config.contains("endpoints:") && config.contains("https://172.30.2.2:2379"),
        "{config}"
    );
    let pair = Pair::load(&PairFiles::new(
        east.clustermesh().join("west.etcd-client.crt"),
        east.clustermesh().join("west.etcd-client.key"),
    ))?;
    assert_eq!(pair.facts().common_name, "remote-east");
    pair.check(&CaBundle::load(&west.pki("ca.crt"))?, now())?;

    assert!(!write::write(&east, &west, now())?.changed);
    assert!(write::remove(&east, &west)?);
    assert!(!write::remove(&east, &west)?);
    assert_eq!(std::fs::read_dir(east.clustermesh())?.count(), 0);
    Ok(())
}
