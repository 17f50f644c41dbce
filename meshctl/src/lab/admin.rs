//! Asking daemons from code that does not await.
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use isthmus_admin::{AdminClient, AdminError};
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

/// A daemon that does not answer in this time counts as silent.
const PATIENCE: Duration = Duration::from_secs(2);

/// The runtime of everything here that awaits.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("threads and descriptors for a runtime")
    })
}

/// Reads a view of a daemon.
pub(crate) fn read<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, String> {
    let client = AdminClient::new(socket);
    in_time(socket, async { client.read(path).await })
}

/// `/readyz`: the error says what the daemon waits for.
pub(crate) fn ready(socket: &Path) -> Result<(), String> {
    let client = AdminClient::new(socket);
    in_time(socket, async { client.text("/readyz").await }).map(drop)
}

fn in_time<T>(socket: &Path, answer: impl Future<Output = Result<T, AdminError>>) -> Result<T, String> {
    runtime().block_on(async {
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|e| e.to_string()),
            Err(_) => Err(format!(
                "the daemon at {} took the request and did not answer in {} s",
                socket.display(),
                PATIENCE.as_secs()
            )),
        }
    })
}
