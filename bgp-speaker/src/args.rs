//! The command line.
use std::net::SocketAddr;
use std::path::PathBuf;

use isthmus_telemetry::LogFormat;
use isthmus_topology::{ClusterName, NodeName};

/// Every key of the configuration file.
const EXAMPLE: &str = "\
Example of --config (every key but localASN, name and peerAddress may be left out):

  localASN: 65001
  routerID: 10.0.0.1                  # default: the node's IPv4 InternalIP
  listen: {address: '::', port: 179}  # without listen the speaker only dials
  peers:
  - name: tor
    peerAddress: 10.0.0.254
    peerPort: 179
    peerASN: 65000                    # 0 takes any AS
    localAddress: 10.0.0.1
    holdTimeSeconds: 90               # 0, or 3 and more
    connectRetryTimeSeconds: 5
    passwordFile: tor.key             # TCP-MD5; or password: TEXT
    passive: false
    ebgpMultihop: 1
    families: [ipv4-unicast, ipv6-unicast]
    nextHop: {ipv4: 10.0.0.1, ipv6: 'fd00::1'}
    gracefulRestart: {enabled: true, restartTimeSeconds: 120}
    maxPrefixes: 1000
    import: accept                    # or reject";

/// Advertises this node's pod CIDRs and the LoadBalancer addresses of services with live backends to BGP routers.
#[derive(Debug, clap::Parser)]
#[command(version, after_long_help = EXAMPLE)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_help_is_a_good_configuration() {
        let (_, yaml) = EXAMPLE.split_once("\n\n").expect("a sentence, then the example");
        let yaml = yaml.replacen("passwordFile: tor.key", "password: secret", 1);
        let config = crate::config::Config::parse(&yaml, std::path::Path::new("example"));
        assert_eq!(config.expect("good").peers.len(), 1);
    }
}
