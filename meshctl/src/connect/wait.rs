//! Waiting for both sides: every agent has the other cluster's state, and its probe packets have crossed.
use std::time::{Duration, Instant};

use isthmus_admin::agent::{AgentStatus, ClusterView};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::lab::admin;
use crate::progress::{Mark, Progress};

/// Waits until the agents of both clusters are ready for each other and probes have crossed in both directions.
pub(super) fn both_ready(pair: &[Context; 2], timeout: Duration, progress: &Progress) -> Outcome {
    let start = Instant::now();
    let deadline = start + timeout;
    let [a, b] = pair;
    for (own, peer) in [(a, b), (b, a)] {
        for node in &own.cluster.nodes {
            let look = || control(own, node, peer);
            progress
                .wait("peers", deadline, look)
                .map_err(|why| late(own, peer, &why))?;
        }
    }
    let count = |c: &Context| c.cluster.nodes.len();
    let text = format!(
        "{0}→{1} {2}/{2} agents   {1}→{0} {3}/{3} agents",
        a.name(),
        b.name(),
        count(a),
        count(b)
    );
    progress.step(Mark::Good, "peers", text, Some(start.elapsed()));

    let start = Instant::now();
    let mut rtts = Vec::new();
    let mut full = true;
    for (own, peer) in [(a, b), (b, a)] {
        for node in &own.cluster.nodes {
            let look = || data(own, node, peer);
            let (view, _) = progress
                .wait("probe", deadline, look)
                .map_err(|why| late(own, peer, &why))?;
            rtts.extend(view.data.probes.iter().filter_map(|p| p.rtt_us));
            full &= view.data.probes.iter().all(|p| p.full_mtu != Some(false));
        }
    }
    let rtt = match rtts.iter().max() {
        Some(worst) => format!("{} probes, RTT up to {:.1} ms", rtts.len(), *worst as f64 / 1e3),
        None => "answered".into(),
    };
    let mtu = if full {
        "full-MTU packets pass"
    } else {
        "full-MTU packets do NOT pass"
    };
    let mark = if full { Mark::Good } else { Mark::Note };
    progress.step(
        mark,
        "probe",
        format!("node↔node {rtt}, {mtu}"),
        Some(start.elapsed()),
    );
    Ok(())
}

/// Waits until no agent of the two clusters has the other one any more.
pub(super) fn both_gone(pair: &[Context; 2], timeout: Duration, progress: &Progress) -> Outcome {
    let deadline = Instant::now() + timeout;
    let [a, b] = pair;
    for (own, peer) in [(a, b), (b, a)] {
        for node in &own.cluster.nodes {
            // An agent that is not there has nobody.
            let look = || match view(own, node, peer) {
                Ok(Some(_)) => Err(format!("the agent of {node} to drain {}", peer.name())),
                _ => Ok(()),
            };
            progress
                .wait("drain", deadline, look)
                .map_err(|why| late(own, peer, &why))?;
        }
    }
    Ok(())
}

fn view(own: &Context, node: &str, peer: &Context) -> Result<Option<ClusterView>, String> {
    let status: AgentStatus = admin::read(&own.agent_socket(node), "/v1/status")?;
    Ok(status.clusters.into_iter().find(|c| c.name == peer.name()))
}

fn control(own: &Context, node: &str, peer: &Context) -> Result<(), String> {
    let unread = || format!("the agent of {node} to read the configuration of {}", peer.name());
    let view = view(own, node, peer)?.ok_or_else(unread)?;
    match view.control.ready {
        true => Ok(()),
        false => Err(format!(
            "the agent of {node} to have {}: {}",
            peer.name(),
            view.control.status
        )),
    }
}

fn data(own: &Context, node: &str, peer: &Context) -> Result<ClusterView, String> {
    let view = view(own, node, peer)?.ok_or_else(|| format!("the agent of {node} lost {}", peer.name()))?;
    let alive = view.data.probes.iter().filter(|p| p.state == "alive").count();
    let all = view.data.probes.len();
    match view.data.state == "alive" && alive == all && all > 0 {
        true => Ok(view),
        false => Err(format!(
            "probes from {node} to {} ({alive} of {all} answered)",
            peer.name()
        )),
    }
}

fn late(own: &Context, peer: &Context, why: &str) -> Failure {
    Failure::new(
        Exit::Timeout,
        format!("{} and {} are not joined in time", own.name(), peer.name()),
    )
    .because(format!("waited in vain for {why}"))
    .next("meshctl status -o wide; the configuration stays, so they may still join")
}
