//! From ip entries to rows of the ipcache: a pure function.
use std::collections::BTreeMap;

use ipnet::IpNet;
use isthmus_datapath::IpCacheRow;
use isthmus_topology::{IpIdentity, Node};
use isthmus_tunnel::Plan;

use crate::intents::Intents;

/// All rows: fallbacks and node addresses of the plan, then pods, which are more precise. An entry within a prefix of another
/// cluster is left out: that cluster keeps its addresses (the plan says which of two that is). How many were left out comes
/// second.
pub(crate) fn rows(
    intents: &Intents,
    plan: &Plan,
    own_cluster: bool,
) -> (BTreeMap<IpNet, IpCacheRow>, usize) {
    let fallback = |(net, entry): (&IpNet, &isthmus_tunnel::IpcacheEntry)| {
        let row = IpCacheRow {
            identity: entry.identity.0,
            endpoint: entry.endpoint,
            key: entry.key,
            skip_tunnel: entry.skip_tunnel,
        };
        (*net, row)
    };
    let mut rows: BTreeMap<IpNet, IpCacheRow> = plan.ipcache.iter().map(fallback).collect();
    let mut pods: BTreeMap<IpNet, IpCacheRow> = BTreeMap::new();
    let mut foreign = 0;
    for (id, state) in intents.clusters() {
        for entry in state.ips.values() {
            if plan
                .owner(entry.prefix.network())
                .is_some_and(|owner| owner != id)
            {
                foreign += 1;
            } else {
                // Two clusters claim one address outside of all pod CIDRs: the first keeps it.
                pods.entry(entry.prefix.trunc())
                    .or_insert_with(|| remote_row(entry));
            }
        }
    }
    for entry in intents.local.ips.values() {
        pods.insert(
            entry.prefix.trunc(),
            local_row(intents.own_node(), entry, own_cluster),
        );
    }
    for (net, row) in pods {
        // What is known of a node's own address is more than an ip entry says.
        if !(is_host(&net) && rows.contains_key(&net)) {
            rows.insert(net, row);
        }
    }
    (rows, foreign)
}

fn local_row(here: Option<&Node>, entry: &IpIdentity, own_cluster: bool) -> IpCacheRow {
    let on_this_node = |ip| here.is_some_and(|node| node.addresses.iter().any(|a| a.ip == ip));
    let endpoint = entry.host_ip.filter(|ip| !on_this_node(*ip));
    IpCacheRow {
        identity: entry.identity.0,
        endpoint,
        key: entry.key,
        skip_tunnel: endpoint.is_some() && !own_cluster,
    }
}

fn remote_row(entry: &IpIdentity) -> IpCacheRow {
    IpCacheRow {
        identity: entry.identity.received().0,
        endpoint: entry.host_ip,
        key: entry.key,
        skip_tunnel: false,
    }
}

fn is_host(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}
