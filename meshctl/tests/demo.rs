//! The whole product in one run: `lab up`, `connect`, the demo, the listings, `disconnect`, `lab down`. The demo's steps are
//! judged here by what must hold on a busy machine too: that nothing is lost that must not be. Its time limits are
//! judged by `make lab`, on a machine that does nothing else.
mod rig;

use isthmus_testkit::{Need, needs};
use rig::{LabGuard, can_make_labs, has_daemons, meshctl};
use serde_json::Value;

#[test]
fn the_demo_holds_and_the_listings_agree() {
    const NAME: &str = "the_demo_holds_and_the_listings_agree";
    if !can_make_labs(NAME) || !has_daemons(NAME) {
        return;
    }
    let lab = LabGuard::new("g");
    let up = lab.lab("up", &[]);
    assert_eq!(up.code, 0, "{}", up.err);
    let list = |args: &[&str]| -> (i32, Value) {
        let run = meshctl(&[args, &["--lab", &lab.name, "-o", "json"]].concat());
        (
            run.code,
            serde_json::from_str(&run.out).unwrap_or_else(|e| panic!("{e}: {}{}", run.out, run.err)),
        )
    };

    let dry = meshctl(&["connect", "east", "west", "--lab", &lab.name, "--dry-run"]);
    assert!(
        dry.out.contains("dry run: nothing was changed"),
        "{}{}",
        dry.out,
        dry.err
    );
    assert!(!lab.root().join("east/clustermesh/west").exists());
    for (round, said) in [
        (1, "connected east ⇄ west"),
        (2, "already connected, nothing was changed"),
    ] {
        let run = meshctl(&["connect", "east", "west", "--lab", &lab.name]);
        assert_eq!(run.code, 0, "{}", run.err);
        assert!(run.err.contains(said), "round {round}: {}", run.err);
    }
    let waited = meshctl(&["status", "--lab", &lab.name, "--wait", "--timeout", "20"]);
    assert_eq!(waited.code, 0, "{}{}", waited.out, waited.err);

    let (code, services) = list(&["services"]);
    assert_eq!(
        (code, services["items"].as_array().map(Vec::len)),
        (0, Some(2)),
        "{services}"
    );
    let (code, nodes) = list(&["nodes"]);
    assert_eq!(
        (code, nodes["items"].as_array().map(Vec::len)),
        (0, Some(4)),
        "{nodes}"
    );
    let (code, peers) = list(&["bgp", "peers"]);
    assert_eq!(
        (code, peers["items"].as_array().map(Vec::len)),
        (0, Some(4)),
        "{peers}"
    );
    let (_, out) = list(&["bgp", "routes", "out"]);
    assert!(out.to_string().contains("203.0.113.10/32"), "{out}");

    // The same clusters, reached as directories.
    let dir = lab.root().display().to_string();
    let by_dir = meshctl(&["services", "--context-dir", &dir, "-o", "json"]);
    assert_eq!(
        serde_json::from_str::<Value>(&by_dir.out).ok(),
        Some(services),
        "{}",
        by_dir.err
    );
    let again = meshctl(&["connect", "east", &format!("{dir}/west"), "--context-dir", &dir]);
    assert!(again.err.contains("nothing was changed"), "{}", again.err);

    let demo = lab.lab("demo", &["-o", "json"]);
    let steps: Value =
        serde_json::from_str(&demo.out).unwrap_or_else(|e| panic!("{e}: {}{}", demo.out, demo.err));
    let steps = steps["items"].as_array().expect("steps");
    let names: Vec<&str> = steps.iter().filter_map(|s| s["step"].as_str()).collect();
    let all = [
        "lab", "bgp", "connect", "global", "affinity", "failover", "cut", "anycast", "restart",
    ];
    assert_eq!(names, all, "{}", demo.err);
    for step in steps
        .iter()
        .filter(|s| matches!(s["step"].as_str(), Some("global" | "affinity" | "restart")))
    {
        assert_eq!(step["held"], true, "{step}");
    }
    assert_eq!(
        demo.code,
        if steps.iter().all(|s| s["held"] == true) {
            0
        } else {
            2
        }
    );

    let killed = lab.lab("break", &["agent:west-1"]);
    assert_eq!(killed.code, 0, "{}", killed.err);
    for format in ["table", "wide", "json", "yaml"] {
        let status = meshctl(&["status", "--lab", &lab.name, "-o", format]);
        assert_eq!(status.code, 2, "degraded in {format}: {}", status.out);
    }
    assert_eq!(lab.lab("heal", &["agent:west-1"]).code, 0);

    let parted = meshctl(&["disconnect", "east", "west", "--lab", &lab.name]);
    assert_eq!(parted.code, 0, "{}", parted.err);
    let (_, services) = list(&["services"]);
    assert!(
        !services["items"][0]["backends"].to_string().contains("west"),
        "{services}"
    );
    let down = lab.lab("down", &[]);
    assert_eq!(down.code, 0, "{}", down.err);
    assert_eq!(lab.traces(), Vec::<String>::new());
}

/// FRR, BIRD and our own speaker as the router: each learns the address of the service from all four nodes (`lab up` waits for
/// that), and a joining that does not come about in time says what it waited for.
#[test]
fn every_router_learns_the_address_from_every_node() {
    const NAME: &str = "every_router_learns_the_address_from_every_node";
    if !can_make_labs(NAME) || !has_daemons(NAME) {
        return;
    }
    for (tor, program, package) in [
        ("frr", "vtysh", "frr"),
        ("bird", "bird", "bird2"),
        ("self", "sh", "dash"),
    ] {
        let need = Need::Program {
            name: program,
            package,
        };
        if !needs(&format!("{NAME} ({tor})"), &[need]) {
            continue;
        }
        let lab = LabGuard::new(tor);
        let up = lab.lab("up", &["--tor", tor]);
        assert_eq!(up.code, 0, "{tor}: {}", up.err);
        assert!(
            up.err.contains(&format!("4 sessions established, router {tor}")),
            "{}",
            up.err
        );
        let peers = meshctl(&["bgp", "peers", "--lab", &lab.name]);
        assert_eq!(peers.code, 0, "{}{}", peers.out, peers.err);

        assert_eq!(lab.lab("break", &["cluster:west"]).code, 0);
        let late = meshctl(&["connect", "east", "west", "--lab", &lab.name, "--timeout", "1"]);
        assert_eq!(late.code, 5, "{}", late.err);
        for said in ["are not joined in time", "waited in vain for", "may still join"] {
            assert!(late.err.contains(said), "{said}: {}", late.err);
        }
        assert_eq!(lab.lab("heal", &["cluster:west"]).code, 0);
        let joined = meshctl(&["status", "--lab", &lab.name, "--wait", "--timeout", "30"]);
        assert_eq!(joined.code, 0, "it joins by itself: {}{}", joined.out, joined.err);
        assert_eq!(lab.lab("down", &[]).code, 0);
        assert_eq!(lab.traces(), Vec::<String>::new());
    }
}
