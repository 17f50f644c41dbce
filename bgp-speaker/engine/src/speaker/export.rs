//! From best paths to UPDATEs: who may hear of a route, with what attributes, packed how (RFC 4271 §9.1.3, §9.2).
use std::collections::BTreeMap;
use std::net::IpAddr;

use hashbrown::HashMap;
use ipnet::IpNet;
use isthmus_bgp_packet::attribute::kind;
use isthmus_bgp_packet::{Attributes, AttributesView, Community, ExtendedCommunity, Family, write};

use super::{Speaker, source_info};
use crate::config::{FamilyConfig, OriginatedRoutes, PeerId};
use crate::io::Notice;
use crate::peer::connection::Session;
use crate::policy::Verdict;
use crate::rib::intern::{AttrId, DEFAULT_LOCAL_PREF};
use crate::rib::{Path, Slot};
use crate::view::RouteSource;

/// Bytes that may wait in the shell for one peer before it is sent no more routes. What changes meanwhile is coalesced.
const UNWRITTEN_LIMIT: usize = 1 << 20;
/// Slots that are looked at in one go, so that the limit is checked often enough.
const BATCH: usize = 16 * 1024;

/// Where a best path came from, as far as its export depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Learnt {
    Local,
    External,
    Internal,
}

/// What exporting to one peer in one family depends on.
struct Target<'a> {
    id: PeerId,
    family: Family,
    asn: u32,
    session: &'a Session,
    config: &'a FamilyConfig,
    originated: &'a OriginatedRoutes,
}

/// What a peer should have of one prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// No route.
    Nothing,
    /// There is a route, but no next hop of its family.
    Hopless,
    /// A route with these attributes.
    Route(AttrId),
}

impl Wanted {
    const fn attr(self) -> Option<AttrId> {
        match self {
            Wanted::Route(attr) => Some(attr),
            Wanted::Nothing | Wanted::Hopless => None,
        }
    }
}

/// Attributes that were worked out for one peer already. Each entry holds one use of what it made.
type Memo = HashMap<(AttrId, Learnt), Wanted>;

/// UPDATEs to be: what to withdraw, and what to announce by attributes. Slot numbers are kept beside the prefixes.
#[derive(Default)]
struct Batch {
    withdraw: Vec<IpNet>,
    announce: BTreeMap<AttrId, Vec<(u32, IpNet)>>,
}

impl Speaker {
    /// Chooses routes where something changed, and sends every peer what changed for it.
    pub(super) fn flush(&mut self) {
        if self.rib.has_changes() {
            for family in Family::ALL {
                self.select(family);
            }
        }
        if self.deferral.is_some() {
            return;
        }
        let ids: Vec<PeerId> = self.members.keys().copied().collect();
        for id in ids {
            let families = self.members[&id]
                .peer
                .session
                .as_ref()
                .map_or_else(Vec::new, |s| s.families.clone());
            families.into_iter().for_each(|family| self.export(id, family));
            self.drain(self.now, id);
        }
    }

    fn select(&mut self, family: Family) {
        let members = &self.members;
        let moved = self.rib.select(family, |source| source_info(members, source));
        for member in self.members.values_mut() {
            if !member
                .peer
                .session
                .as_ref()
                .is_some_and(|session| session.has(family))
            {
                continue;
            }
            if let Some(out) = member.out(family) {
                moved.iter().for_each(|slot| out.mark(*slot));
            }
        }
        moved
            .into_iter()
            .for_each(|slot| self.rib.free_if_unused(family, slot));
    }

    /// Sends one peer what changed for it in one family, as far as its connection takes it.
    fn export(&mut self, id: PeerId, family: Family) {
        while self.has_room(id) {
            let Some(out) = self.members.get_mut(&id).and_then(|member| member.out(family)) else {
                return;
            };
            let slots = out.take_dirty(BATCH);
            if slots.is_empty() {
                return self.finish_export(id, family);
            }
            let batch = self.plan(id, family, &slots);
            self.write(id, family, batch);
        }
    }

    fn has_room(&self, id: PeerId) -> bool {
        let peer = &self.members[&id].peer;
        let conn = peer
            .session
            .as_ref()
            .and_then(|session| peer.connection(session.conn));
        conn.is_some_and(|connection| connection.unwritten < UNWRITTEN_LIMIT)
    }

