//! Writing UPDATE messages: as many routes as fit for one set of attributes.
use std::net::IpAddr;

use ipnet::IpNet;

use crate::as2;
use crate::attribute::{AttributesView, RawAttribute, flag, kind};
use crate::family::{AfiSafi, Family};
use crate::frame::{HEADER_LEN, MAX_LEN, MessageType, begin, finish};
use crate::nlri;

/// The attributes leave no room for a single route in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("attributes of {len} bytes leave no room for a route in a message of {MAX_LEN} bytes")]
pub struct TooBig {
    /// Length of the attributes in bytes.
    pub len: usize,
}

/// Bytes of an UPDATE before the attributes: header and both section lengths.
const FIXED: usize = HEADER_LEN + 4;
/// Bytes of an MP attribute before its value: flags, type, two bytes of length.
const MP_HEAD: usize = 4;

/// Writes announcements of `prefixes`, all of `family`, with one set of attributes and one next hop, in as few messages
/// as possible. `as4` says that the receiver has 4-byte AS numbers. Returns the number of messages.
///
/// # Errors
/// If not even one route fits beside the attributes. Then nothing is written.
pub fn announce(
    out: &mut Vec<u8>,
    family: Family,
    attributes: AttributesView<'_>,
    next_hop: IpAddr,
    as4: bool,
    prefixes: impl IntoIterator<Item = IpNet>,
) -> Result<usize, TooBig> {
    let classic = family == Family::Ipv4Unicast && next_hop.is_ipv4();
    let mut common = Vec::with_capacity(attributes.as_bytes().len() + 16);
    write_attributes(
        attributes,
        next_hop.is_ipv4().then_some(next_hop).filter(|_| classic),
        as4,
        &mut common,
    );
    let mp = if classic {
        Vec::new()
    } else {
        mp_reach_head(family, next_hop)
    };
    let longest = 1 + usize::from(family.max_prefix_len()) / 8;
    let overhead = FIXED + common.len() + if classic { 0 } else { MP_HEAD + mp.len() };
    if overhead + longest > MAX_LEN {
        return Err(TooBig { len: common.len() });
    }
    let layout = Layout {
        common: &common,
        mp: &mp,
        mp_kind: kind::MP_REACH,
        room: MAX_LEN - overhead,
        classic,
    };
    Ok(layout.write_all(out, prefixes))
}

/// Writes withdrawals of `prefixes`, all of `family`, in as few messages as possible. Returns the number of messages.
pub fn withdraw(out: &mut Vec<u8>, family: Family, prefixes: impl IntoIterator<Item = IpNet>) -> usize {
    if family == Family::Ipv4Unicast {
        return withdraw_v4(out, prefixes);
    }
    let mp = family_bytes(family);
    let room = MAX_LEN - FIXED - MP_HEAD - mp.len();
    Layout {
        common: &[],
        mp: &mp,
        mp_kind: kind::MP_UNREACH,
        room,
        classic: false,
    }
    .write_all(out, prefixes)
}

/// Writes the End-of-RIB marker of a family (RFC 4724 §2).
pub fn end_of_rib(out: &mut Vec<u8>, family: Family) {
    let start = begin(out, MessageType::Update);
    out.extend_from_slice(&[0, 0]);
    if family == Family::Ipv4Unicast {
        out.extend_from_slice(&[0, 0]);
    } else {
        let value = family_bytes(family);
        out.extend_from_slice(&[0, 3 + u8::try_from(value.len()).unwrap_or(0)]);
        RawAttribute {
            flags: flag::OPTIONAL,
            kind: kind::MP_UNREACH,
            value: &value,
        }
        .encode(out);
    }
    finish(out, start);
}

fn family_bytes(family: Family) -> Vec<u8> {
    let AfiSafi { afi, safi } = family.into();
    let [a, b] = afi.to_be_bytes();
    vec![a, b, safi]
}

fn mp_reach_head(family: Family, next_hop: IpAddr) -> Vec<u8> {
    let mut head = family_bytes(family);
    // IPv6 routes have IPv6 next hops; an IPv4 address is written as an IPv4-mapped one.
    let octets = match next_hop {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    head.push(16);
    head.extend_from_slice(&octets);
    head.push(0);
    head
}

/// How the messages of one batch look: the same head each time, then routes until the message is full.
struct Layout<'a> {
    common: &'a [u8],
    mp: &'a [u8],
    mp_kind: u8,
    room: usize,
    classic: bool,
}

