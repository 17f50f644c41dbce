//! Puts the parts together: sources, admin API, engine.
//!
//! ```text
//!   manifests --Source--> follow::tables --\
//!   agent ------------> remote::follow ----+--Event--> Shell { engine } <--> peers
//!   configuration ----> follow::config ----/              ^
//!   meshctl, Prometheus ------------------ admin ---------/
//! ```
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use isthmus_admin::{AdminServer, Readiness, common_routes, serve_tcp};
use isthmus_bgp_engine::{Restarting, SpeakerConfig};
use isthmus_sources::{Settings, Snapshot, Source};
use isthmus_telemetry::Metrics;
use isthmus_topology::{ClusterId, MaxClusters};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::advertise::RemoteBackends;
use crate::args::Args;
use crate::config::{Config, ConfigFile};
use crate::event::Event;
use crate::intent::Intent;
use crate::metrics::SpeakerMetrics;
use crate::shell::{Events, Shell};
use crate::{admin, follow, remote};

/// How long the first table waits for the agent. Longer would keep this node's own routes back for an agent that is down.
const AGENT_PATIENCE: Duration = Duration::from_secs(1);

/// Runs the daemon until it is terminated.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let (file, config) = ConfigFile::open(&args.config)?;
    let metrics = Metrics::new();
    let speaker_metrics = SpeakerMetrics::new(&metrics);
    let mut events = Events::new();
    let waiting = Readiness::Waiting("the first list of the manifests".to_owned());
    let (readiness, ready) = watch::channel(waiting);
    let common = common_routes(metrics, move || ready.borrow().clone());
    let api = common.clone().merge(admin::router(events.sender.clone()));
    let _admin = AdminServer::start(&args.admin_socket, api).await?;
    if let Some(address) = args.metrics {
        serve_tcp(address, common).await?;
    }
    let ended = termination()?;
    tokio::pin!(ended);

    let manifests = std::path::absolute(&args.manifests).context("--manifests")?;
    let source = tokio::select! {
        source = Source::directory(&manifests, settings(&args)?) => source?,
        () = &mut ended => return Ok(()),
        () = decline(&mut events.receiver) => return Ok(()),
    };
    let remote = remote::follow(args.agent_socket.clone(), args.cluster_name.clone());
    let starting = start_values(&args, &config, source.subscribe(), remote.clone(), &readiness);
    let (intent, router_id) = tokio::select! {
        values = starting => values,
        () = &mut ended => return Ok(()),
        () = decline(&mut events.receiver) => return Ok(()),
    };
    tokio::spawn(follow::tables(
        args.node_name.clone(),
        source.subscribe(),
        remote,
        events.sender.clone(),
    ));
    tokio::spawn(follow::config(file, events.sender.clone()));

    let engine = speaker_config(&config, router_id);
    let node = args.node_name.to_string();
    let shell = Shell::start(node, engine, config, intent, events, speaker_metrics)
        .context("bgp-speaker cannot start")?;
    readiness.send_replace(Readiness::Ready);
    shell.run(ended, args.shutdown_withdraw).await;
    Ok(())
}

fn settings(args: &Args) -> anyhow::Result<Settings> {
    let max = if args.cluster_id > MaxClusters::C255.max_id() {
        MaxClusters::C511
    } else {
        MaxClusters::C255
    };
    Ok(Settings {
        cluster: args.cluster_name.clone(),
        id: ClusterId::new(args.cluster_id, max).context("--cluster-id")?,
        max,
        default_global_namespace: true,
        state_dir: None,
    })
}

fn speaker_config(config: &Config, router_id: Ipv4Addr) -> SpeakerConfig {
    SpeakerConfig {
        asn: config.local_asn,
        router_id,
        // The datapath outlives this process, so every start is a restart with forwarding state preserved. Our routes are our
        // own and wait for nobody's End-of-RIB.
        restarting: Some(Restarting {
            deferral: Duration::ZERO,
        }),
    }
}

/// Waits until the tables are complete, the agent has answered or is late, and there is a router id.
async fn start_values(
    args: &Args,
    config: &Config,
    mut snapshots: watch::Receiver<Snapshot>,
    mut remote: watch::Receiver<Arc<RemoteBackends>>,
    readiness: &watch::Sender<Readiness>,
) -> (Intent, Ipv4Addr) {
    if args.agent_socket.is_some() {
        let answered = tokio::time::timeout(AGENT_PATIENCE, remote.changed()).await;
        if answered.is_err() {
            tracing::warn!("the agent does not answer: remote backends do not count until it does");
        }
    }
    let mut told = false;
    loop {
        let (complete, intent) = {
            let snapshot = snapshots.borrow_and_update();
            let intent = follow::intent(&args.node_name, &snapshot, &remote.borrow());
            (snapshot.complete, intent)
        };
        if let (true, Some(router_id)) = (complete, config.router_id.or(intent.node_address)) {
            if !intent.node_known {
                tracing::warn!(node = %args.node_name, "the manifests have no such node: no pod CIDR is advertised");
            }
            return (intent, router_id);
        }
        if complete && !told {
            told = true;
            let node = &args.node_name;
            let what = format!(
                "an IPv4 InternalIP of node {node} in the manifests, or routerID in the configuration"
            );
            tracing::warn!(what, "waiting");
            readiness.send_replace(Readiness::Waiting(what));
        }
        if snapshots.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Drops every question to an engine that does not run yet, which tells the asker so.
async fn decline(events: &mut mpsc::Receiver<Event>) {
    while let Some(event) = events.recv().await {
        drop(event);
    }
}

/// Completes with the first SIGTERM or SIGINT.
fn termination() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
