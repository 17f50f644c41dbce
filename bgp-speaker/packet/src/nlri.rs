//! Prefixes on the wire: one length byte and as many address bytes as the length needs (RFC 4271 §4.3, RFC 4760 §5).
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::family::Family;

/// A prefix field that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NlriError {
    /// The prefix length is more than the family has bits.
    #[error("prefix length {0} is too long")]
    TooLong(u8),
    /// The field ends inside a prefix.
    #[error("field ends inside a prefix")]
    Truncated,
}

/// A field of prefixes that has been checked; iterates over them. Bits behind the prefix length are cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefixes<'a> {
    family: Family,
    rest: &'a [u8],
}

impl<'a> Prefixes<'a> {
    /// Checks a field.
    ///
    /// # Errors
    /// Names the first thing that is wrong with it.
    pub fn parse(family: Family, bytes: &'a [u8]) -> Result<Self, NlriError> {
        let mut rest = bytes;
        while let Some((&len, tail)) = rest.split_first() {
            if len > family.max_prefix_len() {
                return Err(NlriError::TooLong(len));
            }
            rest = tail
                .get(usize::from(len.div_ceil(8))..)
                .ok_or(NlriError::Truncated)?;
        }
        Ok(Self { family, rest: bytes })
    }

    /// No prefix.
    pub(crate) const fn none(family: Family) -> Self {
        Self { family, rest: &[] }
    }

    /// The family of the prefixes.
    #[must_use]
    pub const fn family(&self) -> Family {
        self.family
    }

    /// True if no prefix is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

impl Iterator for Prefixes<'_> {
    type Item = IpNet;

    fn next(&mut self) -> Option<IpNet> {
        let (&len, tail) = self.rest.split_first()?;
        let (address, rest) = tail.split_at_checked(usize::from(len.div_ceil(8)))?;
        self.rest = rest;
        match self.family {
            Family::Ipv4Unicast => {
                let mut octets = [0; 4];
                octets.get_mut(..address.len())?.copy_from_slice(address);
                Ipv4Net::new(octets.into(), len)
                    .ok()
                    .map(|net| IpNet::V4(net.trunc()))
            }
            Family::Ipv6Unicast => {
                let mut octets = [0; 16];
                octets.get_mut(..address.len())?.copy_from_slice(address);
                Ipv6Net::new(octets.into(), len)
                    .ok()
                    .map(|net| IpNet::V6(net.trunc()))
            }
        }
    }
}

/// Bytes that a prefix takes on the wire.
#[must_use]
pub fn wire_len(prefix: &IpNet) -> usize {
    1 + usize::from(prefix.prefix_len().div_ceil(8))
}

/// Writes one prefix.
pub fn write(prefix: &IpNet, out: &mut Vec<u8>) {
    let bytes = usize::from(prefix.prefix_len().div_ceil(8));
    out.push(prefix.prefix_len());
    match prefix {
        IpNet::V4(net) => out.extend_from_slice(&net.network().octets()[..bytes]),
        IpNet::V6(net) => out.extend_from_slice(&net.network().octets()[..bytes]),
    }
}

/// The next hop of an MP_REACH_NLRI attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// Where to send; for IPv6 the global address, or the link-local one if there is no other.
    pub address: IpAddr,
    /// The link-local address that came beside the global one (RFC 2545 §3).
    pub link_local: Option<Ipv6Addr>,
}

impl NextHop {
    /// Reads a next hop field. IPv4 routes may have an IPv6 next hop (RFC 8950), IPv6 routes may not have an IPv4 one.
    pub(crate) fn parse(family: Family, bytes: &[u8]) -> Option<Self> {
        match (family, bytes.len()) {
            (Family::Ipv4Unicast, 4) => {
                let octets: [u8; 4] = bytes.try_into().ok()?;
                Some(Self {
                    address: octets.into(),
                    link_local: None,
                })
            }
            (_, 16 | 32) => {
                let first: Ipv6Addr = <[u8; 16]>::try_from(&bytes[..16]).ok()?.into();
                let second = bytes
                    .get(16..)
                    .and_then(|tail| <[u8; 16]>::try_from(tail).ok())
                    .map(Ipv6Addr::from);
                let link_local = second.filter(Ipv6Addr::is_unicast_link_local);
                let global_missing = first.is_unspecified() && link_local.is_some();
                let address = if global_missing {
                    link_local.unwrap_or(first)
                } else {
                    first
                };
                Some(Self {
                    address: address.into(),
                    link_local,
                })
            }
            _ => None,
        }
    }

    /// True for an address that a packet can be sent to.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        match self.address {
            IpAddr::V4(address) => is_usable_v4(address),
            IpAddr::V6(address) => !address.is_unspecified() && !address.is_multicast(),
        }
    }
}

/// False for 0.0.0.0/8, multicast, the reserved space above it, and broadcast.
pub(crate) const fn is_usable_v4(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first < 224
}
