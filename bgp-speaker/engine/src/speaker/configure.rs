//! From the wanted peers and routes to what has to change.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use isthmus_bgp_packet::as_path::AS_TRANS;
use isthmus_bgp_packet::notification::{cease, code};
use isthmus_bgp_packet::{Family, Notification};

use super::{FamilyState, Member, PeerChange, Speaker};
use crate::config::{AdminState, ConfigError, OriginatedRoutes, PeerConfig, PeerId, SpeakerConfig};
use crate::peer::Peer;
use crate::policy::Verdict;
use crate::rib::Path;
use crate::view::RouteSource;

impl Speaker {
    /// Sets the whole set of peers; the engine works out what is new, gone or changed, and resets a session only if a value
    /// of its OPEN changed. Says what it did.
    ///
    /// # Errors
    /// Names the peer that cannot work. Then nothing has changed.
    pub fn set_peers(
        &mut self,
        now: Duration,
        peers: BTreeMap<PeerId, PeerConfig>,
    ) -> Result<BTreeMap<PeerId, PeerChange>, ConfigError> {
        self.now = now;
        let by_address = check_peers(&peers)?;
        let mut changes = BTreeMap::new();
        let gone: Vec<PeerId> = self
            .members
            .keys()
            .filter(|id| !peers.contains_key(id))
            .copied()
            .collect();
        for id in gone {
            self.remove_peer(now, id);
            changes.insert(id, PeerChange::Removed);
        }
        self.by_address = by_address;
        for (id, config) in peers {
            if let Some(change) = self.set_peer(now, id, config) {
                changes.insert(id, change);
            }
        }
        self.peers_known = true;
        self.check_deferral(now);
        Ok(changes)
    }

    fn set_peer(&mut self, now: Duration, id: PeerId, config: PeerConfig) -> Option<PeerChange> {
        let Some(member) = self.members.get(&id) else {
            let families = config
                .families
                .keys()
                .map(|family| (*family, FamilyState::default()))
                .collect();
            let peer = Peer::new(now, id, config);
            self.members.insert(
                id,
                Member {
                    peer,
                    families,
                    away_until: None,
                },
            );
            return Some(PeerChange::Added);
        };
        if member.peer.config == config {
            return None;
        }
        let change = self.change_peer(now, id, config);
        self.drain(now, id);
        Some(change)
    }

    fn remove_peer(&mut self, now: Duration, id: PeerId) {
        if let Some(member) = self.members.get_mut(&id) {
            member
                .peer
                .shut(now, &Notification::new(code::CEASE, cease::PEER_DECONFIGURED));
        }
        self.drain(now, id);
        for family in Family::ALL {
            self.remove_paths(id, family, |_| true);
        }
        self.members.remove(&id);
        // Nobody is to be blamed for a connection that has just been closed.
        self.conns.retain(|_, peer| *peer != id);
    }

    fn change_peer(&mut self, now: Duration, id: PeerId, config: PeerConfig) -> PeerChange {
        let Some(member) = self.members.get_mut(&id) else {
            return PeerChange::Changed;
        };
        let reason = reset_reason(member, &config);
        let old = std::mem::replace(&mut member.peer.config, config);
        if let AdminState::Down(text) = &member.peer.config.admin {
            let text = text.clone();
            member
                .peer
                .shut(now, &Notification::cease_with_text(cease::ADMIN_SHUTDOWN, &text));
            member.peer.retry = None;
            member.peer.settle(now);
        } else if let Some(reason) = reason {
            member
                .peer
                .shut(now, &Notification::new(code::CEASE, cease::CONFIG_CHANGE));
            member.peer.start(now);
            self.drain(now, id);
            self.change_families(id, &old);
            return PeerChange::Reset(reason);
        } else if old.admin != AdminState::Up || member.peer.connections.is_empty() {
            member.peer.start(now);
        }
        self.drain(now, id);
        self.change_families(id, &old);
        self.change_policies(now, id, &old);
        PeerChange::Changed
    }

    /// Makes the state of families follow the configuration.
    fn change_families(&mut self, id: PeerId, old: &PeerConfig) {
        for family in old.families.keys() {
            if self
                .members
                .get(&id)
                .is_some_and(|member| !member.peer.config.families.contains_key(family))
            {
                self.drop_adj_out(id, *family);
                self.remove_paths(id, *family, |_| true);
            }
        }
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let Member { peer, families, .. } = member;
        families.retain(|family, _| peer.config.families.contains_key(family));
        for family in peer.config.families.keys() {
            families.entry(*family).or_default();
        }
    }

    /// Applies new policies to the routes that are there.
    fn change_policies(&mut self, now: Duration, id: PeerId, old: &PeerConfig) {
        for family in Family::ALL {
            let Some(member) = self.members.get(&id) else {
                return;
            };
            let (Some(before), Some(after)) = (
                old.families.get(&family),
                member.peer.config.families.get(&family).cloned(),
            ) else {
                continue;
            };
            if before.import != after.import || before.keep_rejected != after.keep_rejected {
                self.rejudge(id, family);
                // What was refused and forgotten has to be asked for.
                if !before.keep_rejected {
                    self.request_refresh(now, id, family);
                }
            }
            let same = before.export == after.export && before.next_hop == after.next_hop;
            if !same
                && self.members[&id]
                    .peer
                    .session
                    .as_ref()
                    .is_some_and(|session| session.has(family))
            {
                self.mark_all(id, family);
            }
        }
    }

