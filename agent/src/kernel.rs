//! The plan of the overlay against the kernel: observe, diff, apply. The only place that knows both.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use isthmus_netlink::{self as netlink, Link, LinkKind, Netlink, NetlinkError, NextHop, Vxlan, sysctl};
use isthmus_tunnel::{Mac, Observed, ObservedDevice, Op, Plan, Prune, Route, Rule, Settings, diff};

/// IPv6's metric where none is given.
const DEFAULT_METRIC_V6: u32 = 1024;

/// This node's network, as far as it is ours.
#[derive(Debug)]
pub(crate) struct Kernel {
    netlink: Netlink,
    settings: Settings,
    /// Routes that this process has planned before: it knows that they may go.
    planned: BTreeSet<IpNet>,
    writes: u64,
}

/// What one reconciliation has done.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Ops that were applied.
    pub(crate) applied: usize,
    /// The overlay device was made anew, or is seen for the first time.
    pub(crate) device: Option<u32>,
    /// What failed: cause and cure.
    pub(crate) problems: Vec<String>,
}

impl Kernel {
    /// Opens the namespace of the calling thread.
    pub(crate) fn open(settings: Settings) -> Result<Self, NetlinkError> {
        Ok(Self {
            netlink: Netlink::open()?,
            settings,
            planned: BTreeSet::new(),
            writes: 0,
        })
    }

    /// Changes that this process has made.
    pub(crate) fn writes(&self) -> u64 {
        self.writes
    }

    /// The settings, with the underlay's MTU as it is now.
    pub(crate) fn settings(&mut self, fixed_mtu: Option<u32>, endpoint: Option<IpAddr>) -> &Settings {
        let found = endpoint.and_then(|ip| self.mtu_towards(ip));
        if let Some(mtu) = fixed_mtu.or(found) {
            self.settings.underlay_mtu = mtu;
        }
        &self.settings
    }

    /// The MTU of the link that has this address.
    fn mtu_towards(&self, ip: IpAddr) -> Option<u32> {
        let addresses = self.netlink.addresses().ok()?;
        let links = self.netlink.links().ok()?;
        let mtu = |index: u32| {
            links
                .iter()
                .find(|l| l.index == index && l.kind != LinkKind::Loopback)
                .map(|l| l.mtu)
        };
        addresses
            .iter()
            .filter(|a| a.prefix.addr() == ip)
            .find_map(|a| mtu(a.link))
    }

    /// The names of the links that exist.
    pub(crate) fn link_names(&self) -> Result<BTreeSet<String>, NetlinkError> {
        Ok(self.netlink.links()?.into_iter().map(|link| link.name).collect())
    }

    /// Makes the kernel hold the plan. `complete`: every source has said all it knows.
    pub(crate) fn reconcile(&mut self, plan: &Plan, complete: bool) -> Outcome {
        let mut outcome = Outcome::default();
        let observed = match self.observe() {
            Ok(observed) => observed,
            Err(e) => {
                outcome.problems.push(e.to_string());
                return outcome;
            }
        };
        let prune = if complete {
            Prune::All
        } else {
            Prune::Only(&self.planned)
        };
        let ops = diff(plan, &observed, prune);
        self.apply(&ops, &mut outcome);
        self.planned.extend(plan.routes.keys());
        self.writes += outcome.applied as u64;
        outcome.device = self
            .netlink
            .find_link(&self.settings.device)
            .ok()
            .flatten()
            .map(|link| link.index);
        outcome
    }

    fn observe(&self) -> Result<Observed, NetlinkError> {
        let links = self.netlink.links()?;
        let link = links.iter().find(|link| link.name == self.settings.device);
        let addresses = self.netlink.addresses()?;
        let device = link.map(|link| observed_device(link, &addresses));
        let ours = self.netlink.routes_in(self.settings.table)?;
        let ours = ours
            .into_iter()
            .filter(|route| route.protocol == self.settings.protocol);
        let index = link.map(|link| link.index);
        let routes: BTreeMap<_, _> = ours
            .map(|route| (route.destination, read_route(&route, index)))
            .collect();
        let rules = self
            .netlink
            .rules()?
            .into_iter()
            .filter(|rule| self.is_ours(rule))
            .map(read_rule)
            .collect();
        Ok(Observed {
            device,
            routes,
            rules,
        })
    }

