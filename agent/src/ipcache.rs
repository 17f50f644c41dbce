//! From ip entries to rows of the ipcache: a pure function.
//!
//! Of all that is said of a prefix, the most certain wins: a node's own address (from the plan), this cluster's pods, the other
//! clusters' in the order of their names, and last the plan's fallback for a pod CIDR. An entry within a prefix of another
//! cluster is left out: which of two clusters keeps a prefix is the plan's decision.
use std::collections::BTreeMap;

use ipnet::IpNet;
use isthmus_datapath::IpCacheRow;
use isthmus_topology::{ClusterId, IpIdentity, Node};
use isthmus_tunnel::{IpcacheEntry, Plan};

use crate::intents::Intents;

/// The rows of some intents.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// What is wanted.
    pub(crate) intents: &'a Intents,
    /// How nodes are joined.
    pub(crate) plan: &'a Plan,
    /// Pods of this cluster's other nodes are reached by the overlay.
    pub(crate) own_cluster: bool,
}

impl Rows<'_> {
    /// All rows, and how many entries were left out.
    pub(crate) fn all(&self) -> (BTreeMap<IpNet, IpCacheRow>, usize) {
        let mut rows: BTreeMap<IpNet, IpCacheRow> = self
            .plan
            .ipcache
            .iter()
            .map(|(net, entry)| (*net, planned(entry)))
            .collect();
        let mut pods: BTreeMap<IpNet, IpCacheRow> = BTreeMap::new();
        let mut foreign = 0;
        for (id, state) in self.intents.clusters() {
            for entry in state.ips.values() {
                if self.fits(id, entry) {
                    pods.entry(canonical(&entry.prefix))
                        .or_insert_with(|| remote_row(entry));
                } else {
                    foreign += 1;
                }
            }
        }
        let here = self.intents.own_node();
        for entry in self.intents.local.ips.values() {
            pods.insert(canonical(&entry.prefix), local_row(here, entry, self.own_cluster));
        }
        for (net, row) in pods {
            if !(is_host(&net) && rows.contains_key(&net)) {
                rows.insert(net, row);
            }
        }
        (rows, foreign)
    }

    /// The row of one prefix, the same that [`Self::all`] has.
    pub(crate) fn row(&self, prefix: &IpNet) -> Option<IpCacheRow> {
        let plan = self.plan.ipcache.get(prefix).map(planned);
        if is_host(prefix) && plan.is_some() {
            return plan;
        }
        if let Some(entry) = self.intents.local.ips.get(prefix) {
            return Some(local_row(self.intents.own_node(), entry, self.own_cluster));
        }
        let remote = |(id, state): (ClusterId, &isthmus_remote_cluster::RemoteClusterState)| {
            state
                .ips
                .get(prefix)
                .filter(|entry| self.fits(id, entry))
                .map(remote_row)
        };
        self.intents.clusters().find_map(remote).or(plan)
    }

    /// How many clusters claim a prefix that is not theirs.
    pub(crate) fn foreign(&self, prefix: &IpNet) -> usize {
        let claims = self
            .intents
            .clusters()
            .filter_map(|(id, state)| Some((id, state.ips.get(prefix)?)));
        claims.filter(|(id, entry)| !self.fits(*id, entry)).count()
    }

    fn fits(&self, cluster: ClusterId, entry: &IpIdentity) -> bool {
        self.plan
            .owner(entry.prefix.network())
            .is_none_or(|owner| owner == cluster)
    }
}

/// A prefix as the tables have it: without host bits.
pub(crate) fn canonical(prefix: &IpNet) -> IpNet {
    prefix.trunc()
}

fn planned(entry: &IpcacheEntry) -> IpCacheRow {
    IpCacheRow {
        identity: entry.identity.0,
        endpoint: entry.endpoint,
        key: entry.key,
        skip_tunnel: entry.skip_tunnel,
    }
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
