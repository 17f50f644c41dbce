//! Graceful restart stories (RFC 4724, RFC 8538).
//!
//! ```text
//!  A (AS 65001, 10.1.0.0/16, 10.9.0.0/16) ──── B (AS 65002, helper) ──── C (AS 65003, watches)
//! ```
//! A restarts in many ways. What B keeps is seen at B (a star marks stale routes); that C notices nothing is what it is for.
mod sim;

use isthmus_bgp_engine::{GracefulRestart, Input, Notice, Output, Restarting, State, Stop};
use isthmus_bgp_packet::{Family, write};
use sim::{MS, SECOND, Sim, peer_id};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

fn restart(notification: bool) -> Option<GracefulRestart> {
    Some(GracefulRestart {
        restart_time: 20,
        notification,
        ..GracefulRestart::default()
    })
}

fn line(notification: bool) -> Sim {
    let mut sim = Sim::new();
    let (a, b, c) = (sim.node(65001), sim.node(65002), sim.node(65003));
    sim.originate(a, &["10.1.0.0/16", "10.9.0.0/16"]);
    sim.join(a, b, |_, config| {
        config.graceful_restart = restart(notification);
        config.hold_time = 9;
    });
    sim.join(b, c, |_, _| {});
    sim.run_until(SECOND, "the routes at C", |sim| sim.table(C).len() == 2);
    sim
}

fn updates_at_c(sim: &Sim) -> u64 {
    sim.view(C, B).counters.updates_in
}

const FRESH: [&str; 2] = [
    "10.1.0.0/16 via 192.0.2.1 [65001]",
    "10.9.0.0/16 via 192.0.2.1 [65001]",
];
const STALE: [&str; 2] = [
    "10.1.0.0/16* via 192.0.2.1 [65001]",
    "10.9.0.0/16* via 192.0.2.1 [65001]",
];

#[test]
fn a_daemon_that_restarts_loses_nothing() {
    let mut sim = line(true);
    let before = updates_at_c(&sim);
    sim.crash(A, true);
    sim.run_for(5 * SECOND);
    assert_eq!(sim.table(B), STALE);
    sim.start(A, Some(Restarting::default()));
    assert!(sim.speaker(A).is_restarting());
    sim.run_until(3 * SECOND, "fresh routes", |sim| sim.table(B) == FRESH);
    sim.run_for(30 * SECOND);
    assert_eq!(sim.table(B), FRESH);
    assert_eq!(updates_at_c(&sim), before, "C heard nothing of it");
    let view = sim.view(B, A);
    assert!(view.families.iter().all(|family| family.stale == 0));
}

#[test]
fn what_the_peer_lost_while_it_was_away_is_swept_at_end_of_rib() {
    let mut sim = line(true);
    sim.crash(A, true);
    sim.run_for(SECOND);
    sim.nodes[A].routes.remove(&"10.9.0.0/16".parse().unwrap());
    sim.start(A, Some(Restarting::default()));
    sim.run_until(3 * SECOND, "swept", |sim| sim.table(B) == FRESH[..1]);
    sim.run_until(SECOND, "C too", |sim| sim.table(C).len() == 1);
    let swept = sim.nodes[B].log.iter().find_map(|(_, output)| match output {
        Output::Notice {
            notice: Notice::StaleRemoved { family, routes },
            ..
        } => Some((*family, *routes)),
        _ => None,
    });
    assert_eq!(swept, Some((Family::Ipv4Unicast, 1)));
}

#[test]
fn a_peer_that_stays_away_loses_its_routes_after_the_restart_time() {
    let mut sim = line(true);
    sim.crash(A, true);
    sim.run_for(19 * SECOND);
    assert_eq!(sim.table(B), STALE);
    let start = sim.now;
    sim.run_until(2 * SECOND, "removed", |sim| sim.table(B).is_empty());
    assert!(sim.now - start > 900 * MS);
    sim.run_until(SECOND, "C too", |sim| sim.table(C).is_empty());
}

/// A reboot: the peer comes back, but its F bits say that it forwarded nothing meanwhile.
#[test]
fn a_peer_that_did_not_forward_loses_its_routes_when_it_is_back() {
    let mut sim = line(true);
    sim.crash(A, true);
    sim.run_for(2 * SECOND);
    assert_eq!(sim.table(B), STALE);
    sim.originate_later(A, &[]);
    sim.start(A, None);
    sim.run_until(3 * SECOND, "session", |sim| sim.is_up(A, B));
    assert!(sim.table(B).is_empty());
}

