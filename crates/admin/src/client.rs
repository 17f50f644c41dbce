//! The client's side.
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::{AdminError, ErrorBody};

/// Talks to one daemon.
#[derive(Debug, Clone)]
pub struct AdminClient {
    socket: PathBuf,
}

impl AdminClient {
    /// A client of the daemon at `socket`; nothing is connected yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// Where the daemon listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Reads a view, e.g. `/v1/status`.
    pub async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, AdminError> {
        let body = self.request(Method::GET, path).await?;
        serde_json::from_slice(&body).map_err(|e| AdminError::Answer {
            socket: self.socket.clone(),
            reason: format!("{path}: {e}"),
        })
    }

    /// Reads a text, e.g. `/metrics`; `/readyz` gives [`AdminError::Refused`] with the reason until the daemon is ready.
    pub async fn text(&self, path: &str) -> Result<String, AdminError> {
        let body = self.request(Method::GET, path).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Asks the daemon to do something, e.g. `/v1/peers/clear`; all that it needs is in the path and query.
    pub async fn act(&self, path: &str) -> Result<(), AdminError> {
        self.request(Method::POST, path).await.map(drop)
    }

    async fn request(&self, method: Method, path: &str) -> Result<Bytes, AdminError> {
        let unreachable = |reason: String| AdminError::Unreachable {
            socket: self.socket.clone(),
            reason,
        };
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|e| unreachable(e.to_string()))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|e| unreachable(e.to_string()))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "isthmus");
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|e| unreachable(e.to_string()))?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|e| unreachable(e.to_string()))?;
        let status = answer.status();
        let body = answer
            .into_body()
            .collect()
            .await
            .map_err(|e| unreachable(e.to_string()))?
            .to_bytes();
        if status.is_success() {
            Ok(body)
        } else {
            Err(AdminError::Refused(refusal(status, &body)))
        }
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> String {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(body) => body.error,
        Err(_) if body.is_empty() => format!("the daemon answered {status}"),
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use isthmus_telemetry::Metrics;

    use super::*;
    use crate::{AdminServer, Readiness, common_routes};

    #[tokio::test]
    async fn a_client_reads_what_a_daemon_serves() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let socket = dir.path().join("run/admin.sock");
        let ready = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ready);
        let routes = common_routes(Metrics::new(), move || match seen.load(Ordering::Relaxed) {
            true => Readiness::Ready,
            false => Readiness::Waiting("the first list of east".into()),
        });
        let server = AdminServer::start(&socket, routes.clone()).await?;
        let client = AdminClient::new(&socket);

        let waiting = client.text("/readyz").await.expect_err("not ready");
        assert_eq!(waiting.to_string(), "waiting for the first list of east");
        ready.store(true, Ordering::Relaxed);
        assert_eq!(client.text("/readyz").await?, "ready\n");
        assert!(client.text("/metrics").await?.contains("# EOF"));

        let second = AdminServer::start(&socket, routes.clone())
            .await
            .expect_err("socket in use");
        assert!(
            second.to_string().contains("another daemon already listens"),
            "{second}"
        );
        drop(server);
        let gone = client.text("/readyz").await.expect_err("gone");
        assert!(matches!(gone, AdminError::Unreachable { .. }));

        // A daemon that was killed leaves its socket behind; the next one takes its place.
        drop(std::os::unix::net::UnixListener::bind(&socket)?);
        AdminServer::start(&socket, routes).await?;
        Ok(())
    }
}
