//! Connections that we open, each in a task of its own until it is up or has failed.
use std::net::SocketAddr;

use isthmus_bgp_engine::ConnId;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::event::Event;
use crate::socket::{self, PeerSocket, SocketError};

/// An attempt to connect; dropping it gives up.
#[derive(Debug)]
pub(crate) struct Dial(JoinHandle<()>);

impl Dial {
    /// Starts to connect and reports the outcome.
    pub(crate) fn start(
        conn: ConnId,
        remote: SocketAddr,
        peer: PeerSocket,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self(tokio::spawn(async move {
            let event = match connect(remote, &peer).await {
                Ok(stream) => Event::Connected { conn, stream },
                Err(error) => Event::ConnectFailed {
                    conn,
                    error: error.to_string(),
                },
            };
            let _engine_gone = events.send(event).await;
        }))
    }
}

impl Drop for Dial {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn connect(remote: SocketAddr, peer: &PeerSocket) -> Result<TcpStream, SocketError> {
    let other = |source| socket::dial_error(remote, source);
    let stream = TcpStream::from_std(socket::dial(remote, peer)?).map_err(other)?;
    stream.writable().await.map_err(other)?;
    match stream.take_error().map_err(other)? {
        Some(error) => Err(other(error)),
        None => Ok(stream),
    }
}