/// Power cut and quick boot: B still believes in the old session when A connects again and says that it restarted.
#[test]
fn a_new_connection_of_a_restarted_peer_replaces_the_old_session() {
    let mut sim = line(true);
    let before = updates_at_c(&sim);
    sim.crash(A, false);
    sim.run_for(1500 * MS);
    assert_eq!(sim.view(B, A).state, State::Established, "nobody has told B");
    sim.start(A, Some(Restarting::default()));
    sim.run_until(2 * SECOND, "new session", |sim| {
        sim.is_up(A, B) && sim.table(B) == FRESH
    });
    sim.run_for(20 * SECOND);
    assert!(sim.is_up(A, B));
    assert_eq!((sim.flaps(B), updates_at_c(&sim)), (1, before));
}

/// The link fails for longer than the hold time. Without the N bit the NOTIFICATION costs the routes; with it they are kept.
#[test]
fn hold_timer_with_and_without_the_n_bit() {
    for notification in [false, true] {
        let mut sim = line(notification);
        sim.cut(A, B);
        sim.run_until(12 * SECOND, "session lost", |sim| {
            sim.view(B, A).state != State::Established
        });
        sim.run_for(SECOND);
        if notification {
            assert_eq!(sim.table(B), STALE);
            sim.heal(A, B);
            sim.run_until(15 * SECOND, "fresh again", |sim| sim.table(B) == FRESH);
        } else {
            assert!(sim.table(B).is_empty());
        }
    }
}

/// Shutting down for good must not leave stale routes, so the Cease is wrapped in a Hard Reset.
#[test]
fn a_shutdown_for_good_is_a_hard_reset() {
    let mut sim = line(true);
    let now = sim.now;
    sim.speaker(A).stop(now, Stop::Shutdown("decommissioned".into()));
    sim.outputs(A);
    sim.run_until(SECOND, "removed", |sim| sim.table(B).is_empty());
    let error = sim.view(B, A).last_error.unwrap();
    assert_eq!(
        error,
        "received Hard Reset (6/9): Administrative Shutdown (6/2): decommissioned"
    );
}

/// Stopping to come back: no NOTIFICATION, so even a helper without the N bit keeps the routes.
#[test]
fn a_stop_for_a_restart_keeps_the_routes() {
    let mut sim = line(false);
    let now = sim.now;
    sim.speaker(A).stop(now, Stop::Restart);
    sim.outputs(A);
    sim.run_for(SECOND);
    assert_eq!(sim.table(B), STALE);
}

/// A second failure before the routes were refreshed: what was stale then is removed (RFC 4724 §4.2).
#[test]
fn stale_routes_do_not_survive_a_second_failure() {
    let mut sim = line(true);
    sim.crash(A, true);
    sim.run_for(SECOND);
    // A comes back restarting with another peer that it waits for, so it sends nothing, and dies again.
    sim.nodes[A].peers.insert(peer_id(C), {
        let mut config = isthmus_bgp_engine::PeerConfig::new(sim::address(C), 65003);
        config.graceful_restart = restart(true);
        config
    });
    sim.start(A, Some(Restarting::default()));
    sim.run_until(3 * SECOND, "session", |sim| sim.is_up(A, B));
    assert_eq!(sim.table(B), STALE);
    sim.crash(A, true);
    sim.run_until(SECOND, "removed", |sim| sim.table(B).is_empty());
}

/// A restarting speaker with two peers sends nothing before both have told it everything, or the deferral is over.
#[test]
fn a_restarting_speaker_waits_for_its_peers_but_not_for_ever() {
    for both in [true, false] {
        let mut sim = Sim::new();
        let (a, b, c) = (sim.node(65001), sim.node(65002), sim.node(65003));
        sim.originate(a, &["10.1.0.0/16"]);
        sim.join(a, b, |_, config| config.graceful_restart = restart(true));
        sim.join(a, c, |_, config| config.graceful_restart = restart(true));
        if !both {
            sim.crash(c, false);
        }
        sim.crash(a, true);
        sim.start(a, Some(Restarting::default()));
        let start = sim.now;
        sim.run_until(12 * SECOND, "routes at B", |sim| sim.table(1).len() == 1);
        let took = sim.now - start;
        if both {
            assert!(took < 2 * SECOND, "{took:?}");
        } else {
            assert!((10 * SECOND..11 * SECOND).contains(&took), "{took:?}");
        }
        assert!(!sim.speaker(a).is_restarting());
    }
}

