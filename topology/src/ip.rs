//! Which identity an address has and which node it is behind (spec §1.7).
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Identity, Protocol};

/// A named port of a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NamedPort {
    /// Port name.
    pub name: String,
    /// Port number.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// One address (or prefix) of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpIdentity {
    /// The address; a host entry has the family's full length.
    pub prefix: IpNet,
    /// True if the source gave a bare address rather than a prefix: decides the key's form.
    pub host_entry: bool,
    /// The node that it is behind, if any: the tunnel endpoint.
    pub host_ip: Option<IpAddr>,
    /// Its identity.
    pub identity: Identity,
    /// 0 clear; 1 to 15 the IPsec SPI; 255 WireGuard.
    pub key: u8,
    /// Kubernetes namespace of the pod, or empty.
    pub namespace: String,
    /// Pod name, or empty.
    pub pod: String,
    /// Service account of the pod, or empty.
    pub service_account: String,
    /// Named ports of the pod.
    pub named_ports: Vec<NamedPort>,
}
