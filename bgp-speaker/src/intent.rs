//! What this node wants of the speaker, in one value: the plan of its routes and its own address.
use std::net::{IpAddr, Ipv4Addr};

use isthmus_bgp_engine::{OriginatedRoute, OriginatedRoutes, Recipients};
use isthmus_bgp_packet::{AttributesBuilder, Origin};
use isthmus_topology::NodeAddressKind;

use crate::advertise::{self, Plan, Tables};

/// The wish of the cluster's tables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Intent {
    /// What to advertise, and why or why not.
    pub(crate) plan: Plan,
    /// Whether the tables know this node.
    pub(crate) node_known: bool,
    /// The node's first IPv4 InternalIP: the router id unless the configuration has one.
    pub(crate) node_address: Option<Ipv4Addr>,
}

impl Intent {
    /// Derives the wish from the tables.
    pub(crate) fn derive(tables: Tables<'_>) -> Self {
        let own = tables.nodes.get(tables.node);
        let internal = own.and_then(|node| node.address(NodeAddressKind::InternalIP, false));
        Self {
            plan: advertise::plan(tables),
            node_known: own.is_some(),
            node_address: match internal {
                Some(IpAddr::V4(ip)) => Some(ip),
                _ => None,
            },
        }
    }

    /// The routes for the engine. Origin IGP, as Cilium sends them.
    pub(crate) fn routes(&self) -> OriginatedRoutes {
        let attributes = AttributesBuilder::originated(Origin::Igp).build();
        let advertised = self
            .plan
            .iter()
            .filter(|(_, origins)| advertise::advertised(origins));
        advertised
            .map(|(prefix, _)| {
                let route = OriginatedRoute {
                    attributes: attributes.clone(),
                    peers: Recipients::All,
                };
                (*prefix, route)
            })
            .collect()
    }
}
