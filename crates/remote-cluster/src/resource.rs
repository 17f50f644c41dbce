//! The tables that one cluster exports to another.
use std::fmt;

use serde::Serialize;

/// A table that a remote cluster exports (spec §1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resource {
    /// Its nodes.
    Nodes,
    /// Its services.
    Services,
    /// Its security identities.
    Identities,
    /// Which identity each of its addresses has.
    Ips,
    /// Its endpoint slices (exporters of Cilium 1.20 and later).
    EndpointSlices,
    /// Its exported services (MCS-API).
    ServiceExports,
}

impl Resource {
    /// All of them, in the order in which they are followed.
    pub const ALL: [Self; 6] = [
        Self::Nodes,
        Self::Identities,
        Self::Ips,
        Self::Services,
        Self::EndpointSlices,
        Self::ServiceExports,
    ];

    /// The name that keys, canaries and messages use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Services => "services",
            Self::Identities => "identities",
            Self::Ips => "ip",
            Self::EndpointSlices => "endpointslices",
            Self::ServiceExports => "serviceexports",
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
