//! Routes: one at a time or many in one write.
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop,
    RouteNextHopFlags, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::address::family;
use crate::socket::Request;
use crate::{Netlink, NetlinkError};

/// The main table.
const MAIN: u32 = 254;
/// The protocol of routes that an administrator made.
const STATIC: u8 = 4;

/// What happens to a packet that takes a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// It goes to a next hop.
    Unicast,
    /// It is dropped in silence.
    Blackhole,
    /// It is dropped with ICMP unreachable.
    Unreachable,
    /// It is dropped with ICMP prohibited.
    Prohibit,
    /// It is for this host.
    Local,
    /// Another type, by the kernel's number.
    Other(u8),
}

/// Where a packet goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// Index of the link it leaves by; may be left out where a gateway is given.
    pub link: Option<u32>,
    /// The router it goes to; none = the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Its share among several, 1 to 256.
    pub weight: u16,
    /// The gateway is on the link although no address says so.
    pub onlink: bool,
}

impl NextHop {
    /// By a router; the kernel finds the link.
    pub fn via(gateway: IpAddr) -> Self {
        Self {
            link: None,
            gateway: Some(gateway),
            weight: 1,
            onlink: false,
        }
    }

    /// Straight out of a link.
    pub fn link(index: u32) -> Self {
        Self {
            link: Some(index),
            gateway: None,
            weight: 1,
            onlink: false,
        }
    }

    /// Leaving by this link.
    #[must_use]
    pub fn on(mut self, index: u32) -> Self {
        self.link = Some(index);
        self
    }

    /// The gateway is on the link although no address says so.
    #[must_use]
    pub fn onlink(mut self) -> Self {
        self.onlink = true;
        self
    }

    /// Its share among several, 1 to 256.
    #[must_use]
    pub fn weight(mut self, weight: u16) -> Self {
        self.weight = weight.clamp(1, 256);
        self
    }
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Where packets want to go.
    pub destination: IpNet,
    /// Routing table.
    pub table: u32,
    /// Who made it (rtproto number).
    pub protocol: u8,
    /// Priority; 0 = the kernel's default (1024 for IPv6 when read back).
    pub metric: u32,
    /// What happens to the packet.
    pub kind: RouteKind,
    /// Next hops; several share the flows.
    pub next_hops: Vec<NextHop>,
    /// Source address of packets that this host sends by it.
    pub source: Option<IpAddr>,
    /// Path MTU in bytes.
    pub mtu: Option<u32>,
}

impl Route {
    /// A static route of the main table without a next hop yet.
    pub fn to(destination: IpNet) -> Self {
        Self {
            destination: destination.trunc(),
            table: MAIN,
            protocol: STATIC,
            metric: 0,
            kind: RouteKind::Unicast,
            next_hops: Vec::new(),
            source: None,
            mtu: None,
        }
    }

    /// The default route of IPv4.
    pub fn default_v4() -> Self {
        Self::to(IpNet::V4(Ipv4Net::default()))
    }

    /// The default route of IPv6.
    pub fn default_v6() -> Self {
        Self::to(IpNet::V6(Ipv6Net::default()))
    }

    /// Adds a next hop.
    #[must_use]
    pub fn next_hop(mut self, next_hop: NextHop) -> Self {
        self.next_hops.push(next_hop);
        self
    }

    /// Adds a router as next hop.
    #[must_use]
    pub fn via(self, gateway: IpAddr) -> Self {
        self.next_hop(NextHop::via(gateway))
    }

    /// Adds a link as next hop.
    #[must_use]
    pub fn dev(self, index: u32) -> Self {
        self.next_hop(NextHop::link(index))
    }

    /// In another table.
    #[must_use]
    pub fn table(mut self, table: u32) -> Self {
        self.table = table;
        self
    }

    /// Tagged with the rtproto number of its maker.
    #[must_use]
    pub fn protocol(mut self, protocol: u8) -> Self {
        self.protocol = protocol;
        self
    }

    /// With a priority.
    #[must_use]
    pub fn metric(mut self, metric: u32) -> Self {
        self.metric = metric;
        self
    }

