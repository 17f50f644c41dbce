//! What the steps of the demo share: looking at the lab and setting it.
use std::net::IpAddr;
use std::time::Duration;

use isthmus_admin::agent::{AgentStatus, ServiceView};
use isthmus_admin::bgp::PeerView;

use super::measure::lost;
use super::script::wait_for;
use crate::failure::Outcome;
use crate::lab::fault::{self, Target};
use crate::lab::manifest::{self, Affinity};
use crate::lab::plan::{ECHO, VIP};
use crate::lab::{Lab, admin, status};
use crate::progress::Progress;
use crate::traffic::Record;

/// Both clusters, in the order in which they are listed.
pub(super) const BOTH: [&str; 2] = ["east", "west"];

/// Mends whatever may be broken, and sets the service as it was.
pub(super) fn heal_everything(lab: &Lab, progress: &Progress) -> Outcome {
    for cluster in &lab.plan.clusters {
        let name = cluster.name.clone();
        fault::heal_part(lab, &Target::Cluster(name.clone()), progress)?;
        fault::heal_part(lab, &Target::Apiserver(name.clone()), progress)?;
        for node in &cluster.nodes {
            fault::heal_part(lab, &Target::Link(node.name.clone()), progress)?;
            fault::heal_part(lab, &Target::Agent(node.name.clone()), progress)?;
            fault::heal_part(lab, &Target::Speaker(node.name.clone()), progress)?;
        }
        fault::heal_part(lab, &pods_of(&name), progress)?;
        set_affinity(lab, &name, Affinity::None)?;
    }
    Ok(())
}

/// Every session is up, and the router spreads the address over all nodes.
pub(super) fn all_sessions(lab: &Lab) -> Result<(), String> {
    let wanted = lab.plan.nodes().count();
    match established(lab) {
        up if up == wanted => ways(lab, wanted),
        up => Err(format!("{wanted} BGP sessions (now {up})")),
    }
}

/// How many nodes have all their BGP sessions up.
pub(super) fn established(lab: &Lab) -> usize {
    let up = |cluster: &str, node: &str| {
        let socket = lab.cluster_dir(cluster).join(format!("run/{node}.bgp.sock"));
        let peers: Result<Vec<PeerView>, String> = admin::read(&socket, "/v1/peers");
        peers.is_ok_and(|peers| !peers.is_empty() && peers.iter().all(PeerView::established))
    };
    lab.plan.nodes().filter(|(c, n)| up(&c.name, &n.name)).count()
}

/// The router has so many ways to the address of the service.
pub(super) fn ways(lab: &Lab, wanted: usize) -> Result<(), String> {
    match status::vip_next_hops(&lab.plan)?.len() {
        ways if ways == wanted => Ok(()),
        ways => Err(format!(
            "the router to have {wanted} ways to {VIP} (it has {ways})"
        )),
    }
}

/// Waits until so many requests that were sent after a moment have been answered or lost.
pub(super) fn more_after(records: &[Record], moment_us: u64, wanted: usize) -> Result<(), String> {
    match records.iter().filter(|r| r.sent_us > moment_us).count() {
        seen if seen >= wanted => Ok(()),
        _ => Err(format!("{wanted} more requests")),
    }
}

/// Waits until every agent of some clusters sends new connections of `echo` to just these.
pub(super) fn wait_for_choice(
    lab: &Lab,
    progress: &Progress,
    whose: &[&str],
    clusters: &[&str],
) -> Outcome<((), Duration)> {
    wait_for(progress, "agents", 10, || {
        for (cluster, node) in lab.plan.nodes().filter(|(c, _)| whose.contains(&c.name.as_str())) {
            let eligible = eligible(lab, &cluster.name, &node.name)?;
            if !eligible.iter().map(String::as_str).eq(clusters.iter().copied()) {
                let (wanted, now) = (clusters.join(", "), eligible.join(", "));
                return Err(format!("{} to choose {wanted} (now {now})", node.name));
            }
        }
        Ok(())
    })
}

/// The clusters that an agent sends new connections of `echo` to.
fn eligible(lab: &Lab, cluster: &str, node: &str) -> Result<Vec<String>, String> {
    let socket = lab.cluster_dir(cluster).join(format!("run/{node}.agent.sock"));
    let services: Vec<ServiceView> = admin::read(&socket, "/v1/services")?;
    let echo = services
        .into_iter()
        .find(|s| s.name.ends_with(&format!("/{ECHO}")));
    let echo = echo.ok_or_else(|| format!("the agent of {node} to know {ECHO}"))?;
    // With affinity local both clusters have live backends, but only the local ones are chosen.
    let local = matches!(echo.affinity, isthmus_topology::ServiceAffinity::Local);
    let groups = echo
        .frontends
        .first()
        .map(|f| f.groups.clone())
        .unwrap_or_default();
    let mut names: Vec<String> = groups
        .iter()
        .filter(|g| g.eligible && !g.backends.is_empty())
        .map(|g| g.cluster.clone())
        .collect();
    if local && names.iter().any(|n| n == cluster) {
        names.retain(|n| n == cluster);
    }
    names.sort();
    Ok(names)
}

/// What the agent of a node says of itself.
pub(super) fn agent_status(lab: &Lab, cluster: &str, node: &str) -> Result<AgentStatus, String> {
    let socket = lab.cluster_dir(cluster).join(format!("run/{node}.agent.sock"));
    admin::read(&socket, "/v1/status")
}

/// Changes the annotation of `echo` in a cluster.
pub(super) fn set_affinity(lab: &Lab, cluster: &str, affinity: Affinity) -> Outcome {
    let plan = lab.plan.cluster(cluster)?;
    manifest::write_service(&lab.cluster_dir(cluster).join("manifests"), plan, affinity)
}

/// The ClusterIP of `echo` in east.
pub(super) fn echo_ip(lab: &Lab) -> Outcome<IpAddr> {
    Ok(lab.plan.cluster("east")?.echo_ips[0])
}

/// All echo pods of a cluster.
pub(super) fn pods_of(cluster: &str) -> Target {
    Target::Pods {
        cluster: cluster.into(),
        app: ECHO.into(),
    }
}

/// The number of lost requests, with the first reason.
pub(super) fn tell_lost(records: &[Record]) -> String {
    let why = records.iter().find_map(|r| r.answer.as_ref().err());
    match why {
        None => "0".into(),
        Some(why) => format!("{} ({why})", lost(records)),
    }
}
