//! Malformed UPDATEs end to end, and the rules of route choice that are the engine's (first AS, loops, own next hop, limits).
//!
//! ```text
//!  A (AS 65001) ── UPDATE, written by the test ──▶ B (AS 65002) ──▶ C (AS 65003)
//! ```
//! B has 203.0.113.0/24 from A before each case. After it: does C still have the route, is the session A–B still up, what was
//! counted?
mod sim;

use isthmus_bgp_engine::{MaxPrefixes, Notice, Output, Policy, State};
use isthmus_bgp_packet::frame::{self, MessageType};
use isthmus_bgp_packet::{AttributesBuilder, Family, Origin, write};
use sim::{SECOND, Sim, address, peer_id};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const PREFIX: &str = "203.0.113.0/24";

fn line() -> Sim {
    let mut sim = Sim::new();
    let (a, b, c) = (sim.node(65001), sim.node(65002), sim.node(65003));
    sim.originate(a, &[PREFIX]);
    sim.join(a, b, |_, _| {});
    sim.join(b, c, |_, _| {});
    sim.run_until(SECOND, "the route at C", |sim| sim.table(C).len() == 1);
    sim.run_for(SECOND);
    sim
}

fn update(attributes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let start = frame::begin(&mut out, MessageType::Update);
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&u16::try_from(attributes.len()).unwrap().to_be_bytes());
    out.extend_from_slice(attributes);
    out.extend_from_slice(&[24, 203, 0, 113]);
    frame::finish(&mut out, start);
    out
}

const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
const PATH: &[u8] = &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9];
const HOP: &[u8] = &[0x40, 3, 4, 192, 0, 2, 1];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// C has the route.
    Kept,
    /// C has the route, and a discarded attribute was counted.
    Discarded,
    /// C has lost it, the session is up, one treat-as-withdraw was counted.
    Withdrawn,
    /// C has lost it, the session is up, the route was refused for a loop.
    Refused,
    /// The session ended with this UPDATE error.
    Reset(u8),
}
use Outcome::{Discarded, Kept, Refused, Reset, Withdrawn};

fn outcome(bytes: &[u8]) -> Outcome {
    let mut sim = line();
    sim.inject(A, B, bytes);
    sim.run_for(SECOND / 4);
    let counters = sim.view(B, A).counters;
    if sim.view(B, A).state != State::Established {
        let last = sim.nodes[A]
            .log
            .iter()
            .rev()
            .find_map(|(_, output)| match output {
                Output::SessionDown {
                    reason: isthmus_bgp_engine::DownReason::Received(n),
                    ..
                } => Some(n.clone()),
                _ => None,
            });
        let notification = last.expect("a NOTIFICATION reached A");
        assert_eq!(notification.code, 3);
        assert!(sim.table(C).is_empty());
        return Reset(notification.subcode);
    }
    match (
        sim.table(C).len(),
        counters.treat_as_withdraw,
        counters.attribute_discard,
        counters.routes_refused,
    ) {
        (1, 0, 0, 0) => Kept,
        (1, 0, 1, 0) => Discarded,
        (0, 1, 0, 0) => Withdrawn,
        (0, 0, 0, 1) => Refused,
        other => panic!("unexpected outcome {other:?}\n{}", sim.describe()),
    }
}

#[test]
fn reactions_reach_the_next_speaker() {
    let join = |parts: &[&[u8]]| update(&parts.concat());
    let table: &[(&str, Vec<u8>, Outcome)] = &[
        ("good", join(&[ORIGIN, PATH, HOP]), Kept),
        ("ORIGIN value 5", join(&[&[0x40, 1, 1, 5], PATH, HOP]), Withdrawn),
        ("no ORIGIN", join(&[PATH, HOP]), Withdrawn),
        (
            "COMMUNITY len 5",
            join(&[ORIGIN, PATH, HOP, &[0xc0, 8, 5, 0, 0, 0, 0, 0]]),
            Withdrawn,
        ),
        (
            "AS_SET",
            join(&[ORIGIN, &[0x40, 2, 6, 1, 1, 0, 0, 0xfd, 0xe9], HOP]),
            Withdrawn,
        ),
        (
            "attributes cut off",
            join(&[ORIGIN, PATH, HOP, &[0xc0, 8]]),
            Withdrawn,
        ),
        (
            "LOCAL_PREF from outside",
            join(&[ORIGIN, PATH, HOP, &[0x40, 5, 3, 0, 0, 0]]),
            Discarded,
        ),
        (
            "AGGREGATOR len 5",
            join(&[ORIGIN, PATH, HOP, &[0xc0, 7, 5, 0, 0, 0, 0, 0]]),
            Discarded,
        ),
        (
            "unknown optional",
            join(&[ORIGIN, PATH, HOP, &[0xc0, 201, 1, 1]]),
            Kept,
        ),
        (
            "first AS is not the peer's",
            join(&[ORIGIN, &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xf0], HOP]),
            Withdrawn,
        ),
        (
            "empty AS_PATH from outside",
            join(&[ORIGIN, &[0x40, 2, 0], HOP]),
            Withdrawn,
        ),
        (
            "our own AS",
            join(&[
                ORIGIN,
                &[0x40, 2, 10, 2, 2, 0, 0, 0xfd, 0xe9, 0, 0, 0xfd, 0xea],
                HOP,
            ]),
            Refused,
        ),
        (
            "our own address as next hop",
            join(&[ORIGIN, PATH, &[0x40, 3, 4, 192, 0, 2, 2]]),
            Refused,
        ),
        (
            "unknown well-known",
            join(&[ORIGIN, PATH, HOP, &[0x40, 200, 1, 1]]),
            Reset(2),
        ),
        (
            "IPv4 NLRI and MP_REACH, no NEXT_HOP",
            {
                let mut mp = vec![0x80, 14, 26, 0, 2, 1, 16, 0x20, 1, 0xd, 0xb8];
                mp.extend_from_slice(&[0; 11]);
                mp.extend_from_slice(&[1, 0, 32, 0x20, 1, 0xd, 0xb8]);
                mp[2] = u8::try_from(mp.len() - 3).unwrap();
                join(&[&mp, ORIGIN, PATH])
            },
            Withdrawn,
        ),
    ];
    for (name, bytes, expected) in table {
        assert_eq!(outcome(bytes), *expected, "{name}");
    }
}

