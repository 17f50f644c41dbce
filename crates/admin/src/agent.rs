//! Views of the agent.
//!
//! | path                | answer                                                      |
//! |---------------------|-------------------------------------------------------------|
//! | `GET /v1/status`    | one [`AgentStatus`]                                         |
//! | `GET /v1/services`  | [`ServiceView`]s, by name                                   |
//! | `GET /v1/nodes`     | [`NodeView`]s of the whole mesh: own cluster first, by name |
//! | `GET /v1/tunnels`   | one [`TunnelView`]                                          |
use std::net::IpAddr;

use ipnet::IpNet;
use isthmus_topology::{Scope, ServiceAffinity};
use serde::{Deserialize, Serialize};

/// All that one agent knows about itself and the clusters it has joined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// Its cluster.
    pub cluster: String,
    /// Its cluster's id.
    pub cluster_id: u16,
    /// Its node.
    pub node: String,
    /// Version of this program.
    pub version: String,
    /// Time of start, RFC 3339.
    pub started_at: String,
    /// True once this node's programs, routes and local services are in place (`/readyz`).
    pub ready: bool,
    /// What is missing for that, in words; empty when ready.
    pub waiting_for: Vec<String>,
    /// The remote clusters, by name.
    pub clusters: Vec<ClusterView>,
    /// What the kernel offers, and what is used where it does not.
    pub features: Vec<FeatureView>,
    /// What is wrong now: one sentence each, cause and cure.
    pub problems: Vec<String>,
    /// What this process has written since it started.
    pub writes: WritesView,
}

/// One remote cluster, seen from this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterView {
    /// Its name.
    pub name: String,
    /// Its id; 0 while unknown.
    pub id: u16,
    /// New connections may go there: its bit in the data path.
    pub eligible: bool,
    /// Why, or why not, in words.
    pub reason: String,
    /// The control plane.
    pub control: ControlView,
    /// The data plane.
    pub data: DataView,
}

/// The connection to a remote cluster's store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlView {
    /// Connected, and every table is complete.
    pub ready: bool,
    /// Connected.
    pub connected: bool,
    /// What it does, or what failed, in words.
    pub status: String,
    /// The endpoint in use, or empty.
    pub endpoint: String,
    /// Connections that failed or broke.
    pub failures: u64,
    /// Values that were refused.
    pub rejected: u64,
    /// Nodes received.
    pub nodes: usize,
    /// Shared services received.
    pub services: usize,
    /// Ip entries received.
    pub endpoints: usize,
    /// Identities received.
    pub identities: usize,
}

/// The path of packets to a remote cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataView {
    /// `alive`, `dead`, `unknown` (no answer yet, none missed) or `notProbed` (no overlay address to probe).
    pub state: String,
    /// The nodes that are probed.
    pub probes: Vec<ProbeView>,
}

/// The probes of one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeView {
    /// The node.
    pub node: String,
    /// Its overlay address.
    pub ip: IpAddr,
    /// `alive`, `dead` or `unknown`.
    pub state: String,
    /// Smoothed round-trip time in microseconds.
    pub rtt_us: Option<u64>,
    /// Whether packets that fill the MTU arrive.
    pub full_mtu: Option<bool>,
    /// Probes sent.
    pub sent: u64,
    /// Answered in time.
    pub answered: u64,
}

/// Something the kernel may or may not offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FeatureView {
    /// What it is for, e.g. `socket load balancing`.
    pub name: String,
    /// True if the best rung is in use.
    pub ok: bool,
    /// The rung in use, and what is missing for a better one.
    pub detail: String,
}

/// What a process has written since it started; all zero after a restart that changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WritesView {
    /// eBPF map entries.
    pub map_entries: u64,
    /// Links, addresses, routes and rules.
    pub network: u64,
    /// Hooks attached.
    pub hooks: u64,
    /// nft rule sets loaded.
    pub nft: u64,
    /// Kernel settings changed.
    pub sysctls: u64,
    /// How long the last change took from its arrival to the last write, in microseconds.
    pub last_change_us: u64,
}

/// A service of this cluster with what every cluster adds to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceView {
    /// namespace/name.
    pub name: String,
    /// Remote clusters take part.
    pub global: bool,
    /// Which clusters it prefers.
    pub affinity: ServiceAffinity,
    /// Its frontends.
    pub frontends: Vec<FrontendView>,
}

/// A frontend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontendView {
    /// Virtual address.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// From where it may be used.
    pub scope: Scope,
    /// Port name, or empty.
    pub port_name: String,
    /// True if this node's data path serves it.
    pub programmed: bool,
    /// What happens to a new connection now, in words: which clusters may be chosen and why.
    pub choice: String,
    /// Backends by cluster.
    pub groups: Vec<GroupView>,
}

/// The backends of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupView {
    /// Cluster name.
    pub cluster: String,
    /// Its id.
    pub cluster_id: u16,
    /// True if a new connection may go there now.
    pub eligible: bool,
    /// Why not; empty if eligible.
    pub reason: String,
    /// Its backends.
    pub backends: Vec<BackendView>,
}

/// A backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendView {
    /// Address.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
    /// Its node, if known.
    pub node: Option<String>,
    /// False: left out, because probes say that its node is dead.
    pub used: bool,
}

/// A node of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    /// Its cluster.
    pub cluster: String,
    /// That cluster's id.
    pub cluster_id: u16,
    /// Its name.
    pub name: String,
    /// True for the node that answers.
    pub this: bool,
    /// Where tunnels to it end.
    pub endpoint: Option<IpAddr>,
    /// Its addresses in the overlay.
    pub overlay: Vec<IpAddr>,
    /// Its pod CIDRs.
    pub pod_cidrs: Vec<IpNet>,
    /// What the probes say: `alive`, `dead`, `unknown`, or empty if it is not probed.
    pub state: String,
    /// Round-trip time of its probes in microseconds.
    pub rtt_us: Option<u64>,
    /// What of it is not used, and why.
    pub refused: Vec<String>,
}

/// How this node is joined to the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelView {
    /// `vxlan`.
    pub mode: String,
    /// The overlay device.
    pub device: String,
    /// UDP port.
    pub port: u16,
    /// Its MTU; 0 if there is no device.
    pub mtu: u32,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// The routing table.
    pub table: u32,
    /// Our routes in it.
    pub routes: Vec<RouteView>,
    /// Entries of the ipcache.
    pub ipcache_entries: usize,
    /// What is not used, and why.
    pub refused: Vec<String>,
}

/// A route through the overlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteView {
    /// Where to.
    pub destination: IpNet,
    /// The remote node's overlay address.
    pub via: Option<IpAddr>,
    /// Source of packets that this node itself sends.
    pub source: Option<IpAddr>,
    /// The node behind it, `cluster/node`.
    pub node: String,
    /// Where the tunnel ends.
    pub endpoint: Option<IpAddr>,
}
