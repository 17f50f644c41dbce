//! A ServiceExport as the mesh carries it (spec §1.10).
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ServiceName, TrafficPolicy};

/// `ClusterSetIP` or `Headless`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExportKind {
    /// One virtual address in every cluster.
    ClusterSetIP,
    /// No virtual address.
    Headless,
}

/// Session affinity of an exported service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum SessionAffinity {
    /// None.
    #[default]
    None,
    /// By client address.
    ClientIP,
}

/// One port of an exported service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportPort {
    /// Port name, or empty.
    pub name: String,
    /// Protocol, or empty.
    pub protocol: String,
    /// Application protocol, if given.
    pub app_protocol: Option<String>,
    /// Port number.
    pub port: i32,
}

/// An exported service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceExport {
    /// namespace/name.
    pub name: ServiceName,
    /// RFC 3339 time at which the export was made: the oldest decides conflicts.
    pub created: String,
    /// Exported annotations.
    pub annotations: BTreeMap<String, String>,
    /// Exported labels.
    pub labels: BTreeMap<String, String>,
    /// Ports.
    pub ports: Vec<ExportPort>,
    /// ClusterSetIP or Headless.
    pub kind: ExportKind,
    /// Session affinity.
    pub session_affinity: SessionAffinity,
    /// Seconds of client-IP affinity, if configured.
    pub session_affinity_timeout: Option<i32>,
    /// IP families (`IPv4`, `IPv6`).
    pub ip_families: Vec<String>,
    /// internalTrafficPolicy, if set.
    pub internal_traffic_policy: Option<TrafficPolicy>,
    /// trafficDistribution, if set.
    pub traffic_distribution: Option<String>,
}
