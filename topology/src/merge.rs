//! How services of several clusters become one (spec §4.2): local rules, remote backends.
use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::{
    BackendState, ClusterId, Frontend, LocalService, NodeName, PortName, RemoteService, Scope,
    ServiceAffinity, ServiceName, ServicePort, TrafficPolicy,
};

/// One place a connection can go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MergedBackend {
    /// Its address.
    pub ip: IpAddr,
    /// Its port.
    pub port: u16,
    /// The node it runs on, where the source says so.
    pub node: Option<NodeName>,
}

/// One virtual address and port with the places its connections can go, by cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedFrontend {
    /// Which port of the service it is.
    pub port_name: PortName,
    /// From where it may be used.
    pub scope: Scope,
    /// Backends of each cluster, sorted; a cluster without any is absent.
    pub groups: BTreeMap<ClusterId, Vec<MergedBackend>>,
}

/// A service of this cluster with what every cluster adds to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedService {
    /// namespace/name.
    pub name: ServiceName,
    /// Which clusters it prefers: this cluster's own annotation decides.
    pub affinity: ServiceAffinity,
    /// True if remote clusters take part.
    pub global: bool,
    /// Its frontends.
    pub frontends: BTreeMap<Frontend, MergedFrontend>,
}

/// Merges the services of this cluster with what the other clusters export.
///
/// Remote backends join only a service that exists here and is global; remote frontends are never programmed; ports join by
/// name; a policy `Local` keeps only backends of `node`, so remote ones drop out. `SCTP` and headless services have no
/// frontend.
pub fn merge_services<'a>(
    cluster: ClusterId,
    node: Option<&NodeName>,
    local: impl IntoIterator<Item = &'a LocalService>,
    remote: &BTreeMap<ServiceName, BTreeMap<ClusterId, &'a RemoteService>>,
) -> BTreeMap<ServiceName, MergedService> {
    let nobody = BTreeMap::new();
    let merge = |service: &'a LocalService| {
        let others = remote
            .get(&service.name)
            .filter(|_| service.global)
            .unwrap_or(&nobody);
        (service.name.clone(), merge_one(cluster, node, service, others))
    };
    local
        .into_iter()
        .filter(|service| !service.headless)
        .map(merge)
        .collect()
}

fn merge_one(
    cluster: ClusterId,
    node: Option<&NodeName>,
    service: &LocalService,
    others: &BTreeMap<ClusterId, &RemoteService>,
) -> MergedService {
    let internal = service
        .cluster_ips
        .iter()
        .map(|ip| (*ip, Scope::Internal, service.internal_traffic_policy));
    let outside = service.load_balancer_ips.iter().chain(&service.external_ips);
    let external = outside.map(|ip| (*ip, Scope::External, service.external_traffic_policy));
    let mut frontends = BTreeMap::new();
    for (ip, scope, policy) in internal.chain(external) {
        for (port_name, port) in service.ports.iter().filter(|(_, port)| is_balanced(**port)) {
            let only_node = (policy == TrafficPolicy::Local).then_some(node);
            let groups = groups(cluster, service, others, port_name, port.protocol, ip, only_node);
            let merged = MergedFrontend {
                port_name: port_name.clone(),
                scope,
                groups,
            };
            frontends.insert(Frontend { ip, port: *port }, merged);
        }
    }
    MergedService {
        name: service.name.clone(),
        affinity: service.affinity,
        global: service.global,
        frontends,
    }
}

fn is_balanced(port: ServicePort) -> bool {
    matches!(port.protocol, crate::Protocol::Tcp | crate::Protocol::Udp)
}

/// The backends of one frontend by cluster. `only_node`: `Some(n)` keeps only backends on `n` (policy Local).
fn groups(
    cluster: ClusterId,
    service: &LocalService,
    others: &BTreeMap<ClusterId, &RemoteService>,
    port_name: &str,
    protocol: crate::Protocol,
    vip: IpAddr,
    only_node: Option<Option<&NodeName>>,
) -> BTreeMap<ClusterId, Vec<MergedBackend>> {
    let mut groups = BTreeMap::new();
    let mine = local_backends(service, port_name, protocol, vip, only_node);
    if !mine.is_empty() {
        groups.insert(cluster, mine);
    }
    if only_node.is_some() {
        return groups;
    }
    for (id, remote) in others
        .iter()
        .filter(|(id, remote)| **id != cluster && remote.shared)
    {
        let matches = |(ip, ports): (&IpAddr, &BTreeMap<PortName, ServicePort>)| {
            let port = ports.get(port_name).filter(|port| port.protocol == protocol)?;
            (ip.is_ipv6() == vip.is_ipv6()).then_some(MergedBackend {
                ip: *ip,
                port: port.port,
                node: None,
            })
        };
        let backends: Vec<_> = remote.backends.iter().filter_map(matches).collect();
        if !backends.is_empty() {
            groups.insert(*id, backends);
        }
    }
    groups
}

/// Active endpoints; the terminating ones only if nothing is active (KEP-1669).
fn local_backends(
    service: &LocalService,
    port_name: &str,
    protocol: crate::Protocol,
    vip: IpAddr,
    only_node: Option<Option<&NodeName>>,
) -> Vec<MergedBackend> {
    let in_state = |state: BackendState| -> Vec<MergedBackend> {
        let usable = service
            .backends
            .iter()
            .filter(|b| b.state == state && b.ip.is_ipv6() == vip.is_ipv6());
        let near = usable.filter(|b| only_node.is_none_or(|node| node.is_some() && b.node.as_ref() == node));
        near.filter_map(|b| {
            let port = b.ports.get(port_name).filter(|port| port.protocol == protocol)?;
            Some(MergedBackend {
                ip: b.ip,
                port: port.port,
                node: b.node.clone(),
            })
        })
        .collect()
    };
    let active = in_state(BackendState::Active);
    if active.is_empty() {
        in_state(BackendState::Terminating)
    } else {
        active
    }
}

#[cfg(test)]
mod tests;