    /// With a source address for packets that this host sends.
    #[must_use]
    pub fn source(mut self, source: IpAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// With a path MTU.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// Of another kind.
    #[must_use]
    pub fn kind(mut self, kind: RouteKind) -> Self {
        self.kind = kind;
        self
    }

    fn describe(&self) -> String {
        let hops: Vec<String> = self.next_hops.iter().map(describe_hop).collect();
        format!("{}{} table {}", self.destination, hops.concat(), self.table)
    }
}

fn describe_hop(hop: &NextHop) -> String {
    let gateway = hop.gateway.map_or_else(String::new, |ip| format!(" via {ip}"));
    let link = hop
        .link
        .map_or_else(String::new, |index| format!(" dev #{index}"));
    gateway + &link
}

impl Netlink {
    /// All routes of both families and all tables, without the kernel's cache.
    pub fn routes(&self) -> Result<Vec<Route>, NetlinkError> {
        self.list_routes(None)
    }

    /// All routes of both families in one table; the kernel leaves the others out, so a full BGP table costs nothing here.
    pub fn routes_in(&self, table: u32) -> Result<Vec<Route>, NetlinkError> {
        let mut routes = self.list_routes(Some(table))?;
        routes.retain(|route| route.table == table);
        Ok(routes)
    }

    fn list_routes(&self, table: Option<u32>) -> Result<Vec<Route>, NetlinkError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            message.attributes.extend(table.map(RouteAttribute::Table));
            let listed = self.dump(RouteNetlinkMessage::GetRoute(message), "list routes");
            let listed = match listed {
                // A table that nobody has used yet.
                Err(e) if table.is_some() && e.is_missing() => continue,
                other => other?,
            };
            for message in listed {
                if let RouteNetlinkMessage::NewRoute(message) = message {
                    routes.extend(read_route(&message));
                }
            }
        }
        Ok(routes)
    }

    /// Puts a route: makes it, or replaces the one with its destination, table and metric.
    pub fn put_route(&self, route: &Route) -> Result<(), NetlinkError> {
        self.change_many(vec![put(route)]).pop().unwrap_or(Ok(()))
    }

    /// Deletes the route with this destination, table, metric, kind and protocol; deleting what is not there is no error.
    pub fn delete_route(&self, route: &Route) -> Result<(), NetlinkError> {
        forgive(self.change_many(vec![delete(route)]).pop().unwrap_or(Ok(())))
    }

    /// Puts many routes in as few writes as possible; one result for each, in order.
    pub fn put_routes<'r>(
        &self,
        routes: impl IntoIterator<Item = &'r Route>,
    ) -> Vec<Result<(), NetlinkError>> {
        self.change_many(routes.into_iter().map(put).collect())
    }

    /// Deletes many routes in as few writes as possible; one result for each, in order.
    pub fn delete_routes<'r>(
        &self,
        routes: impl IntoIterator<Item = &'r Route>,
    ) -> Vec<Result<(), NetlinkError>> {
        let results = self.change_many(routes.into_iter().map(delete).collect());
        results.into_iter().map(forgive).collect()
    }
}

fn forgive(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(e) if e.is_missing() => Ok(()),
        other => other,
    }
}

fn put(route: &Route) -> Request {
    Request {
        message: RouteNetlinkMessage::NewRoute(route_message(route)),
        flags: NLM_F_CREATE | NLM_F_REPLACE,
        action: format!("put route {}", route.describe()),
    }
}

fn delete(route: &Route) -> Request {
    // The kernel compares everything that a request carries: only the key is sent.
    let key = Route {
        next_hops: Vec::new(),
        source: None,
        mtu: None,
        ..route.clone()
    };
    let mut message = route_message(&key);
    message.header.scope = RouteScope::NoWhere;
    Request {
        message: RouteNetlinkMessage::DelRoute(message),
        flags: 0,
        action: format!("delete route {}", route.describe()),
    }
}

