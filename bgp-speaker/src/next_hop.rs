//! The next hop for routes whose family is not the session's own: the address that the session's interface has in it.
use std::net::IpAddr;

use nix::ifaddrs::{InterfaceAddress, getifaddrs};

/// An address of the other family on the interface that has `local`: what a router on the same link can resolve. Link-local
/// addresses do not count: a next hop must mean the same to every router that hears of it.
pub(crate) fn beside(local: IpAddr) -> Option<IpAddr> {
    let all: Vec<(String, IpAddr)> = getifaddrs()
        .ok()?
        .filter_map(|interface| Some((interface.interface_name.clone(), address(&interface)?)))
        .collect();
    choose(&all, local)
}

fn choose(all: &[(String, IpAddr)], local: IpAddr) -> Option<IpAddr> {
    let (interface, _) = all.iter().find(|(_, ip)| *ip == local)?;
    all.iter()
        .filter(|(name, ip)| name == interface && ip.is_ipv4() != local.is_ipv4())
        .map(|(_, ip)| *ip)
        .find(|ip| match ip {
            IpAddr::V4(ip) => !ip.is_link_local(),
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        })
}

fn address(interface: &InterfaceAddress) -> Option<IpAddr> {
    let address = interface.address.as_ref()?;
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Some(v4.ip().into()),
        (_, Some(v6)) => Some(v6.ip().into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ```text
    ///   eth0: 10.0.0.1, fe80::1, fd00::1      eth1: 10.0.1.1      session from 10.0.0.1 -> fd00::1
    /// ```
    #[test]
    fn the_interface_of_the_session_gives_the_other_family() {
        let all = [
            ("eth1", "10.0.1.1"),
            ("eth0", "10.0.0.1"),
            ("eth0", "fe80::1"),
            ("eth0", "fd00::1"),
        ]
        .map(|(name, ip)| (name.to_owned(), ip.parse().expect("an address")));
        let of = |local: &str| choose(&all, local.parse().expect("an address")).map(|ip| ip.to_string());
        assert_eq!(of("10.0.0.1").as_deref(), Some("fd00::1"));
        assert_eq!(of("fd00::1").as_deref(), Some("10.0.0.1"));
        assert_eq!(of("10.0.1.1"), None, "no IPv6 there");
        assert_eq!(of("192.0.2.1"), None, "not ours");
    }
}
