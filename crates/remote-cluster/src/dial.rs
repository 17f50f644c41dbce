//! One connection to one remote etcd: the address is what the configuration says, the certificate is checked against the
//! name in the endpoint, and it never connects a second time by itself.
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use etcd_client::{Channel, Client, ConnectOptions};
use hyper_util::rt::TokioIo;
use isthmus_trust::client_material;
use jiff::Timestamp;
use tokio::net::TcpStream;
use tonic::transport::{Certificate, ClientTlsConfig, Identity, Uri};

use crate::Timing;
use crate::cluster_file::{ClusterFile, Endpoint};
use crate::cure::with_cure;

/// HTTP/2 windows: a page of a list or a burst of events fits in without waiting for the window.
const WINDOW: u32 = 4 << 20;

/// Tries the endpoints in turn, beginning with number `first`, and answers the client of the one that is up, and its
/// name; else why none is.
pub(crate) async fn dial(
    file: &ClusterFile,
    first: usize,
    timing: &Timing,
) -> Result<(Client, String), String> {
    let mut reasons = Vec::new();
    let turn = file
        .endpoints
        .iter()
        .cycle()
        .skip(first % file.endpoints.len().max(1));
    for endpoint in turn.take(file.endpoints.len()) {
        match dial_one(file, endpoint, timing).await {
            Ok(client) => return Ok((client, endpoint.url.clone())),
            Err(reason) => reasons.push(format!("{}: {reason}", endpoint.url)),
        }
    }
    Err(reasons.join("; "))
}

async fn dial_one(file: &ClusterFile, endpoint: &Endpoint, timing: &Timing) -> Result<Client, String> {
    let uri: Uri = endpoint.url.parse().map_err(|e| format!("{e}"))?;
    let mut builder = tonic::transport::Endpoint::from(uri)
        .connect_timeout(timing.connect_timeout)
        .http2_keep_alive_interval(timing.keepalive_interval)
        .keep_alive_timeout(timing.keepalive_timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW * 2);
    if endpoint.tls {
        let tls = tls(file, endpoint, timing)?;
        builder = builder.tls_config(tls).map_err(|e| causes(&e))?;
    }
    let connector = connector(endpoint.clone());
    let channel = tokio::time::timeout(timing.connect_timeout, builder.connect_with_connector(connector));
    let channel = channel
        .await
        .map_err(|_| format!("no answer within {:.1} s", timing.connect_timeout.as_secs_f32()))?
        .map_err(|e| causes(&e))?;
    let options = ConnectOptions::new().with_require_leader(true);
    Client::from_channel(Channel::Tonic(channel), Some(options))
        .await
        .map_err(|e| causes(&e))
}

/// Certificate, key and authorities, read anew for each connection.
fn tls(file: &ClusterFile, endpoint: &Endpoint, timing: &Timing) -> Result<ClientTlsConfig, String> {
    let files = file
        .tls
        .as_ref()
        .ok_or_else(|| "its configuration names no certificates".to_owned())?;
    let material = client_material(files, Timestamp::now()).map_err(|e| e.to_string())?;
    let identity = Identity::from_pem(material.pair.certificate_pem(), material.pair.key_pem());
    Ok(ClientTlsConfig::new()
        .domain_name(&endpoint.host)
        .ca_certificate(Certificate::from_pem(&material.bundle_pem))
        .identity(identity)
        .timeout(timing.connect_timeout))
}

/// Opens the TCP connection, once. The channel would come back by itself after a loss, to whatever etcd answers then and
/// with old certificates; the machine must decide about that, so a second call is refused.
fn connector(
    endpoint: Endpoint,
) -> impl tower::Service<Uri, Response = TokioIo<TcpStream>, Error = io::Error, Future: Send> + Send + 'static
{
    let used = Arc::new(AtomicBool::new(false));
    tower::service_fn(move |_: Uri| {
        let (endpoint, used) = (endpoint.clone(), Arc::clone(&used));
        async move {
            if used.swap(true, Ordering::Relaxed) {
                return Err(io::Error::new(
                    io::ErrorKind::NotConnected,
                    "the connection was lost",
                ));
            }
            connect(&endpoint).await.map(TokioIo::new)
        }
    })
}

async fn connect(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let mut last = None;
    for address in resolve(endpoint).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = Some(io::Error::new(error.kind(), format!("{address}: {error}"))),
        }
    }
    let nowhere = || {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("{} has no address", endpoint.host),
        )
    };
    Err(last.unwrap_or_else(nowhere))
}

async fn resolve(endpoint: &Endpoint) -> io::Result<Vec<SocketAddr>> {
    if !endpoint.addresses.is_empty() {
        let addresses = endpoint.addresses.iter();
        return Ok(addresses.map(|ip| SocketAddr::new(*ip, endpoint.port)).collect());
    }
    let found = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)).await;
    let unknown = |e| {
        let text = format!(
            "{} cannot be resolved: {e}; add it to cilium-host-aliases",
            endpoint.host
        );
        io::Error::new(io::ErrorKind::NotFound, text)
    };
    found.map(Iterator::collect).map_err(unknown)
}

/// An error with all its causes and what to do: a transport error alone says nothing.
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = if text == "transport error" {
                more
            } else {
                format!("{text}: {more}")
            };
        }
        source = cause.source();
    }
    with_cure(text)
}
