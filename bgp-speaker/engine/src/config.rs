//! What the operator wants: the speaker, its peers, its routes. Plain data, set whole; the engine finds the difference.
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use isthmus_bgp_packet::{Attributes, Family};

use crate::policy::Policy;

/// Names a peer. The shell chooses the numbers and keeps them stable over configuration changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

/// The speaker as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpeakerConfig {
    /// Our AS number, 1 to 4294967295 (never 0, never 23456).
    pub asn: u32,
    /// Our BGP identifier; not 0.0.0.0.
    pub router_id: Ipv4Addr,
    /// Set if this process restarts while the forwarding state of its routes stayed in place, so that peers which kept
    /// our routes keep them until we are complete again (RFC 4724 §4.1).
    pub restarting: Option<Restarting>,
}

/// How a restarting speaker comes back (RFC 4724 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restarting {
    /// How long to wait, from the first call of the machine, for the End-of-RIB of every peer with graceful restart
    /// before routes are chosen and sent (Selection_Deferral_Timer).
    pub deferral: Duration,
}

impl Default for Restarting {
    fn default() -> Self {
        Self {
            deferral: Duration::from_secs(10),
        }
    }
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// The address to connect to, and the only address from which its connections are accepted.
    pub address: IpAddr,
    /// The TCP port to connect to.
    pub port: u16,
    /// The AS that the peer must have; 0 accepts any.
    pub asn: u32,
    /// Never connect, only accept.
    pub passive: bool,
    /// Whether the peer may have a session; `Err(text)` is an administrative shutdown with a text for the peer (RFC 9003).
    pub admin: AdminState,
    /// Hold time that we propose, in seconds: 0 (no timers) or 3 to 65535.
    pub hold_time: u16,
    /// Keepalive interval in seconds; `None`, 0, and anything above a third of the negotiated hold time, is a third of it.
    pub keepalive: Option<u16>,
    /// The longest pause between two attempts to connect. The first pause after a failure is half a second, and
    /// doubles from there.
    pub connect_retry: Duration,
    /// Address families to offer. Empty families are not allowed.
    pub families: BTreeMap<Family, FamilyConfig>,
    /// Graceful restart (RFC 4724, with the N bit of RFC 8538), in both roles; `None` offers none.
    pub graceful_restart: Option<GracefulRestart>,
    /// Refuse routes from an external peer whose AS path does not begin with the AS of the peer (RFC 4271 §6.3).
    pub enforce_first_as: bool,
}

impl PeerConfig {
    /// A peer with the usual settings: port 179, hold time 90 s, connect retry up to 30 s, both families accepted on
    /// import and export, no graceful restart.
    #[must_use]
    pub fn new(address: IpAddr, asn: u32) -> Self {
        Self {
            address,
            port: 179,
            asn,
            passive: false,
            admin: AdminState::Up,
            hold_time: 90,
            keepalive: None,
            connect_retry: Duration::from_secs(30),
            families: Family::ALL
                .into_iter()
                .map(|family| (family, FamilyConfig::default()))
                .collect(),
            graceful_restart: None,
            enforce_first_as: true,
        }
    }
}

/// Whether a peer may have a session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AdminState {
    /// It may.
    #[default]
    Up,
    /// It may not; the text (may be empty) tells the peer why (RFC 9003, at most 255 bytes).
    Down(String),
}

/// What holds for one family of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FamilyConfig {
    /// Which routes of the peer may be used.
    pub import: Policy,
    /// Which routes may be sent to the peer, in addition to the rules of BGP itself. See also [`OriginatedRoute::peers`].
    pub export: Policy,
    /// The next hop that the peer is told. `None`: our address of the session if it is of this family (external peers and
    /// our own routes) or the next hop as learnt (internal peers). A family without a next hop of its kind is not
    /// sent; [`crate::view::FamilyView::no_next_hop`] counts that.
    pub next_hop: Option<IpAddr>,
    /// What to do when the peer sends too many prefixes; `None` is no limit.
    pub max_prefixes: Option<MaxPrefixes>,
    /// Keep the routes that `import` refuses, to show them and to take them at once when the policy changes. Without it
    /// they are forgotten, and a policy change asks the peer for a route refresh.
    pub keep_rejected: bool,
}

