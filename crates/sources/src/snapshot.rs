//! What a source publishes: the tables of one cluster, and what was wrong with its input.
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use isthmus_topology::{
    GlobalNamespaces, Identity, IpIdentity, Labels, LocalService, Node, NodeName, ServiceExport, ServiceName,
    ServiceSlice,
};

/// A table of a snapshot: an unchanged table is pointer-equal to the one before, and so is an unchanged row.
pub type Table<K, V> = Arc<BTreeMap<K, Arc<V>>>;

/// One cluster as its manifests describe it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Counts the snapshots of a source, from 1; 0 is the empty one before the first.
    pub revision: u64,
    /// True once the first list of the directory has been read to its end: nothing may be pruned before (law 4).
    pub complete: bool,
    /// True while a file or document is broken that has never been good since the start: there may be objects that we do
    /// not know, so a daemon that adopts running state should not prune.
    pub partial: bool,
    /// Nodes by name. A CiliumNode wins over a Node of the same name.
    pub nodes: Table<NodeName, Node>,
    /// Which namespaces take part in the mesh.
    pub namespaces: Arc<GlobalNamespaces>,
    /// Identities in use, with their labels, of all namespaces: what is exported is `isthmus-kvstore`'s to choose.
    pub identities: Table<Identity, Labels>,
    /// Addresses of pods, of all namespaces.
    pub ips: Table<IpNet, IpIdentity>,
    /// Services with the endpoints of their slices. ExternalName services are left out.
    pub services: Table<ServiceName, LocalService>,
    /// Endpoint slices by namespace/name of the slice.
    pub slices: Table<ServiceName, ServiceSlice>,
    /// Service exports whose service is there.
    pub service_exports: Table<ServiceName, ServiceExport>,
    /// Objects of kinds that only some daemons know (groups `cilium.io` and `isthmus.io`, and v1 Secret), sorted by kind,
    /// namespace, name.
    pub raw: Arc<Vec<Raw>>,
    /// Objects of kinds that nobody here knows.
    pub ignored: Arc<Vec<Ignored>>,
    /// What is wrong with the input now, sorted by file and line.
    pub problems: Arc<Vec<Problem>>,
}

/// An object as it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Raw {
    /// `cilium.io/v2`, `isthmus.io/v1`, …
    pub api_version: String,
    /// `CiliumBGPPeerConfig`, …
    pub kind: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The whole object.
    pub json: serde_json::Value,
    /// Where it was written.
    pub file: Arc<Path>,
    /// First line of the object in the file, from 1.
    pub line: u32,
}

/// An object that nobody here knows: a note, not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    /// `apps/v1`, …
    pub api_version: String,
    /// `Deployment`, …
    pub kind: String,
    /// namespace/name, or name.
    pub name: String,
    /// Where it was written.
    pub file: Arc<Path>,
    /// First line of the object in the file, from 1.
    pub line: u32,
}

/// Something wrong with the input, and where. What was good before stays in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// In which file.
    pub file: Arc<Path>,
    /// In which line, from 1; 0 if it concerns the whole file.
    pub line: u32,
    /// In which column, from 1; 0 if unknown.
    pub column: u32,
    /// What is wrong, and what to do.
    pub reason: String,
    /// RFC 3339 time since when.
    pub since: jiff::Timestamp,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.column > 0 {
            write!(f, ":{}", self.column)?;
        }
        write!(f, ": {}", self.reason)
    }
}
