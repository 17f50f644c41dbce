//! Cilium ClusterMesh's keys and values: a lossless codec between etcd bytes and the mesh's types.
//!
//! Three things live here, all pure: the **keys** ([`Key`], [`entry_key`], [`canary_key`], …; spec §1.1–1.4), the
//! **values** both ways (one module for each family, the byte form is Go's: member order, `null` for empty, HTML-safe
//! escapes; spec §1.3–1.10) and what is built of both: [`validate`] (what a reader checks before it believes a value)
//! and [`export()`] (what a cluster's etcd must hold).
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

pub mod cluster_config;
mod error;
mod export;
pub mod identity;
pub mod ip;
mod json;
mod key;
pub mod node;
pub mod service;
pub mod service_export;
pub mod slice;
pub mod validate;

pub use cluster_config::{ClusterConfig, ExportMode};
pub use error::{KeyError, ValueError};
pub use export::{
    ExportInputs, ExportTables, Table, export, export_identity, export_ip, export_node, export_service,
    export_service_export, export_slice, export_table,
};
pub use key::{
    CACHE, CLUSTER_CONFIG, Family, HEARTBEAT, INIT_LOCK, KVSTOREMESH_LOCK, Key, STATE, SYNCED, Tree,
    canary_key, canary_prefix, cluster_config_key, entry_key, entry_prefix, family_prefix, range_end,
};
pub use service_export::ExportValue;
pub use slice::SliceValue;
pub use validate::{Exporter, Invalid};