    /// Sends End-of-RIB once everything has been sent, and tells the operator about a missing next hop once.
    fn finish_export(&mut self, id: PeerId, family: Family) {
        let now = self.now;
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let Some(conn) = member.peer.session.as_ref().map(|session| session.conn) else {
            return;
        };
        let Some(out) = member.out(family).filter(|out| out.is_clean()) else {
            return;
        };
        let tell = out.hopless() > 0 && !std::mem::replace(&mut out.hopless_told, true);
        if !std::mem::replace(&mut out.end_of_rib_sent, true) {
            let mut bytes = Vec::new();
            write::end_of_rib(&mut bytes, family);
            member.peer.counters.updates_out += 1;
            member.peer.send(now, conn, bytes, 1);
        }
        if tell {
            self.notice(id, Notice::NoNextHop(family));
        }
    }

    /// Compares what the peer should have with what it was sent.
    fn plan(&mut self, id: PeerId, family: Family, slots: &[u32]) -> Batch {
        let mut batch = Batch::default();
        let mut memo = Memo::new();
        for &slot in slots {
            let wanted = self.wanted(id, family, slot, &mut memo);
            let Some(out) = self.members.get_mut(&id).and_then(|member| member.out(family)) else {
                break;
            };
            out.set_hopless(slot, wanted == Wanted::Hopless);
            let (wanted, sent) = (wanted.attr(), out.sent(slot));
            if wanted == sent && !out.again(slot) {
                continue;
            }
            out.set(slot, wanted);
            let prefix = self.rib.table(family).slots[slot as usize].prefix;
            if let Some(wanted) = wanted {
                self.rib.interner.keep(wanted);
                batch.announce.entry(wanted).or_default().push((slot, prefix));
            } else if sent.is_some() {
                batch.withdraw.push(prefix);
            }
            match (sent.is_some(), wanted.is_some()) {
                (false, true) => self.rib.count_advert(family, slot, true),
                (true, false) => self.rib.count_advert(family, slot, false),
                _ => {}
            }
            if let Some(sent) = sent {
                self.rib.interner.release(sent);
            }
        }
        let made: Vec<AttrId> = memo.into_values().filter_map(Wanted::attr).collect();
        made.into_iter().for_each(|attr| self.rib.interner.release(attr));
        batch
    }

    /// What the peer should have of the prefix of a slot. The use of the attributes is held by `memo`.
    fn wanted(&mut self, id: PeerId, family: Family, slot: u32, memo: &mut Memo) -> Wanted {
        let Self {
            members,
            rib,
            originated,
            config,
            ..
        } = self;
        let slot = &rib.table(family).slots[slot as usize];
        let peer = members.get(&id).map(|member| &member.peer);
        let session = peer.and_then(|peer| peer.session.as_ref());
        let family_config = peer.and_then(|peer| peer.config.families.get(&family));
        let (Some(best), Some(session), Some(family_config)) = (slot.best, session, family_config) else {
            return Wanted::Nothing;
        };
        let learnt = learnt(best.source, |source| {
            source_info(members, source).is_some_and(|info| info.internal)
        });
        let target = Target {
            id,
            family,
            asn: config.asn,
            session,
            config: family_config,
            originated,
        };
        let entry = rib.interner.entry(best.attr);
        if !target.may_hear(slot, best, learnt, entry.attributes.view()) {
            return Wanted::Nothing;
        }
        if let Some(known) = memo.get(&(best.attr, learnt)) {
            return *known;
        }
        let wanted = match target.next_hop(learnt, entry.next_hop) {
            Some(next_hop) => {
                let attributes = target.attributes(learnt, entry.attributes.view());
                Wanted::Route(rib.interner.intern(Some(next_hop), attributes.as_bytes()))
            }
            None => Wanted::Hopless,
        };
        memo.insert((best.attr, learnt), wanted);
        wanted
    }