    fn is_ours(&self, rule: &netlink::Rule) -> bool {
        let plain = rule.from.is_none() && rule.to.is_none() && rule.input.is_none() && rule.mark.is_none();
        plain && rule.protocol == self.settings.protocol
    }

    fn apply(&mut self, ops: &[Op], outcome: &mut Outcome) {
        let mut rest = ops;
        while let Some(op) = rest.first() {
            // Routes go in batches: thousands of them are a few writes.
            let same = rest
                .iter()
                .take_while(|next| std::mem::discriminant(*next) == std::mem::discriminant(op))
                .count();
            let (batch, after) = rest.split_at(same);
            rest = after;
            for (op, result) in batch.iter().zip(self.apply_batch(batch)) {
                match result {
                    Ok(()) => {
                        outcome.applied += 1;
                        tracing::debug!(%op, "applied");
                    }
                    Err(e) => {
                        outcome.problems.push(self.explain(op, &e));
                        if matches!(op, Op::AddDevice(_) | Op::DeleteDevice(_)) {
                            return; // without the device nothing that follows can work
                        }
                    }
                }
            }
        }
    }

    fn apply_batch(&self, batch: &[Op]) -> Vec<Result<(), NetlinkError>> {
        let index = || self.netlink.link(&self.settings.device).map(|link| link.index);
        match batch.first() {
            Some(Op::PutRoute(..)) => match index() {
                Ok(index) => {
                    let put = |op: &Op| match op {
                        Op::PutRoute(net, route) => Some(self.kernel_route(*net, route, index)),
                        _ => None,
                    };
                    let routes: Vec<_> = batch.iter().filter_map(put).collect();
                    self.netlink.put_routes(&routes)
                }
                Err(e) => vec![Err(e)],
            },
            Some(Op::DeleteRoute(_)) => {
                let gone = |op: &Op| match op {
                    Op::DeleteRoute(net) => Some(self.kernel_route_key(*net)),
                    _ => None,
                };
                let routes: Vec<_> = batch.iter().filter_map(gone).collect();
                self.netlink.delete_routes(&routes)
            }
            _ => batch.iter().map(|op| self.apply_one(op)).collect(),
        }
    }

    fn apply_one(&self, op: &Op) -> Result<(), NetlinkError> {
        let net = &self.netlink;
        match op {
            Op::AddDevice(d) => net.add_vxlan(
                &Vxlan::external(&d.name)
                    .port(d.port)
                    .mtu(d.mtu)
                    .mac(netlink::Mac(d.mac.0)),
            ),
            Op::DeleteDevice(name) => net.delete_link(name),
            Op::SetMac(name, mac) => net.set_mac(name, netlink::Mac(mac.0)),
            Op::SetMtu(name, mtu) => net.set_mtu(name, *mtu),
            Op::SetNoArp(name) => net.set_no_arp(name),
            Op::SetUp(name) => net.set_up(name),
            Op::AddAddress(name, address) => net.add_address(name, *address),
            Op::DeleteAddress(name, address) => net.delete_address(name, *address),
            Op::AddRule(rule) => net.add_rule(&self.kernel_rule(rule)),
            Op::DeleteRule(rule) => net.delete_rule(&self.kernel_rule(rule)),
            // Always in batches.
            Op::PutRoute(..) | Op::DeleteRoute(_) => Ok(()),
        }
    }

    fn kernel_route_key(&self, net: IpNet) -> netlink::Route {
        netlink::Route::to(net)
            .table(self.settings.table)
            .protocol(self.settings.protocol)
    }

    fn kernel_route(&self, net: IpNet, route: &Route, index: u32) -> netlink::Route {
        let hop = match route.via {
            Some(via) => NextHop::via(via).on(index).onlink(),
            None => NextHop::link(index),
        };
        let mut kernel = self.kernel_route_key(net).next_hop(hop);
        kernel.source = route.source;
        kernel
    }

    fn kernel_rule(&self, rule: &Rule) -> netlink::Rule {
        netlink::Rule::lookup(rule.v6, rule.priority, rule.table).protocol(self.settings.protocol)
    }

