//! The engine's pictures as the admin API shows them.
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use isthmus_admin::bgp::{
    AdvertisementOrigin, AdvertisementView, PeerCounters, PeerFamilyView, PeerView, RouteTable, RouteView,
    RoutesQuery,
};
use isthmus_bgp_engine as engine;
use isthmus_bgp_engine::{PeerId, RouteSource, Speaker, State};
use isthmus_bgp_packet::{Family, Origin};

use crate::advertise::{self, Plan};
use crate::config::Import;
use crate::peers::Peers;

/// What views are made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene<'a> {
    /// The name of this node.
    pub(crate) node: &'a str,
    /// The engine.
    pub(crate) engine: &'a Speaker,
    /// The configured peers.
    pub(crate) peers: &'a Peers,
    /// What this node wants to advertise.
    pub(crate) plan: &'a Plan,
    /// The engine's clock.
    pub(crate) now: Duration,
}

/// The name of a family in configuration and views.
pub(crate) fn family_name(family: Family) -> &'static str {
    match family {
        Family::Ipv4Unicast => "ipv4-unicast",
        Family::Ipv6Unicast => "ipv6-unicast",
    }
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Idle => "idle",
        State::Connect => "connect",
        State::Active => "active",
        State::OpenSent => "open_sent",
        State::OpenConfirm => "open_confirm",
        State::Established => "established",
    }
}

/// Every peer.
pub(crate) fn peers(scene: Scene<'_>) -> Vec<PeerView> {
    scene
        .engine
        .peers()
        .into_iter()
        .map(|peer| peer_view(scene, peer))
        .collect()
}

fn peer_view(scene: Scene<'_>, peer: engine::PeerView) -> PeerView {
    let ago = |at: Duration| scene.now.saturating_sub(at).as_secs_f64();
    let config = scene.peers.config(peer.id);
    let port = config.map_or(crate::config::BGP_PORT, |config| config.address.port());
    let offered = peer
        .capabilities
        .as_ref()
        .is_some_and(|caps| caps.graceful_restart.is_some());
    let configured = config.is_some_and(|config| config.graceful_restart.is_some());
    let accepts = config.is_some_and(|config| config.import == Import::Accept);
    let counters = peer.counters;
    PeerView {
        node: scene.node.to_owned(),
        name: scene.peers.name(peer.id).to_owned(),
        local_asn: scene.engine.config().asn,
        peer_asn: peer.asn,
        peer_address: SocketAddr::new(peer.address, port),
        local_address: peer.local,
        router_id: peer.router_id,
        session_state: state_name(peer.state).to_owned(),
        state_seconds: ago(peer.since),
        hold_time_seconds: peer.hold_time,
        keepalive_seconds: peer.keepalive.map(|time| time.as_secs_f64()),
        graceful_restart: offered && configured,
        families: peer
            .families
            .iter()
            .map(|family| family_view(family, accepts))
            .collect(),
        last_error: peer.last_error,
        last_error_seconds: peer.last_error_at.map(ago),
        capabilities: peer.capabilities.as_ref().map(capabilities).unwrap_or_default(),
        counters: PeerCounters {
            messages_received: counters.messages_in,
            messages_sent: counters.messages_out,
            updates_received: counters.updates_in,
            updates_sent: counters.updates_out,
            notifications_received: counters.notifications_in,
            notifications_sent: counters.notifications_out,
            treated_as_withdraw: counters.treat_as_withdraw,
            attributes_discarded: counters.attribute_discard,
            routes_refused: counters.routes_refused,
            established: counters.established,
            flaps: counters.flaps,
            collisions: counters.collisions,
        },
    }
}

fn family_view(family: &engine::FamilyView, accepts: bool) -> PeerFamilyView {
    PeerFamilyView {
        family: family_name(family.family).to_owned(),
        negotiated: family.negotiated,
        received: family.received,
        accepted: if accepts { family.received } else { 0 },
        stale: family.stale,
        advertised: family.advertised,
        no_next_hop: family.no_next_hop,
    }
}

