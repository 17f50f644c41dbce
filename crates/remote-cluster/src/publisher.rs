//! What all remote clusters of a node share: the published snapshot, and who holds which cluster id.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use isthmus_topology::{ClusterId, ClusterName};
use tokio::sync::watch;

use crate::{ConfigProblem, RemoteClusterState, RemoteSnapshot};

/// The snapshot and the ids.
#[derive(Debug)]
pub(crate) struct Publisher {
    snapshots: watch::Sender<Arc<RemoteSnapshot>>,
    ids: Mutex<BTreeMap<ClusterName, ClusterId>>,
}

impl Publisher {
    pub(crate) fn new() -> Self {
        Self {
            snapshots: watch::Sender::new(Arc::default()),
            ids: Mutex::default(),
        }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<RemoteSnapshot>> {
        self.snapshots.subscribe()
    }

    pub(crate) fn snapshot(&self) -> Arc<RemoteSnapshot> {
        self.snapshots.borrow().clone()
    }

    fn publish(&self, change: impl FnOnce(&mut RemoteSnapshot)) {
        self.snapshots.send_modify(|snapshot| {
            let snapshot = Arc::make_mut(snapshot);
            change(snapshot);
            snapshot.generation += 1;
        });
    }

    /// Publishes the new state of one cluster.
    pub(crate) fn cluster(&self, state: RemoteClusterState) {
        let state = Arc::new(state);
        self.publish(|snapshot| drop(snapshot.clusters.insert(state.name.clone(), state)));
    }

    /// Publishes that a cluster has left, and frees its id.
    pub(crate) fn remove(&self, name: &ClusterName) {
        self.ids().remove(name);
        self.publish(|snapshot| drop(snapshot.clusters.remove(name)));
    }

    /// Publishes that the configuration has been read.
    pub(crate) fn configured(&self, problems: Vec<ConfigProblem>) {
        let before = self.snapshot();
        if !before.configured || before.problems != problems {
            self.publish(|snapshot| {
                snapshot.configured = true;
                snapshot.problems = problems;
            });
        }
    }

    /// Gives an id to a cluster, which gives back the one it had; or says who has it.
    pub(crate) fn reserve(&self, name: &ClusterName, id: ClusterId) -> Result<(), ClusterName> {
        let mut ids = self.ids();
        match ids.iter().find(|(other, held)| **held == id && *other != name) {
            Some((holder, _)) => Err(holder.clone()),
            None => {
                ids.insert(name.clone(), id);
                Ok(())
            }
        }
    }

    fn ids(&self) -> std::sync::MutexGuard<'_, BTreeMap<ClusterName, ClusterId>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
