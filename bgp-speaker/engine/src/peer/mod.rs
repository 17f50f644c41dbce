//! The machine of one peer: up to two connections, the timers of RFC 4271 §8, and what a session agreed on.
//!
//! ```text
//!            start            up             OPEN              KEEPALIVE
//!  Idle ───────────▶ Connect ────▶ OpenSent ──────▶ OpenConfirm ─────────▶ Established
//!   ▲  ▲               │ fails        │ any error: NOTIFICATION, close          │
//!   │  └─ damped ──────▼──────────────▼─────────────────────────────────────────┘
//!   │               Active (waits for the peer, or for the next attempt)
//!   └── administratively down, too many prefixes
//! ```
pub(crate) mod collision;
pub(crate) mod connection;
mod input;
mod negotiate;
mod timers;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use isthmus_bgp_packet::notification::{cease, code};
use isthmus_bgp_packet::{Family, Notification};

use self::connection::{Connection, Phase, Session};
use crate::config::{AdminState, PeerConfig, PeerId};
use crate::io::{ConnId, DownReason, Output};
use crate::view::{Counters, State};

/// What a peer has to know of the speaker that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Local {
    pub(crate) asn: u32,
    pub(crate) router_id: Ipv4Addr,
    /// We have restarted and are not yet complete.
    pub(crate) restarting: bool,
    /// We have restarted, and our forwarding went on meanwhile.
    pub(crate) preserved: bool,
}

/// What happened to a peer, for the speaker to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Output(Output),
    /// The session is established.
    Up,
    /// It is over; the routes of these families are kept as stale.
    Down {
        keep: Vec<Family>,
    },
}

/// Why a peer is held down although the operator wants it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Block {
    Until(Duration),
    ForGood,
}

/// Failures in a row after which connections from the peer are refused too, until the pause is over.
const DAMP_AFTER: u32 = 4;
/// A session that lasted this long was no flap.
const STABLE: Duration = Duration::from_secs(30);

/// For how long the text of a NOTIFICATION is shown although attempts to connect failed since.
const WORTH: Duration = Duration::from_secs(600);

/// Why the last connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastError {
    pub(crate) text: String,
    pub(crate) at: Duration,
    /// There was a NOTIFICATION.
    told: bool,
}

/// One peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) config: PeerConfig,
    pub(crate) connections: Vec<Connection>,
    /// The established session.
    pub(crate) session: Option<Arc<Session>>,
    /// The last established session, for what is shown and for the routes that it left behind.
    pub(crate) last_session: Option<Arc<Session>>,
    pub(crate) block: Option<Block>,
    /// When to connect again.
    pub(crate) retry: Option<Duration>,
    /// Attempts since a session was stable; sets the pause.
    failures: u32,
    /// Sessions or OPENs that failed since a session was stable.
    unstable: u32,
    pub(crate) counters: Counters,
    pub(crate) last_error: Option<LastError>,
    shown: (State, Duration),
    pub(crate) events: VecDeque<Event>,
}

impl Peer {
    pub(crate) fn new(now: Duration, id: PeerId, config: PeerConfig) -> Self {
        let mut peer = Self {
            id,
            config,
            connections: Vec::new(),
            session: None,
            last_session: None,
            block: None,
            retry: None,
            failures: 0,
            unstable: 0,
            counters: Counters::default(),
            last_error: None,
            shown: (State::Idle, now),
            events: VecDeque::new(),
        };
        peer.start(now);
        peer
    }

    /// Ready to connect or to be connected to, at once and without damping.
    pub(crate) fn start(&mut self, now: Duration) {
        self.failures = 0;
        self.unstable = 0;
        self.block = None;
        self.retry = (self.is_wanted() && self.connections.is_empty()).then_some(now);
        self.settle(now);
    }

    /// True if the operator wants a session and nothing blocks it.
    pub(crate) fn is_wanted(&self) -> bool {
        self.config.admin == AdminState::Up && self.block.is_none()
    }