fn route_message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.destination.addr());
    message.header.destination_prefix_length = route.destination.prefix_len();
    message.header.protocol = RouteProtocol::from(route.protocol);
    message.header.kind = kind_number(route.kind);
    message.header.scope = scope(route);
    message.header.table = u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Table(route.table));
    if route.destination.prefix_len() > 0 {
        attributes.push(RouteAttribute::Destination(route.destination.network().into()));
    }
    if route.metric > 0 {
        attributes.push(RouteAttribute::Priority(route.metric));
    }
    attributes.extend(route.source.map(|ip| RouteAttribute::PrefSource(ip.into())));
    attributes.extend(
        route
            .mtu
            .map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])),
    );
    match route.next_hops.as_slice() {
        [] => {}
        [only] => {
            attributes.extend(only.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
            attributes.extend(only.link.map(RouteAttribute::Oif));
            if only.onlink {
                message.header.flags |= RouteFlags::Onlink;
            }
        }
        several => attributes.push(RouteAttribute::MultiPath(several.iter().map(multipath).collect())),
    }
    message
}

fn scope(route: &Route) -> RouteScope {
    let direct = route.next_hops.iter().all(|hop| hop.gateway.is_none());
    match route.kind {
        RouteKind::Local => RouteScope::Host,
        RouteKind::Unicast if direct && route.destination.addr().is_ipv4() => RouteScope::Link,
        _ => RouteScope::Universe,
    }
}

fn multipath(hop: &NextHop) -> RouteNextHop {
    let mut next_hop = RouteNextHop::default();
    next_hop.hops = u8::try_from(hop.weight.saturating_sub(1)).unwrap_or(u8::MAX);
    next_hop.interface_index = hop.link.unwrap_or(0);
    if hop.onlink {
        next_hop.flags |= RouteNextHopFlags::Onlink;
    }
    next_hop
        .attributes
        .extend(hop.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
    next_hop
}

fn kind_number(kind: RouteKind) -> RouteType {
    match kind {
        RouteKind::Unicast => RouteType::Unicast,
        RouteKind::Blackhole => RouteType::BlackHole,
        RouteKind::Unreachable => RouteType::Unreachable,
        RouteKind::Prohibit => RouteType::Prohibit,
        RouteKind::Local => RouteType::Local,
        RouteKind::Other(number) => RouteType::from(number),
    }
}

fn read_kind(kind: RouteType) -> RouteKind {
    match kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::Prohibit => RouteKind::Prohibit,
        RouteType::Local => RouteKind::Local,
        other => RouteKind::Other(other.into()),
    }
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

pub(crate) fn read_route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let everything = match header.address_family {
        AddressFamily::Inet => IpNet::V4(Ipv4Net::default()),
        AddressFamily::Inet6 => IpNet::V6(Ipv6Net::default()),
        _ => return None,
    };
    if header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let mut route = Route::to(everything)
        .table(header.table.into())
        .protocol(header.protocol.into())
        .kind(read_kind(header.kind));
    let mut only = NextHop {
        link: None,
        gateway: None,
        weight: 1,
        onlink: header.flags.contains(RouteFlags::Onlink),
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(ip) => {
                route.destination = IpNet::new(ip_of(ip)?, header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::PrefSource(ip) => route.source = ip_of(ip),
            RouteAttribute::Gateway(ip) => only.gateway = ip_of(ip),
            RouteAttribute::Oif(index) => only.link = Some(*index),
            RouteAttribute::MultiPath(hops) => route.next_hops = hops.iter().map(read_hop).collect(),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    if route.next_hops.is_empty() && (only.link.is_some() || only.gateway.is_some()) {
        route.next_hops.push(only);
    }
    Some(route)
}

fn read_hop(hop: &RouteNextHop) -> NextHop {
    let gateway = hop.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(ip) => ip_of(ip),
        _ => None,
    });
    NextHop {
        link: (hop.interface_index != 0).then_some(hop.interface_index),
        gateway,
        weight: u16::from(hop.hops) + 1,
        onlink: hop.flags.contains(RouteNextHopFlags::Onlink),
    }
}
