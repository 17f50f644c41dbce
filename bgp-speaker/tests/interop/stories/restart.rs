//! Restarts of either side.
//!
//! ```text
//!   time  ----->   kill -9      start        session      End-of-RIB
//!   node  ---------X            o------------+------------+---------
//!   tor   routes   stale, in use             refreshed    (nothing left to sweep)
//! ```
use std::collections::BTreeSet;

use isthmus_testkit::wait_until;

use super::{Stage, everything, ready, with_every_router};
use crate::routers::{Kind, Settings};
use crate::support::{Cluster, Link, PATIENCE, PeerSettings, Speaker, beside_others};

with_every_router!(the_router_restarts);

fn graceful() -> (Settings, PeerSettings) {
    let settings = Settings {
        graceful: true,
        ..Settings::default()
    };
    let peer = PeerSettings::default().with("gracefulRestart: {enabled: true, restartTimeSeconds: 60}");
    (settings, peer)
}

#[test]
fn frr_keeps_our_routes_over_a_kill() {
    if ready("frr_keeps_our_routes_over_a_kill", Kind::Frr) {
        routes_survive(Kind::Frr, |stage| stage.speaker.kill());
    }
}

#[test]
fn bird_keeps_our_routes_over_a_kill() {
    if ready("bird_keeps_our_routes_over_a_kill", Kind::Bird) {
        routes_survive(Kind::Bird, |stage| stage.speaker.kill());
    }
}

#[test]
fn gobgp_keeps_our_routes_over_a_kill() {
    if ready("gobgp_keeps_our_routes_over_a_kill", Kind::Gobgp) {
        routes_survive(Kind::Gobgp, |stage| stage.speaker.kill());
    }
}

#[test]
fn our_own_router_keeps_our_routes_over_a_kill() {
    if ready("our_own_router_keeps_our_routes_over_a_kill", Kind::Own) {
        routes_survive(Kind::Own, |stage| stage.speaker.kill());
    }
}

#[test]
fn frr_keeps_our_routes_over_a_polite_restart() {
    if ready("frr_keeps_our_routes_over_a_polite_restart", Kind::Frr) {
        routes_survive(Kind::Frr, |stage| stage.speaker.terminate());
    }
}

/// From the end of our process until the new one has sent its whole table, the router has every route at every look.
fn routes_survive(kind: Kind, end: impl FnOnce(&mut Stage)) {
    let _others = beside_others();
    let (settings, peer) = graceful();
    let mut stage = Stage::new(kind, settings, &peer);
    stage.wait_up();
    stage.wait_learnt("the router has all routes", &everything());
    wait_until(PATIENCE, "graceful restart is agreed on", || {
        stage.speaker.peer().is_some_and(|peer| peer.graceful_restart)
    })
    .expect("both offer it");

    let all: BTreeSet<String> = everything().into_iter().map(str::to_owned).collect();
    end(&mut stage);
    wait_until(PATIENCE, "the router sees that we are gone", || {
        assert_eq!(stage.router.learnt(), all, "while we are away");
        !stage.router.established()
    })
    .expect("it sees it");
    stage.speaker.restart(&stage.link.node);
    wait_until(PATIENCE, "the router has a session again", || {
        assert_eq!(stage.router.learnt(), all, "while we come back");
        stage.router.established() && stage.speaker.established()
    })
    .expect("a session");
    let sent_all = || {
        let peer = stage.speaker.peer().expect("a peer");
        peer.families.iter().all(|family| family.advertised == 2)
    };
    wait_until(PATIENCE, "our whole table is sent", sent_all).expect("sent");
    for _ in 0..20 {
        assert_eq!(stage.router.learnt(), all, "after we came back");
    }
}

#[test]
fn frr_drops_what_died_while_we_were_away() {
    what_died_while_we_were_away_is_dropped(Kind::Frr);
}

#[test]
fn bird_drops_what_died_while_we_were_away() {
    what_died_while_we_were_away_is_dropped(Kind::Bird);
}

/// The last backend dies between `kill -9` and the next start: our first table is complete, its End-of-RIB sweeps the rest.
fn what_died_while_we_were_away_is_dropped(kind: Kind) {
    if !ready("what_died_while_we_were_away_is_dropped", kind) {
        return;
    }
    let _others = beside_others();
    let (settings, peer) = graceful();
    let mut stage = Stage::new(kind, settings, &peer);
    stage.wait_up();
    stage.wait_learnt("the router has all routes", &everything());
    stage.speaker.kill();
    stage.speaker.cluster.set_backends(&[]);
    stage.speaker.restart(&stage.link.node);
    stage.wait_up();
    stage.wait_learnt("only the pod CIDRs are left", &Cluster::PODS);
}

/// An operator who takes the node out of service says so: the routes go at once, although graceful restart is on.
#[test]
fn an_administrative_shutdown_withdraws_at_once() {
    let kind = Kind::Frr;
    if !ready("an_administrative_shutdown_withdraws_at_once", kind) {
        return;
    }
    let _others = beside_others();
    let (settings, peer) = graceful();
    let mut stage = Stage::new(kind, settings, &peer);
    stage.wait_up();
    stage.wait_learnt("the router has all routes", &everything());
    stage
        .speaker
        .act("/v1/shutdown?text=disk%20is%20replaced")
        .expect("taken");
    stage.wait_learnt("nothing is left", &[]);
    let report = stage.router.report();
    assert!(
        report.contains("Administrative Shutdown") || report.contains("disk is replaced"),
        "{report}"
    );
    let process = stage.speaker.process();
    wait_until(PATIENCE, "the daemon has ended", || {
        process.exited().expect("our child").is_some()
    })
    .expect("ended");
}

/// The same for the end of a process whose flags say that it will not come back.
#[test]
fn an_end_with_shutdown_withdraw_withdraws_at_once() {
    let kind = Kind::Bird;
    if !ready("an_end_with_shutdown_withdraw_withdraws_at_once", kind) {
        return;
    }
    let _others = beside_others();
    let (settings, peer) = graceful();
    let link = Link::new();
    let router = kind.start(&link.tor, settings);
    let mut speaker = Speaker::prepare(&peer, true);
    speaker.withdraw_at_the_end();
    speaker.restart(&link.node);
    let mut stage = Stage {
        speaker,
        router,
        link,
    };
    stage.wait_up();
    stage.wait_learnt("the router has all routes", &everything());
    stage.speaker.terminate();
    let gone = || stage.router.learnt().is_empty();
    wait_until(PATIENCE, "nothing is left", gone).expect("withdrawn");
}

/// The router's process dies and comes back: a new session with the whole table, without help.
fn the_router_restarts(kind: Kind) {
    let _others = beside_others();
    let stage = Stage::new(kind, Settings::default(), &PeerSettings::default());
    stage.wait_up();
    stage.wait_learnt("the router has all routes", &everything());
    let Stage {
        speaker,
        router,
        link,
    } = stage;
    drop(router);
    wait_until(PATIENCE, "we see that the router is gone", || {
        !speaker.established()
    })
    .expect("seen");
    let error = speaker.peer().expect("a peer").last_error;
    assert!(error.is_some(), "the reason is shown");
    let router = kind.start(&link.tor, Settings::default());
    let stage = Stage {
        speaker,
        router,
        link,
    };
    stage.wait_up();
    stage.wait_learnt("the new router has all routes", &everything());
    let counters = stage.speaker.peer().expect("a peer").counters;
    assert_eq!((counters.flaps, counters.established), (1, 2));
}
