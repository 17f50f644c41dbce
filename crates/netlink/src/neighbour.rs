//! Neighbours: which MAC address an IP address on a link has.
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteType;

use crate::address::family;
use crate::{Mac, Netlink, NetlinkError};

/// A neighbour entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    /// Index of the link.
    pub link: u32,
    /// IP address.
    pub ip: IpAddr,
    /// MAC address, if known.
    pub mac: Option<Mac>,
    /// Set by somebody for ever, not learnt.
    pub permanent: bool,
}

impl Netlink {
    /// All IPv4 and IPv6 neighbours.
    pub fn neighbours(&self) -> Result<Vec<Neighbour>, NetlinkError> {
        let list = self.dump(
            RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()),
            "list neighbours",
        )?;
        let read = |message| match message {
            RouteNetlinkMessage::NewNeighbour(message) => read_neighbour(&message),
            _ => None,
        };
        Ok(list.into_iter().filter_map(read).collect())
    }

    /// Puts a permanent neighbour; an entry for the address is replaced.
    pub fn put_neighbour(&self, link: &str, ip: IpAddr, mac: Mac) -> Result<(), NetlinkError> {
        let mut message = neighbour_message(self.link(link)?.index, ip);
        message.header.state = NeighbourState::Permanent;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        self.change(
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            format!("put neighbour {ip} ({mac}) on {link}"),
        )
    }

    /// Deletes a neighbour; deleting what is not there is no error.
    pub fn delete_neighbour(&self, link: &str, ip: IpAddr) -> Result<(), NetlinkError> {
        let message = neighbour_message(self.link(link)?.index, ip);
        let action = format!("delete neighbour {ip} on {link}");
        match self.change(RouteNetlinkMessage::DelNeighbour(message), 0, action) {
            Err(e) if e.is_missing() => Ok(()),
            other => other,
        }
    }
}

fn neighbour_message(index: u32, ip: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip);
    message.header.ifindex = index;
    message.header.kind = RouteType::Unicast;
    let destination = match ip {
        IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    };
    message
        .attributes
        .push(NeighbourAttribute::Destination(destination));
    message
}

fn read_neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let (mut ip, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => ip = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok().map(Mac),
            _ => {}
        }
    }
    Some(Neighbour {
        link: message.header.ifindex,
        ip: ip?,
        mac,
        permanent: message.header.state == NeighbourState::Permanent,
    })
}
