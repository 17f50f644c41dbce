//! What the maps should hold, in the agent's words.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use isthmus_topology::{Scope, ServiceAffinity, ServicePort};

/// Everything that the maps should hold. What is not in here is removed from them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// Frontends and their backends.
    pub services: BTreeMap<Frontend, ServiceRow>,
    /// Identities and tunnel endpoints by prefix; IPv4 and IPv6.
    pub ipcache: BTreeMap<IpNet, IpCacheRow>,
}

/// What a client connects to. A LoadBalancer address that pods use as well needs a row in each scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frontend {
    /// Virtual address.
    pub ip: IpAddr,
    /// Protocol and port; protocols without a number are refused by name.
    pub port: ServicePort,
    /// `Internal`: translated at connect time on this node. `External`: translated when it arrives on an uplink.
    pub scope: Scope,
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scope = match self.scope {
            Scope::Internal => "internal",
            Scope::External => "external",
        };
        match self.ip {
            IpAddr::V4(ip) => write!(f, "{ip}:{}/{} {scope}", self.port.port, self.port.protocol),
            IpAddr::V6(ip) => write!(f, "[{ip}]:{}/{} {scope}", self.port.port, self.port.protocol),
        }
    }
}

/// The backends of a frontend by cluster id, and which clusters to prefer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceRow {
    /// Which clusters it prefers.
    pub affinity: ServiceAffinity,
    /// Backends of each cluster; at most [`MAX_GROUPS`](isthmus_bpf_abi::MAX_GROUPS) clusters.
    pub groups: BTreeMap<u16, BTreeSet<Backend>>,
}

/// One place a connection can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// Its address.
    pub ip: IpAddr,
    /// Its port.
    pub port: u16,
}

/// What is known about the addresses of a prefix (spec clustermesh §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpCacheRow {
    /// Security identity, 24 bits.
    pub identity: u32,
    /// Underlay address of the node behind which they are; `None` for addresses of this node.
    pub endpoint: Option<IpAddr>,
    /// Encryption key index: 0 none, 255 WireGuard, 1 to 15 an IPsec SPI.
    pub key: u8,
    /// Reached without the tunnel although an endpoint is known.
    pub skip_tunnel: bool,
}
