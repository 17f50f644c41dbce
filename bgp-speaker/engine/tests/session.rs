//! Sessions between two speakers in virtual time: opening, collisions, failures, damping.
mod sim;

use std::time::Duration;

use isthmus_bgp_engine::{AdminState, DownReason, Output, Recipients, State, Stop};
use isthmus_bgp_packet::Family;
use sim::{MS, SECOND, Sim, peer_id};

/// ```text
///  A (AS 65001, 10.1.0.0/16) ──── B (AS 65002, 2001:db8:2::/48)
/// ```
fn pair() -> Sim {
    let mut sim = Sim::new();
    let (a, b) = (sim.node(65001), sim.node(65002));
    sim.originate(a, &["10.1.0.0/16"]);
    sim.originate(b, &["10.2.0.0/16"]);
    sim.join(a, b, |_, _| {});
    sim
}

#[test]
fn two_speakers_exchange_their_routes_within_a_few_round_trips() {
    let mut sim = pair();
    sim.run_until(SECOND, "both tables", |sim| {
        sim.table(0).len() == 2 && sim.table(1).len() == 2
    });
    assert!(sim.now < 20 * MS, "{:?}", sim.now);
    sim.run_for(10 * MS);
    assert_eq!(
        sim.table(0),
        ["10.1.0.0/16 via local []", "10.2.0.0/16 via 192.0.2.2 [65002]"]
    );
    assert_eq!(
        sim.table(1),
        ["10.1.0.0/16 via 192.0.2.1 [65001]", "10.2.0.0/16 via local []"]
    );
    let view = sim.view(0, 1);
    assert_eq!(
        (view.state, view.hold_time, view.internal),
        (State::Established, Some(90), Some(false))
    );
    assert!(
        view.families
            .iter()
            .all(|family| family.end_of_rib_received && family.end_of_rib_sent)
    );
    assert_eq!(view.families[0].received, 1);
    assert_eq!(view.families[0].advertised, 1);
    let out = sim.speaker(0).routes_out(peer_id(1), Family::Ipv4Unicast);
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].attributes.view().as_path().to_string(), "65001");
}

/// Both sides connect at once. The six orders in which SYN, OPEN and KEEPALIVE of the two connections can interleave come from
/// the ratio of their delays and from which side has the higher router id; each must end with one session and no flap.
#[test]
fn collisions_in_all_orders_leave_one_session() {
    let delays = [
        (1, 1),
        (1, 2),
        (2, 1),
        (1, 5),
        (5, 1),
        (3, 4),
        (4, 3),
        (1, 20),
        (20, 1),
    ];
    for (first, second) in delays {
        for swapped in [false, true] {
            let mut sim = Sim::new();
            let (a, b) = (sim.node(65001), sim.node(65002));
            if swapped {
                for (node, id) in [(a, 9), (b, 1)] {
                    sim.nodes[node].config.router_id = [10, 0, 0, id].into();
                    sim.start(node, None);
                }
            }
            sim.next_delays = vec![first * MS, second * MS];
            sim.join(a, b, |_, _| {});
            let name = format!("delays {first}/{second} ms, swapped {swapped}");
            sim.run_until(10 * SECOND, &name, |sim| sim.is_up(0, 1));
            sim.run_for(5 * SECOND);
            assert!(sim.is_up(0, 1), "{name}\n{}", sim.describe());
            assert_eq!((sim.flaps(0), sim.flaps(1)), (0, 0), "{name}\n{}", sim.describe());
        }
    }
}

/// Equal router ids are allowed between ASes (RFC 6286): the higher AS decides collisions. Inside an AS they are an error.
#[test]
fn equal_router_ids() {
    for (asn, works) in [(65002, true), (65001, false)] {
        let mut sim = Sim::new();
        let (a, b) = (sim.node(65001), sim.node(asn));
        for node in [a, b] {
            sim.nodes[node].config.router_id = [10, 0, 0, 7].into();
            sim.start(node, None);
        }
        sim.join(a, b, |_, _| {});
        sim.run_for(10 * SECOND);
        assert_eq!(sim.is_up(a, b), works, "{}", sim.describe());
        if !works {
            let error = sim.view(a, b).last_error.unwrap();
            assert!(error.contains("Bad BGP Identifier"), "{error}");
        }
    }
}

