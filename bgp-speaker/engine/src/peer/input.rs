//! What a peer does with events of its connections and with every message but UPDATE.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use isthmus_bgp_packet::notification::{cease, code, fsm};
use isthmus_bgp_packet::{Notification, Open};

use super::collision::{Collision, decide};
use super::connection::{Connection, Phase};
use super::negotiate::negotiate;
use super::timers::OPEN_HOLD;
use super::{Event, Local, Peer};
use crate::config::AdminState;
use crate::io::{ConnId, DownReason, Output, Refusal};

impl Peer {
    /// A connection from the peer.
    pub(crate) fn accept(
        &mut self,
        now: Duration,
        local: Local,
        conn: ConnId,
        ends: (SocketAddr, SocketAddr),
    ) -> Result<(), Refusal> {
        if self.config.admin != AdminState::Up || self.block.is_some() {
            return Err(Refusal::AdminDown);
        }
        if self.is_damped(now) {
            return Err(Refusal::Damped);
        }
        // A second connection from the peer means that it has given up the first one, unless that one is a session.
        let older = self
            .connections
            .iter()
            .find(|c| !c.outgoing && c.phase != Phase::Established);
        if let Some(older) = older.map(|older| older.id) {
            self.end_loser(now, older);
        }
        if self.connections.len() >= 2 {
            return Err(Refusal::Busy);
        }
        let mut connection = Connection::new(conn, false, ends.1, now);
        connection.local = Some(ends.0);
        self.connections.push(connection);
        self.open(now, local, conn);
        Ok(())
    }

    /// The connection that we asked for is up.
    pub(crate) fn connected(&mut self, now: Duration, local: Local, conn: ConnId, end: SocketAddr) {
        let Some(connection) = self.connection_mut(conn).filter(|c| c.phase == Phase::Connecting) else {
            return;
        };
        connection.local = Some(end);
        if self.session.is_some() {
            return self.end_loser(now, conn);
        }
        self.open(now, local, conn);
    }

    /// Sends our OPEN.
    fn open(&mut self, now: Duration, local: Local, conn: ConnId) {
        self.retry = None;
        let open = self.our_open(local);
        if let Some(connection) = self.connection_mut(conn) {
            connection.phase = Phase::OpenSent;
            connection.hold = Some(now + OPEN_HOLD);
        }
        let mut bytes = Vec::new();
        open.encode(&mut bytes);
        self.send(now, conn, bytes, 1);
        self.settle(now);
    }

    /// An OPEN arrived.
    pub(crate) fn open_received(&mut self, now: Duration, local: Local, conn: ConnId, open: &Open) {
        let Some(connection) = self.connection(conn) else {
            return;
        };
        if connection.phase != Phase::OpenSent {
            return self.unexpected(now, conn);
        }
        let session = match negotiate(&self.config, local, connection, open) {
            Ok(session) => session,
            Err(notification) => return self.refuse(now, conn, notification),
        };
        if let Some(other) = self.connections.iter().find(|other| other.id != conn) {
            let other_id = other.id;
            match decide(connection, &session, other, local) {
                Collision::None => {}
                Collision::DropThis => return self.end_loser(now, conn),
                Collision::DropOther => self.end_loser(now, other_id),
                Collision::PeerRestarted => self.end(now, other_id, DownReason::PeerRestarted, true),
            }
        }
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        connection.phase = Phase::OpenConfirm;
        connection.session = Some(session);
        connection.hold = None;
        connection.heard(now);
        self.send_keepalive(now, conn);
        self.settle(now);
    }

    /// A KEEPALIVE arrived.
    pub(crate) fn keepalive_received(&mut self, now: Duration, conn: ConnId) {
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        match connection.phase {
            Phase::Established => connection.heard(now),
            Phase::OpenConfirm => {
                connection.heard(now);
                self.establish(now, conn);
            }
            Phase::Connecting | Phase::OpenSent => self.unexpected(now, conn),
        }
    }

    fn establish(&mut self, now: Duration, conn: ConnId) {
        let others: Vec<ConnId> = self
            .connections
            .iter()
            .map(|c| c.id)
            .filter(|id| *id != conn)
            .collect();
        others.into_iter().for_each(|other| self.end_loser(now, other));
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        connection.phase = Phase::Established;
        let Some(session) = &mut connection.session else {
            return;
        };
        session.since = now;
        let session = Arc::new(session.clone());
        self.counters.established += 1;
        self.retry = None;
        self.output(Output::SessionUp {
            peer: self.id,
            conn,
            asn: session.asn,
            hold_time: session.hold_time,
            families: session.families.clone(),
        });
        self.session = Some(Arc::clone(&session));
        self.last_session = Some(session);
        self.events.push_back(Event::Up);
        self.settle(now);
    }

    /// A NOTIFICATION arrived: the peer closes, and so do we.
    pub(crate) fn notification_received(&mut self, now: Duration, conn: ConnId, notification: Notification) {
        self.counters.notifications_in += 1;
        let loses = notification.code == code::CEASE && notification.subcode == cease::COLLISION;
        let established = self.session.as_ref().is_some_and(|session| session.conn == conn);
        if loses && !established && self.connections.len() > 1 {
            // The other side decided for the other connection.
            if let Some(index) = self.index(conn) {
                self.connections.remove(index);
                self.output(Output::Close { conn });
                self.counters.collisions += 1;
            }
            return self.settle(now);
        }
        self.end(now, conn, DownReason::Received(notification), true);
    }

    /// A message that the state does not allow (RFC 4271 §6.6, RFC 6608).
    pub(crate) fn unexpected(&mut self, now: Duration, conn: ConnId) {
        let Some(connection) = self.connection(conn) else {
            return;
        };
        let subcode = match connection.phase {
            Phase::Connecting => 0,
            Phase::OpenSent => fsm::IN_OPEN_SENT,
            Phase::OpenConfirm => fsm::IN_OPEN_CONFIRM,
            Phase::Established => fsm::IN_ESTABLISHED,
        };
        self.refuse(now, conn, Notification::new(code::FSM, subcode));
    }
}