    pub(crate) fn is_damped(&self, now: Duration) -> bool {
        self.unstable >= DAMP_AFTER && self.retry.is_some_and(|at| at > now)
    }

    /// The state to show, and since when.
    pub(crate) fn state(&self) -> (State, Duration) {
        self.shown
    }

    fn find_state(&self, now: Duration) -> State {
        match self.connections.iter().map(|connection| connection.phase).max() {
            Some(Phase::Established) => State::Established,
            Some(Phase::OpenConfirm) => State::OpenConfirm,
            Some(Phase::OpenSent) => State::OpenSent,
            Some(Phase::Connecting) => State::Connect,
            None if !self.is_wanted() || self.is_damped(now) => State::Idle,
            None => State::Active,
        }
    }

    /// Called after every change.
    pub(crate) fn settle(&mut self, now: Duration) {
        let state = self.find_state(now);
        if state != self.shown.0 {
            self.shown = (state, now);
        }
    }

    pub(crate) fn index(&self, conn: ConnId) -> Option<usize> {
        self.connections
            .iter()
            .position(|connection| connection.id == conn)
    }

    pub(crate) fn connection(&self, conn: ConnId) -> Option<&Connection> {
        self.connections.iter().find(|connection| connection.id == conn)
    }

    pub(crate) fn connection_mut(&mut self, conn: ConnId) -> Option<&mut Connection> {
        self.connections
            .iter_mut()
            .find(|connection| connection.id == conn)
    }

    fn output(&mut self, output: Output) {
        self.events.push_back(Event::Output(output));
    }

    /// Sends whole messages.
    pub(crate) fn send(&mut self, now: Duration, conn: ConnId, bytes: Vec<u8>, messages: usize) {
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        let hold = connection.session.as_ref().map_or(0, |session| session.hold_time);
        connection.unwritten += bytes.len();
        connection.send_hold.get_or_insert(now + timers::send_hold(hold));
        self.counters.messages_out += messages as u64;
        self.output(Output::Send {
            conn,
            bytes: bytes.into(),
        });
    }

    /// The shell has written some of what was sent.
    pub(crate) fn written(&mut self, now: Duration, conn: ConnId, bytes: usize) {
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        connection.unwritten = connection.unwritten.saturating_sub(bytes);
        let hold = connection.session.as_ref().map_or(0, |session| session.hold_time);
        connection.send_hold = (connection.unwritten > 0).then(|| now + timers::send_hold(hold));
    }

    /// Ends a connection with a NOTIFICATION.
    pub(crate) fn refuse(&mut self, now: Duration, conn: ConnId, notification: Notification) {
        let hard = matches!(
            (notification.code, notification.subcode),
            (
                code::CEASE,
                cease::ADMIN_SHUTDOWN | cease::PEER_DECONFIGURED | cease::MAX_PREFIXES
            )
        );
        let session = self
            .connection(conn)
            .and_then(|connection| connection.session.as_ref());
        let wraps = session
            .and_then(|s| s.restart.as_ref())
            .is_some_and(|restart| restart.notification);
        let sent = if hard && wraps {
            notification.clone().into_hard_reset()
        } else {
            notification.clone()
        };
        let mut bytes = Vec::new();
        sent.encode(&mut bytes);
        self.counters.notifications_out += 1;
        self.send(now, conn, bytes, 1);
        self.end(now, conn, DownReason::Sent(notification), true);
    }

