//! Whatever happens to a network, once it is left alone every speaker knows what it should.
//!
//! ```text
//!  0 (AS 65000) ── 1 (AS 65001)
//!        ╲         ╱
//!         2 (AS 65002)          each originates some of 16 prefixes; all have graceful restart
//! ```
mod sim;

use std::collections::BTreeSet;

use isthmus_bgp_engine::{GracefulRestart, Policy, Restarting, Speaker};
use isthmus_bgp_packet::Family;
use proptest::prelude::*;
use sim::{MS, SECOND, Sim, peer_id};

#[derive(Debug, Clone)]
enum Op {
    Originate(usize, u16),
    Cut(usize, usize),
    Heal(usize, usize),
    Crash(usize, bool),
    Start(usize, bool),
    Reset(usize, usize),
    Resend(usize, usize),
    Reject(usize, usize, bool),
    Noise(usize, usize, Vec<u8>),
    Wait(u32),
}

fn op() -> impl Strategy<Value = Op> {
    let node = || 0..3usize;
    prop_oneof![
        4 => (node(), any::<u16>()).prop_map(|(n, set)| Op::Originate(n, set)),
        2 => (node(), 1..3usize).prop_map(|(a, d)| Op::Cut(a, (a + d) % 3)),
        2 => (node(), 1..3usize).prop_map(|(a, d)| Op::Heal(a, (a + d) % 3)),
        1 => (node(), any::<bool>()).prop_map(|(n, fins)| Op::Crash(n, fins)),
        2 => (node(), any::<bool>()).prop_map(|(n, gr)| Op::Start(n, gr)),
        1 => (node(), 1..3usize).prop_map(|(a, d)| Op::Reset(a, (a + d) % 3)),
        1 => (node(), 1..3usize).prop_map(|(a, d)| Op::Resend(a, (a + d) % 3)),
        1 => (node(), 1..3usize, any::<bool>()).prop_map(|(a, d, keep)| Op::Reject(a, (a + d) % 3, keep)),
        1 => (node(), 1..3usize, proptest::collection::vec(any::<u8>(), 19..60))
            .prop_map(|(a, d, bytes)| Op::Noise(a, (a + d) % 3, bytes)),
        6 => (0..20_000u32).prop_map(Op::Wait),
    ]
}

fn prefix(n: u32) -> String {
    format!("10.{n}.0.0/16")
}

fn originate(sim: &mut Sim, node: usize, set: u16) {
    let list: Vec<String> = (0..16).filter(|bit| set >> bit & 1 == 1).map(prefix).collect();
    let list: Vec<&str> = list.iter().map(String::as_str).collect();
    if sim.nodes[node].speaker.is_some() {
        sim.originate(node, &list);
    } else {
        sim.originate_later(node, &list);
    }
}

fn import(sim: &mut Sim, node: usize, other: usize, policy: Policy, keep: bool) {
    let Some(config) = sim.nodes[node].peers.get_mut(&peer_id(other)) else {
        return;
    };
    let family = config.families.get_mut(&Family::Ipv4Unicast).unwrap();
    family.import = policy;
    family.keep_rejected = keep;
    if sim.nodes[node].speaker.is_some() {
        sim.apply_peers(node);
    }
}

fn apply(sim: &mut Sim, op: Op) {
    let up = |sim: &Sim, node: usize| sim.nodes[node].speaker.is_some();
    let now = sim.now;
    match op {
        Op::Originate(node, set) => originate(sim, node, set),
        Op::Cut(a, b) => sim.cut(a, b),
        Op::Heal(a, b) => sim.heal(a, b),
        Op::Crash(node, fins) => sim.crash(node, fins),
        Op::Start(node, gr) if !up(sim, node) => sim.start(node, gr.then(Restarting::default)),
        Op::Reset(a, b) if up(sim, a) => {
            sim.speaker(a).reset(now, peer_id(b), "test");
            sim.outputs(a);
        }
        Op::Resend(a, b) if up(sim, a) => {
            sim.speaker(a).resend(now, peer_id(b), Family::Ipv4Unicast);
            sim.speaker(a)
                .request_refresh(now, peer_id(b), Family::Ipv4Unicast);
            sim.outputs(a);
        }
        Op::Reject(a, b, keep) => import(sim, a, b, Policy::reject(), keep),
        Op::Noise(a, b, bytes) if up(sim, a) && up(sim, b) && sim.is_up(a, b) => sim.inject(a, b, &bytes),
        Op::Wait(ms) => sim.run_for(ms * MS),
        _ => {}
    }
}

