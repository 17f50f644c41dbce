//! Sessions that come and go, and graceful restart in both roles (RFC 4724, RFC 8538).
//!
//! ```text
//!  helper, one peer:
//!    session up ── lost ──▶ routes stale, restart timer ── session up, F bit ──▶ stale, stale timer ── End-of-RIB ──▶ swept
//!                               │ timer                        │ no F bit                │ timer
//!                               └──────▶ removed               └─────▶ removed           └──────▶ swept
//!  restarting, all peers:
//!    start ──▶ R bit, nothing is sent ── End-of-RIB of every peer with graceful restart, or deferral timer ──▶ routes, End-of-RIB
//! ```
use std::time::Duration;

use isthmus_bgp_packet::Family;

use super::{Member, Speaker};
use crate::config::{AdminState, PeerId};
use crate::io::Notice;
use crate::rib::Path;
use crate::rib::adj_out::AdjOut;
use crate::view::RouteSource;

impl Speaker {
    pub(super) fn session_up(&mut self, now: Duration, id: PeerId) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let Some(session) = member.peer.session.clone() else {
            return;
        };
        member.away_until = None;
        let max_stale = member
            .peer
            .config
            .graceful_restart
            .map_or(Duration::ZERO, |restart| restart.max_stale);
        let kept = |family: Family| {
            let restart = session.restart.as_ref();
            session.has(family) && restart.is_some_and(|restart| restart.families.contains(&(family, true)))
        };
        let mut lost = Vec::new();
        for (family, state) in &mut member.families {
            state.end_of_rib_received = false;
            state.stale_until = (state.stale > 0 && kept(*family)).then_some(now + max_stale);
            if state.stale > 0 && !kept(*family) {
                lost.push(*family);
            }
        }
        for family in lost {
            self.remove_stale(id, family);
        }
        for family in &session.families {
            self.mark_all(id, *family);
        }
        self.check_deferral(now);
    }

    pub(super) fn session_down(&mut self, now: Duration, id: PeerId, keep: &[Family]) {
        let families: Vec<Family> = self
            .members
            .get(&id)
            .map_or_else(Vec::new, |m| m.families.keys().copied().collect());
        for family in families {
            self.drop_adj_out(id, family);
            // Routes that were stale already have had their chance (RFC 4724 §4.2).
            let keeps = keep.contains(&family);
            self.remove_paths(id, family, |path| !keeps || path.is_stale());
            if keeps {
                self.make_stale(id, family);
            }
        }
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let restart = member
            .peer
            .last_session
            .as_ref()
            .and_then(|session| session.restart.as_ref());
        let time = restart.map_or(Duration::ZERO, |restart| restart.time);
        member.away_until = member
            .families
            .values()
            .any(|state| state.stale > 0)
            .then_some(now + time);
    }

    fn make_stale(&mut self, id: PeerId, family: Family) {
        self.rib
            .change_all(family, RouteSource::Peer(id), |_, _, path| path.set_stale(true));
        if let Some(state) = self
            .members
            .get_mut(&id)
            .and_then(|member| member.families.get_mut(&family))
        {
            state.stale = state.received;
            state.stale_until = None;
        }
    }

    /// Removes the paths of a peer that `which` picks; says how many.
    pub(super) fn remove_paths(
        &mut self,
        id: PeerId,
        family: Family,
        which: impl Fn(&Path) -> bool,
    ) -> usize {
        let removed = self.rib.remove_all(family, RouteSource::Peer(id), which);
        if let Some(state) = self
            .members
            .get_mut(&id)
            .and_then(|member| member.families.get_mut(&family))
        {
            removed.iter().for_each(|path| state.count(path, false));
        }
        removed.len()
    }

    fn remove_stale(&mut self, id: PeerId, family: Family) {
        let routes = self.remove_paths(id, family, Path::is_stale);
        if let Some(state) = self
            .members
            .get_mut(&id)
            .and_then(|member| member.families.get_mut(&family))
        {
            state.stale_until = None;
        }
        if routes > 0 {
            self.notice(id, Notice::StaleRemoved { family, routes });
        }
    }

    pub(super) fn end_of_rib_received(&mut self, now: Duration, id: PeerId, family: Family) {
        let Some(state) = self
            .members
            .get_mut(&id)
            .and_then(|member| member.families.get_mut(&family))
        else {
            return;
        };
        state.end_of_rib_received = true;
        self.notice(id, Notice::EndOfRib(family));
        self.remove_stale(id, family);
        self.check_deferral(now);
    }

    /// Removes stale routes whose time is over.
    pub(super) fn stale_timeout(&mut self, now: Duration, id: PeerId) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let away = member.away_until.is_some_and(|at| at <= now);
        if away {
            member.away_until = None;
        }
        let due = |until: Option<Duration>| until.is_some_and(|at| at <= now);
        let families: Vec<Family> = member
            .families
            .iter()
            .filter(|(_, state)| away || due(state.stale_until))
            .map(|(f, _)| *f)
            .collect();
        families
            .into_iter()
            .for_each(|family| self.remove_stale(id, family));
    }

    /// Ends the deferral of a restarting speaker when its time is over or every peer that has graceful restart has sent everything.
    pub(super) fn check_deferral(&mut self, now: Duration) {
        let Some(until) = self.deferral else { return };
        let complete = self.peers_known && self.members.values().all(is_complete);
        if complete || until <= now {
            self.deferral = None;
            let ids: Vec<PeerId> = self.members.keys().copied().collect();
            ids.into_iter()
                .for_each(|id| self.notice(id, Notice::DeferralEnded));
        }
    }

    /// Forgets what a peer was sent.
    pub(super) fn drop_adj_out(&mut self, id: PeerId, family: Family) {
        let Some(state) = self
            .members
            .get_mut(&id)
            .and_then(|member| member.families.get_mut(&family))
        else {
            return;
        };
        let out = std::mem::take(&mut state.out);
        for (slot, attr) in out.all_sent() {
            self.rib.interner.release(attr);
            self.rib.count_advert(family, slot, false);
        }
    }

    /// Everything has to be looked at for a peer: its session is new, or its export policy is.
    pub(super) fn mark_all(&mut self, id: PeerId, family: Family) {
        let table = self.rib.table(family);
        let Some(state) = self
            .members
            .get_mut(&id)
            .and_then(|member| member.families.get_mut(&family))
        else {
            return;
        };
        for slot in table.ids() {
            let used = table.slots[slot as usize].best.is_some() || table.slots[slot as usize].adverts > 0;
            if used {
                state.out.mark(slot);
            }
        }
    }
}

/// A restarting speaker waits for this peer no longer: it takes no part in graceful restart, restarts itself, or has sent everything.
fn is_complete(member: &Member) -> bool {
    let config = &member.peer.config;
    if config.graceful_restart.is_none() || config.admin != AdminState::Up {
        return true;
    }
    let Some(session) = &member.peer.session else {
        return false;
    };
    let Some(restart) = &session.restart else {
        return true;
    };
    restart.restarted
        || session.families.iter().all(|family| {
            let offered = restart.families.iter().any(|(one, _)| one == family);
            !offered
                || member
                    .families
                    .get(family)
                    .is_some_and(|state| state.end_of_rib_received)
        })
}

/// An empty Adj-RIB-Out, for a session that begins.
impl Member {
    pub(super) fn out(&mut self, family: Family) -> Option<&mut AdjOut> {
        self.families.get_mut(&family).map(|state| &mut state.out)
    }
}
