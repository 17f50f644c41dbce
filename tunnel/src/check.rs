//! The invariants of a plan, in words.
use ipnet::IpNet;

use crate::Plan;

impl Plan {
    /// What is wrong with the plan; empty for every plan that [`crate::plan`] makes.
    pub fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let nets: Vec<&IpNet> = self.routes.keys().filter(|net| !is_host(net)).collect();
        for pair in nets.windows(2) {
            if pair[0].contains(pair[1]) {
                wrong.push(format!("the routes to {} and {} overlap", pair[0], pair[1]));
            }
        }
        for (net, entry) in &self.ipcache {
            let Some(endpoint) = entry.endpoint.filter(|_| !entry.skip_tunnel) else {
                continue;
            };
            if let Some(route) = self.routes.keys().find(|route| route.contains(&endpoint)) {
                wrong.push(format!(
                    "the tunnel to {net} ends at {endpoint}, which the route to {route} sends through the tunnel"
                ));
            }
        }
        for (net, route) in &self.routes {
            let covered = self
                .ipcache
                .iter()
                .any(|(known, e)| known.contains(net) && e.endpoint.is_some());
            if !covered {
                wrong.push(format!(
                    "the route to {net} has no tunnel endpoint in the ipcache"
                ));
            }
            if route.via.is_some_and(|via| via.is_ipv6() != net.addr().is_ipv6()) {
                wrong.push(format!("the route to {net} has a gateway of the other family"));
            }
        }
        if let Some(device) = &self.device {
            for own in device
                .addresses
                .iter()
                .filter(|own| self.routes.contains_key(*own))
            {
                wrong.push(format!("{own} is this node's own, yet there is a route to it"));
            }
        } else if !self.routes.is_empty() {
            wrong.push("there are routes but no device".to_owned());
        }
        for v6 in [false, true] {
            let routes = self.routes.keys().any(|net| net.addr().is_ipv6() == v6);
            if routes && !self.rules.iter().any(|rule| rule.v6 == v6) {
                let family = if v6 { "IPv6" } else { "IPv4" };
                wrong.push(format!("no {family} rule asks the table, although it has routes"));
            }
        }
        wrong
    }
}

fn is_host(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}
