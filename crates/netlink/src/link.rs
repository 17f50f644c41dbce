//! Links: veth pairs, VXLAN devices, dummies; dump, change, move, delete.
use std::fmt;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use serde::{Deserialize, Serialize};

use crate::{Netlink, NetlinkError, Netns};

/// The UDP port of Cilium's VXLAN, not the one that IANA gave.
const DEFAULT_VXLAN_PORT: u16 = 8472;

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        f.pad(&format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a link is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// The loopback.
    Loopback,
    /// One end of a veth pair.
    Veth,
    /// A dummy device.
    Dummy,
    /// A VXLAN device.
    Vxlan {
        /// UDP destination port.
        port: u16,
        /// Collect-metadata mode: tunnel key and endpoint come with each packet.
        external: bool,
        /// VXLAN network identifier (0 in collect-metadata mode).
        vni: u32,
    },
    /// A device of another kind, by the kernel's name for it.
    Other(String),
    /// A device without a kind: hardware.
    Device,
}

/// A link as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Interface index in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// Its MAC address, if it has one.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// It does without ARP and neighbour discovery.
    pub no_arp: bool,
    /// Carrier is there.
    pub carrier: bool,
    /// Index of the other end or lower device, if any (of another namespace, perhaps).
    pub peer_index: Option<u32>,
}

/// A veth pair to make.
#[derive(Debug, Clone)]
pub struct Veth<'n> {
    name: String,
    peer: String,
    peer_namespace: Option<&'n Netns>,
    mtu: Option<u32>,
    macs: [Option<Mac>; 2],
}

impl<'n> Veth<'n> {
    /// A pair in one namespace.
    pub fn new(name: &str, peer: &str) -> Self {
        Self {
            name: name.to_owned(),
            peer: peer.to_owned(),
            peer_namespace: None,
            mtu: None,
            macs: [None, None],
        }
    }

    /// The other end is born in this namespace.
    #[must_use]
    pub fn peer_in(mut self, namespace: &'n Netns) -> Self {
        self.peer_namespace = Some(namespace);
        self
    }

    /// MTU of both ends.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// MAC addresses of this end and of the other.
    #[must_use]
    pub fn macs(mut self, own: Mac, peer: Mac) -> Self {
        self.macs = [Some(own), Some(peer)];
        self
    }
}

/// A VXLAN device to make; in collect-metadata mode unless a VNI is given.
#[derive(Debug, Clone)]
pub struct Vxlan {
    name: String,
    port: u16,
    fixed: Option<(u32, Option<IpAddr>)>,
    mtu: Option<u32>,
    mac: Option<Mac>,
}

impl Vxlan {
    /// A collect-metadata device on UDP 8472.
    pub fn external(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            port: DEFAULT_VXLAN_PORT,
            fixed: None,
            mtu: None,
            mac: None,
        }
    }

    /// Another UDP port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// One fixed VNI and remote endpoint instead of collect-metadata mode.
    #[must_use]
    pub fn fixed(mut self, vni: u32, remote: Option<IpAddr>) -> Self {
        self.fixed = Some((vni, remote));
        self
    }

    /// Its MTU.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// Its MAC address.
    #[must_use]
    pub fn mac(mut self, mac: Mac) -> Self {
        self.mac = Some(mac);
        self
    }

    fn data(&self) -> Vec<InfoVxlan> {
        let mut data = vec![InfoVxlan::Port(self.port), InfoVxlan::Learning(false)];
        match self.fixed {
            None => data.push(InfoVxlan::CollectMetadata(true)),
            Some((vni, remote)) => {
                data.push(InfoVxlan::Id(vni));
                match remote {
                    Some(IpAddr::V4(ip)) => data.push(InfoVxlan::Group(ip)),
                    Some(IpAddr::V6(ip)) => data.push(InfoVxlan::Group6(ip)),
                    None => {}
                }
            }
        }
        data
    }
}

