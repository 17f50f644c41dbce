//! Node and CiliumNode.
use std::net::IpAddr;

use ipnet::IpNet;
use isthmus_topology::{Node, NodeAddress, NodeAddressKind, NodeName};
use k8s_openapi::api::core::v1::{Node as PlainNode, NodeAddress as PlainAddress};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Reduce, address, annotation, key, optional_address};
use crate::Settings;
use crate::cilium::{CiliumNode, CiliumNodeAddress, IpPair};
use crate::fault::{FieldError, Segment};
use crate::object::{Kind, Object, ObjectKey};

/// The node's own address inside the overlay, on clusters without Cilium; two of them are separated by a comma.
const OVERLAY_IP: &str = "isthmus.io/overlay-ip";
/// WireGuard public key: new and old name.
const WIREGUARD: [&str; 2] = ["network.cilium.io/wg-pub-key", "io.cilium.network.wg-pub-key"];

type Reduced = Result<Option<(ObjectKey, Object)>, FieldError>;

/// A node of this cluster with what every node has: name, labels, annotations, WireGuard key.
fn base(metadata: ObjectMeta, settings: &Settings) -> Result<Node, FieldError> {
    let name = NodeName::new(metadata.name.unwrap_or_default())
        .map_err(|error| FieldError::new(["metadata".into(), "name".into()], error))?;
    let key = annotation(metadata.annotations.as_ref(), WIREGUARD)
        .unwrap_or_default()
        .to_owned();
    Ok(Node {
        cluster: settings.cluster.clone(),
        cluster_id: settings.id,
        name,
        addresses: Vec::new(),
        hostnames: Vec::new(),
        pod_cidrs: Vec::new(),
        health_ipv4: None,
        health_ipv6: None,
        ingress_ipv4: None,
        ingress_ipv6: None,
        encryption_key: 0,
        wireguard_pub_key: key,
        boot_id: String::new(),
        labels: metadata.labels.unwrap_or_default(),
        annotations: metadata.annotations.unwrap_or_default(),
    })
}

impl Reduce for PlainNode {
    fn reduce(self, settings: &Settings) -> Reduced {
        let key = key(Kind::Node, &self.metadata)?;
        let mut node = base(self.metadata, settings)?;
        let (spec, status) = (self.spec.unwrap_or_default(), self.status.unwrap_or_default());
        for (i, entry) in status.addresses.iter().flatten().enumerate() {
            let path = || ["status".into(), "addresses".into(), i.into(), "address".into()];
            plain_address(&mut node, entry, path)?;
        }
        for ip in overlay_ips(&node)? {
            let kind = NodeAddressKind::CiliumInternalIP;
            node.addresses.push(NodeAddress { kind, ip });
        }
        let many = spec.pod_cidrs.unwrap_or_default();
        for (i, text) in many.iter().enumerate() {
            node.pod_cidrs
                .push(cidr(text, ["spec".into(), "podCIDRs".into(), i.into()])?);
        }
        if let Some(text) = spec.pod_cidr.filter(|text| many.is_empty() && !text.is_empty()) {
            node.pod_cidrs
                .push(cidr(&text, ["spec".into(), "podCIDR".into()])?);
        }
        node.boot_id = status.node_info.map(|info| info.boot_id).unwrap_or_default();
        Ok(Some((key, Object::Node(Box::new(node)))))
    }
}

fn plain_address(
    node: &mut Node,
    entry: &PlainAddress,
    path: impl Fn() -> [Segment; 4],
) -> Result<(), FieldError> {
    let name = |kind| (kind, entry.address.clone());
    match entry.type_.as_str() {
        "InternalIP" | "ExternalIP" => {
            let kind = match entry.type_.as_str() {
                "InternalIP" => NodeAddressKind::InternalIP,
                _ => NodeAddressKind::ExternalIP,
            };
            let ip = address(&entry.address, path())?;
            node.addresses.push(NodeAddress { kind, ip });
        }
        "Hostname" => node.hostnames.push(name(NodeAddressKind::Hostname)),
        "InternalDNS" => node.hostnames.push(name(NodeAddressKind::InternalDNS)),
        "ExternalDNS" => node.hostnames.push(name(NodeAddressKind::ExternalDNS)),
        other => {
            let known = "InternalIP, ExternalIP, Hostname, InternalDNS or ExternalDNS";
            return Err(FieldError::new(
                path(),
                format!("{other:?} is not a type of address: write {known}"),
            ));
        }
    }
    Ok(())
}

