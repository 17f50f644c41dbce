//! Services: of this cluster as Kubernetes has them, of other clusters as the mesh carries them (spec §1.8, §4).
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{ClusterId, ClusterName, NodeName, ServiceName};

/// The name of a service port; may be empty. Ports of different clusters join by it.
pub type PortName = String;

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[serde(rename = "TCP")]
    Tcp,
    /// UDP.
    #[serde(rename = "UDP")]
    Udp,
    /// SCTP: carried, not balanced.
    #[serde(rename = "SCTP")]
    Sctp,
    /// Any protocol: carried, not balanced.
    #[serde(rename = "ANY")]
    Any,
    /// No protocol: carried, not balanced.
    #[serde(rename = "NONE")]
    None,
}

impl Protocol {
    /// The IP protocol number, where there is one.
    pub const fn number(self) -> Option<u8> {
        match self {
            Self::Tcp => Some(6),
            Self::Udp => Some(17),
            Self::Sctp => Some(132),
            Self::Any | Self::None => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Any => "ANY",
            Self::None => "NONE",
        })
    }
}

/// A protocol and a port number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServicePort {
    /// Protocol.
    pub protocol: Protocol,
    /// Port number.
    pub port: u16,
}

/// Which clusters a service prefers (`service.cilium.io/affinity`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceAffinity {
    /// All clusters alike.
    #[default]
    None,
    /// This cluster while it has a live backend, else the others.
    Local,
    /// The other clusters while they have a live backend, else this one.
    Remote,
}

impl fmt::Display for ServiceAffinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Local => "local",
            Self::Remote => "remote",
        })
    }
}

/// Kubernetes' internal and external traffic policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum TrafficPolicy {
    /// Any backend.
    #[default]
    Cluster,
    /// Only backends on the same node.
    Local,
}

/// What an endpoint can do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// Takes new connections.
    Active,
    /// Shutting down but still serving: used for new connections only if nothing is active (KEP-1669).
    Terminating,
    /// Takes nothing.
    NotReady,
}

/// Where an endpoint is, for topology-aware choices.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Zone {
    /// Its zone, or empty.
    pub zone: String,
    /// Zones it is hinted for.
    pub for_zones: Vec<String>,
}

/// One endpoint of a service of this cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Its address.
    pub ip: IpAddr,
    /// Its ports by name.
    pub ports: BTreeMap<PortName, ServicePort>,
    /// What it can do now.
    pub state: BackendState,
    /// The node it runs on, if the source says so.
    pub node: Option<NodeName>,
    /// Host name within the service (headless), or empty.
    pub hostname: String,
    /// Where it is.
    pub zone: Zone,
}

/// A Service of this cluster with the endpoints of its slices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalService {
    /// namespace/name.
    pub name: ServiceName,
    /// Annotated global (spec §4.1), in a global namespace.
    pub global: bool,
    /// Exported to other clusters: global, and not annotated `shared: "false"`.
    pub shared: bool,
    /// Which clusters it prefers.
    pub affinity: ServiceAffinity,
    /// No ClusterIP.
    pub headless: bool,
    /// ClusterIPs of both families.
    pub cluster_ips: Vec<IpAddr>,
    /// Assigned LoadBalancer addresses (status.loadBalancer.ingress).
    pub load_balancer_ips: Vec<IpAddr>,
    /// spec.externalIPs.
    pub external_ips: Vec<IpAddr>,
    /// spec.loadBalancerClass, if set.
    pub load_balancer_class: Option<String>,
    /// Service ports by name.
    pub ports: BTreeMap<PortName, ServicePort>,
    /// externalTrafficPolicy.
    pub external_traffic_policy: TrafficPolicy,
    /// internalTrafficPolicy.
    pub internal_traffic_policy: TrafficPolicy,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Pod selector.
    pub selector: BTreeMap<String, String>,
    /// Endpoints from all its slices, one for each address, sorted by address.
    pub backends: Vec<Backend>,
}

/// A service as another cluster exports it: only backends that are ready or serving (spec §1.8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteService {
    /// Exporting cluster.
    pub cluster: ClusterName,
    /// Its id.
    pub cluster_id: ClusterId,
    /// namespace/name.
    pub name: ServiceName,
    /// Its ClusterIPs there; never programmed here.
    pub frontends: BTreeMap<IpAddr, BTreeMap<PortName, ServicePort>>,
    /// Its endpoints' ports.
    pub backends: BTreeMap<IpAddr, BTreeMap<PortName, ServicePort>>,
    /// Host names of headless endpoints.
    pub hostnames: BTreeMap<IpAddr, String>,
    /// Zones of endpoints.
    pub zones: BTreeMap<IpAddr, Zone>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Pod selector.
    pub selector: BTreeMap<String, String>,
    /// Always true on the wire of today.
    pub include_external: bool,
    /// False means: treat as deleted.
    pub shared: bool,
}

/// From where a frontend may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// ClusterIPs: from pods and hosts of the cluster.
    Internal,
    /// LoadBalancer and external IPs: from outside as well.
    External,
}

/// What a client connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Frontend {
    /// Virtual address.
    pub ip: IpAddr,
    /// Protocol and port.
    pub port: ServicePort,
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addr = std::net::SocketAddr::new(self.ip, self.port.port);
        write!(f, "{addr}/{}", self.port.protocol)
    }
}

/// Which namespaces of a cluster take part in the mesh (annotation `clustermesh.cilium.io/global`, spec §4.1): the pods,
/// identities and services of the others are not exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GlobalNamespaces {
    /// What holds for a namespace without the annotation.
    pub default: bool,
    /// What the annotations say: true only for "true" in any case.
    pub annotated: BTreeMap<String, bool>,
}

impl Default for GlobalNamespaces {
    fn default() -> Self {
        Self {
            default: true,
            annotated: BTreeMap::new(),
        }
    }
}

impl GlobalNamespaces {
    /// True if the namespace takes part.
    pub fn is_global(&self, namespace: &str) -> bool {
        self.annotated.get(namespace).copied().unwrap_or(self.default)
    }
}
