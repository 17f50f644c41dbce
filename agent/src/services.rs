//! From services to rows of the data path: a pure function.
use std::collections::{BTreeMap, BTreeSet};

use isthmus_bpf_abi::MAX_GROUPS;
use isthmus_datapath::{Backend, Frontend, ServiceRow};
use isthmus_topology::{
    ClusterId, LocalService, MergedBackend, MergedFrontend, MergedService, NodeName, RemoteService, Scope,
    ServiceName, merge_services,
};

use crate::args::ServiceChoice;
use crate::intents::{DeadNodes, Intents};

/// The services of this cluster with what the others add to them.
pub(crate) type Merged = BTreeMap<ServiceName, MergedService>;

/// The backends of each cluster, by its id.
type Groups = BTreeMap<u16, BTreeSet<Backend>>;

/// Merges all services.
pub(crate) fn merge_all(intents: &Intents) -> Merged {
    merge(intents, intents.local.services.values().map(AsRef::as_ref))
}

/// Merges some of the services of this cluster.
pub(crate) fn merge<'a>(intents: &'a Intents, local: impl Iterator<Item = &'a LocalService>) -> Merged {
    let local: BTreeMap<&ServiceName, &LocalService> =
        local.map(|service| (&service.name, service)).collect();
    let mut remote: BTreeMap<ServiceName, BTreeMap<ClusterId, &RemoteService>> = BTreeMap::new();
    for (id, state) in intents.clusters() {
        let mut join = |theirs: &'a RemoteService| {
            if local.get(&theirs.name).is_some_and(|service| service.global) {
                remote.entry(theirs.name.clone()).or_default().insert(id, theirs);
            }
        };
        // Whichever is shorter: a few changed services, or what that cluster shares.
        if local.len() < state.services.len() {
            local
                .keys()
                .filter_map(|name| state.services.get(name))
                .for_each(&mut join);
        } else {
            state.services.values().for_each(&mut join);
        }
    }
    merge_services(
        intents.me.cluster,
        Some(&intents.me.node),
        local.into_values(),
        &remote,
    )
}

/// The rows of one service.
pub(crate) fn rows(
    intents: &Intents,
    dead: &DeadNodes<'_>,
    service: &MergedService,
) -> Vec<(Frontend, ServiceRow)> {
    let mut rows = Vec::new();
    for (frontend, merged) in &service.frontends {
        let row = |groups: &BTreeMap<ClusterId, Vec<MergedBackend>>, only_here: bool| {
            let used = |(cluster, backends): (&ClusterId, &Vec<MergedBackend>)| {
                let keep = |b: &&MergedBackend| {
                    let here = *cluster == intents.me.cluster && b.node.as_ref() == Some(&intents.me.node);
                    (here || !only_here) && !dead.holds(*cluster, b.ip)
                };
                let kept: BTreeSet<_> = backends
                    .iter()
                    .filter(keep)
                    .map(|b| Backend {
                        ip: b.ip,
                        port: b.port,
                    })
                    .collect();
                (!kept.is_empty()).then(|| (cluster.value(), kept))
            };
            ServiceRow {
                affinity: service.affinity,
                groups: nearest(
                    groups.iter().filter_map(used).collect(),
                    intents.me.cluster.value(),
                ),
            }
        };
        let key = |scope| Frontend {
            ip: frontend.ip,
            port: frontend.port,
            scope,
        };
        let inside = service.global || intents.me.services == ServiceChoice::All;
        match merged.scope {
            Scope::Internal if inside => rows.push((key(Scope::Internal), row(&merged.groups, false))),
            Scope::Internal => {}
            // Pods use outside addresses too: as they use the ClusterIP, whatever the policy for packets from outside, and
            // without a packet that has to be masqueraded.
            Scope::External => {
                let like = |(f, m): &(&isthmus_topology::Frontend, &MergedFrontend)| {
                    m.scope == Scope::Internal
                        && f.port == frontend.port
                        && f.ip.is_ipv6() == frontend.ip.is_ipv6()
                };
                let inner = service
                    .frontends
                    .iter()
                    .find(like)
                    .map_or(&merged.groups, |(_, m)| &m.groups);
                rows.push((key(Scope::External), row(&merged.groups, !intents.masquerade)));
                rows.push((key(Scope::Internal), row(inner, false)));
            }
        }
    }
    rows
}