    /// Applies the import policy again to every route of a peer.
    fn rejudge(&mut self, id: PeerId, family: Family) {
        let Some(config) = self
            .members
            .get(&id)
            .and_then(|m| m.peer.config.families.get(&family))
            .cloned()
        else {
            return;
        };
        self.rib
            .change_all(family, RouteSource::Peer(id), |interner, prefix, path| {
                let view = interner.entry(path.attr).attributes.view();
                path.set_rejected(config.import.verdict(prefix, view.communities()) == Verdict::Reject);
            });
        self.recount(id, family);
        if !config.keep_rejected {
            self.remove_paths(id, family, |path| !path.is_usable());
        }
    }

    fn recount(&mut self, id: PeerId, family: Family) {
        let source = RouteSource::Peer(id);
        let paths = self
            .rib
            .table(family)
            .slots
            .iter()
            .flat_map(|slot| slot.paths.iter());
        let accepted = paths
            .filter(|path| path.source == source && path.is_usable())
            .count();
        if let Some(state) = self
            .members
            .get_mut(&id)
            .and_then(|member| member.families.get_mut(&family))
        {
            state.accepted = accepted;
        }
    }

    /// Sets the whole set of our own routes; the engine announces and withdraws the difference. Bits behind the length of a prefix
    /// are cleared.
    pub fn set_routes(&mut self, now: Duration, routes: OriginatedRoutes) {
        self.now = now;
        let routes: OriginatedRoutes = routes
            .into_iter()
            .map(|(prefix, route)| (prefix.trunc(), route))
            .collect();
        let old = std::mem::take(&mut self.originated);
        for prefix in old.keys().filter(|prefix| !routes.contains_key(prefix)) {
            self.rib.remove(prefix, RouteSource::Local);
        }
        for (prefix, route) in &routes {
            let before = old.get(prefix);
            if before.is_none_or(|before| before.attributes != route.attributes) {
                let attr = self.rib.interner.intern(None, route.attributes.as_bytes());
                self.rib
                    .insert(prefix.trunc(), Path::new(RouteSource::Local, attr));
            } else if before.is_some_and(|before| before.peers != route.peers) {
                self.mark_everywhere(prefix);
            }
        }
        self.originated = routes;
    }

    /// Somebody else may hear of a route now.
    fn mark_everywhere(&mut self, prefix: &ipnet::IpNet) {
        let family = Family::of(prefix);
        let Some(slot) = self.rib.table(family).find(prefix) else {
            return;
        };
        for member in self.members.values_mut() {
            if member
                .peer
                .session
                .as_ref()
                .is_some_and(|session| session.has(family))
                && let Some(out) = member.out(family)
            {
                out.mark(slot);
            }
        }
    }
}

/// The setting whose change makes the present session worthless.
fn reset_reason(member: &Member, new: &PeerConfig) -> Option<&'static str> {
    let old = &member.peer.config;
    if old.address != new.address || old.port != new.port {
        return Some("address");
    }
    if new.asn != old.asn && new.asn != 0 && member.peer.session.as_ref().is_none_or(|s| s.asn != new.asn) {
        return Some("AS number");
    }
    if old.hold_time != new.hold_time {
        return Some("hold time");
    }
    if !old.families.keys().eq(new.families.keys()) {
        return Some("address families");
    }
    let offered = |config: &PeerConfig| config.graceful_restart.map(|r| (r.restart_time, r.notification));
    if offered(old) != offered(new) {
        return Some("graceful restart");
    }
    None
}

pub(super) fn check_speaker(config: &SpeakerConfig) -> Result<(), ConfigError> {
    if config.asn == 0 || config.asn == u32::from(AS_TRANS) {
        return Err(ConfigError::ReservedAsn(config.asn));
    }
    if config.router_id.is_unspecified() {
        return Err(ConfigError::ZeroRouterId);
    }
    Ok(())
}

fn check_peers(peers: &BTreeMap<PeerId, PeerConfig>) -> Result<BTreeMap<IpAddr, PeerId>, ConfigError> {
    let mut by_address = BTreeMap::new();
    for (id, config) in peers {
        let peer = config.address;
        if matches!(config.hold_time, 1 | 2) {
            return Err(ConfigError::HoldTime {
                peer,
                seconds: config.hold_time,
            });
        }
        if config.asn == u32::from(AS_TRANS) {
            return Err(ConfigError::ReservedAsn(config.asn));
        }
        if config.families.is_empty() {
            return Err(ConfigError::NoFamily { peer });
        }
        if let Some(restart) = config
            .graceful_restart
            .filter(|r| !(1..=4095).contains(&r.restart_time))
        {
            return Err(ConfigError::RestartTime {
                peer,
                seconds: restart.restart_time,
            });
        }
        for (family, family_config) in &config.families {
            if let Some(next_hop) = family_config
                .next_hop
                .filter(|hop| Family::of_address(hop) != *family)
            {
                return Err(ConfigError::NextHop {
                    peer,
                    family: *family,
                    next_hop,
                });
            }
        }
        if let Some(first) = by_address.insert(peer.to_canonical(), *id) {
            return Err(ConfigError::SameAddress {
                address: peer,
                first,
                second: *id,
            });
        }
    }
    Ok(by_address)
}
