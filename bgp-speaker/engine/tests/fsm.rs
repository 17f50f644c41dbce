//! Every state of RFC 4271 §8 against every event: where the peer goes, and what it says.
mod rig;

use std::net::Ipv4Addr;
use std::time::Duration;

use isthmus_bgp_engine::State::{self, Active, Connect, Established, Idle, OpenConfirm, OpenSent};
use isthmus_bgp_engine::{AdminState, ConnId, Input};
use isthmus_bgp_packet::notification::Notification;
use isthmus_bgp_packet::route_refresh::{RouteRefresh, Subtype};
use isthmus_bgp_packet::{Capability, Family, Open, write};
use rig::{PEER, Rig, end, keepalive, open};

fn update() -> Vec<u8> {
    let mut out = Vec::new();
    write::end_of_rib(&mut out, Family::Ipv4Unicast);
    out
}

fn refresh() -> Vec<u8> {
    let mut out = Vec::new();
    RouteRefresh {
        family: Family::Ipv4Unicast.into(),
        subtype: Subtype::Request,
    }
    .encode(&mut out);
    out
}

fn cease() -> Vec<u8> {
    let mut out = Vec::new();
    Notification::new(6, 4).encode(&mut out);
    out
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Timeout,
    Accept,
    Connected,
    ConnectFailed,
    Closed,
    Open,
    OpenWrongAs,
    OpenNoHold,
    Keepalive,
    Update,
    Refresh,
    Cease,
    Garbage,
    HoldTimeout,
    AdminDown,
    Reset,
    Removed,
}

impl Event {
    fn happen(self, rig: &mut Rig) {
        let conn = rig.conn.unwrap_or(ConnId(999));
        match self {
            Event::Timeout => rig.timeout(),
            Event::Accept => match rig.speaker.accept(rig.now, end(1, 179), end(9, 50000)) {
                Ok(_) => rig.said.push("accepted".into()),
                Err(_) => rig.said.push("refused".into()),
            },
            Event::Connected => rig.connected(),
            Event::ConnectFailed => {
                rig.speaker.handle_input(
                    rig.now,
                    Input::ConnectFailed {
                        conn,
                        error: "refused",
                    },
                );
            }
            Event::Closed => rig.speaker.handle_input(
                rig.now,
                Input::Closed {
                    conn,
                    error: "closed",
                },
            ),
            Event::Open => rig.feed(&open(|_| {})),
            Event::OpenWrongAs => rig.feed(&open(|open| {
                open.asn = 65099;
                open.capabilities[1] = Capability::FourByteAs(65099);
            })),
            Event::OpenNoHold => rig.feed(&open(|open| open.hold_time = 2)),
            Event::Keepalive => rig.feed(&keepalive()),
            Event::Update => rig.feed(&update()),
            Event::Refresh => rig.feed(&refresh()),
            Event::Cease => rig.feed(&cease()),
            Event::Garbage => rig.feed(&[0; 19]),
            Event::HoldTimeout => {
                rig.now += Duration::from_secs(61);
                rig.speaker.handle_timeout(rig.now);
            }
            Event::AdminDown => {
                rig.peers.get_mut(&PEER).unwrap().admin = AdminState::Down("night".into());
                rig.apply();
            }
            Event::Reset => rig.speaker.reset(rig.now, PEER, "try again"),
            Event::Removed => {
                rig.peers.clear();
                rig.apply();
            }
        }
        rig.look();
    }
}

fn check(state: State, table: &[(Event, State, &str)]) {
    for (event, expected, said) in table {
        let mut rig = Rig::reach(state);
        event.happen(&mut rig);
        assert_eq!(
            (rig.state(), rig.said.join(" ")),
            (*expected, (*said).to_string()),
            "{state} + {event:?}"
        );
        // Whatever happened, no timer is due for ever, and nothing is left to say.
        for _ in 0..50 {
            rig.timeout();
        }
        let due = rig.speaker.poll_timeout();
        assert!(
            due.is_none_or(|due| due > rig.now),
            "{state} + {event:?}: a timer that is due for ever"
        );
    }
}

