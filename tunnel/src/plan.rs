//! What this node should have.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use isthmus_topology::{ClusterId, Identity, Node, NodeAddressKind};
use serde::Serialize;

use crate::claims::{Claims, Refusal};

/// Bytes that VXLAN adds on an IPv4 underlay: outer Ethernet 14, IPv4 20, UDP 8, VXLAN 8.
const OVERHEAD_V4: u32 = 50;
/// The same on an IPv6 underlay, whose header has 40 bytes.
const OVERHEAD_V6: u32 = 70;
/// IPv6 works on no link with less (RFC 8200 §5).
const SMALLEST_MTU: u32 = 1280;

/// A MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Mac(pub [u8; 6]);

/// How pairs of nodes are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// One collect-metadata VXLAN device for all.
    Vxlan {
        /// UDP port, 8472 in every cluster that speaks Cilium's dialect.
        port: u16,
    },
}

/// What an administrator decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How nodes are joined.
    pub mode: Mode,
    /// Name of the overlay device.
    pub device: String,
    /// MTU of the links that carry the tunnel.
    pub underlay_mtu: u32,
    /// Routing table for our routes.
    pub table: u32,
    /// Preference of the rules that ask this table: after `local` (0), before `main` (32766).
    pub rule_priority: u32,
    /// rtproto number that marks what is ours.
    pub protocol: u8,
    /// Whether pods of the own cluster's other nodes are reached by the overlay too. Off where a CNI does that.
    pub own_cluster: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Vxlan { port: 8472 },
            device: "isthmus_vxlan".to_owned(),
            underlay_mtu: 1500,
            table: 7441,
            rule_priority: 5190,
            protocol: 144,
            own_cluster: false,
        }
    }
}

/// What a plan is made from.
#[derive(Debug, Clone)]
pub struct TunnelInputs<'a> {
    /// What an administrator decides.
    pub settings: &'a Settings,
    /// This node.
    pub local: &'a Node,
    /// All other nodes of the mesh, of this and of other clusters, in any order.
    pub nodes: &'a [&'a Node],
}

/// The overlay device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// UDP port.
    pub port: u16,
    /// MTU: the underlay's less the overhead.
    pub mtu: u32,
    /// MAC address, made from the tunnel endpoint: the kernel drops a packet that comes from its own MAC.
    pub mac: Mac,
    /// This node's addresses in the overlay, as host prefixes.
    pub addresses: BTreeSet<IpNet>,
}

/// A route in our table; its destination is the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Route {
    /// The remote node's overlay address, used as an on-link gateway, so that the kernel has one neighbour for each node and
    /// not for each pod; none if the node has no overlay address of the family.
    pub via: Option<IpAddr>,
    /// Source of packets that this node itself sends.
    pub source: Option<IpAddr>,
}

/// A rule that asks our table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Rule {
    /// IPv6 or IPv4.
    pub v6: bool,
    /// Preference.
    pub priority: u32,
    /// Table.
    pub table: u32,
}

/// What the ipcache should say of a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct IpcacheEntry {
    /// Identity of its addresses where nothing more precise is known.
    pub identity: Identity,
    /// The node behind which they are; none for this node.
    pub endpoint: Option<IpAddr>,
    /// Encryption key index.
    pub key: u8,
    /// Reached without the tunnel although the node is known: addresses of the underlay itself.
    pub skip_tunnel: bool,
}

/// What this node should have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The overlay device; none if this node has no address at which tunnels can end.
    pub device: Option<Device>,
    /// Routes by destination.
    pub routes: BTreeMap<IpNet, Route>,
    /// Rules.
    pub rules: BTreeSet<Rule>,
    /// Fallback entries of the ipcache; those of pods come from ip entries and are more precise.
    pub ipcache: BTreeMap<IpNet, IpcacheEntry>,
    /// The pod CIDRs that are in use, with their clusters; they do not overlap.
    #[serde(skip)]
    pub owners: BTreeMap<IpNet, ClusterId>,
    /// What cannot be used, and why. Everything else is planned as if it were not there.
    pub refused: Vec<Refusal>,
}

impl Plan {
    /// The plan of a node that is not known.
    pub fn empty() -> Self {
        Self {
            device: None,
            routes: BTreeMap::new(),
            rules: BTreeSet::new(),
            ipcache: BTreeMap::new(),
            owners: BTreeMap::new(),
            refused: Vec::new(),
        }
    }

    /// The cluster whose pods have this address, if it is in one of the pod CIDRs.
    pub fn owner(&self, ip: IpAddr) -> Option<ClusterId> {
        let (net, cluster) = self.owners.range(..=IpNet::from(ip)).next_back()?;
        net.contains(&ip).then_some(*cluster)
    }
}

/// A node's own address in the overlay.
pub fn overlay_address(node: &Node, v6: bool) -> Option<IpAddr> {
    node.address(NodeAddressKind::CiliumInternalIP, v6)
}

