//! The timers of a peer: when what is due, and what happens then.
use std::time::Duration;

use isthmus_bgp_packet::notification::code;
use isthmus_bgp_packet::{Notification, frame};

use super::connection::{Connection, Phase};
use super::{Block, DAMP_AFTER, Peer};
use crate::io::{ConnId, DownReason, Output};

/// How long a peer may take for its OPEN (RFC 4271 §8.2.2 suggests a large value, and four minutes).
pub(super) const OPEN_HOLD: Duration = Duration::from_secs(60);
/// The longest attempt to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The first pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// How long the kernel may take no byte (RFC 9687 §4: the longer of eight minutes and twice the hold time).
pub(super) fn send_hold(hold_time: u16) -> Duration {
    Duration::from_secs(480.max(2 * u64::from(hold_time)))
}

impl Peer {
    /// When the peer wants [`Peer::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        let block = match self.block {
            Some(Block::Until(at)) => Some(at),
            _ => None,
        };
        let timers = self.connections.iter().map(Connection::deadline);
        timers.chain([self.retry, block]).flatten().min()
    }

    /// Does what is due. `conn` is the name of the next connection, taken if one is asked for; says whether it was.
    pub(crate) fn handle_timeout(&mut self, now: Duration, conn: ConnId) -> bool {
        if matches!(self.block, Some(Block::Until(at)) if at <= now) {
            self.start(now);
        }
        let due: Vec<ConnId> = self.connections.iter().map(|connection| connection.id).collect();
        for id in due {
            self.connection_timeout(now, id);
        }
        let connect = self.retry.is_some_and(|at| at <= now) && self.is_wanted();
        let connected = connect && self.connect(now, conn);
        self.settle(now);
        connected
    }

    fn connection_timeout(&mut self, now: Duration, conn: ConnId) {
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        let due = |timer: Option<Duration>| timer.is_some_and(|at| at <= now);
        if due(connection.hold) {
            if connection.phase == Phase::Connecting {
                self.end(
                    now,
                    conn,
                    DownReason::Connection("no answer to the connection attempt".into()),
                    true,
                );
            } else {
                self.refuse(now, conn, Notification::new(code::HOLD_TIMER, 0));
            }
        } else if due(connection.send_hold) {
            self.refuse(now, conn, Notification::new(code::SEND_HOLD_TIMER, 0));
        } else if due(connection.keepalive) {
            self.send_keepalive(now, conn);
        }
    }

    /// Sends a KEEPALIVE and sets the timer for the next one.
    pub(super) fn send_keepalive(&mut self, now: Duration, conn: ConnId) {
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        let interval = connection.session.as_ref().and_then(|session| session.keepalive);
        connection.keepalive = interval.map(|interval| now + interval);
        let mut bytes = Vec::new();
        frame::encode_keepalive(&mut bytes);
        self.send(now, conn, bytes, 1);
    }

    /// Asks the shell for a connection, unless there is one already.
    fn connect(&mut self, now: Duration, conn: ConnId) -> bool {
        self.retry = None;
        if self.config.passive || !self.connections.is_empty() {
            return false;
        }
        let remote = self.target();
        let mut connection = Connection::new(conn, true, remote, now);
        connection.hold = Some(now + CONNECT_LIMIT.min(self.config.connect_retry.max(FIRST_PAUSE)));
        self.connections.push(connection);
        self.output(Output::Connect {
            peer: self.id,
            conn,
            remote,
        });
        true
    }

    /// Sets the time of the next attempt, later after each failure.
    pub(super) fn schedule_retry(&mut self, now: Duration) {
        let idle = self.connections.is_empty() && self.is_wanted();
        // A passive peer has nothing to try, but its pause is what damps it.
        if !idle || (self.config.passive && self.unstable < DAMP_AFTER) {
            self.retry = None;
            return;
        }
        let doublings = self.failures.saturating_sub(1).min(16);
        let pause = (FIRST_PAUSE * (1 << doublings)).min(self.config.connect_retry.max(FIRST_PAUSE));
        self.retry = Some(now + self.jitter(pause));
    }

    /// Takes up to a quarter off, so that two speakers do not keep meeting. What looks random is a hash of the peer's address and the
    /// count of failures: the engine has no dice.
    fn jitter(&self, pause: Duration) -> Duration {
        let address = match self.config.address {
            std::net::IpAddr::V4(address) => u64::from(address.to_bits()),
            std::net::IpAddr::V6(address) => address.to_bits() as u64 ^ (address.to_bits() >> 64) as u64,
        };
        let seed = address ^ u64::from(self.failures) << 32 ^ u64::from(self.config.port) << 16;
        let mut hash = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let percent = 75 + u32::try_from((hash >> 33) % 26).unwrap_or(0);
        pause * percent / 100
    }
}
