//! The value of an address: which identity it has and which node it is behind (spec §1.7).
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use isthmus_topology::{Identity, IpIdentity, NamedPort, Protocol};
use serde::{Deserialize, Serialize};

use crate::{ValueError, json};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wire {
    #[serde(rename = "IP", default, deserialize_with = "json::nullable")]
    ip: String,
    #[serde(default)]
    mask: Option<String>,
    #[serde(rename = "HostIP", default, deserialize_with = "json::nullable")]
    host_ip: String,
    #[serde(rename = "ID", default, deserialize_with = "json::nullable")]
    id: u32,
    #[serde(default, deserialize_with = "json::nullable")]
    key: u8,
    #[serde(default, deserialize_with = "json::nullable")]
    metadata: String,
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "json::nullable"
    )]
    k8s_namespace: String,
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "json::nullable"
    )]
    k8s_pod_name: String,
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "json::nullable"
    )]
    k8s_service_account: String,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "json::nullable"
    )]
    named_ports: Vec<WirePort>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WirePort {
    #[serde(default, deserialize_with = "json::nullable")]
    name: String,
    #[serde(default, deserialize_with = "json::nullable")]
    port: u16,
    protocol: Protocol,
}

/// What names the entry in its key: the address, with its length unless it is a host entry.
pub fn suffix(entry: &IpIdentity) -> String {
    if entry.host_entry {
        entry.prefix.addr().to_string()
    } else {
        entry.prefix.to_string()
    }
}

/// Reads a value; one without an address is an error. `Metadata` is not kept: nobody fills or reads it.
pub fn decode(bytes: &[u8]) -> Result<IpIdentity, ValueError> {
    let wire: Wire = json::decode("ip entry", bytes)?;
    let ip: IpAddr = wire.ip.parse().map_err(|_| not_an_address("IP", &wire.ip))?;
    let ones = match &wire.mask {
        Some(mask) => Some(mask_from_base64("Mask", mask, ip)?),
        None => None,
    };
    let full = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = IpNet::new(ip, ones.unwrap_or(full)).map_err(|error| ValueError::member("Mask", error))?;
    let host_ip = match wire.host_ip.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| not_an_address("HostIP", text))?),
    };
    let port = |p: WirePort| NamedPort {
        name: p.name,
        port: p.port,
        protocol: p.protocol,
    };
    Ok(IpIdentity {
        prefix,
        host_entry: ones.is_none(),
        host_ip,
        identity: Identity(wire.id),
        key: wire.key,
        namespace: wire.k8s_namespace,
        pod: wire.k8s_pod_name,
        service_account: wire.k8s_service_account,
        named_ports: wire.named_ports.into_iter().map(port).collect(),
    })
}

/// The value's bytes.
pub fn encode(entry: &IpIdentity) -> Vec<u8> {
    let mask = (!entry.host_entry).then(|| mask_to_base64(&entry.prefix));
    let port = |p: &NamedPort| WirePort {
        name: p.name.clone(),
        port: p.port,
        protocol: p.protocol,
    };
    json::encode(&Wire {
        ip: entry.prefix.addr().to_string(),
        mask,
        host_ip: entry.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        id: entry.identity.0,
        key: entry.key,
        metadata: String::new(),
        k8s_namespace: entry.namespace.clone(),
        k8s_pod_name: entry.pod.clone(),
        k8s_service_account: entry.service_account.clone(),
        named_ports: entry.named_ports.iter().map(port).collect(),
    })
}

/// The 4 or 16 bytes of a prefix's mask, in base64: Go's `net.IPMask`.
pub(crate) fn mask_to_base64(prefix: &IpNet) -> String {
    match prefix {
        IpNet::V4(net) => STANDARD.encode(net.netmask().octets()),
        IpNet::V6(net) => STANDARD.encode(net.netmask().octets()),
    }
}

/// The length of a prefix from its mask; a mask with holes or of the wrong family is an error.
pub(crate) fn mask_from_base64(member: &str, text: &str, ip: IpAddr) -> Result<u8, ValueError> {
    let bytes = STANDARD
        .decode(text)
        .map_err(|error| ValueError::member(member, error))?;
    let mask = if let Ok(four) = <[u8; 4]>::try_from(bytes.as_slice()) {
        IpAddr::from(four)
    } else if let Ok(sixteen) = <[u8; 16]>::try_from(bytes.as_slice()) {
        IpAddr::from(sixteen)
    } else {
        return Err(ValueError::member(
            member,
            format!("a mask has 4 or 16 bytes, not {}", bytes.len()),
        ));
    };
    if mask.is_ipv4() != ip.is_ipv4() {
        return Err(ValueError::member(
            member,
            "the mask is of the other address family",
        ));
    }
    ipnet::ip_mask_to_prefix(mask).map_err(|error| ValueError::member(member, error))
}

pub(crate) fn not_an_address(member: &str, text: &str) -> ValueError {
    ValueError::member(member, format!("{text:?} is not an IP address"))
}