    /// Forgets a connection. `close` says that the shell still has it.
    pub(crate) fn end(&mut self, now: Duration, conn: ConnId, reason: DownReason, close: bool) {
        let Some(index) = self.index(conn) else { return };
        self.connections.remove(index);
        let told = !matches!(reason, DownReason::Connection(_));
        if close {
            self.output(Output::Close { conn });
        }
        let session = self.session.take_if(|session| session.conn == conn);
        let was_established = session.is_some();
        self.remember(now, &reason, told, was_established);
        let keep = session
            .as_ref()
            .map_or_else(Vec::new, |session| kept_families(session, &reason));
        let stale_kept = !keep.is_empty();
        if let Some(session) = session {
            self.counters.flaps += 1;
            if now.saturating_sub(session.since) >= STABLE {
                self.failures = 0;
                self.unstable = 0;
            }
            self.events.push_back(Event::Down { keep });
        }
        self.output(Output::SessionDown {
            peer: self.id,
            reason,
            was_established,
            stale_kept,
        });
        self.failures = self.failures.saturating_add(1);
        // A connection that closes without a word says that the peer is not ready, not that it flaps.
        if told || was_established {
            self.unstable = self.unstable.saturating_add(1);
        }
        self.schedule_retry(now);
        self.settle(now);
    }

    /// Remembers why a connection ended. What a NOTIFICATION says is worth more than the failures to connect that follow it.
    fn remember(&mut self, now: Duration, reason: &DownReason, told: bool, was_established: bool) {
        let recent = self
            .last_error
            .as_ref()
            .is_some_and(|error| error.told && now.saturating_sub(error.at) < WORTH);
        if told || was_established || !recent {
            self.last_error = Some(LastError {
                text: reason.to_string(),
                at: now,
                told,
            });
        }
    }

    /// Forgets the connection that lost a collision: nothing failed.
    fn end_loser(&mut self, now: Duration, conn: ConnId) {
        let Some(index) = self.index(conn) else { return };
        if self.connections[index].phase > Phase::Connecting {
            let mut bytes = Vec::new();
            Notification::new(code::CEASE, cease::COLLISION).encode(&mut bytes);
            self.counters.notifications_out += 1;
            self.counters.collisions += 1;
            self.send(now, conn, bytes, 1);
        }
        self.connections.remove(index);
        self.output(Output::Close { conn });
    }

    /// Ends every connection with a NOTIFICATION, for the operator.
    pub(crate) fn shut(&mut self, now: Duration, notification: &Notification) {
        while let Some(connection) = self.connections.first() {
            let conn = connection.id;
            match connection.phase {
                Phase::Connecting => {
                    self.connections.remove(0);
                    self.output(Output::Close { conn });
                }
                _ => self.refuse(now, conn, notification.clone()),
            }
        }
        self.settle(now);
    }

    /// Closes every connection without a word, so that the peer keeps our routes.
    pub(crate) fn leave(&mut self, now: Duration) {
        while let Some(connection) = self.connections.first() {
            let conn = connection.id;
            self.end(now, conn, DownReason::Restart, true);
        }
        self.retry = None;
    }

    /// The remote end that we connect to.
    fn target(&self) -> SocketAddr {
        SocketAddr::new(self.config.address, self.config.port)
    }
}

/// The families whose routes stay when a session ends (RFC 4724 §4.2, RFC 8538 §4).
fn kept_families(session: &Session, reason: &DownReason) -> Vec<Family> {
    let Some(restart) = &session.restart else {
        return Vec::new();
    };
    let keeps = match reason {
        DownReason::Connection(_) | DownReason::PeerRestarted => true,
        DownReason::Received(notification) => restart.notification && !notification.is_hard_reset(),
        DownReason::Sent(notification) => {
            let ours_for_good = notification.code == code::CEASE
                && matches!(
                    notification.subcode,
                    cease::ADMIN_SHUTDOWN | cease::PEER_DECONFIGURED | cease::MAX_PREFIXES | cease::BFD_DOWN
                );
            restart.notification && !ours_for_good
        }
        DownReason::Restart => false,
    };
    if !keeps {
        return Vec::new();
    }
    let list = restart.families.iter().map(|(family, _)| *family);
    list.filter(|family| session.has(*family)).collect()
}
