//! A peer that sends nonsense: what the nonsense costs, and that it costs no more (RFC 7606).
//!
//! ```text
//!   tor (script)  --- 198.51.100.0/24 good --->  node: route
//!                 --- the same, malformed ---->  node: route withdrawn or an attribute less, counted, session up
//!                 --- framing broken --------->  node: NOTIFICATION, session closed
//! ```
use std::time::{Duration, Instant};

use isthmus_testkit::{Need, needs, wait_until};
use nix::sys::signal::Signal;

use super::scripted::{KEEPALIVE, OPEN, Opening, Script, UPDATE, message, stage, update};
use crate::support::{Link, PATIENCE, PeerSettings, Speaker, alone, beside_others};

const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
const AS_PATH: &[u8] = &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe8];
const NEXT_HOP: &[u8] = &[0x40, 3, 4, 10, 0, 0, 254];
/// 198.51.100.0/24.
const NLRI: &[u8] = &[24, 198, 51, 100];
/// A second router beside the first.
const OTHER_TOR: &str = "10.0.0.253";
const PREFIX: &str = "198.51.100.0/24";

fn root(story: &str) -> bool {
    let ip = Need::Program {
        name: "ip",
        package: "iproute2",
    };
    needs(story, &[Need::Root, ip])
}

fn good() -> Vec<u8> {
    update(&[ORIGIN, AS_PATH, NEXT_HOP].concat(), NLRI)
}

fn has_route(speaker: &Speaker) -> bool {
    speaker.prefixes("in").contains(PREFIX)
}

/// What a malformed attribute costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cost {
    /// The routes of the UPDATE.
    Routes,
    /// The attribute.
    Attribute,
}

#[test]
fn a_malformed_attribute_costs_its_routes_not_the_session() {
    if !root("a_malformed_attribute_costs_its_routes_not_the_session") {
        return;
    }
    let _others = beside_others();
    let (link, speaker) = stage();
    let mut script = Script::establish(&link, Opening::default());
    for (what, attributes, cost) in malformed() {
        script.send(&good());
        wait_until(PATIENCE, "the good route is there", || has_route(&speaker))
            .unwrap_or_else(|timeout| panic!("{what}: {timeout}"));
        let before = speaker.peer().expect("a peer").counters;
        script.send(&update(&attributes.concat(), NLRI));
        let counted = || {
            let now = speaker.peer().expect("a peer").counters;
            match cost {
                Cost::Routes => now.treated_as_withdraw > before.treated_as_withdraw,
                Cost::Attribute => now.attributes_discarded > before.attributes_discarded,
            }
        };
        wait_until(PATIENCE, "it is counted", counted).unwrap_or_else(|timeout| panic!("{what}: {timeout}"));
        assert_eq!(has_route(&speaker), cost == Cost::Attribute, "{what}");
        let peer = speaker.peer().expect("a peer");
        assert_eq!((peer.established(), peer.counters.flaps), (true, 0), "{what}");
    }
}

type Case = (&'static str, Vec<&'static [u8]>, Cost);

