//! Addresses of links.
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::{Netlink, NetlinkError};

/// An address of a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Index of the link.
    pub link: u32,
    /// The address itself, with the length of its prefix (host bits are kept).
    pub prefix: IpNet,
    /// Made by the kernel itself for this link only (IPv6 fe80::/10).
    pub link_local: bool,
}

impl Netlink {
    /// All addresses of all links.
    pub fn addresses(&self) -> Result<Vec<Address>, NetlinkError> {
        let list = self.dump(
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            "list addresses",
        )?;
        let read = |message| match message {
            RouteNetlinkMessage::NewAddress(message) => read_address(&message),
            _ => None,
        };
        Ok(list.into_iter().filter_map(read).collect())
    }

    /// Adds an address to a link; adding it again changes nothing. IPv6 addresses skip duplicate detection, so they work at
    /// once.
    pub fn add_address(&self, link: &str, prefix: IpNet) -> Result<(), NetlinkError> {
        let message = address_message(self.link(link)?.index, prefix);
        self.change(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            format!("add address {prefix} to {link}"),
        )
    }

    /// Takes an address from a link; taking what is not there is no error.
    pub fn delete_address(&self, link: &str, prefix: IpNet) -> Result<(), NetlinkError> {
        let message = address_message(self.link(link)?.index, prefix);
        let action = format!("delete address {prefix} from {link}");
        match self.change(RouteNetlinkMessage::DelAddress(message), 0, action) {
            Err(e) if e.is_missing() => Ok(()),
            other => other,
        }
    }
}

fn address_message(index: u32, prefix: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = prefix.prefix_len();
    message.header.family = family(prefix.addr());
    message.attributes.push(AddressAttribute::Local(prefix.addr()));
    message.attributes.push(AddressAttribute::Address(prefix.addr()));
    match prefix {
        IpNet::V4(v4) if v4.prefix_len() < 31 => {
            message
                .attributes
                .push(AddressAttribute::Broadcast(v4.broadcast()));
        }
        IpNet::V4(_) => {}
        IpNet::V6(_) => {
            message.header.flags = AddressHeaderFlags::Nodad;
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    message
}

pub(crate) fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv6() {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    }
}

fn read_address(message: &AddressMessage) -> Option<Address> {
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    // IPv4 has both (they differ on point-to-point links), IPv6 only Address.
    let ip = local.or(address)?;
    Some(Address {
        link: message.header.index,
        prefix: IpNet::new(ip, message.header.prefix_len).ok()?,
        link_local: message.header.scope == AddressScope::Link,
    })
}
