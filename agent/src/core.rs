//! The node's state, and the one way in which it changes: intents → plan, rows → reconciliation → status.
//!
//! Synchronous: whoever holds the lock sees a state in which nothing is half done.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use isthmus_datapath::Datapath;
use isthmus_remote_cluster::Resource;
use isthmus_sources::Snapshot;
use isthmus_topology::{ClusterId, NodeName};
use isthmus_tunnel::{Plan, TunnelInputs, overlay_address};

use crate::adopted::Adopted;
use crate::args::Args;
use crate::intents::Intents;
use crate::kernel::{self, Kernel};
use crate::probe::machine::{Targets, Verdict};
use crate::probe::task::{ProbePlan, Report};
use crate::wanted::{Update, Wanted};

/// How a remote cluster's bit in the data path is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Its nodes are not known yet: it keeps what it had before this process, else nothing goes there.
    Waiting,
    /// None of its nodes has an overlay address: it counts as alive while it is configured.
    Unprobed,
    /// The probes decide; until their first verdict it keeps what it had.
    Probed,
}

/// What is wrong now, by where it was found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Problems {
    pub(crate) network: Vec<String>,
    pub(crate) uplinks: Vec<String>,
    pub(crate) sysctls: Vec<String>,
    pub(crate) maps: Vec<String>,
    pub(crate) masquerade: Vec<String>,
}

/// Writes that are counted here rather than where they happen.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Writes {
    pub(crate) hooks: u64,
    pub(crate) nft: u64,
    pub(crate) sysctls: u64,
    pub(crate) last_change: Duration,
}

/// The node's state.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) args: Arc<Args>,
    pub(crate) kernel: Kernel,
    pub(crate) datapath: Datapath,
    pub(crate) intents: Option<Intents>,
    pub(crate) plan: Option<Plan>,
    pub(crate) wanted: Wanted,
    pub(crate) gates: BTreeMap<ClusterId, Gate>,
    pub(crate) problems: Problems,
    pub(crate) writes: Writes,
    /// The nodes that could be probed under the plan.
    targets: Targets,
    /// Grows with every plan.
    pub(crate) plans: u64,
    device: Option<u32>,
    uplinks: Vec<String>,
}

impl Core {
    pub(crate) fn new(args: Arc<Args>, kernel: Kernel, datapath: Datapath, adopted: Adopted) -> Self {
        let hooks = datapath.attached().iter().filter(|hook| !hook.adopted).count() as u64;
        Self {
            uplinks: args.uplink.clone(),
            args,
            kernel,
            datapath,
            intents: None,
            plan: None,
            wanted: Wanted::keeping(adopted),
            gates: BTreeMap::new(),
            problems: Problems::default(),
            writes: Writes {
                hooks,
                ..Writes::default()
            },
            targets: Targets::new(),
            plans: 0,
            device: None,
        }
    }

    /// Makes the node hold what these intents want.
    pub(crate) fn apply(&mut self, next: Intents, arrived: Instant) {
        let old = self.intents.take();
        let before = (self.datapath.counters().ops_written, self.kernel.writes());
        let same_plan = old.as_ref().is_some_and(|old| !nodes_differ(old, &next));
        if !same_plan {
            self.take_plan(&next);
            self.reconcile_network(next.all_synced());
        }
        self.set_gates(&next);
        self.reconcile_maps(old.as_ref(), &next, same_plan);
        if before != (self.datapath.counters().ops_written, self.kernel.writes()) {
            self.writes.last_change = arrived.elapsed();
        }
        self.intents = Some(next);
    }

    /// Mends what somebody else has changed in the kernel's network.
    pub(crate) fn mend_network(&mut self) {
        let Some(intents) = self.intents.clone() else {
            return;
        };
        // The underlay's MTU or this node's address may be what changed.
        self.take_plan(&intents);
        self.reconcile_network(intents.all_synced());
    }

    fn take_plan(&mut self, intents: &Intents) {
        let known = intents
            .own_node()
            .is_some_and(|node| node.tunnel_endpoint().is_some());
        if !known && self.plan.as_ref().is_some_and(|plan| plan.device.is_some()) {
            // Somebody has lost this node's manifest: its routes and entries stay as they are.
            return;
        }
        let plan = self.replan(intents);
        self.targets = targets(intents, &plan);
        self.plan = Some(plan);
        self.plans += 1;
    }

