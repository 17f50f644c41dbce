//! How a remote cluster is doing, in the shape that Cilium's agents report (spec §3.4).
use std::collections::{BTreeMap, VecDeque};

use isthmus_kvstore::ExportMode;
use isthmus_topology::{ClusterId, ClusterName, MaxClusters};
use jiff::Timestamp;
use serde::Serialize;

use crate::Resource;

/// What a remote cluster says of itself in `cilium/cluster-config/<name>` (spec §1.3), validated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RemoteConfig {
    /// Its id: in range, not ours, and no other remote cluster's.
    pub id: ClusterId,
    /// The size of its mesh: the same as ours.
    pub max_clusters: MaxClusters,
    /// It writes a canary for each table once that is complete.
    pub synced_canaries: bool,
    /// Its data lies under `cilium/cache`: it is a copy made by a KVStoreMesh.
    pub cached: bool,
    /// None: it knows no service exports; else whether they are switched on.
    pub service_exports: Option<bool>,
    /// Which form of services it exports.
    pub slices: ExportMode,
}

/// Which tables have been received completely at least once since the agent started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Synced {
    /// Nodes.
    pub nodes: bool,
    /// Services.
    pub services: bool,
    /// Identities.
    pub identities: bool,
    /// Ip entries.
    pub endpoints: bool,
    /// Endpoint slices; none if the cluster exports none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_slices: Option<bool>,
    /// Service exports; none if the cluster knows none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_exports: Option<bool>,
}

impl Synced {
    /// True if this table is complete, or is not exported at all.
    pub fn has(&self, resource: Resource) -> bool {
        match resource {
            Resource::Nodes => self.nodes,
            Resource::Services => self.services,
            Resource::Identities => self.identities,
            Resource::Ips => self.endpoints,
            Resource::EndpointSlices => self.endpoint_slices.unwrap_or(true),
            Resource::ServiceExports => self.service_exports.unwrap_or(true),
        }
    }

    /// True if every table is complete.
    pub fn all(&self) -> bool {
        Resource::ALL.iter().all(|resource| self.has(*resource))
    }
}

/// What is known of the remote cluster's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ConfigStatus {
    /// Always true: a cluster without configuration is not joined.
    pub required: bool,
    /// It has been read on the current or an earlier connection.
    pub retrieved: bool,
    /// Its id, 0 while unknown.
    pub cluster_id: u16,
    /// Its data is a KVStoreMesh's copy.
    pub kvstoremesh: bool,
    /// Its tables are followed once their canaries are there.
    pub sync_canaries: bool,
    /// Whether service exports are on; none if unknown to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_exports_enabled: Option<bool>,
    /// Which form of services it exports; empty for services only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint_slices_export_mode: String,
}

/// The status of one remote cluster: the members that Cilium has, then ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RemoteClusterStatus {
    /// Its name.
    pub name: ClusterName,
    /// Connected, its configuration is valid, and every table is complete.
    pub ready: bool,
    /// A connection is up and its heartbeat has been listed.
    pub connected: bool,
    /// One line for people: what it does now, or what failed, why, and when it tries again.
    pub status: String,
    /// Nodes in its table.
    pub num_nodes: usize,
    /// Services in its table.
    pub num_shared_services: usize,
    /// Ip entries in its table.
    pub num_endpoints: usize,
    /// Identities in its table.
    pub num_identities: usize,
    /// Endpoint slices in its table.
    pub num_endpoint_slices: usize,
    /// Service exports in its table.
    pub num_service_exports: usize,
    /// Connections that failed or broke since the agent started.
    pub num_failures: u64,
    /// When the last one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<Timestamp>,
    /// Which tables are complete.
    pub synced: Synced,
    /// Its configuration.
    pub config: ConfigStatus,
    /// Why the last connection failed or broke.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_failure_reason: String,
    /// The endpoint that the connection goes to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// How often services were dropped because the cluster was away for longer than the cache TTL.
    pub num_cache_revocations: u64,
    /// Values that were refused since the agent started.
    pub num_rejected: u64,
}

impl RemoteClusterStatus {
    /// The status of a cluster that nothing is known of yet.
    pub fn new(name: ClusterName) -> Self {
        Self {
            name,
            ready: false,
            connected: false,
            status: "not connected yet".to_owned(),
            num_nodes: 0,
            num_shared_services: 0,
            num_endpoints: 0,
            num_identities: 0,
            num_endpoint_slices: 0,
            num_service_exports: 0,
            num_failures: 0,
            last_failure: None,
            synced: Synced::default(),
            config: ConfigStatus {
                required: true,
                ..ConfigStatus::default()
            },
            last_failure_reason: String::new(),
            endpoint: String::new(),
            num_cache_revocations: 0,
            num_rejected: 0,
        }
    }
}

/// A value that was refused: the one before it stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// The key in the remote store, as `etcdctl get` takes it.
    pub key: String,
    /// What is wrong with the value.
    pub reason: String,
    /// When it came.
    pub at: Timestamp,
}

/// The values of a cluster that were refused.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Rejections {
    /// How many, by table, since the agent started.
    pub by_resource: BTreeMap<Resource, u64>,
    /// The last ones, oldest first.
    pub recent: VecDeque<Rejection>,
}

impl Rejections {
    /// How many of the last ones are kept.
    pub const KEPT: usize = 16;

    /// How many there were in all.
    pub fn total(&self) -> u64 {
        self.by_resource.values().sum()
    }

    /// Counts one and keeps it as the newest.
    pub fn push(&mut self, resource: Resource, rejection: Rejection) {
        *self.by_resource.entry(resource).or_default() += 1;
        if self.recent.len() == Self::KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back(rejection);
    }
}
