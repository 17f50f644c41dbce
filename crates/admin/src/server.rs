//! The server's side.
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use isthmus_telemetry::Metrics;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::AdminError;

/// Whether a daemon is ready; the text says what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It does its job.
    Ready,
    /// It does not yet, and why.
    Waiting(String),
}

/// `/healthz` (the process runs), `/readyz` (it does its job; 503 with the reason until then) and `/metrics`.
pub fn common_routes(metrics: Metrics, ready: impl Fn() -> Readiness + Send + Sync + 'static) -> Router {
    let ready = Arc::new(ready);
    let answer = move || {
        let ready = Arc::clone(&ready);
        async move {
            match ready() {
                Readiness::Ready => (StatusCode::OK, "ready\n".to_owned()),
                Readiness::Waiting(what) => {
                    (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {what}\n"))
                }
            }
        }
    };
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(answer))
        .route(
            "/metrics",
            get(move || async move { ([(CONTENT_TYPE, OPEN_METRICS)], metrics.encode()) }),
        )
}

/// A listening admin socket; dropping it stops the server and removes the socket.
#[derive(Debug)]
pub struct AdminServer {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl AdminServer {
    /// Serves `router` on a unix socket that only root can use. A socket that a dead daemon left is replaced; a living
    /// daemon's socket is refused.
    pub async fn start(path: &Path, router: Router) -> Result<Self, AdminError> {
        let failed = |reason: String| AdminError::Listen {
            socket: path.to_owned(),
            reason,
        };
        if UnixStream::connect(path).await.is_ok() {
            return Err(failed(
                "another daemon already listens there; stop it or choose another --admin-socket".into(),
            ));
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .map_err(|e| failed(format!("its directory cannot be made: {e}")))?;
        }
        if path.exists() {
            std::fs::remove_file(path)
                .map_err(|e| failed(format!("a stale socket cannot be removed: {e}")))?;
        }
        let listener = UnixListener::bind(path).map_err(|e| failed(e.to_string()))?;
        restrict(path).map_err(|e| failed(format!("its mode cannot be set: {e}")))?;
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "admin server stopped");
            }
        });
        Ok(Self {
            path: path.to_owned(),
            task,
        })
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.task.abort();
        // The daemon is ending: nobody is left to tell.
        drop(std::fs::remove_file(&self.path));
    }
}

fn restrict(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

/// Serves `router` (usually only [`common_routes`]) on TCP, for Prometheus. Returns the bound address.
pub async fn serve_tcp(addr: SocketAddr, router: Router) -> Result<(SocketAddr, JoinHandle<()>), AdminError> {
    let failed = |reason: String| AdminError::Listen {
        socket: addr.to_string().into(),
        reason,
    };
    let listener = TcpListener::bind(addr).await.map_err(|e| failed(e.to_string()))?;
    let bound = listener.local_addr().map_err(|e| failed(e.to_string()))?;
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "metrics server stopped");
        }
    });
    Ok((bound, task))
}
