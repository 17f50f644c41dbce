//! What is sent to whom, with what attributes (RFC 4271 §5, §9.1.3, §9.2; RFC 1997, 4360, 4456).
//!
//! ```text
//!                               ┌── X (AS 65009, external)
//!  S (AS 65001) ── writes ──▶ B (AS 65002)
//!                               └── I (AS 65002, internal)
//! ```
mod sim;

use isthmus_bgp_engine::{
    FamilyConfig, OriginatedRoute, Policy, PrefixRange, Recipients, RouteSource, RouteView, Rule, Verdict,
};
use isthmus_bgp_packet::attribute::{flag, kind};
use isthmus_bgp_packet::{
    AttributesBuilder, Community, ExtendedCommunity, Family, LargeCommunity, Origin, write,
};
use sim::{SECOND, Sim, address, peer_id};

const S: usize = 0;
const B: usize = 1;
const X: usize = 2;
const I: usize = 3;
const V4: Family = Family::Ipv4Unicast;

fn star() -> Sim {
    let mut sim = Sim::new();
    for asn in [65001, 65002, 65009, 65002] {
        sim.node(asn);
    }
    for other in [S, X, I] {
        sim.join(B, other, |_, _| {});
    }
    sim.run_until(SECOND, "sessions", |sim| {
        [S, X, I].iter().all(|other| sim.is_up(B, *other))
    });
    sim.run_for(SECOND);
    sim
}

/// S sends 203.0.113.0/24 with the attributes; what X and I get of it.
fn pass(attributes: &AttributesBuilder) -> (Option<RouteView>, Option<RouteView>) {
    let mut sim = star();
    let mut bytes = Vec::new();
    let prefix = ["203.0.113.0/24".parse().unwrap()];
    write::announce(
        &mut bytes,
        V4,
        attributes.build().view(),
        address(S),
        true,
        prefix,
    )
    .unwrap();
    sim.inject(S, B, &bytes);
    sim.run_for(SECOND);
    let mut got = |node| sim.speaker(node).routes(V4, true).into_iter().next();
    (got(X), got(I))
}

fn learnt() -> AttributesBuilder {
    AttributesBuilder::originated(Origin::Egp).as_path(&[65001, 65100])
}

#[test]
fn path_next_hop_med_and_local_preference() {
    let (x, i) = pass(&learnt().med(Some(50)).local_pref(Some(7)));
    let (x, i) = (x.unwrap(), i.unwrap());
    let (to_x, to_i) = (x.attributes.view(), i.attributes.view());
    assert_eq!(to_x.as_path().to_string(), "65002 65001 65100");
    assert_eq!(
        (to_x.med(), to_x.local_pref(), to_x.origin()),
        (None, None, Origin::Egp)
    );
    assert_eq!(x.next_hop, Some(address(B)), "next hop self");
    assert_eq!(to_i.as_path().to_string(), "65001 65100");
    assert_eq!(
        (to_i.med(), to_i.local_pref()),
        (Some(50), Some(100)),
        "what S said of LOCAL_PREF does not count"
    );
    assert_eq!(i.next_hop, Some(address(S)), "the next hop as learnt");
}

#[test]
fn communities_that_limit_where_a_route_goes() {
    for (community, to_x, to_i) in [
        (Community::NO_ADVERTISE, false, false),
        (Community::NO_EXPORT, false, true),
        (Community::NO_EXPORT_SUBCONFED, false, true),
        (Community::BLACKHOLE, true, true),
        (Community::pair(65001, 1), true, true),
    ] {
        let (x, i) = pass(&learnt().communities(&[community]));
        assert_eq!((x.is_some(), i.is_some()), (to_x, to_i), "{community}");
        for route in [x, i].into_iter().flatten() {
            assert_eq!(
                route.attributes.view().communities().collect::<Vec<_>>(),
                [community]
            );
        }
    }
}