#[test]
fn a_passive_speaker_waits_and_is_found() {
    let mut sim = Sim::new();
    let (a, b) = (sim.node(65001), sim.node(65002));
    sim.join(a, b, |node, config| config.passive = node == a);
    assert_eq!(sim.view(a, b).state, State::Active);
    sim.run_until(SECOND, "session", |sim| sim.is_up(0, 1));
    assert!(
        !sim.nodes[a]
            .log
            .iter()
            .any(|(_, output)| matches!(output, Output::Connect { .. }))
    );
}

/// The peer starts 20 s late: attempts go on, ever more rarely, and the session is up soon after it listens.
#[test]
fn a_late_peer_is_found() {
    let mut sim = Sim::new();
    let (a, b) = (sim.node(65001), sim.node(65002));
    sim.crash(b, false);
    sim.nodes[a].peers.insert(
        peer_id(b),
        isthmus_bgp_engine::PeerConfig::new(sim::address(b), 65002),
    );
    sim.apply_peers(a);
    sim.run_for(20 * SECOND);
    let attempts = |sim: &Sim| {
        sim.nodes[0]
            .log
            .iter()
            .filter(|(_, output)| matches!(output, Output::Connect { .. }))
            .count()
    };
    assert!(
        (5..12).contains(&attempts(&sim)),
        "attempts in 20 s: {}",
        attempts(&sim)
    );
    assert_eq!(sim.view(a, b).last_error.as_deref(), Some("connection refused"));
    sim.nodes[b].peers.insert(
        peer_id(a),
        isthmus_bgp_engine::PeerConfig::new(sim::address(a), 65001),
    );
    sim.start(b, None);
    sim.run_until(2 * SECOND, "session", |sim| sim.is_up(0, 1));
}

/// A cut link: both sides notice when the hold time of 3 s is over, and come back after it heals.
#[test]
fn a_partition_costs_the_hold_time() {
    let mut sim = Sim::new();
    let (a, b) = (sim.node(65001), sim.node(65002));
    sim.originate(a, &["10.1.0.0/16"]);
    sim.join(a, b, |_, config| config.hold_time = 3);
    sim.run_until(SECOND, "session", |sim| sim.is_up(0, 1));
    sim.run_for(10 * SECOND);
    assert!(sim.is_up(a, b), "keepalives keep it");
    sim.cut(a, b);
    let start = sim.now;
    sim.run_until(4 * SECOND, "both down", |sim| {
        sim.view(0, 1).state != State::Established && sim.view(1, 0).state != State::Established
    });
    assert!(
        sim.now - start >= 2 * SECOND && sim.now - start <= 3 * SECOND + 10 * MS,
        "{:?}",
        sim.now - start
    );
    assert!(sim.table(b).is_empty(), "routes go with the session");
    assert!(sim.view(b, a).last_error.unwrap().contains("Hold Timer Expired"));
    sim.heal(a, b);
    sim.run_until(40 * SECOND, "back", |sim| {
        sim.is_up(0, 1) && sim.table(1).len() == 1
    });
}

#[test]
fn hold_time_zero_means_no_timers() {
    let mut sim = Sim::new();
    let (a, b) = (sim.node(65001), sim.node(65002));
    sim.join(a, b, |node, config| {
        config.hold_time = if node == a { 0 } else { 90 }
    });
    sim.run_until(SECOND, "session", |sim| sim.is_up(0, 1));
    let sent = sim.view(a, b).counters.messages_out;
    sim.run_for(3600 * SECOND);
    assert!(sim.is_up(a, b));
    assert_eq!(sim.view(a, b).counters.messages_out, sent, "no keepalives");
}

