//! From an UPDATE to paths: what is refused, what policy rejects, what is kept (RFC 4271 §9, RFC 7606).
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use isthmus_bgp_packet::notification::cease;
use isthmus_bgp_packet::{
    AfiSafi, AttributesView, Context, Disposition, Family, NextHop, Notification, Prefixes, Update,
};

use super::{Member, Speaker};
use crate::config::{FamilyConfig, PeerId};
use crate::io::{ConnId, Notice};
use crate::peer::Block;
use crate::peer::connection::Session;
use crate::policy::Verdict;
use crate::rib::Path;
use crate::view::RouteSource;

/// Why a route is not taken although its message is well formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Objection {
    /// Silently: loops are normal.
    Refuse,
    /// As a malformation (RFC 7606).
    Malformed(&'static str),
}

impl Speaker {
    pub(super) fn update_received(&mut self, now: Duration, id: PeerId, conn: ConnId, body: &[u8]) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let Some(session) = member.peer.session.clone() else {
            return;
        };
        member.peer.counters.updates_in += 1;
        let context = Context {
            as4: session.as4,
            external: !session.internal,
        };
        let update = match Update::decode(body, context) {
            Ok(update) => update,
            Err(notification) => return self.refuse(now, id, conn, notification),
        };
        if let Some(family) = update.end_of_rib() {
            if let Ok(family) = Family::try_from(family) {
                self.end_of_rib_received(now, id, family);
            }
            return;
        }
        for prefixes in update
            .withdrawn()
            .filter(|prefixes| session.has(prefixes.family()))
        {
            prefixes.for_each(|prefix| self.forget(id, &prefix));
        }
        self.announced(id, &session, &update);
        self.check_limits(now, id, conn);
    }

    fn announced(&mut self, id: PeerId, session: &Session, update: &Update<'_>) {
        let mut canonical = Vec::new();
        if update.disposition() != Disposition::TreatAsWithdraw {
            update.canonical_attributes(&mut canonical);
        }
        let view = AttributesView::new(&canonical);
        self.note_fault(id, update);
        for (prefixes, next_hop) in update.announced() {
            if !session.has(prefixes.family()) {
                continue;
            }
            let Some(next_hop) = next_hop.filter(|_| update.disposition() != Disposition::TreatAsWithdraw)
            else {
                prefixes.for_each(|prefix| self.forget(id, &prefix));
                continue;
            };
            let Some(member) = self.members.get_mut(&id) else {
                return;
            };
            match objection(
                member,
                session,
                self.config.asn,
                self.config.router_id.into(),
                view,
                next_hop,
            ) {
                Some(objection) => self.object(id, objection, prefixes),
                None => self.take(id, prefixes, next_hop.address, view),
            }
        }
    }

    /// Counts and reports what RFC 7606 did with the message.
    fn note_fault(&mut self, id: PeerId, update: &Update<'_>) {
        let Some(fault) = update.fault() else { return };
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let fault_text = fault.to_string();
        if fault.disposition == Disposition::TreatAsWithdraw {
            member.peer.counters.treat_as_withdraw += 1;
            let prefixes = update.announced().map(|(prefixes, _)| prefixes.count()).sum();
            self.notice(
                id,
                Notice::TreatedAsWithdraw {
                    fault: fault_text,
                    prefixes,
                },
            );
        } else {
            member.peer.counters.attribute_discard += 1;
            self.notice(id, Notice::AttributeDiscarded { fault: fault_text });
        }
    }

    fn object(&mut self, id: PeerId, objection: Objection, prefixes: Prefixes<'_>) {
        let count = prefixes.count();
        if let Some(member) = self.members.get_mut(&id) {
            match objection {
                Objection::Refuse => member.peer.counters.routes_refused += count as u64,
                Objection::Malformed(what) => {
                    member.peer.counters.treat_as_withdraw += 1;
                    self.notice(
                        id,
                        Notice::TreatedAsWithdraw {
                            fault: what.to_owned(),
                            prefixes: count,
                        },
                    );
                }
            }
        }
        prefixes.for_each(|prefix| self.forget(id, &prefix));
    }

    /// Takes routes with good attributes into the RIB.
    fn take(&mut self, id: PeerId, prefixes: Prefixes<'_>, next_hop: IpAddr, view: AttributesView<'_>) {
        let family = prefixes.family();
        let source = RouteSource::Peer(id);
        let Self { members, rib, .. } = self;
        let Some(Member { peer, families, .. }) = members.get_mut(&id) else {
            return;
        };
        let (Some(config), Some(state)) = (peer.config.families.get(&family), families.get_mut(&family))
        else {
            return;
        };
        let attr = rib.interner.intern(Some(next_hop), view.as_bytes());
        for prefix in prefixes {
            let possible = is_destination(&prefix);
            peer.counters.routes_refused += u64::from(!possible);
            let path = judge(config, &prefix, view, Path::new(source, attr)).filter(|_| possible);
            let old = match path {
                Some(path) => {
                    rib.interner.keep(attr);
                    state.count(&path, true);
                    rib.insert(prefix, path)
                }
                None => rib.remove(&prefix, source),
            };
            if let Some(old) = old {
                state.count(&old, false);
            }
        }
        rib.interner.release(attr);
    }

    /// The peer has no route to the prefix (any more).
    pub(super) fn forget(&mut self, id: PeerId, prefix: &IpNet) {
        let Some(old) = self.rib.remove(prefix, RouteSource::Peer(id)) else {
            return;
        };
        if let Some(state) = self
            .members
            .get_mut(&id)
            .and_then(|m| m.families.get_mut(&Family::of(prefix)))
        {
            state.count(&old, false);
        }
    }

    /// Ends the session of a peer that sends too many prefixes (RFC 4486 §4).
    fn check_limits(&mut self, now: Duration, id: PeerId, conn: ConnId) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let exceeded = member.families.iter().find_map(|(family, state)| {
            let limit = member.peer.config.families.get(family)?.max_prefixes?;
            (state.received > limit.limit as usize).then_some((*family, limit))
        });
        let Some((family, limit)) = exceeded else { return };
        let AfiSafi { afi, safi } = family.into();
        let mut data = afi.to_be_bytes().to_vec();
        data.push(safi);
        data.extend_from_slice(&limit.limit.to_be_bytes());
        member.peer.block = Some(
            limit
                .restart_after
                .map_or(Block::ForGood, |pause| Block::Until(now + pause)),
        );
        let notification = Notification::with_data(
            isthmus_bgp_packet::notification::code::CEASE,
            cease::MAX_PREFIXES,
            &data,
        );
        self.refuse(now, id, conn, notification);
    }
}