#[test]
fn communities_travel_and_non_transitive_ones_stay_inside() {
    let inside = ExtendedCommunity(0x4004_fdea_0000_0001);
    let target = ExtendedCommunity(0x0002_fdea_0000_0001);
    let large = LargeCommunity {
        global: 1,
        local1: 2,
        local2: 3,
    };
    let (x, i) = pass(
        &learnt()
            .extended_communities(&[inside, target])
            .large_communities(&[large]),
    );
    let extended = |route: Option<RouteView>| {
        let route = route.unwrap();
        assert_eq!(
            route.attributes.view().large_communities().collect::<Vec<_>>(),
            [large]
        );
        route.attributes.view().extended_communities().collect::<Vec<_>>()
    };
    assert_eq!(extended(x), [target]);
    assert_eq!(extended(i), [target, inside]);
}

/// Our own routes: MED and communities go out as the operator wrote them, LOCAL_PREF only inside.
#[test]
fn own_routes() {
    let mut sim = star();
    let attributes = AttributesBuilder::originated(Origin::Igp)
        .med(Some(9))
        .local_pref(Some(300))
        .communities(&[Community::NO_EXPORT])
        .build();
    let route = OriginatedRoute {
        attributes,
        peers: Recipients::All,
    };
    // The bits behind the length of the prefix are of no account.
    sim.set_routes(B, [("10.1.2.3/16".parse().unwrap(), route)].into());
    sim.run_for(SECOND);
    // X would drop a LOCAL_PREF unread, so what counts is what was sent to it.
    let sent = sim.speaker(B).routes_out(peer_id(X), V4).remove(0);
    assert_eq!(sent.attributes.view().local_pref(), None);
    let (x, i) = (
        sim.speaker(X).routes(V4, true).remove(0),
        sim.speaker(I).routes(V4, true).remove(0),
    );
    assert_eq!(x.prefix.to_string(), "10.1.0.0/16");
    let (to_x, to_i) = (x.attributes.view(), i.attributes.view());
    assert_eq!(
        (to_x.as_path().to_string().as_str(), to_x.med(), to_x.local_pref()),
        ("65002", Some(9), None)
    );
    assert_eq!(
        (to_i.as_path().is_empty(), to_i.med(), to_i.local_pref()),
        (true, Some(9), Some(300))
    );
    assert_eq!((x.next_hop, i.next_hop), (Some(address(B)), Some(address(B))));
    assert_eq!(
        to_x.communities().next(),
        Some(Community::NO_EXPORT),
        "meant for the neighbour"
    );
    assert_eq!(sim.speaker(B).routes(V4, true)[0].source, RouteSource::Local);
}

/// An export policy that lets only own prefixes out, and its removal.
#[test]
fn export_policy() {
    let mut sim = star();
    sim.originate(S, &["203.0.113.0/24"]);
    sim.originate(B, &["10.1.0.0/16"]);
    sim.run_until(SECOND, "both at X", |sim| sim.table(X).len() == 2);
    let own = Policy {
        rules: vec![Rule {
            prefixes: vec![PrefixRange::within("10.0.0.0/8".parse().unwrap())],
            communities: Vec::new(),
            verdict: Verdict::Accept,
        }],
        default: Verdict::Reject,
    };
    for (policy, routes) in [(own, 1), (Policy::reject(), 0), (Policy::accept(), 2)] {
        let config = sim.nodes[B].peers.get_mut(&peer_id(X)).unwrap();
        config.families.insert(
            V4,
            FamilyConfig {
                export: policy,
                ..FamilyConfig::default()
            },
        );
        sim.apply_peers(B);
        sim.run_for(SECOND);
        assert_eq!(sim.table(X).len(), routes);
    }
    assert_eq!(sim.flaps(B), 0);
}

