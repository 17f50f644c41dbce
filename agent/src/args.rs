//! The command line.
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use isthmus_telemetry::LogFormat;
use isthmus_topology::{ClusterName, MaxClusters, NodeName};

/// Joins this node to the mesh: follows this cluster's manifests and the remote clusters, and programs the node's overlay,
/// routes and eBPF maps. What it has programmed stays when it ends.
#[derive(Debug, clap::Parser)]
#[command(version)]
pub(crate) struct Args {
    /// Name of this cluster.
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster_name: ClusterName,

    /// Id of this cluster, 1 to 255 (or 511): different in every cluster of the mesh.
    #[arg(long, value_name = "ID")]
    pub(crate) cluster_id: u32,

    /// Size of the mesh, 255 or 511: the same in every cluster.
    #[arg(long, default_value = "255", value_name = "N")]
    pub(crate) max_connected_clusters: MaxClusters,

    /// Name of this node, as in the manifests.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub(crate) node_name: NodeName,

    /// Directory with this cluster's Kubernetes manifests; followed.
    #[arg(long, value_name = "DIR")]
    pub(crate) manifests: PathBuf,

    /// Directory with one file for each remote cluster, in Cilium's format; followed, and may appear later.
    #[arg(long, default_value = "/var/lib/cilium/clustermesh", value_name = "DIR")]
    pub(crate) clustermesh_config: PathBuf,

    /// Directory for the eBPF pins of this node, on a bpffs (which is mounted if it is not).
    #[arg(long, default_value = "/sys/fs/bpf/isthmus", value_name = "DIR")]
    pub(crate) pin_dir: PathBuf,

    /// cgroup2 directory whose processes get socket load balancing; none: only packets from outside are balanced.
    #[arg(long, value_name = "DIR")]
    pub(crate) cgroup: Option<PathBuf>,

    /// Link towards the outside, on which LoadBalancer addresses are served; may be given several times.
    #[arg(long, value_name = "LINK")]
    pub(crate) uplink: Vec<String>,

    /// Name of the overlay device; it is made if it is not there.
    #[arg(long, default_value = "isthmus_vxlan", value_name = "LINK")]
    pub(crate) overlay_device: String,

    /// UDP port of the overlay: the same in every cluster.
    #[arg(long, default_value_t = 8472, value_name = "PORT")]
    pub(crate) overlay_port: u16,

    /// MTU of the network between the nodes; found out from this node's link if not given.
    #[arg(long, value_name = "BYTES")]
    pub(crate) underlay_mtu: Option<u32>,

    /// Pods on other nodes of this cluster are reached by the overlay too. Leave it off where a CNI does that.
    #[arg(long)]
    pub(crate) overlay_own_cluster: bool,

    /// Routing table for the routes to the mesh.
    #[arg(long, default_value_t = 7441, value_name = "TABLE")]
    pub(crate) route_table: u32,

    /// Preference of the rule that asks this table.
    #[arg(long, default_value_t = 5190, value_name = "PREF")]
    pub(crate) rule_preference: u32,

    /// rtproto number that marks our routes and rules.
    #[arg(long, default_value_t = 144, value_name = "NUMBER")]
    pub(crate) route_protocol: u8,

    /// Which services are balanced: those that are global or have an outside address, or all (instead of kube-proxy).
    #[arg(long, value_enum, default_value_t = ServiceChoice::Global, value_name = "WHICH")]
    pub(crate) services: ServiceChoice,

    /// Time between two rounds of probes of the remote nodes.
    #[arg(long, default_value = "100ms", value_parser = duration, value_name = "TIME")]
    pub(crate) probe_interval: Duration,

    /// Missed rounds in a row after which a node counts as dead.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub(crate) probe_failures: u32,

    /// Sizes of the eBPF maps: small suits a lab in which one machine carries many nodes.
    #[arg(long, value_enum, default_value_t = MapSize::Normal, value_name = "SIZE")]
    pub(crate) map_size: MapSize,

    /// Admin socket of this daemon.
    #[arg(long, default_value = "/run/isthmus/agent.sock", value_name = "SOCKET")]
    pub(crate) admin_socket: PathBuf,

    /// Serve /metrics, /healthz and /readyz on this TCP address too.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics: Option<SocketAddr>,

    /// How log lines are written: text or json.
    #[arg(long, default_value = "text")]
    pub(crate) log_format: LogFormat,
}

/// Which services are balanced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ServiceChoice {
    /// Global services, and the outside addresses of all.
    Global,
    /// All.
    All,
}

/// Sizes of the eBPF maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum MapSize {
    /// About 2 MB.
    Small,
    /// For a node of a large mesh.
    Normal,
}

/// `250ms`, `2s`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time: write it as 100ms or 2s");
    let (digits, unit) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => (text.strip_suffix('s').ok_or_else(wrong)?, 1000),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    match number.checked_mul(unit).filter(|ms| (10..=60_000).contains(ms)) {
        Some(ms) => Ok(Duration::from_millis(ms)),
        None => Err(format!("{text:?} is out of range: use 10ms to 60s")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_a_range() {
        assert_eq!(duration("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        for wrong in ["100", "0ms", "1h", "61s", "ms", "18446744073709551615s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
