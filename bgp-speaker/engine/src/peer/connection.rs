//! One TCP connection to a peer and how far it has come.
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use isthmus_bgp_packet::Family;

use crate::io::ConnId;
use crate::view::PeerCapabilities;

/// The states of RFC 4271 §8.2.2 that a single connection can be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Connecting,
    OpenSent,
    OpenConfirm,
    Established,
}

/// What both OPENs together agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) conn: ConnId,
    pub(crate) asn: u32,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) internal: bool,
    /// Seconds; 0 is none.
    pub(crate) hold_time: u16,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) as4: bool,
    pub(crate) refresh: bool,
    /// In the order of [`Family::ALL`].
    pub(crate) families: Vec<Family>,
    pub(crate) restart: Option<Restart>,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) capabilities: PeerCapabilities,
    /// When it was established.
    pub(crate) since: Duration,
}

impl Session {
    pub(crate) fn has(&self, family: Family) -> bool {
        self.families.contains(&family)
    }
}

/// Graceful restart as both sides offered it: what the peer wants us to do for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Restart {
    /// The peer has restarted (R bit).
    pub(crate) restarted: bool,
    /// Both keep routes over NOTIFICATIONs (N bits).
    pub(crate) notification: bool,
    pub(crate) time: Duration,
    /// Families of the capability that we know, each with its F bit.
    pub(crate) families: Vec<(Family, bool)>,
}

/// A connection, or the attempt to make one.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnId,
    /// We asked for it, not the peer.
    pub(crate) outgoing: bool,
    pub(crate) phase: Phase,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) remote: SocketAddr,
    /// When it was asked for or accepted.
    pub(crate) since: Duration,
    /// Give up at this time unless something arrives: the hold timer, or the limit of an attempt to connect.
    pub(crate) hold: Option<Duration>,
    /// Send a KEEPALIVE at this time.
    pub(crate) keepalive: Option<Duration>,
    /// Give up at this time unless the kernel takes bytes (RFC 9687).
    pub(crate) send_hold: Option<Duration>,
    /// Bytes that were sent and not yet reported as written.
    pub(crate) unwritten: usize,
    /// Set from the OPEN of the peer on.
    pub(crate) session: Option<Session>,
    /// The beginning of a message whose rest has not arrived.
    pub(crate) buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(id: ConnId, outgoing: bool, remote: SocketAddr, now: Duration) -> Self {
        Self {
            id,
            outgoing,
            phase: Phase::Connecting,
            local: None,
            remote,
            since: now,
            hold: None,
            keepalive: None,
            send_hold: None,
            unwritten: 0,
            session: None,
            buffer: Vec::new(),
        }
    }

    /// The earliest of its timers.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        [self.hold, self.keepalive, self.send_hold]
            .into_iter()
            .flatten()
            .min()
    }

    /// Anything that arrives restarts the hold timer of a session that has one.
    pub(crate) fn heard(&mut self, now: Duration) {
        if let Some(session) = &self.session {
            let hold = u64::from(session.hold_time);
            self.hold = (hold > 0).then(|| now + Duration::from_secs(hold));
        }
    }
}
