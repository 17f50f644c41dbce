//! Path attributes as values: one canonical byte string per set, with typed views into it.
//!
//! [`Attributes`] holds every attribute of a route except NEXT_HOP, MP_REACH_NLRI and MP_UNREACH_NLRI, in wire form, in
//! ascending type order, with 4-byte AS numbers. Equal sets are equal bytes, so sets can be interned by content, and
//! an attribute that nobody here understands leaves exactly as it came.
use std::fmt;
use std::net::Ipv4Addr;

use crate::as_path::{AsPath, SegmentKind, write_header};
use crate::community::{Community, ExtendedCommunity, LargeCommunity};

/// Attribute type codes (IANA "BGP Path Attributes").
pub mod kind {
    /// ORIGIN.
    pub const ORIGIN: u8 = 1;
    /// AS_PATH.
    pub const AS_PATH: u8 = 2;
    /// NEXT_HOP.
    pub const NEXT_HOP: u8 = 3;
    /// MULTI_EXIT_DISC.
    pub const MED: u8 = 4;
    /// LOCAL_PREF.
    pub const LOCAL_PREF: u8 = 5;
    /// ATOMIC_AGGREGATE.
    pub const ATOMIC_AGGREGATE: u8 = 6;
    /// AGGREGATOR.
    pub const AGGREGATOR: u8 = 7;
    /// COMMUNITIES (RFC 1997).
    pub const COMMUNITIES: u8 = 8;
    /// ORIGINATOR_ID (RFC 4456).
    pub const ORIGINATOR_ID: u8 = 9;
    /// CLUSTER_LIST (RFC 4456).
    pub const CLUSTER_LIST: u8 = 10;
    /// MP_REACH_NLRI (RFC 4760).
    pub const MP_REACH: u8 = 14;
    /// MP_UNREACH_NLRI (RFC 4760).
    pub const MP_UNREACH: u8 = 15;
    /// EXTENDED COMMUNITIES (RFC 4360).
    pub const EXTENDED_COMMUNITIES: u8 = 16;
    /// AS4_PATH (RFC 6793).
    pub const AS4_PATH: u8 = 17;
    /// AS4_AGGREGATOR (RFC 6793).
    pub const AS4_AGGREGATOR: u8 = 18;
    /// Tunnel Encapsulation (RFC 9012).
    pub const TUNNEL_ENCAPSULATION: u8 = 23;
    /// AIGP (RFC 7311).
    pub const AIGP: u8 = 26;
    /// LARGE_COMMUNITY (RFC 8092).
    pub const LARGE_COMMUNITIES: u8 = 32;
    /// Only to Customer (RFC 9234).
    pub const OTC: u8 = 35;
    /// BGP Prefix-SID (RFC 8669).
    pub const PREFIX_SID: u8 = 40;
}

/// Bits of the attribute flags byte (RFC 4271 §4.3).
pub mod flag {
    /// Not well-known.
    pub const OPTIONAL: u8 = 0x80;
    /// Passed on by speakers that do not know the attribute.
    pub const TRANSITIVE: u8 = 0x40;
    /// Some speaker on the way did not know the attribute.
    pub const PARTIAL: u8 = 0x20;
    /// The length field has two bytes.
    pub const EXTENDED_LENGTH: u8 = 0x10;
}

/// How the route came into BGP; smaller is better in route choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Origin {
    /// From inside the originating AS.
    #[default]
    Igp = 0,
    /// From EGP.
    Egp = 1,
    /// By some other means.
    Incomplete = 2,
}

impl Origin {
    /// The origin that a wire byte stands for.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Origin::Igp),
            1 => Some(Origin::Egp),
            2 => Some(Origin::Incomplete),
            _ => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Igp => "igp",
            Origin::Egp => "egp",
            Origin::Incomplete => "incomplete",
        })
    }
}

/// Who aggregated a route (AGGREGATOR).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Aggregator {
    /// AS of the aggregating speaker.
    pub asn: u32,
    /// Identifier of the aggregating speaker.
    pub id: Ipv4Addr,
}

/// One attribute: flags (without [`flag::EXTENDED_LENGTH`]), type, value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawAttribute<'a> {
    /// Attribute flags, see [`flag`].
    pub flags: u8,
    /// Attribute type code, see [`kind`].
    pub kind: u8,
    /// The value, without flags, type and length.
    pub value: &'a [u8],
}

