//! Two clusters, two nodes, real agents: packets, restarts, failures.
mod rig;

use std::io::Read;
use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use isthmus_datapath::Datapath;
use isthmus_netlink::Veth;
use isthmus_testkit::wait_for_async;
use nix::sys::signal::Signal;
use rig::{Outcome, Rig, SOON, Side, identity, possible};
use socket2::{Domain, Protocol, Socket, Type};

/// ETH_P_ALL in network order: all packets, both ways.
const ALL_PACKETS: i32 = 0x0300;

/// True if a datagram of `size` bytes comes back from the other side's pod.
fn reaches(from: &Side, to: &Side, v6: bool, size: usize) -> Outcome<bool> {
    let ip = to.pod_ip(v6);
    let server = to.pod.run(|| UdpSocket::bind((ip, 0)))??;
    server.set_read_timeout(Some(Duration::from_secs(2)))?;
    let own = from.pod_ip(v6);
    let client = from.pod.run(move || UdpSocket::bind((own, 0)))??;
    client.set_read_timeout(Some(Duration::from_secs(2)))?;
    let sent = client.send_to(&vec![0; size], server.local_addr()?).is_ok();
    let mut buffer = [0; 2048];
    let Some((length, peer)) = sent.then(|| server.recv_from(&mut buffer).ok()).flatten() else {
        return Ok(false);
    };
    server.send_to(&buffer[..length], peer)?;
    Ok(client.recv(&mut buffer).is_ok_and(|back| back == size))
}