/// A peer that always fails after the OPEN is tried ever more rarely, and its own attempts are refused in between.
#[test]
fn a_flapping_peer_is_damped() {
    let mut sim = Sim::new();
    let (a, b) = (sim.node(65001), sim.node(65002));
    // B expects another AS: every OPEN of A is answered with Bad Peer AS.
    sim.join(a, b, |node, config| {
        if node == b {
            config.asn = 65_999;
        }
    });
    sim.run_for(600 * SECOND);
    let opens = sim.nodes[a]
        .log
        .iter()
        .filter(|(_, o)| matches!(o, Output::SessionDown { .. }))
        .count();
    assert!(opens < 80, "{opens} failures in ten minutes");
    assert!(sim.view(a, b).last_error.unwrap().contains("Bad Peer AS"));
    assert_eq!(sim.view(a, b).state, State::Idle, "held down");
    // The operator mends it: no waiting.
    sim.nodes[b].peers.get_mut(&peer_id(a)).unwrap().asn = 65001;
    sim.apply_peers(b);
    let now = sim.now;
    sim.speaker(a).reset(now, peer_id(b), "mended");
    sim.outputs(a);
    sim.run_until(3 * SECOND, "session", |sim| sim.is_up(0, 1));
}

#[test]
fn any_as_is_accepted_if_the_operator_says_so() {
    let mut sim = Sim::new();
    let (a, b) = (sim.node(65001), sim.node(4_200_000_001));
    sim.join(a, b, |node, config| {
        if node == a {
            config.asn = 0;
        }
    });
    sim.run_until(SECOND, "session", |sim| sim.is_up(0, 1));
    assert_eq!(sim.view(a, b).asn, 4_200_000_001);
}

/// Families: only what both offer is exchanged; nothing in common is refused with Unsupported Capability.
#[test]
fn families_are_negotiated() {
    let mut sim = pair();
    for (node, family) in [(0, Family::Ipv4Unicast), (1, Family::Ipv6Unicast)] {
        let peer = peer_id(1 - node);
        sim.nodes[node]
            .peers
            .get_mut(&peer)
            .unwrap()
            .families
            .retain(|one, _| *one == family);
        sim.apply_peers(node);
    }
    sim.run_for(10 * SECOND);
    assert!(!sim.is_up(0, 1));
    assert!(
        sim.view(0, 1)
            .last_error
            .unwrap()
            .contains("Unsupported Capability")
    );
    let config = sim.nodes[1].peers.get_mut(&peer_id(0)).unwrap();
    config
        .families
        .insert(Family::Ipv4Unicast, isthmus_bgp_engine::FamilyConfig::default());
    sim.apply_peers(1);
    sim.run_until(40 * SECOND, "session", |sim| sim.is_up(0, 1));
    let view = sim.view(1, 0);
    assert_eq!(
        view.families.iter().map(|f| f.negotiated).collect::<Vec<_>>(),
        [true, false]
    );
}

#[test]
fn an_administrative_shutdown_tells_the_peer_why() {
    let mut sim = pair();
    sim.run_until(SECOND, "session", |sim| sim.is_up(0, 1));
    sim.nodes[0].peers.get_mut(&peer_id(1)).unwrap().admin = AdminState::Down("rack 7 moves".into());
    sim.apply_peers(0);
    sim.run_for(SECOND);
    assert_eq!(sim.view(0, 1).state, State::Idle);
    let error = sim.view(1, 0).last_error.unwrap();
    sim.run_for(60 * SECOND);
    assert!(!sim.is_up(0, 1), "and it stays down");
    assert!(
        error.contains("Administrative Shutdown") && error.contains("rack 7 moves"),
        "{error}"
    );
    sim.nodes[0].peers.get_mut(&peer_id(1)).unwrap().admin = AdminState::Up;
    sim.apply_peers(0);
    sim.run_until(2 * SECOND, "session", |sim| sim.is_up(0, 1));
}

