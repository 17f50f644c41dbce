//! What the tasks tell the one that owns the engine.
use std::net::SocketAddr;

use isthmus_admin::bgp::{AdvertisementView, PeerView, RouteView, RoutesQuery};
use isthmus_bgp_engine::ConnId;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::config::Config;
use crate::intent::Intent;

/// One thing that happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// A connection that we asked for is up.
    Connected {
        /// Which one.
        conn: ConnId,
        /// The connection.
        stream: TcpStream,
    },
    /// A connection that we asked for did not come up.
    ConnectFailed {
        /// Which one.
        conn: ConnId,
        /// Why.
        error: String,
    },
    /// Somebody connected to us.
    Accepted {
        /// The connection.
        stream: TcpStream,
        /// Who it says it is.
        remote: SocketAddr,
    },
    /// Bytes arrived.
    Received {
        /// On which connection.
        conn: ConnId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// So many bytes are with the kernel now.
    Written {
        /// On which connection.
        conn: ConnId,
        /// How many since the last report.
        bytes: usize,
    },
    /// A connection ended.
    Closed {
        /// Which one.
        conn: ConnId,
        /// Why.
        error: String,
    },
    /// The configuration file has new content.
    Config(Config),
    /// What this node wants to advertise has changed.
    Intent(Intent),
    /// The admin API asks.
    Ask(Ask),
}

/// A question or an order of the admin API, each with its answer.
#[derive(Debug)]
pub(crate) enum Ask {
    /// All peers.
    Peers(oneshot::Sender<Vec<PeerView>>),
    /// What this node wants advertised, and why or why not.
    Advertisements(oneshot::Sender<Vec<AdvertisementView>>),
    /// Routes of one table.
    Routes(RoutesQuery, oneshot::Sender<Result<Vec<RouteView>, String>>),
    /// End a session with Cease/Administrative Reset and open it again; the peer by name or address.
    Reset(String, oneshot::Sender<Result<(), String>>),
    /// Ask a peer for its routes again.
    Refresh(String, oneshot::Sender<Result<(), String>>),
    /// End all sessions for good, with a text for the peers, and end the process.
    Shutdown(String, oneshot::Sender<Result<(), String>>),
}
