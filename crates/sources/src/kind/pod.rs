//! Namespace, Pod, CiliumIdentity and CiliumEndpoint: who has which address and identity.
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use isthmus_topology::{Identity, IpIdentity, Labels, NamedPort};
use k8s_openapi::api::core::v1::{Namespace, Pod, PodSpec, PodStatus};

use super::{
    Reduce, address, annotation, cluster_label, is_true, key, named_port, optional_address, out_of_range,
    port_number, protocol, range,
};
use crate::Settings;
use crate::cilium::{CiliumEndpoint, CiliumEndpointStatus, CiliumIdentity, IpPair};
use crate::fault::FieldError;
use crate::object::{Kind, NamespaceObject, Object, ObjectKey, PodObject};

/// Whether a namespace takes part in the mesh (spec §4.1).
const GLOBAL: &str = "clustermesh.cilium.io/global";

type Reduced = Result<Option<(ObjectKey, Object)>, FieldError>;

impl Reduce for Namespace {
    fn reduce(self, _: &Settings) -> Reduced {
        let key = key(Kind::Namespace, &self.metadata)?;
        let global = annotation(self.metadata.annotations.as_ref(), [GLOBAL, GLOBAL]).map(is_true);
        let labels = self.metadata.labels.unwrap_or_default();
        Ok(Some((key, Object::Namespace(NamespaceObject { global, labels }))))
    }
}

impl Reduce for Pod {
    fn reduce(self, _: &Settings) -> Reduced {
        let key = key(Kind::Pod, &self.metadata)?;
        let (spec, status) = (self.spec.unwrap_or_default(), self.status.unwrap_or_default());
        let labels = self.metadata.labels.unwrap_or_default();
        let own = !spec.host_network.unwrap_or_default() && is_running(&status);
        let host_ip = ["status".into(), "hostIP".into()];
        let pod = PodObject {
            ips: if own { pod_ips(&status)? } else { Vec::new() },
            host_ip: optional_address(status.host_ip.as_deref(), host_ip)?,
            named_ports: container_ports(&spec)?,
            node: spec.node_name.unwrap_or_default(),
            service_account: spec.service_account_name.unwrap_or_else(|| "default".to_owned()),
            labels: labels
                .into_iter()
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
        };
        Ok(Some((key, Object::Pod(Box::new(pod)))))
    }
}

/// A manifest written by hand may leave the phase out.
fn is_running(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), None | Some("Running"))
}

fn pod_ips(status: &PodStatus) -> Result<Vec<IpAddr>, FieldError> {
    let many = status.pod_ips.as_deref().unwrap_or_default();
    if many.is_empty() {
        let one = optional_address(status.pod_ip.as_deref(), ["status".into(), "podIP".into()])?;
        return Ok(one.into_iter().collect());
    }
    let path = |i: usize| ["status".into(), "podIPs".into(), i.into(), "ip".into()];
    let numbered = many.iter().enumerate();
    numbered.map(|(i, entry)| address(&entry.ip, path(i))).collect()
}

fn container_ports(spec: &PodSpec) -> Result<Vec<NamedPort>, FieldError> {
    let mut ports = Vec::new();
    for (i, container) in spec.containers.iter().enumerate() {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let path = |field: &str| {
                [
                    "spec".into(),
                    "containers".into(),
                    i.into(),
                    "ports".into(),
                    j.into(),
                    field.into(),
                ]
            };
            let number = port_number(port.container_port, path("containerPort"))?;
            let protocol = protocol(port.protocol.as_deref(), path("protocol"))?;
            if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                ports.push(named_port(name, number, protocol));
            }
        }
    }
    Ok(ports)
}

impl Reduce for CiliumIdentity {
    fn reduce(self, settings: &Settings) -> Reduced {
        let key = key(Kind::CiliumIdentity, &self.metadata)?;
        let name = || ["metadata".into(), "name".into()];
        let number = key.name.parse::<u32>();
        let identity = number.map(Identity).map_err(|_| {
            FieldError::new(
                name(),
                format!("{:?} is not the decimal number of an identity", key.name),
            )
        })?;
        if !range(settings).contains(identity) {
            return Err(FieldError::new(name(), out_of_range(identity, settings)));
        }
        let mut labels = Labels::default();
        for (label, value) in self.security_labels {
            let (source, name) = label.split_once(':').unwrap_or(("", &label));
            labels.insert(source, name, value);
        }
        cluster_label(&labels, settings)?;
        Ok(Some((key, Object::Identity(identity, Arc::new(labels)))))
    }
}

impl Reduce for CiliumEndpoint {
    fn reduce(self, settings: &Settings) -> Reduced {
        let key = key(Kind::CiliumEndpoint, &self.metadata)?;
        let rows =
            endpoint_rows(self.status, &key, settings).map_err(|error| error.under(["status".into()]))?;
        Ok(Some((key, Object::Endpoint(rows))))
    }
}

/// Every address of an endpoint is a row; one without an identity or an address (not ready yet) has none.
fn endpoint_rows(
    status: CiliumEndpointStatus,
    key: &ObjectKey,
    settings: &Settings,
) -> Result<Vec<(IpNet, Arc<IpIdentity>)>, FieldError> {
    let id = status
        .identity
        .and_then(|identity| identity.id)
        .unwrap_or_default();
    let networking = status.networking.unwrap_or_default();
    if id == 0 {
        return Ok(Vec::new());
    }
    let path = || ["identity".into(), "id".into()];
    let identity = u32::try_from(id).map(Identity);
    let identity = identity.map_err(|_| FieldError::new(path(), format!("{id} is not an identity")))?;
    if !range(settings).accepts_ip(identity) {
        return Err(FieldError::new(path(), out_of_range(identity, settings)));
    }
    let key_index = status.encryption.and_then(|e| e.key).unwrap_or_default();
    let encryption = u8::try_from(key_index).map_err(|_| {
        let path = ["encryption".into(), "key".into()];
        FieldError::new(path, format!("{key_index} is not a key index: write 0 to 255"))
    })?;
    let mut named_ports = Vec::new();
    for (i, port) in status.named_ports.iter().flatten().enumerate() {
        let path = ["named-ports".into(), i.into(), "protocol".into()];
        let protocol = protocol(port.protocol.as_deref(), path)?;
        named_ports.push(named_port(
            port.name.as_deref().unwrap_or_default(),
            port.port.unwrap_or_default(),
            protocol,
        ));
    }
    let host_ip = optional_address(networking.node.as_deref(), ["networking".into(), "node".into()])?;
    let row = |ip: IpAddr| IpIdentity {
        prefix: IpNet::from(ip),
        host_entry: true,
        host_ip,
        identity,
        key: encryption,
        namespace: key.namespace.to_string(),
        pod: key.name.to_string(),
        service_account: status.service_account.clone().unwrap_or_default(),
        named_ports: named_ports.clone(),
    };
    let ips = endpoint_ips(networking.addressing.as_deref().unwrap_or_default())?;
    Ok(ips
        .into_iter()
        .map(|ip| (IpNet::from(ip), Arc::new(row(ip))))
        .collect())
}

fn endpoint_ips(addressing: &[IpPair]) -> Result<Vec<IpAddr>, FieldError> {
    let mut ips = Vec::new();
    for (i, pair) in addressing.iter().enumerate() {
        let path = |family: &str| ["networking".into(), "addressing".into(), i.into(), family.into()];
        ips.extend(optional_address(pair.ipv4.as_deref(), path("ipv4"))?);
        ips.extend(optional_address(pair.ipv6.as_deref(), path("ipv6"))?);
    }
    Ok(ips)
}
