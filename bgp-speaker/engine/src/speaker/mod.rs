//! The whole speaker: peers and RIB behind one set of machine verbs.
mod configure;
mod export;
mod import;
mod receive;
mod restart;
mod show;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use isthmus_bgp_packet::notification::cease;
use isthmus_bgp_packet::route_refresh::{RouteRefresh, Subtype};
use isthmus_bgp_packet::{Family, Notification};

use crate::config::{ConfigError, OriginatedRoutes, PeerId, SpeakerConfig};
use crate::io::{ConnId, DownReason, Input, Notice, Output, Refusal};
use crate::peer::{Event, Local, Peer};
use crate::rib::adj_out::AdjOut;
use crate::rib::decision::SourceInfo;
use crate::rib::{Path, Rib};
use crate::view::RouteSource;

/// What [`Speaker::set_peers`] did to one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerChange {
    /// It is new.
    Added,
    /// It is gone; its session was closed with Cease/Peer De-configured.
    Removed,
    /// Its settings changed without touching the session.
    Changed,
    /// A setting that is part of the OPEN changed, so the session was reset; the text names the setting.
    Reset(&'static str),
}

/// How [`Speaker::stop`] ends the sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// For good: Cease/Administrative Shutdown with a text (may be empty), as hard reset where the peer would otherwise
    /// keep routes. Peers withdraw our routes at once.
    Shutdown(String),
    /// To come back soon: connections just close, so that peers with graceful restart keep our routes.
    Restart,
}

/// A peer with what the RIB keeps for it.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) peer: Peer,
    pub(crate) families: BTreeMap<Family, FamilyState>,
    /// The session is down and its routes are kept until then (restart timer).
    pub(crate) away_until: Option<Duration>,
}

/// One family of one peer.
#[derive(Debug, Default)]
pub(crate) struct FamilyState {
    pub(crate) received: usize,
    pub(crate) accepted: usize,
    pub(crate) stale: usize,
    pub(crate) end_of_rib_received: bool,
    /// The session is back, and stale routes are kept until then unless End-of-RIB comes earlier.
    pub(crate) stale_until: Option<Duration>,
    pub(crate) out: AdjOut,
}

impl FamilyState {
    /// Counts a path that came (`true`) or went.
    fn count(&mut self, path: &Path, more: bool) {
        let step = |counter: &mut usize, by: bool| {
            let by = usize::from(by);
            *counter = if more { *counter + by } else { *counter - by };
        };
        step(&mut self.received, true);
        step(&mut self.accepted, path.is_usable());
        step(&mut self.stale, path.is_stale());
    }
}

/// A BGP speaker: all peers and all routes. See the crate's page for how to drive it.
#[derive(Debug)]
pub struct Speaker {
    pub(crate) config: SpeakerConfig,
    pub(crate) members: BTreeMap<PeerId, Member>,
    by_address: BTreeMap<IpAddr, PeerId>,
    conns: BTreeMap<ConnId, PeerId>,
    next_conn: u64,
    pub(crate) originated: OriginatedRoutes,
    pub(crate) rib: Rib,
    outputs: VecDeque<Output>,
    /// Routes are not chosen and sent before then (RFC 4724 §4.1).
    deferral: Option<Duration>,
    peers_known: bool,
    stopped: bool,
    /// The latest `now`.
    now: Duration,
}

impl Speaker {
    /// A speaker without peers and routes. Set the routes before the peers, so that the first table each peer gets is complete.
    ///
    /// # Errors
    /// If AS number or router id cannot be used.
    pub fn new(now: Duration, config: SpeakerConfig) -> Result<Self, ConfigError> {
        configure::check_speaker(&config)?;
        let deferral = config.restarting.map(|restarting| now + restarting.deferral);
        Ok(Self {
            config,
            members: BTreeMap::new(),
            by_address: BTreeMap::new(),
            conns: BTreeMap::new(),
            next_conn: 1,
            originated: OriginatedRoutes::new(),
            rib: Rib::default(),
            outputs: VecDeque::new(),
            deferral,
            peers_known: false,
            stopped: false,
            now,
        })
    }

    /// The configuration of the speaker.
    #[must_use]
    pub const fn config(&self) -> &SpeakerConfig {
        &self.config
    }

    /// True from the start of a restarting speaker until its routes are chosen and sent (see [`Notice::DeferralEnded`]).
    #[must_use]
    pub const fn is_restarting(&self) -> bool {
        self.deferral.is_some()
    }

