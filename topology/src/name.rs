//! Names and numbers of clusters, nodes and services: parsed once, valid for ever (spec §1.11).
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a name or an id was refused; the text names the rule, so that it can be shown to a user as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A cluster name must match `^([a-z0-9][-a-z0-9]*)?[a-z0-9]$` and have at most 32 characters.
    #[error(
        "cluster name {0:?} is not valid: use 1 to 32 lower-case letters, digits and '-', not at either end"
    )]
    Cluster(String),
    /// `default` is reserved for clusters without an id.
    #[error("cluster name \"default\" is reserved: choose another name for a cluster that joins a mesh")]
    Default,
    /// A cluster id outside 1..=max.
    #[error("cluster id {id} is out of range: use 1 to {max} (max-connected-clusters={max})")]
    ClusterId {
        /// The refused id.
        id: u32,
        /// The highest id of this mesh, 255 or 511.
        max: u32,
    },
    /// max-connected-clusters other than 255 or 511.
    #[error("max-connected-clusters={0} is not valid: use 255 or 511, the same in every cluster of the mesh")]
    MaxClusters(u32),
    /// Not `namespace/name`.
    #[error("service {0:?} is not valid: write it as namespace/name")]
    Service(String),
    /// An empty node name.
    #[error("a node name must not be empty or contain '/'")]
    Node,
}

/// The name of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterName(String);

impl ClusterName {
    /// Parses a name (at most 32 characters; `default` is refused).
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        let name = name.into();
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let bytes = name.as_bytes();
        let ends = bytes.first().is_some_and(|c| inner(*c)) && bytes.last().is_some_and(|c| inner(*c));
        if !ends || bytes.len() > 32 || !bytes.iter().all(|c| inner(*c) || *c == b'-') {
            return Err(NameError::Cluster(name));
        }
        if name == "default" {
            return Err(NameError::Default);
        }
        Ok(Self(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for ClusterName {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        Self::new(s)
    }
}

impl TryFrom<String> for ClusterName {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        Self::new(s)
    }
}

impl From<ClusterName> for String {
    fn from(name: ClusterName) -> Self {
        name.0
    }
}

/// How many clusters a mesh can hold: decides how the 24 bits of an identity are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub enum MaxClusters {
    /// 255 clusters of 65,535 identities.
    #[default]
    C255,
    /// 511 clusters of 32,767 identities.
    C511,
}

impl MaxClusters {
    /// The highest cluster id.
    pub const fn max_id(self) -> u32 {
        match self {
            Self::C255 => 255,
            Self::C511 => 511,
        }
    }

    /// How many low bits of an identity are the cluster's own: 16 or 15.
    pub const fn shift(self) -> u32 {
        match self {
            Self::C255 => 16,
            Self::C511 => 15,
        }
    }
}

impl TryFrom<u32> for MaxClusters {
    type Error = NameError;
    fn try_from(n: u32) -> Result<Self, NameError> {
        match n {
            255 => Ok(Self::C255),
            511 => Ok(Self::C511),
            other => Err(NameError::MaxClusters(other)),
        }
    }
}

impl From<MaxClusters> for u32 {
    fn from(max: MaxClusters) -> Self {
        max.max_id()
    }
}

impl FromStr for MaxClusters {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        s.parse::<u32>()
            .map_err(|_| NameError::MaxClusters(0))?
            .try_into()
    }
}

/// A cluster's number, 1 to 255 or 511: the high bits of its identities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(u16);

impl ClusterId {
    /// Checks the range for a mesh of this size.
    pub fn new(id: u32, max: MaxClusters) -> Result<Self, NameError> {
        match u16::try_from(id) {
            Ok(small) if id >= 1 && id <= max.max_id() => Ok(Self(small)),
            _ => Err(NameError::ClusterId {
                id,
                max: max.max_id(),
            }),
        }
    }

    /// The number.
    pub const fn value(self) -> u16 {
        self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a node within its cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

impl NodeName {
    /// Any non-empty text without '/'.
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        let name = name.into();
        if name.is_empty() || name.contains('/') {
            return Err(NameError::Node);
        }
        Ok(Self(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for NodeName {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        Self::new(s)
    }
}

impl TryFrom<String> for NodeName {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        Self::new(s)
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

/// `namespace/name` of a Service: the key by which services of different clusters are one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Service name.
    pub name: String,
}

impl ServiceName {
    /// Both parts must be non-empty and without '/'.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Result<Self, NameError> {
        let (namespace, name) = (namespace.into(), name.into());
        if namespace.is_empty() || name.is_empty() || namespace.contains('/') || name.contains('/') {
            return Err(NameError::Service(format!("{namespace}/{name}")));
        }
        Ok(Self { namespace, name })
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for ServiceName {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let (ns, name) = s
            .split_once('/')
            .ok_or_else(|| NameError::Service(s.to_owned()))?;
        Self::new(ns, name)
    }
}

impl TryFrom<String> for ServiceName {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        s.parse()
    }
}

impl From<ServiceName> for String {
    fn from(name: ServiceName) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_names_follow_spec_1_11() {
        for good in ["a", "c1", "east", "a-b-c", "0", &"x".repeat(32)] {
            assert!(ClusterName::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "East",
            "a.b",
            "a_b",
            &"x".repeat(33),
            "default",
            "ä",
        ] {
            assert!(ClusterName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cluster_ids_depend_on_the_size_of_the_mesh() {
        assert!(ClusterId::new(0, MaxClusters::C255).is_err());
        assert!(ClusterId::new(255, MaxClusters::C255).is_ok());
        assert!(ClusterId::new(256, MaxClusters::C255).is_err());
        assert!(ClusterId::new(511, MaxClusters::C511).is_ok());
        assert!(ClusterId::new(66_000, MaxClusters::C511).is_err());
    }

    #[test]
    fn service_names_have_two_parts() {
        assert_eq!(
            "demo/web".parse::<ServiceName>().map(|n| n.to_string()),
            Ok("demo/web".into())
        );
        for bad in ["web", "/web", "demo/", "a/b/c"] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad}");
        }
    }
}
