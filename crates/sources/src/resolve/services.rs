//! The tables of services, slices and service exports.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use isthmus_topology::{
    Backend, BackendState, ExportKind, GlobalNamespaces, LocalService, NodeName, Protocol, ServiceExport,
    ServiceName, ServicePort, ServiceSlice, SliceEndpoint, Zone,
};
use jiff::Timestamp;

use super::{Conflict, settle};
use crate::Table;
use crate::object::{ExportObject, Kind, Object, ObjectKey, ServiceObject};
use crate::objects::{Objects, Placed};

fn name_of(key: &ObjectKey) -> Option<ServiceName> {
    ServiceName::new(&*key.namespace, &*key.name).ok()
}

/// The table of slices.
pub(super) fn slices(
    objects: &Objects,
    before: &Table<ServiceName, ServiceSlice>,
) -> Table<ServiceName, ServiceSlice> {
    let rows = objects
        .of_kind(Kind::EndpointSlice)
        .filter_map(|(key, placed)| match &*placed.object {
            Object::Slice(slice) => Some((name_of(key)?, slice.clone())),
            _ => None,
        });
    settle(rows.collect(), before)
}

/// What was made of each service: only those whose service or slices changed are made anew.
#[derive(Debug, Default)]
pub(super) struct Memo(BTreeMap<ServiceName, Made>);

#[derive(Debug)]
struct Made {
    service: Arc<Object>,
    slices: Vec<Arc<ServiceSlice>>,
    global_namespace: bool,
    row: Arc<LocalService>,
}

impl Made {
    fn is_of(&self, service: &Arc<Object>, slices: &[Arc<ServiceSlice>], global_namespace: bool) -> bool {
        let same = |(a, b): (&Arc<ServiceSlice>, &Arc<ServiceSlice>)| Arc::ptr_eq(a, b);
        Arc::ptr_eq(&self.service, service)
            && self.global_namespace == global_namespace
            && self.slices.len() == slices.len()
            && self.slices.iter().zip(slices).all(same)
    }
}

impl Memo {
    /// The table of services with their endpoints.
    pub(super) fn resolve(
        &mut self,
        objects: &Objects,
        namespaces: &GlobalNamespaces,
        before: &Table<ServiceName, LocalService>,
    ) -> (Table<ServiceName, LocalService>, Vec<Conflict>) {
        let mut slices = slices_by_service(objects);
        let (mut made, mut conflicts) = (BTreeMap::new(), Vec::new());
        for (key, placed) in objects.of_kind(Kind::Service) {
            let (Object::Service(service), Some(name)) = (&*placed.object, name_of(key)) else {
                continue;
            };
            conflicts.extend(unknown_affinity(key, placed, service));
            if service.external_name {
                continue;
            }
            let slices = slices.remove(&name).unwrap_or_default();
            let global = namespaces.is_global(&name.namespace);
            let known = self
                .0
                .remove(&name)
                .filter(|m| m.is_of(&placed.object, &slices, global));
            let made_now = known.unwrap_or_else(|| Made {
                service: placed.object.clone(),
                row: Arc::new(local_service(&name, service, &slices, global)),
                slices,
                global_namespace: global,
            });
            made.insert(name, made_now);
        }
        self.0 = made;
        let rows = self.0.iter().map(|(name, made)| (name.clone(), made.row.clone()));
        (settle(rows.collect(), before), conflicts)
    }
}

fn unknown_affinity(key: &ObjectKey, placed: &Placed, service: &ServiceObject) -> Option<Conflict> {
    let affinity = service.unknown_affinity.as_ref()?;
    let reason = format!("{key}: affinity {affinity:?} counts as none: write none, local or remote");
    Some(Conflict::at(placed, reason))
}

fn slices_by_service(objects: &Objects) -> BTreeMap<ServiceName, Vec<Arc<ServiceSlice>>> {
    let mut slices: BTreeMap<ServiceName, Vec<Arc<ServiceSlice>>> = BTreeMap::new();
    for (key, placed) in objects.of_kind(Kind::EndpointSlice) {
        if let Object::Slice(slice) = &*placed.object
            && let Some(service) = slice.service()
            && let Ok(name) = ServiceName::new(&*key.namespace, service)
        {
            slices.entry(name).or_default().push(slice.clone());
        }
    }
    slices
}