fn capabilities(caps: &engine::PeerCapabilities) -> Vec<String> {
    let mut list: Vec<String> = caps
        .families
        .iter()
        .map(|family| format!("multiprotocol {family}"))
        .collect();
    let flags = [
        (caps.four_byte_as, "4-byte AS"),
        (caps.route_refresh, "route refresh"),
        (caps.enhanced_route_refresh, "enhanced route refresh"),
        (caps.extended_message, "extended message"),
    ];
    list.extend(
        flags
            .iter()
            .filter(|(has, _)| *has)
            .map(|(_, name)| (*name).to_owned()),
    );
    if let Some(seconds) = caps.graceful_restart {
        list.push(format!("graceful restart {seconds} s"));
    }
    if let Some(name) = &caps.host_name {
        list.push(format!("host name {name}"));
    }
    list.extend(caps.unknown.iter().map(|code| format!("unknown {code}")));
    list
}

/// The routes that a query asks for.
pub(crate) fn routes(scene: Scene<'_>, query: &RoutesQuery) -> Result<Vec<RouteView>, String> {
    let families: Vec<Family> = match query.family.as_deref() {
        None => Family::ALL.to_vec(),
        Some(name) => {
            let known = Family::ALL
                .into_iter()
                .find(|family| family_name(*family) == name);
            let unknown =
                || format!("address family {name:?} is not known: use ipv4-unicast or ipv6-unicast");
            vec![known.ok_or_else(unknown)?]
        }
    };
    let peers: Vec<PeerId> = match query.peer.as_deref() {
        None => scene.engine.peers().iter().map(|peer| peer.id).collect(),
        Some(name) => vec![find_peer(scene.peers, name)?],
    };
    let mut list = Vec::new();
    for family in families {
        match query.table {
            RouteTable::Best => list.extend(best(scene, family)),
            RouteTable::In => list.extend(peers.iter().flat_map(|peer| received(scene, *peer, family))),
            RouteTable::Out => list.extend(peers.iter().flat_map(|peer| sent(scene, *peer, family))),
        }
    }
    Ok(list)
}

/// A peer by name or address, or a message that names the ones there are.
pub(crate) fn find_peer(peers: &Peers, name: &str) -> Result<PeerId, String> {
    let unknown = || format!("no peer {name:?} is configured: there are {}", peers.names());
    peers.find(name).ok_or_else(unknown)
}

fn best(scene: Scene<'_>, family: Family) -> Vec<RouteView> {
    let routes = scene.engine.routes(family, true);
    routes
        .into_iter()
        .map(|route| {
            let reason = own_reason(scene.plan, &route);
            route_view(scene, None, family, route, true, reason)
        })
        .collect()
}

fn received(scene: Scene<'_>, peer: PeerId, family: Family) -> Vec<RouteView> {
    let routes = scene.engine.routes_in(peer, family);
    routes
        .into_iter()
        .map(|route| {
            // Only what the import setting accepts is kept at all.
            route_view(scene, Some(peer), family, route, true, None)
        })
        .collect()
}

/// What the peer was sent, then what this node wants advertised but did not send, with the reason.
fn sent(scene: Scene<'_>, peer: PeerId, family: Family) -> Vec<RouteView> {
    let routes = scene.engine.routes_out(peer, family);
    let prefixes: BTreeSet<IpNet> = routes.iter().map(|route| route.prefix).collect();
    let mut list: Vec<RouteView> = routes
        .into_iter()
        .map(|route| {
            let reason = own_reason(scene.plan, &route);
            route_view(scene, Some(peer), family, route, true, reason)
        })
        .collect();
    let wanted = scene
        .plan
        .keys()
        .filter(|prefix| Family::of(prefix) == family && !prefixes.contains(prefix));
    list.extend(wanted.map(|prefix| withheld(scene, peer, family, *prefix)));
    list.sort_by_key(|route| route.prefix);
    list
}

