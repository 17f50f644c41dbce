//! Packets from outside that leave this node for a pod elsewhere get this node's address, so that the answer comes back here,
//! where it gets its virtual address again. The kernel does it: one nftables table of our own, one rule for each family and way.
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Stdio;

use ipnet::IpNet;
use isthmus_topology::Node;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::args::Args;
use crate::intents::Intents;

/// What the rules are made from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Masquerade {
    /// The overlay device.
    pub(crate) device: String,
    /// The links on which packets from outside arrive.
    pub(crate) uplinks: Vec<String>,
    /// This node's overlay addresses, IPv4 and IPv6.
    pub(crate) addresses: [Option<IpAddr>; 2],
    /// Addresses of this cluster's pods and overlay: packets from there keep their source.
    pub(crate) mesh: BTreeSet<IpNet>,
    /// Pod CIDRs of this cluster's other nodes, which are reached by the underlay.
    pub(crate) neighbours: BTreeSet<IpNet>,
}

impl Masquerade {
    /// The rules that these intents need. They depend on this cluster only: packets of other clusters' pods end here.
    pub(crate) fn of(intents: &Intents, args: &Args) -> Self {
        let own = intents.own_node();
        let nodes = || intents.local.nodes.values();
        let others = nodes().filter(|node| node.name != intents.me.node && !args.overlay_own_cluster);
        let address = |node: &Node, v6| isthmus_tunnel::overlay_address(node, v6);
        let inside = nodes().flat_map(|node| [false, true].into_iter().filter_map(|v6| address(node, v6)));
        let pods = nodes().flat_map(|node| node.pod_cidrs.iter().map(IpNet::trunc));
        Self {
            device: args.overlay_device.clone(),
            uplinks: args.uplink.clone(),
            addresses: [false, true].map(|v6| own.and_then(|node| address(node, v6))),
            mesh: disjoint(pods.chain(inside.map(IpNet::from))),
            neighbours: disjoint(others.flat_map(|n| n.pod_cidrs.iter().map(IpNet::trunc))),
        }
    }

    /// The whole table, as one transaction that replaces what was there. Its mark tells whether it is loaded already.
    pub(crate) fn ruleset(&self) -> String {
        let mark = self.mark();
        let uplinks: Vec<String> = self.uplinks.iter().map(|name| format!("\"{name}\"")).collect();
        let uplinks = uplinks.join(", ");
        let mut text =
            String::from("add table inet isthmus\nflush table inet isthmus\ntable inet isthmus {\n");
        for (v6, family) in [(false, "ipv4"), (true, "ipv6")] {
            for (name, nets) in [("mesh", &self.mesh), ("neighbours", &self.neighbours)] {
                let of_family: Vec<String> = nets
                    .iter()
                    .filter(|n| n.addr().is_ipv6() == v6)
                    .map(ToString::to_string)
                    .collect();
                let elements = match of_family.as_slice() {
                    [] => String::new(),
                    some => format!(" elements = {{ {} }}", some.join(", ")),
                };
                text +=
                    &format!("  set {name}_{family} {{ type {family}_addr; flags interval;{elements} }}\n");
            }
        }
        text += "  chain postrouting {\n    type nat hook postrouting priority 90; policy accept;\n";
        text += &format!(
            "    oifname \"{}\" jump overlay comment \"{mark}\"\n",
            self.device
        );
        for (family, ip) in [("ipv4", "ip"), ("ipv6", "ip6")] {
            text += &format!(
                "    iifname {{ {uplinks} }} {ip} daddr @neighbours_{family} {ip} saddr != @mesh_{family} masquerade\n"
            );
        }
        text += "  }\n  chain overlay {\n";
        for ((family, ip), address) in [("ipv4", "ip"), ("ipv6", "ip6")].into_iter().zip(self.addresses) {
            if let Some(address) = address {
                text += &format!("    {ip} saddr != @mesh_{family} snat {ip} to {address}\n");
            }
        }
        text + "  }\n}\n"
    }

    /// A number for this rule set: FNV-1a over everything that it is made from.
    fn mark(&self) -> String {
        let text = format!("{self:?}");
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("isthmus {hash:016x}")
    }
}

/// nft's interval sets want no prefix within another.
fn disjoint(nets: impl Iterator<Item = IpNet>) -> BTreeSet<IpNet> {
    IpNet::aggregate(&nets.collect::<Vec<_>>()).into_iter().collect()
}

/// Loads the rules unless they are loaded already; true if they were written.
pub(crate) async fn load(wanted: &Masquerade) -> Result<bool, String> {
    let missing = "packets from outside go only to pods on this node, since the program nft is missing: install nftables";
    let listed = Command::new("nft")
        .args(["list", "table", "inet", "isthmus"])
        .stdin(Stdio::null())
        .output()
        .await;
    let listed = listed.map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => missing.to_owned(),
        _ => format!("nft cannot be run ({e}): packets from outside go only to pods on this node"),
    })?;
    if listed.status.success() && String::from_utf8_lossy(&listed.stdout).contains(&wanted.mark()) {
        return Ok(false);
    }
    run_nft(&wanted.ruleset()).await.map(|()| true)
}

async fn run_nft(rules: &str) -> Result<(), String> {
    let failed = |reason: String| {
        format!(
            "the masquerade rules were refused ({reason}): packets from outside go only to pods on this node; a kernel with \
             CONFIG_NF_TABLES, CONFIG_NFT_NAT and CONFIG_NFT_MASQ is needed"
        )
    };
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    if let Some(mut input) = child.stdin.take() {
        input
            .write_all(rules.as_bytes())
            .await
            .map_err(|e| failed(e.to_string()))?;
    }
    let output = child
        .wait_with_output()
        .await
        .map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(failed(
        text.lines().next().unwrap_or("no reason given").to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_name_the_device_the_mesh_and_the_address() {
        let rules = Masquerade {
            device: "isthmus_vxlan".to_owned(),
            uplinks: vec!["eth0".to_owned(), "eth1".to_owned()],
            addresses: [Some(IpAddr::from([10, 1, 1, 1])), None],
            mesh: disjoint(
                ["10.1.1.0/24", "10.1.1.1/32", "10.2.0.0/16"]
                    .iter()
                    .filter_map(|n| n.parse().ok()),
            ),
            neighbours: BTreeSet::new(),
        };
        let text = rules.ruleset();
        for line in [
            "set mesh_ipv4 { type ipv4_addr; flags interval; elements = { 10.1.1.0/24, 10.2.0.0/16 } }",
            "set neighbours_ipv6 { type ipv6_addr; flags interval; }",
            "ip saddr != @mesh_ipv4 snat ip to 10.1.1.1",
            "iifname { \"eth0\", \"eth1\" } ip daddr @neighbours_ipv4 ip saddr != @mesh_ipv4 masquerade",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
        assert!(!text.contains("snat ip6"), "there is no IPv6 address to use");
        let other = Masquerade {
            device: "other".to_owned(),
            ..rules.clone()
        };
        assert_ne!(rules.mark(), other.mark());
    }
}