impl Layout<'_> {
    fn write_all(&self, out: &mut Vec<u8>, prefixes: impl IntoIterator<Item = IpNet>) -> usize {
        let mut prefixes = prefixes.into_iter().peekable();
        let mut messages = 0;
        while prefixes.peek().is_some() {
            let start = begin(out, MessageType::Update);
            out.extend_from_slice(&[0, 0, 0, 0]);
            let attributes = out.len();
            if !self.classic {
                // MP_REACH_NLRI comes first, so that a receiver finds the routes even if the rest is broken (RFC 7606 §5.1).
                out.extend_from_slice(&[flag::OPTIONAL | flag::EXTENDED_LENGTH, self.mp_kind, 0, 0]);
                out.extend_from_slice(self.mp);
                fill(out, self.room, &mut prefixes);
                let len = out.len() - attributes - MP_HEAD;
                put_len(out, attributes + 2, len);
            }
            out.extend_from_slice(self.common);
            let len = out.len() - attributes;
            put_len(out, attributes - 2, len);
            if self.classic {
                fill(out, self.room, &mut prefixes);
            }
            finish(out, start);
            messages += 1;
        }
        messages
    }
}

fn withdraw_v4(out: &mut Vec<u8>, prefixes: impl IntoIterator<Item = IpNet>) -> usize {
    let mut prefixes = prefixes.into_iter().peekable();
    let mut messages = 0;
    while prefixes.peek().is_some() {
        let start = begin(out, MessageType::Update);
        out.extend_from_slice(&[0, 0]);
        let field = out.len();
        fill(out, MAX_LEN - FIXED, &mut prefixes);
        let len = out.len() - field;
        put_len(out, field - 2, len);
        out.extend_from_slice(&[0, 0]);
        finish(out, start);
        messages += 1;
    }
    messages
}

/// Writes routes while they fit into `room` bytes.
fn fill<I: Iterator<Item = IpNet>>(out: &mut Vec<u8>, room: usize, prefixes: &mut std::iter::Peekable<I>) {
    let end = out.len() + room;
    while let Some(prefix) = prefixes.next_if(|prefix| out.len() + nlri::wire_len(prefix) <= end) {
        nlri::write(&prefix, out);
    }
}

fn put_len(out: &mut [u8], at: usize, len: usize) {
    out[at..at + 2].copy_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
}

/// Writes a canonical set for the wire: with NEXT_HOP in its place, and in 2-byte form if the receiver needs that.
fn write_attributes(attributes: AttributesView<'_>, next_hop: Option<IpAddr>, as4: bool, out: &mut Vec<u8>) {
    let mut next_hop = match next_hop {
        Some(IpAddr::V4(address)) => Some(address.octets()),
        _ => None,
    };
    let (mut as4_path, mut as4_aggregator) = (None, None);
    for attribute in attributes.iter() {
        if attribute.kind > kind::NEXT_HOP {
            write_next_hop(next_hop.take(), out);
        }
        if attribute.kind > kind::AS4_AGGREGATOR {
            write_as4(&mut as4_path, &mut as4_aggregator, out);
        }
        match attribute.kind {
            kind::AS_PATH if !as4 => as4_path = as2::write_path(attribute, out),
            kind::AGGREGATOR if !as4 => as4_aggregator = as2::write_aggregator(attribute, out),
            _ => attribute.encode(out),
        }
    }
    write_next_hop(next_hop, out);
    write_as4(&mut as4_path, &mut as4_aggregator, out);
}

fn write_next_hop(next_hop: Option<[u8; 4]>, out: &mut Vec<u8>) {
    if let Some(octets) = next_hop {
        RawAttribute {
            flags: flag::TRANSITIVE,
            kind: kind::NEXT_HOP,
            value: &octets,
        }
        .encode(out);
    }
}

fn write_as4(path: &mut Option<Vec<u8>>, aggregator: &mut Option<Vec<u8>>, out: &mut Vec<u8>) {
    if let Some(value) = path.take() {
        as2::write_as4(kind::AS4_PATH, &value, out);
    }
    if let Some(value) = aggregator.take() {
        as2::write_as4(kind::AS4_AGGREGATOR, &value, out);
    }
}