/// The VNIs of the VXLAN packets that reach a node while something happens.
fn vnis(side: &Side, action: impl FnOnce() -> Outcome) -> Outcome<Vec<u32>> {
    let open = || Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ALL_PACKETS)));
    let mut socket = side.node.run(open)??;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    action()?;
    let (mut frame, mut found) = ([0; 4096], Vec::new());
    while let Ok(length) = socket.read(&mut frame) {
        // Ethernet 14, IPv4 20 (protocol 17), UDP 8 (port 8472), VXLAN: flags, then the VNI in bytes 4 to 6.
        let packet = &frame[..length];
        if length > 50
            && packet[12..14] == [8, 0]
            && packet[23] == 17
            && packet[36..38] == 8472_u16.to_be_bytes()
        {
            found.push(u32::from_be_bytes([0, packet[46], packet[47], packet[48]]));
        }
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_talk_over_the_overlay_and_the_vni_is_the_identity_of_the_source() -> Outcome {
    if !possible("pods_talk_over_the_overlay") {
        return Ok(());
    }
    let rig = Rig::new("vni")?;
    let (_east, _west) = (rig.east.agent()?, rig.west.agent()?);
    rig.east.wait("ready without a mesh", |s| s.ready).await?;
    assert!(!reaches(&rig.east, &rig.west, false, 10)?, "not meshed yet");
    rig.mesh()?;
    rig.east.wait_for_mesh().await?;
    rig.west.wait_for_mesh().await?;

    let seen = vnis(&rig.west, || {
        assert!(reaches(&rig.east, &rig.west, false, 10)?, "IPv4");
        assert!(reaches(&rig.east, &rig.west, true, 10)?, "IPv6");
        assert!(
            reaches(&rig.east, &rig.west, false, 1422)?,
            "a packet that fills the MTU"
        );
        Ok(())
    })?;
    for expected in [identity(1), identity(2)] {
        assert!(
            seen.contains(&expected),
            "request and answer carry the identity of their source: {seen:?}"
        );
    }
    let known = [identity(1), identity(2), 6];
    assert!(
        seen.iter().all(|vni| known.contains(vni)),
        "pods and remote-node (probes), nothing else: {seen:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_global_service_prefers_local_backends_and_fails_over_when_they_go() -> Outcome {
    if !possible("a_global_service_prefers_local_backends") {
        return Ok(());
    }
    let rig = Rig::new("svc")?;
    rig.mesh()?;
    let (_east, _west) = (rig.east.agent()?, rig.west.agent()?);
    rig.east.answer()?;
    rig.west.answer()?;
    rig.east.wait_for_mesh().await?;
    rig.west.wait_for_mesh().await?;
    assert_eq!(rig.east.ask(Side::ECHO)?, "east", "affinity local");

    // The kubelet of east reports its pod as not ready.
    let before = rig.east.status().await?.writes;
    let started = Instant::now();
    rig.east.write_endpoints(false)?;
    let after = rig
        .east
        .wait("the change is written", |s| {
            s.writes.map_entries > before.map_entries
        })
        .await?;
    let took = started.elapsed();
    println!(
        "manifest written → map written and seen in status: {took:?}; within the agent {} µs",
        after.writes.last_change_us
    );
    assert_eq!(rig.east.ask(Side::ECHO)?, "west");
    rig.east.write_endpoints(true)?;
    let back = || async { rig.east.ask(Side::ECHO).ok().filter(|who| who == "east") };
    wait_for_async(SOON, "the local backend is used again", back).await?;

    // East leaves the mesh: nothing of west is left, everything of east goes on.
    std::fs::remove_file(rig.east.config_of("west"))?;
    rig.east
        .wait("west is gone", |s| s.clusters.is_empty() && s.problems.is_empty())
        .await?;
    let tunnels: isthmus_admin::agent::TunnelView = rig.east.admin.read("/v1/tunnels").await?;
    assert_eq!(tunnels.routes, []);
    let table = rig.east.net.routes_in(7441)?;
    assert_eq!(table, [], "neither in the plan nor in the kernel");
    assert_eq!(rig.east.ask(Side::ECHO)?, "east");
    Ok(())
}

/// ```text
///  client 198.51.100.2 ── outside │ east node │ isthmus_vxlan ══▶ west node ── west pod
///        → 203.0.113.10:80          DNAT, and masquerade to 10.1.1.1 if the pod is elsewhere
/// ```
#[tokio::test(flavor = "multi_thread")]
async fn a_client_outside_reaches_pods_of_both_clusters_by_a_load_balancer_address() -> Outcome {
    if !possible("a_client_outside") {
        return Ok(());
    }
    let rig = Rig::new("edge")?;
    rig.mesh()?;
    let client = rig.east.client()?;
    let (_east, _west) = (rig.east.agent_with(&["--uplink", "outside"])?, rig.west.agent()?);
    rig.east.answer()?;
    rig.west.answer()?;
    rig.east.wait_for_mesh().await?;
    rig.west.wait_for_mesh().await?;
    assert_eq!(client.ask(Side::OUTSIDE)?, "east");
    assert_eq!(
        rig.east.ask(Side::OUTSIDE)?,
        "east",
        "pods use outside addresses too"
    );
    let before = rig.east.status().await?.writes.map_entries;
    rig.east.write_endpoints(false)?;
    let status = rig
        .east
        .wait("the change is written", |s| s.writes.map_entries > before)
        .await?;
    assert_eq!(status.problems, Vec::<String>::new());
    assert_eq!(
        client.ask(Side::OUTSIDE)?,
        "west",
        "masqueraded, so that the answer comes back this way"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_cut_off_is_avoided_within_half_a_second_and_used_again_after() -> Outcome {
    if !possible("a_cluster_that_is_cut_off") {
        return Ok(());
    }
    let rig = Rig::new("cut")?;
    rig.mesh()?;
    let (_east, _west) = (rig.east.agent()?, rig.west.agent()?);
    rig.east.wait_for_mesh().await?;
    for round in 1..=3 {
        rig.cut()?;
        let cut = Instant::now();
        let eligible = |wanted: bool| {
            let admin = &rig.east.admin;
            move || async move {
                let status: isthmus_admin::agent::AgentStatus = admin.read("/v1/status").await.ok()?;
                status
                    .clusters
                    .first()
                    .filter(|c| c.eligible == wanted)
                    .map(|_| Instant::now())
            }
        };
        let dead = wait_for_async(SOON, "west is avoided", eligible(false)).await?;
        let took = dead - cut;
        println!("round {round}: cut → avoided in {took:?}");
        assert!(took <= Duration::from_millis(500), "{took:?}");
        assert!(
            rig.east.status().await?.clusters[0].control.services > 0,
            "what it exported is kept"
        );
        rig.heal()?;
        let healed = Instant::now();
        let alive = wait_for_async(SOON, "west is used again", eligible(true)).await?;
        println!("round {round}: healed → used again in {:?}", alive - healed);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_loses_nothing_and_the_next_one_writes_nothing() -> Outcome {
    if !possible("a_killed_agent_loses_nothing") {
        return Ok(());
    }
    let rig = Rig::new("restart")?;
    rig.mesh()?;
    let mut east = rig.east.agent()?;
    let _west = rig.west.agent()?;
    rig.east.answer()?;
    rig.west.answer()?;
    rig.east.wait_for_mesh().await?;
    rig.west.wait_for_mesh().await?;
    for how in ["kill -9", "SIGTERM"] {
        if how == "SIGTERM" {
            east.signal(Signal::SIGTERM)?;
            let mut ended = || east.exited().ok().flatten();
            isthmus_testkit::wait_for(SOON, "the agent ends", &mut ended)?;
        } else {
            east.kill()?;
        }
        assert_eq!(
            rig.east.ask(Side::ECHO)?,
            "east",
            "new connections go on after {how}"
        );
        assert!(
            reaches(&rig.east, &rig.west, false, 10)?,
            "and so does the overlay"
        );
        east = rig.east.agent()?;
        let status = rig.east.wait_for_mesh().await?;
        let w = status.writes;
        assert_eq!(
            (w.map_entries, w.network, w.hooks, w.nft, w.sysctls),
            (0, 0, 0, 0, 0),
            "{how}: the next agent adopts everything\n{}",
            east.log()
        );
        assert_eq!(status.problems, Vec::<String>::new());
    }
    // The remote cluster is away while the agent restarts: what it had is kept, and its bit decides.
    rig.cut()?;
    east.kill()?;
    let east = rig.east.agent()?;
    let status = rig
        .east
        .wait("ready without the other cluster", |s| s.ready)
        .await?;
    assert_eq!(
        (status.writes.map_entries, status.writes.network),
        (0, 0),
        "{}",
        east.log()
    );
    Ok(())
}

/// Killed in the middle of its very first start, and of every later one.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_at_any_moment_leaves_a_node_that_the_next_one_completes() -> Outcome {
    if !possible("an_agent_that_is_killed_at_any_moment") {
        return Ok(());
    }
    let rig = Rig::new("crash")?;
    rig.mesh()?;
    rig.east.answer()?;
    rig.west.answer()?;
    let _west = rig.west.agent()?;
    for round in 0..16 {
        let mut east = rig.east.agent()?;
        tokio::time::sleep(Duration::from_millis(12 * round)).await;
        east.kill()?;
    }
    let mut east = rig.east.agent()?;
    let status = rig.east.wait_for_mesh().await?;
    assert_eq!(status.problems, Vec::<String>::new(), "{}", east.log());
    assert!(reaches(&rig.east, &rig.west, false, 1422)?);
    for round in 0..16 {
        east.kill()?;
        assert_eq!(rig.east.ask(Side::ECHO)?, "east", "round {round}");
        east = rig.east.agent()?;
        tokio::time::sleep(Duration::from_millis(12 * round)).await;
    }
    let w = rig.east.wait_for_mesh().await?.writes;
    assert_eq!(
        (w.map_entries, w.network, w.hooks, w.nft),
        (0, 0, 0, 0),
        "{}",
        east.log()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_break_is_mended() -> Outcome {
    if !possible("what_others_break_is_mended") {
        return Ok(());
    }
    let rig = Rig::new("mend")?;
    rig.mesh()?;
    let (_east, _west) = (rig.east.agent()?, rig.west.agent()?);
    rig.east.wait_for_mesh().await?;
    rig.west.wait_for_mesh().await?;
    // networkd removes foreign rules; somebody deletes the device.
    for break_it in [
        &["rule", "del", "pref", "5190"][..],
        &["link", "del", "isthmus_vxlan"],
    ] {
        let before = rig.east.status().await?.writes.network;
        assert!(rig.east.node.command("ip").args(break_it).status()?.success());
        rig.east
            .wait("the network is mended", |s| {
                s.writes.network > before && s.problems.is_empty()
            })
            .await?;
        let back = || async { reaches(&rig.east, &rig.west, false, 10).ok().filter(|ok| *ok) };
        wait_for_async(SOON, "pods talk again", back).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_gets_a_sentence_and_changes_nothing_that_runs() -> Outcome {
    if !possible("bad_input_gets_a_sentence") {
        return Ok(());
    }
    let rig = Rig::new("bad")?;
    let has = |part: &'static str| {
        move |s: &isthmus_admin::agent::AgentStatus| s.problems.iter().any(|p| p.contains(part))
    };
    // Another VXLAN device has the port.
    let vxlan = [
        "link", "add", "other0", "type", "vxlan", "external", "dstport", "8472",
    ];
    assert!(rig.east.node.command("ip").args(vxlan).status()?.success());
    assert!(
        rig.east
            .node
            .command("ip")
            .args(["link", "set", "other0", "up"])
            .status()?
            .success()
    );
    let _east = rig.east.agent()?;
    rig.east
        .wait(
            "the port is taken",
            has("belongs to the VXLAN device other0 already: remove it"),
        )
        .await?;
    assert!(
        rig.east
            .node
            .command("ip")
            .args(["link", "del", "other0"])
            .status()?
            .success()
    );
    rig.east
        .wait("it goes on by itself", |s| s.ready && s.problems.is_empty())
        .await?;

    let _west = rig.west.agent()?;
    rig.mesh()?;
    rig.east.wait_for_mesh().await?;
    rig.west.wait_for_mesh().await?;
    // West claims a prefix of east; everything else of west works.
    let node = rig
        .west
        .node_value(&[rig.west.cidr(false), rig::net("10.1.1.128/25")]);
    let key = format!("cilium/state/nodes/v1/west/{}", rig.west.node_name());
    rig.west
        .store
        .put(key.as_bytes(), node.to_string().as_bytes(), 0)?;
    rig.east
        .wait(
            "the overlap",
            has("10.1.1.128/25 of west/west-1 overlaps 10.1.1.0/24 of east/east-1 and is not used"),
        )
        .await?;
    assert!(reaches(&rig.east, &rig.west, false, 10)?);
    let node = rig.west.node_value(&[rig.west.cidr(false)]);
    rig.west
        .store
        .put(key.as_bytes(), node.to_string().as_bytes(), 0)?;
    // Somebody loses the manifest of this node: its overlay stays.
    let node = std::fs::read(rig.east.manifest_path("node"))?;
    std::fs::remove_file(rig.east.manifest_path("node"))?;
    rig.east
        .wait("this node is not in the manifests", |s| {
            s.waiting_for.iter().any(|w| w.contains("none at all"))
        })
        .await?;
    assert!(reaches(&rig.east, &rig.west, false, 10)?);
    std::fs::write(rig.east.manifest_path("node"), node)?;
    rig.east
        .wait("the node is back", |s| s.ready && s.problems.is_empty())
        .await?;
    // A broken manifest is named with its file; the last good version stays.
    std::fs::write(rig.east.manifest_path("service"), "kind: Service\nmetadata: [")?;
    rig.east.wait("the broken manifest", has("service.yaml")).await?;
    rig.west.answer()?;
    rig.east.answer()?;
    assert_eq!(rig.east.ask(Side::ECHO)?, "east");
    rig.east.write_manifests(true)?;
    rig.east
        .wait("all is well again", |s| s.problems.is_empty())
        .await?;
    Ok(())
}

/// ```text
///  east ══ west-1 10.2.1.0/24   answers
///       ══ west-2 10.2.2.0/24   exported, but nothing is there
/// ```
#[tokio::test(flavor = "multi_thread")]
async fn backends_on_a_node_that_does_not_answer_get_no_connections() -> Outcome {
    if !possible("backends_on_a_node_that_does_not_answer") {
        return Ok(());
    }
    let rig = Rig::new("node")?;
    rig.east.write_endpoints(false)?;
    rig.mesh()?;
    let (_east, _west) = (rig.east.agent()?, rig.west.agent()?);
    rig.west.answer()?;
    rig.east.wait_for_mesh().await?;
    rig.west.wait_for_mesh().await?;
    rig.west.export_dead_node()?;
    let named = |s: &isthmus_admin::agent::AgentStatus| {
        s.problems
            .iter()
            .any(|p| p.contains("node west/west-2 (10.2.2.1) does not answer probes"))
    };
    let status = rig.east.wait("the dead node is named", named).await?;
    assert!(status.clusters[0].eligible, "its cluster is alive");
    let left_out = || async {
        let services: Vec<isthmus_admin::agent::ServiceView> =
            rig.east.admin.read("/v1/services").await.ok()?;
        let groups = services.iter().flat_map(|s| &s.frontends).flat_map(|f| &f.groups);
        let unused: Vec<String> = groups
            .flat_map(|g| &g.backends)
            .filter(|b| !b.used)
            .map(|b| b.ip.to_string())
            .collect();
        (!unused.is_empty() && unused.iter().all(|ip| ip == "10.2.2.10")).then_some(())
    };
    wait_for_async(SOON, "its backend is left out", left_out).await?;
    for _ in 0..20 {
        assert_eq!(rig.east.ask(Side::ECHO)?, "west");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_our_own_id_is_refused() -> Outcome {
    if !possible("a_cluster_with_our_own_id") {
        return Ok(());
    }
    let rig = Rig::new("ids")?;
    let config = r#"{"id":1,"capabilities":{"syncedCanaries":true,"maxConnectedClusters":255}}"#;
    rig.west
        .store
        .put(b"cilium/cluster-config/west", config.as_bytes(), 0)?;
    rig.mesh()?;
    let _east = rig.east.agent()?;
    let told = |s: &isthmus_admin::agent::AgentStatus| {
        s.problems
            .iter()
            .any(|p| p.contains("cluster west") && p.contains("id 1"))
    };
    let status = rig.east.wait("the equal id is named", told).await?;
    println!("{:?}", status.problems);
    assert!(status.ready, "this node does its job all the same");
    assert_eq!(status.clusters[0].id, 0);
    assert!(!status.clusters[0].eligible);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_flags_and_a_missing_node_are_explained() -> Outcome {
    if !possible("wrong_flags") {
        return Ok(());
    }
    let refused = |args: &[&str]| -> Outcome<String> {
        let base = [
            "--cluster-name",
            "east",
            "--manifests",
            "/nonexistent",
            "--node-name",
            "n",
        ];
        let output = Command::new(env!("CARGO_BIN_EXE_isthmus-agent"))
            .args(base)
            .args(args)
            .output()?;
        assert!(!output.status.success());
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let said = refused(&["--cluster-id", "300"])?;
    assert!(
        said.contains("use 1 to 255") && said.lines().count() == 1,
        "one sentence: {said}"
    );
    assert!(refused(&["--cluster-id", "1", "--max-connected-clusters", "300"])?.contains("use 255 or 511"));
    assert!(refused(&["--cluster-id", "1", "--probe-interval", "1h"])?.contains("100ms or 2s"));

    let rig = Rig::new("flags")?;
    let _agent = rig.east.agent_with(&["--uplink", "nothing0"])?;
    let problem = |s: &isthmus_admin::agent::AgentStatus| {
        s.ready
            && s.problems
                .iter()
                .any(|p| p.contains("uplink nothing0 does not exist"))
    };
    rig.east.wait("the uplink is named", problem).await?;
    rig.east.net.add_veth(&Veth::new("nothing0", "nothing1"))?;
    rig.east
        .wait("the uplink has come", |s| s.ready && s.problems.is_empty())
        .await?;
    let again = rig.east.agent_with(&[])?;
    let said = || {
        again
            .log()
            .contains("another daemon already listens there")
            .then_some(())
    };
    isthmus_testkit::wait_for(SOON, "a second agent is refused", said)?;
    std::fs::remove_file(rig.east.manifest_path("node"))?;
    let status = rig.east.wait("the node is missing", |s| !s.ready).await?;
    assert!(
        status.waiting_for[0].contains("node east-1 in the manifests (they have none at all)"),
        "{status:?}"
    );
    assert!(
        Datapath::inspect(&rig.east.pins())?.is_some(),
        "the data path stays"
    );
    Ok(())
}
