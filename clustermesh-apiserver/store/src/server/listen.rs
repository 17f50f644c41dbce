//! Accepting connections: TLS, who is there, and handing them to the services.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use etcd_client::proto::{PbClusterServer, PbKvServer, PbLeaseServer, PbMaintenanceServer, PbWatchServer};
use isthmus_trust::{CertFacts, ServerTls};
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use super::Api;
use super::auth::AuthApi;
use crate::handle::StoreHandle;
use crate::mvcc::REQUEST_MAX;
use crate::shared::{Peer, Shared};

/// A handshake that takes longer is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at one time; more wait.
const HANDSHAKES: usize = 64;
/// Largest message that is read: etcd's largest request and its own overhead allowance of 512 KiB.
const MESSAGE_MAX: usize = REQUEST_MAX + 512 * 1024;
/// A client that was cut off is noticed after these two together.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause after the system refused to accept (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {cause}; {cure}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        cause: String,
        /// What to do.
        cure: &'static str,
    },
}

/// Where and how to serve.
#[derive(Debug)]
pub struct ServeOptions {
    /// Address to listen on; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Certificates; reread when their files change.
    pub tls: Arc<ServerTls>,
}

/// A running server; dropping it closes the listener and all connections.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens and serves the store.
    pub async fn start(store: &StoreHandle, options: ServeOptions) -> Result<Self, ServeError> {
        let failed = |error: io::Error| listen_error(options.listen, &error);
        let listener = TcpListener::bind(options.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let stop = CancellationToken::new();
        let shared = Arc::clone(&store.shared);
        let (accepted, incoming) = mpsc::channel(16);
        tokio::spawn(accept(
            listener,
            options.tls,
            Arc::clone(&shared),
            accepted,
            stop.clone(),
        ));
        let task = tokio::spawn(serve(
            Api {
                shared,
                url: url(address).into(),
            },
            incoming,
            stop.clone(),
        ));
        Ok(Self { address, stop, task })
    }

    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
    }
}

fn listen_error(address: SocketAddr, error: &io::Error) -> ServeError {
    let cure = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program has the port: stop it (`ss -ltnp` names it) or choose another --listen"
        }
        io::ErrorKind::AddrNotAvailable => {
            "the address is not on this machine: choose one that is, or 0.0.0.0"
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 need root: choose a higher one",
        _ => "choose another --listen",
    };
    ServeError::Listen {
        address,
        cause: error.to_string(),
        cure,
    }
}

/// URL at which a client on this machine reaches the listener.
fn url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("https://{}", SocketAddr::new(ip, address.port()))
}

async fn serve(api: Api, incoming: mpsc::Receiver<io::Result<Connection>>, stop: CancellationToken) {
    let kv = PbKvServer::new(api.clone()).max_decoding_message_size(MESSAGE_MAX);
    let result = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .add_service(kv)
        .add_service(PbWatchServer::new(api.clone()))
        .add_service(PbLeaseServer::new(api.clone()))
        .add_service(PbMaintenanceServer::new(api.clone()))
        .add_service(PbClusterServer::new(api.clone()))
        .add_service(AuthApi(api))
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), stop.cancelled_owned())
        .await;
    if let Err(error) = result {
        tracing::error!(%error, "the store's server stopped");
    }
}

async fn accept(
    listener: TcpListener,
    tls: Arc<ServerTls>,
    shared: Arc<Shared>,
    accepted: mpsc::Sender<io::Result<Connection>>,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let result = tokio::select! {
            () = stop.cancelled() => return,
            result = listener.accept() => result,
        };
        let (stream, address) = match result {
            Ok(pair) => pair,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let (config, shared, accepted) = (
            tls.current(Timestamp::now()),
            Arc::clone(&shared),
            accepted.clone(),
        );
        tokio::spawn(async move {
            let handshake =
                tokio::time::timeout(HANDSHAKE_TIMEOUT, connect(stream, address, config, &shared));
            let result = handshake
                .await
                .unwrap_or_else(|_| Err("handshake timed out".to_owned()));
            drop(slot);
            match result {
                // A failure to hand over means that the server is stopping.
                Ok(connection) => drop(accepted.send(Ok(connection)).await),
                Err(reason) => {
                    shared.tls_failed(address, &reason);
                    tracing::info!(%address, reason, "connection refused");
                }
            }
        });
    }
}

async fn connect(
    stream: TcpStream,
    address: SocketAddr,
    config: Arc<rustls::ServerConfig>,
    shared: &Arc<Shared>,
) -> Result<Connection, String> {
    // Without it small replies wait for the other end's acknowledgement.
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let stream = TlsAcceptor::from(config)
        .accept(stream)
        .await
        .map_err(|error| error.to_string())?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.ok_or("no client certificate")?;
    let facts =
        CertFacts::of(certificate, Path::new("client certificate")).map_err(|error| error.to_string())?;
    let peer = shared.add_client(facts.common_name, address);
    Ok(Connection {
        stream: Box::new(stream),
        peer,
        shared: Arc::clone(shared),
    })
}

/// A connection whose client is known; it leaves the register when it is dropped.
#[derive(Debug)]
struct Connection {
    stream: Box<TlsStream<TcpStream>>,
    peer: Arc<Peer>,
    shared: Arc<Shared>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.remove_client(&self.peer);
    }
}

impl Connected for Connection {
    type ConnectInfo = Arc<Peer>;

    fn connect_info(&self) -> Arc<Peer> {
        Arc::clone(&self.peer)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}
