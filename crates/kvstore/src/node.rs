//! The value of a node (spec §1.5).
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use isthmus_topology::{ClusterId, ClusterName, MaxClusters, Node, NodeAddress, NodeAddressKind, NodeName};
use serde::{Deserialize, Serialize};

use crate::ip::{mask_from_base64, mask_to_base64, not_an_address};
use crate::{ValueError, json};

/// Members in the order of the recordings; every one is written always, `null` or zero where there is nothing.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Wire {
    #[serde(deserialize_with = "json::nullable")]
    name: String,
    #[serde(deserialize_with = "json::nullable")]
    cluster: String,
    #[serde(rename = "IPAddresses")]
    ip_addresses: Option<Vec<WireAddress>>,
    #[serde(rename = "IPv4AllocCIDR")]
    ipv4_alloc_cidr: Option<WireCidr>,
    #[serde(rename = "IPv4SecondaryAllocCIDRs")]
    ipv4_secondary_alloc_cidrs: Option<Vec<Option<WireCidr>>>,
    #[serde(rename = "IPv6AllocCIDR")]
    ipv6_alloc_cidr: Option<WireCidr>,
    #[serde(rename = "IPv6SecondaryAllocCIDRs")]
    ipv6_secondary_alloc_cidrs: Option<Vec<Option<WireCidr>>>,
    #[serde(rename = "IPv4HealthIP", deserialize_with = "json::nullable")]
    ipv4_health_ip: String,
    #[serde(rename = "IPv6HealthIP", deserialize_with = "json::nullable")]
    ipv6_health_ip: String,
    #[serde(rename = "IPv4IngressIP", deserialize_with = "json::nullable")]
    ipv4_ingress_ip: String,
    #[serde(rename = "IPv6IngressIP", deserialize_with = "json::nullable")]
    ipv6_ingress_ip: String,
    #[serde(rename = "ClusterID", deserialize_with = "json::nullable")]
    cluster_id: u32,
    #[serde(deserialize_with = "json::nullable")]
    source: String,
    #[serde(deserialize_with = "json::nullable")]
    encryption_key: u8,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    #[serde(deserialize_with = "json::nullable")]
    wireguard_pub_key: String,
    #[serde(rename = "BootID", deserialize_with = "json::nullable")]
    boot_id: String,
}

#[derive(Serialize, Deserialize)]
struct WireAddress {
    #[serde(rename = "Type", default, deserialize_with = "json::nullable")]
    kind: String,
    #[serde(rename = "IP", default, deserialize_with = "json::nullable")]
    ip: String,
}

/// Today's object form, and the plain text that Cilium 1.22 will write.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WireCidr {
    Object {
        #[serde(rename = "IP")]
        ip: String,
        #[serde(rename = "Mask")]
        mask: String,
    },
    Text(String),
}

impl WireCidr {
    fn write(prefix: &IpNet) -> Self {
        Self::Object {
            ip: prefix.network().to_string(),
            mask: mask_to_base64(prefix),
        }
    }

    fn read(&self, member: &str, v6: bool) -> Result<IpNet, ValueError> {
        let prefix = match self {
            Self::Text(text) => text
                .parse::<IpNet>()
                .map_err(|_| ValueError::member(member, format!("{text:?} is not a CIDR")))?,
            Self::Object { ip, mask } => {
                let addr: IpAddr = ip.parse().map_err(|_| not_an_address(member, ip))?;
                let ones = mask_from_base64(member, mask, addr)?;
                IpNet::new(addr, ones).map_err(|error| ValueError::member(member, error))?
            }
        };
        if prefix.addr().is_ipv6() == v6 {
            Ok(prefix.trunc())
        } else {
            Err(ValueError::member(
                member,
                format!("{prefix} is of the other address family"),
            ))
        }
    }
}

/// What `Source` says in a value: readers overwrite it, so it carries nothing.
const SOURCE: &str = "custom-resource";

/// Reads a value. Absent, `null` and empty members count as unset; the old `NodeIdentity` is ignored.
pub fn decode(bytes: &[u8]) -> Result<Node, ValueError> {
    let wire: Wire = json::decode("node", bytes)?;
    let (addresses, hostnames) = read_addresses(wire.ip_addresses.unwrap_or_default())?;
    let mut pod_cidrs = Vec::new();
    read_cidrs(
        &mut pod_cidrs,
        "IPv4",
        &wire.ipv4_alloc_cidr,
        &wire.ipv4_secondary_alloc_cidrs,
    )?;
    read_cidrs(
        &mut pod_cidrs,
        "IPv6",
        &wire.ipv6_alloc_cidr,
        &wire.ipv6_secondary_alloc_cidrs,
    )?;
    Ok(Node {
        cluster: ClusterName::new(wire.cluster)?,
        // The narrower range of a mesh of 255 is checked against the cluster config by `validate::node`.
        cluster_id: ClusterId::new(wire.cluster_id, MaxClusters::C511)?,
        name: NodeName::new(wire.name)?,
        addresses,
        hostnames,
        pod_cidrs,
        health_ipv4: read_v4("IPv4HealthIP", &wire.ipv4_health_ip)?,
        health_ipv6: read_v6("IPv6HealthIP", &wire.ipv6_health_ip)?,
        ingress_ipv4: read_v4("IPv4IngressIP", &wire.ipv4_ingress_ip)?,
        ingress_ipv6: read_v6("IPv6IngressIP", &wire.ipv6_ingress_ip)?,
        encryption_key: wire.encryption_key,
        wireguard_pub_key: wire.wireguard_pub_key,
        boot_id: wire.boot_id,
        labels: wire.labels.unwrap_or_default(),
        annotations: wire.annotations.unwrap_or_default(),
    })
}