fn malformed() -> Vec<Case> {
    let routes = |what, attributes: &[&'static [u8]]| (what, attributes.to_vec(), Cost::Routes);
    let attribute = |what, bad: &'static [u8]| (what, vec![ORIGIN, AS_PATH, NEXT_HOP, bad], Cost::Attribute);
    vec![
        routes("ORIGIN of 2 bytes", &[&[0x40, 1, 2, 0, 0], AS_PATH, NEXT_HOP]),
        routes("ORIGIN 5", &[&[0x40, 1, 1, 5], AS_PATH, NEXT_HOP]),
        routes("ORIGIN optional", &[&[0xc0, 1, 1, 0], AS_PATH, NEXT_HOP]),
        routes("ORIGIN missing", &[AS_PATH, NEXT_HOP]),
        routes("AS_PATH missing", &[ORIGIN, NEXT_HOP]),
        routes("NEXT_HOP missing", &[ORIGIN, AS_PATH]),
        routes(
            "AS_PATH segment type 9",
            &[ORIGIN, &[0x40, 2, 6, 9, 1, 0, 0, 0xfd, 0xe8], NEXT_HOP],
        ),
        routes("AS_PATH segment of 0", &[ORIGIN, &[0x40, 2, 2, 2, 0], NEXT_HOP]),
        routes(
            "AS_PATH overrun",
            &[ORIGIN, &[0x40, 2, 6, 2, 2, 0, 0, 0xfd, 0xe8], NEXT_HOP],
        ),
        routes(
            "AS_PATH with a trailing byte",
            &[ORIGIN, &[0x40, 2, 7, 2, 1, 0, 0, 0xfd, 0xe8, 0], NEXT_HOP],
        ),
        routes("NEXT_HOP of 3 bytes", &[ORIGIN, AS_PATH, &[0x40, 3, 3, 10, 0, 0]]),
        routes("NEXT_HOP 0.0.0.0", &[ORIGIN, AS_PATH, &[0x40, 3, 4, 0, 0, 0, 0]]),
        routes(
            "MED of 3 bytes",
            &[ORIGIN, AS_PATH, NEXT_HOP, &[0x80, 4, 3, 0, 0, 1]],
        ),
        routes(
            "COMMUNITIES of 5 bytes",
            &[ORIGIN, AS_PATH, NEXT_HOP, &[0xc0, 8, 5, 0, 0, 0, 0, 1]],
        ),
        routes(
            "COMMUNITIES of 0 bytes",
            &[ORIGIN, AS_PATH, NEXT_HOP, &[0xc0, 8, 0]],
        ),
        routes(
            "last attribute overruns",
            &[ORIGIN, AS_PATH, NEXT_HOP, &[0x80, 4, 200, 0]],
        ),
        attribute("ATOMIC_AGGREGATE of 1 byte", &[0x40, 6, 1, 0]),
        attribute("AGGREGATOR of 5 bytes", &[0xc0, 7, 5, 0, 0, 0, 1, 10]),
        attribute("LOCAL_PREF from outside, 3 bytes", &[0x40, 5, 3, 0, 0, 1]),
    ]
}

/// What cannot even be cut into messages or prefixes ends the session, with the code that names it.
#[test]
fn broken_framing_ends_the_session_with_its_notification() {
    if !root("broken_framing_ends_the_session_with_its_notification") {
        return;
    }
    let _others = beside_others();
    let (link, speaker) = stage();
    drop(Script::establish(&link, Opening::default()));
    let mut marker = message(KEEPALIVE, &[]);
    marker[3] = 0;
    let length = |length: u16| {
        let mut bytes = message(KEEPALIVE, &[]);
        bytes[16..18].copy_from_slice(&length.to_be_bytes());
        bytes
    };
    let cases = [
        ("a marker that is not all ones", marker, (1, 1)),
        ("length 18", length(18), (1, 2)),
        ("length 5000", length(5000), (1, 2)),
        ("a KEEPALIVE with a body", message(KEEPALIVE, &[0]), (1, 2)),
        ("type 9", message(9, &[]), (1, 3)),
        (
            "attributes beyond the message",
            message(UPDATE, &[0, 0, 0xff, 0xff]),
            (3, 1),
        ),
        (
            "a prefix of 33 bits",
            update(&[ORIGIN, AS_PATH, NEXT_HOP].concat(), &[33, 198, 51, 100, 0, 0]),
            (3, 10),
        ),
        ("a second OPEN", Opening::default().message(), (5, 3)),
    ];
    for (what, bytes, notification) in cases {
        // Also ends the damping of a peer that failed several times in a row.
        speaker.act("/v1/peers/reset?peer=tor").expect("it can");
        let mut script = Script::establish(&link, Opening::default());
        script.send(&bytes);
        assert_eq!(script.expect_notification(), notification, "{what}");
        assert!(script.closed_silently(), "{what}: nothing follows");
        let error = speaker
            .peer()
            .expect("a peer")
            .last_error
            .expect("a reason is shown");
        assert!(error.starts_with("sent "), "{what}: {error}");
    }
}

/// | OPEN with         | answer                       |
/// |-------------------|------------------------------|
/// | another AS        | 2/2 Bad Peer AS              |
/// | version 3         | 2/1 Unsupported Version      |
/// | hold time 1       | 2/6 Unacceptable Hold Time   |
/// | identifier 0      | 2/3 Bad BGP Identifier       |
#[test]
fn an_open_that_does_not_fit_is_answered_with_its_reason() {
    if !root("an_open_that_does_not_fit_is_answered_with_its_reason") {
        return;
    }
    let _others = beside_others();
    let (link, speaker) = stage();
    let usual = Opening::default();
    let cases = [
        (Opening { asn: 64999, ..usual }, (2, 2), "Bad Peer AS"),
        (Opening { version: 3, ..usual }, (2, 1), "Unsupported Version"),
        (
            Opening {
                hold_time: 1,
                ..usual
            },
            (2, 6),
            "Unacceptable Hold Time",
        ),
        (
            Opening {
                identifier: [0; 4],
                ..usual
            },
            (2, 3),
            "Bad BGP Identifier",
        ),
    ];
    for (opening, notification, words) in cases {
        let mut script = Script::connect(&link);
        script.send(&opening.message());
        script.expect(OPEN);
        assert_eq!(script.expect_notification(), notification, "{words}");
        let told = || {
            let error = speaker.peer().and_then(|peer| peer.last_error);
            error.is_some_and(|error| error.contains(words))
        };
        wait_until(PATIENCE, words, told).expect("the status tells it");
        assert!(script.closed_silently());
    }
}

/// The network may cut messages anywhere, and put many into one segment.
#[test]
fn bytes_may_come_one_by_one_or_all_at_once() {
    if !root("bytes_may_come_one_by_one_or_all_at_once") {
        return;
    }
    let _others = beside_others();
    let (link, speaker) = stage();
    let mut script = Script::establish(&link, Opening::default());
    for byte in good() {
        script.send(&[byte]);
    }
    wait_until(PATIENCE, "the route is there", || has_route(&speaker)).expect("a route");

    let many: Vec<u8> = (0..10_000_u16)
        .flat_map(|i| {
            let [high, low] = i.to_be_bytes();
            update(&[ORIGIN, AS_PATH, NEXT_HOP].concat(), &[32, 198, 18, high, low])
        })
        .collect();
    script.send(&many);
    let received = || speaker.peer().expect("a peer").families[0].received;
    wait_until(PATIENCE, "10,000 routes more are there", || received() == 10_001).expect("routes");
}

/// A peer of before 2007, without 4-byte AS numbers.
#[test]
fn a_peer_with_two_byte_as_numbers() {
    if !root("a_peer_with_two_byte_as_numbers") {
        return;
    }
    let _others = beside_others();
    let (link, speaker) = stage();
    let mut script = Script::establish(
        &link,
        Opening {
            four_byte_as: false,
            ..Opening::default()
        },
    );
    let path: &[u8] = &[0x40, 2, 4, 2, 1, 0xfd, 0xe8];
    script.send(&update(&[ORIGIN, path, NEXT_HOP].concat(), NLRI));
    wait_until(PATIENCE, "the route is there", || has_route(&speaker)).expect("a route");
    let ours = script.expect(UPDATE);
    let two_bytes: &[u8] = &[0x40, 2, 4, 2, 1, 0xfd, 0xe9];
    assert!(
        ours.windows(two_bytes.len()).any(|window| window == two_bytes),
        "AS_PATH 65001 in 2 bytes: {ours:x?}"
    );
}

/// A peer that opens a session with hold time 3 and then falls silent is given up after 3 s, not before.
#[test]
fn a_silent_peer_is_given_up_after_the_hold_time() {
    if !root("a_silent_peer_is_given_up_after_the_hold_time") {
        return;
    }
    let _others = beside_others();
    let (link, _speaker) = stage();
    let mut script = Script::establish(
        &link,
        Opening {
            hold_time: 3,
            ..Opening::default()
        },
    );
    let begun = Instant::now();
    assert_eq!(script.expect_notification(), (4, 0));
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_millis(2500), "too early: {waited:?}");
    assert!(waited <= Duration::from_secs(10), "too late: {waited:?}");
}

