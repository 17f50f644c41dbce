//! Follows the cluster's tables and the configuration file, and tells the engine's task what they want.
use std::sync::Arc;
use std::time::Duration;

use isthmus_sources::{Problem, Snapshot};
use isthmus_topology::NodeName;
use tokio::sync::{mpsc, watch};

use crate::advertise::{RemoteBackends, Tables};
use crate::config::ConfigFile;
use crate::event::Event;
use crate::intent::Intent;

/// How often the configuration file is looked at.
const CONFIG_EVERY: Duration = Duration::from_millis(500);

/// The wish of a snapshot together with what the agent knows.
pub(crate) fn intent(node: &NodeName, snapshot: &Snapshot, remote: &RemoteBackends) -> Intent {
    Intent::derive(Tables {
        node,
        nodes: &snapshot.nodes,
        services: &snapshot.services,
        remote_backends: remote,
    })
}

/// Sends an intent for every change of the snapshot or of the remote backends, until the engine's task ends.
pub(crate) async fn tables(
    node: NodeName,
    mut snapshots: watch::Receiver<Snapshot>,
    mut remote: watch::Receiver<Arc<RemoteBackends>>,
    events: mpsc::Sender<Event>,
) {
    let mut problems: Arc<Vec<Problem>> = Arc::default();
    loop {
        let now = {
            let snapshot = snapshots.borrow_and_update();
            log_problems(&problems, &snapshot.problems);
            problems = Arc::clone(&snapshot.problems);
            intent(&node, &snapshot, &remote.borrow_and_update())
        };
        if events.send(Event::Intent(now)).await.is_err() {
            return;
        }
        tokio::select! {
            Ok(()) = snapshots.changed() => {}
            Ok(()) = remote.changed() => {}
            else => return,
        }
    }
}

fn log_problems(old: &[Problem], new: &[Problem]) {
    for problem in new.iter().filter(|problem| !old.contains(problem)) {
        tracing::warn!(%problem, "manifest refused; its last good version stays");
    }
    for problem in old.iter().filter(|problem| !new.contains(problem)) {
        tracing::info!(file = %problem.file.display(), line = problem.line, "manifest is good again");
    }
}

/// Sends the configuration after every change of its file that can be used. A bad one is reported, and the last good stays.
pub(crate) async fn config(mut file: ConfigFile, events: mpsc::Sender<Event>) {
    let mut ticks = tokio::time::interval(CONFIG_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !events.is_closed() {
        ticks.tick().await;
        match file.changed() {
            None => {}
            Some(Ok(config)) => {
                tracing::info!("the configuration file has changed");
                let _engine_gone = events.send(Event::Config(config)).await;
            }
            Some(Err(error)) => {
                tracing::error!(%error, "the new configuration is refused; the last good one stays");
            }
        }
    }
}