impl Default for FamilyConfig {
    fn default() -> Self {
        Self {
            import: Policy::accept(),
            export: Policy::accept(),
            next_hop: None,
            max_prefixes: None,
            keep_rejected: true,
        }
    }
}

/// A limit on the prefixes that a peer may send in one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxPrefixes {
    /// The session ends (Cease/Maximum Number of Prefixes Reached) when the peer exceeds this many.
    pub limit: u32,
    /// How long the peer stays down after that; `None`: until [`crate::Speaker::reset`] or a change of its configuration.
    pub restart_after: Option<Duration>,
}

/// Graceful restart with one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GracefulRestart {
    /// How long the peer shall keep our routes after it lost us, in seconds, 1 to 4095.
    pub restart_time: u16,
    /// The longest time for which we keep the routes of a peer that is away, whatever it asks for.
    pub max_stale: Duration,
    /// Offer and accept that NOTIFICATIONs keep the routes too (N bit, RFC 8538).
    pub notification: bool,
}

impl Default for GracefulRestart {
    fn default() -> Self {
        Self {
            restart_time: 120,
            max_stale: Duration::from_secs(300),
            notification: true,
        }
    }
}

/// A route of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginatedRoute {
    /// ORIGIN, AS_PATH (usually empty), MED, communities …: what [`isthmus_bgp_packet::AttributesBuilder::originated`]
    /// starts. A LOCAL_PREF goes to internal peers only.
    pub attributes: Attributes,
    /// To whom it may be sent.
    pub peers: Recipients,
}

/// Which peers a route of our own may be sent to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Recipients {
    /// To all.
    #[default]
    All,
    /// To these only; shared, since many routes usually have the same recipients.
    Only(Arc<BTreeSet<PeerId>>),
}

impl Recipients {
    /// True if the route may be sent to the peer.
    #[must_use]
    pub fn include(&self, peer: PeerId) -> bool {
        match self {
            Recipients::All => true,
            Recipients::Only(peers) => peers.contains(&peer),
        }
    }
}

/// The whole set of routes of our own.
pub type OriginatedRoutes = BTreeMap<IpNet, OriginatedRoute>;

/// A configuration that cannot work; nothing of it was taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The AS number is 0 or AS_TRANS.
    #[error("AS number {0} is reserved: choose another one from 1 to 4294967295")]
    ReservedAsn(u32),
    /// The router id is 0.0.0.0.
    #[error("router id 0.0.0.0 is not allowed: give an IPv4 address that no other router of the AS uses")]
    ZeroRouterId,
    /// A hold time of 1 or 2 seconds.
    #[error("peer {peer}: hold time {seconds} s is not allowed: use 0 (no timers) or at least 3 s")]
    HoldTime {
        /// Address of the peer.
        peer: IpAddr,
        /// What was asked for.
        seconds: u16,
    },
    /// A peer without families.
    #[error("peer {peer}: no address family: name at least one of ipv4/unicast, ipv6/unicast")]
    NoFamily {
        /// Address of the peer.
        peer: IpAddr,
    },
    /// A graceful restart time that does not fit into its 12 bits.
    #[error("peer {peer}: graceful restart time {seconds} s is not allowed: use 1 to 4095 s")]
    RestartTime {
        /// Address of the peer.
        peer: IpAddr,
        /// What was asked for.
        seconds: u16,
    },
    /// A next hop of the wrong family.
    #[error("peer {peer}: next hop {next_hop} cannot carry {family} routes: give an address of that family")]
    NextHop {
        /// Address of the peer.
        peer: IpAddr,
        /// The family of the routes.
        family: Family,
        /// What was configured.
        next_hop: IpAddr,
    },
    /// Two peers with one address.
    #[error("peers {first:?} and {second:?} have the same address {address}: remove one of them")]
    SameAddress {
        /// The address of both.
        address: IpAddr,
        /// One of them.
        first: PeerId,
        /// The other one.
        second: PeerId,
    },
}