/// The value's bytes. Host names are left out: a Go reader takes every entry of `IPAddresses` for an address and would
/// refuse the whole node.
pub fn encode(node: &Node) -> Vec<u8> {
    let cidrs = |v6: bool| {
        let mut family = node.pod_cidrs.iter().filter(move |c| c.addr().is_ipv6() == v6);
        let first = family.next().map(WireCidr::write);
        let rest: Vec<_> = family.map(|c| Some(WireCidr::write(c))).collect();
        (first, (!rest.is_empty()).then_some(rest))
    };
    let (ipv4_alloc_cidr, ipv4_secondary_alloc_cidrs) = cidrs(false);
    let (ipv6_alloc_cidr, ipv6_secondary_alloc_cidrs) = cidrs(true);
    let address = |a: &NodeAddress| WireAddress {
        kind: kind_text(a.kind).to_owned(),
        ip: a.ip.to_string(),
    };
    let addresses: Vec<_> = node.addresses.iter().map(address).collect();
    json::encode(&Wire {
        name: node.name.to_string(),
        cluster: node.cluster.to_string(),
        ip_addresses: (!addresses.is_empty()).then_some(addresses),
        ipv4_alloc_cidr,
        ipv4_secondary_alloc_cidrs,
        ipv6_alloc_cidr,
        ipv6_secondary_alloc_cidrs,
        ipv4_health_ip: text_of(node.health_ipv4),
        ipv6_health_ip: text_of(node.health_ipv6),
        ipv4_ingress_ip: text_of(node.ingress_ipv4),
        ipv6_ingress_ip: text_of(node.ingress_ipv6),
        cluster_id: node.cluster_id.value().into(),
        source: SOURCE.to_owned(),
        encryption_key: node.encryption_key,
        labels: (!node.labels.is_empty()).then(|| node.labels.clone()),
        annotations: (!node.annotations.is_empty()).then(|| node.annotations.clone()),
        wireguard_pub_key: node.wireguard_pub_key.clone(),
        boot_id: node.boot_id.clone(),
    })
}

const KINDS: [(&str, NodeAddressKind); 6] = [
    ("InternalIP", NodeAddressKind::InternalIP),
    ("ExternalIP", NodeAddressKind::ExternalIP),
    ("CiliumInternalIP", NodeAddressKind::CiliumInternalIP),
    ("Hostname", NodeAddressKind::Hostname),
    ("ExternalDNS", NodeAddressKind::ExternalDNS),
    ("InternalDNS", NodeAddressKind::InternalDNS),
];

fn kind_text(kind: NodeAddressKind) -> &'static str {
    KINDS
        .iter()
        .find(|(_, k)| *k == kind)
        .map_or("", |(text, _)| text)
}

type Addresses = (Vec<NodeAddress>, Vec<(NodeAddressKind, String)>);

/// Kinds that we do not know are left out: a newer peer may have more of them.
fn read_addresses(wire: Vec<WireAddress>) -> Result<Addresses, ValueError> {
    let (mut addresses, mut hostnames) = (Vec::new(), Vec::new());
    for entry in wire.into_iter().filter(|entry| !entry.ip.is_empty()) {
        let Some((_, kind)) = KINDS.iter().find(|(text, _)| *text == entry.kind) else {
            continue;
        };
        match entry.ip.parse() {
            Ok(ip) => addresses.push(NodeAddress { kind: *kind, ip }),
            Err(_) if is_name(*kind) => hostnames.push((*kind, entry.ip)),
            Err(_) => return Err(not_an_address("IPAddresses", &entry.ip)),
        }
    }
    Ok((addresses, hostnames))
}

const fn is_name(kind: NodeAddressKind) -> bool {
    use NodeAddressKind::{ExternalDNS, Hostname, InternalDNS};
    matches!(kind, Hostname | ExternalDNS | InternalDNS)
}

fn read_cidrs(
    into: &mut Vec<IpNet>,
    family: &str,
    main: &Option<WireCidr>,
    secondary: &Option<Vec<Option<WireCidr>>>,
) -> Result<(), ValueError> {
    let v6 = family == "IPv6";
    if let Some(cidr) = main {
        into.push(cidr.read(&format!("{family}AllocCIDR"), v6)?);
    }
    for cidr in secondary.iter().flatten().flatten() {
        into.push(cidr.read(&format!("{family}SecondaryAllocCIDRs"), v6)?);
    }
    Ok(())
}

fn read_v4(member: &str, text: &str) -> Result<Option<Ipv4Addr>, ValueError> {
    match text {
        "" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| not_an_address(member, text)),
    }
}

fn read_v6(member: &str, text: &str) -> Result<Option<Ipv6Addr>, ValueError> {
    match text {
        "" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| not_an_address(member, text)),
    }
}

fn text_of(ip: Option<impl ToString>) -> String {
    ip.map(|ip| ip.to_string()).unwrap_or_default()
}
