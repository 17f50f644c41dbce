//! What is read from a remote store: the heartbeat, the canaries, and the tables; and where each of them lies.
use isthmus_kvstore::{Family, Tree, canary_prefix, entry_prefix, range_end};
use isthmus_topology::ClusterName;

use crate::Resource;

/// A range of keys that is listed and then watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Feed {
    /// `cilium/.heartbeat`: the sign of life.
    Heartbeat,
    /// `cilium/synced/<name>/`: which tables are complete.
    Canaries,
    /// One of the tables.
    Table(Resource),
}

impl Feed {
    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        [Self::Heartbeat, Self::Canaries]
            .into_iter()
            .chain(Resource::ALL.map(Self::Table))
    }

    /// What its keys begin with. The heartbeat's range is that of its name, without a closing slash (spec §1.1).
    pub(crate) fn prefix(self, cluster: &ClusterName, tree: Tree) -> String {
        match self {
            Self::Heartbeat => isthmus_kvstore::HEARTBEAT.to_owned(),
            Self::Canaries => canary_prefix(cluster),
            Self::Table(resource) => entry_prefix(tree, family(resource), cluster),
        }
    }

    /// The range `[key, end)` of a prefix.
    pub(crate) fn range_end(prefix: &str) -> Vec<u8> {
        range_end(prefix.as_bytes())
    }
}

/// The family of keys that holds a table.
pub(crate) const fn family(resource: Resource) -> Family {
    match resource {
        Resource::Nodes => Family::Nodes,
        Resource::Services => Family::Services,
        Resource::Identities => Family::Identities,
        Resource::Ips => Family::Ip,
        Resource::EndpointSlices => Family::EndpointSlices,
        Resource::ServiceExports => Family::ServiceExports,
    }
}
