//! The whole product in one run: `lab up`, `connect`, the demo, the listings, `disconnect`, `lab down`. The demo's steps are
//! judged here by what must hold on a busy machine too: that nothing is lost that must not be. Its time limits are
//! judged by `make lab`, on a machine that does nothing else.
mod rig;

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
