//! The value of a global service (spec §1.8).
use std::collections::BTreeMap;
use std::net::IpAddr;

use isthmus_topology::{
    Backend, BackendState, ClusterId, ClusterName, LocalService, MaxClusters, PortName, Protocol,
    RemoteService, ServiceName, ServicePort, Zone,
};
use serde::{Deserialize, Serialize};

use crate::ip::not_an_address;
use crate::{ValueError, json};

/// Text keys, because Go sorts the members of a map by their text.
type WirePorts = BTreeMap<String, Option<WirePort>>;

#[derive(Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct Wire {
    #[serde(deserialize_with = "json::nullable")]
    cluster: String,
    #[serde(deserialize_with = "json::nullable")]
    namespace: String,
    #[serde(deserialize_with = "json::nullable")]
    name: String,
    #[serde(deserialize_with = "json::nullable")]
    frontends: BTreeMap<String, Option<WirePorts>>,
    #[serde(deserialize_with = "json::nullable")]
    backends: BTreeMap<String, Option<WirePorts>>,
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "json::nullable"
    )]
    hostnames: BTreeMap<String, String>,
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "json::nullable"
    )]
    zones: BTreeMap<String, WireZone>,
    #[serde(deserialize_with = "json::nullable")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "json::nullable")]
    selector: BTreeMap<String, String>,
    #[serde(deserialize_with = "json::nullable")]
    include_external: bool,
    #[serde(deserialize_with = "json::nullable")]
    shared: bool,
    #[serde(rename = "clusterID", deserialize_with = "json::nullable")]
    cluster_id: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WirePort {
    protocol: Protocol,
    #[serde(default, deserialize_with = "json::nullable")]
    port: u16,
}

#[derive(Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct WireZone {
    #[serde(deserialize_with = "json::nullable")]
    zone: String,
    #[serde(deserialize_with = "json::nullable")]
    for_zones: Vec<ForZone>,
}

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct ForZone {
    #[serde(default, deserialize_with = "json::nullable")]
    name: String,
}

/// Reads a value. Every key of its maps must be an address (spec §1.8).
pub fn decode(bytes: &[u8]) -> Result<RemoteService, ValueError> {
    let wire: Wire = json::decode("service", bytes)?;
    let zone = |z: WireZone| Zone {
        zone: z.zone,
        for_zones: z.for_zones.into_iter().map(|z| z.name).collect(),
    };
    Ok(RemoteService {
        cluster: ClusterName::new(wire.cluster)?,
        // The narrower range of a mesh of 255 is checked against the cluster config by `validate::service`.
        cluster_id: ClusterId::new(wire.cluster_id, MaxClusters::C511)?,
        name: ServiceName::new(wire.namespace, wire.name)?,
        frontends: by_address("frontends", wire.frontends, read_ports)?,
        backends: by_address("backends", wire.backends, read_ports)?,
        hostnames: by_address("hostnames", wire.hostnames, |name| name)?,
        zones: by_address("zones", wire.zones, zone)?,
        labels: wire.labels,
        selector: wire.selector,
        include_external: wire.include_external,
        shared: wire.shared,
    })
}

/// The value's bytes.
pub fn encode(service: &RemoteService) -> Vec<u8> {
    let zone = |zone: &Zone| WireZone {
        zone: zone.zone.clone(),
        for_zones: zone
            .for_zones
            .iter()
            .map(|name| ForZone { name: name.clone() })
            .collect(),
    };
    json::encode(&Wire {
        cluster: service.cluster.to_string(),
        namespace: service.name.namespace.clone(),
        name: service.name.name.clone(),
        frontends: by_text(&service.frontends, |ports| Some(write_ports(ports))),
        backends: by_text(&service.backends, |ports| Some(write_ports(ports))),
        hostnames: by_text(&service.hostnames, String::clone),
        zones: by_text(&service.zones, zone),
        labels: service.labels.clone(),
        selector: service.selector.clone(),
        include_external: service.include_external,
        shared: service.shared,
        cluster_id: service.cluster_id.value().into(),
    })
}

/// The form in which a cluster exports its own service: its ClusterIPs unless it is headless, and the endpoints that are
/// ready or still serving. Whether it is exported at all is [`crate::export_service`]'s question.
pub fn exported(service: &LocalService, cluster: &ClusterName, id: ClusterId) -> RemoteService {
    let addresses = service.cluster_ips.iter().filter(|_| !service.headless);
    let serving = || {
        service
            .backends
            .iter()
            .filter(|b| b.state != BackendState::NotReady)
    };
    let zone = |b: &Backend| (b.ip, b.zone.clone());
    RemoteService {
        cluster: cluster.clone(),
        cluster_id: id,
        name: service.name.clone(),
        frontends: addresses.map(|ip| (*ip, service.ports.clone())).collect(),
        backends: serving().map(|b| (b.ip, b.ports.clone())).collect(),
        hostnames: serving()
            .filter(|b| !b.hostname.is_empty())
            .map(|b| (b.ip, b.hostname.clone()))
            .collect(),
        zones: serving().filter(|b| !b.zone.zone.is_empty()).map(zone).collect(),
        labels: service.labels.clone(),
        selector: service.selector.clone(),
        include_external: true,
        shared: true,
    }
}

fn by_address<A, B>(
    member: &str,
    map: BTreeMap<String, A>,
    value: impl Fn(A) -> B,
) -> Result<BTreeMap<IpAddr, B>, ValueError> {
    map.into_iter()
        .map(|(text, v)| match text.parse() {
            Ok(ip) => Ok((ip, value(v))),
            Err(_) => Err(not_an_address(member, &text)),
        })
        .collect()
}

fn by_text<A, B>(map: &BTreeMap<IpAddr, A>, value: impl Fn(&A) -> B) -> BTreeMap<String, B> {
    map.iter().map(|(ip, v)| (ip.to_string(), value(v))).collect()
}

fn read_ports(ports: Option<WirePorts>) -> BTreeMap<PortName, ServicePort> {
    let known = ports.into_iter().flatten();
    known
        .filter_map(|(name, port)| {
            let port = port?;
            let (protocol, port) = (port.protocol, port.port);
            Some((name, ServicePort { protocol, port }))
        })
        .collect()
}

fn write_ports(ports: &BTreeMap<PortName, ServicePort>) -> WirePorts {
    let port = |p: &ServicePort| WirePort {
        protocol: p.protocol,
        port: p.port,
    };
    ports
        .iter()
        .map(|(name, p)| (name.clone(), Some(port(p))))
        .collect()
}
