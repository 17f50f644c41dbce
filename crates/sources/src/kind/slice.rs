//! EndpointSlice.
use std::sync::Arc;

use isthmus_topology::{ServiceSlice, SliceEndpoint, SliceFamily, SlicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use super::{Reduce, address, key, port_number, protocol};
use crate::Settings;
use crate::fault::FieldError;
use crate::object::{Kind, Object, ObjectKey};

/// Slices that Cilium's operator makes of other clusters' endpoints (spec §4.3): counting them would count those twice.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const OF_THE_MESH: &str = "endpointslice-mesh-controller.cilium.io";

impl Reduce for EndpointSlice {
    fn reduce(self, _: &Settings) -> Result<Option<(ObjectKey, Object)>, FieldError> {
        let key = key(Kind::EndpointSlice, &self.metadata)?;
        let labels = self.metadata.labels.unwrap_or_default();
        if labels.get(MANAGED_BY).is_some_and(|by| by == OF_THE_MESH) {
            return Ok(None);
        }
        let family = match self.address_type.as_str() {
            "IPv4" => SliceFamily::IPv4,
            "IPv6" => SliceFamily::IPv6,
            // Names are resolved by nobody in the mesh.
            "FQDN" => return Ok(None),
            other => {
                let reason = format!("{other:?} is not an address type: write IPv4 or IPv6");
                return Err(FieldError::new(["addressType".into()], reason));
            }
        };
        let endpoints = self.endpoints.unwrap_or_default();
        for (i, endpoint) in endpoints.iter().enumerate() {
            check_addresses(endpoint, i, family)?;
        }
        let ports = self.ports.unwrap_or_default();
        let ports: Result<Vec<_>, _> = ports
            .into_iter()
            .enumerate()
            .map(|(i, port)| read_port(port, i))
            .collect();
        let slice = ServiceSlice {
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            labels,
            annotations: self.metadata.annotations.unwrap_or_default(),
            family,
            endpoints: endpoints.into_iter().map(read_endpoint).collect(),
            ports: ports?,
        };
        Ok(Some((key, Object::Slice(Arc::new(slice)))))
    }
}

fn check_addresses(endpoint: &Endpoint, i: usize, family: SliceFamily) -> Result<(), FieldError> {
    for (j, text) in endpoint.addresses.iter().enumerate() {
        let path = || ["endpoints".into(), i.into(), "addresses".into(), j.into()];
        let ip = address(text, path())?;
        if ip.is_ipv4() != (family == SliceFamily::IPv4) {
            let reason = format!("{ip} is not {family:?}, the slice's addressType");
            return Err(FieldError::new(path(), reason));
        }
    }
    Ok(())
}

fn read_endpoint(endpoint: Endpoint) -> SliceEndpoint {
    let conditions = endpoint.conditions.unwrap_or_default();
    let for_zones = endpoint
        .hints
        .and_then(|hints| hints.for_zones)
        .unwrap_or_default();
    SliceEndpoint {
        addresses: endpoint.addresses,
        ready: conditions.ready,
        serving: conditions.serving,
        terminating: conditions.terminating,
        hostname: endpoint.hostname,
        deprecated_topology: endpoint.deprecated_topology.unwrap_or_default(),
        node_name: endpoint.node_name,
        zone: endpoint.zone,
        for_zones: for_zones.into_iter().map(|zone| zone.name).collect(),
    }
}

/// Name and protocol are filled in as an API server does.
fn read_port(port: EndpointPort, i: usize) -> Result<SlicePort, FieldError> {
    let path = |field: &str| ["ports".into(), i.into(), field.into()];
    let protocol = protocol(port.protocol.as_deref(), path("protocol"))?;
    if let Some(number) = port.port {
        port_number(number, path("port"))?;
    }
    Ok(SlicePort {
        name: Some(port.name.unwrap_or_default()),
        protocol: Some(protocol.to_string()),
        port: port.port,
        app_protocol: port.app_protocol,
    })
}
