//! Security identities: Cilium's 24 bits, the high ones the cluster's (spec §1.6, §1.11).
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ClusterId, ClusterName, MaxClusters};

/// A security identity: 24 bits, carried as the VNI of every overlay packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(pub u32);

impl Identity {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self(0);
    /// The local host; a remote cluster's host is [`Self::REMOTE_NODE`].
    pub const HOST: Self = Self(1);
    /// Everything outside the mesh.
    pub const WORLD: Self = Self(2);
    /// A node of this or another cluster, other than the local one.
    pub const REMOTE_NODE: Self = Self(6);
    /// The first identity that is allocated rather than reserved.
    pub const FIRST_ALLOCATED: u32 = 256;

    /// Reserved identities (below 256) mean the same in every cluster.
    pub const fn is_reserved(self) -> bool {
        self.0 < Self::FIRST_ALLOCATED
    }

    /// How a receiver takes an identity from another cluster: its host is our remote-node (spec §1.7).
    #[must_use]
    pub const fn received(self) -> Self {
        if self.0 == Self::HOST.0 {
            Self::REMOTE_NODE
        } else {
            self
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The identities that belong to one cluster: `[id << shift, ((id + 1) << shift) - 1]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdentityRange {
    /// Lowest identity of the cluster.
    pub first: u32,
    /// Highest identity of the cluster.
    pub last: u32,
}

impl IdentityRange {
    /// The range of a cluster in a mesh of this size.
    pub const fn of(cluster: ClusterId, max: MaxClusters) -> Self {
        let id = cluster.value() as u32;
        Self {
            first: id << max.shift(),
            last: ((id + 1) << max.shift()) - 1,
        }
    }

    /// True if the identity is the cluster's own.
    pub const fn contains(self, identity: Identity) -> bool {
        identity.0 >= self.first && identity.0 <= self.last
    }

    /// What an ip entry of this cluster may carry: its own range or a reserved identity (spec §1.7).
    pub const fn accepts_ip(self, identity: Identity) -> bool {
        identity.is_reserved() || self.contains(identity)
    }
}

/// The labels of an identity: `source:key` → value, sorted by key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Labels(pub BTreeMap<String, (String, String)>);

/// Why the text of an identity's labels was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelsError {
    /// The value was empty.
    #[error("the identity has no labels")]
    Empty,
    /// The policy.cluster label is missing or names another cluster.
    #[error("label k8s:io.cilium.k8s.policy.cluster is {found:?}, expected {expected:?}")]
    Cluster {
        /// What the labels say.
        found: Option<String>,
        /// The exporting cluster.
        expected: String,
    },
}

impl Labels {
    /// The label that says which cluster an identity belongs to; its source is `k8s`.
    pub const CLUSTER: &'static str = "io.cilium.k8s.policy.cluster";

    /// Adds a label of a source (`k8s`, `reserved`, …).
    pub fn insert(&mut self, source: impl Into<String>, key: impl Into<String>, value: impl Into<String>) {
        self.0.insert(key.into(), (source.into(), value.into()));
    }

    /// Parses `source:key=value;…`: the source ends at the first ':', the key at the first '=' (spec §1.6).
    pub fn parse(text: &str) -> Result<Self, LabelsError> {
        let mut labels = Self::default();
        for part in text.split(';').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (source, key) = name.split_once(':').unwrap_or(("", name));
            labels.insert(source, key, value);
        }
        if labels.0.is_empty() {
            Err(LabelsError::Empty)
        } else {
            Ok(labels)
        }
    }

    /// The check of a reader (spec §1.6): the labels must say that they belong to the exporting cluster.
    pub fn check_cluster(&self, expected: &ClusterName) -> Result<(), LabelsError> {
        match self.0.get(Self::CLUSTER) {
            Some((source, value)) if source == "k8s" && value == expected.as_str() => Ok(()),
            other => Err(LabelsError::Cluster {
                found: other.map(|(_, value)| value.clone()),
                expected: expected.as_str().to_owned(),
            }),
        }
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, (source, value)) in &self.0 {
            write!(f, "{source}:{key}={value};")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_disjoint_and_sized_by_the_mesh() -> Result<(), crate::NameError> {
        let one = IdentityRange::of(ClusterId::new(1, MaxClusters::C255)?, MaxClusters::C255);
        let two = IdentityRange::of(ClusterId::new(2, MaxClusters::C255)?, MaxClusters::C255);
        assert_eq!((one.first, one.last), (65_536, 131_071));
        assert_eq!(two.first, one.last + 1);
        let big = IdentityRange::of(ClusterId::new(511, MaxClusters::C511)?, MaxClusters::C511);
        assert_eq!(big.last, (1 << 24) - 1);
        assert!(one.accepts_ip(Identity::HOST) && !one.accepts_ip(Identity(132_001)));
        Ok(())
    }

    #[test]
    fn labels_round_trip_without_escaping() {
        let text = "k8s:app=web;k8s:io.cilium.k8s.policy.cluster=clusterb;k8s:x=a=b:c;reserved:host=;";
        let labels = Labels::parse(text).expect("labels");
        assert_eq!(
            labels.to_string(),
            "k8s:app=web;reserved:host=;k8s:io.cilium.k8s.policy.cluster=clusterb;k8s:x=a=b:c;"
        );
        assert!(
            labels
                .check_cluster(&ClusterName::new("clusterb").expect("name"))
                .is_ok()
        );
        assert!(
            labels
                .check_cluster(&ClusterName::new("other").expect("name"))
                .is_err()
        );
    }
}
