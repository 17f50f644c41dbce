//! Views of the bgp-speaker.
//!
//! | path                                        | answer                                    |
//! |---------------------------------------------|-------------------------------------------|
//! | `GET /v1/peers`                             | [`PeerView`]s, in the order of the file   |
//! | `GET /v1/routes?table=&peer=&family=`       | [`RouteView`]s ([`RoutesQuery`])          |
//! | `GET /v1/advertisements`                    | [`AdvertisementView`]s                    |
//! | `POST /v1/peers/reset?peer=`                | ends a session and opens it again         |
//! | `POST /v1/peers/refresh?peer=`              | asks a peer for its routes again          |
//! | `POST /v1/shutdown?text=`                   | withdraws everything and ends the daemon  |
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// One peer: what `cilium bgp peers` shows, and what an operator asks next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerView {
    /// The node of the speaker.
    pub node: String,
    /// Name in the configuration.
    pub name: String,
    /// AS of the speaker.
    pub local_asn: u32,
    /// AS of the peer; 0 if any is taken and it has not said yet.
    pub peer_asn: u32,
    /// Where the peer is.
    pub peer_address: SocketAddr,
    /// Our end of the connection, if there is one.
    pub local_address: Option<SocketAddr>,
    /// BGP identifier of the peer, once known.
    pub router_id: Option<Ipv4Addr>,
    /// `idle`, `connect`, `active`, `open_sent`, `open_confirm`, `established` (Cilium's words).
    pub session_state: String,
    /// For how long it has been in that state, in seconds.
    pub state_seconds: f64,
    /// Negotiated hold time in seconds; absent before the session is up.
    pub hold_time_seconds: Option<u16>,
    /// Negotiated interval between keepalives, in seconds; absent before the session is up.
    pub keepalive_seconds: Option<f64>,
    /// Whether graceful restart is in force: offered by both.
    pub graceful_restart: bool,
    /// Per family.
    pub families: Vec<PeerFamilyView>,
    /// Why the last session ended or the last attempt failed.
    pub last_error: Option<String>,
    /// How long ago that was, in seconds.
    pub last_error_seconds: Option<f64>,
    /// What the peer can do, as it said in its last OPEN.
    pub capabilities: Vec<String>,
    /// Counters since the daemon knows the peer.
    pub counters: PeerCounters,
}

impl PeerView {
    /// True if routes flow.
    pub fn established(&self) -> bool {
        self.session_state == "established"
    }
}

/// One family of one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerFamilyView {
    /// `ipv4-unicast` or `ipv6-unicast`.
    pub family: String,
    /// Both sides offered it.
    pub negotiated: bool,
    /// Prefixes that the peer has sent.
    pub received: usize,
    /// Of these, those that the import policy took.
    pub accepted: usize,
    /// Of these, those kept while the peer restarts.
    pub stale: usize,
    /// Prefixes that the peer has been sent.
    pub advertised: usize,
    /// Prefixes that were not sent since there is no next hop of this family.
    pub no_next_hop: usize,
}

/// Counters of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerCounters {
    /// Messages received.
    pub messages_received: u64,
    /// Messages sent.
    pub messages_sent: u64,
    /// UPDATEs received.
    pub updates_received: u64,
    /// UPDATEs sent.
    pub updates_sent: u64,
    /// NOTIFICATIONs received.
    pub notifications_received: u64,
    /// NOTIFICATIONs sent.
    pub notifications_sent: u64,
    /// Malformed UPDATEs whose routes were withdrawn (RFC 7606).
    pub treated_as_withdraw: u64,
    /// UPDATEs that lost a malformed attribute (RFC 7606).
    pub attributes_discarded: u64,
    /// Routes refused for their path.
    pub routes_refused: u64,
    /// Sessions that were established.
    pub established: u64,
    /// Established sessions that ended.
    pub flaps: u64,
    /// Connections that lost a collision (RFC 4271 §6.8).
    pub collisions: u64,
}

/// Which routes to list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RoutesQuery {
    /// Which table.
    #[serde(default)]
    pub table: RouteTable,
    /// Only of this peer, by name or address; `in` and `out` list all peers without it.
    pub peer: Option<String>,
    /// Only this family: `ipv4-unicast` or `ipv6-unicast`.
    pub family: Option<String>,
}

/// A table of routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteTable {
    /// What peers have sent.
    In,
    /// What peers have been sent, and what they have not been sent with the reason.
    Out,
    /// The best path of every prefix: of the speaker's own routes, since it installs none that it learns.
    #[default]
    Best,
}

/// One route in one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteView {
    /// The node of the speaker.
    pub node: String,
    /// AS of the speaker (Cilium's VRouter).
    pub local_asn: u32,
    /// The peer that sent it or was sent it; absent in the table of best paths.
    pub peer: Option<String>,
    /// `ipv4-unicast` or `ipv6-unicast`.
    pub family: String,
    /// The destination.
    pub prefix: IpNet,
    /// Next hop; absent for our own routes before they are sent.
    pub next_hop: Option<IpAddr>,
    /// Where it came from: `local`, or the name of a peer.
    pub source: String,
    /// AS path, nearest first.
    pub as_path: Vec<u32>,
    /// `igp`, `egp` or `incomplete`.
    pub origin: String,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// Standard and large communities.
    pub communities: Vec<String>,
    /// It was accepted (`in`), is the best (`best`) or was sent (`out`).
    pub active: bool,
    /// Kept while its peer restarts.
    pub stale: bool,
    /// For our own routes why they are sent or not.
    pub reason: Option<String>,
}

/// A prefix that somebody on this node wants advertised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvertisementView {
    /// The prefix.
    pub prefix: IpNet,
    /// Whether it is.
    pub advertised: bool,
    /// Who wants it, and what was decided for each.
    pub origins: Vec<AdvertisementOrigin>,
}

/// One reason to advertise a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvertisementOrigin {
    /// `pod CIDR` or `service NAMESPACE/NAME`.
    pub origin: String,
    /// Whether it may be advertised for it.
    pub advertised: bool,
    /// Why, or why not.
    pub reason: String,
}