/// As many clusters as an entry of the data path holds: this one, then the lowest ids. Status says when some are left out.
fn nearest(mut groups: Groups, own: u16) -> Groups {
    let spare = groups.len().saturating_sub(MAX_GROUPS);
    let last: Vec<u16> = groups
        .keys()
        .rev()
        .copied()
        .filter(|id| *id != own)
        .take(spare)
        .collect();
    for id in last {
        groups.remove(&id);
    }
    groups
}

/// True if backends of some clusters are left out, because there are too many clusters.
pub(crate) fn is_crowded(service: &MergedService) -> bool {
    service
        .frontends
        .values()
        .any(|frontend| frontend.groups.len() > MAX_GROUPS)
}

/// The frontends that rows of a service may have.
pub(crate) fn keys(service: &MergedService) -> impl Iterator<Item = Frontend> {
    let key = |frontend: &isthmus_topology::Frontend, scope| Frontend {
        ip: frontend.ip,
        port: frontend.port,
        scope,
    };
    service
        .frontends
        .keys()
        .flat_map(move |f| [key(f, Scope::Internal), key(f, Scope::External)])
}

/// Rows with the services that they belong to.
pub(crate) type OwnedRows = BTreeMap<Frontend, (ServiceName, ServiceRow)>;

/// All rows. Two services with one address and port: the first by name keeps it, the others are named.
pub(crate) fn all_rows(intents: &Intents, merged: &Merged) -> (OwnedRows, Vec<String>) {
    let dead = intents.dead_nodes();
    let (mut all, mut problems) = (OwnedRows::new(), Vec::new());
    for service in merged.values() {
        for (frontend, row) in rows(intents, &dead, service) {
            match all.get(&frontend) {
                Some((owner, _)) => problems.push(format!(
                    "service {} wants {frontend}, which {owner} has already: it is not served there; give it an address of \
                     its own",
                    service.name
                )),
                None => drop(all.insert(frontend, (service.name.clone(), row))),
            }
        }
    }
    (all, problems)
}

/// What a new connection can use now, for status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    /// The clusters that may be chosen.
    pub(crate) eligible: BTreeSet<u16>,
    /// Why these.
    pub(crate) reason: String,
}

/// The same rule as the kernel's (bpf/abi, choose): among live clusters with backends the affinity decides, and where it leaves
/// none, all of them are used.
pub(crate) fn choice(own: u16, row: &ServiceRow, alive: impl Fn(u16) -> bool) -> Choice {
    use isthmus_topology::ServiceAffinity as A;
    let usable: BTreeSet<u16> = row
        .groups
        .keys()
        .copied()
        .filter(|id| *id == own || alive(*id))
        .collect();
    let preferred: BTreeSet<u16> = match row.affinity {
        A::None => usable.clone(),
        A::Local => usable.iter().copied().filter(|id| *id == own).collect(),
        A::Remote => usable.iter().copied().filter(|id| *id != own).collect(),
    };
    let reason = match (row.affinity, usable.is_empty(), preferred.is_empty()) {
        (_, true, _) => "no cluster with backends is reachable: connections are refused",
        (A::None, ..) => "all reachable clusters alike",
        (A::Local, _, false) => "affinity local: this cluster",
        (A::Local, _, true) => "affinity local, but this cluster has no backend: the others",
        (A::Remote, _, false) => "affinity remote: the other clusters",
        (A::Remote, _, true) => "affinity remote, but no other cluster can be used: this one",
    };
    Choice {
        eligible: if preferred.is_empty() { usable } else { preferred },
        reason: reason.to_owned(),
    }
}

/// The node of a backend, for status.
pub(crate) fn backend_node(
    dead: &DeadNodes<'_>,
    cluster: ClusterId,
    backend: &MergedBackend,
) -> Option<NodeName> {
    backend
        .node
        .clone()
        .or_else(|| dead.node_of(cluster, backend.ip).cloned())
}