impl RawAttribute<'_> {
    /// Writes the attribute in wire form; the length takes two bytes only where one is too few.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let flags = self.flags & !flag::EXTENDED_LENGTH;
        match u8::try_from(self.value.len()) {
            Ok(len) => out.extend_from_slice(&[flags, self.kind, len]),
            Err(_) => {
                let len = u16::try_from(self.value.len()).unwrap_or(u16::MAX);
                out.extend_from_slice(&[flags | flag::EXTENDED_LENGTH, self.kind]);
                out.extend_from_slice(&len.to_be_bytes());
            }
        }
        out.extend_from_slice(self.value);
    }
}

/// Walks over attributes in wire form; ends at the first one that does not fit into the bytes.
#[derive(Debug, Clone)]
pub struct RawAttributes<'a> {
    rest: &'a [u8],
}

impl<'a> RawAttributes<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes that were not cut into attributes.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for RawAttributes<'a> {
    type Item = RawAttribute<'a>;

    fn next(&mut self) -> Option<RawAttribute<'a>> {
        let [flags, kind, tail @ ..] = self.rest else {
            return None;
        };
        let (len, tail) = if flags & flag::EXTENDED_LENGTH == 0 {
            let (len, tail) = tail.split_first()?;
            (usize::from(*len), tail)
        } else {
            let (len, tail) = tail.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*len)), tail)
        };
        let (value, rest) = tail.split_at_checked(len)?;
        self.rest = rest;
        Some(RawAttribute {
            flags: flags & !flag::EXTENDED_LENGTH,
            kind: *kind,
            value,
        })
    }
}

/// The attributes of a route in canonical form; see the module's page.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attributes {
    bytes: Box<[u8]>,
}

impl Attributes {
    /// Takes bytes that are in canonical form already, as [`crate::update::Update::canonical_attributes`] writes them.
    #[must_use]
    pub fn from_canonical(bytes: &[u8]) -> Self {
        Self { bytes: bytes.into() }
    }

    /// The canonical bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A borrowed view with the typed accessors.
    #[must_use]
    pub const fn view(&self) -> AttributesView<'_> {
        AttributesView { bytes: &self.bytes }
    }
}

impl AsRef<[u8]> for Attributes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::borrow::Borrow<[u8]> for Attributes {
    fn borrow(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

/// Canonical attribute bytes with typed accessors.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AttributesView<'a> {
    bytes: &'a [u8],
}

impl<'a> AttributesView<'a> {
    /// A view over canonical bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The canonical bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Every attribute in ascending type order.
    #[must_use]
    pub const fn iter(&self) -> RawAttributes<'a> {
        RawAttributes::new(self.bytes)
    }