/// Whoever hears what changes as better paths come and go, and a change that a peer cannot see is not sent to it.
#[test]
fn only_what_changes_is_sent() {
    let mut sim = star();
    sim.originate(S, &["203.0.113.0/24"]);
    sim.run_until(SECOND, "at X", |sim| sim.table(X).len() == 1);
    let before = sim.view(X, B).counters.updates_in;
    // I has a worse path to the same prefix, and S says again what it said: nothing changes for X.
    let worse = AttributesBuilder::originated(Origin::Igp)
        .as_path(&[64999, 64998])
        .build();
    let route = OriginatedRoute {
        attributes: worse,
        peers: Recipients::All,
    };
    sim.set_routes(I, [("203.0.113.0/24".parse().unwrap(), route)].into());
    let now = sim.now;
    sim.speaker(S).resend(now, peer_id(B), V4);
    sim.outputs(S);
    sim.run_for(SECOND);
    assert_eq!(sim.speaker(B).routes(V4, false).len(), 2);
    assert_eq!(sim.view(X, B).counters.updates_in, before);
    // The better path goes: one UPDATE takes X to the worse one, the next one takes the route away.
    sim.originate(S, &[]);
    sim.run_for(SECOND);
    assert_eq!(sim.view(X, B).counters.updates_in, before + 1);
    assert_eq!(sim.table(X), ["203.0.113.0/24 via 192.0.2.2 [65002 64999 64998]"]);
    sim.originate(I, &[]);
    sim.run_until(SECOND, "withdrawn", |sim| sim.table(X).is_empty());
    assert_eq!(sim.view(X, B).counters.updates_in, before + 2);
}

/// Routes, sessions and refreshes that come and go: every use of every attribute set is given back.
#[test]
fn what_comes_and_goes_leaves_nothing_behind() {
    let mut sim = star();
    for round in 0..3 {
        for node in [S, B, X, I] {
            let own = [format!("10.{node}.0.0/16"), format!("172.16.{node}.0/24")];
            sim.originate(node, &[&own[0], &own[1], "192.168.0.0/16"]);
        }
        sim.run_for(SECOND);
        let now = sim.now;
        sim.speaker(B).reset(now, peer_id(X), "round");
        sim.outputs(B);
        sim.run_for(5 * SECOND);
        let now = sim.now;
        sim.speaker(B).resend(now, peer_id(S), V4);
        sim.outputs(B);
        assert!(sim.speaker(B).attribute_sets() > 4, "round {round}");
        for node in [S, B, X, I] {
            sim.originate(node, &[]);
        }
        sim.run_for(SECOND);
        assert_eq!(
            sim.speaker(B).attribute_sets(),
            0,
            "round {round}: attributes are counted right"
        );
    }
}

/// Reflected attributes of internal peers do not leave the AS.
#[test]
fn reflection_attributes_stay_inside() {
    let mut sim = star();
    let set = AttributesBuilder::originated(Origin::Igp)
        .local_pref(Some(100))
        .raw(flag::OPTIONAL, kind::ORIGINATOR_ID, vec![10, 9, 9, 9])
        .raw(flag::OPTIONAL, kind::CLUSTER_LIST, vec![10, 8, 8, 8])
        .build();
    let mut bytes = Vec::new();
    let prefix = ["203.0.113.0/24".parse().unwrap()];
    write::announce(&mut bytes, V4, set.view(), address(I), true, prefix).unwrap();
    sim.inject(I, B, &bytes);
    sim.run_for(SECOND);
    let at_x = sim.speaker(X).routes(V4, true).remove(0);
    assert_eq!(
        at_x.attributes.view().iter().map(|a| a.kind).collect::<Vec<_>>(),
        [kind::ORIGIN, kind::AS_PATH]
    );
    // What we reflected ourselves comes back: a loop.
    let own = set
        .view()
        .edit()
        .raw(flag::OPTIONAL, kind::ORIGINATOR_ID, vec![10, 0, 0, 2])
        .build();
    let mut bytes = Vec::new();
    write::announce(&mut bytes, V4, own.view(), address(I), true, prefix).unwrap();
    sim.inject(I, B, &bytes);
    sim.run_for(SECOND);
    assert!(sim.table(X).is_empty());
    assert_eq!(sim.view(B, I).counters.routes_refused, 1);
}
