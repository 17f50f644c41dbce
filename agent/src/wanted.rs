//! What the maps should hold, kept up to date: a small change of the intents costs a small recomputation.
//!
//! [`Wanted::update`] says which rows may differ. Whatever it cannot follow step by step (new clusters, dead nodes, another
//! plan) it computes anew; the tests hold both ways against each other.
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use isthmus_datapath::{Desired, Frontend};
use isthmus_remote_cluster::{Change as TableChange, RemoteClusterState};
use isthmus_topology::{ClusterId, ServiceName};
use isthmus_tunnel::Plan;

use crate::adopted::Adopted;
use crate::intents::Intents;
use crate::ipcache::{self, Rows};
use crate::services::{self, Merged};

/// Rows that are followed one by one at most; with more, everything is computed anew.
const FEW: usize = 512;

/// What has to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Update {
    /// These rows may differ, and no others.
    Rows(BTreeSet<Frontend>, BTreeSet<IpNet>),
    /// Anything may.
    All,
}

/// The rows, and what they are made of.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// What the maps should hold.
    pub(crate) desired: Desired,
    /// The services of this cluster, merged.
    pub(crate) merged: Merged,
    /// Services that cannot be served as they are, and why.
    pub(crate) problems: Vec<String>,
    /// Ip entries that were left out because they lie in another cluster's prefix.
    pub(crate) foreign_ips: usize,
    /// What an earlier process left.
    pub(crate) adopted: Adopted,
    owners: BTreeMap<Frontend, ServiceName>,
}

impl Wanted {
    /// Begins with what an earlier process left.
    pub(crate) fn keeping(adopted: Adopted) -> Self {
        Self {
            adopted,
            ..Self::default()
        }
    }

    /// Follows the intents from `old` to `next`. `same_plan`: the plan is still that of `old`.
    pub(crate) fn update(
        &mut self,
        old: Option<&Intents>,
        next: &Intents,
        plan: &Plan,
        same_plan: bool,
        own_cluster: bool,
    ) -> Update {
        let kept = !self.adopted.is_empty();
        self.adopted.forget_spoken_for(next);
        if let Some(old) = old.filter(|_| same_plan && !kept && self.problems.is_empty())
            && let Some((names, prefixes)) = differing(old, next)
            && names.len() + prefixes.len() <= FEW
            && let Some(frontends) = self.update_services(next, &names)
        {
            let ips = Rows {
                intents: next,
                plan,
                own_cluster,
            };
            self.update_ipcache(&ips, old, &prefixes);
            return Update::Rows(frontends, prefixes);
        }
        self.compute(next, plan, own_cluster);
        Update::All
    }

    /// The rows of some services; none if a frontend has several owners.
    fn update_services(
        &mut self,
        next: &Intents,
        names: &BTreeSet<ServiceName>,
    ) -> Option<BTreeSet<Frontend>> {
        let local = names
            .iter()
            .filter_map(|name| next.local.services.get(name))
            .map(AsRef::as_ref);
        let merged = services::merge(next, local);
        let dead = next.dead_nodes();
        let mut rows = BTreeMap::new();
        for (name, service) in &merged {
            for (frontend, row) in services::rows(next, &dead, service) {
                let free = self
                    .owners
                    .get(&frontend)
                    .is_none_or(|owner| names.contains(owner));
                if !free || rows.insert(frontend, (name.clone(), row)).is_some() {
                    return None;
                }
            }
        }
        let before = names
            .iter()
            .filter_map(|name| self.merged.get(name))
            .flat_map(services::keys);
        let mut frontends: BTreeSet<Frontend> = before
            .filter(|f| self.owners.get(f).is_some_and(|owner| names.contains(owner)))
            .collect();
        for frontend in &frontends {
            self.owners.remove(frontend);
            self.desired.services.remove(frontend);
        }
        for (frontend, (name, row)) in rows {
            frontends.insert(frontend);
            self.owners.insert(frontend, name);
            self.desired.services.insert(frontend, row);
        }
        for name in names {
            self.merged.remove(name);
        }
        self.merged.extend(merged);
        Some(frontends)
    }

