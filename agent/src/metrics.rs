//! Metrics, read from the state when they are asked for. Names are Cilium's where the meaning is (clustermesh.md §6.5).
use std::fmt;

use isthmus_datapath::Metric;
use isthmus_remote_cluster::{RemoteClusterState, RemoteClusters};
use isthmus_telemetry::Metrics;
use isthmus_telemetry::client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use isthmus_telemetry::client::metrics::MetricType;

use crate::core::Core;
use crate::daemon::Shared;
use crate::views;

/// One value with its labels.
type Sample = (Vec<(String, String)>, f64);

/// A family whose values are computed when it is read.
struct Live {
    kind: MetricType,
    shared: Shared,
    read: fn(&Core) -> Vec<Sample>,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Live")
    }
}

impl EncodeMetric for Live {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let samples = (self.read)(&self.shared.core());
        for (labels, value) in samples {
            let mut family = encoder.encode_family(&labels)?;
            match self.kind {
                MetricType::Counter => family.encode_counter::<NoLabelSet, _, f64>(&value, None)?,
                _ => family.encode_gauge(&value)?,
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        self.kind
    }
}

/// All metrics of the agent.
pub(crate) fn registry(shared: &Shared, remote: &RemoteClusters) -> Metrics {
    let metrics = Metrics::new();
    let add = |name: &str, help: &str, kind: MetricType, read: fn(&Core) -> Vec<Sample>| {
        let shared = shared.clone();
        metrics.register(name, help, Live { kind, shared, read });
    };
    let (gauge, counter) = (MetricType::Gauge, MetricType::Counter);
    for gauge in remote.gauges() {
        metrics.register(format!("cilium_clustermesh_{}", gauge.name), gauge.help, gauge);
    }
    add(
        "isthmus_remote_cluster_eligible",
        "1 if new connections may go to the remote cluster",
        gauge,
        |core| {
            let alive = core.datapath.alive();
            each(core, |state| {
                let id = state.config.as_ref().map(|config| config.id.value());
                f64::from(u8::from(id.is_some_and(|id| alive.is_alive(id))))
            })
        },
    );
    add(
        "isthmus_datapath_packets",
        "Packets and socket calls, by what happened to them",
        counter,
        |core| datapath(core, |metric| metric.packets),
    );
    add(
        "isthmus_datapath_bytes",
        "Bytes of packets, by what happened to them",
        counter,
        |core| datapath(core, |metric| metric.bytes),
    );
    add(
        "isthmus_writes",
        "Changes that this process has made, by what was changed",
        counter,
        |core| {
            let w = views::writes(core);
            let one = |name: &str, value: u64| (vec![("what".to_owned(), name.to_owned())], value as f64);
            vec![
                one("map_entries", w.map_entries),
                one("network", w.network),
                one("hooks", w.hooks),
                one("nft", w.nft),
                one("sysctls", w.sysctls),
            ]
        },
    );
    metrics
}

fn clusters(core: &Core) -> impl Iterator<Item = &RemoteClusterState> {
    core.intents
        .iter()
        .flat_map(|intents| intents.remote.clusters.values().map(AsRef::as_ref))
}

fn each(core: &Core, value: impl Fn(&RemoteClusterState) -> f64) -> Vec<Sample> {
    clusters(core)
        .map(|s| (vec![("target_cluster".to_owned(), s.name.to_string())], value(s)))
        .collect()
}

fn datapath(core: &Core, value: impl Fn(&Metric) -> u64) -> Vec<Sample> {
    let metrics = core.datapath.metrics().unwrap_or_default();
    metrics
        .iter()
        .map(|m| {
            (
                vec![("reason".to_owned(), m.reason.label().to_owned())],
                value(m) as f64,
            )
        })
        .collect()
}