/// Plans this node's part of the mesh. The result depends on the set of nodes, not on their order.
pub fn plan(inputs: &TunnelInputs<'_>) -> Plan {
    let settings = inputs.settings;
    let mut claims = Claims::of(inputs.local);
    let mut nodes: Vec<&Node> = inputs.nodes.to_vec();
    // Who comes first keeps what several claim: the own cluster, then the lower id, then the name.
    nodes.sort_by_key(|n| {
        (
            n.cluster_id != inputs.local.cluster_id,
            n.cluster_id,
            n.name.clone(),
        )
    });
    nodes.dedup_by_key(|n| (n.cluster_id, n.name.clone()));
    for node in &nodes {
        claims.announce(node);
    }
    let mut plan = Plan {
        device: device(inputs),
        routes: BTreeMap::new(),
        rules: BTreeSet::new(),
        ipcache: own_entries(inputs.local),
        owners: BTreeMap::new(),
        refused: Vec::new(),
    };
    for node in nodes {
        join(&mut plan, &mut claims, inputs, node);
    }
    (plan.owners, plan.refused) = claims.outcome();
    for v6 in [false, true] {
        if plan.routes.keys().any(|net| net.addr().is_ipv6() == v6) {
            plan.rules.insert(Rule {
                v6,
                priority: settings.rule_priority,
                table: settings.table,
            });
        }
    }
    plan
}

fn device(inputs: &TunnelInputs<'_>) -> Option<Device> {
    let endpoint = inputs.local.tunnel_endpoint()?;
    let Mode::Vxlan { port } = inputs.settings.mode;
    let overhead = if endpoint.is_ipv6() {
        OVERHEAD_V6
    } else {
        OVERHEAD_V4
    };
    let addresses = [false, true].map(|v6| overlay_address(inputs.local, v6).map(IpNet::from));
    Some(Device {
        name: inputs.settings.device.clone(),
        port,
        mtu: inputs
            .settings
            .underlay_mtu
            .saturating_sub(overhead)
            .max(SMALLEST_MTU),
        mac: mac_of(endpoint),
        addresses: addresses.into_iter().flatten().collect(),
    })
}

/// A locally administered MAC address for each endpoint; IPv4 endpoints never share one.
fn mac_of(endpoint: IpAddr) -> Mac {
    match endpoint {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            Mac([0x02, 0x49, a, b, c, d])
        }
        IpAddr::V6(ip) => {
            // Nodes of one network differ in the low bits most: they are kept, the high ones are folded in.
            let o = ip.octets();
            let fold = |i: usize| o[i] ^ o[i + 4] ^ o[i + 8].rotate_left(3);
            Mac([
                0x06,
                fold(0) ^ o[11],
                o[12] ^ fold(1),
                o[13] ^ fold(2),
                o[14],
                o[15],
            ])
        }
    }
}

fn own_entries(local: &Node) -> BTreeMap<IpNet, IpcacheEntry> {
    let own = IpcacheEntry {
        identity: Identity::HOST,
        endpoint: None,
        key: 0,
        skip_tunnel: false,
    };
    local.addresses.iter().map(|a| (IpNet::from(a.ip), own)).collect()
}

/// Adds one other node to the plan: its addresses, then its pod CIDRs.
fn join(plan: &mut Plan, claims: &mut Claims, inputs: &TunnelInputs<'_>, node: &Node) {
    let Some(endpoint) = claims.endpoint(node) else {
        return;
    };
    let own_cluster = node.cluster_id == inputs.local.cluster_id;
    let by_overlay = !own_cluster || inputs.settings.own_cluster;
    let entry = |skip_tunnel| IpcacheEntry {
        identity: Identity::REMOTE_NODE,
        endpoint: Some(endpoint),
        key: node.encryption_key,
        skip_tunnel,
    };
    let source = |net: &IpNet| overlay_address(inputs.local, net.addr().is_ipv6());
    let mut overlay = [None, None];
    for address in &node.addresses {
        let net = IpNet::from(address.ip);
        let inside = address.kind == NodeAddressKind::CiliumInternalIP;
        if !claims.take_address(node, address.ip, inside) {
            continue;
        }
        plan.ipcache.insert(net, entry(!inside || !by_overlay));
        if inside && by_overlay {
            overlay[usize::from(address.ip.is_ipv6())].get_or_insert(address.ip);
            let route = Route {
                via: None,
                source: source(&net),
            };
            plan.routes.insert(net, route);
        }
    }
    for cidr in &node.pod_cidrs {
        let cidr = cidr.trunc();
        if !claims.take_cidr(node, cidr) {
            continue;
        }
        let fallback = IpcacheEntry {
            identity: Identity::WORLD,
            ..entry(!by_overlay)
        };
        plan.ipcache.entry(cidr).or_insert(fallback);
        if by_overlay {
            let route = Route {
                via: overlay[usize::from(cidr.addr().is_ipv6())],
                source: source(&cidr),
            };
            plan.routes.entry(cidr).or_insert(route);
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