    fn replan(&mut self, intents: &Intents) -> Plan {
        let nodes = intents.other_nodes();
        let Some(local) = intents.own_node() else {
            return Plan::empty();
        };
        let settings = self
            .kernel
            .settings(self.args.underlay_mtu, local.tunnel_endpoint());
        isthmus_tunnel::plan(&TunnelInputs {
            settings,
            local,
            nodes: &nodes,
        })
    }

    fn reconcile_network(&mut self, complete: bool) {
        let Some(plan) = &self.plan else {
            return;
        };
        if plan.device.is_none() {
            return; // nothing is known of this node: nothing of it is touched
        }
        let outcome = self.kernel.reconcile(plan, complete);
        if outcome.applied > 0 {
            tracing::info!(
                ops = outcome.applied,
                routes = plan.routes.len(),
                "network brought up to date"
            );
        }
        self.problems.network = outcome.problems;
        let v6 = plan.routes.keys().any(|net| net.addr().is_ipv6());
        if outcome.device.is_some() {
            let (written, problems) = kernel::set_sysctls(&self.args.overlay_device, v6);
            self.writes.sysctls += written;
            self.problems.sysctls = problems;
        }
        if outcome.device.is_some() && (outcome.device != self.device || outcome.applied > 0) {
            let attached = self.datapath.attach_overlay(&self.args.overlay_device);
            self.note_hooks(attached);
        }
        self.device = outcome.device;
    }

    /// Attaches again where links came back.
    pub(crate) fn reattach(&mut self) {
        let uplinks = self.present_uplinks();
        let attached = if uplinks == self.uplinks {
            self.datapath.reattach()
        } else {
            self.datapath.set_uplinks(&uplinks)
        };
        self.uplinks = uplinks;
        self.note_hooks(attached);
    }

    fn note_hooks(&mut self, attached: Result<usize, isthmus_datapath::Error>) {
        match attached {
            Ok(count) => self.writes.hooks += count as u64,
            Err(e) => self.problems.network.push(e.to_string()),
        }
    }

    fn present_uplinks(&mut self) -> Vec<String> {
        let (present, problems) = present_uplinks(&self.kernel, &self.args.uplink);
        self.problems.uplinks = problems;
        present
    }

    /// Decides what a cluster's bit is before the probes have spoken.
    fn set_gates(&mut self, next: &Intents) {
        let mut gates = BTreeMap::new();
        for (id, state) in next.clusters() {
            let synced = state.status.synced.has(Resource::Nodes);
            let gate = match (self.targets.contains_key(&id), synced) {
                (true, _) => Gate::Probed,
                (false, true) => Gate::Unprobed,
                (false, false) => Gate::Waiting,
            };
            let before = self.gates.get(&id).copied();
            let new = before.is_none() && !self.wanted.adopted.knew(id.value());
            let bit = match gate {
                _ if before == Some(gate) => None,
                Gate::Unprobed => Some(true),
                Gate::Waiting | Gate::Probed => new.then_some(false),
            };
            if let Some(alive) = bit {
                self.datapath.set_cluster_alive(id.value(), alive);
            }
            gates.insert(id, gate);
        }
        self.gates = gates;
    }

    /// What to probe now.
    pub(crate) fn probe_plan(&self) -> ProbePlan {
        ProbePlan {
            targets: self.targets.clone(),
            full_size: self
                .plan
                .as_ref()
                .and_then(|p| p.device.as_ref())
                .map_or(0, |d| d.mtu as usize),
        }
    }

    fn reconcile_maps(&mut self, old: Option<&Intents>, next: &Intents, same_plan: bool) {
        let empty = Plan::empty();
        let plan = self.plan.as_ref().unwrap_or(&empty);
        // After a failure nobody knows what is there: everything is compared.
        let old = old.filter(|_| self.problems.maps.is_empty());
        let update = self
            .wanted
            .update(old, next, plan, same_plan, self.args.overlay_own_cluster);
        self.problems.maps.clear();
        match update {
            Update::All => {
                let report = self.datapath.sync(&self.wanted.desired);
                self.note_report(report);
            }
            Update::Rows(frontends, prefixes) => {
                // Where a packet goes is known before somebody is sent there.
                for prefix in &prefixes {
                    let report = self
                        .datapath
                        .set_prefix(prefix, self.wanted.desired.ipcache.get(prefix));
                    self.note_report(report);
                }
                for frontend in &frontends {
                    let report = self
                        .datapath
                        .set_service(frontend, self.wanted.desired.services.get(frontend));
                    self.note_report(report);
                }
            }
        }
    }