    /// Adds to a refusal what a user would look for next.
    fn explain(&self, op: &Op, error: &NetlinkError) -> String {
        let Op::AddDevice(device) = op else {
            if matches!(op, Op::SetUp(_)) && error.is_exists() {
                return self.port_taken(error);
            }
            return error.to_string();
        };
        let known = error.is_exists() || error.errno() == Some(nix::libc::EADDRINUSE);
        if known && device.name == self.settings.device {
            self.port_taken(error)
        } else {
            error.to_string()
        }
    }

    fn port_taken(&self, error: &NetlinkError) -> String {
        let isthmus_tunnel::Mode::Vxlan { port } = self.settings.mode;
        let other = self.netlink.links().ok().and_then(|links| {
            let same = |l: &Link| matches!(l.kind, LinkKind::Vxlan { port: p, .. } if p == port);
            links
                .into_iter()
                .find(|link| same(link) && link.name != self.settings.device)
        });
        match other {
            Some(other) => format!(
                "UDP port {port} belongs to the VXLAN device {} already: remove it (ip link del {}), or give every cluster \
                 of the mesh another --overlay-port",
                other.name, other.name
            ),
            None => error.to_string(),
        }
    }
}

fn observed_device(link: &Link, addresses: &[netlink::Address]) -> ObservedDevice {
    let own = addresses.iter().filter(|a| a.link == link.index && !a.link_local);
    ObservedDevice {
        port: match link.kind {
            LinkKind::Vxlan {
                port, external: true, ..
            } => Some(port),
            _ => None,
        },
        mac: link.mac.map(|mac| Mac(mac.0)),
        mtu: link.mtu,
        up: link.up,
        no_arp: link.no_arp,
        addresses: own.map(|a| a.prefix).collect(),
    }
}

/// A route as we would have written it, or none.
fn read_route(route: &netlink::Route, device: Option<u32>) -> Option<Route> {
    let [hop] = route.next_hops.as_slice() else {
        return None;
    };
    let metric = if route.destination.addr().is_ipv6() {
        DEFAULT_METRIC_V6
    } else {
        0
    };
    let ours = hop.link.is_some() && hop.link == device && route.metric == metric && route.mtu.is_none();
    let kind = route.kind == netlink::RouteKind::Unicast;
    (ours && kind).then_some(Route {
        via: hop.gateway,
        source: route.source,
    })
}

fn read_rule(rule: netlink::Rule) -> Rule {
    Rule {
        v6: rule.v6,
        priority: rule.priority,
        table: rule.table,
    }
}

/// Sets the kernel settings that the data path needs; how many were written, and what failed. A setting that has its value is
/// not written.
pub(crate) fn set_sysctls(device: &str, v6: bool) -> (u64, Vec<String>) {
    let mut wanted = vec![("net/ipv4/ip_forward".to_owned(), "1")];
    // Loose reverse path filter: an answer may come by another way than packets to its source would take.
    let strict = |name: &str| sysctl::read(name).is_ok_and(|value| value == "1");
    let own = format!("net/ipv4/conf/{device}/rp_filter");
    if strict(&own) || strict("net/ipv4/conf/all/rp_filter") {
        wanted.push((own, "2"));
    }
    if v6 {
        wanted.extend(keep_router_advertisements());
        wanted.push(("net/ipv6/conf/all/forwarding".to_owned(), "1"));
    }
    let (mut written, mut problems) = (0, Vec::new());
    for (name, value) in wanted {
        match sysctl::write(&name, value) {
            Ok(changed) => written += u64::from(changed),
            Err(e) => problems.push(e.to_string()),
        }
    }
    (written, problems)
}

/// A host that starts to forward IPv6 no longer takes its default route from router advertisements, unless its links say 2.
fn keep_router_advertisements() -> Vec<(String, &'static str)> {
    if !sysctl::read("net/ipv6/conf/all/forwarding").is_ok_and(|value| value == "0") {
        return Vec::new();
    }
    let links = std::fs::read_dir("/proc/sys/net/ipv6/conf")
        .into_iter()
        .flatten()
        .flatten();
    let names = links.filter_map(|link| link.file_name().into_string().ok());
    let settings = names
        .filter(|name| name != "all" && name != "default")
        .map(|name| format!("net/ipv6/conf/{name}/accept_ra"));
    settings
        .filter(|name| sysctl::read(name).is_ok_and(|value| value == "1"))
        .map(|name| (name, "2"))
        .collect()
}
