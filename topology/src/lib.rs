//! The mesh as data: names, nodes, services, identities, and the pure functions that merge, plan and draw them.
//!
//! Nothing here does I/O or knows a wire format: `isthmus-kvstore` turns these types into Cilium ClusterMesh's bytes and
//! back, `isthmus-sources` makes them from Kubernetes objects, the agent turns them into routes and eBPF maps.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

mod export;
mod identity;
mod ip;
mod merge;
mod name;
mod node;
pub mod picture;
mod service;
mod slice;

pub use export::{ExportKind, ExportPort, ServiceExport, SessionAffinity};
pub use identity::{Identity, IdentityRange, Labels, LabelsError};
pub use ip::{IpIdentity, NamedPort};
pub use merge::{MergedBackend, MergedFrontend, MergedService, merge_services};
pub use name::{ClusterId, ClusterName, MaxClusters, NameError, NodeName, ServiceName};
pub use node::{Node, NodeAddress, NodeAddressKind};
pub use service::{
    Backend, BackendState, Frontend, GlobalNamespaces, LocalService, PortName, Protocol, RemoteService,
    Scope, ServiceAffinity, ServicePort, TrafficPolicy, Zone,
};
pub use slice::{ServiceSlice, SliceEndpoint, SliceFamily, SlicePort};