    fn write(&mut self, id: PeerId, family: Family, mut batch: Batch) {
        let Some(session) = self.members[&id].peer.session.as_ref() else {
            return;
        };
        let (conn, as4) = (session.conn, session.as4);
        let (mut bytes, mut messages, mut too_big) = (Vec::new(), 0, Vec::new());
        for (attr, routes) in &batch.announce {
            let entry = self.rib.interner.entry(*attr);
            let Some(next_hop) = entry.next_hop else { continue };
            let prefixes = routes.iter().map(|(_, prefix)| *prefix);
            match write::announce(
                &mut bytes,
                family,
                entry.attributes.view(),
                next_hop,
                as4,
                prefixes,
            ) {
                Ok(written) => messages += written,
                Err(_) => too_big.extend_from_slice(routes),
            }
        }
        for (slot, prefix) in too_big {
            self.give_up(id, family, slot, prefix);
            batch.withdraw.push(prefix);
        }
        let mut withdrawals = Vec::new();
        messages += write::withdraw(&mut withdrawals, family, batch.withdraw);
        // Withdrawals go first: they may make room in the tables of the peer.
        withdrawals.extend_from_slice(&bytes);
        if messages == 0 {
            return;
        }
        let now = self.now;
        if let Some(member) = self.members.get_mut(&id) {
            member.peer.counters.updates_out += messages as u64;
            member.peer.send(now, conn, withdrawals, messages);
        }
    }

    /// A route that fits into no message: the peer must not keep an older version of it.
    fn give_up(&mut self, id: PeerId, family: Family, slot: u32, prefix: IpNet) {
        let Some(out) = self.members.get_mut(&id).and_then(|member| member.out(family)) else {
            return;
        };
        let sent = out.sent(slot);
        out.set(slot, None);
        if let Some(sent) = sent {
            self.rib.interner.release(sent);
            self.rib.count_advert(family, slot, false);
        }
        self.notice(id, Notice::TooBig(prefix));
    }
}

fn learnt(source: RouteSource, internal: impl Fn(RouteSource) -> bool) -> Learnt {
    match source {
        RouteSource::Local => Learnt::Local,
        source if internal(source) => Learnt::Internal,
        _ => Learnt::External,
    }
}

impl Target<'_> {
    /// Whether the peer may be sent the route at all.
    fn may_hear(&self, slot: &Slot, best: Path, learnt: Learnt, view: AttributesView<'_>) -> bool {
        if best.source == RouteSource::Peer(self.id) || (learnt == Learnt::Internal && self.session.internal)
        {
            return false;
        }
        if learnt == Learnt::Local
            && !self
                .originated
                .get(&slot.prefix)
                .is_some_and(|route| route.peers.include(self.id))
        {
            return false;
        }
        let barred = |community| match community {
            Community::NO_ADVERTISE => learnt != Learnt::Local,
            Community::NO_EXPORT | Community::NO_EXPORT_SUBCONFED => {
                learnt != Learnt::Local && !self.session.internal
            }
            _ => false,
        };
        !view.communities().any(barred)
            && self.config.export.verdict(&slot.prefix, view.communities()) == Verdict::Accept
    }

    /// The next hop to tell; `None` if there is none of the family.
    fn next_hop(&self, learnt: Learnt, as_learnt: Option<IpAddr>) -> Option<IpAddr> {
        if self.config.next_hop.is_some() {
            return self.config.next_hop;
        }
        if learnt == Learnt::External && self.session.internal {
            return as_learnt;
        }
        Some(self.session.local.ip()).filter(|address| Family::of_address(address) == self.family)
    }

    /// The attributes to tell.
    fn attributes(&self, learnt: Learnt, view: AttributesView<'_>) -> Attributes {
        let builder = view.edit();
        if self.session.internal {
            let local_pref = view.local_pref().unwrap_or(DEFAULT_LOCAL_PREF);
            return builder.local_pref(Some(local_pref)).build();
        }
        let extended: Vec<ExtendedCommunity> = view
            .extended_communities()
            .filter(|community| community.is_transitive())
            .collect();
        let mut builder = builder
            .prepend(self.asn, 1)
            .local_pref(None)
            .remove(kind::ORIGINATOR_ID)
            .remove(kind::CLUSTER_LIST);
        if view.extended_communities().count() != extended.len() {
            builder = builder.extended_communities(&extended);
        }
        if learnt != Learnt::Local {
            builder = builder.med(None);
        }
        builder.build()
    }
}
