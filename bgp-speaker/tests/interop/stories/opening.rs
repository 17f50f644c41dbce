//! How sessions are opened, and what happens when they cannot be.
use std::process::Command;

use isthmus_testkit::{Need, needs, wait_until};

use super::{Stage, everything, ready, with_every_router};
use crate::routers::{Kind, Settings};
use crate::support::{Link, PATIENCE, PeerSettings, Speaker, beside_others};

with_every_router!(
    only_the_router_dials,
    only_we_dial,
    the_router_expects_another_as,
    both_dial_many_times
);

/// ```text
///   node (passive) <---- connect ---- tor
/// ```
fn only_the_router_dials(kind: Kind) {
    let _others = beside_others();
    let link = Link::new();
    let speaker = Speaker::start(&link, &PeerSettings::default().with("passive: true"));
    let ready = || speaker.text("/readyz").is_ok();
    wait_until(PATIENCE, "our listener is open before the router dials", ready).expect("ready");
    let router = kind.start(&link.tor, Settings::default());
    let stage = Stage {
        speaker,
        router,
        link,
    };
    stage.wait_up();
    stage.wait_learnt("the router has all routes", &everything());
    let local = stage.speaker.peer().expect("a peer").local_address;
    assert_eq!(
        local.map(|local| local.port()),
        Some(179),
        "it came to our listener"
    );
}

/// ```text
///   node (no listener) ---- connect ----> tor (passive)
/// ```
fn only_we_dial(kind: Kind) {
    let _others = beside_others();
    let link = Link::new();
    let settings = Settings {
        passive: true,
        ..Settings::default()
    };
    let router = kind.start(&link.tor, settings);
    let speaker = Speaker::prepare(&PeerSettings::default(), false).run(&link.node);
    let stage = Stage {
        speaker,
        router,
        link,
    };
    stage.wait_up();
    stage.wait_learnt("the router has all routes", &everything());
}

/// ```text
///   node 65001  <---- connect ---->  tor, which expects 64999       => OPEN Message Error/Bad Peer AS from it, told in words
/// ```
fn the_router_expects_another_as(kind: Kind) {
    let _others = beside_others();
    let settings = Settings {
        node_as: 64999,
        ..Settings::default()
    };
    let stage = Stage::new(kind, settings, &PeerSettings::default());
    let error = || stage.speaker.peer().and_then(|peer| peer.last_error);
    let told = || error().is_some_and(|text| text.contains("Bad Peer AS"));
    wait_until(PATIENCE, "the reason is told", told)
        .unwrap_or_else(|timeout| panic!("{timeout}: {:?}\n{}", error(), stage.router.report()));
    assert!(!stage.speaker.established());
}

/// Both sides dial at the same moment, again and again: exactly one connection survives each time (RFC 4271 §6.8).
fn both_dial_many_times(kind: Kind) {
    let _others = beside_others();
    let stage = Stage::new(kind, Settings::default(), &PeerSettings::default());
    // OpenBGPD lies low for half a minute after two resets in a row.
    let rounds = if kind == Kind::Openbgpd { 1 } else { 3 };
    for round in 1..=rounds {
        stage.wait_up();
        stage.wait_learnt("the router has all routes", &everything());
        let counters = stage.speaker.peer().expect("a peer").counters;
        assert_eq!(counters.established, round, "{counters:?}");
        stage.speaker.act("/v1/peers/reset?peer=tor").expect("it can");
        wait_until(PATIENCE, "the session is reset", || {
            stage
                .speaker
                .peer()
                .is_some_and(|peer| peer.counters.flaps == round)
        })
        .expect("reset");
    }
}

/// Settings that are not part of the OPEN change nothing of the session; the hold time is part of it.
#[test]
fn only_negotiated_values_reset_a_session() {
    let kind = Kind::Bird;
    if !ready("only_negotiated_values_reset_a_session", kind) {
        return;
    }
    let _others = beside_others();
    let stage = Stage::new(kind, Settings::default(), &PeerSettings::default());
    stage.wait_up();
    let theirs = || stage.speaker.prefixes("in").len();
    wait_until(PATIENCE, "the router's routes are in use", || theirs() == 2).expect("two");
    stage
        .speaker
        .configure(&PeerSettings::default().with("import: reject"));
    wait_until(PATIENCE, "they are rejected", || theirs() == 0).expect("none");
    assert_eq!(stage.speaker.peer().expect("a peer").counters.established, 1);

    stage
        .speaker
        .configure(&PeerSettings::default().with("holdTimeSeconds: 30"));
    let again = || {
        let peer = stage.speaker.peer().expect("a peer");
        peer.established() && peer.counters.established == 2 && peer.hold_time_seconds == Some(30)
    };
    wait_until(PATIENCE, "a new session has the new hold time", again).expect("a new session");
    stage.wait_learnt("the router has all routes", &everything());
}

