//! What this node may advertise, and why or why not: a pure function of the cluster's tables.
//!
//! The law behind it: a route exists only while somebody behind it can answer. So a LoadBalancer address is withheld while
//! its service has no active backend, whatever its traffic policy says, and every address that is withheld says why.
//!
//! ```text
//!   nodes ----------\
//!   services --------+--> plan() --> prefix -> [ who wants it, advertised or the reason why not ]
//!   remote backends -/
//! ```
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use isthmus_topology::{
    Backend, BackendState, LocalService, Node, NodeName, PortName, ServiceName, ServicePort, TrafficPolicy,
};

/// The only `loadBalancerClass` that this speaker serves; a service without a class is served too.
pub(crate) const LOAD_BALANCER_CLASS: &str = "io.cilium/bgp-control-plane";

/// What the plan is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tables<'a> {
    /// The node that this speaker runs on.
    pub(crate) node: &'a NodeName,
    /// All nodes of this cluster.
    pub(crate) nodes: &'a BTreeMap<NodeName, Arc<Node>>,
    /// All services of this cluster with their backends.
    pub(crate) services: &'a BTreeMap<ServiceName, Arc<LocalService>>,
    /// Backends in live remote clusters, as the agent counts them; empty without an agent.
    pub(crate) remote_backends: &'a RemoteBackends,
}

/// Backends in live remote clusters, by service and LoadBalancer address.
pub(crate) type RemoteBackends = BTreeMap<ServiceName, BTreeMap<IpAddr, usize>>;

/// Who wants a prefix advertised.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// The pods of this node.
    PodCidr,
    /// A LoadBalancer address of a service.
    Service(ServiceName),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PodCidr => f.pad("pod CIDR"),
            Self::Service(name) => write!(f, "service {name}"),
        }
    }
}

/// Whether a prefix is advertised for an origin, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Advertised: it is this node's own pod CIDR.
    OwnPods,
    /// Advertised: that many backends can answer.
    Backends {
        /// On this node.
        node: usize,
        /// In this cluster, this node included.
        cluster: usize,
        /// In live remote clusters; counted only for global services.
        remote: usize,
    },
    /// Withheld: nobody behind it could answer.
    NoBackend,
    /// Withheld: externalTrafficPolicy is Local and this node has no active backend; the cluster has that many.
    NoBackendOnNode(usize),
    /// Withheld: another implementation serves this loadBalancerClass.
    ForeignClass(String),
    /// Withheld: the address or prefix is not routable.
    Unroutable,
}

impl Verdict {
    /// True if the prefix is advertised.
    pub(crate) fn advertised(&self) -> bool {
        matches!(self, Self::OwnPods | Self::Backends { .. })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnPods => f.pad("pods of this node"),
            Self::Backends {
                node,
                cluster,
                remote,
            } => {
                write!(
                    f,
                    "live backends: {node} on this node, {cluster} in this cluster, {remote} remote"
                )
            }
            Self::NoBackend => f.pad("no live backend"),
            Self::NoBackendOnNode(0) => {
                f.pad("externalTrafficPolicy is Local and no node has a live backend")
            }
            Self::NoBackendOnNode(cluster) => write!(
                f,
                "externalTrafficPolicy is Local and all {cluster} live backends are on other nodes"
            ),
            Self::ForeignClass(class) => {
                write!(f, "loadBalancerClass {class} belongs to another implementation")
            }
            Self::Unroutable => f.pad("not a routable address"),
        }
    }
}

/// Every prefix that somebody wants advertised, with the verdict for each of them.
///
/// A prefix is advertised if [`advertised`] says so: one origin with a yes is enough, since services may share an address.
pub(crate) type Plan = BTreeMap<IpNet, BTreeMap<Origin, Verdict>>;

/// True if at least one origin of a prefix may advertise it.
pub(crate) fn advertised(origins: &BTreeMap<Origin, Verdict>) -> bool {
    origins.values().any(Verdict::advertised)
}

/// Decides what this node advertises.
pub(crate) fn plan(tables: Tables<'_>) -> Plan {
    let mut plan = Plan::new();
    let own = tables.nodes.get(tables.node);
    for cidr in own.iter().flat_map(|node| &node.pod_cidrs) {
        let verdict = if routable(cidr) {
            Verdict::OwnPods
        } else {
            Verdict::Unroutable
        };
        plan.entry(cidr.trunc())
            .or_default()
            .insert(Origin::PodCidr, verdict);
    }
    for service in tables.services.values() {
        for ip in &service.load_balancer_ips {
            let prefix = IpNet::from(*ip);
            let verdict = if routable(&prefix) {
                judge(tables, service, *ip)
            } else {
                Verdict::Unroutable
            };
            plan.entry(prefix)
                .or_default()
                .insert(Origin::Service(service.name.clone()), verdict);
        }
    }
    plan
}

fn judge(tables: Tables<'_>, service: &LocalService, ip: IpAddr) -> Verdict {
    if let Some(class) = &service.load_balancer_class
        && class != LOAD_BALANCER_CLASS
    {
        return Verdict::ForeignClass(class.clone());
    }
    let live: Vec<&Backend> = service
        .backends
        .iter()
        .filter(|backend| answers(&service.ports, ip, backend))
        .collect();
    let cluster = live.len();
    let here = |backend: &&&Backend| backend.node.as_ref() == Some(tables.node);
    let node = live.iter().filter(here).count();
    let counted = tables
        .remote_backends
        .get(&service.name)
        .filter(|_| service.global);
    let remote = counted.and_then(|by_ip| by_ip.get(&ip)).copied().unwrap_or(0);
    match service.external_traffic_policy {
        TrafficPolicy::Local if node == 0 => Verdict::NoBackendOnNode(cluster),
        // Remote backends never serve a Local policy, so they are not part of its count.
        TrafficPolicy::Local => Verdict::Backends {
            node,
            cluster,
            remote: 0,
        },
        TrafficPolicy::Cluster if cluster + remote == 0 => Verdict::NoBackend,
        TrafficPolicy::Cluster => Verdict::Backends {
            node,
            cluster,
            remote,
        },
    }
}

/// A backend answers for an address if it is of its family and takes new connections on a port of the service. Those that are
/// shutting down still serve what reaches them, but the routers shall look elsewhere.
fn answers(ports: &BTreeMap<PortName, ServicePort>, ip: IpAddr, backend: &Backend) -> bool {
    let same_port = |(name, port): (&PortName, &ServicePort)| {
        let target = backend.ports.get(name);
        target.is_some_and(|target| target.protocol == port.protocol)
    };
    backend.state == BackendState::Active
        && backend.ip.is_ipv6() == ip.is_ipv6()
        && ports.iter().any(same_port)
}

/// Loopback, link-local, multicast and unspecified space is never routed, and no node may draw a default route to itself.
fn routable(prefix: &IpNet) -> bool {
    let usable = match prefix.addr() {
        IpAddr::V4(ip) => {
            let first = ip.octets()[0];
            first != 0 && first < 224 && !ip.is_loopback() && !ip.is_link_local()
        }
        IpAddr::V6(ip) => {
            !ip.is_unspecified()
                && !ip.is_loopback()
                && !ip.is_multicast()
                && !ip.is_unicast_link_local()
                && ip.to_ipv4_mapped().is_none()
        }
    };
    usable && prefix.prefix_len() > 0
}

#[cfg(test)]
mod tests;