/// What speaks against the routes of a message.
fn objection(
    member: &Member,
    session: &Session,
    asn: u32,
    router_id: u32,
    view: AttributesView<'_>,
    next_hop: NextHop,
) -> Option<Objection> {
    let path = view.as_path();
    let config = &member.peer.config;
    if !session.internal && config.enforce_first_as && path.first() != Some(session.asn) {
        return Some(Objection::Malformed(
            "AS_PATH: does not begin with the AS of the peer",
        ));
    }
    let own_path = path.contains(asn) || view.originator_id().is_some_and(|id| u32::from(id) == router_id);
    let own_hop = next_hop.address == session.local.ip()
        || config
            .families
            .values()
            .any(|family| family.next_hop == Some(next_hop.address));
    (own_path || own_hop).then_some(Objection::Refuse)
}

/// Applies the import policy; `None` if the route is not even kept.
fn judge(config: &FamilyConfig, prefix: &IpNet, view: AttributesView<'_>, mut path: Path) -> Option<Path> {
    let rejected = config.import.verdict(prefix, view.communities()) == Verdict::Reject;
    path.set_rejected(rejected);
    (!rejected || config.keep_rejected).then_some(path)
}

/// False for prefixes that no route can lead to: loopback, multicast, link-local, "this network" (RFC 4271 §6.3: ignored).
fn is_destination(prefix: &IpNet) -> bool {
    match prefix {
        IpNet::V4(net) => {
            let address = net.network();
            let this_network = address.octets()[0] == 0 && net.prefix_len() >= 8;
            !(address.is_loopback() || address.is_multicast() || this_network)
        }
        IpNet::V6(net) => {
            let address = net.network();
            let host = net.prefix_len() == 128 && (address.is_loopback() || address.is_unspecified());
            !(host || address.is_multicast() || (address.is_unicast_link_local() && net.prefix_len() >= 10))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_destinations() {
        for (prefix, expected) in [
            ("0.0.0.0/0", true),
            ("10.0.0.0/8", true),
            ("240.0.0.0/8", true),
            ("0.0.0.0/8", false),
            ("127.0.0.0/8", false),
            ("224.0.0.0/4", false),
            ("::/0", true),
            ("2001:db8::/32", true),
            ("::1/128", false),
            ("ff00::/8", false),
            ("fe80::/64", false),
        ] {
            assert_eq!(is_destination(&prefix.parse().unwrap()), expected, "{prefix}");
        }
    }
}
