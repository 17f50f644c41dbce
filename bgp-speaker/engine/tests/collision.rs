//! Two connections to one peer, decided message by message (RFC 4271 §6.8, RFC 4724 §4.2).
//!
//! The speaker has router id 10.0.0.1. `out` is the connection that it asked for, `in` the one that the peer made.
mod rig;

use std::net::Ipv4Addr;
use std::time::Duration;

use isthmus_bgp_engine::State::{Connect, Established, OpenConfirm, OpenSent};
use isthmus_bgp_engine::{ConnId, GracefulRestart, Input};
use isthmus_bgp_packet::capability::{Capability, GracefulRestart as Restart};
use isthmus_bgp_packet::{Family, Open};
use rig::{PEER, Rig, end, keepalive, open};

/// Accepts a connection from the peer beside the one that the rig has.
fn accept(rig: &mut Rig) -> ConnId {
    let conn = rig
        .speaker
        .accept(rig.now, end(1, 179), end(9, 50000))
        .expect("accepted");
    rig.look();
    conn
}

fn feed(rig: &mut Rig, conn: ConnId, bytes: &[u8]) {
    rig.speaker.handle_input(rig.now, Input::Received { conn, bytes });
    rig.look();
}

fn open_from(last: u8) -> Vec<u8> {
    open(|open| open.router_id = Ipv4Addr::new(10, 0, 0, last))
}

/// Both connections get as far as OpenSent; the OPENs of the peer arrive in both orders. `close` closes the outgoing connection.
///
/// ```text
///  peer's id   first OPEN on   second OPEN   who stays
///  higher      out             in            in   (made by the speaker with the higher id)
///  higher      in              out           in
///  lower       out             in            out
///  lower       in              out           out
/// ```
#[test]
fn the_higher_identifier_wins_whatever_comes_first() {
    for (last, peer_wins) in [(9, true), (0, false)] {
        for out_first in [true, false] {
            let mut rig = Rig::reach(OpenSent);
            let (out, inn) = (rig.conn.unwrap(), accept(&mut rig));
            rig.said.clear();
            let order = if out_first { [out, inn] } else { [inn, out] };
            for conn in order {
                feed(&mut rig, conn, &open_from(last));
            }
            let name = format!("peer id 10.0.0.{last}, out first: {out_first}");
            let closed = if peer_wins { "close" } else { "close other" };
            // The second OPEN decides: a KEEPALIVE for each OPEN that is taken, a Cease for the connection that goes.
            let takes_second = (order[1] == inn) == peer_wins;
            let said = if takes_second {
                format!("KEEPALIVE N6/7 {closed} KEEPALIVE")
            } else {
                format!("KEEPALIVE N6/7 {closed}")
            };
            assert_eq!(rig.said.join(" "), said, "{name}");
            let stays = if peer_wins { inn } else { out };
            feed(&mut rig, stays, &keepalive());
            assert_eq!(rig.state(), Established, "{name}");
            assert_eq!(rig.speaker.peer(PEER).unwrap().counters.collisions, 1, "{name}");
        }
    }
}

/// The other connection is already a session: the new one goes, whatever the identifiers.
#[test]
fn a_session_beats_a_new_connection() {
    for last in [0, 9] {
        let mut rig = Rig::reach(Established);
        let conn = accept(&mut rig);
        rig.said.clear();
        rig.now += Duration::from_secs(5);
        feed(&mut rig, conn, &open_from(last));
        assert_eq!(
            (rig.state(), rig.said.join(" ")),
            (Established, "N6/7 close other".into())
        );
    }
}

/// A session that is established ends the other attempt at once, with a Cease if it had begun to talk.
#[test]
fn an_established_session_ends_the_other_attempt() {
    let mut rig = Rig::reach(OpenConfirm);
    accept(&mut rig);
    rig.said.clear();
    rig.feed(&keepalive());
    assert_eq!(rig.said.join(" "), "N6/7 close other up UPDATE");

    let mut rig = Rig::reach(Connect);
    let conn = accept(&mut rig);
    feed(&mut rig, conn, &open(|_| {}));
    rig.said.clear();
    feed(&mut rig, conn, &keepalive());
    assert_eq!(
        rig.said.join(" "),
        "close up UPDATE",
        "an attempt to connect ends without a word"
    );
}

/// The peer gives up its first connection and makes a second one: the newer one counts.
#[test]
fn the_newest_of_two_connections_from_the_peer_stays() {
    let mut rig = Rig::reach(Connect);
    let first = accept(&mut rig);
    feed(&mut rig, first, &open(|_| {}));
    rig.said.clear();
    let second = accept(&mut rig);
    assert_eq!(rig.said.join(" "), "N6/7 close other OPEN");
    feed(&mut rig, second, &open(|_| {}));
    feed(&mut rig, second, &keepalive());
    assert_eq!(rig.state(), Established);
}

fn restarted(bit: bool) -> impl FnOnce(&mut Open) {
    move |open| {
        open.capabilities.push(Capability::GracefulRestart(Restart {
            restarted: bit,
            notification: false,
            time: 120,
            families: vec![(Family::Ipv4Unicast.into(), true)],
        }));
    }
}

/// A peer with graceful restart connects anew over an established session (RFC 4724 §4.2).
///
/// ```text
///  R bit   accepted after the session began   the old session
///  set     more than a second                 ends in silence: the peer restarted
///  set     less than a second                 stays: a late part of the collision in which it began
///  clear   any time                           stays
/// ```
#[test]
fn a_restarted_peer_replaces_its_session() {
    for (bit, after, replaced) in [(true, 1500, true), (true, 500, false), (false, 1500, false)] {
        let mut rig = Rig::new();
        rig.peers.get_mut(&PEER).unwrap().graceful_restart = Some(GracefulRestart::default());
        rig.apply();
        rig.timeout();
        rig.connected();
        rig.feed(&open(restarted(false)));
        rig.feed(&keepalive());
        assert_eq!(rig.state(), Established);
        rig.now += Duration::from_millis(after);
        let conn = accept(&mut rig);
        rig.said.clear();
        feed(&mut rig, conn, &open(restarted(bit)));
        let expected = if replaced {
            "close down KEEPALIVE"
        } else {
            "N6/7 close other"
        };
        assert_eq!(rig.said.join(" "), expected, "R {bit}, after {after} ms");
        if replaced {
            feed(&mut rig, conn, &keepalive());
        }
        assert_eq!(rig.state(), Established);
    }
}
