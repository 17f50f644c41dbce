//! From bytes to messages, and to whom each goes.
use std::time::Duration;

use isthmus_bgp_packet::frame::{self, Frame, MessageType};
use isthmus_bgp_packet::route_refresh::{RouteRefresh, Subtype};
use isthmus_bgp_packet::{Family, Notification, Open};

use super::Speaker;
use crate::config::PeerId;
use crate::io::{ConnId, DownReason};
use crate::peer::connection::Phase;

impl Speaker {
    /// Bytes of a connection.
    pub(super) fn received(&mut self, now: Duration, id: PeerId, conn: ConnId, bytes: &[u8]) {
        let Some(connection) = self
            .members
            .get_mut(&id)
            .and_then(|m| m.peer.connection_mut(conn))
        else {
            return;
        };
        if connection.phase == Phase::Connecting {
            return;
        }
        let mut buffer = std::mem::take(&mut connection.buffer);
        let rest = if buffer.is_empty() {
            let used = self.messages(now, id, conn, bytes);
            bytes[used..].to_vec()
        } else {
            buffer.extend_from_slice(bytes);
            let used = self.messages(now, id, conn, &buffer);
            buffer.split_off(used)
        };
        if let Some(connection) = self
            .members
            .get_mut(&id)
            .and_then(|m| m.peer.connection_mut(conn))
        {
            connection.buffer = rest;
        }
    }

    /// Handles every whole message at the beginning of the stream; says how many bytes they had.
    fn messages(&mut self, now: Duration, id: PeerId, conn: ConnId, stream: &[u8]) -> usize {
        let mut used = 0;
        while self.conns.contains_key(&conn) {
            match frame::split(&stream[used..]) {
                Ok(Some(frame)) => {
                    used += frame.len;
                    self.message(now, id, conn, frame);
                    self.drain(now, id);
                }
                Ok(None) => break,
                Err(notification) => {
                    self.refuse(now, id, conn, notification);
                    break;
                }
            }
        }
        used
    }

    fn message(&mut self, now: Duration, id: PeerId, conn: ConnId, frame: Frame<'_>) {
        let we = self.local();
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let peer = &mut member.peer;
        peer.counters.messages_in += 1;
        let Some(connection) = peer.connection_mut(conn) else {
            return;
        };
        let established = connection.phase == Phase::Established;
        match frame.kind {
            MessageType::Open if connection.phase != Phase::OpenSent => peer.unexpected(now, conn),
            MessageType::Open => match Open::decode(frame.body) {
                Ok(open) => peer.open_received(now, we, conn, &open),
                Err(notification) => peer.refuse(now, conn, notification),
            },
            MessageType::Keepalive => peer.keepalive_received(now, conn),
            MessageType::Notification => match Notification::decode(frame.body) {
                Ok(notification) => peer.notification_received(now, conn, notification),
                Err(_) => peer.end(
                    now,
                    conn,
                    DownReason::Connection("malformed NOTIFICATION".into()),
                    true,
                ),
            },
            MessageType::Update | MessageType::RouteRefresh if !established => peer.unexpected(now, conn),
            MessageType::Update => {
                connection.heard(now);
                self.update_received(now, id, conn, frame.body);
            }
            MessageType::RouteRefresh => {
                connection.heard(now);
                self.refresh_received(now, id, conn, frame.body);
            }
        }
    }

    pub(super) fn refuse(&mut self, now: Duration, id: PeerId, conn: ConnId, notification: Notification) {
        if let Some(member) = self.members.get_mut(&id) {
            member.peer.refuse(now, conn, notification);
        }
        self.drain(now, id);
    }

    /// A peer wants our routes again. The markers of RFC 7313, which we do not offer, and unknown families are ignored.
    fn refresh_received(&mut self, now: Duration, id: PeerId, conn: ConnId, body: &[u8]) {
        match RouteRefresh::decode(body) {
            Ok(RouteRefresh {
                family,
                subtype: Subtype::Request,
            }) => {
                if let Ok(family) = Family::try_from(family) {
                    self.resend(now, id, family);
                }
            }
            Ok(_) => {}
            Err(notification) => self.refuse(now, id, conn, notification),
        }
    }
}
