//! Read-only views.
use isthmus_bgp_packet::Family;

use super::{Member, Speaker};
use crate::config::PeerId;
use crate::rib::{Path, Slot};
use crate::view::{FamilyView, PeerView, RouteSource, RouteView};

impl Speaker {
    /// Every peer, in order of its id.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerView> {
        self.members.values().map(view_of).collect()
    }

    /// One peer.
    #[must_use]
    pub fn peer(&self, peer: PeerId) -> Option<PeerView> {
        self.members.get(&peer).map(view_of)
    }

    /// The paths of a family in order of prefix, best first within each: all of them, or the best ones only.
    #[must_use]
    pub fn routes(&self, family: Family, only_best: bool) -> Vec<RouteView> {
        let mut list: Vec<RouteView> = Vec::new();
        for slot in &self.rib.table(family).slots {
            let paths = slot.paths.iter().map(|path| self.route(slot, path));
            list.extend(paths.filter(|route| route.best || !only_best));
        }
        list.sort_by_key(|route| (route.prefix, !route.best, route.source));
        list
    }

    /// What a peer has sent, in order of prefix, before import policy (see [`RouteView::rejected`]).
    #[must_use]
    pub fn routes_in(&self, peer: PeerId, family: Family) -> Vec<RouteView> {
        let source = RouteSource::Peer(peer);
        let of_slot = |slot| {
            let of_peer = move |slot: &Slot| slot.paths.iter().find(|path| path.source == source).copied();
            of_peer(slot).map(|path| self.route(slot, &path))
        };
        let mut list: Vec<RouteView> = self.rib.table(family).slots.iter().filter_map(of_slot).collect();
        list.sort_by_key(|route| route.prefix);
        list
    }

    /// What a peer has been sent, in order of prefix, as it was sent.
    #[must_use]
    pub fn routes_out(&self, peer: PeerId, family: Family) -> Vec<RouteView> {
        let Some(state) = self
            .members
            .get(&peer)
            .and_then(|member| member.families.get(&family))
        else {
            return Vec::new();
        };
        let table = self.rib.table(family);
        let view = |(slot, attr)| {
            let slot: &Slot = &table.slots[slot as usize];
            let entry = self.rib.interner.entry(attr);
            RouteView {
                prefix: slot.prefix,
                source: slot.best.map_or(RouteSource::Local, |best| best.source),
                next_hop: entry.next_hop,
                attributes: entry.attributes.clone(),
                best: slot.best.is_some(),
                rejected: false,
                stale: slot.best.is_some_and(|best| best.is_stale()),
            }
        };
        let mut list: Vec<RouteView> = state.out.all_sent().map(view).collect();
        list.sort_by_key(|route| route.prefix);
        list
    }

    /// How many different sets of attributes the routes in and out have; a measure of memory.
    #[must_use]
    pub fn attribute_sets(&self) -> usize {
        self.rib.interner.len()
    }

    fn route(&self, slot: &Slot, path: &Path) -> RouteView {
        let entry = self.rib.interner.entry(path.attr);
        RouteView {
            prefix: slot.prefix,
            source: path.source,
            next_hop: entry.next_hop,
            attributes: entry.attributes.clone(),
            best: slot.best.is_some_and(|best| best.source == path.source),
            rejected: !path.is_usable(),
            stale: path.is_stale(),
        }
    }
}

fn view_of(member: &Member) -> PeerView {
    let peer = &member.peer;
    let (state, since) = peer.state();
    let (session, last) = (peer.session.as_ref(), peer.last_session.as_ref());
    let connection = peer.connections.iter().max_by_key(|connection| connection.phase);
    let family = |(family, state): (&Family, &super::FamilyState)| FamilyView {
        family: *family,
        negotiated: session.is_some_and(|session| session.has(*family)),
        received: state.received,
        accepted: state.accepted,
        stale: state.stale,
        advertised: state.out.count,
        no_next_hop: state.out.hopless(),
        end_of_rib_received: state.end_of_rib_received,
        end_of_rib_sent: state.out.end_of_rib_sent,
    };
    PeerView {
        id: peer.id,
        address: peer.config.address,
        asn: if peer.config.asn > 0 {
            peer.config.asn
        } else {
            last.map_or(0, |session| session.asn)
        },
        router_id: last.map(|session| session.router_id),
        internal: last.map(|session| session.internal),
        state,
        since,
        local: connection.and_then(|connection| connection.local),
        remote: connection
            .filter(|connection| connection.local.is_some())
            .map(|connection| connection.remote),
        hold_time: session.map(|session| session.hold_time),
        keepalive: session.and_then(|session| session.keepalive),
        capabilities: last.map(|session| session.capabilities.clone()),
        last_error: peer.last_error.as_ref().map(|error| error.text.clone()),
        last_error_at: peer.last_error.as_ref().map(|error| error.at),
        counters: peer.counters,
        families: member.families.iter().map(family).collect(),
    }
}