/// A router that sends its whole table by mistake is stopped at the limit, with the code that says so.
#[test]
fn too_many_prefixes_end_the_session() {
    if !root("too_many_prefixes_end_the_session") {
        return;
    }
    let _others = beside_others();
    let link = Link::new();
    let peer = PeerSettings::default()
        .with("passive: true")
        .with("maxPrefixes: 10");
    let speaker = Speaker::start(&link, &peer);
    let mut script = Script::establish(&link, Opening::default());
    for i in 0..=10 {
        script.send(&update(
            &[ORIGIN, AS_PATH, NEXT_HOP].concat(),
            &[32, 198, 18, 0, i],
        ));
    }
    assert_eq!(script.expect_notification(), (6, 1));
    let error = || speaker.peer().and_then(|peer| peer.last_error);
    let told = || error().is_some_and(|text| text.contains("Maximum Number of Prefixes"));
    wait_until(PATIENCE, "the status tells it", told).unwrap_or_else(|e| panic!("{e}: {:?}", error()));
}

/// A peer that opens connection after connection, and says nothing on them, neither ends its session nor piles them up.
#[test]
fn a_peer_that_opens_many_connections_keeps_one_session() {
    if !root("a_peer_that_opens_many_connections_keeps_one_session") {
        return;
    }
    let _others = beside_others();
    let (link, mut speaker) = stage();
    let mut script = Script::establish(&link, Opening::default());
    let more: Vec<Script> = (0..100).map(|_| Script::connect(&link)).collect();
    script.send(&good());
    wait_until(PATIENCE, "the session lives", || has_route(&speaker)).expect("a route");
    let pid = speaker.process().pid();
    let descriptors = || {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd"));
        open.map_or(usize::MAX, Iterator::count)
    };
    wait_until(PATIENCE, "the connections are closed", || descriptors() < 50)
        .unwrap_or_else(|timeout| panic!("{timeout}: {} descriptors", descriptors()));
    assert_eq!(speaker.peer().expect("a peer").counters.flaps, 0);
    drop(more);
}

