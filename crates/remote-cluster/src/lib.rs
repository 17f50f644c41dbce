//! A client of remote clusters: their configuration, their connections, and their tables as the agent sees them.
//!
//! [`RemoteClusters`] follows Cilium's configuration directory (clustermesh.md §3.1), keeps one connection to each cluster
//! in it, and publishes a [`RemoteSnapshot`] of what they export. A consumer keeps the snapshot that it applied last:
//!
//! ```no_run
//! use isthmus_remote_cluster::{Change, Options, RemoteClusters};
//! # async fn follow(options: Options) {
//! let clusters = RemoteClusters::start(options);
//! let mut snapshots = clusters.subscribe();
//! let mut applied = clusters.snapshot();
//! while snapshots.changed().await.is_ok() {
//!     let now = snapshots.borrow_and_update().clone();
//!     for (name, cluster) in &now.clusters {
//!         let before = applied.clusters.get(name).map(|c| c.ips.clone()).unwrap_or_default();
//!         for change in cluster.ips.diff(&before) {
//!             match change {
//!                 Change::Put { key, value, .. } => println!("{name}: {key} has identity {}", value.identity),
//!                 Change::Delete { key, .. } => println!("{name}: {key} is gone"),
//!             }
//!         }
//!     }
//!     // Clusters of `applied` that are not in `now` were removed from the configuration: delete all that they had.
//!     applied = now;
//! }
//! # }
//! ```
#![forbid(unsafe_code)]

mod backoff;
mod cluster_file;
mod clusters;
mod cure;
mod dial;
mod directory;
mod feed;
mod gauges;
mod listwatch;
mod machine;
mod mirror;
mod options;
mod publisher;
mod resource;
mod session;
mod snapshot;
mod status;
mod table;
mod task;
mod watchplane;

pub use clusters::RemoteClusters;
pub use gauges::Gauge;
pub use isthmus_kvstore::ExportMode;
pub use options::{Options, Timing};
pub use resource::Resource;
pub use snapshot::{ConfigProblem, RemoteClusterState, RemoteSnapshot};
pub use status::{ConfigStatus, Rejection, Rejections, RemoteClusterStatus, RemoteConfig, Synced};
pub use table::{Change, Diff, Table};
