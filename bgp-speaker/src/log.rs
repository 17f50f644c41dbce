//! What happens, in the log: one line for each event, with the peer's name.
use std::collections::BTreeMap;
use std::net::IpAddr;

use isthmus_bgp_engine::{Notice, Output, PeerChange, PeerId};

use crate::advertise::{self, Plan};
use crate::peers::Peers;
use crate::view::family_name;

/// Tells what the engine tells; what it repeats at every attempt is told once.
#[derive(Debug, Default)]
pub(crate) struct Log {
    failures: BTreeMap<PeerId, String>,
    refused: Option<(IpAddr, String)>,
}

impl Log {
    /// A connection that was refused; somebody who knocks again and again is told of once.
    pub(crate) fn refused(&mut self, remote: IpAddr, reason: String) {
        let now = Some((remote, reason.clone()));
        if self.refused == now {
            tracing::debug!(%remote, reason, "connection refused again");
        } else {
            tracing::warn!(%remote, reason, "connection refused");
            self.refused = now;
        }
    }

    /// An output of the engine that only tells.
    pub(crate) fn output(&mut self, output: &Output, peers: &Peers) {
        match output {
            Output::SessionUp {
                peer,
                asn,
                hold_time,
                families,
                ..
            } => {
                self.failures.remove(peer);
                let families: Vec<&str> = families.iter().copied().map(family_name).collect();
                let families = families.join(",");
                tracing::info!(
                    peer = peers.name(*peer),
                    asn,
                    hold_time,
                    families,
                    "session is up"
                );
            }
            Output::SessionDown {
                peer,
                reason,
                was_established: true,
                stale_kept,
            } => tracing::warn!(peer = peers.name(*peer), %reason, stale_kept, "session is down"),
            Output::SessionDown { peer, reason, .. } => {
                let told = self.failures.insert(*peer, reason.to_string());
                let peer = peers.name(*peer);
                if told.is_some_and(|told| told == reason.to_string()) {
                    tracing::debug!(peer, %reason, "session could not be opened again");
                } else {
                    tracing::info!(peer, %reason, "session could not be opened");
                }
            }
            Output::Notice { peer, notice: told } => notice(peers.name(*peer), told),
            Output::Connect { .. } | Output::Send { .. } | Output::Close { .. } => {}
        }
    }
}

fn notice(peer: &str, notice: &Notice) {
    match notice {
        Notice::TreatedAsWithdraw { fault, prefixes } => {
            tracing::warn!(
                peer,
                fault,
                prefixes,
                "malformed UPDATE: its routes are withdrawn (RFC 7606)"
            );
        }
        Notice::AttributeDiscarded { fault } => {
            tracing::warn!(peer, fault, "malformed attribute dropped (RFC 7606)");
        }
        Notice::EndOfRib(family) => {
            tracing::info!(
                peer,
                family = family_name(*family),
                "the peer has sent its whole table"
            );
        }
        Notice::StaleRemoved { family, routes } => {
            tracing::info!(
                peer,
                family = family_name(*family),
                routes,
                "stale routes of the peer removed"
            );
        }
        Notice::NoNextHop(family) => {
            tracing::warn!(
                peer,
                family = family_name(*family),
                "routes are not sent for want of a next hop: set nextHop, or give the interface of the session an address of this family"
            );
        }
        Notice::TooBig(prefix) => {
            tracing::warn!(peer, %prefix, "the route does not fit into one message and is not sent");
        }
        Notice::DeferralEnded => tracing::info!("restart is complete: routes are sent"),
    }
}

/// What a new configuration did to the peers.
pub(crate) fn changes(changes: &BTreeMap<PeerId, PeerChange>, peers: &Peers) {
    for (peer, change) in changes {
        let peer = peers.name(*peer);
        match change {
            PeerChange::Added => tracing::info!(peer, "peer added"),
            PeerChange::Removed => tracing::info!(peer, "peer removed"),
            PeerChange::Changed => tracing::debug!(peer, "peer changed without touching its session"),
            PeerChange::Reset(what) => tracing::info!(peer, what, "session is reset for a new negotiation"),
        }
    }
}

/// What a new plan changes for the world.
pub(crate) fn plan(old: &Plan, new: &Plan) {
    let advertised = |plan: &Plan, prefix| plan.get(prefix).is_some_and(advertise::advertised);
    for (prefix, origins) in new {
        let reason = || {
            let reasons: Vec<String> = origins.iter().map(|(o, v)| format!("{o}: {v}")).collect();
            reasons.join("; ")
        };
        match (advertised(old, prefix), advertise::advertised(origins)) {
            (false, true) => tracing::info!(%prefix, reason = reason(), "advertising"),
            (true, false) => tracing::info!(%prefix, reason = reason(), "withdrawing"),
            (false, false) if !old.contains_key(prefix) => {
                tracing::info!(%prefix, reason = reason(), "not advertising");
            }
            _ => {}
        }
    }
    for prefix in old
        .keys()
        .filter(|prefix| advertised(old, prefix) && !new.contains_key(prefix))
    {
        tracing::info!(%prefix, reason = "nobody wants it any more", "withdrawing");
    }
}
