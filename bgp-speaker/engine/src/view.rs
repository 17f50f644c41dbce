//! Read-only pictures of the engine for `show` commands, status and metrics.
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use isthmus_bgp_packet::{AfiSafi, Attributes, Family};

use crate::config::PeerId;

/// The states of RFC 4271 §8.2.2. A peer with two connections shows the further one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Nothing is tried: administratively down or damped.
    Idle,
    /// A TCP connection is being made.
    Connect,
    /// Waiting for the peer to connect, or for the next attempt.
    Active,
    /// OPEN sent, none received.
    OpenSent,
    /// OPENs exchanged, no KEEPALIVE received.
    OpenConfirm,
    /// Routes flow.
    Established,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::Idle => "Idle",
            State::Connect => "Connect",
            State::Active => "Active",
            State::OpenSent => "OpenSent",
            State::OpenConfirm => "OpenConfirm",
            State::Established => "Established",
        })
    }
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerView {
    /// Which one.
    pub id: PeerId,
    /// Its configured address.
    pub address: IpAddr,
    /// Its AS: as configured, or, for configured 0, from its OPEN (0 before that).
    pub asn: u32,
    /// Its BGP identifier, once known.
    pub router_id: Option<Ipv4Addr>,
    /// Internal (same AS) or external session; `None` before the AS is known.
    pub internal: Option<bool>,
    /// Where the session stands.
    pub state: State,
    /// When the state was entered, on the clock of the `now` arguments.
    pub since: Duration,
    /// Our end of the session, if connected.
    pub local: Option<SocketAddr>,
    /// The other end of the session, if connected.
    pub remote: Option<SocketAddr>,
    /// Negotiated hold time in seconds, if established.
    pub hold_time: Option<u16>,
    /// Negotiated keepalive interval, if established.
    pub keepalive: Option<Duration>,
    /// What the peer offered in its last OPEN.
    pub capabilities: Option<PeerCapabilities>,
    /// Why the last session ended or the last attempt failed, for people.
    pub last_error: Option<String>,
    /// When that happened.
    pub last_error_at: Option<Duration>,
    /// Messages and events counted since the peer was configured.
    pub counters: Counters,
    /// For each configured family.
    pub families: Vec<FamilyView>,
}

/// What a peer offered in its OPEN.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerCapabilities {
    /// Families, known to us or not.
    pub families: Vec<AfiSafi>,
    /// 4-byte AS numbers.
    pub four_byte_as: bool,
    /// Route refresh.
    pub route_refresh: bool,
    /// Enhanced route refresh.
    pub enhanced_route_refresh: bool,
    /// Messages of up to 65535 bytes.
    pub extended_message: bool,
    /// Graceful restart, with the restart time in seconds.
    pub graceful_restart: Option<u16>,
    /// Host name (and domain), if the peer told.
    pub host_name: Option<String>,
    /// Codes of capabilities that we do not know.
    pub unknown: Vec<u8>,
}

/// Counters of a peer. They only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Messages received, of every type.
    pub messages_in: u64,
    /// Messages sent, of every type.
    pub messages_out: u64,
    /// UPDATEs received.
    pub updates_in: u64,
    /// UPDATEs sent.
    pub updates_out: u64,
    /// NOTIFICATIONs received.
    pub notifications_in: u64,
    /// NOTIFICATIONs sent.
    pub notifications_out: u64,
    /// UPDATEs whose routes were withdrawn for a malformation (RFC 7606).
    pub treat_as_withdraw: u64,
    /// UPDATEs that lost an attribute for a malformation (RFC 7606).
    pub attribute_discard: u64,
    /// Routes refused for a reason in their path: our AS, a wrong first AS, our own next hop.
    pub routes_refused: u64,
    /// Times that the session became established.
    pub established: u64,
    /// Times that an established session ended.
    pub flaps: u64,
    /// Connections closed because another one to the same peer won (RFC 4271 §6.8).
    pub collisions: u64,
}

/// One family of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FamilyView {
    /// Which one.
    pub family: Family,
    /// Both sides offered it in the present session.
    pub negotiated: bool,
    /// Prefixes that the peer has sent and not withdrawn (without those refused and not kept).
    pub received: usize,
    /// Of these, the ones that the import policy lets into route choice.
    pub accepted: usize,
    /// Of these, the ones kept over an absence of the peer.
    pub stale: usize,
    /// Prefixes that we have sent and not withdrawn.
    pub advertised: usize,
    /// Routes not sent since there is no next hop of the family.
    pub no_next_hop: usize,
    /// The peer has sent its End-of-RIB.
    pub end_of_rib_received: bool,
    /// We have sent our End-of-RIB.
    pub end_of_rib_sent: bool,
}

/// Where a route came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteSource {
    /// From our own set of routes.
    Local,
    /// From a peer.
    Peer(PeerId),
}

/// One path to one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteView {
    /// The destination.
    pub prefix: IpNet,
    /// Where it came from. For advertised routes: where the route that is advertised came from.
    pub source: RouteSource,
    /// The next hop; `None` for our own routes, whose next hop is chosen for each peer.
    pub next_hop: Option<IpAddr>,
    /// Everything else about it.
    pub attributes: Attributes,
    /// It is the best path of its prefix.
    pub best: bool,
    /// The import policy refused it.
    pub rejected: bool,
    /// It is kept over an absence of its peer.
    pub stale: bool,
}