#[test]
fn stopping_for_good_withdraws_at_once() {
    let mut sim = pair();
    sim.run_until(SECOND, "tables", |sim| sim.table(1).len() == 2);
    let now = sim.now;
    sim.speaker(0).stop(now, Stop::Shutdown("bye".into()));
    sim.outputs(0);
    sim.run_until(SECOND, "withdrawn", |sim| sim.table(1).len() == 1);
    let down = sim.nodes[1].log.iter().find_map(|(_, output)| match output {
        Output::SessionDown {
            reason: DownReason::Received(notification),
            ..
        } => Some(notification.to_string()),
        _ => None,
    });
    assert_eq!(down.as_deref(), Some("Administrative Shutdown (6/2): bye"));
}

/// Editing what is not part of the OPEN leaves the session alone; editing what is resets it and says why.
#[test]
fn edits_reset_only_if_they_must() {
    use isthmus_bgp_engine::{PeerChange, Policy};
    let mut sim = pair();
    sim.run_until(SECOND, "session", |sim| sim.is_up(0, 1));
    type Edit = fn(&mut isthmus_bgp_engine::PeerConfig);
    let table: [(&str, Edit, PeerChange); 6] = [
        (
            "connect retry",
            |c| c.connect_retry = Duration::from_secs(5),
            PeerChange::Changed,
        ),
        (
            "import",
            |c| c.families.values_mut().for_each(|f| f.import = Policy::reject()),
            PeerChange::Changed,
        ),
        ("AS to any", |c| c.asn = 0, PeerChange::Changed),
        ("AS to the same", |c| c.asn = 65002, PeerChange::Changed),
        ("hold time", |c| c.hold_time = 30, PeerChange::Reset("hold time")),
        (
            "graceful restart",
            |c| c.graceful_restart = Some(Default::default()),
            PeerChange::Reset("graceful restart"),
        ),
    ];
    for (name, edit, expected) in table {
        sim.run_until(5 * SECOND, "session", |sim| sim.is_up(0, 1));
        let flaps = sim.flaps(0);
        let mut peers = sim.nodes[0].peers.clone();
        edit(peers.get_mut(&peer_id(1)).unwrap());
        sim.nodes[0].peers = peers.clone();
        let now = sim.now;
        let changes = sim.speaker(0).set_peers(now, peers.clone()).unwrap();
        sim.outputs(0);
        assert_eq!(changes.get(&peer_id(1)), Some(&expected), "{name}");
        assert_eq!(
            sim.flaps(0) - flaps,
            usize::from(matches!(expected, PeerChange::Reset(_))),
            "{name}"
        );
        assert!(
            sim.speaker(0).set_peers(now, peers).unwrap().is_empty(),
            "{name}: twice changes nothing"
        );
    }
}

/// Routes for some peers only.
#[test]
fn recipients() {
    let mut sim = Sim::new();
    let (a, b, c) = (sim.node(65001), sim.node(65002), sim.node(65003));
    sim.originate(a, &["10.1.0.0/16", "10.2.0.0/16"]);
    sim.join(a, b, |_, _| {});
    sim.join(a, c, |_, _| {});
    sim.run_until(SECOND, "both", |sim| {
        sim.table(1).len() == 2 && sim.table(2).len() == 2
    });
    let mut routes = sim.nodes[a].routes.clone();
    let only_c = Recipients::Only(std::sync::Arc::new([peer_id(c)].into()));
    routes.get_mut(&"10.2.0.0/16".parse().unwrap()).unwrap().peers = only_c;
    sim.set_routes(a, routes);
    sim.run_until(SECOND, "withdrawn from B", |sim| sim.table(1).len() == 1);
    sim.run_for(SECOND);
    assert_eq!(sim.table(c).len(), 2);
    sim.originate(a, &[]);
    sim.run_until(SECOND, "all gone", |sim| {
        sim.table(1).is_empty() && sim.table(2).is_empty()
    });
}