/// What each side says that it sent is what the other says that it got.
fn adj_ribs_agree(sim: &mut Sim, a: usize, b: usize) {
    let strip = |list: Vec<isthmus_bgp_engine::RouteView>| -> Vec<_> {
        list.into_iter()
            .map(|route| (route.prefix, route.next_hop, route.attributes))
            .collect()
    };
    let sent = strip(sim.speaker(a).routes_out(peer_id(b), Family::Ipv4Unicast));
    let got = strip(sim.speaker(b).routes_in(peer_id(a), Family::Ipv4Unicast));
    // What carries the receiver's AS was refused as a loop.
    let own = sim.nodes[b].config.asn;
    let sent: Vec<_> = sent
        .into_iter()
        .filter(|(_, _, set)| !set.view().as_path().contains(own))
        .collect();
    assert_eq!(sent, got, "{a} to {b}\n{}", sim.describe());
    assert_eq!(sim.view(b, a).families[0].received, got.len());
    assert_eq!(sim.view(b, a).families[0].accepted, got.len());
    assert_eq!(sim.view(b, a).families[0].stale, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_network_that_is_left_alone_converges(ops in proptest::collection::vec(op(), 1..40)) {
        let mut sim = Sim::new();
        for asn in [65000, 65001, 65002] {
            sim.node(asn);
        }
        for (a, b) in [(0, 1), (1, 2), (2, 0)] {
            sim.join(a, b, |_, config| {
                config.hold_time = 9;
                config.graceful_restart = Some(GracefulRestart { restart_time: 15, ..Default::default() });
            });
        }
        for op in ops {
            apply(&mut sim, op);
        }
        for (a, b) in [(0, 1), (1, 2), (2, 0)] {
            sim.heal(a, b);
            import(&mut sim, a, b, Policy::accept(), true);
            import(&mut sim, b, a, Policy::accept(), true);
        }
        for node in 0..3 {
            if sim.nodes[node].speaker.is_none() {
                sim.start(node, Some(Restarting::default()));
            }
        }
        let pairs = [(0, 1), (1, 2), (2, 0)];
        sim.run_until(180 * SECOND, "all sessions", |sim| pairs.iter().all(|(a, b)| sim.is_up(*a, *b)));
        sim.run_for(20 * SECOND);
        for (a, b) in pairs {
            prop_assert!(sim.is_up(a, b), "{}", sim.describe());
        }

        let all: BTreeSet<String> =
            sim.nodes.iter().flat_map(|node| node.routes.keys().map(ToString::to_string)).collect();
        for node in 0..3 {
            let table = sim.table(node);
            let known: BTreeSet<String> =
                table.iter().map(|line| line.split([' ', '*']).next().unwrap().to_string()).collect();
            prop_assert_eq!(&known, &all, "node {}\n{}", node, sim.describe());
            prop_assert!(!table.iter().any(|line| line.contains('*')), "stale routes: {:?}", table);
            // Everything is one hop away, so nothing is learnt over a detour.
            let straight = |line: &String| line.contains("via local []") || !line.trim_end_matches(']').rsplit('[').next().unwrap().contains(' ');
            prop_assert!(table.iter().all(straight), "detours: {:?}", table);
        }
        for (a, b) in pairs {
            adj_ribs_agree(&mut sim, a, b);
            adj_ribs_agree(&mut sim, b, a);
        }
        prop_assert!(sim.nodes.iter().all(|node| node.speaker.as_ref().is_some_and(|s: &Speaker| !s.is_restarting())));
    }
}
