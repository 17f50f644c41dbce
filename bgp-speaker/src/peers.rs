//! The configured peers as the engine wants them, under numbers that survive a change of the configuration.
use std::collections::BTreeMap;
use std::net::IpAddr;

use isthmus_bgp_engine::{
    FamilyConfig, GracefulRestart, MaxPrefixes, PeerConfig as EnginePeer, PeerId, Policy,
};
use isthmus_bgp_packet::Family;

use crate::config::{self, Config, Import, Password, PeerConfig};
use crate::socket::PeerSocket;

/// The TTL between routers of one AS, which may be many hops apart.
const INTERNAL_TTL: u8 = 64;

/// All configured peers.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    local_asn: u32,
    ids: BTreeMap<String, PeerId>,
    configs: BTreeMap<PeerId, PeerConfig>,
    /// Next hops that were found beside the address of a session, by family.
    found: BTreeMap<PeerId, IpAddr>,
}

impl Peers {
    /// Takes a new configuration. Answers the peers whose sockets must be made anew, and why: their sessions cannot live on.
    pub(crate) fn set(&mut self, config: &Config) -> BTreeMap<PeerId, &'static str> {
        self.local_asn = config.local_asn;
        let old = std::mem::take(&mut self.configs);
        for peer in &config.peers {
            let next = PeerId(u32::try_from(self.ids.len()).unwrap_or(u32::MAX));
            // Ids of removed peers are not used again, so a late event never meets another peer.
            let id = *self.ids.entry(peer.name.clone()).or_insert(next);
            self.configs.insert(id, peer.clone());
        }
        self.found.retain(|id, _| self.configs.contains_key(id));
        let changed = |(id, new): (&PeerId, &PeerConfig)| {
            let old = old.get(id).filter(|old| old.address == new.address)?;
            Some((*id, socket_change(old, new)?))
        };
        self.configs.iter().filter_map(changed).collect()
    }

    /// The configuration of a peer.
    pub(crate) fn config(&self, id: PeerId) -> Option<&PeerConfig> {
        self.configs.get(&id)
    }

    /// The name of a peer, also of one that is gone.
    pub(crate) fn name(&self, id: PeerId) -> &str {
        let named = self.ids.iter().find(|(_, other)| **other == id);
        named.map_or("unknown", |(name, _)| name)
    }

    /// A peer by its name or address.
    pub(crate) fn find(&self, name: &str) -> Option<PeerId> {
        let address = name.parse::<IpAddr>().ok();
        let matches = |peer: &PeerConfig| peer.name == name || address == Some(peer.address.ip());
        self.configs
            .iter()
            .find(|(_, peer)| matches(peer))
            .map(|(id, _)| *id)
    }

    /// Names of all peers, for messages.
    pub(crate) fn names(&self) -> String {
        let names: Vec<&str> = self.configs.values().map(|peer| peer.name.as_str()).collect();
        names.join(", ")
    }

    /// Whether any peer shall keep our routes over a restart.
    pub(crate) fn graceful(&self) -> bool {
        self.configs.values().any(|peer| peer.graceful_restart.is_some())
    }

    /// What the sockets of a peer need.
    pub(crate) fn socket(&self, id: PeerId) -> Option<PeerSocket> {
        let peer = self.configs.get(&id)?;
        Some(PeerSocket {
            local: peer.local_address,
            ttl: self.ttl(peer),
            password: peer.password.clone(),
        })
    }

    /// The TTL for the peer with this address.
    pub(crate) fn ttl_of(&self, address: IpAddr) -> Option<u8> {
        let peer = self.configs.values().find(|peer| peer.address.ip() == address)?;
        Some(self.ttl(peer))
    }

    fn ttl(&self, peer: &PeerConfig) -> u8 {
        if peer.asn == self.local_asn {
            INTERNAL_TTL
        } else {
            peer.ttl
        }
    }

    /// The TCP-MD5 keys by peer address, for the listeners.
    pub(crate) fn keys(&self) -> BTreeMap<IpAddr, Password> {
        let key = |peer: &PeerConfig| Some((peer.address.ip(), peer.password.clone()?));
        self.configs.values().filter_map(key).collect()
    }

    /// Remembers an address beside that of the session with a peer. Says whether that is news for the engine.
    pub(crate) fn found_next_hop(&mut self, address: IpAddr, next_hop: IpAddr) -> bool {
        let peer = self.configs.iter().find(|(_, peer)| peer.address.ip() == address);
        let Some(id) = peer.map(|(id, _)| *id) else {
            return false;
        };
        self.found.insert(id, next_hop) != Some(next_hop)
    }

    /// The peers for the engine.
    pub(crate) fn engine(&self) -> BTreeMap<PeerId, EnginePeer> {
        let convert = |(id, peer): (&PeerId, &PeerConfig)| (*id, self.convert(*id, peer));
        self.configs.iter().map(convert).collect()
    }

    fn convert(&self, id: PeerId, peer: &PeerConfig) -> EnginePeer {
        let families = peer.families.iter().map(|family| {
            let family = engine_family(*family);
            (family, self.family(id, peer, family))
        });
        EnginePeer {
            port: peer.address.port(),
            passive: peer.passive,
            hold_time: u16::try_from(peer.hold_time.as_secs()).unwrap_or(u16::MAX),
            connect_retry: peer.connect_retry,
            families: families.collect(),
            graceful_restart: peer.graceful_restart.map(|time| GracefulRestart {
                restart_time: u16::try_from(time.as_secs()).unwrap_or(u16::MAX),
                ..GracefulRestart::default()
            }),
            ..EnginePeer::new(peer.address.ip(), peer.asn)
        }
    }

    fn family(&self, id: PeerId, peer: &PeerConfig, family: Family) -> FamilyConfig {
        let configured = match family {
            Family::Ipv4Unicast => peer.next_hop_v4.map(IpAddr::V4),
            Family::Ipv6Unicast => peer.next_hop_v6.map(IpAddr::V6),
        };
        let found = self
            .found
            .get(&id)
            .copied()
            .filter(|ip| Family::of_address(ip) == family);
        FamilyConfig {
            // What peers tell never enters route choice: this speaker installs nothing, and so it can never become a
            // transit between its routers. Accepting means to keep it for listings.
            import: Policy::reject(),
            export: Policy::accept(),
            next_hop: configured.or(found),
            max_prefixes: peer.max_prefixes.map(|limit| MaxPrefixes {
                limit,
                restart_after: None,
            }),
            keep_rejected: peer.import == Import::Accept,
        }
    }
}

