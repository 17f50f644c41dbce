//! An etcd v3 API server in process: the store that a cluster's peers read.
//!
//! ```text
//!   daemon ── StoreHandle ─────────────┐
//!                                      ▼
//!   peers ─ mutual TLS ─ services ─ Shared ── RwLock ── mvcc (pure core)
//!            common name → role        └── bell: the newest revision ──► one task for each watch stream
//! ```
//! It serves what clustermesh.md §2 lists, as etcd 3.4 and 3.5 answer it: KV, Watch, Lease, Maintenance.Status,
//! Cluster.MemberList and the reading half of Auth. There is one member, it always leads, and what it holds lives as long
//! as the process; a fresh `cluster_id` on each start tells readers to list anew.

mod access;
mod error;
mod handle;
pub mod mvcc;
mod server;
mod shared;

pub use access::{AccessPolicy, AuthMode, Role};
pub use error::StoreError;
pub use handle::{ClientFacts, Refused, StoreHandle, Write};
pub use server::{ServeError, ServeOptions, Server};
pub use shared::TlsFailures;
