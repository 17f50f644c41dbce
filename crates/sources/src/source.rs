//! A running source: one thread that reads, watches and publishes.
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;

use isthmus_topology::{ClusterId, ClusterName, MaxClusters};
use tokio::sync::watch;

use crate::Snapshot;
use crate::watch::{Wake, start};

/// Which cluster a source describes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// Its id.
    pub id: ClusterId,
    /// The size of the mesh: decides the range of its identities.
    pub max: MaxClusters,
    /// What holds for namespaces without the annotation `clustermesh.cilium.io/global` (Cilium's default: true).
    pub default_global_namespace: bool,
    /// Where to remember which identity was given to which labels (a file `identities`). Without it they are the same after
    /// a restart, and in every daemon that reads the same manifests, except for sets of labels whose hashes want the same
    /// number: among those, the order of arrival decides.
    pub state_dir: Option<PathBuf>,
}

/// A source of snapshots; ends when it is dropped.
#[derive(Debug)]
pub struct Source {
    snapshots: watch::Receiver<Snapshot>,
    wake: Sender<Wake>,
}

/// Why a source could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The directory cannot be watched.
    #[error("cannot watch the manifests in {path}: {reason}")]
    Watch {
        /// The directory.
        path: PathBuf,
        /// The system's reason, and the cure where it is known.
        reason: String,
    },
}

impl SourceError {
    pub(crate) fn watch(path: &Path, reason: impl ToString) -> Self {
        Self::Watch {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}

impl Source {
    /// Opens a directory, subdirectories included; returns when its first list has been read.
    pub async fn directory(path: &Path, settings: Settings) -> Result<Self, SourceError> {
        if !path.is_dir() {
            return Err(SourceError::watch(
                path,
                "it is not a directory: create it, or name another",
            ));
        }
        // The kernel's events carry absolute paths: a relative one would make one file two.
        let path = &std::path::absolute(path).map_err(|error| SourceError::watch(path, error))?;
        let (sender, snapshots) = watch::channel(Snapshot::default());
        let (wake, ready) = start(path, settings, sender)?;
        if ready.await.is_err() {
            return Err(SourceError::watch(path, "the reading thread has ended"));
        }
        Ok(Self { snapshots, wake })
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshots.borrow().clone()
    }

    /// Waits for a snapshot that this `Source` has not returned yet (the first call returns the first list at once). Never
    /// returns if the source has ended.
    pub async fn changed(&mut self) -> Snapshot {
        if self.snapshots.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.snapshots.borrow_and_update().clone()
    }

    /// Another handle that sees the same snapshots, as long as the source lives.
    pub fn subscribe(&self) -> watch::Receiver<Snapshot> {
        self.snapshots.clone()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // The thread may have ended already.
        let _ = self.wake.send(Wake::Stop);
    }
}