/// ```text
///   node: a first daemon listens on port 179; a second one starts        => one sentence with cause and cure, exit code 1
/// ```
#[test]
fn a_port_in_use_is_one_sentence() {
    let kind = Kind::Bird;
    if !ready("a_port_in_use_is_one_sentence", kind) {
        return;
    }
    let _others = beside_others();
    let link = Link::new();
    let mut first = Speaker::start(&link, &PeerSettings::default());
    wait_until(PATIENCE, "the first one runs", || {
        first.text("/readyz").is_ok() || first.process().exited().is_ok_and(|end| end.is_some())
    })
    .expect("it runs");
    let mut second = Speaker::start(&link, &PeerSettings::default());
    let process = second.process();
    let end = isthmus_testkit::wait_for(PATIENCE, "the second one ends", || {
        process.exited().expect("our child")
    });
    assert_eq!(end.expect("ended").code(), Some(1));
    let said = process.log();
    let sentence = said
        .lines()
        .find(|line| line.starts_with("bgp-speaker: "))
        .expect("a sentence");
    assert!(
        sentence.contains("port 179 of 0.0.0.0 is in use: another BGP daemon listens there"),
        "{sentence}"
    );
    assert!(sentence.contains("choose another listen.port"), "{sentence}");
    assert!(first.text("/readyz").is_ok(), "the first one runs on");
}

/// ```text
///   node: a daemon without CAP_NET_BIND_SERVICE wants port 179        => one sentence with cause and cure, exit code 1
/// ```
#[test]
fn a_privileged_port_without_the_privilege_is_one_sentence() {
    let setpriv = Need::Program {
        name: "setpriv",
        package: "util-linux",
    };
    let story = "a_privileged_port_without_the_privilege_is_one_sentence";
    if !needs(story, &[Need::Root, setpriv]) {
        return;
    }
    let _others = beside_others();
    let link = Link::new();
    let mut speaker = Speaker::prepare(&PeerSettings::default(), true);
    speaker.restart_under(&link.node, &["setpriv", "--bounding-set", "-net_bind_service"]);
    let process = speaker.process();
    let end = isthmus_testkit::wait_for(PATIENCE, "it ends", || process.exited().expect("our child"));
    assert_eq!(end.expect("ended").code(), Some(1));
    let said = process.log();
    let sentence = "port 179 of 0.0.0.0 needs the capability CAP_NET_BIND_SERVICE: run as root, or choose a listen.port above 1023";
    assert!(said.contains(sentence), "{said}");
}

/// A configuration that cannot be used never starts a daemon, and never stops one.
#[test]
fn a_bad_configuration_is_refused_and_the_last_good_stays() {
    let kind = Kind::Bird;
    if !ready("a_bad_configuration_is_refused_and_the_last_good_stays", kind) {
        return;
    }
    let _others = beside_others();
    let mut stage = Stage::new(kind, Settings::default(), &PeerSettings::default());
    stage.wait_up();
    stage
        .speaker
        .configure(&PeerSettings::default().with("holdTimeSecond: 3"));
    let sentence = "speaker.yaml:8: unknown key \"holdTimeSecond\", did you mean \"holdTimeSeconds\"?";
    let process = stage.speaker.process();
    wait_until(PATIENCE, "the log says what is wrong", || {
        process.log().contains("did you mean")
    })
    .expect("told");
    assert!(process.log().contains(sentence), "{}", process.log());
    assert!(stage.speaker.established(), "the session stays");

    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("speaker.yaml");
    std::fs::write(&config, "localASN: 0\n").expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_bgp-speaker"))
        .args(["--node-name", "node-1", "--manifests"])
        .arg(dir.path())
        .arg("--config")
        .arg(&config)
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(":1: localASN is 0"), "{said}");
}
