//! Services of a cluster that exports endpoint slices only (spec §1.9): the form that is planned to be the only one.
use std::collections::BTreeMap;
use std::net::IpAddr;

use isthmus_kvstore::Exporter;
use isthmus_topology::{
    PortName, Protocol, RemoteService, ServiceName, ServicePort, ServiceSlice, SliceEndpoint, Zone,
};

/// A service as the old form would have had it: its ready and serving endpoints by address. None without slices.
pub(super) fn of_slices<'a>(
    exporter: &Exporter,
    name: &ServiceName,
    slices: impl Iterator<Item = &'a ServiceSlice>,
) -> Option<RemoteService> {
    let mut slices = slices.peekable();
    slices.peek()?;
    let mut service = RemoteService {
        cluster: exporter.cluster.clone(),
        cluster_id: exporter.id,
        name: name.clone(),
        frontends: BTreeMap::new(),
        backends: BTreeMap::new(),
        hostnames: BTreeMap::new(),
        zones: BTreeMap::new(),
        labels: BTreeMap::new(),
        selector: BTreeMap::new(),
        include_external: true,
        shared: true,
    };
    for slice in slices {
        let ports = ports(slice);
        for endpoint in slice.endpoints.iter().filter(|e| is_usable(e)) {
            for ip in endpoint.ips() {
                add(&mut service, ip, endpoint, &ports);
            }
        }
    }
    Some(service)
}

/// Kubernetes: an absent `ready` means ready, an absent `serving` means the same as `ready`.
fn is_usable(endpoint: &SliceEndpoint) -> bool {
    let ready = endpoint.ready.unwrap_or(true);
    ready || endpoint.serving.unwrap_or(ready)
}

fn ports(slice: &ServiceSlice) -> BTreeMap<PortName, ServicePort> {
    let port = |port: &isthmus_topology::SlicePort| {
        let protocol = match port.protocol.as_deref() {
            None | Some("" | "TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            Some(_) => return None,
        };
        let number = u16::try_from(port.port?).ok().filter(|port| *port > 0)?;
        let port_of = ServicePort {
            protocol,
            port: number,
        };
        Some((port.name.clone().unwrap_or_default(), port_of))
    };
    slice.ports.iter().filter_map(port).collect()
}

fn add(
    service: &mut RemoteService,
    ip: IpAddr,
    endpoint: &SliceEndpoint,
    ports: &BTreeMap<PortName, ServicePort>,
) {
    let all = service.backends.entry(ip).or_default();
    all.extend(ports.iter().map(|(name, port)| (name.clone(), *port)));
    if let Some(hostname) = endpoint.hostname.as_ref().filter(|name| !name.is_empty()) {
        service.hostnames.insert(ip, hostname.clone());
    }
    let zone = endpoint.zone.clone().unwrap_or_default();
    if !zone.is_empty() || !endpoint.for_zones.is_empty() {
        let for_zones = endpoint.for_zones.clone();
        service.zones.insert(ip, Zone { zone, for_zones });
    }
}