/// A node between two routers is no way from one to the other, whatever they tell it.
///
/// ```text
///   tor 65000  -- 198.51.100.0/24 -->  node 65001  -- (never) -->  other 65002
/// ```
#[test]
fn a_node_is_never_a_transit() {
    if !root("a_node_is_never_a_transit") {
        return;
    }
    let _others = beside_others();
    let link = Link::new();
    link.tor
        .ip(&["addr", "add", &format!("{OTHER_TOR}/24"), "dev", "eth0"]);
    let peers = PeerSettings::default()
        .with("passive: true")
        .and("other", OTHER_TOR);
    let speaker = Speaker::start(&link, &peers);
    let mut tor = Script::establish(&link, Opening::default());
    let other = Opening {
        asn: 65002,
        identifier: [10, 0, 0, 253],
        ..Opening::default()
    };
    let mut other = Script::connect_from(&link, OTHER_TOR).open(other);
    tor.send(&good());
    wait_until(PATIENCE, "the route is there", || has_route(&speaker)).expect("a route");

    // Whatever follows from the first router's route is on its way before what follows from this change.
    speaker.cluster.set_backends(&[]);
    let contains = |body: &[u8], wanted: &[u8]| body.windows(wanted.len()).any(|window| window == wanted);
    let mut withdrawn = false;
    while !withdrawn {
        let body = other.expect(UPDATE);
        assert!(!contains(&body, NLRI), "the other router's route: {body:x?}");
        withdrawn = body[..2] != [0, 0];
    }
}

