//! What the agent sees: every remote cluster with its tables, as of one moment.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use isthmus_topology::{
    ClusterName, Identity, IpIdentity, Labels, Node, NodeName, RemoteService, ServiceExport, ServiceName,
    ServiceSlice,
};
use serde::Serialize;

use crate::{Rejections, RemoteClusterStatus, RemoteConfig, Resource, Table};

/// All remote clusters as of one moment. Cheap to keep: tables are shared, not copied.
#[derive(Debug, Clone, Default)]
pub struct RemoteSnapshot {
    /// Grows with every publication.
    pub generation: u64,
    /// True once the configuration directory has been read: `clusters` then has every configured cluster.
    pub configured: bool,
    /// The configured clusters. One that is removed from the configuration leaves at once, with all its entries.
    pub clusters: BTreeMap<ClusterName, Arc<RemoteClusterState>>,
    /// Files of the configuration directory that are not used as they are, and why.
    pub problems: Vec<ConfigProblem>,
}

impl RemoteSnapshot {
    /// True if the directory has been read and this table of every configured cluster has been complete once: from then on
    /// a reconciler may prune what no cluster has (spec §3.3).
    pub fn synced(&self, resource: Resource) -> bool {
        self.configured && self.clusters.values().all(|c| c.status.synced.has(resource))
    }

    /// True if every cluster is ready.
    pub fn ready(&self) -> bool {
        self.configured && self.clusters.values().all(|c| c.status.ready)
    }
}

/// One remote cluster: what it is, how it is doing, and what it exports. The tables stay as they are while it is away.
#[derive(Debug, Clone)]
pub struct RemoteClusterState {
    /// Its name.
    pub name: ClusterName,
    /// What it says of itself; none until it was read once.
    pub config: Option<RemoteConfig>,
    /// How it is doing.
    pub status: RemoteClusterStatus,
    /// Its nodes.
    pub nodes: Table<NodeName, Node>,
    /// Its identities.
    pub identities: Table<Identity, Labels>,
    /// Its addresses and prefixes; a host entry wins over a prefix of the same length (spec §1.7).
    pub ips: Table<IpNet, IpIdentity>,
    /// Its shared services.
    pub services: Table<ServiceName, RemoteService>,
    /// Its endpoint slices by namespace and slice name.
    pub slices: Table<ServiceName, ServiceSlice>,
    /// Its exported services.
    pub exports: Table<ServiceName, ServiceExport>,
    /// Values that were refused.
    pub rejected: Rejections,
}

impl RemoteClusterState {
    /// The state of a cluster that nothing is known of yet.
    pub fn new(name: ClusterName) -> Self {
        Self {
            config: None,
            status: RemoteClusterStatus::new(name.clone()),
            nodes: Table::default(),
            identities: Table::default(),
            ips: Table::default(),
            services: Table::default(),
            slices: Table::default(),
            exports: Table::default(),
            rejected: Rejections::default(),
            name,
        }
    }
}

/// A file of the configuration directory that is not used as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigProblem {
    /// The file.
    pub file: PathBuf,
    /// What is wrong, where, and what to do.
    pub reason: String,
    /// True if the last good version of the file is still in use.
    pub last_good_in_use: bool,
}
