//! The admin API's answers, made from the state.
use std::collections::BTreeMap;
use std::net::IpAddr;

use axum::Json;
use axum::Router;
use axum::routing::get;
use isthmus_admin::Readiness;
use isthmus_admin::agent::{
    AgentStatus, BackendView, ClusterView, ControlView, DataView, FeatureView, FrontendView, GroupView,
    NodeView, ProbeView, RouteView, ServiceView, TunnelView, WritesView,
};
use isthmus_bpf_abi::MAX_GROUPS;
use isthmus_datapath::{Backend, Frontend};
use isthmus_remote_cluster::RemoteClusterState;
use isthmus_telemetry::Metrics;
use isthmus_topology::{ClusterId, MergedService, Node};
use isthmus_tunnel::Plan;

use crate::core::{Core, Gate};
use crate::daemon::Shared;
use crate::intents::{DeadNodes, Intents};
use crate::probe::machine::{NodeReport, Verdict};
use crate::probe::task::Report;
use crate::services;

/// `/healthz`, `/readyz`, `/metrics`.
pub(crate) fn common_routes(shared: &Shared, metrics: Metrics) -> Router {
    let shared = shared.clone();
    isthmus_admin::common_routes(metrics, move || match shared.core().waiting_for() {
        missing if missing.is_empty() => Readiness::Ready,
        missing => Readiness::Waiting(missing.join("; ")),
    })
}

/// The agent's own views.
pub(crate) fn routes(shared: &Shared) -> Router {
    let started = std::time::SystemTime::now();
    let [a, b, c, d] = std::array::from_fn(|_| shared.clone());
    Router::new()
        .route(
            "/v1/status",
            get(move || async move { Json(status(&a.core(), &a.probes.report(), started)) }),
        )
        .route(
            "/v1/services",
            get(move || async move { Json(service_list(&b.core())) }),
        )
        .route(
            "/v1/nodes",
            get(move || async move { Json(node_list(&c.core(), &c.probes.report())) }),
        )
        .route(
            "/v1/tunnels",
            get(move || async move { Json(tunnels(&d.core())) }),
        )
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Unknown => "unknown",
        Verdict::Alive => "alive",
        Verdict::Dead => "dead",
    }
}