    /// The value of one attribute.
    #[must_use]
    pub fn value(&self, kind: u8) -> Option<&'a [u8]> {
        self.iter()
            .find(|attribute| attribute.kind == kind)
            .map(|attribute| attribute.value)
    }

    fn number(&self, kind: u8) -> Option<u32> {
        Some(u32::from_be_bytes(self.value(kind)?.try_into().ok()?))
    }

    /// ORIGIN; incomplete if the set has none.
    #[must_use]
    pub fn origin(&self) -> Origin {
        match self.value(kind::ORIGIN) {
            Some([byte]) => Origin::from_byte(*byte).unwrap_or(Origin::Incomplete),
            _ => Origin::Incomplete,
        }
    }

    /// AS_PATH; empty if the set has none.
    #[must_use]
    pub fn as_path(&self) -> AsPath<'a> {
        AsPath::trusted(self.value(kind::AS_PATH).unwrap_or_default())
    }

    /// MULTI_EXIT_DISC.
    #[must_use]
    pub fn med(&self) -> Option<u32> {
        self.number(kind::MED)
    }

    /// LOCAL_PREF.
    #[must_use]
    pub fn local_pref(&self) -> Option<u32> {
        self.number(kind::LOCAL_PREF)
    }

    /// Whether ATOMIC_AGGREGATE is there.
    #[must_use]
    pub fn atomic_aggregate(&self) -> bool {
        self.value(kind::ATOMIC_AGGREGATE).is_some()
    }

    /// AGGREGATOR.
    #[must_use]
    pub fn aggregator(&self) -> Option<Aggregator> {
        let value: &[u8; 8] = self.value(kind::AGGREGATOR)?.try_into().ok()?;
        let [a, b, c, d, id @ ..] = *value;
        Some(Aggregator {
            asn: u32::from_be_bytes([a, b, c, d]),
            id: id.into(),
        })
    }

    /// COMMUNITIES, in wire order.
    pub fn communities(&self) -> impl Iterator<Item = Community> + Clone + use<'a> {
        let value = self.value(kind::COMMUNITIES).unwrap_or_default();
        value
            .as_chunks::<4>()
            .0
            .iter()
            .map(|chunk| Community(u32::from_be_bytes(*chunk)))
    }

    /// EXTENDED COMMUNITIES, in wire order.
    pub fn extended_communities(&self) -> impl Iterator<Item = ExtendedCommunity> + Clone + use<'a> {
        let value = self.value(kind::EXTENDED_COMMUNITIES).unwrap_or_default();
        value
            .as_chunks::<8>()
            .0
            .iter()
            .map(|chunk| ExtendedCommunity(u64::from_be_bytes(*chunk)))
    }

    /// LARGE_COMMUNITY, in wire order.
    pub fn large_communities(&self) -> impl Iterator<Item = LargeCommunity> + Clone + use<'a> {
        let value = self.value(kind::LARGE_COMMUNITIES).unwrap_or_default();
        value
            .as_chunks::<12>()
            .0
            .iter()
            .map(|[a, b, c, d, e, f, g, h, i, j, k, l]| LargeCommunity {
                global: u32::from_be_bytes([*a, *b, *c, *d]),
                local1: u32::from_be_bytes([*e, *f, *g, *h]),
                local2: u32::from_be_bytes([*i, *j, *k, *l]),
            })
    }

    /// ORIGINATOR_ID: the router that brought the route into the AS.
    #[must_use]
    pub fn originator_id(&self) -> Option<Ipv4Addr> {
        self.number(kind::ORIGINATOR_ID).map(Into::into)
    }

    /// CLUSTER_LIST: the route reflectors that the route passed, nearest first.
    pub fn cluster_list(&self) -> impl ExactSizeIterator<Item = Ipv4Addr> + use<'a> {
        let value = self.value(kind::CLUSTER_LIST).unwrap_or_default();
        value.as_chunks::<4>().0.iter().map(|chunk| (*chunk).into())
    }

    /// Only to Customer: the AS that set it.
    #[must_use]
    pub fn otc(&self) -> Option<u32> {
        self.number(kind::OTC)
    }

    /// A builder that starts from this set.
    #[must_use]
    pub fn edit(&self) -> AttributesBuilder {
        let list = self.iter().map(|a| Entry {
            kind: a.kind,
            flags: a.flags,
            value: a.value.to_vec(),
        });
        AttributesBuilder { list: list.collect() }
    }

    /// An owned copy.
    #[must_use]
    pub fn to_owned(&self) -> Attributes {
        Attributes::from_canonical(self.bytes)
    }
}

impl fmt::Debug for AttributesView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for attribute in self.iter() {
            map.entry(&attribute.kind, &attribute.value);
        }
        map.finish()
    }
}

#[derive(Debug, Clone)]
struct Entry {
    kind: u8,
    flags: u8,
    value: Vec<u8>,
}

/// Builds or edits [`Attributes`].
#[derive(Debug, Clone, Default)]
pub struct AttributesBuilder {
    list: Vec<Entry>,
}

impl AttributesBuilder {
    /// A route of our own: the ORIGIN and an empty AS_PATH.
    #[must_use]
    pub fn originated(origin: Origin) -> Self {
        Self::default().origin(origin).as_path(&[])
    }

    /// Sets any attribute by its bytes. The value must be well formed; flags come from [`flag`].
    #[must_use]
    pub fn raw(mut self, flags: u8, kind: u8, value: Vec<u8>) -> Self {
        let entry = Entry {
            kind,
            flags: flags & !flag::EXTENDED_LENGTH,
            value,
        };
        match self.list.binary_search_by_key(&kind, |entry| entry.kind) {
            Ok(at) => self.list[at] = entry,
            Err(at) => self.list.insert(at, entry),
        }
        self
    }

    /// Takes an attribute away.
    #[must_use]
    pub fn remove(mut self, kind: u8) -> Self {
        self.list.retain(|entry| entry.kind != kind);
        self
    }