fn engine_family(family: config::Family) -> Family {
    match family {
        config::Family::Ipv4Unicast => Family::Ipv4Unicast,
        config::Family::Ipv6Unicast => Family::Ipv6Unicast,
    }
}

fn socket_change(old: &PeerConfig, new: &PeerConfig) -> Option<&'static str> {
    if old.password != new.password {
        return Some("the TCP-MD5 key changed");
    }
    if old.local_address != new.local_address {
        return Some("localAddress changed");
    }
    (old.ttl != new.ttl).then_some("ebgpMultihop changed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn config(peers: &str) -> Config {
        let text = format!("localASN: 65001\npeers:\n{peers}");
        Config::parse(&text, Path::new("speaker.yaml")).expect("a good file")
    }

    const TOR: &str = "- {name: tor, peerAddress: 10.0.0.254, peerASN: 65000}\n";
    const RR: &str = "- {name: rr, peerAddress: 10.9.9.9, peerASN: 65001}\n";

    #[test]
    fn numbers_survive_changes_and_are_never_given_to_another_peer() {
        let mut peers = Peers::default();
        peers.set(&config(&format!("{TOR}{RR}")));
        let (tor, rr) = (peers.find("tor"), peers.find("10.9.9.9"));
        peers.set(&config(RR));
        assert_eq!((peers.find("tor"), peers.find("rr")), (None, rr));
        peers.set(&config(&format!(
            "{RR}- {{name: new, peerAddress: 10.0.0.253}}\n{TOR}"
        )));
        assert_eq!((peers.find("tor"), peers.find("rr")), (tor, rr));
        assert!(
            peers
                .find("new")
                .is_some_and(|new| Some(new) != tor && Some(new) != rr)
        );
        assert_eq!(peers.name(tor.expect("known")), "tor");
    }

    #[test]
    fn only_what_a_socket_is_made_with_needs_a_new_socket() {
        let mut peers = Peers::default();
        assert!(
            peers.set(&config(TOR)).is_empty(),
            "a new peer has no session yet"
        );
        let with = |key: &str| config(&TOR.replacen('}', &format!(", {key}}}"), 1));
        assert!(peers.set(&with("import: reject")).is_empty());
        let reasons: Vec<_> = peers.set(&with("password: secret")).into_values().collect();
        assert_eq!(reasons, ["the TCP-MD5 key changed"]);
        assert_eq!(peers.keys().len(), 1);
    }

    /// eBGP stays on its link; iBGP may cross routers.
    #[test]
    fn the_ttl_follows_the_kind_of_session() {
        let mut peers = Peers::default();
        peers.set(&config(&format!("{TOR}{RR}")));
        let ttl = |ip: &str| peers.ttl_of(ip.parse().expect("an address"));
        assert_eq!((ttl("10.0.0.254"), ttl("10.9.9.9")), (Some(1), Some(64)));
        assert_eq!(ttl("192.0.2.1"), None);
    }

    /// The address beside that of the session serves the other family; what the configuration says wins.
    #[test]
    fn next_hops_of_the_other_family() {
        let mut peers = Peers::default();
        peers.set(&config(TOR));
        let tor = "10.0.0.254".parse().expect("an address");
        let beside = "fd00::1".parse().expect("an address");
        assert!(peers.found_next_hop(tor, beside), "news");
        assert!(!peers.found_next_hop(tor, beside), "no news");
        let hop = |peers: &Peers, family: Family| {
            let engine = peers.engine();
            engine.into_values().next().expect("one peer").families[&family].next_hop
        };
        assert_eq!(hop(&peers, Family::Ipv6Unicast), Some(beside));
        assert_eq!(hop(&peers, Family::Ipv4Unicast), None, "the session's own");
        peers.set(&config(&TOR.replacen('}', ", nextHop: {ipv6: \"fd00::99\"}}", 1)));
        assert_eq!(
            hop(&peers, Family::Ipv6Unicast),
            Some("fd00::99".parse().expect("an address"))
        );
    }
}
