//! The command line.
use std::net::SocketAddr;
use std::path::PathBuf;

use isthmus_telemetry::LogFormat;
use isthmus_topology::{ClusterName, NodeName};

/// Advertises this node's pod CIDRs and the LoadBalancer addresses of services with live backends to BGP routers.
#[derive(Debug, clap::Parser)]
#[command(version)]
pub(crate) struct Args {
    /// Directory with this cluster's Kubernetes manifests.
    #[arg(long, value_name = "DIR")]
    pub(crate) manifests: PathBuf,

    /// Name of the node that this speaker runs on, as in the manifests.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub(crate) node_name: NodeName,

    /// Local AS, listener and peers (YAML). Read again when it changes; sessions stay up unless a negotiated value changed.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,

    /// Name of this cluster, to tell its backends from those of others in the agent's view.
    #[arg(long, default_value = "local", value_name = "NAME")]
    pub(crate) cluster_name: ClusterName,

    /// Id of this cluster, 1 to 511.
    #[arg(long, default_value_t = 1, value_name = "ID")]
    pub(crate) cluster_id: u32,

    /// Admin socket of the agent on this node: counts live backends in other clusters. Without it only this cluster's count.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) agent_socket: Option<PathBuf>,

    /// Admin socket of this daemon.
    #[arg(long, default_value = "/run/isthmus/bgp-speaker.sock", value_name = "SOCKET")]
    pub(crate) admin_socket: PathBuf,

    /// Serve /metrics, /healthz and /readyz on this TCP address too.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics: Option<SocketAddr>,

    /// Withdraw everything (Cease, administrative shutdown) when terminated, even where graceful restart would keep the
    /// routes for the next start.
    #[arg(long)]
    pub(crate) shutdown_withdraw: bool,

    /// How log lines are written: text or json.
    #[arg(long, default_value = "text")]
    pub(crate) log_format: LogFormat,
}
