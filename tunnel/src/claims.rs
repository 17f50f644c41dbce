//! Who may have which addresses: each only once in the mesh, and none that the tunnel itself needs.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use isthmus_topology::{ClusterId, ClusterName, Node, NodeName};
use serde::Serialize;

/// Why something of a node is not used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RefusalKind {
    /// Another node's pod CIDR has some of the same addresses.
    Overlap {
        /// The CIDR that keeps them.
        with: IpNet,
        /// Whose it is, `cluster/node`.
        of: String,
    },
    /// An address at which a tunnel ends lies in the CIDR: the tunnel would run through itself.
    HoldsEndpoint {
        /// That address.
        endpoint: IpAddr,
        /// Whose it is.
        of: String,
    },
    /// Another node has this address.
    AddressTaken {
        /// Whose it is.
        of: String,
    },
    /// The node has no InternalIP.
    NoEndpoint,
}

/// Something of a node that is not used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Refusal {
    /// The node's cluster.
    pub cluster: ClusterName,
    /// That cluster's id.
    pub cluster_id: ClusterId,
    /// The node.
    pub node: NodeName,
    /// The prefix that is not used; none if it is the whole node.
    pub prefix: Option<IpNet>,
    /// Why.
    pub kind: RefusalKind,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cluster, node) = (&self.cluster, &self.node);
        let prefix = self.prefix.map_or_else(String::new, |net| net.to_string());
        match &self.kind {
            RefusalKind::Overlap { with, of } => write!(
                f,
                "pod CIDR {prefix} of {cluster}/{node} overlaps {with} of {of} and is not used: give every node of the mesh \
                 its own pod CIDR"
            ),
            RefusalKind::HoldsEndpoint { endpoint, of } => write!(
                f,
                "pod CIDR {prefix} of {cluster}/{node} contains {endpoint}, where the tunnel to {of} ends, and is not used: \
                 pods and nodes need separate prefixes"
            ),
            RefusalKind::AddressTaken { of } => write!(
                f,
                "address {prefix} of {cluster}/{node} belongs to {of} already and is not used: node addresses must be \
                 unique in the mesh"
            ),
            RefusalKind::NoEndpoint => write!(
                f,
                "node {cluster}/{node} has no InternalIP, so no tunnel can end there: give it one"
            ),
        }
    }
}

/// The addresses that are taken so far.
#[derive(Debug)]
pub(crate) struct Claims {
    /// Where tunnels end, with their nodes: of all nodes, whether planned yet or not.
    endpoints: BTreeMap<IpAddr, String>,
    addresses: BTreeMap<IpAddr, String>,
    /// By first address; they never overlap.
    cidrs: BTreeMap<IpAddr, (IpNet, String, ClusterId)>,
    refused: BTreeSet<Refusal>,
}

impl Claims {
    /// This node's own addresses and CIDRs come before all others.
    pub(crate) fn of(local: &Node) -> Self {
        let owner = owner(local);
        let mut claims = Self {
            endpoints: local
                .tunnel_endpoint()
                .into_iter()
                .map(|ip| (ip, owner.clone()))
                .collect(),
            addresses: local.addresses.iter().map(|a| (a.ip, owner.clone())).collect(),
            cidrs: BTreeMap::new(),
            refused: BTreeSet::new(),
        };
        for cidr in &local.pod_cidrs {
            let claim = (cidr.trunc(), owner.clone(), local.cluster_id);
            claims.cidrs.insert(cidr.network(), claim);
        }
        claims
    }

    /// Notes where a node's tunnel ends, before any CIDR is judged.
    pub(crate) fn announce(&mut self, node: &Node) {
        if let Some(endpoint) = node.tunnel_endpoint() {
            self.endpoints.entry(endpoint).or_insert_with(|| owner(node));
        }
    }

    /// Where the node's tunnel ends, unless it has no such address or another node has the same.
    pub(crate) fn endpoint(&mut self, node: &Node) -> Option<IpAddr> {
        let Some(endpoint) = node.tunnel_endpoint() else {
            self.refuse(node, None, RefusalKind::NoEndpoint);
            return None;
        };
        match self.endpoints.get(&endpoint) {
            Some(of) if *of != owner(node) => {
                let kind = RefusalKind::AddressTaken { of: of.clone() };
                self.refuse(node, Some(endpoint.into()), kind);
                None
            }
            _ => Some(endpoint),
        }
    }

    /// Takes an address of a node; false if it may not have it. `inside`: an address within the overlay.
    pub(crate) fn take_address(&mut self, node: &Node, ip: IpAddr, inside: bool) -> bool {
        let me = owner(node);
        if let Some(of) = self.addresses.get(&ip).filter(|of| **of != me) {
            let kind = RefusalKind::AddressTaken { of: of.clone() };
            self.refuse(node, Some(ip.into()), kind);
            return false;
        }
        if inside {
            let foreign = self.overlapping(ip.into()).filter(|(_, of)| *of != me);
            let endpoint = self.endpoints.get(&ip).cloned();
            if let Some((with, of)) = foreign {
                self.refuse(node, Some(ip.into()), RefusalKind::Overlap { with, of });
                return false;
            }
            if let Some(of) = endpoint {
                self.refuse(
                    node,
                    Some(ip.into()),
                    RefusalKind::HoldsEndpoint { endpoint: ip, of },
                );
                return false;
            }
        }
        self.addresses.insert(ip, me);
        true
    }

    /// Takes a pod CIDR of a node; false if it may not have it.
    pub(crate) fn take_cidr(&mut self, node: &Node, cidr: IpNet) -> bool {
        if let Some((with, of)) = self.overlapping(cidr) {
            self.refuse(node, Some(cidr), RefusalKind::Overlap { with, of });
            return false;
        }
        let inside = self.endpoints.range(cidr.network()..=cidr.broadcast()).next();
        if let Some((endpoint, of)) = inside.map(|(ip, of)| (*ip, of.clone())) {
            self.refuse(node, Some(cidr), RefusalKind::HoldsEndpoint { endpoint, of });
            return false;
        }
        self.cidrs
            .insert(cidr.network(), (cidr, owner(node), node.cluster_id));
        true
    }

    /// The taken CIDR that shares addresses with this one.
    fn overlapping(&self, cidr: IpNet) -> Option<(IpNet, String)> {
        // They do not overlap each other, so only the last one that begins before the end can reach into it.
        let (_, (taken, of, _)) = self.cidrs.range(..=cidr.broadcast()).next_back()?;
        let overlaps = taken.contains(&cidr) || cidr.contains(taken);
        overlaps.then(|| (*taken, of.clone()))
    }

    fn refuse(&mut self, node: &Node, prefix: Option<IpNet>, kind: RefusalKind) {
        self.refused.insert(Refusal {
            cluster: node.cluster.clone(),
            cluster_id: node.cluster_id,
            node: node.name.clone(),
            prefix,
            kind,
        });
    }

    /// Who has which CIDR, and what was refused.
    pub(crate) fn outcome(self) -> (BTreeMap<IpNet, ClusterId>, Vec<Refusal>) {
        let owners = self.cidrs.into_values().map(|(cidr, _, cluster)| (cidr, cluster));
        (owners.collect(), self.refused.into_iter().collect())
    }
}

fn owner(node: &Node) -> String {
    format!("{}/{}", node.cluster, node.name)
}