fn withheld(scene: Scene<'_>, peer: PeerId, family: Family, prefix: IpNet) -> RouteView {
    RouteView {
        node: scene.node.to_owned(),
        local_asn: scene.engine.config().asn,
        peer: Some(scene.peers.name(peer).to_owned()),
        family: family_name(family).to_owned(),
        prefix,
        next_hop: None,
        source: "local".to_owned(),
        as_path: Vec::new(),
        origin: "igp".to_owned(),
        med: None,
        local_pref: None,
        communities: Vec::new(),
        active: false,
        stale: false,
        reason: Some(why_withheld(scene, peer, family, prefix)),
    }
}

fn why_withheld(scene: Scene<'_>, peer: PeerId, family: Family, prefix: IpNet) -> String {
    let origins = &scene.plan[&prefix];
    if !advertise::advertised(origins) {
        return reasons(origins);
    }
    let Some(view) = scene.engine.peer(peer) else {
        return "the peer is not configured".to_owned();
    };
    if view.state != State::Established {
        return format!("the session is {}", state_name(view.state));
    }
    let name = family_name(family);
    match view.families.iter().find(|one| one.family == family) {
        None => format!("{name} is not among the families of this peer"),
        Some(one) if !one.negotiated => format!("the peer does not offer {name}"),
        Some(one) if one.no_next_hop > 0 => {
            format!(
                "no next hop for {name}: set nextHop, or give the interface of the session an address of this family"
            )
        }
        Some(_) => "not sent yet".to_owned(),
    }
}

fn own_reason(plan: &Plan, route: &engine::RouteView) -> Option<String> {
    (route.source == RouteSource::Local)
        .then(|| plan.get(&route.prefix).map(reasons))
        .flatten()
}

fn reasons(origins: &std::collections::BTreeMap<advertise::Origin, advertise::Verdict>) -> String {
    let list: Vec<String> = origins
        .iter()
        .map(|(origin, verdict)| match origin {
            advertise::Origin::PodCidr => verdict.to_string(),
            advertise::Origin::Service(_) => format!("{origin}: {verdict}"),
        })
        .collect();
    list.join("; ")
}

fn route_view(
    scene: Scene<'_>,
    peer: Option<PeerId>,
    family: Family,
    route: engine::RouteView,
    active: bool,
    reason: Option<String>,
) -> RouteView {
    let attributes = route.attributes.view();
    let communities = attributes.communities().map(|one| one.to_string());
    let large = attributes.large_communities().map(|one| one.to_string());
    RouteView {
        node: scene.node.to_owned(),
        local_asn: scene.engine.config().asn,
        peer: peer.map(|peer| scene.peers.name(peer).to_owned()),
        family: family_name(family).to_owned(),
        prefix: route.prefix,
        next_hop: route.next_hop,
        source: match route.source {
            RouteSource::Local => "local".to_owned(),
            RouteSource::Peer(peer) => scene.peers.name(peer).to_owned(),
        },
        as_path: attributes.as_path().asns().collect(),
        origin: match attributes.origin() {
            Origin::Igp => "igp",
            Origin::Egp => "egp",
            Origin::Incomplete => "incomplete",
        }
        .to_owned(),
        med: attributes.med(),
        local_pref: attributes.local_pref(),
        communities: communities.chain(large).collect(),
        active,
        stale: route.stale,
        reason,
    }
}

/// What this node wants advertised.
pub(crate) fn advertisements(plan: &Plan) -> Vec<AdvertisementView> {
    let view = |(prefix, origins): (
        &IpNet,
        &std::collections::BTreeMap<advertise::Origin, advertise::Verdict>,
    )| {
        AdvertisementView {
            prefix: *prefix,
            advertised: advertise::advertised(origins),
            origins: origins
                .iter()
                .map(|(origin, verdict)| AdvertisementOrigin {
                    origin: origin.to_string(),
                    advertised: verdict.advertised(),
                    reason: verdict.to_string(),
                })
                .collect(),
        }
    };
    plan.iter().map(view).collect()
}
