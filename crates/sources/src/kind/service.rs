//! Service and ServiceExport.
use std::collections::BTreeMap;
use std::net::IpAddr;

use isthmus_topology::{ExportPort, ServiceAffinity, ServicePort, SessionAffinity, TrafficPolicy};
use k8s_openapi::api::core::v1::{Service, ServiceSpec, ServiceStatus};

use super::{Reduce, address, annotation, is_true, key, port_number, protocol};
use crate::Settings;
use crate::cilium::McsServiceExport;
use crate::fault::FieldError;
use crate::object::{ExportObject, Kind, Object, ObjectKey, ServiceObject};

/// New and old names of the annotations (spec §4.1).
const GLOBAL: [&str; 2] = ["service.cilium.io/global", "io.cilium/global-service"];
const SHARED: [&str; 2] = ["service.cilium.io/shared", "io.cilium/shared-service"];
const AFFINITY: [&str; 2] = ["service.cilium.io/affinity", "io.cilium/service-affinity"];
/// A label that makes a service headless although it has a ClusterIP.
const HEADLESS: &str = "service.kubernetes.io/headless";

type Reduced = Result<Option<(ObjectKey, Object)>, FieldError>;

impl Reduce for Service {
    fn reduce(self, _: &Settings) -> Reduced {
        let key = key(Kind::Service, &self.metadata)?;
        let spec = self.spec.unwrap_or_default();
        let annotations = self.metadata.annotations.unwrap_or_default();
        let labels = self.metadata.labels.unwrap_or_default();
        let (affinity, unknown_affinity) = affinity(&annotations);
        let cluster_ips = cluster_ips(&spec)?;
        let ports = ports(&spec)?;
        let is_none = spec.cluster_ip.as_deref() == Some("None");
        let client_ip = spec
            .session_affinity_config
            .as_ref()
            .and_then(|c| c.client_ip.as_ref());
        let service = ServiceObject {
            external_name: spec.type_.as_deref() == Some("ExternalName"),
            global: annotation(Some(&annotations), GLOBAL).is_some_and(is_true),
            shared: annotation(Some(&annotations), SHARED).is_none_or(is_true),
            affinity,
            unknown_affinity,
            headless: is_none || labels.contains_key(HEADLESS),
            ip_families: ip_families(&spec, &cluster_ips),
            cluster_ips,
            load_balancer_ips: load_balancer_ips(&self.status.unwrap_or_default())?,
            external_ips: external_ips(&spec)?,
            load_balancer_class: spec.load_balancer_class.clone(),
            ports: by_name(&ports)?,
            export_ports: export_ports(&spec, &ports),
            external_traffic_policy: policy(
                spec.external_traffic_policy.as_deref(),
                "externalTrafficPolicy",
            )?,
            internal_traffic_policy: policy(
                spec.internal_traffic_policy.as_deref(),
                "internalTrafficPolicy",
            )?,
            labels,
            annotations,
            session_affinity: session_affinity(spec.session_affinity.as_deref())?,
            session_affinity_timeout: client_ip.and_then(|c| c.timeout_seconds),
            traffic_distribution: spec.traffic_distribution,
            selector: spec.selector.unwrap_or_default(),
        };
        Ok(Some((key, Object::Service(Box::new(service)))))
    }
}

fn affinity(annotations: &BTreeMap<String, String>) -> (ServiceAffinity, Option<String>) {
    match annotation(Some(annotations), AFFINITY) {
        None | Some("" | "none") => (ServiceAffinity::None, None),
        Some("local") => (ServiceAffinity::Local, None),
        Some("remote") => (ServiceAffinity::Remote, None),
        Some(other) => (ServiceAffinity::None, Some(other.to_owned())),
    }
}

fn cluster_ips(spec: &ServiceSpec) -> Result<Vec<IpAddr>, FieldError> {
    let many = spec.cluster_ips.as_deref().unwrap_or_default();
    if many.is_empty() {
        return match spec.cluster_ip.as_deref() {
            None | Some("" | "None") => Ok(Vec::new()),
            Some(one) => Ok(vec![address(one, ["spec".into(), "clusterIP".into()])?]),
        };
    }
    let given = many
        .iter()
        .enumerate()
        .filter(|(_, text)| !matches!(text.as_str(), "" | "None"));
    let path = |i: usize| ["spec".into(), "clusterIPs".into(), i.into()];
    given.map(|(i, text)| address(text, path(i))).collect()
}

