//! What has to change, in an order in which no step needs a later one.
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::{Mac, Op, Plan, Route, Rule};

/// The overlay device as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedDevice {
    /// It is a collect-metadata VXLAN device on this UDP port; none if it is anything else.
    pub port: Option<u16>,
    /// MAC address.
    pub mac: Option<Mac>,
    /// MTU.
    pub mtu: u32,
    /// Up.
    pub up: bool,
    /// It does without ARP.
    pub no_arp: bool,
    /// Its addresses, without link-local ones.
    pub addresses: BTreeSet<IpNet>,
}

/// What the kernel has of what is ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// The device of our name.
    pub device: Option<ObservedDevice>,
    /// Routes of our table with our protocol number by destination; none = it does not go through our device as we
    /// would write it.
    pub routes: BTreeMap<IpNet, Option<Route>>,
    /// Rules with our protocol number, and any that ask our table with our preference.
    pub rules: BTreeSet<Rule>,
}

/// Which routes may be deleted.
#[derive(Debug, Clone, Copy)]
pub enum Prune<'a> {
    /// All that are ours and not planned: every source has said all it knows.
    All,
    /// Only these: they were planned by this process and a source has taken them back. What an earlier process left is kept
    /// until every source has been heard.
    Only(&'a BTreeSet<IpNet>),
}

/// The ops that turn what is observed into what is planned: device, addresses, routes, rules; what goes away comes first
/// only where it would be in the way.
pub fn diff(plan: &Plan, observed: &Observed, prune: Prune<'_>) -> Vec<Op> {
    let mut ops = Vec::new();
    let fresh = device_ops(plan, observed, &mut ops);
    let nothing = BTreeMap::new();
    // With its device a route goes away too.
    let routes = if fresh { &nothing } else { &observed.routes };
    for net in routes.keys().filter(|net| !plan.routes.contains_key(net)) {
        let may = match prune {
            Prune::All => true,
            Prune::Only(known) => known.contains(net),
        };
        if may {
            ops.push(Op::DeleteRoute(*net));
        }
    }
    // A host route of a gateway goes before the routes that use it: shorter prefixes last.
    let mut wanted: Vec<_> = plan.routes.iter().collect();
    wanted.sort_by_key(|(net, _)| (std::cmp::Reverse(net.prefix_len()), **net));
    if plan.device.is_some() {
        for (net, route) in wanted {
            if routes.get(net).and_then(Option::as_ref) != Some(route) {
                ops.push(Op::PutRoute(*net, route.clone()));
            }
        }
    }
    // Rules only once the table is filled; they go away only if nothing needs the table any more.
    ops.extend(plan.rules.difference(&observed.rules).copied().map(Op::AddRule));
    if matches!(prune, Prune::All) {
        ops.extend(
            observed
                .rules
                .difference(&plan.rules)
                .copied()
                .map(Op::DeleteRule),
        );
    }
    ops
}

/// True if the device is made afresh.
fn device_ops(plan: &Plan, observed: &Observed, ops: &mut Vec<Op>) -> bool {
    let Some(device) = &plan.device else {
        return false;
    };
    let name = || device.name.clone();
    let usable = observed
        .device
        .as_ref()
        .filter(|found| found.port == Some(device.port));
    let Some(found) = usable else {
        if observed.device.is_some() {
            ops.push(Op::DeleteDevice(name()));
        }
        ops.push(Op::AddDevice(device.clone()));
        ops.push(Op::SetNoArp(name()));
        ops.push(Op::SetUp(name()));
        ops.extend(device.addresses.iter().map(|net| Op::AddAddress(name(), *net)));
        return true;
    };
    if found.mac != Some(device.mac) {
        ops.push(Op::SetMac(name(), device.mac));
    }
    if found.mtu != device.mtu {
        ops.push(Op::SetMtu(name(), device.mtu));
    }
    if !found.no_arp {
        ops.push(Op::SetNoArp(name()));
    }
    if !found.up {
        ops.push(Op::SetUp(name()));
    }
    ops.extend(
        device
            .addresses
            .difference(&found.addresses)
            .map(|net| Op::AddAddress(name(), *net)),
    );
    ops.extend(
        found
            .addresses
            .difference(&device.addresses)
            .map(|net| Op::DeleteAddress(name(), *net)),
    );
    false
}