#[test]
fn idle() {
    check(
        Idle,
        &[
            (Event::Timeout, Idle, ""),
            (Event::Accept, Idle, "refused"),
            (Event::Connected, Idle, ""),
            (Event::Closed, Idle, ""),
            (Event::Open, Idle, ""),
            (Event::HoldTimeout, Idle, ""),
            (Event::AdminDown, Idle, ""),
            (Event::Reset, Idle, ""),
            (Event::Removed, Idle, ""),
        ],
    );
}

#[test]
fn connect() {
    check(
        Connect,
        &[
            (Event::Accept, OpenSent, "accepted OPEN"),
            (Event::Connected, OpenSent, "OPEN"),
            (Event::ConnectFailed, Active, ""),
            (Event::Timeout, Active, "close"),
            (Event::Open, Connect, ""),
            (Event::Garbage, Connect, ""),
            (Event::HoldTimeout, Active, "close"),
            (Event::AdminDown, Idle, "close"),
            (Event::Reset, Active, "close"),
            (Event::Removed, Idle, "close"),
        ],
    );
}

#[test]
fn active() {
    check(
        Active,
        &[
            (Event::Timeout, Connect, "connect"),
            (Event::Accept, OpenSent, "accepted OPEN"),
            (Event::Connected, Active, ""),
            (Event::ConnectFailed, Active, ""),
            (Event::Closed, Active, ""),
            (Event::Open, Active, ""),
            (Event::AdminDown, Idle, ""),
            (Event::Reset, Active, ""),
            (Event::Removed, Idle, ""),
        ],
    );
}

#[test]
fn open_sent() {
    check(
        OpenSent,
        &[
            (Event::Accept, OpenSent, "accepted OPEN"),
            (Event::Connected, OpenSent, ""),
            (Event::Closed, Active, ""),
            (Event::Open, OpenConfirm, "KEEPALIVE"),
            (Event::OpenWrongAs, Active, "N2/2 close"),
            (Event::OpenNoHold, Active, "N2/6 close"),
            (Event::Keepalive, Active, "N5/1 close"),
            (Event::Update, Active, "N5/1 close"),
            (Event::Refresh, Active, "N5/1 close"),
            (Event::Cease, Active, "close"),
            (Event::Garbage, Active, "N1/1 close"),
            (Event::HoldTimeout, Active, "N4/0 close"),
            (Event::AdminDown, Idle, "N6/2 close"),
            (Event::Reset, Active, "N6/4 close"),
            (Event::Removed, Idle, "N6/3 close"),
        ],
    );
}

#[test]
fn open_confirm() {
    check(
        OpenConfirm,
        &[
            (Event::Accept, OpenConfirm, "accepted OPEN"),
            (Event::Closed, Active, ""),
            (Event::Timeout, OpenConfirm, "KEEPALIVE"),
            (Event::Open, Active, "N5/2 close"),
            (Event::Keepalive, Established, "up UPDATE"),
            (Event::Update, Active, "N5/2 close"),
            (Event::Refresh, Active, "N5/2 close"),
            (Event::Cease, Active, "close"),
            (Event::Garbage, Active, "N1/1 close"),
            (Event::HoldTimeout, Active, "N4/0 close"),
            (Event::AdminDown, Idle, "N6/2 close"),
            (Event::Reset, Active, "N6/4 close"),
            (Event::Removed, Idle, "N6/3 close"),
        ],
    );
}

#[test]
fn established() {
    check(
        Established,
        &[
            (Event::Accept, Established, "accepted OPEN"),
            (Event::Connected, Established, ""),
            (Event::Closed, Active, "down"),
            (Event::Timeout, Established, "KEEPALIVE"),
            (Event::Open, Active, "N5/3 close down"),
            (Event::Keepalive, Established, ""),
            (Event::Update, Established, ""),
            (Event::Refresh, Established, "UPDATE"),
            (Event::Cease, Active, "close down"),
            (Event::Garbage, Active, "N1/1 close down"),
            (Event::HoldTimeout, Active, "N4/0 close down"),
            (Event::AdminDown, Idle, "N6/2 close down"),
            (Event::Reset, Active, "N6/4 close down"),
            (Event::Removed, Idle, "N6/3 close down"),
        ],
    );
}

