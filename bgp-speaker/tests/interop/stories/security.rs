//! TCP-MD5 and short hold times.
use isthmus_testkit::wait_until;

use super::{Stage, everything, ready, with_every_router};
use crate::routers::{Kind, Settings};
use crate::support::{PATIENCE, PeerSettings, beside_others};

const KEY: &str = "a-key-of-both";

with_every_router!(md5_and_a_hold_time_of_3_s);

/// ```text
///   node: key K, hold time 90  ----MD5(K)----  tor: key K, hold time 3      => a session with hold time 3 that stays
/// ```
fn md5_and_a_hold_time_of_3_s(kind: Kind) {
    let _others = beside_others();
    let settings = Settings {
        password: Some(KEY),
        hold_time: 3,
        ..Settings::default()
    };
    let peer = PeerSettings::default().with(&format!("password: {KEY}"));
    let stage = Stage::new(kind, settings, &peer);
    stage.wait_up();
    stage.wait_learnt("the router has all routes", &everything());
    let view = stage.speaker.peer().expect("a peer");
    assert_eq!(view.hold_time_seconds, Some(3));
    assert_eq!(stage.router.hold_time(), Some(3), "{}", stage.router.report());

    // Five keepalives at one a second are more than the hold time.
    let wanted = view.counters.messages_received + 5;
    wait_until(PATIENCE, "five keepalives came", || {
        stage
            .speaker
            .peer()
            .is_some_and(|peer| peer.counters.messages_received >= wanted)
    })
    .expect("keepalives");
    let view = stage.speaker.peer().expect("a peer");
    assert_eq!((view.established(), view.counters.flaps), (true, 0));
    assert!(stage.router.established());
}

/// ```text
///   node: key K  ----X----  tor: key L          => never a session; the right key in the file brings it up without a restart
/// ```
#[test]
fn a_wrong_key_is_no_session_until_it_is_corrected() {
    let kind = Kind::Frr;
    if !ready("a_wrong_key_is_no_session_until_it_is_corrected", kind) {
        return;
    }
    let _others = beside_others();
    let settings = Settings {
        password: Some(KEY),
        ..Settings::default()
    };
    let wrong = PeerSettings::default().with("password: another-key");
    let stage = Stage::new(kind, settings, &wrong);
    let state = || stage.speaker.peer().map(|peer| peer.session_state);
    wait_until(PATIENCE, "the speaker tries", || state().is_some()).expect("it runs");
    assert_ne!(state().as_deref(), Some("established"));
    stage
        .speaker
        .configure(&PeerSettings::default().with(&format!("password: {KEY}")));
    stage.wait_up();
    stage.wait_learnt("the router has all routes", &everything());
}

#[test]
fn both_families_and_md5_over_an_ipv6_session_with_frr() {
    both_families_and_md5_over_an_ipv6_session(Kind::Frr);
}

#[test]
fn both_families_and_md5_over_an_ipv6_session_with_bird() {
    both_families_and_md5_over_an_ipv6_session(Kind::Bird);
}

/// ```text
///   node fd00::1  ----MD5(K)----  tor fd00::254      IPv4 routes take the next hop 10.0.0.1 from the interface of the session
/// ```
fn both_families_and_md5_over_an_ipv6_session(kind: Kind) {
    if !ready("both_families_and_md5_over_an_ipv6_session", kind) {
        return;
    }
    let _others = beside_others();
    let settings = Settings {
        password: Some(KEY),
        over_ipv6: true,
        ..Settings::default()
    };
    let peer = PeerSettings::default()
        .over_ipv6()
        .with(&format!("password: {KEY}"));
    let stage = Stage::new(kind, settings, &peer);
    stage.wait_up();
    stage.wait_learnt("the router has all routes", &everything());
    let out: Vec<isthmus_admin::bgp::RouteView> =
        stage.speaker.read("/v1/routes?table=out").expect("answers");
    for route in out {
        let hop = if route.prefix.addr().is_ipv4() {
            "10.0.0.1"
        } else {
            "fd00::1"
        };
        assert_eq!(
            route.next_hop.map(|hop| hop.to_string()).as_deref(),
            Some(hop),
            "{route:?}"
        );
    }
}