fn overlay_ips(node: &Node) -> Result<Vec<IpAddr>, FieldError> {
    let text = node
        .annotations
        .get(OVERLAY_IP)
        .map(String::as_str)
        .unwrap_or_default();
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let path = || ["metadata".into(), "annotations".into(), OVERLAY_IP.into()];
    parts.map(|part| address(part, path())).collect()
}

impl Reduce for CiliumNode {
    fn reduce(self, settings: &Settings) -> Reduced {
        let key = key(Kind::CiliumNode, &self.metadata)?;
        let mut node = base(self.metadata, settings)?;
        let spec = self.spec;
        for (i, entry) in spec.addresses.iter().enumerate() {
            node.addresses.push(cilium_address(entry, i)?);
        }
        let ipam = spec.ipam.unwrap_or_default();
        for (i, text) in ipam.pod_cidrs.iter().flatten().enumerate() {
            let path = ["spec".into(), "ipam".into(), "podCIDRs".into(), i.into()];
            node.pod_cidrs.push(cidr(text, path)?);
        }
        let pools = ipam.pools.and_then(|pools| pools.allocated).unwrap_or_default();
        for (i, pool) in pools.iter().enumerate() {
            for (j, text) in pool.cidrs.iter().flatten().enumerate() {
                let path: [Segment; 7] = [
                    "spec".into(),
                    "ipam".into(),
                    "pools".into(),
                    "allocated".into(),
                    i.into(),
                    "cidrs".into(),
                    j.into(),
                ];
                node.pod_cidrs.push(cidr(text, path)?);
            }
        }
        (node.health_ipv4, node.health_ipv6) = pair(spec.health, "health")?;
        (node.ingress_ipv4, node.ingress_ipv6) = pair(spec.ingress, "ingress")?;
        let key_index = spec.encryption.and_then(|e| e.key).unwrap_or_default();
        node.encryption_key = u8::try_from(key_index).map_err(|_| {
            let path = ["spec".into(), "encryption".into(), "key".into()];
            FieldError::new(path, format!("{key_index} is not a key index: write 0 to 255"))
        })?;
        node.boot_id = spec.bootid.unwrap_or_default();
        Ok(Some((key, Object::Node(Box::new(node)))))
    }
}

fn cilium_address(entry: &CiliumNodeAddress, i: usize) -> Result<NodeAddress, FieldError> {
    let path = |field: &str| ["spec".into(), "addresses".into(), i.into(), field.into()];
    let kind = match entry.kind.as_str() {
        "InternalIP" => NodeAddressKind::InternalIP,
        "ExternalIP" => NodeAddressKind::ExternalIP,
        "CiliumInternalIP" => NodeAddressKind::CiliumInternalIP,
        "Hostname" => NodeAddressKind::Hostname,
        "ExternalDNS" => NodeAddressKind::ExternalDNS,
        "InternalDNS" => NodeAddressKind::InternalDNS,
        other => {
            let known = "InternalIP, ExternalIP or CiliumInternalIP";
            let reason = format!("{other:?} is not a type of address: write {known}");
            return Err(FieldError::new(path("type"), reason));
        }
    };
    let ip = address(&entry.ip, path("ip"))?;
    Ok(NodeAddress { kind, ip })
}

type Pair = (Option<std::net::Ipv4Addr>, Option<std::net::Ipv6Addr>);

fn pair(pair: Option<IpPair>, field: &str) -> Result<Pair, FieldError> {
    let pair = pair.unwrap_or_default();
    let path = |family: &str| ["spec".into(), field.into(), family.into()];
    let wrong = |family: &str| FieldError::new(path(family), format!("not an {family} address"));
    let v4 = match optional_address(pair.ipv4.as_deref(), path("ipv4"))? {
        Some(IpAddr::V4(ip)) => Some(ip),
        None => None,
        Some(IpAddr::V6(_)) => return Err(wrong("ipv4")),
    };
    let v6 = match optional_address(pair.ipv6.as_deref(), path("ipv6"))? {
        Some(IpAddr::V6(ip)) => Some(ip),
        None => None,
        Some(IpAddr::V4(_)) => return Err(wrong("ipv6")),
    };
    Ok((v4, v6))
}

fn cidr<const N: usize>(text: &str, path: [Segment; N]) -> Result<IpNet, FieldError> {
    let parsed = text.parse::<IpNet>();
    parsed.map(|net| net.trunc()).map_err(|_| {
        FieldError::new(
            path,
            format!("{text:?} is not a CIDR: write it as 10.1.0.0/24 or fd00::/64"),
        )
    })
}