    fn update_ipcache(&mut self, rows: &Rows<'_>, old: &Intents, prefixes: &BTreeSet<IpNet>) {
        let before = Rows {
            intents: old,
            ..*rows
        };
        for prefix in prefixes {
            match rows.row(prefix) {
                Some(row) => drop(self.desired.ipcache.insert(*prefix, row)),
                None => drop(self.desired.ipcache.remove(prefix)),
            }
            self.foreign_ips = self.foreign_ips + rows.foreign(prefix) - before.foreign(prefix);
        }
    }

    fn compute(&mut self, next: &Intents, plan: &Plan, own_cluster: bool) {
        self.merged = services::merge_all(next);
        let (rows, problems) = services::all_rows(next, &self.merged);
        self.problems = problems;
        self.owners = rows
            .iter()
            .map(|(frontend, (name, _))| (*frontend, name.clone()))
            .collect();
        let ips = Rows {
            intents: next,
            plan,
            own_cluster,
        };
        let (ipcache, foreign) = ips.all();
        self.foreign_ips = foreign;
        self.desired = Desired {
            services: rows
                .into_iter()
                .map(|(frontend, (_, row))| (frontend, row))
                .collect(),
            ipcache,
        };
        self.adopted
            .keep(&mut self.desired, next.local.complete && !next.local.partial);
    }
}

/// The services and prefixes that differ between two sets of intents; none if more than those may.
fn differing(old: &Intents, new: &Intents) -> Option<(BTreeSet<ServiceName>, BTreeSet<IpNet>)> {
    let clusters = |intents: &Intents| -> Vec<_> {
        let of = |(id, s): (ClusterId, &RemoteClusterState)| {
            (s.name.clone(), id, s.status.synced, s.nodes.generation())
        };
        intents.clusters().map(of).collect()
    };
    let complete = |intents: &Intents| (intents.local.complete, intents.local.partial);
    let same = old.dead == new.dead
        && old.masquerade == new.masquerade
        && complete(old) == complete(new)
        && Arc::ptr_eq(&old.local.nodes, &new.local.nodes)
        && clusters(old) == clusters(new);
    if !same {
        return None;
    }
    let mut names: BTreeSet<ServiceName> = rows_that_differ(&old.local.services, &new.local.services);
    let mut prefixes: BTreeSet<IpNet> = rows_that_differ(&old.local.ips, &new.local.ips);
    for (_, state) in new.clusters() {
        let before = old.remote.clusters.get(&state.name)?;
        for change in state.services.diff(&before.services) {
            let (TableChange::Put { key, .. } | TableChange::Delete { key, .. }) = change;
            names.insert(key.clone());
        }
        for change in state.ips.diff(&before.ips) {
            let (TableChange::Put { key, .. } | TableChange::Delete { key, .. }) = change;
            prefixes.insert(key.trunc());
            // Whether a backend is behind a dead node depends on its ip entry.
            if !new.dead.is_empty() {
                return None;
            }
        }
        if names.len() + prefixes.len() > FEW {
            return None;
        }
    }
    let prefixes = prefixes.iter().map(ipcache::canonical).collect();
    Some((names, prefixes))
}

fn rows_that_differ<K: Ord + Clone, V>(
    old: &Arc<BTreeMap<K, Arc<V>>>,
    new: &Arc<BTreeMap<K, Arc<V>>>,
) -> BTreeSet<K> {
    if Arc::ptr_eq(old, new) {
        return BTreeSet::new();
    }
    // Both are sorted: one walk through both.
    let (mut before, mut after) = (old.iter().peekable(), new.iter().peekable());
    let mut found = BTreeSet::new();
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return found,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let gone = (order != Ordering::Greater).then(|| before.next()).flatten();
        let come = (order != Ordering::Less).then(|| after.next()).flatten();
        let same = matches!((gone, come), (Some((_, a)), Some((_, b))) if Arc::ptr_eq(a, b));
        if !same {
            found.extend(gone.or(come).map(|(key, _)| key.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
