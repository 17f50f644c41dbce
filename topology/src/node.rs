//! A node of the mesh, as every cluster sees it (spec §1.5).
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{ClusterId, ClusterName, NodeName};

/// What an address of a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NodeAddressKind {
    /// Where tunnels end.
    InternalIP,
    /// Reachable from outside the cluster's network.
    ExternalIP,
    /// The node's own address inside the overlay.
    CiliumInternalIP,
    /// A name, kept as it came.
    Hostname,
    /// A name, kept as it came.
    ExternalDNS,
    /// A name, kept as it came.
    InternalDNS,
}

/// One address of a node. Names are not addresses: they live in [`Node::hostnames`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeAddress {
    /// What it is for.
    pub kind: NodeAddressKind,
    /// The address.
    pub ip: IpAddr,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The cluster it belongs to.
    pub cluster: ClusterName,
    /// That cluster's id.
    pub cluster_id: ClusterId,
    /// Its name in the cluster.
    pub name: NodeName,
    /// Addresses, in the order of the source.
    pub addresses: Vec<NodeAddress>,
    /// Host names and DNS names, with their kind.
    pub hostnames: Vec<(NodeAddressKind, String)>,
    /// Pod CIDRs of both families, in the order of the source: the first of a family is its main one.
    pub pod_cidrs: Vec<IpNet>,
    /// Addresses of the health endpoint.
    pub health_ipv4: Option<Ipv4Addr>,
    /// Addresses of the health endpoint.
    pub health_ipv6: Option<Ipv6Addr>,
    /// Address of the node's ingress listener.
    pub ingress_ipv4: Option<Ipv4Addr>,
    /// Address of the node's ingress listener.
    pub ingress_ipv6: Option<Ipv6Addr>,
    /// 0 none; 1 to 15 the IPsec SPI; 255 WireGuard node encryption.
    pub encryption_key: u8,
    /// WireGuard public key, standard base64 of 32 bytes, or empty.
    pub wireguard_pub_key: String,
    /// The kernel's boot id, or empty.
    pub boot_id: String,
    /// Node labels.
    pub labels: BTreeMap<String, String>,
    /// Node annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Node {
    /// The first address of a kind in a family.
    pub fn address(&self, kind: NodeAddressKind, v6: bool) -> Option<IpAddr> {
        self.addresses
            .iter()
            .find(|a| a.kind == kind && a.ip.is_ipv6() == v6)
            .map(|a| a.ip)
    }

    /// Where tunnels to this node end: InternalIP, IPv4 first.
    pub fn tunnel_endpoint(&self) -> Option<IpAddr> {
        self.address(NodeAddressKind::InternalIP, false)
            .or_else(|| self.address(NodeAddressKind::InternalIP, true))
    }
}