/// What the speaker itself needs from the change of a file to the withdrawal on the wire, measured without a router's own
/// delays.
#[test]
fn a_withdrawal_is_on_the_wire_at_once() {
    if !root("a_withdrawal_is_on_the_wire_at_once") {
        return;
    }
    let _quiet = alone();
    let (link, speaker) = stage();
    let mut script = Script::establish(&link, Opening::default());
    let vip: &[u8] = &[32, 203, 0, 113, 10];
    let names_vip = |body: &[u8]| body.windows(vip.len()).any(|window| window == vip);
    while !names_vip(&script.expect(UPDATE)) {}
    let mut times = Vec::new();
    for _ in 0..9 {
        let begun = Instant::now();
        speaker.cluster.set_backends(&[]);
        while !names_vip(&script.expect(UPDATE)) {}
        times.push(begun.elapsed());
        speaker.cluster.set_backends(&crate::support::Cluster::BACKENDS);
        while !names_vip(&script.expect(UPDATE)) {}
    }
    times.sort();
    println!(
        "from the manifest's change to the withdrawal on the wire: median {:.1} ms, worst {:.1} ms",
        times[4].as_secs_f64() * 1e3,
        times[8].as_secs_f64() * 1e3
    );
    assert!(times[8] <= Duration::from_secs(1), "{times:?}");
}

/// A machine that does not run our process for longer than the hold time costs no session: the keepalives that came
/// meanwhile count.
///
/// ```text
///   tor   KEEPALIVE . KEEPALIVE . KEEPALIVE . KEEPALIVE . KEEPALIVE        hold time 3 s
///   node  -------- stopped for 4 s ---------| reads them all                => still established
/// ```
#[test]
fn keepalives_that_waited_in_the_kernel_count() {
    if !root("keepalives_that_waited_in_the_kernel_count") {
        return;
    }
    let _others = beside_others();
    let (link, mut speaker) = stage();
    let opening = Opening {
        hold_time: 3,
        ..Opening::default()
    };
    let mut script = Script::establish(&link, opening);
    let begun = Instant::now();
    let stopped = Duration::from_secs(4);
    speaker.process().signal(Signal::SIGSTOP).expect("signalled");
    let mut next = begun;
    while begun.elapsed() < stopped {
        if Instant::now() >= next {
            script.send(&message(KEEPALIVE, &[]));
            next += Duration::from_secs(1);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    speaker.process().signal(Signal::SIGCONT).expect("signalled");
    script.send(&message(KEEPALIVE, &[]));
    let sent = || speaker.peer().map(|peer| peer.counters.messages_received);
    wait_until(PATIENCE, "the speaker has read them", || {
        sent().is_some_and(|count| count >= 6)
    })
    .expect("read");
    let peer = speaker.peer().expect("a peer");
    assert_eq!((peer.established(), peer.counters.flaps), (true, 0), "{peer:?}");
}

/// ```text
///   tor: 10.0.0.254 is configured, 10.0.0.253 is not        => the second is closed without a word, counted, and harms nobody
/// ```
#[test]
fn a_stranger_is_turned_away() {
    if !root("a_stranger_is_turned_away") {
        return;
    }
    let _others = beside_others();
    let (link, speaker) = stage();
    let script = Script::establish(&link, Opening::default());
    link.tor
        .ip(&["addr", "add", &format!("{OTHER_TOR}/24"), "dev", "eth0"]);
    let mut stranger = Script::connect_from(&link, OTHER_TOR);
    assert!(stranger.closed_silently());
    let counted = "isthmus_bgp_refused_connections_total 1";
    assert!(speaker.text("/metrics").expect("metrics").contains(counted));
    assert!(speaker.established(), "the session stays");
    drop(script);
}