/// Peers without graceful restart are not waited for, or a speaker whose peers have none would always be late.
#[test]
fn peers_without_graceful_restart_are_not_waited_for() {
    let mut sim = Sim::new();
    let (a, b) = (sim.node(65001), sim.node(65002));
    sim.originate(a, &["10.1.0.0/16"]);
    sim.join(a, b, |node, config| {
        config.graceful_restart = if node == a { restart(true) } else { None };
    });
    sim.crash(a, true);
    sim.start(a, Some(Restarting::default()));
    sim.run_until(3 * SECOND, "routes at B", |sim| sim.table(1).len() == 1);
}

/// The peer is back and its routes stay stale since its End-of-RIB never comes: they are swept when the stale time is over.
#[test]
fn an_end_of_rib_that_never_comes() {
    let mut sim = line(true);
    sim.nodes[B].peers.get_mut(&peer_id(A)).unwrap().graceful_restart = Some(GracefulRestart {
        max_stale: 30 * SECOND,
        ..restart(true).unwrap()
    });
    sim.apply_peers(B);
    sim.run_for(SECOND);
    sim.crash(A, true);
    sim.run_for(SECOND);
    // A restarts, waits itself for a peer that does not come, and is made to wait for ever.
    sim.nodes[A].peers.insert(peer_id(C), {
        let mut config = isthmus_bgp_engine::PeerConfig::new(sim::address(C), 65003);
        config.graceful_restart = restart(true);
        config
    });
    sim.start(
        A,
        Some(Restarting {
            deferral: 3600 * SECOND,
        }),
    );
    sim.run_until(3 * SECOND, "session", |sim| sim.is_up(A, B));
    sim.run_for(29 * SECOND);
    assert_eq!(sim.table(B), STALE);
    sim.run_for(2 * SECOND);
    assert!(sim.table(B).is_empty() && sim.is_up(A, B));
}

/// End-of-RIB of one family does not sweep the other.
#[test]
fn families_are_swept_one_by_one() {
    let mut sim = line(true);
    let mut eor = Vec::new();
    write::end_of_rib(&mut eor, Family::Ipv6Unicast);
    sim.crash(A, true);
    sim.run_for(SECOND);
    sim.start(
        A,
        Some(Restarting {
            deferral: 3600 * SECOND,
        }),
    );
    sim.nodes[A].peers.get_mut(&peer_id(B)).unwrap().passive = true;
    sim.run_until(3 * SECOND, "session", |sim| {
        sim.view(B, A).state == State::Established
    });
    sim.inject(A, B, &eor);
    let v4 = |sim: &Sim| sim.table(B).iter().any(|line| line.starts_with("10.9"));
    assert!(v4(&sim));
}

/// Inputs for connections that are gone are ignored.
#[test]
fn late_inputs_are_ignored() {
    let mut sim = line(true);
    let now = sim.now;
    for conn in 0..20 {
        let conn = isthmus_bgp_engine::ConnId(1000 + conn);
        sim.speaker(B).handle_input(
            now,
            Input::Received {
                conn,
                bytes: &[0; 40],
            },
        );
        sim.speaker(B)
            .handle_input(now, Input::Closed { conn, error: "late" });
    }
    sim.run_for(SECOND);
    assert!(sim.is_up(A, B) && sim.is_up(B, C));
}

/// A peer that comes late, after we have ended our deferral: its routes must not be lost for want of R and F bits.
#[test]
fn a_late_peer_learns_that_we_forwarded() {
    let mut sim = line(true);
    sim.crash(A, true);
    sim.cut(A, B);
    sim.start(A, Some(Restarting { deferral: 2 * SECOND }));
    sim.run_for(5 * SECOND);
    assert!(!sim.speaker(A).is_restarting());
    assert_eq!(sim.table(B), FRESH, "B has not heard of it yet");
    sim.heal(A, B);
    let before = updates_at_c(&sim);
    sim.run_until(12 * SECOND, "fresh", |sim| {
        sim.is_up(A, B) && sim.table(B) == FRESH
    });
    sim.run_for(SECOND);
    assert_eq!(updates_at_c(&sim), before, "C heard nothing of it");
}

/// Two speakers restart at once. Each would wait for the other; the R bits tell them not to (RFC 4724 §4.1).
#[test]
fn two_that_restart_at_once_do_not_wait_for_each_other() {
    let mut sim = line(true);
    sim.nodes[B].peers.remove(&peer_id(C));
    sim.crash(A, true);
    sim.crash(B, true);
    for node in [A, B] {
        sim.start(node, Some(Restarting::default()));
    }
    sim.run_until(2 * SECOND, "routes at B", |sim| sim.table(B) == FRESH);
}