/// One byte at a time, and a 2 MB table in as few messages as possible.
#[test]
fn streams_may_be_cut_anywhere() {
    let mut sim = Sim::new();
    let (a, b) = (sim.node(65001), sim.node(65002));
    sim.segment = 1;
    sim.originate(a, &["10.1.0.0/16", "2001:db8::/32"]);
    sim.join(a, b, |_, config| {
        let v6 = config.families.get_mut(&Family::Ipv6Unicast).unwrap();
        v6.next_hop = Some("2001:db8::1".parse().unwrap());
    });
    sim.run_until(SECOND, "session and routes", |sim| {
        sim.is_up(0, 1)
            && sim.nodes[1]
                .speaker
                .as_ref()
                .unwrap()
                .routes(Family::Ipv4Unicast, true)
                .len()
                == 1
    });
}

#[test]
fn many_routes_travel_in_few_messages_and_a_slow_peer_costs_no_memory() {
    use isthmus_bgp_engine::OriginatedRoute;
    use isthmus_bgp_packet::{AttributesBuilder, Origin};
    let mut sim = pair();
    sim.run_until(SECOND, "session", |sim| sim.is_up(0, 1));
    let routes = |med: u32| {
        let attributes = AttributesBuilder::originated(Origin::Igp).med(Some(med)).build();
        (0..50_000u32)
            .map(|n| {
                let net = ipnet::Ipv4Net::new((0x0b00_0000 + n).into(), 32).unwrap();
                (
                    net.into(),
                    OriginatedRoute {
                        attributes: attributes.clone(),
                        peers: Recipients::All,
                    },
                )
            })
            .collect()
    };
    let before = sim.view(0, 1).counters.updates_out;
    sim.set_routes(0, routes(1));
    sim.run_until(SECOND, "all routes", |sim| {
        sim.view(1, 0).families[0].received == 50_000
    });
    let messages = sim.view(0, 1).counters.updates_out - before;
    assert!(messages < 80, "{messages} messages for 50000 routes");
    // The peer stops reading: what was not sent is not queued, and ten changes of every route become one.
    sim.nodes[0].stalled = true;
    let before = sim.view(0, 1).counters.updates_out;
    for med in 2..=12 {
        sim.set_routes(0, routes(med));
    }
    let waiting = sim.view(0, 1).counters.updates_out - before;
    assert!(
        waiting * 4096 < 3 << 20,
        "{waiting} messages wait for a peer that does not read"
    );
}

/// A peer that never reads again is dropped when the send hold timer ends (RFC 9687).
#[test]
fn a_peer_that_stops_reading_is_dropped() {
    let mut sim = pair();
    sim.run_until(SECOND, "session", |sim| sim.is_up(0, 1));
    sim.nodes[0].stalled = true;
    sim.run_for(300 * SECOND);
    assert!(sim.is_up(0, 1));
    sim.run_until(300 * SECOND, "dropped", |sim| {
        sim.view(0, 1).state != State::Established
    });
    assert!(
        sim.view(0, 1)
            .last_error
            .unwrap()
            .contains("Send Hold Timer Expired")
    );
}

/// Failures of long ago do not slow the next attempt down: a session that was stable wipes the slate clean.
#[test]
fn a_stable_session_wipes_the_slate_clean() {
    let mut sim = Sim::new();
    let (a, b) = (sim.node(65001), sim.node(65002));
    sim.join(a, b, |node, config| config.passive = node == b);
    sim.crash(b, true);
    sim.run_for(300 * SECOND);
    sim.start(b, None);
    sim.run_until(40 * SECOND, "session", |sim| sim.is_up(0, 1));
    sim.run_for(60 * SECOND);
    sim.crash(b, true);
    sim.start(b, None);
    sim.run_until(SECOND, "session", |sim| sim.is_up(0, 1));
}