    /// A TCP connection came in. On success the shell starts to feed its bytes as [`Input::Received`].
    ///
    /// # Errors
    /// Says why the connection is not wanted: the shell closes it.
    pub fn accept(
        &mut self,
        now: Duration,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<ConnId, Refusal> {
        self.now = now;
        let (address, local_ip) = (remote.ip().to_canonical(), local.ip().to_canonical());
        let id = *self
            .by_address
            .get(&address)
            .ok_or(Refusal::UnknownPeer(address))?;
        if self.stopped {
            return Err(Refusal::AdminDown);
        }
        let (conn, we) = (ConnId(self.next_conn), self.local());
        let ends = (
            SocketAddr::new(local_ip, local.port()),
            SocketAddr::new(address, remote.port()),
        );
        let member = self.members.get_mut(&id).ok_or(Refusal::UnknownPeer(address))?;
        let accepted = member.peer.accept(now, we, conn, ends);
        if accepted.is_ok() {
            self.next_conn += 1;
            self.conns.insert(conn, id);
        }
        self.drain(now, id);
        accepted.map(|()| conn)
    }

    /// Something happened on a socket.
    pub fn handle_input(&mut self, now: Duration, input: Input<'_>) {
        self.now = now;
        let (Input::Connected { conn, .. }
        | Input::ConnectFailed { conn, .. }
        | Input::Received { conn, .. }
        | Input::Written { conn, .. }
        | Input::Closed { conn, .. }) = input;
        let Some(id) = self.conns.get(&conn).copied() else {
            return;
        };
        let we = self.local();
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        match input {
            Input::Connected { local, .. } => {
                let end = SocketAddr::new(local.ip().to_canonical(), local.port());
                member.peer.connected(now, we, conn, end);
            }
            Input::Received { bytes, .. } => self.received(now, id, conn, bytes),
            Input::Written { bytes, .. } => member.peer.written(now, conn, bytes),
            Input::ConnectFailed { error, .. } | Input::Closed { error, .. } => {
                self.conns.remove(&conn);
                member
                    .peer
                    .end(now, conn, DownReason::Connection(error.to_owned()), false);
            }
        }
        self.drain(now, id);
    }

    /// Time has come to [`Speaker::poll_timeout`]. Calling it early does no harm.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.now = now;
        if self.stopped {
            return;
        }
        let ids: Vec<PeerId> = self.members.keys().copied().collect();
        for id in ids {
            let conn = ConnId(self.next_conn);
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            if member.peer.handle_timeout(now, conn) {
                self.next_conn += 1;
                self.conns.insert(conn, id);
            }
            self.drain(now, id);
            self.stale_timeout(now, id);
        }
        self.check_deferral(now);
    }

    /// When [`Speaker::handle_timeout`] wants to be called; it may change with every other call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.stopped {
            return None;
        }
        let of_member = |member: &Member| {
            let stale = member
                .families
                .values()
                .filter_map(|family| family.stale_until)
                .min();
            [member.peer.poll_timeout(), member.away_until, stale]
                .into_iter()
                .flatten()
                .min()
        };
        self.members
            .values()
            .filter_map(of_member)
            .chain(self.deferral)
            .min()
    }

    /// The next thing for the shell to do; call until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() && !self.stopped {
            self.flush();
        }
        self.outputs.pop_front()
    }

    /// Ends a session with Cease/Administrative Reset and a text, and opens it again at once. Also lifts damping and the stop
    /// after too many prefixes. Unknown peers are ignored.
    pub fn reset(&mut self, now: Duration, peer: PeerId, text: &str) {
        self.now = now;
        let Some(member) = self.members.get_mut(&peer) else {
            return;
        };
        member
            .peer
            .shut(now, &Notification::cease_with_text(cease::ADMIN_RESET, text));
        member.peer.start(now);
        self.drain(now, peer);
    }

    /// Asks a peer to send its routes again (RFC 2918). Says whether the peer can.
    pub fn request_refresh(&mut self, now: Duration, peer: PeerId, family: Family) -> bool {
        self.now = now;
        let Some(member) = self.members.get_mut(&peer) else {
            return false;
        };
        let Some(session) = member
            .peer
            .session
            .as_ref()
            .filter(|s| s.refresh && s.has(family))
        else {
            return false;
        };
        let conn = session.conn;
        let mut bytes = Vec::new();
        RouteRefresh {
            family: family.into(),
            subtype: Subtype::Request,
        }
        .encode(&mut bytes);
        member.peer.send(now, conn, bytes, 1);
        self.drain(now, peer);
        true
    }

    /// Sends a peer our routes again, as if it had asked.
    pub fn resend(&mut self, now: Duration, peer: PeerId, family: Family) {
        self.now = now;
        if let Some(state) = self
            .members
            .get_mut(&peer)
            .and_then(|member| member.families.get_mut(&family))
        {
            state.out.mark_all_again();
        }
    }

    /// Ends all sessions; take the outputs, write them, and drop the speaker.
    pub fn stop(&mut self, now: Duration, how: Stop) {
        self.now = now;
        let ids: Vec<PeerId> = self.members.keys().copied().collect();
        for id in ids {
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            match &how {
                Stop::Shutdown(text) => {
                    member
                        .peer
                        .shut(now, &Notification::cease_with_text(cease::ADMIN_SHUTDOWN, text));
                }
                Stop::Restart => member.peer.leave(now),
            }
            self.drain(now, id);
        }
        self.stopped = true;
    }

    pub(crate) fn local(&self) -> Local {
        Local {
            asn: self.config.asn,
            router_id: self.config.router_id,
            restarting: self.deferral.is_some(),
            preserved: self.config.restarting.is_some(),
        }
    }

    /// Acts on what happened to a peer.
    pub(crate) fn drain(&mut self, now: Duration, id: PeerId) {
        while let Some(event) = self
            .members
            .get_mut(&id)
            .and_then(|member| member.peer.events.pop_front())
        {
            match event {
                Event::Output(output) => {
                    if let Output::Close { conn } = &output {
                        self.conns.remove(conn);
                    }
                    self.outputs.push_back(output);
                }
                Event::Up => self.session_up(now, id),
                Event::Down { keep } => self.session_down(now, id, &keep),
            }
        }
    }

    pub(crate) fn notice(&mut self, peer: PeerId, notice: Notice) {
        self.outputs.push_back(Output::Notice { peer, notice });
    }
}

/// What route choice has to know about the peers.
pub(crate) fn source_info(members: &BTreeMap<PeerId, Member>, source: RouteSource) -> Option<SourceInfo> {
    let RouteSource::Peer(id) = source else {
        return None;
    };
    let peer = &members.get(&id)?.peer;
    let session = peer.last_session.as_ref()?;
    Some(SourceInfo {
        internal: session.internal,
        router_id: session.router_id.into(),
        address: peer.config.address,
    })
}