    /// Takes away every attribute that `keep` refuses.
    #[must_use]
    pub fn retain(mut self, mut keep: impl FnMut(RawAttribute<'_>) -> bool) -> Self {
        self.list.retain(|e| {
            keep(RawAttribute {
                flags: e.flags,
                kind: e.kind,
                value: &e.value,
            })
        });
        self
    }

    /// Marks every attribute that `which` picks as partial (RFC 4271 §5).
    #[must_use]
    pub fn mark_partial(mut self, which: impl Fn(u8) -> bool) -> Self {
        for entry in &mut self.list {
            if which(entry.kind) {
                entry.flags |= flag::PARTIAL;
            }
        }
        self
    }

    fn value(&self, kind: u8) -> &[u8] {
        let at = self.list.binary_search_by_key(&kind, |entry| entry.kind);
        at.map_or(&[], |at| &self.list[at].value)
    }

    /// Sets ORIGIN.
    #[must_use]
    pub fn origin(self, origin: Origin) -> Self {
        self.raw(flag::TRANSITIVE, kind::ORIGIN, vec![origin as u8])
    }

    /// Sets AS_PATH to one sequence, nearest AS first; more than 255 ASes take several sequences.
    #[must_use]
    pub fn as_path(self, asns: &[u32]) -> Self {
        let mut value = Vec::with_capacity(asns.len() * 4 + 2);
        for chunk in asns.chunks(crate::as_path::MAX_SEGMENT_LEN) {
            write_header(&mut value, SegmentKind::Sequence, chunk.len());
            chunk
                .iter()
                .for_each(|asn| value.extend_from_slice(&asn.to_be_bytes()));
        }
        self.raw(flag::TRANSITIVE, kind::AS_PATH, value)
    }

    /// Puts `asn` in front of AS_PATH, `times` times.
    #[must_use]
    pub fn prepend(self, asn: u32, times: usize) -> Self {
        let mut value = Vec::new();
        AsPath::trusted(self.value(kind::AS_PATH)).write_prepended(asn, times, &mut value);
        self.raw(flag::TRANSITIVE, kind::AS_PATH, value)
    }

    /// Sets or removes MULTI_EXIT_DISC.
    #[must_use]
    pub fn med(self, med: Option<u32>) -> Self {
        self.optional_number(flag::OPTIONAL, kind::MED, med)
    }

    /// Sets or removes LOCAL_PREF.
    #[must_use]
    pub fn local_pref(self, local_pref: Option<u32>) -> Self {
        self.optional_number(flag::TRANSITIVE, kind::LOCAL_PREF, local_pref)
    }

    fn optional_number(self, flags: u8, kind: u8, value: Option<u32>) -> Self {
        match value {
            Some(value) => self.raw(flags, kind, value.to_be_bytes().to_vec()),
            None => self.remove(kind),
        }
    }

    /// Sets COMMUNITIES, sorted and without repetition; an empty list removes the attribute.
    #[must_use]
    pub fn communities(self, list: &[Community]) -> Self {
        let mut list = list.to_vec();
        list.sort_unstable();
        list.dedup();
        let value: Vec<u8> = list
            .iter()
            .flat_map(|community| community.0.to_be_bytes())
            .collect();
        self.list_attribute(kind::COMMUNITIES, value)
    }

    /// Sets EXTENDED COMMUNITIES, sorted and without repetition; an empty list removes the attribute.
    #[must_use]
    pub fn extended_communities(self, list: &[ExtendedCommunity]) -> Self {
        let mut list = list.to_vec();
        list.sort_unstable();
        list.dedup();
        let value: Vec<u8> = list
            .iter()
            .flat_map(|community| community.0.to_be_bytes())
            .collect();
        self.list_attribute(kind::EXTENDED_COMMUNITIES, value)
    }

    /// Sets LARGE_COMMUNITY, sorted and without repetition; an empty list removes the attribute.
    #[must_use]
    pub fn large_communities(self, list: &[LargeCommunity]) -> Self {
        let mut list = list.to_vec();
        list.sort_unstable();
        list.dedup();
        let value: Vec<u8> = list
            .iter()
            .flat_map(|c| [c.global, c.local1, c.local2])
            .flat_map(u32::to_be_bytes)
            .collect();
        self.list_attribute(kind::LARGE_COMMUNITIES, value)
    }

    fn list_attribute(self, kind: u8, value: Vec<u8>) -> Self {
        if value.is_empty() {
            return self.remove(kind);
        }
        self.raw(flag::OPTIONAL | flag::TRANSITIVE, kind, value)
    }

    /// The finished set.
    #[must_use]
    pub fn build(&self) -> Attributes {
        let mut bytes = Vec::new();
        for entry in &self.list {
            RawAttribute {
                flags: entry.flags,
                kind: entry.kind,
                value: &entry.value,
            }
            .encode(&mut bytes);
        }
        Attributes { bytes: bytes.into() }
    }
}