impl Netlink {
    /// All links.
    pub fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let list = self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), "list links")?;
        let read = |message| match message {
            RouteNetlinkMessage::NewLink(message) => Some(read_link(&message)),
            _ => None,
        };
        Ok(list.into_iter().filter_map(read).collect())
    }

    /// The link of this name.
    pub fn link(&self, name: &str) -> Result<Link, NetlinkError> {
        self.find_link(name)?.ok_or_else(|| NetlinkError::Missing {
            kind: "link",
            name: name.to_owned(),
        })
    }

    /// The link of this name, if there is one.
    pub fn find_link(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        Ok(self.links()?.into_iter().find(|link| link.name == name))
    }

    /// Makes a veth pair; both ends are down.
    pub fn add_veth(&self, veth: &Veth<'_>) -> Result<(), NetlinkError> {
        check_name(&veth.name)?;
        check_name(&veth.peer)?;
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName(veth.peer.clone()));
        peer.attributes.extend(veth.mtu.map(LinkAttribute::Mtu));
        peer.attributes.extend(veth.macs[1].map(address));
        if let Some(namespace) = veth.peer_namespace {
            let fd = namespace.as_fd().as_raw_fd();
            peer.attributes.push(LinkAttribute::NetNsFd(fd));
        }
        let info = vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ];
        self.add_link(&veth.name, "veth", info, veth.mtu, veth.macs[0])
    }

    /// Makes a VXLAN device; it is down.
    pub fn add_vxlan(&self, vxlan: &Vxlan) -> Result<(), NetlinkError> {
        let info = vec![
            LinkInfo::Kind(InfoKind::Vxlan),
            LinkInfo::Data(InfoData::Vxlan(vxlan.data())),
        ];
        self.add_link(&vxlan.name, "vxlan", info, vxlan.mtu, vxlan.mac)
    }

    /// Makes a dummy device, where the kernel has them; it is down.
    pub fn add_dummy(&self, name: &str) -> Result<(), NetlinkError> {
        self.add_link(name, "dummy", vec![LinkInfo::Kind(InfoKind::Dummy)], None, None)
    }

    /// Makes a bridge; it is down.
    pub fn add_bridge(&self, name: &str) -> Result<(), NetlinkError> {
        self.add_link(name, "bridge", vec![LinkInfo::Kind(InfoKind::Bridge)], None, None)
    }

    fn add_link(
        &self,
        name: &str,
        kind: &str,
        info: Vec<LinkInfo>,
        mtu: Option<u32>,
        mac: Option<Mac>,
    ) -> Result<(), NetlinkError> {
        check_name(name)?;
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.extend(mtu.map(LinkAttribute::Mtu));
        message.attributes.extend(mac.map(address));
        message.attributes.push(LinkAttribute::LinkInfo(info));
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.change(
            RouteNetlinkMessage::NewLink(message),
            flags,
            format!("add link {name} ({kind})"),
        )
    }

    fn set_link(
        &self,
        name: &str,
        what: &str,
        edit: impl FnOnce(&mut LinkMessage),
    ) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = self.link(name)?.index;
        edit(&mut message);
        self.change(
            RouteNetlinkMessage::SetLink(message),
            0,
            format!("set link {name} {what}"),
        )
    }

    /// Sets a link up.
    pub fn set_up(&self, name: &str) -> Result<(), NetlinkError> {
        self.set_link(name, "up", |m| {
            m.header.flags = LinkFlags::Up;
            m.header.change_mask = LinkFlags::Up;
        })
    }

    /// Sets a link down.
    pub fn set_down(&self, name: &str) -> Result<(), NetlinkError> {
        self.set_link(name, "down", |m| m.header.change_mask = LinkFlags::Up)
    }

    /// Lets a link do without ARP and neighbour discovery: frames go to its own MAC address.
    pub fn set_no_arp(&self, name: &str) -> Result<(), NetlinkError> {
        self.set_link(name, "arp off", |m| {
            m.header.flags = LinkFlags::Noarp;
            m.header.change_mask = LinkFlags::Noarp;
        })
    }

    /// Sets a link's MTU in bytes.
    pub fn set_mtu(&self, name: &str, mtu: u32) -> Result<(), NetlinkError> {
        self.set_link(name, &format!("mtu {mtu}"), |m| {
            m.attributes.push(LinkAttribute::Mtu(mtu));
        })
    }

    /// Sets a link's MAC address.
    pub fn set_mac(&self, name: &str, mac: Mac) -> Result<(), NetlinkError> {
        self.set_link(name, &format!("address {mac}"), |m| {
            m.attributes.push(address(mac));
        })
    }

    /// Renames a link, which must be down on kernels before 6.2.
    pub fn rename(&self, name: &str, new: &str) -> Result<(), NetlinkError> {
        check_name(new)?;
        self.set_link(name, &format!("name {new}"), |m| {
            m.attributes.push(LinkAttribute::IfName(new.to_owned()));
        })
    }

    /// Moves a link into another namespace.
    pub fn move_to(&self, name: &str, namespace: &Netns) -> Result<(), NetlinkError> {
        let fd = namespace.as_fd().as_raw_fd();
        self.set_link(name, &format!("netns {}", namespace.name()), |m| {
            m.attributes.push(LinkAttribute::NetNsFd(fd));
        })
    }

    /// Puts a link into a bridge (or another master).
    pub fn set_master(&self, name: &str, master: &str) -> Result<(), NetlinkError> {
        let index = self.link(master)?.index;
        self.set_link(name, &format!("master {master}"), |m| {
            m.attributes.push(LinkAttribute::Controller(index));
        })
    }

    /// Deletes a link; deleting what is not there is no error.
    pub fn delete_link(&self, name: &str) -> Result<(), NetlinkError> {
        let Some(link) = self.find_link(name)? else {
            return Ok(());
        };
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        let deleted = self.change(
            RouteNetlinkMessage::DelLink(message),
            0,
            format!("delete link {name}"),
        );
        match deleted {
            Err(e) if e.is_missing() => Ok(()),
            other => other,
        }
    }
}

