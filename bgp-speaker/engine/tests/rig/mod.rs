//! One speaker (AS 65001, 10.0.0.1) with one peer (AS 65002, 192.0.2.9), which the test plays byte by byte.
#![allow(dead_code, reason = "each test file uses its part of the rig")]
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use isthmus_bgp_engine::State::{Active, Established, Idle, OpenConfirm, OpenSent};
use isthmus_bgp_engine::{
    AdminState, ConnId, Input, Output, PeerConfig, PeerId, Speaker, SpeakerConfig, State,
};
use isthmus_bgp_packet::frame::{self, MessageType};
use isthmus_bgp_packet::notification::Notification;
use isthmus_bgp_packet::{Capability, Family, Open};

pub(crate) const PEER: PeerId = PeerId(1);

pub(crate) struct Rig {
    pub(crate) now: Duration,
    pub(crate) speaker: Speaker,
    pub(crate) peers: BTreeMap<PeerId, PeerConfig>,
    pub(crate) conn: Option<ConnId>,
    /// What the speaker did since the last look, in short words.
    pub(crate) said: Vec<String>,
}

pub(crate) fn end(last: u8, port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(192, 0, 2, last).into(), port)
}

impl Rig {
    pub(crate) fn new() -> Self {
        let config = SpeakerConfig {
            asn: 65001,
            router_id: Ipv4Addr::new(10, 0, 0, 1),
            restarting: None,
        };
        let now = Duration::from_secs(100);
        let mut config_of_peer = PeerConfig::new(IpAddr::from([192, 0, 2, 9]), 65002);
        config_of_peer.hold_time = 9;
        let peers = BTreeMap::from([(PEER, config_of_peer)]);
        let mut rig = Self {
            now,
            speaker: Speaker::new(now, config).unwrap(),
            peers,
            conn: None,
            said: Vec::new(),
        };
        rig.apply();
        rig
    }

    pub(crate) fn apply(&mut self) {
        self.speaker.set_peers(self.now, self.peers.clone()).unwrap();
        self.look();
    }

    pub(crate) fn look(&mut self) {
        while let Some(output) = self.speaker.poll_output() {
            match output {
                Output::Connect { conn, .. } => {
                    self.conn = Some(conn);
                    self.said.push("connect".into());
                }
                Output::Close { conn } => {
                    self.said.push(if Some(conn) == self.conn {
                        "close".into()
                    } else {
                        "close other".into()
                    });
                }
                Output::Send { bytes, .. } => self.said.extend(words(&bytes)),
                Output::SessionUp { .. } => self.said.push("up".into()),
                Output::SessionDown {
                    was_established: true,
                    ..
                } => self.said.push("down".into()),
                Output::SessionDown { .. } | Output::Notice { .. } => {}
            }
        }
    }

    pub(crate) fn timeout(&mut self) {
        if let Some(due) = self.speaker.poll_timeout() {
            self.now = self.now.max(due);
            self.speaker.handle_timeout(self.now);
            self.look();
        }
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        if let Some(conn) = self.conn {
            self.speaker
                .handle_input(self.now, Input::Received { conn, bytes });
        }
        self.look();
    }

    pub(crate) fn connected(&mut self) {
        if let Some(conn) = self.conn {
            self.speaker.handle_input(
                self.now,
                Input::Connected {
                    conn,
                    local: end(1, 40000),
                },
            );
        }
        self.look();
    }

    /// Brings the peer into a state.
    pub(crate) fn reach(state: State) -> Self {
        let mut rig = Self::new();
        match state {
            Idle => {
                rig.peers.get_mut(&PEER).unwrap().admin = AdminState::Down(String::new());
                rig.apply();
            }
            Active => {
                rig.timeout();
                let conn = rig.conn.take().unwrap();
                let input = Input::ConnectFailed {
                    conn,
                    error: "connection refused",
                };
                rig.speaker.handle_input(rig.now, input);
            }
            _ => rig.timeout(),
        }
        if state >= OpenSent {
            rig.connected();
        }
        if state >= OpenConfirm {
            rig.feed(&open(|_| {}));
        }
        if state >= Established {
            rig.feed(&keepalive());
        }
        rig.look();
        assert_eq!(rig.state(), state);
        rig.said.clear();
        rig
    }

    pub(crate) fn state(&self) -> State {
        self.speaker.peer(PEER).map_or(Idle, |view| view.state)
    }
}

/// The messages in bytes that were sent.
pub(crate) fn words(mut bytes: &[u8]) -> Vec<String> {
    let mut list = Vec::new();
    while let Some(frame) = frame::split(bytes).expect("we send good frames") {
        list.push(match frame.kind {
            MessageType::Open => "OPEN".into(),
            MessageType::Update => "UPDATE".into(),
            MessageType::Keepalive => "KEEPALIVE".into(),
            MessageType::RouteRefresh => "REFRESH".into(),
            MessageType::Notification => {
                let notification = Notification::decode(frame.body).unwrap();
                format!("N{}/{}", notification.code, notification.subcode)
            }
        });
        bytes = &bytes[frame.len..];
    }
    list
}

pub(crate) fn open(edit: impl FnOnce(&mut Open)) -> Vec<u8> {
    let mut open = Open {
        asn: 65002,
        hold_time: 9,
        router_id: Ipv4Addr::new(10, 0, 0, 9),
        capabilities: vec![
            Capability::Multiprotocol(Family::Ipv4Unicast.into()),
            Capability::FourByteAs(65002),
        ],
    };
    edit(&mut open);
    let mut out = Vec::new();
    open.encode(&mut out);
    out
}

pub(crate) fn keepalive() -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode_keepalive(&mut out);
    out
}
