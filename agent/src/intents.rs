//! What this node should do, as of one moment: everything that the pure functions take.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use isthmus_remote_cluster::{RemoteClusterState, RemoteSnapshot, Resource};
use isthmus_sources::Snapshot;
use isthmus_topology::{ClusterId, MaxClusters, Node, NodeName};

use crate::args::ServiceChoice;

/// This cluster and this node.
#[derive(Debug, Clone)]
pub(crate) struct Me {
    pub(crate) cluster: ClusterId,
    pub(crate) max: MaxClusters,
    pub(crate) node: NodeName,
    pub(crate) services: ServiceChoice,
}

/// Everything that decides what this node should have.
#[derive(Debug, Clone)]
pub(crate) struct Intents {
    pub(crate) me: Arc<Me>,
    /// This cluster.
    pub(crate) local: Snapshot,
    /// The others.
    pub(crate) remote: Arc<RemoteSnapshot>,
    /// Nodes that do not answer probes although their cluster does.
    pub(crate) dead: BTreeSet<(ClusterId, NodeName)>,
    /// Packets from outside can be masqueraded, so they may go to other nodes.
    pub(crate) masquerade: bool,
}

impl Intents {
    /// This node, if the manifests have it.
    pub(crate) fn own_node(&self) -> Option<&Node> {
        self.local.nodes.get(&self.me.node).map(AsRef::as_ref)
    }

    /// The remote clusters whose id is known.
    pub(crate) fn clusters(&self) -> impl Iterator<Item = (ClusterId, &RemoteClusterState)> {
        self.remote
            .clusters
            .values()
            .filter_map(|state| Some((state.config.as_ref()?.id, state.as_ref())))
    }

    /// All nodes of the mesh but this one.
    pub(crate) fn other_nodes(&self) -> Vec<&Node> {
        let own = self
            .local
            .nodes
            .values()
            .map(AsRef::as_ref)
            .filter(|node| node.name != self.me.node);
        let theirs = self.clusters().flat_map(|(_, state)| state.nodes.values());
        own.chain(theirs).collect()
    }

    /// The clusters that have said all they know of a table.
    pub(crate) fn synced(&self, resource: Resource) -> BTreeSet<ClusterId> {
        self.clusters()
            .filter(|(_, state)| state.status.synced.has(resource))
            .map(|(id, _)| id)
            .collect()
    }

    /// True if every source has said all it knows: what nobody wants may go.
    pub(crate) fn all_synced(&self) -> bool {
        let local = self.local.complete && !self.local.partial && self.own_node().is_some();
        local
            && [Resource::Nodes, Resource::Ips, Resource::Services]
                .iter()
                .all(|r| self.remote.synced(*r))
    }

    /// The nodes to leave out, with their clusters' tables.
    pub(crate) fn dead_nodes(&self) -> DeadNodes<'_> {
        let clusters: BTreeMap<ClusterId, &RemoteClusterState> = self.clusters().collect();
        let mut nodes: BTreeMap<ClusterId, Vec<&Node>> = BTreeMap::new();
        for (id, name) in &self.dead {
            let node = clusters.get(id).and_then(|state| state.nodes.get(name));
            nodes.entry(*id).or_default().extend(node);
        }
        DeadNodes { nodes, clusters }
    }
}

/// Which addresses are behind dead nodes.
#[derive(Debug)]
pub(crate) struct DeadNodes<'a> {
    nodes: BTreeMap<ClusterId, Vec<&'a Node>>,
    clusters: BTreeMap<ClusterId, &'a RemoteClusterState>,
}

impl DeadNodes<'_> {
    /// True if the address of that cluster is behind a node that does not answer.
    pub(crate) fn holds(&self, cluster: ClusterId, ip: IpAddr) -> bool {
        let Some(nodes) = self.nodes.get(&cluster) else {
            return false;
        };
        if nodes
            .iter()
            .any(|node| node.pod_cidrs.iter().any(|cidr| cidr.contains(&ip)))
        {
            return true;
        }
        let entry = self
            .clusters
            .get(&cluster)
            .and_then(|state| state.ips.get(&ip.into()));
        let host = entry.and_then(|entry| entry.host_ip);
        host.is_some_and(|host| {
            nodes
                .iter()
                .any(|node| node.addresses.iter().any(|a| a.ip == host))
        })
    }

    /// The node that holds an address of a remote cluster, for status.
    pub(crate) fn node_of(&self, cluster: ClusterId, ip: IpAddr) -> Option<&NodeName> {
        let state = self.clusters.get(&cluster)?;
        let host = state.ips.get(&ip.into()).and_then(|entry| entry.host_ip);
        let behind = |node: &&Node| {
            host.is_some_and(|host| node.addresses.iter().any(|a| a.ip == host))
                || node.pod_cidrs.iter().any(|cidr| cidr.contains(&ip))
        };
        state.nodes.values().find(behind).map(|node| &node.name)
    }
}
