//! What an earlier process left in the maps: kept until those who know better have spoken.
//!
//! Rows of a cluster are swept once that cluster's own table is complete, not before, and not later because another cluster is
//! away. Rows that no cluster can be told of wait for all.
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use isthmus_datapath::{Desired, Frontend, Inspection, IpCacheRow, ServiceRow};
use isthmus_remote_cluster::Resource;
use isthmus_topology::Identity;

use crate::intents::Intents;

/// The rows that were there when this process started, less what has been spoken for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Adopted {
    services: BTreeMap<Frontend, ServiceRow>,
    ipcache: BTreeMap<IpNet, IpCacheRow>,
    /// Clusters that had backends: their bit in the data path means something.
    clusters: BTreeSet<u16>,
}

impl Adopted {
    /// Everything that was there.
    pub(crate) fn of(inspection: Inspection) -> Self {
        let row = |view: isthmus_datapath::ServiceView| ServiceRow {
            affinity: view.affinity,
            groups: view
                .groups
                .into_iter()
                .map(|(id, backends)| (id, backends.into_iter().collect()))
                .collect(),
        };
        let services: BTreeMap<_, _> = inspection
            .services
            .into_iter()
            .map(|(f, view)| (f, row(view)))
            .collect();
        Self {
            clusters: services
                .values()
                .flat_map(|row| row.groups.keys().copied())
                .collect(),
            services,
            ipcache: inspection.ipcache,
        }
    }

    /// True if the cluster was in use before this process started.
    pub(crate) fn knew(&self, cluster: u16) -> bool {
        self.clusters.contains(&cluster)
    }

    /// True if nothing is kept any more.
    pub(crate) fn is_empty(&self) -> bool {
        self.services.is_empty() && self.ipcache.is_empty()
    }

    /// Gives up what the sources have now spoken for.
    pub(crate) fn forget_spoken_for(&mut self, intents: &Intents) {
        if self.is_empty() {
            return;
        }
        if intents.all_synced() {
            self.services.clear();
            self.ipcache.clear();
            return;
        }
        let me = intents.me.cluster.value();
        let local = intents.local.complete && !intents.local.partial;
        let of =
            |resource| -> BTreeSet<u16> { intents.synced(resource).iter().map(|id| id.value()).collect() };
        let spoken = of(Resource::Services);
        for row in self.services.values_mut() {
            row.groups
                .retain(|id, _| !(spoken.contains(id) || local && *id == me));
        }
        self.services.retain(|_, row| !row.groups.is_empty());
        let spoken = of(Resource::Ips);
        let shift = intents.me.max.shift();
        self.ipcache.retain(|_, row| {
            let cluster = (!Identity(row.identity).is_reserved()).then_some(row.identity >> shift);
            let cluster = cluster.and_then(|id| u16::try_from(id).ok());
            cluster.is_none_or(|id| !(spoken.contains(&id) || local && id == me))
        });
    }

    /// Adds what is kept to what is wanted.
    pub(crate) fn keep(&self, desired: &mut Desired, local_complete: bool) {
        for (frontend, row) in &self.services {
            match desired.services.get_mut(frontend) {
                Some(wanted) => {
                    for (id, backends) in &row.groups {
                        wanted.groups.entry(*id).or_insert_with(|| backends.clone());
                    }
                }
                // A service that this cluster no longer has is gone, whoever else has it.
                None if local_complete => {}
                None => drop(desired.services.insert(*frontend, row.clone())),
            }
        }
        for (net, row) in &self.ipcache {
            desired.ipcache.entry(*net).or_insert(*row);
        }
    }
}
