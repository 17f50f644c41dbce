//! The keys that a cluster writes about itself: cluster-config and heartbeat. Pure.
use isthmus_kvstore::{ClusterConfig, HEARTBEAT, cluster_config_key};
use isthmus_topology::MaxClusters;
use jiff::{Timestamp, Unit};

use crate::changes::{Entry, Exporting};

/// `cilium/cluster-config/C` (clustermesh.md §1.3).
pub(crate) fn cluster_config(exporting: &Exporting) -> Entry {
    let config = ClusterConfig {
        id: u32::from(exporting.cluster.id.value()),
        synced_canaries: true,
        cached: false,
        max_connected_clusters: MaxClusters::max_id(exporting.cluster.max),
        service_exports_enabled: Some(exporting.service_exports),
        export_mode: exporting.mode,
    };
    (cluster_config_key(&exporting.cluster.name), config.encode())
}

/// `cilium/.heartbeat`: the time in whole seconds, RFC 3339. Readers time its arrival and do not read it.
pub(crate) fn heartbeat(now: Timestamp) -> Entry {
    let second = now.round(Unit::Second).unwrap_or(now);
    (HEARTBEAT.to_owned(), second.to_string().into_bytes())
}
