//! From a kind's full type to the reduced object: one module for each part of the mesh.
mod node;
mod pod;
mod service;
mod slice;

use std::net::IpAddr;

use isthmus_topology::{Identity, IdentityRange, Labels, NamedPort, Protocol};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::Settings;
use crate::fault::{FieldError, Segment};
use crate::object::{Kind, Object, ObjectKey};

/// A kind that can be reduced. `Ok(None)`: valid, and nothing for the mesh.
pub(crate) trait Reduce: Sized {
    fn reduce(self, settings: &Settings) -> Result<Option<(ObjectKey, Object)>, FieldError>;
}

/// The key of an object; a namespaced one without a namespace is in `default`.
fn key(kind: Kind, metadata: &ObjectMeta) -> Result<ObjectKey, FieldError> {
    let name = metadata.name.as_deref().unwrap_or_default();
    if name.is_empty() || name.contains('/') {
        return Err(FieldError::new(
            ["metadata".into(), "name".into()],
            "every object needs a name without '/'",
        ));
    }
    let namespace = match kind {
        Kind::Namespace | Kind::Node | Kind::CiliumNode | Kind::CiliumIdentity => "",
        _ => metadata
            .namespace
            .as_deref()
            .filter(|ns| !ns.is_empty())
            .unwrap_or("default"),
    };
    if namespace.contains('/') {
        return Err(FieldError::new(
            ["metadata".into(), "namespace".into()],
            "a namespace has no '/'",
        ));
    }
    Ok(ObjectKey::new(kind, namespace, name))
}

fn address<const N: usize>(text: &str, path: [Segment; N]) -> Result<IpAddr, FieldError> {
    text.parse()
        .map_err(|_| FieldError::new(path, format!("{text:?} is not an IP address")))
}

fn optional_address<const N: usize>(
    text: Option<&str>,
    path: [Segment; N],
) -> Result<Option<IpAddr>, FieldError> {
    match text.unwrap_or_default() {
        "" => Ok(None),
        text => address(text, path).map(Some),
    }
}

fn protocol<const N: usize>(text: Option<&str>, path: [Segment; N]) -> Result<Protocol, FieldError> {
    match text.unwrap_or("TCP") {
        "" | "TCP" => Ok(Protocol::Tcp),
        "UDP" => Ok(Protocol::Udp),
        "SCTP" => Ok(Protocol::Sctp),
        other => Err(FieldError::new(
            path,
            format!("{other:?} is not a protocol: write TCP, UDP or SCTP"),
        )),
    }
}

fn port_number<const N: usize>(number: i32, path: [Segment; N]) -> Result<u16, FieldError> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(FieldError::new(
            path,
            format!("{number} is not a port: write 1 to 65535"),
        )),
    }
}

/// An annotation that says true or not; the old name counts where the new one is absent.
fn annotation<'a>(
    annotations: Option<&'a std::collections::BTreeMap<String, String>>,
    names: [&str; 2],
) -> Option<&'a str> {
    let annotations = annotations?;
    let value = names.iter().find_map(|name| annotations.get(*name));
    value.map(String::as_str)
}

fn is_true(value: &str) -> bool {
    value.eq_ignore_ascii_case("true")
}

fn range(settings: &Settings) -> IdentityRange {
    IdentityRange::of(settings.id, settings.max)
}

fn out_of_range(identity: Identity, settings: &Settings) -> String {
    let IdentityRange { first, last } = range(settings);
    let (cluster, id) = (&settings.cluster, settings.id);
    format!("identity {identity} is outside {first} to {last}, the range of cluster {cluster} (id {id})")
}

fn cluster_label(labels: &Labels, settings: &Settings) -> Result<(), FieldError> {
    labels
        .check_cluster(&settings.cluster)
        .map_err(|error| FieldError::new(["security-labels".into()], error))
}

fn named_port(name: &str, port: u16, protocol: Protocol) -> NamedPort {
    NamedPort {
        name: name.to_owned(),
        port,
        protocol,
    }
}
