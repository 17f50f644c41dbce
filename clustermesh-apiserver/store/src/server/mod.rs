//! The etcd v3 gRPC API over mutual TLS.

mod auth;
mod kv;
mod lease;
mod listen;
mod maintenance;
mod watch;

use std::sync::Arc;

use tonic::{Request, Status};

use crate::shared::{Peer, Shared};

pub use listen::{ServeError, ServeOptions, Server};

/// The services: each answers from the shared state.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) shared: Arc<Shared>,
    /// URL that MemberList tells.
    pub(crate) url: Arc<str>,
}

/// Who sent a request.
pub(crate) fn sender<T>(request: &Request<T>) -> Result<Arc<Peer>, Status> {
    // Every connection is registered before it can send.
    request
        .extensions()
        .get::<Arc<Peer>>()
        .cloned()
        .ok_or_else(|| Status::internal("connection without a name"))
}

/// The answer to what this server does not do, in one voice.
pub(crate) fn not_served(what: &str) -> Status {
    Status::unimplemented(format!(
        "{what} is not served: this store has one member, fixed users and no snapshots"
    ))
}
