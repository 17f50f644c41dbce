//! The whole speaker: peers and RIB behind one set of machine verbs.
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use isthmus_bgp_packet::Family;

use crate::config::{ConfigError, OriginatedRoutes, PeerConfig, PeerId, SpeakerConfig};
use crate::io::{ConnId, Input, Output, Refusal};
use crate::view::{PeerView, RouteView};

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

/// A BGP speaker: all peers and all routes. See the crate's page for how to drive it.
#[derive(Debug)]
pub struct Speaker {
    config: SpeakerConfig,
    peers: BTreeMap<PeerId, PeerConfig>,
    routes: OriginatedRoutes,
    outputs: VecDeque<Output>,
}

impl Speaker {
    /// A speaker without peers and routes. Set the routes before the peers, so that the first table each peer gets is complete.
    ///
    /// # Errors
    /// If AS number or router id cannot be used.
    pub fn new(_now: Duration, config: SpeakerConfig) -> Result<Self, ConfigError> {
        Ok(Self {
            config,
            peers: BTreeMap::new(),
            routes: BTreeMap::new(),
            outputs: VecDeque::new(),
        })
    }

    /// The configuration of the speaker.
    #[must_use]
    pub const fn config(&self) -> &SpeakerConfig {
        &self.config
    }

    /// Sets the whole set of peers; the engine works out what is new, gone or changed, and resets a session only if a value
    /// of its OPEN changed. Says what it did.
    ///
    /// # Errors
    /// Names the peer that cannot work. Then nothing has changed.
    pub fn set_peers(
        &mut self,
        _now: Duration,
        peers: BTreeMap<PeerId, PeerConfig>,
    ) -> Result<BTreeMap<PeerId, PeerChange>, ConfigError> {
        self.peers = peers;
        Ok(BTreeMap::new())
    }

    /// Sets the whole set of our own routes; the engine announces and withdraws the difference.
    pub fn set_routes(&mut self, _now: Duration, routes: OriginatedRoutes) {
        self.routes = routes;
    }

    /// A TCP connection came in. On success the shell starts to feed its bytes as [`Input::Received`].
    ///
    /// # Errors
    /// Says why the connection is not wanted: the shell closes it.
    pub fn accept(
        &mut self,
        _now: Duration,
        _local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<ConnId, Refusal> {
        Err(Refusal::UnknownPeer(remote.ip()))
    }

    /// Something happened on a socket.
    pub fn handle_input(&mut self, _now: Duration, _input: Input<'_>) {}

    /// Time has come to [`Speaker::poll_timeout`]. Calling it early does no harm.
    pub fn handle_timeout(&mut self, _now: Duration) {}

    /// When [`Speaker::handle_timeout`] wants to be called; it may change with every other call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        None
    }

    /// The next thing for the shell to do; call until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Ends a session with Cease/Administrative Reset and a text, and opens it again at once. Also lifts damping and the stop
    /// after too many prefixes. Unknown peers are ignored.
    pub fn reset(&mut self, _now: Duration, _peer: PeerId, _text: &str) {}

    /// Asks a peer to send its routes again (RFC 2918). Says whether the peer can.
    pub fn request_refresh(&mut self, _now: Duration, _peer: PeerId, _family: Family) -> bool {
        false
    }

    /// Sends a peer our routes again, as if it had asked.
    pub fn resend(&mut self, _now: Duration, _peer: PeerId, _family: Family) {}

    /// Ends all sessions; take the outputs, write them, and drop the speaker.
    pub fn stop(&mut self, _now: Duration, _how: Stop) {}

    /// Every peer, in order of its id.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerView> {
        Vec::new()
    }

    /// One peer.
    #[must_use]
    pub fn peer(&self, _peer: PeerId) -> Option<PeerView> {
        None
    }

    /// The paths of a family in order of prefix, best first within each: all of them, or the best ones only.
    #[must_use]
    pub fn routes(&self, _family: Family, _only_best: bool) -> Vec<RouteView> {
        Vec::new()
    }

    /// What a peer has sent, in order of prefix, before import policy (see [`RouteView::rejected`]).
    #[must_use]
    pub fn routes_in(&self, _peer: PeerId, _family: Family) -> Vec<RouteView> {
        Vec::new()
    }

    /// What a peer has been sent, in order of prefix, as it was sent.
    #[must_use]
    pub fn routes_out(&self, _peer: PeerId, _family: Family) -> Vec<RouteView> {
        Vec::new()
    }
}
