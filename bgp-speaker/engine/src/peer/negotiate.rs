//! What we offer in an OPEN, and what comes of the peer's.
use std::time::Duration;

use isthmus_bgp_packet::capability::{Capability, GracefulRestart};
use isthmus_bgp_packet::notification::{code, open};
use isthmus_bgp_packet::{AfiSafi, Family, Notification, Open};

use super::connection::{Connection, Restart, Session};
use super::{Local, Peer};
use crate::config::PeerConfig;
use crate::view::PeerCapabilities;

impl Peer {
    /// Our OPEN. The R bit stands in the first OPEN that a peer gets after our restart, and until we are complete. F bits
    /// say that our forwarding went on: over our restart, or, if there was a session before, because we never stopped.
    pub(crate) fn our_open(&self, local: Local) -> Open {
        let mut capabilities: Vec<Capability> = self
            .config
            .families
            .keys()
            .map(|family| Capability::Multiprotocol((*family).into()))
            .collect();
        capabilities.push(Capability::RouteRefresh);
        if let Some(restart) = &self.config.graceful_restart {
            let first = self.counters.established == 0;
            let forwarding = local.preserved || !first;
            capabilities.push(Capability::GracefulRestart(GracefulRestart {
                restarted: local.restarting || (local.preserved && first),
                notification: restart.notification,
                time: restart.restart_time,
                families: self
                    .config
                    .families
                    .keys()
                    .map(|family| ((*family).into(), forwarding))
                    .collect(),
            }));
        }
        capabilities.push(Capability::FourByteAs(local.asn));
        Open {
            asn: local.asn,
            hold_time: self.config.hold_time,
            router_id: local.router_id,
            capabilities,
        }
    }
}

/// Checks the OPEN of a peer against the configuration (RFC 4271 §6.2, RFC 6286) and works out the session.
pub(crate) fn negotiate(
    config: &PeerConfig,
    local: Local,
    connection: &Connection,
    open: &Open,
) -> Result<Session, Notification> {
    if config.asn != 0 && config.asn != open.asn {
        return Err(Notification::new(code::OPEN, open::BAD_PEER_AS));
    }
    let internal = open.asn == local.asn;
    if internal && open.router_id == local.router_id {
        return Err(Notification::new(code::OPEN, open::BAD_BGP_IDENTIFIER));
    }
    let capabilities = describe(open);
    let families: Vec<Family> = Family::ALL
        .into_iter()
        .filter(|family| {
            config.families.contains_key(family) && capabilities.families.contains(&AfiSafi::from(*family))
        })
        .collect();
    if families.is_empty() {
        return Err(no_common_family(config));
    }
    let hold_time = config.hold_time.min(open.hold_time);
    let third = Duration::from_secs(u64::from(hold_time)) / 3;
    let asked = config.keepalive.filter(|seconds| *seconds > 0);
    let wanted = asked.map_or(third, |seconds| Duration::from_secs(seconds.into()).min(third));
    Ok(Session {
        conn: connection.id,
        asn: open.asn,
        router_id: open.router_id,
        internal,
        hold_time,
        keepalive: (hold_time > 0).then_some(wanted),
        as4: capabilities.four_byte_as,
        refresh: capabilities.route_refresh,
        families,
        restart: restart_of(config, open),
        local: connection.local.unwrap_or(connection.remote),
        remote: connection.remote,
        capabilities,
        since: Duration::ZERO,
    })
}

/// Unsupported Capability, with the families that we would need as data (RFC 5492 §3).
fn no_common_family(config: &PeerConfig) -> Notification {
    let mut data = Vec::new();
    for family in config.families.keys() {
        let AfiSafi { afi, safi } = (*family).into();
        let [a, b] = afi.to_be_bytes();
        data.extend_from_slice(&[1, 4, a, b, 0, safi]);
    }
    Notification::with_data(code::OPEN, open::UNSUPPORTED_CAPABILITY, &data)
}

fn restart_of(config: &PeerConfig, open: &Open) -> Option<Restart> {
    let ours = config.graceful_restart.as_ref()?;
    let theirs = open.capabilities.iter().find_map(|capability| match capability {
        Capability::GracefulRestart(restart) => Some(restart),
        _ => None,
    })?;
    let known = |(family, forwarding): &(AfiSafi, bool)| {
        Family::try_from(*family)
            .ok()
            .filter(|f| config.families.contains_key(f))
            .map(|f| (f, *forwarding))
    };
    Some(Restart {
        restarted: theirs.restarted,
        notification: ours.notification && theirs.notification,
        time: Duration::from_secs(theirs.time.into()).min(ours.max_stale),
        families: theirs.families.iter().filter_map(known).collect(),
    })
}

fn describe(open: &Open) -> PeerCapabilities {
    let mut view = PeerCapabilities {
        families: open.families(),
        ..PeerCapabilities::default()
    };
    for capability in &open.capabilities {
        match capability {
            Capability::RouteRefresh => view.route_refresh = true,
            Capability::EnhancedRouteRefresh => view.enhanced_route_refresh = true,
            Capability::ExtendedMessage => view.extended_message = true,
            Capability::FourByteAs(_) => view.four_byte_as = true,
            Capability::GracefulRestart(restart) => view.graceful_restart = Some(restart.time),
            Capability::Fqdn { host, domain } if domain.is_empty() => view.host_name = Some(host.clone()),
            Capability::Fqdn { host, domain } => view.host_name = Some(format!("{host}.{domain}")),
            Capability::Other { code, .. } => view.unknown.push(*code),
            Capability::Multiprotocol(_) | Capability::ExtendedNextHop(_) => {}
        }
    }
    view
}
