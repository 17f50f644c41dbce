//! What a reader checks before it believes a value of another cluster (spec §1.5–1.10). A value that fails is skipped
//! with a warning; the last good value of its key stays.
use isthmus_topology::{
    ClusterId, ClusterName, Identity, IdentityRange, IpIdentity, Labels, LabelsError, MaxClusters, Node,
    RemoteService,
};

use crate::{ExportValue, SliceValue};

/// Who wrote the values: from the reader's configuration and the exporter's cluster config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exporter {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// The cluster's id.
    pub id: ClusterId,
    /// The size of the mesh: decides the range of its identities.
    pub max: MaxClusters,
}

impl Exporter {
    /// The identities that the exporter may use.
    pub const fn range(&self) -> IdentityRange {
        IdentityRange::of(self.id, self.max)
    }
}

/// Why a well-formed value is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The value says that it belongs to another cluster.
    #[error("the value belongs to cluster {found:?}, expected {expected:?}")]
    Cluster {
        /// What the value says.
        found: String,
        /// The exporting cluster.
        expected: String,
    },
    /// The value carries another cluster's id.
    #[error("the value carries cluster id {found}, expected {expected}")]
    ClusterId {
        /// What the value says.
        found: u16,
        /// The exporting cluster's id.
        expected: u16,
    },
    /// Key and value name different things.
    #[error("the key names {key:?}, the value {value:?}")]
    Key {
        /// The key's suffix.
        key: String,
        /// What the suffix should be.
        value: String,
    },
    /// The identity is not the exporter's.
    #[error("identity {identity} is outside {first} to {last}, the range of cluster {cluster}")]
    Range {
        /// The refused identity.
        identity: Identity,
        /// Lowest identity of the cluster.
        first: u32,
        /// Highest identity of the cluster.
        last: u32,
        /// The exporting cluster.
        cluster: String,
    },
    /// The labels do not say that they belong to the exporting cluster.
    #[error(transparent)]
    Labels(#[from] LabelsError),
}

/// A node: key suffix = name, cluster and id the exporter's (spec §1.5).
pub fn node(suffix: &str, node: &Node, exporter: &Exporter) -> Result<(), Invalid> {
    cluster(&node.cluster, exporter)?;
    cluster_id(node.cluster_id, exporter)?;
    key(suffix, node.name.as_str())
}

/// An identity: in the exporter's range, and labelled as the exporter's (spec §1.6).
pub fn identity(id: Identity, labels: &Labels, exporter: &Exporter) -> Result<(), Invalid> {
    if !exporter.range().contains(id) {
        return Err(range(id, exporter));
    }
    Ok(labels.check_cluster(&exporter.cluster)?)
}

/// An address: key suffix = address, identity the exporter's or a reserved one (spec §1.7). What the reader keeps is
/// [`Identity::received`] of it.
pub fn ip(suffix: &str, entry: &IpIdentity, exporter: &Exporter) -> Result<(), Invalid> {
    key(suffix, &crate::ip::suffix(entry))?;
    if exporter.range().accepts_ip(entry.identity) {
        Ok(())
    } else {
        Err(range(entry.identity, exporter))
    }
}

/// A service: key suffix = namespace/name, cluster and id the exporter's (spec §1.8). One that is not `shared` is valid
/// and means a deletion.
pub fn service(suffix: &str, service: &RemoteService, exporter: &Exporter) -> Result<(), Invalid> {
    cluster(&service.cluster, exporter)?;
    cluster_id(service.cluster_id, exporter)?;
    key(suffix, &service.name.to_string())
}

/// An endpoint slice: as for services (spec §1.9).
pub fn slice(suffix: &str, value: &SliceValue, exporter: &Exporter) -> Result<(), Invalid> {
    cluster(&value.cluster, exporter)?;
    cluster_id(value.cluster_id, exporter)?;
    key(suffix, &format!("{}/{}", value.slice.namespace, value.slice.name))
}

/// A service export: as for services, without an id (spec §1.10).
pub fn service_export(suffix: &str, value: &ExportValue, exporter: &Exporter) -> Result<(), Invalid> {
    cluster(&value.cluster, exporter)?;
    key(suffix, &value.export.name.to_string())
}

fn cluster(found: &ClusterName, exporter: &Exporter) -> Result<(), Invalid> {
    if *found == exporter.cluster {
        return Ok(());
    }
    Err(Invalid::Cluster {
        found: found.to_string(),
        expected: exporter.cluster.to_string(),
    })
}

fn cluster_id(found: ClusterId, exporter: &Exporter) -> Result<(), Invalid> {
    if found == exporter.id {
        return Ok(());
    }
    Err(Invalid::ClusterId {
        found: found.value(),
        expected: exporter.id.value(),
    })
}

fn key(suffix: &str, value: &str) -> Result<(), Invalid> {
    if suffix == value {
        return Ok(());
    }
    Err(Invalid::Key {
        key: suffix.to_owned(),
        value: value.to_owned(),
    })
}

fn range(identity: Identity, exporter: &Exporter) -> Invalid {
    let range = exporter.range();
    Invalid::Range {
        identity,
        first: range.first,
        last: range.last,
        cluster: exporter.cluster.to_string(),
    }
}