fn external_ips(spec: &ServiceSpec) -> Result<Vec<IpAddr>, FieldError> {
    let path = |i: usize| ["spec".into(), "externalIPs".into(), i.into()];
    let given = spec.external_ips.iter().flatten().enumerate();
    given.map(|(i, text)| address(text, path(i))).collect()
}

fn load_balancer_ips(status: &ServiceStatus) -> Result<Vec<IpAddr>, FieldError> {
    let ingress = status
        .load_balancer
        .iter()
        .filter_map(|lb| lb.ingress.as_ref())
        .flatten();
    let given = ingress
        .enumerate()
        .filter_map(|(i, entry)| Some((i, entry.ip.as_ref()?)));
    let path = |i: usize| {
        [
            "status".into(),
            "loadBalancer".into(),
            "ingress".into(),
            i.into(),
            "ip".into(),
        ]
    };
    given.map(|(i, text)| address(text, path(i))).collect()
}

/// Ports in their order.
fn ports(spec: &ServiceSpec) -> Result<Vec<(String, ServicePort)>, FieldError> {
    let mut ports = Vec::new();
    for (i, port) in spec.ports.iter().flatten().enumerate() {
        let path = |field: &str| ["spec".into(), "ports".into(), i.into(), field.into()];
        let protocol = protocol(port.protocol.as_deref(), path("protocol"))?;
        let number = port_number(port.port, path("port"))?;
        let name = port.name.clone().unwrap_or_default();
        ports.push((
            name,
            ServicePort {
                protocol,
                port: number,
            },
        ));
    }
    Ok(ports)
}

/// Ports of different clusters join by their name, so two of one name cannot be told apart.
fn by_name(ports: &[(String, ServicePort)]) -> Result<BTreeMap<String, ServicePort>, FieldError> {
    let mut named = BTreeMap::new();
    for (i, (name, port)) in ports.iter().enumerate() {
        if named.insert(name.clone(), *port).is_some() {
            let path = ["spec".into(), "ports".into(), i.into(), "name".into()];
            let reason = format!("two ports are named {name:?}: give every port of a service its own name");
            return Err(FieldError::new(path, reason));
        }
    }
    Ok(named)
}

fn export_ports(spec: &ServiceSpec, ports: &[(String, ServicePort)]) -> Vec<ExportPort> {
    let written = spec.ports.iter().flatten();
    let export =
        |(written, (name, port)): (&k8s_openapi::api::core::v1::ServicePort, &(String, ServicePort))| {
            ExportPort {
                name: name.clone(),
                protocol: port.protocol.to_string(),
                app_protocol: written.app_protocol.clone(),
                port: port.port.into(),
            }
        };
    written.zip(ports).map(export).collect()
}

fn policy(text: Option<&str>, field: &str) -> Result<TrafficPolicy, FieldError> {
    match text.unwrap_or("Cluster") {
        "" | "Cluster" => Ok(TrafficPolicy::Cluster),
        "Local" => Ok(TrafficPolicy::Local),
        other => {
            let reason = format!("{other:?} is not a traffic policy: write Cluster or Local");
            Err(FieldError::new(["spec".into(), field.into()], reason))
        }
    }
}

fn session_affinity(text: Option<&str>) -> Result<SessionAffinity, FieldError> {
    match text.unwrap_or("None") {
        "" | "None" => Ok(SessionAffinity::None),
        "ClientIP" => Ok(SessionAffinity::ClientIP),
        other => {
            let reason = format!("{other:?} is not a session affinity: write None or ClientIP");
            Err(FieldError::new(["spec".into(), "sessionAffinity".into()], reason))
        }
    }
}

/// What an API server would fill in: as written, else the families of the ClusterIPs, else IPv4.
fn ip_families(spec: &ServiceSpec, cluster_ips: &[IpAddr]) -> Vec<String> {
    if let Some(written) = spec.ip_families.as_ref().filter(|families| !families.is_empty()) {
        return written.clone();
    }
    let family = |ip: &IpAddr| if ip.is_ipv4() { "IPv4" } else { "IPv6" }.to_owned();
    match cluster_ips {
        [] => vec!["IPv4".to_owned()],
        ips => ips.iter().map(family).collect(),
    }
}

impl Reduce for McsServiceExport {
    fn reduce(self, _: &Settings) -> Reduced {
        let key = key(Kind::ServiceExport, &self.metadata)?;
        let spec = self.spec.unwrap_or_default();
        let export = ExportObject {
            created: self.metadata.creation_timestamp.map(|time| time.0),
            labels: spec.exported_labels.unwrap_or_default(),
            annotations: spec.exported_annotations.unwrap_or_default(),
        };
        Ok(Some((key, Object::Export(Box::new(export)))))
    }
}