/// The hold timer runs out exactly after the negotiated time without a message; anything that arrives starts it again.
#[test]
fn hold_timer() {
    let mut rig = Rig::reach(Established);
    for _ in 0..5 {
        rig.now += Duration::from_secs(8);
        rig.speaker.handle_timeout(rig.now);
        rig.feed(&keepalive());
        assert_eq!(rig.state(), Established);
    }
    rig.now += Duration::from_millis(8_999);
    rig.speaker.handle_timeout(rig.now);
    assert_eq!(rig.state(), Established);
    rig.now += Duration::from_millis(1);
    rig.speaker.handle_timeout(rig.now);
    assert_eq!(rig.state(), Active);
}

/// OPENs at the edges of what is allowed.
#[test]
fn odd_opens() {
    type Edit = fn(&mut Open);
    let table: [(&str, Edit, State, &str); 8] = [
        ("hold time 0", |o| o.hold_time = 0, OpenConfirm, "KEEPALIVE"),
        ("hold time 3", |o| o.hold_time = 3, OpenConfirm, "KEEPALIVE"),
        (
            "hold time 65535",
            |o| o.hold_time = 65535,
            OpenConfirm,
            "KEEPALIVE",
        ),
        (
            "our router id, other AS",
            |o| o.router_id = Ipv4Addr::new(10, 0, 0, 1),
            OpenConfirm,
            "KEEPALIVE",
        ),
        (
            "router id 0",
            |o| o.router_id = Ipv4Addr::UNSPECIFIED,
            Active,
            "N2/3 close",
        ),
        (
            "no capabilities: IPv4 and 2-byte AS",
            |o| o.capabilities.clear(),
            OpenConfirm,
            "KEEPALIVE",
        ),
        (
            "no common family",
            |o| {
                o.capabilities[0] =
                    Capability::Multiprotocol(isthmus_bgp_packet::AfiSafi { afi: 25, safi: 70 });
            },
            Active,
            "N2/7 close",
        ),
        (
            "AS_TRANS as 4-byte AS",
            |o| o.capabilities[1] = Capability::FourByteAs(23456),
            Active,
            "N2/2 close",
        ),
    ];
    for (name, edit, state, said) in table {
        let mut rig = Rig::reach(OpenSent);
        rig.feed(&open(edit));
        assert_eq!(
            (rig.state(), rig.said.join(" ")),
            (state, said.to_string()),
            "{name}"
        );
    }
}

/// A thousand connections from one peer cost one: the newest undecided one stays.
#[test]
fn a_thousand_connections_from_one_peer() {
    let mut rig = Rig::reach(Established);
    let mut open = 0i32;
    for port in 1000..2000 {
        if rig.speaker.accept(rig.now, end(1, 179), end(9, port)).is_ok() {
            open += 1;
        }
        rig.look();
    }
    let closed = rig.said.iter().filter(|word| *word == "close other").count();
    assert!(open - i32::try_from(closed).unwrap() <= 1);
    assert_eq!(rig.state(), Established, "the session is not touched");
    let stranger = rig.speaker.accept(rig.now, end(1, 179), end(77, 1)).unwrap_err();
    assert_eq!(
        stranger.to_string(),
        "no peer is configured with the address 192.0.2.77"
    );
}

/// A keepalive interval of zero would be a timer that is always due; it means "the usual interval".
#[test]
fn a_keepalive_interval_of_zero_does_not_spin() {
    let mut rig = Rig::new();
    rig.peers.get_mut(&PEER).unwrap().keepalive = Some(0);
    rig.apply();
    rig.timeout();
    rig.connected();
    rig.feed(&open(|_| {}));
    rig.feed(&keepalive());
    assert_eq!(
        rig.speaker.peer(PEER).unwrap().keepalive,
        Some(Duration::from_secs(3))
    );
    let start = rig.now;
    rig.timeout();
    assert_eq!(rig.now - start, Duration::from_secs(3));
}
