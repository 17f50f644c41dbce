//! The table of nodes: a CiliumNode wins over a Node, and a pod CIDR belongs to one node.
use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use isthmus_topology::{Node, NodeName};

use super::{Conflict, settle};
use crate::Table;
use crate::object::{Kind, Object};
use crate::objects::{Objects, Placed};

pub(super) fn resolve(
    objects: &Objects,
    before: &Table<NodeName, Node>,
) -> (Table<NodeName, Node>, Vec<Conflict>) {
    let mut nodes: BTreeMap<NodeName, (Node, &Placed)> = BTreeMap::new();
    for kind in [Kind::Node, Kind::CiliumNode] {
        for (_, placed) in objects.of_kind(kind) {
            if let Object::Node(node) = &*placed.object {
                nodes.insert(node.name.clone(), (Node::clone(node), placed));
            }
        }
    }
    let mut owners = Owners::default();
    // Who had a prefix keeps it: a newcomer must not take a running node's pods away.
    for (name, (node, _)) in &nodes {
        let had = before
            .get(name)
            .map(|old| old.pod_cidrs.as_slice())
            .unwrap_or_default();
        for cidr in node.pod_cidrs.iter().filter(|cidr| had.contains(cidr)) {
            owners.claim(*cidr, name);
        }
    }
    let mut conflicts = Vec::new();
    for (name, (node, placed)) in &mut nodes {
        node.pod_cidrs.retain(|cidr| match owners.claim(*cidr, name) {
            None => true,
            Some((theirs, owner)) => {
                conflicts.push(conflict(placed, name, *cidr, theirs, &owner));
                false
            }
        });
    }
    let rows = nodes.into_iter().map(|(name, (node, _))| (name, Arc::new(node)));
    (settle(rows.collect(), before), conflicts)
}

fn conflict(placed: &Placed, name: &NodeName, cidr: IpNet, theirs: IpNet, owner: &NodeName) -> Conflict {
    let reason = if cidr == theirs {
        format!(
            "nodes {owner} and {name} both have pod CIDR {cidr}: it stays with {owner}; give {name} another"
        )
    } else {
        format!(
            "pod CIDR {cidr} of node {name} overlaps {theirs} of node {owner}, which keeps it; give {name} another"
        )
    };
    Conflict::at(placed, reason)
}

/// Who has which prefix; prefixes of different nodes never overlap.
#[derive(Default)]
struct Owners(BTreeMap<IpNet, NodeName>);

impl Owners {
    /// Takes a prefix for a node; tells who has it, or a part or the whole of it, if that is another node.
    fn claim(&mut self, cidr: IpNet, name: &NodeName) -> Option<(IpNet, NodeName)> {
        let other = |found: &(&IpNet, &NodeName)| found.1 != name;
        let supernets = (0..=cidr.prefix_len()).filter_map(|len| IpNet::new(cidr.addr(), len).ok());
        let around = supernets
            .filter_map(|net| self.0.get_key_value(&net.trunc()))
            .find(other);
        let start = IpNet::new(cidr.network(), 0).unwrap_or(cidr);
        let inside = self
            .0
            .range(start..)
            .take_while(|(net, _)| net.addr() <= cidr.broadcast());
        let taken = around.or_else(|| inside.filter(|(net, _)| cidr.contains(*net)).find(other));
        if let Some((net, owner)) = taken {
            return Some((*net, owner.clone()));
        }
        self.0.insert(cidr, name.clone());
        None
    }
}
