//! What is measured of remote clusters, under Cilium's names (spec §6.5), read from the published snapshot whenever
//! somebody asks.
use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use tokio::sync::watch;

use crate::{RemoteClusterStatus, RemoteSnapshot};

/// A gauge for each remote cluster, or for all of them; register it under [`Gauge::name`].
pub struct Gauge {
    /// Its name without a daemon's prefix: `remote_cluster_nodes`.
    pub name: &'static str,
    /// What it means.
    pub help: &'static str,
    snapshots: watch::Receiver<Arc<RemoteSnapshot>>,
    value: Value,
}

#[derive(Clone, Copy)]
enum Value {
    OfAll(fn(&RemoteSnapshot) -> usize),
    OfEach(fn(&RemoteClusterStatus) -> f64),
}

const GAUGES: [(&str, &str, Value); 10] = [
    (
        "remote_clusters",
        "Remote clusters in the configuration",
        Value::OfAll(|snapshot| snapshot.clusters.len()),
    ),
    (
        "remote_cluster_failures",
        "Connections to the remote cluster that failed or broke",
        Value::OfEach(|status| number(status.num_failures)),
    ),
    (
        "remote_cluster_last_failure_ts",
        "When the last connection failed or broke, seconds since 1970",
        Value::OfEach(|status| {
            status
                .last_failure
                .map_or(0.0, |at| at.as_duration().as_secs_f64())
        }),
    ),
    (
        "remote_cluster_readiness_status",
        "1 while the remote cluster is ready",
        Value::OfEach(|status| f64::from(u8::from(status.ready))),
    ),
    (
        "remote_cluster_nodes",
        "Nodes of the remote cluster",
        Value::OfEach(|status| count(status.num_nodes)),
    ),
    (
        "remote_cluster_services",
        "Services of the remote cluster",
        Value::OfEach(|status| count(status.num_shared_services)),
    ),
    (
        "remote_cluster_endpoints",
        "Addresses of the remote cluster",
        Value::OfEach(|status| count(status.num_endpoints)),
    ),
    (
        "remote_cluster_identities",
        "Identities of the remote cluster",
        Value::OfEach(|status| count(status.num_identities)),
    ),
    (
        "remote_cluster_cache_revocations",
        "How often services were dropped because the remote cluster was away for longer than the cache TTL",
        Value::OfEach(|status| number(status.num_cache_revocations)),
    ),
    (
        "remote_cluster_rejected_values",
        "Values of the remote cluster that were refused as not valid",
        Value::OfEach(|status| number(status.num_rejected)),
    ),
];

impl Gauge {
    pub(crate) fn all(snapshots: &watch::Receiver<Arc<RemoteSnapshot>>) -> Vec<Self> {
        let gauge = |(name, help, value)| Self {
            name,
            help,
            snapshots: snapshots.clone(),
            value,
        };
        GAUGES.map(gauge).into()
    }
}

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauge")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl EncodeMetric for Gauge {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let snapshot = self.snapshots.borrow().clone();
        match self.value {
            Value::OfAll(value) => encoder.encode_gauge(&count(value(&snapshot))),
            Value::OfEach(value) => {
                for (name, cluster) in &snapshot.clusters {
                    let labels = [("target_cluster", name.as_str())];
                    encoder
                        .encode_family(&labels)?
                        .encode_gauge(&value(&cluster.status))?;
                }
                Ok(())
            }
        }
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }

    /// A family without members is left out.
    fn is_empty(&self) -> bool {
        matches!(self.value, Value::OfEach(_)) && self.snapshots.borrow().clusters.is_empty()
    }
}

fn count(n: usize) -> f64 {
    number(u64::try_from(n).unwrap_or(u64::MAX))
}

#[allow(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn number(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use isthmus_topology::ClusterName;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::RemoteClusterState;

    #[test]
    fn the_gauges_show_what_is_published() {
        let name = ClusterName::new("west").expect("name");
        let mut state = RemoteClusterState::new(name.clone());
        (state.status.ready, state.status.num_nodes) = (true, 3);
        let mut snapshot = RemoteSnapshot::default();
        snapshot.clusters.insert(name, Arc::new(state));
        let (_publisher, snapshots) = watch::channel(Arc::new(snapshot));
        let mut registry = Registry::default();
        for gauge in Gauge::all(&snapshots) {
            registry.register(format!("cilium_clustermesh_{}", gauge.name), gauge.help, gauge);
        }
        let mut text = String::new();
        encode(&mut text, &registry).expect("encoded");
        for line in [
            "cilium_clustermesh_remote_clusters 1.0",
            "cilium_clustermesh_remote_cluster_readiness_status{target_cluster=\"west\"} 1.0",
            "cilium_clustermesh_remote_cluster_nodes{target_cluster=\"west\"} 3.0",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
