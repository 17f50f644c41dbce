//! What the client of remote clusters has to be told.
use std::path::PathBuf;
use std::time::Duration;

use isthmus_topology::{ClusterId, ClusterName, MaxClusters};

/// The local cluster and where the configuration of the remote ones is.
#[derive(Debug, Clone)]
pub struct Options {
    /// Cilium's configuration directory (`/var/lib/cilium/clustermesh`, spec §3.1).
    pub directory: PathBuf,
    /// The local cluster: a file of this name is skipped.
    pub cluster: ClusterName,
    /// Its id: refused in a remote cluster.
    pub cluster_id: ClusterId,
    /// The size of the mesh: every cluster must agree.
    pub max_clusters: MaxClusters,
    /// How long services of an unreachable cluster are kept (`clustermesh-cache-ttl`); none: for ever.
    pub cache_ttl: Option<Duration>,
    /// Intervals and limits.
    pub timing: Timing,
}

impl Options {
    /// Options with Cilium's defaults.
    pub fn new(directory: impl Into<PathBuf>, cluster: ClusterName, cluster_id: ClusterId) -> Self {
        Self {
            directory: directory.into(),
            cluster,
            cluster_id,
            max_clusters: MaxClusters::default(),
            cache_ttl: None,
            timing: Timing::default(),
        }
    }
}

/// Intervals and limits; the defaults are Cilium's where it has one (spec §2.4, §3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// For a TCP connection and TLS handshake with one endpoint.
    pub connect_timeout: Duration,
    /// Between two HTTP/2 pings.
    pub keepalive_interval: Duration,
    /// For the answer to a ping.
    pub keepalive_timeout: Duration,
    /// For the reply to one request (a page of a list).
    pub request_timeout: Duration,
    /// A connection without a heartbeat for so long is given up.
    pub heartbeat_timeout: Duration,
    /// The longest time between two reads of a cluster-config that is not there yet.
    pub config_retry_max: Duration,
    /// A connection on which the cluster-config does not appear for so long is given up.
    pub config_deadline: Duration,
    /// First delay before a new connection; doubled each time.
    pub reconnect_min: Duration,
    /// Longest delay before a new connection.
    pub reconnect_max: Duration,
    /// First delay before a failed list is tried again; doubled each time.
    pub list_retry_min: Duration,
    /// Longest delay before a failed list is tried again.
    pub list_retry_max: Duration,
    /// Delay before a watch stream that ended without an error is opened again.
    pub rewatch_delay: Duration,
    /// Keys in one page of a list (`etcd.limit`).
    pub page_size: i64,
    /// Shortest time between two publications: what comes within it is published together.
    pub publish_interval: Duration,
    /// The configuration directory is read again after so long even if no change was seen.
    pub rescan_interval: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(15),
            keepalive_timeout: Duration::from_secs(25),
            request_timeout: Duration::from_secs(60),
            heartbeat_timeout: Duration::from_secs(120),
            config_retry_max: Duration::from_secs(30),
            config_deadline: Duration::from_secs(180),
            reconnect_min: Duration::from_millis(100),
            reconnect_max: Duration::from_secs(15),
            list_retry_min: Duration::from_millis(50),
            list_retry_max: Duration::from_secs(60),
            rewatch_delay: Duration::from_millis(50),
            page_size: 256,
            publish_interval: Duration::from_millis(1),
            rescan_interval: Duration::from_secs(30),
        }
    }
}