/// What C sees of an unknown attribute: the same bytes, with the partial bit.
#[test]
fn unknown_attributes_pass_through() {
    let mut sim = line();
    sim.inject(
        A,
        B,
        &update(&[ORIGIN, PATH, HOP, &[0xc0, 201, 3, 7, 8, 9]].concat()),
    );
    sim.run_for(SECOND);
    let routes = sim.speaker(C).routes(Family::Ipv4Unicast, true);
    let attribute = routes[0]
        .attributes
        .view()
        .iter()
        .find(|a| a.kind == 201)
        .expect("it came through");
    assert_eq!((attribute.flags, attribute.value), (0xe0, &[7, 8, 9][..]));
}

#[test]
fn what_was_wrong_is_told() {
    let mut sim = line();
    sim.inject(A, B, &update(&[&[0x40, 1, 1, 5], PATH, HOP].concat()));
    let told = sim.nodes[B].log.iter().find_map(|(_, output)| match output {
        Output::Notice {
            notice: Notice::TreatedAsWithdraw { fault, prefixes },
            ..
        } => Some((fault.clone(), *prefixes)),
        _ => None,
    });
    assert_eq!(told, Some(("ORIGIN: undefined value".into(), 1)));
}

/// Bytes that are no BGP at all.
#[test]
fn garbage_on_an_established_connection() {
    let mut sim = line();
    sim.inject(A, B, b"GET / HTTP/1.1\r\nHost: router\r\n\r\n");
    sim.run_for(SECOND / 4);
    assert!(
        sim.view(A, B)
            .last_error
            .unwrap()
            .contains("Connection Not Synchronized (1/1)")
    );
    sim.run_until(5 * SECOND, "back", |sim| sim.table(C).len() == 1);
}

#[test]
fn too_many_prefixes_end_the_session_until_the_pause_is_over() {
    let mut sim = line();
    let config = sim.nodes[B].peers.get_mut(&peer_id(A)).unwrap();
    let limit = MaxPrefixes {
        limit: 2,
        restart_after: Some(60 * SECOND),
    };
    config
        .families
        .get_mut(&Family::Ipv4Unicast)
        .unwrap()
        .max_prefixes = Some(limit);
    sim.apply_peers(B);
    sim.originate(A, &[PREFIX, "10.1.0.0/16"]);
    sim.run_for(SECOND);
    assert!(sim.is_up(A, B), "two are allowed");
    sim.originate(A, &[PREFIX, "10.1.0.0/16", "10.2.0.0/16"]);
    sim.run_for(SECOND);
    assert_eq!(sim.view(B, A).state, State::Idle);
    assert!(
        sim.view(A, B)
            .last_error
            .unwrap()
            .contains("Maximum Number of Prefixes Reached (6/1)")
    );
    assert!(sim.table(C).is_empty());
    sim.run_for(50 * SECOND);
    assert!(!sim.is_up(A, B), "the peer is not let in before");
    sim.originate(A, &[PREFIX]);
    sim.run_until(60 * SECOND, "back", |sim| {
        sim.is_up(A, B) && sim.table(C).len() == 1
    });
}

/// Import policy changes work at once on what was kept, and through a route refresh on what was not.
#[test]
fn import_policy_changes() {
    for keep in [true, false] {
        let mut sim = line();
        let set = |sim: &mut Sim, import: Policy| {
            let family = sim.nodes[B]
                .peers
                .get_mut(&peer_id(A))
                .unwrap()
                .families
                .get_mut(&Family::Ipv4Unicast)
                .unwrap();
            family.import = import;
            family.keep_rejected = keep;
            sim.apply_peers(B);
        };
        set(&mut sim, Policy::reject());
        sim.run_until(SECOND, "withdrawn from C", |sim| sim.table(C).is_empty());
        let family = sim.view(B, A).families[0].clone();
        assert_eq!(
            (family.received, family.accepted),
            (usize::from(keep), 0),
            "kept: {keep}"
        );
        set(&mut sim, Policy::accept());
        sim.run_until(SECOND, "back at C", |sim| sim.table(C).len() == 1);
        assert_eq!(sim.view(B, A).families[0].accepted, 1);
        assert_eq!(sim.flaps(B), 0);
    }
}