fn local_service(
    name: &ServiceName,
    service: &ServiceObject,
    slices: &[Arc<ServiceSlice>],
    global_namespace: bool,
) -> LocalService {
    let global = service.global && global_namespace;
    LocalService {
        name: name.clone(),
        global,
        shared: global && service.shared,
        affinity: service.affinity,
        headless: service.headless,
        cluster_ips: service.cluster_ips.clone(),
        load_balancer_ips: service.load_balancer_ips.clone(),
        external_ips: service.external_ips.clone(),
        load_balancer_class: service.load_balancer_class.clone(),
        ports: service.ports.clone(),
        external_traffic_policy: service.external_traffic_policy,
        internal_traffic_policy: service.internal_traffic_policy,
        labels: service.labels.clone(),
        annotations: service.annotations.clone(),
        selector: service.selector.clone(),
        backends: backends(slices),
    }
}

/// One backend for each address: an address of several slices has the ports of all of them, and its best state.
fn backends(slices: &[Arc<ServiceSlice>]) -> Vec<Backend> {
    let mut backends: BTreeMap<IpAddr, Backend> = BTreeMap::new();
    for slice in slices {
        let ports: BTreeMap<_, _> = slice.ports.iter().filter_map(slice_port).collect();
        for endpoint in &slice.endpoints {
            for ip in endpoint.ips() {
                let state = state(endpoint);
                let backend = backends.entry(ip).or_insert_with(|| backend(ip, endpoint, state));
                backend
                    .ports
                    .extend(ports.iter().map(|(name, port)| (name.clone(), *port)));
                backend.state = backend.state.min(state);
            }
        }
    }
    backends.into_values().collect()
}

fn backend(ip: IpAddr, endpoint: &SliceEndpoint, state: BackendState) -> Backend {
    let node = endpoint
        .node_name
        .as_deref()
        .and_then(|name| NodeName::new(name).ok());
    Backend {
        ip,
        ports: BTreeMap::new(),
        state,
        node,
        hostname: endpoint.hostname.clone().unwrap_or_default(),
        zone: Zone {
            zone: endpoint.zone.clone().unwrap_or_default(),
            for_zones: endpoint.for_zones.clone(),
        },
    }
}

fn slice_port(port: &isthmus_topology::SlicePort) -> Option<(String, ServicePort)> {
    let protocol = match port.protocol.as_deref() {
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        _ => Protocol::Tcp,
    };
    let number = u16::try_from(port.port?).ok()?;
    let name = port.name.clone().unwrap_or_default();
    Some((
        name,
        ServicePort {
            protocol,
            port: number,
        },
    ))
}

/// Absent conditions count as Kubernetes says: ready is true, serving is what ready is, terminating is false.
fn state(endpoint: &SliceEndpoint) -> BackendState {
    let ready = endpoint.ready.unwrap_or(true);
    let serving = endpoint.serving.unwrap_or(ready);
    let terminating = endpoint.terminating.unwrap_or(false);
    match (ready, serving, terminating) {
        (true, ..) | (false, true, false) => BackendState::Active,
        (false, true, true) => BackendState::Terminating,
        (false, false, _) => BackendState::NotReady,
    }
}

/// The table of service exports: only those whose service is there (spec §1.10). `first_seen` keeps the age of exports that
/// do not tell it, because the oldest export of a name decides conflicts.
pub(super) fn exports(
    objects: &Objects,
    first_seen: &mut BTreeMap<ServiceName, Timestamp>,
    before: &Table<ServiceName, ServiceExport>,
) -> Table<ServiceName, ServiceExport> {
    let (mut rows, mut seen) = (BTreeMap::new(), BTreeMap::new());
    for (key, placed) in objects.of_kind(Kind::ServiceExport) {
        let (Object::Export(export), Some(name)) = (&*placed.object, name_of(key)) else {
            continue;
        };
        let created = export
            .created
            .or_else(|| first_seen.get(&name).copied())
            .unwrap_or(placed.origin.written);
        seen.insert(name.clone(), created);
        let service = ObjectKey::new(Kind::Service, &key.namespace, &key.name);
        let service = objects.find(&service).map(|placed| &*placed.object);
        if let Some(Object::Service(service)) = service
            && !service.external_name
        {
            rows.insert(
                name.clone(),
                Arc::new(service_export(name, export, service, created)),
            );
        }
    }
    *first_seen = seen;
    settle(rows, before)
}

fn service_export(
    name: ServiceName,
    export: &ExportObject,
    service: &ServiceObject,
    created: Timestamp,
) -> ServiceExport {
    let kind = if service.headless {
        ExportKind::Headless
    } else {
        ExportKind::ClusterSetIP
    };
    ServiceExport {
        name,
        created: created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        annotations: export.annotations.clone(),
        labels: export.labels.clone(),
        ports: service.export_ports.clone(),
        kind,
        session_affinity: service.session_affinity,
        session_affinity_timeout: service.session_affinity_timeout,
        ip_families: service.ip_families.clone(),
        internal_traffic_policy: Some(service.internal_traffic_policy),
        traffic_distribution: service.traffic_distribution.clone(),
    }
}