fn address(mac: Mac) -> LinkAttribute {
    LinkAttribute::Address(mac.0.to_vec())
}

fn check_name(name: &str) -> Result<(), NetlinkError> {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace();
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(bad) {
        return Err(NetlinkError::Name(name.to_owned()));
    }
    Ok(())
}

pub(crate) fn read_link(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let loopback = flags.contains(LinkFlags::Loopback);
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: if loopback {
            LinkKind::Loopback
        } else {
            LinkKind::Device
        },
        mac: None,
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        no_arp: flags.contains(LinkFlags::Noarp),
        carrier: flags.contains(LinkFlags::LowerUp),
        peer_index: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok().map(Mac),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Link(index) => link.peer_index = Some(*index),
            LinkAttribute::LinkInfo(info) => link.kind = read_kind(info, link.kind),
            _ => {}
        }
    }
    link
}

fn read_kind(info: &[LinkInfo], default: LinkKind) -> LinkKind {
    let mut kind = default;
    for part in info {
        match part {
            LinkInfo::Kind(InfoKind::Veth) => kind = LinkKind::Veth,
            LinkInfo::Kind(InfoKind::Dummy) => kind = LinkKind::Dummy,
            LinkInfo::Kind(InfoKind::Vxlan) => {
                kind = LinkKind::Vxlan {
                    port: 0,
                    external: false,
                    vni: 0,
                };
            }
            LinkInfo::Kind(other) => kind = LinkKind::Other(other.to_string()),
            LinkInfo::Data(InfoData::Vxlan(data)) => kind = read_vxlan(data),
            _ => {}
        }
    }
    kind
}

fn read_vxlan(data: &[InfoVxlan]) -> LinkKind {
    let (mut port, mut external, mut vni) = (0, false, 0);
    for attribute in data {
        match attribute {
            InfoVxlan::Port(value) => port = *value,
            InfoVxlan::CollectMetadata(value) => external = *value,
            InfoVxlan::Id(value) => vni = *value,
            _ => {}
        }
    }
    LinkKind::Vxlan { port, external, vni }
}