/// An internal peer: LOCAL_PREF is sent, the path is not prepended, what was learnt inside is not passed on inside.
///
/// ```text
///  X (AS 65009) ── A ── B ── C      A, B, C in AS 65001
/// ```
#[test]
fn internal_peers() {
    let mut sim = Sim::new();
    let (a, b, c) = (sim.node(65001), sim.node(65001), sim.node(65001));
    let x = sim.node(65009);
    sim.originate(x, &["198.51.100.0/24"]);
    sim.originate(a, &["10.1.0.0/16"]);
    sim.join(a, b, |_, _| {});
    sim.join(b, c, |_, _| {});
    sim.join(a, x, |_, _| {});
    sim.run_until(5 * SECOND, "routes at B", |sim| sim.table(b).len() == 2);
    sim.run_for(SECOND);
    assert_eq!(
        sim.table(b),
        [
            "10.1.0.0/16 via 192.0.2.1 []",
            "198.51.100.0/24 via 192.0.2.4 [65009]"
        ]
    );
    let routes = sim.speaker(b).routes(Family::Ipv4Unicast, true);
    assert!(
        routes
            .iter()
            .all(|route| route.attributes.view().local_pref() == Some(100))
    );
    assert!(sim.table(c).is_empty(), "B is no route reflector");
}

/// Families over a session of the other address family: a next hop must be given, and its absence is told.
#[test]
fn a_family_without_a_next_hop_is_not_sent_and_told() {
    let mut sim = Sim::new();
    let (a, b) = (sim.node(65001), sim.node(65002));
    sim.originate(a, &["2001:db8:1::/48", "2001:db8:2::/48", "10.1.0.0/16"]);
    sim.join(a, b, |_, _| {});
    sim.run_until(SECOND, "IPv4", |sim| sim.table(1).len() == 1);
    sim.run_for(SECOND);
    assert_eq!(sim.view(a, b).families[1].no_next_hop, 2);
    let told = sim.nodes[a].log.iter().filter(|(_, o)| {
        matches!(
            o,
            Output::Notice {
                notice: Notice::NoNextHop(Family::Ipv6Unicast),
                ..
            }
        )
    });
    assert_eq!(told.count(), 1);
    let config = sim.nodes[a].peers.get_mut(&peer_id(b)).unwrap();
    config.families.get_mut(&Family::Ipv6Unicast).unwrap().next_hop = Some("2001:db8::a".parse().unwrap());
    sim.apply_peers(a);
    sim.run_until(SECOND, "IPv6", |sim| sim.table(1).len() == 3);
    assert_eq!(sim.table(b)[1], "2001:db8:1::/48 via 2001:db8::a [65001]");
    assert_eq!(sim.view(a, b).families[1].no_next_hop, 0);
}

/// A route whose attributes fill a whole message is not sent, and does not end anything.
#[test]
fn a_route_that_fits_into_no_message() {
    let mut sim = line();
    let attributes = AttributesBuilder::originated(Origin::Igp)
        .raw(0xc0, 201, vec![0; 4090])
        .build();
    let mut routes = sim.nodes[A].routes.clone();
    routes
        .values_mut()
        .for_each(|route| route.attributes = attributes.clone());
    sim.set_routes(A, routes);
    sim.run_until(SECOND, "withdrawn", |sim| sim.table(C).is_empty());
    assert!(sim.is_up(A, B));
    let told = |o: &Output| {
        matches!(
            o,
            Output::Notice {
                notice: Notice::TooBig(_),
                ..
            }
        )
    };
    assert!(sim.nodes[A].log.iter().any(|(_, output)| told(output)));
}

/// A peer with a table of its own for another family that was not agreed on: ignored.
#[test]
fn routes_of_a_family_that_was_not_agreed_on_are_ignored() {
    let mut sim = Sim::new();
    let (a, b) = (sim.node(65001), sim.node(65002));
    sim.join(a, b, |_, config| {
        config.families.retain(|family, _| *family == Family::Ipv4Unicast);
    });
    sim.run_until(SECOND, "session", |sim| sim.is_up(0, 1));
    let mut bytes = Vec::new();
    let set = AttributesBuilder::originated(Origin::Igp)
        .as_path(&[65001])
        .build();
    let prefix = ["2001:db8::/32".parse().unwrap()];
    let hop = "2001:db8::1".parse().unwrap();
    write::announce(&mut bytes, Family::Ipv6Unicast, set.view(), hop, true, prefix).unwrap();
    sim.inject(a, b, &bytes);
    sim.run_for(SECOND);
    assert!(sim.is_up(a, b) && sim.table(b).is_empty());
    assert_eq!(address(a).to_string(), "192.0.2.1");
}
