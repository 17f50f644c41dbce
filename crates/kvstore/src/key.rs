//! The keys of ClusterMesh's etcd (spec §1.1, §1.2).
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use isthmus_topology::{ClusterName, NodeName, ServiceName};

use crate::KeyError;

/// The tree that an exporter writes.
pub const STATE: &str = "cilium/state";
/// The tree that KVStoreMesh writes: copies of other clusters' state.
pub const CACHE: &str = "cilium/cache";
/// Lock under which ordinary kvstore clients probe for a quorum.
pub const INIT_LOCK: &str = "cilium/.initlock";
/// Written every minute; readers drop the connection 120 s after the last one.
pub const HEARTBEAT: &str = "cilium/.heartbeat";
/// Followed by the cluster's name.
pub const CLUSTER_CONFIG: &str = "cilium/cluster-config";
/// Followed by the cluster's name and a resource prefix.
pub const SYNCED: &str = "cilium/synced";
/// Under which the leader of several KVStoreMesh replicas writes.
pub const KVSTOREMESH_LOCK: &str = "cilium/kvstoremesh-lock";

/// Who wrote a key: the exporter itself, or a mirror of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tree {
    /// `cilium/state`: what a cluster exports of itself.
    State,
    /// `cilium/cache`: what KVStoreMesh copied of another cluster; every key names that cluster.
    Cache,
}

impl Tree {
    /// Both trees.
    pub const ALL: [Self; 2] = [Self::State, Self::Cache];

    /// `cilium/state` or `cilium/cache`.
    pub const fn root(self) -> &'static str {
        match self {
            Self::State => STATE,
            Self::Cache => CACHE,
        }
    }
}

/// A family of keys: one table of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Nodes (spec §1.5).
    Nodes,
    /// Identities (spec §1.6).
    Identities,
    /// Addresses and their identities (spec §1.7).
    Ip,
    /// Global services (spec §1.8).
    Services,
    /// Endpoint slices of global services, from Cilium 1.20 (spec §1.9).
    EndpointSlices,
    /// Service exports of MCS-API, from Cilium 1.17 (spec §1.10).
    ServiceExports,
}

impl Family {
    /// All families, in the order in which a reader should fetch them: what others point at comes first.
    pub const ALL: [Self; 6] = [
        Self::Nodes,
        Self::Identities,
        Self::Ip,
        Self::Services,
        Self::EndpointSlices,
        Self::ServiceExports,
    ];

    /// The path element that names the family.
    pub const fn element(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Identities => "identities",
            Self::Ip => "ip",
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices",
            Self::ServiceExports => "serviceexports",
        }
    }

    /// True if the state form of the family's keys does not name the cluster (issue cilium#41429).
    pub const fn is_unscoped(self) -> bool {
        matches!(self, Self::Identities | Self::Ip)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.element())
    }
}

/// `cilium/state/nodes/v1`: the resource prefix that a canary names. For identities and ip it is shorter than what
/// their keys begin with.
pub fn family_prefix(tree: Tree, family: Family) -> String {
    format!("{}/{family}/v1", tree.root())
}

/// What all keys of a cluster's family begin with, with the closing slash: what a reader lists and watches.
pub fn entry_prefix(tree: Tree, family: Family, cluster: &ClusterName) -> String {
    let root = tree.root();
    match (tree, family) {
        (Tree::State, Family::Identities) => format!("{root}/identities/v1/id/"),
        (Tree::State, Family::Ip) => format!("{root}/ip/v1/default/"),
        (Tree::Cache, Family::Identities) => format!("{root}/identities/v1/{cluster}/id/"),
        _ => format!("{root}/{family}/v1/{cluster}/"),
    }
}

/// The key of one entry. The suffix is the node's name, the identity's decimal number, the address with its length if it
/// is not a host ([`crate::ip::suffix`]), or namespace/name.
pub fn entry_key(tree: Tree, family: Family, cluster: &ClusterName, suffix: impl fmt::Display) -> String {
    format!("{}{suffix}", entry_prefix(tree, family, cluster))
}

/// `cilium/cluster-config/C`.
pub fn cluster_config_key(cluster: &ClusterName) -> String {
    format!("{CLUSTER_CONFIG}/{cluster}")
}

/// `cilium/synced/C/`: what all canaries of a cluster begin with.
pub fn canary_prefix(cluster: &ClusterName) -> String {
    format!("{SYNCED}/{cluster}/")
}

/// `cilium/synced/C/cilium/state/nodes/v1`: its presence says that the family's first list is complete.
pub fn canary_key(cluster: &ClusterName, tree: Tree, family: Family) -> String {
    format!("{}{}", canary_prefix(cluster), family_prefix(tree, family))
}

/// The `range_end` with which etcd selects everything that begins with `prefix`.
pub fn range_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// A key of the mesh, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// `cilium/.heartbeat`.
    Heartbeat,
    /// `cilium/cluster-config/C`.
    ClusterConfig(ClusterName),
    /// `cilium/synced/C/…`.
    Canary {
        /// The cluster whose first list is complete.
        cluster: ClusterName,
        /// In which tree.
        tree: Tree,
        /// Which family.
        family: Family,
    },
    /// An entry of a family.
    Entry {
        /// In which tree.
        tree: Tree,
        /// Which family.
        family: Family,
        /// The exporting cluster; `None` in the state form of identities and ip, which does not name it.
        cluster: Option<ClusterName>,
        /// What names the entry within its family and cluster; its shape is checked.
        suffix: String,
    },
}