fn micros(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn status(core: &Core, report: &Report, started: std::time::SystemTime) -> AgentStatus {
    let waiting_for = core.waiting_for();
    let clusters = core
        .intents
        .iter()
        .flat_map(|intents| intents.remote.clusters.values());
    AgentStatus {
        cluster: core.args.cluster_name.to_string(),
        cluster_id: u16::try_from(core.args.cluster_id).unwrap_or_default(),
        node: core.args.node_name.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: jiff::Timestamp::try_from(started)
            .map(|t| t.to_string())
            .unwrap_or_default(),
        ready: waiting_for.is_empty(),
        waiting_for,
        clusters: clusters.map(|state| cluster_view(core, report, state)).collect(),
        features: features(core),
        problems: problems(core, report),
        writes: writes(core),
    }
}

/// What this process has written.
pub(crate) fn writes(core: &Core) -> WritesView {
    WritesView {
        map_entries: core.datapath.counters().ops_written,
        network: core.kernel.writes(),
        hooks: core.writes.hooks,
        nft: core.writes.nft,
        sysctls: core.writes.sysctls,
        last_change_us: micros(core.writes.last_change),
    }
}

fn cluster_view(core: &Core, report: &Report, state: &RemoteClusterState) -> ClusterView {
    let id = state.config.as_ref().map(|config| config.id);
    let eligible = id.is_some_and(|id| core.datapath.alive().is_alive(id.value()));
    let s = &state.status;
    ClusterView {
        name: state.name.to_string(),
        id: id.map_or(0, ClusterId::value),
        eligible,
        reason: reason(core, report, id, eligible),
        control: ControlView {
            ready: s.ready,
            connected: s.connected,
            status: s.status.clone(),
            endpoint: s.endpoint.clone(),
            failures: s.num_failures,
            rejected: s.num_rejected,
            nodes: s.num_nodes,
            services: s.num_shared_services,
            endpoints: s.num_endpoints,
            identities: s.num_identities,
        },
        data: data_view(core, report, id),
    }
}

fn reason(core: &Core, report: &Report, id: Option<ClusterId>, eligible: bool) -> String {
    let Some(id) = id else {
        return "its cluster-config has not been read yet".to_owned();
    };
    let cluster = report.get(&id).map(|(verdict, _)| *verdict);
    let text = match (core.gates.get(&id), cluster) {
        (None | Some(Gate::Waiting), _) if eligible => {
            "it was reachable before this agent started; its nodes are not known yet"
        }
        (None | Some(Gate::Waiting), _) => "its nodes are not known yet",
        (Some(Gate::Unprobed), _) => {
            "none of its nodes has an overlay address to probe: it counts as alive while configured"
        }
        (Some(Gate::Probed), Some(Verdict::Alive)) => "its nodes answer probes",
        (Some(Gate::Probed), Some(Verdict::Dead)) => "none of its probed nodes answers",
        (Some(Gate::Probed), _) if eligible => {
            "it was reachable before this agent started; no probe has been answered yet"
        }
        (Some(Gate::Probed), _) => "no probe has been answered yet",
    };
    text.to_owned()
}

fn data_view(core: &Core, report: &Report, id: Option<ClusterId>) -> DataView {
    let probed = id.and_then(|id| report.get(&id));
    let state = match (id.and_then(|id| core.gates.get(&id)), probed) {
        (Some(Gate::Unprobed), _) => "notProbed",
        (_, Some((cluster, _))) => verdict(*cluster),
        _ => "unknown",
    };
    let probe = |(name, node): (&isthmus_topology::NodeName, &NodeReport)| ProbeView {
        node: name.to_string(),
        ip: node.ip,
        state: verdict(node.verdict).to_owned(),
        rtt_us: node.rtt.map(micros),
        full_mtu: node.full_mtu,
        sent: node.sent,
        answered: node.answered,
    };
    DataView {
        state: state.to_owned(),
        probes: probed
            .into_iter()
            .flat_map(|(_, nodes)| nodes.iter().map(probe))
            .collect(),
    }
}

fn features(core: &Core) -> Vec<FeatureView> {
    let feature = |name: &str, ok: bool, detail: String| FeatureView {
        name: name.to_owned(),
        ok,
        detail,
    };
    let attached = core.datapath.attached();
    let on = |prefix: &str| {
        attached
            .iter()
            .filter(|hook| hook.program.starts_with(prefix))
            .collect::<Vec<_>>()
    };
    let by = |hooks: &[&isthmus_datapath::Attached]| {
        hooks.first().map_or("not attached", |hook| hook.by).to_owned()
    };
    let overlay = on("overlay");
    let edge = on("edge");
    let sockets = attached.len() - overlay.len() - edge.len();
    let socket = match &core.args.cgroup {
        Some(cgroup) => format!("{sockets} hooks on {}", cgroup.display()),
        None => "off: no --cgroup was given".to_owned(),
    };
    let edge_detail = match core.args.uplink.as_slice() {
        [] => "off: no --uplink was given".to_owned(),
        links => format!("{} on {}", by(&edge), links.join(", ")),
    };
    let masquerade = match core.problems.masquerade.first() {
        _ if core.args.uplink.is_empty() => "off: no --uplink was given".to_owned(),
        None => "nftables".to_owned(),
        Some(problem) => problem.clone(),
    };
    let device = core.plan.as_ref().and_then(|plan| plan.device.as_ref());
    let vxlan = device.map_or_else(
        || "no device planned yet".to_owned(),
        |d| format!("VXLAN device {} by {}", d.name, by(&overlay)),
    );
    vec![
        feature("socket load balancing", sockets > 0, socket),
        feature("overlay", !overlay.is_empty(), vxlan),
        feature(
            "load balancing of packets from outside",
            !edge.is_empty(),
            edge_detail,
        ),
        feature(
            "masquerade",
            !core.args.uplink.is_empty() && core.problems.masquerade.is_empty(),
            masquerade,
        ),
    ]
}

fn problems(core: &Core, report: &Report) -> Vec<String> {
    let p = &core.problems;
    let mut all: Vec<String> = [
        &p.network,
        &p.uplinks,
        &p.sysctls,
        &core.wanted.problems,
        &p.maps,
        &p.masquerade,
    ]
    .into_iter()
    .flatten()
    .cloned()
    .collect();
    all.extend(
        core.plan
            .iter()
            .flat_map(|plan| plan.refused.iter().map(ToString::to_string)),
    );
    if core.wanted.foreign_ips > 0 {
        all.push(format!(
            "{} ip entries of remote clusters lie in another cluster's pod CIDR and are not used: give every node of the mesh \
             its own pod CIDR",
            core.wanted.foreign_ips
        ));
    }
    let crowded = core
        .wanted
        .merged
        .values()
        .filter(|service| services::is_crowded(service));
    if let Some(first) = crowded.clone().next() {
        all.push(format!(
            "{} services (first {}) have backends in more than {MAX_GROUPS} clusters: this node uses its own and those with the \
             lowest ids; export them from fewer clusters",
            crowded.count(),
            first.name
        ));
    }
    let Some(intents) = &core.intents else {
        return all;
    };
    all.extend(intents.local.problems.iter().map(ToString::to_string));
    all.extend(
        intents
            .remote
            .problems
            .iter()
            .map(|p| format!("{}: {}", p.file.display(), p.reason)),
    );
    for state in intents
        .remote
        .clusters
        .values()
        .filter(|state| !state.status.ready)
    {
        all.push(format!("cluster {}: {}", state.name, state.status.status));
    }
    for (id, (_, nodes)) in report {
        let cluster = intents
            .clusters()
            .find(|(other, _)| other == id)
            .map(|(_, state)| state.name.to_string());
        let Some(cluster) = cluster else {
            continue;
        };
        for (name, node) in nodes {
            if node.verdict == Verdict::Dead {
                all.push(format!(
                    "node {cluster}/{name} ({}) does not answer probes through the overlay",
                    node.ip
                ));
            } else if node.full_mtu == Some(false) {
                all.push(format!(
                    "packets that fill the overlay's MTU do not reach {cluster}/{name}: the network between the nodes carries \
                     less than this node's uplink; lower --underlay-mtu"
                ));
            }
        }
    }
    all
}

fn cluster_name(core: &Core, intents: &Intents, id: ClusterId) -> String {
    if id == intents.me.cluster {
        return core.args.cluster_name.to_string();
    }
    let found = intents.clusters().find(|(other, _)| *other == id);
    found.map_or_else(|| format!("cluster {id}"), |(_, state)| state.name.to_string())
}

fn service_list(core: &Core) -> Vec<ServiceView> {
    let Some(intents) = &core.intents else {
        return Vec::new();
    };
    let dead = intents.dead_nodes();
    core.wanted
        .merged
        .values()
        .map(|service| service_view(core, intents, &dead, service))
        .collect()
}

fn service_view(
    core: &Core,
    intents: &Intents,
    dead: &DeadNodes<'_>,
    service: &MergedService,
) -> ServiceView {
    let frontend = |(frontend, merged): (&isthmus_topology::Frontend, &isthmus_topology::MergedFrontend)| {
        let key = Frontend {
            ip: frontend.ip,
            port: frontend.port,
            scope: merged.scope,
        };
        let row = core.wanted.desired.services.get(&key);
        let alive = core.datapath.alive();
        let own = intents.me.cluster.value();
        let choice = row.map(|row| services::choice(own, row, |id| alive.is_alive(id)));
        let group = |(id, backends): (&ClusterId, &Vec<isthmus_topology::MergedBackend>)| {
            let used = row.and_then(|row| row.groups.get(&id.value()));
            let eligible = choice
                .as_ref()
                .is_some_and(|choice| choice.eligible.contains(&id.value()));
            let why = match (
                eligible,
                used,
                *id == intents.me.cluster || alive.is_alive(id.value()),
            ) {
                (true, ..) => "",
                (_, _, false) => "the cluster is not reachable",
                (_, None, _) => "its nodes do not answer, or are on no node that may be used",
                _ => "the affinity prefers others",
            };
            GroupView {
                cluster: cluster_name(core, intents, *id),
                cluster_id: id.value(),
                eligible,
                reason: why.to_owned(),
                backends: backends
                    .iter()
                    .map(|b| BackendView {
                        ip: b.ip,
                        port: b.port,
                        node: services::backend_node(dead, *id, b).map(|name| name.to_string()),
                        used: used.is_some_and(|used| {
                            used.contains(&Backend {
                                ip: b.ip,
                                port: b.port,
                            })
                        }),
                    })
                    .collect(),
            }
        };
        FrontendView {
            ip: frontend.ip,
            port: frontend.port.port,
            protocol: frontend.port.protocol.to_string(),
            scope: merged.scope,
            port_name: merged.port_name.clone(),
            programmed: row.is_some(),
            choice: choice.as_ref().map_or_else(
                || "left to the cluster's own load balancer".to_owned(),
                |c| c.reason.clone(),
            ),
            groups: merged.groups.iter().map(group).collect(),
        }
    };
    ServiceView {
        name: service.name.to_string(),
        global: service.global,
        affinity: service.affinity,
        frontends: service.frontends.iter().map(frontend).collect(),
    }
}

fn node_list(core: &Core, report: &Report) -> Vec<NodeView> {
    let Some(intents) = &core.intents else {
        return Vec::new();
    };
    let own = intents.local.nodes.values().map(AsRef::as_ref);
    let theirs = intents.clusters().flat_map(|(_, state)| state.nodes.values());
    own.chain(theirs)
        .map(|node| node_view(core, intents, report, node))
        .collect()
}

fn node_view(core: &Core, intents: &Intents, report: &Report, node: &Node) -> NodeView {
    let probe = report
        .get(&node.cluster_id)
        .and_then(|(_, nodes)| nodes.get(&node.name));
    let refused = core.plan.iter().flat_map(|plan| &plan.refused);
    let of_node = refused.filter(|r| r.cluster_id == node.cluster_id && r.node == node.name);
    NodeView {
        cluster: node.cluster.to_string(),
        cluster_id: node.cluster_id.value(),
        name: node.name.to_string(),
        this: node.cluster_id == intents.me.cluster && node.name == intents.me.node,
        endpoint: node.tunnel_endpoint(),
        overlay: [false, true]
            .into_iter()
            .filter_map(|v6| isthmus_tunnel::overlay_address(node, v6))
            .collect(),
        pod_cidrs: node.pod_cidrs.clone(),
        state: probe.map_or_else(String::new, |probe| verdict(probe.verdict).to_owned()),
        rtt_us: probe.and_then(|probe| probe.rtt).map(micros),
        refused: of_node.map(ToString::to_string).collect(),
    }
}

fn tunnels(core: &Core) -> TunnelView {
    let empty = Plan::empty();
    let plan = core.plan.as_ref().unwrap_or(&empty);
    let device = plan.device.as_ref();
    let nodes = core
        .intents
        .as_ref()
        .map(Intents::other_nodes)
        .unwrap_or_default();
    let by_endpoint: BTreeMap<IpAddr, &Node> = nodes
        .iter()
        .filter_map(|node| Some((node.tunnel_endpoint()?, *node)))
        .collect();
    let route = |(net, route): (&ipnet::IpNet, &isthmus_tunnel::Route)| {
        let endpoint = plan.ipcache.get(net).and_then(|entry| entry.endpoint);
        let node = endpoint.and_then(|ip| by_endpoint.get(&ip));
        RouteView {
            destination: *net,
            via: route.via,
            source: route.source,
            node: node.map_or_else(String::new, |node| format!("{}/{}", node.cluster, node.name)),
            endpoint,
        }
    };
    TunnelView {
        mode: "vxlan".to_owned(),
        device: core.args.overlay_device.clone(),
        port: core.args.overlay_port,
        mtu: device.map_or(0, |d| d.mtu),
        addresses: device.iter().flat_map(|d| d.addresses.iter().copied()).collect(),
        table: core.args.route_table,
        routes: plan.routes.iter().map(route).collect(),
        ipcache_entries: core.wanted.desired.ipcache.len(),
        refused: plan.refused.iter().map(ToString::to_string).collect(),
    }
}