    fn note_report(&mut self, report: Result<isthmus_datapath::Report, isthmus_datapath::Error>) {
        match report {
            Ok(report) => {
                if report.written > 0 {
                    tracing::debug!(written = report.written, took = ?report.written_in, "maps brought up to date");
                }
                self.problems
                    .maps
                    .extend(report.refused.iter().map(ToString::to_string));
            }
            Err(e) => {
                tracing::error!(error = %e, "maps");
                self.problems.maps.push(e.to_string());
            }
        }
    }

    /// Makes the maps hold what is wanted once more, after a failure.
    pub(crate) fn retry_maps(&mut self) {
        if !self.problems.maps.is_empty() {
            self.problems.maps.clear();
            let report = self.datapath.sync(&self.wanted.desired);
            self.note_report(report);
        }
    }

    /// True if something failed that may succeed later.
    pub(crate) fn wants_retry(&self) -> bool {
        !self.problems.network.is_empty()
            || !self.problems.maps.is_empty()
            || !self.problems.sysctls.is_empty()
    }

    /// What is missing until this node does its job; empty when nothing is.
    pub(crate) fn waiting_for(&self) -> Vec<String> {
        let Some(intents) = &self.intents else {
            return vec!["the first list of this cluster's manifests".to_owned()];
        };
        let mut missing = Vec::new();
        if !intents.local.complete {
            missing.push("the first list of this cluster's manifests".to_owned());
        }
        match intents.own_node() {
            None => missing.push(unknown_node(&intents.local, intents.me.node.as_str())),
            Some(node) if node.tunnel_endpoint().is_none() => missing.push(format!(
                "an InternalIP of node {} in the manifests: tunnels to it have no end without one",
                node.name
            )),
            Some(_) => missing.extend(self.problems.network.iter().cloned()),
        }
        missing.extend(self.problems.maps.iter().cloned());
        missing
    }
}

/// The nodes of each remote cluster that have an overlay address which the plan reaches.
fn targets(intents: &Intents, plan: &Plan) -> Targets {
    let mut targets = Targets::new();
    for (id, state) in intents.clusters() {
        for node in state.nodes.values() {
            let reached = |ip: &std::net::IpAddr| plan.routes.contains_key(&(*ip).into());
            let address = [false, true]
                .into_iter()
                .filter_map(|v6| overlay_address(node, v6))
                .find(reached);
            if let Some(ip) = address {
                targets.entry(id).or_default().insert(node.name.clone(), ip);
            }
        }
    }
    targets
}

fn unknown_node(local: &Snapshot, name: &str) -> String {
    let known: Vec<&str> = local.nodes.keys().map(NodeName::as_str).collect();
    let known = if known.is_empty() {
        "none at all".to_owned()
    } else {
        known.join(", ")
    };
    format!("node {name} in the manifests (they have {known}): add it or correct --node-name")
}

/// The uplinks that exist, and a sentence for each that does not.
pub(crate) fn present_uplinks(kernel: &Kernel, wanted: &[String]) -> (Vec<String>, Vec<String>) {
    let links = match kernel.link_names() {
        Ok(links) => links,
        Err(e) => return (Vec::new(), vec![e.to_string()]),
    };
    let (present, missing): (Vec<String>, Vec<String>) =
        wanted.iter().cloned().partition(|name| links.contains(name));
    let explain = |name: &String| {
        format!(
            "uplink {name} does not exist: LoadBalancer addresses are not served there until it does; create it or correct \
             --uplink"
        )
    };
    (present, missing.iter().map(explain).collect())
}

/// The nodes that do not answer although their cluster does: the death of a whole cluster is one bit and no row.
pub(crate) fn dead_nodes(report: &Report) -> BTreeSet<(ClusterId, NodeName)> {
    let mut dead = BTreeSet::new();
    for (id, (verdict, nodes)) in report {
        if *verdict == Verdict::Alive {
            let silent = nodes.iter().filter(|(_, node)| node.verdict == Verdict::Dead);
            dead.extend(silent.map(|(name, _)| (*id, name.clone())));
        }
    }
    dead
}

/// True if the plan may differ.
fn nodes_differ(old: &Intents, new: &Intents) -> bool {
    let remote = |intents: &Intents| -> Vec<_> {
        let of = |(id, s): (ClusterId, &isthmus_remote_cluster::RemoteClusterState)| {
            (s.name.clone(), id, s.nodes.generation(), s.status.synced)
        };
        intents.clusters().map(of).collect()
    };
    !Arc::ptr_eq(&old.local.nodes, &new.local.nodes)
        || old.all_synced() != new.all_synced()
        || remote(old) != remote(new)
}