impl Key {
    /// Takes a key apart; locks and keys of other programs are [`KeyError::Unknown`].
    pub fn parse(key: &[u8]) -> Result<Self, KeyError> {
        let key = std::str::from_utf8(key).map_err(|_| KeyError::NotUtf8)?;
        let unknown = || KeyError::Unknown(key.to_owned());
        if key == HEARTBEAT {
            return Ok(Self::Heartbeat);
        }
        if let Some(name) = below(key, CLUSTER_CONFIG) {
            return cluster(key, name).map(Self::ClusterConfig);
        }
        if let Some(rest) = below(key, SYNCED) {
            let (name, resource) = rest.split_once('/').ok_or_else(unknown)?;
            let (tree, family) = resource_of(resource).ok_or_else(unknown)?;
            let cluster = cluster(key, name)?;
            return Ok(Self::Canary {
                cluster,
                tree,
                family,
            });
        }
        for tree in Tree::ALL {
            if let Some(rest) = below(key, tree.root()) {
                return entry(key, tree, rest);
            }
        }
        Err(unknown())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Heartbeat => f.write_str(HEARTBEAT),
            Self::ClusterConfig(cluster) => f.write_str(&cluster_config_key(cluster)),
            Self::Canary {
                cluster,
                tree,
                family,
            } => f.write_str(&canary_key(cluster, *tree, *family)),
            Self::Entry {
                tree,
                family,
                cluster,
                suffix,
            } => {
                write!(f, "{}/{family}/v1/", tree.root())?;
                match (cluster, family) {
                    (None, Family::Ip) => f.write_str("default/")?,
                    (None, _) => f.write_str("id/")?,
                    (Some(cluster), Family::Identities) => write!(f, "{cluster}/id/")?,
                    (Some(cluster), _) => write!(f, "{cluster}/")?,
                }
                f.write_str(suffix)
            }
        }
    }
}

fn below<'a>(key: &'a str, root: &str) -> Option<&'a str> {
    key.strip_prefix(root)?.strip_prefix('/')
}

fn cluster(key: &str, name: &str) -> Result<ClusterName, KeyError> {
    ClusterName::new(name).map_err(|source| KeyError::Name {
        key: key.to_owned(),
        source,
    })
}

fn resource_of(resource: &str) -> Option<(Tree, Family)> {
    let all = Tree::ALL
        .into_iter()
        .flat_map(|tree| Family::ALL.map(|family| (tree, family)));
    all.into_iter()
        .find(|(tree, family)| family_prefix(*tree, *family) == resource)
}

fn entry(key: &str, tree: Tree, rest: &str) -> Result<Key, KeyError> {
    let unknown = || KeyError::Unknown(key.to_owned());
    let (element, rest) = rest.split_once('/').ok_or_else(unknown)?;
    let family = Family::ALL
        .into_iter()
        .find(|f| f.element() == element)
        .ok_or_else(unknown)?;
    let rest = rest.strip_prefix("v1/").ok_or_else(unknown)?;
    let (name, suffix) = match (tree, family) {
        (Tree::State, Family::Identities) => (None, rest.strip_prefix("id/").ok_or_else(unknown)?),
        (Tree::State, Family::Ip) => (None, rest.strip_prefix("default/").ok_or_else(unknown)?),
        _ => {
            let (name, suffix) = rest.split_once('/').ok_or_else(unknown)?;
            (Some(name), suffix)
        }
    };
    let suffix = match (tree, family) {
        (Tree::Cache, Family::Identities) => suffix.strip_prefix("id/").ok_or_else(unknown)?,
        _ => suffix,
    };
    check_suffix(family, suffix).map_err(|reason| KeyError::Suffix {
        key: key.to_owned(),
        reason,
    })?;
    let cluster = name.map(|name| cluster(key, name)).transpose()?;
    let suffix = suffix.to_owned();
    Ok(Key::Entry {
        tree,
        family,
        cluster,
        suffix,
    })
}

fn check_suffix(family: Family, suffix: &str) -> Result<(), String> {
    match family {
        Family::Nodes => NodeName::new(suffix).map(drop).map_err(|e| e.to_string()),
        Family::Identities => match suffix.parse::<u32>() {
            Ok(_) if suffix.bytes().all(|b| b.is_ascii_digit()) => Ok(()),
            _ => Err(format!("{suffix:?} is not a decimal identity")),
        },
        Family::Ip => {
            let valid = suffix.parse::<IpAddr>().is_ok() || suffix.parse::<IpNet>().is_ok();
            if valid {
                Ok(())
            } else {
                Err(format!("{suffix:?} is not an address"))
            }
        }
        Family::Services | Family::EndpointSlices | Family::ServiceExports => {
            suffix.parse::<ServiceName>().map(drop).map_err(|e| e.to_string())
        }
    }
}
