//! What this node wants of the speaker, in one value: the plan of its routes and its own address.
use std::net::{IpAddr, Ipv4Addr};

use isthmus_bgp_engine::{OriginatedRoute, OriginatedRoutes, Policy, PrefixRange, Recipients, Rule, Verdict};
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

    /// The export policy of a speaker that also learns routes: exactly our own, so that a node never becomes a transit
    /// between its routers.
    pub(crate) fn export(&self) -> Policy {
        let own = self.routes().into_keys().map(|prefix| Rule {
            prefixes: vec![PrefixRange::exactly(prefix)],
            communities: Vec::new(),
            verdict: Verdict::Accept,
        });
        Policy {
            rules: own.collect(),
            default: Verdict::Reject,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advertise::{Origin, Verdict as Decision};
    use ipnet::IpNet;
    use std::collections::BTreeMap;

    /// ```text
    ///   tor-1 --- node --- tor-2      what tor-1 tells must never reach tor-2, not even for an address that is ours at times
    /// ```
    #[test]
    fn only_what_we_advertise_now_may_be_exported() {
        let prefix = |text: &str| text.parse::<IpNet>().expect("a prefix");
        let by = |decision| BTreeMap::from([(Origin::PodCidr, decision)]);
        let plan = Plan::from([
            (prefix("10.1.1.0/24"), by(Decision::OwnPods)),
            (prefix("203.0.113.10/32"), by(Decision::NoBackend)),
        ]);
        let intent = Intent {
            plan,
            ..Intent::default()
        };
        assert_eq!(
            intent.routes().into_keys().collect::<Vec<_>>(),
            [prefix("10.1.1.0/24")]
        );
        let export = intent.export();
        let verdict = |text: &str| export.verdict(&prefix(text), std::iter::empty());
        assert_eq!(verdict("10.1.1.0/24"), Verdict::Accept);
        for foreign in ["203.0.113.10/32", "10.1.1.0/25", "10.1.0.0/16", "192.0.2.0/24"] {
            assert_eq!(verdict(foreign), Verdict::Reject, "{foreign}");
        }
    }

    /// A rule without prefixes would match everything.
    #[test]
    fn nothing_of_our_own_means_nothing_is_exported() {
        let export = Intent::default().export();
        let foreign: IpNet = "192.0.2.0/24".parse().expect("a prefix");
        assert_eq!(export.verdict(&foreign, std::iter::empty()), Verdict::Reject);
    }
}
