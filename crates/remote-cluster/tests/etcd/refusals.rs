//! What is refused, and what is said about it.
use crate::rig::{Etcd, Node, Outcome, possible};
use crate::{IP, WEB, clustera, recorded, rig};

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
