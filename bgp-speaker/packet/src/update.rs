//! Reading UPDATE messages: one pass that finds every attribute and the worst that is wrong (RFC 4271 §4.3, RFC 7606).
use std::net::Ipv4Addr;

use crate::attribute::{RawAttribute, RawAttributes, flag, kind};
use crate::family::{AfiSafi, Family};
use crate::nlri::{NextHop, Prefixes};
use crate::notification::{Notification, code, update as subcode};
use crate::validate::{self, Disposition, Fault};

/// What decides how an UPDATE is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// Both sides have 4-byte AS numbers (RFC 6793).
    pub as4: bool,
    /// The peer is in another AS.
    pub external: bool,
}

/// Routes of an MP_REACH_NLRI attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MpReach<'a> {
    /// Their next hop.
    pub next_hop: NextHop,
    /// The routes.
    pub prefixes: Prefixes<'a>,
}

/// An UPDATE, borrowed from the bytes of its message.
#[derive(Debug, Clone)]
pub struct Update<'a> {
    context: Context,
    withdrawn: Prefixes<'a>,
    attributes: &'a [u8],
    prefixes: Prefixes<'a>,
    next_hop: Option<Ipv4Addr>,
    mp_reach: Option<MpReach<'a>>,
    mp_unreach: Option<Prefixes<'a>>,
    dropped: KindSet,
    fault: Option<Fault>,
    end_of_rib: Option<AfiSafi>,
}

impl<'a> Update<'a> {
    /// Reads the body of an UPDATE.
    ///
    /// # Errors
    /// The NOTIFICATION that ends the session. Only what makes the routes themselves unreadable does (RFC 7606 §5.3, §3 j).
    pub fn decode(body: &'a [u8], context: Context) -> Result<Self, Notification> {
        let (withdrawn, attributes, nlri) = sections(body)?;
        let invalid = |_| Notification::new(code::UPDATE, subcode::INVALID_NETWORK);
        let withdrawn = Prefixes::parse(Family::Ipv4Unicast, withdrawn).map_err(invalid)?;
        let prefixes = Prefixes::parse(Family::Ipv4Unicast, nlri).map_err(invalid)?;
        let mut scan = Scan::new(context);
        scan.attributes(attributes)?;
        scan.mandatory(!prefixes.is_empty());
        if prefixes.is_empty() && !scan.has_reachable() {
            scan.must_not_withdraw()?;
        }
        let mut update = Self {
            context,
            withdrawn,
            attributes,
            prefixes,
            next_hop: scan.next_hop,
            mp_reach: scan.mp_reach,
            mp_unreach: scan.mp_unreach,
            dropped: scan.dropped,
            fault: scan.fault.map(|(fault, _)| fault),
            end_of_rib: None,
        };
        update.end_of_rib = update.find_end_of_rib(body.len(), scan.unreach_family, scan.count);
        Ok(update)
    }

    fn find_end_of_rib(&self, len: usize, unreach: Option<AfiSafi>, attributes: usize) -> Option<AfiSafi> {
        if len == 4 {
            return Some(Family::Ipv4Unicast.into());
        }
        let alone = attributes == 1 && self.withdrawn.is_empty() && self.prefixes.is_empty();
        let empty = self.mp_unreach.is_some_and(|prefixes| prefixes.is_empty());
        if alone && empty { unreach } else { None }
    }

    /// What becomes of the message.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        self.fault.map_or(Disposition::Accept, |fault| fault.disposition)
    }

    /// The worst thing that is wrong with it.
    #[must_use]
    pub const fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// The family whose table is complete, if this is an End-of-RIB marker (RFC 4724 §2). Such a message has no routes.
    #[must_use]
    pub const fn end_of_rib(&self) -> Option<AfiSafi> {
        self.end_of_rib
    }

    /// Routes that the message withdraws: of the withdrawn routes field and of MP_UNREACH_NLRI.
    pub fn withdrawn(&self) -> impl Iterator<Item = Prefixes<'a>> + use<'a> {
        [Some(self.withdrawn), self.mp_unreach]
            .into_iter()
            .flatten()
            .filter(|prefixes| !prefixes.is_empty())
    }

    /// Routes that the message announces, each field with its next hop: the NLRI field and MP_REACH_NLRI.
    /// If the disposition is [`Disposition::TreatAsWithdraw`], these are to be withdrawn, and the next hop may be missing.
    pub fn announced(&self) -> impl Iterator<Item = (Prefixes<'a>, Option<NextHop>)> + use<'a> {
        let next_hop = self.next_hop.map(|address| NextHop {
            address: address.into(),
            link_local: None,
        });
        let mp = self.mp_reach.map(|reach| (reach.prefixes, Some(reach.next_hop)));
        [Some((self.prefixes, next_hop)), mp]
            .into_iter()
            .flatten()
            .filter(|(prefixes, _)| !prefixes.is_empty())
    }

    /// Writes the attributes in canonical form (see [`crate::attribute`]) to the end of `out`: without those that are
    /// discarded or only concern the session, with 4-byte AS numbers.
    pub fn canonical_attributes(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let mut last = 0;
        let mut seen = KindSet::default();
        for attribute in RawAttributes::new(self.attributes) {
            if seen.insert(attribute.kind) || !self.is_kept(attribute.kind) {
                continue;
            }
            if attribute.kind < last {
                out.truncate(start);
                return self.canonical_sorted(out);
            }
            last = attribute.kind;
            self.write_canonical(attribute, out);
        }
    }

    /// The same for the rare message whose attributes are not in order.
    fn canonical_sorted(&self, out: &mut Vec<u8>) {
        let mut seen = KindSet::default();
        let mut list: Vec<RawAttribute<'a>> = RawAttributes::new(self.attributes)
            .filter(|attribute| !seen.insert(attribute.kind) && self.is_kept(attribute.kind))
            .collect();
        list.sort_by_key(|attribute| attribute.kind);
        list.into_iter()
            .for_each(|attribute| self.write_canonical(attribute, out));
    }

    fn is_kept(&self, kind: u8) -> bool {
        let session_only = matches!(
            kind,
            kind::NEXT_HOP | kind::MP_REACH | kind::MP_UNREACH | kind::AS4_PATH | kind::AS4_AGGREGATOR
        );
        !session_only && !self.dropped.contains(kind)
    }

    fn write_canonical(&self, attribute: RawAttribute<'a>, out: &mut Vec<u8>) {
        // The low four bits mean nothing and are not passed on (RFC 4271 §4.3).
        let mut flags = attribute.flags & (flag::OPTIONAL | flag::TRANSITIVE | flag::PARTIAL);
        match attribute.kind {
            kind::AS_PATH if !self.context.as4 => {
                let value = crate::as2::merged_path(
                    attribute.value,
                    self.kept(kind::AS4_PATH).filter(|_| !self.ignores_as4()),
                );
                RawAttribute {
                    flags,
                    value: &value,
                    ..attribute
                }
                .encode(out);
            }
            kind::AGGREGATOR if !self.context.as4 => {
                let value = crate::as2::merged_aggregator(attribute.value, self.kept(kind::AS4_AGGREGATOR));
                RawAttribute {
                    flags,
                    value: &value,
                    ..attribute
                }
                .encode(out);
            }
            other => {
                if validate::expected_flags(other).is_none() {
                    flags |= flag::PARTIAL;
                }
                RawAttribute { flags, ..attribute }.encode(out);
            }
        }
    }

    fn kept(&self, kind: u8) -> Option<&'a [u8]> {
        if self.dropped.contains(kind) {
            return None;
        }
        RawAttributes::new(self.attributes)
            .find(|attribute| attribute.kind == kind)
            .map(|attribute| attribute.value)
    }

    /// An AGGREGATOR that needs no AS_TRANS shows that a 2-byte speaker aggregated on the way, so AS4_PATH is stale
    /// (RFC 6793 §4.2.3).
    fn ignores_as4(&self) -> bool {
        let aggregator = self.kept(kind::AGGREGATOR);
        self.kept(kind::AS4_AGGREGATOR).is_some()
            && aggregator.is_some_and(|value| !crate::as2::is_trans(value))
    }
}

/// Withdrawn routes, attributes, routes.
type Sections<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// Cuts the body into withdrawn routes, attributes and routes.
fn sections(body: &[u8]) -> Result<Sections<'_>, Notification> {
    let malformed = || Notification::new(code::UPDATE, subcode::MALFORMED_ATTRIBUTES);
    let field = |bytes: &'_ [u8]| -> Option<(usize, usize)> {
        let (len, tail) = bytes.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_be_bytes(*len));
        (len <= tail.len()).then_some((2, 2 + len))
    };
    let (start, end) = field(body).ok_or_else(malformed)?;
    let (withdrawn, rest) = (&body[start..end], &body[end..]);
    let (start, end) = field(rest).ok_or_else(malformed)?;
    Ok((withdrawn, &rest[start..end], &rest[end..]))
}

/// A set of attribute types.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct KindSet([u64; 4]);

impl KindSet {
    /// Says whether the type was there before.
    fn insert(&mut self, kind: u8) -> bool {
        let (word, bit) = (usize::from(kind >> 6), 1u64 << (kind & 63));
        let was = self.0[word] & bit != 0;
        self.0[word] |= bit;
        was
    }

    const fn contains(&self, kind: u8) -> bool {
        self.0[(kind >> 6) as usize] >> (kind & 63) & 1 != 0
    }
}

/// The state of the one pass over the attributes.
struct Scan<'a> {
    context: Context,
    seen: KindSet,
    dropped: KindSet,
    count: usize,
    next_hop: Option<Ipv4Addr>,
    mp_reach: Option<MpReach<'a>>,
    mp_unreach: Option<Prefixes<'a>>,
    unreach_family: Option<AfiSafi>,
    foreign_reach: bool,
    /// The worst fault, with the attribute that it is about.
    fault: Option<(Fault, Option<RawAttribute<'a>>)>,
}

impl<'a> Scan<'a> {
    fn new(context: Context) -> Self {
        Self {
            context,
            seen: KindSet::default(),
            dropped: KindSet::default(),
            count: 0,
            next_hop: None,
            mp_reach: None,
            mp_unreach: None,
            unreach_family: None,
            foreign_reach: false,
            fault: None,
        }
    }

    fn attributes(&mut self, bytes: &'a [u8]) -> Result<(), Notification> {
        let mut list = RawAttributes::new(bytes);
        for attribute in list.by_ref() {
            self.count += 1;
            self.attribute(attribute)?;
        }
        if !list.rest().is_empty() {
            // The lengths of the sections still tell where the routes are (RFC 7606 §4).
            self.note(
                Disposition::TreatAsWithdraw,
                subcode::MALFORMED_ATTRIBUTES,
                "attribute list is cut off",
                None,
            );
        }
        Ok(())
    }

    fn attribute(&mut self, attribute: RawAttribute<'a>) -> Result<(), Notification> {
        let RawAttribute { flags, kind, value } = attribute;
        if self.seen.insert(kind) {
            return self.repeated(attribute);
        }
        if (validate::is_internal_only(kind) && self.context.external) || kind == kind::AIGP || kind == 0 {
            return self.drop_unread(attribute);
        }
        let Some(expected) = validate::expected_flags(kind) else {
            return self.unknown(attribute);
        };
        if flags & (flag::OPTIONAL | flag::TRANSITIVE) != expected {
            let what = "wrong flags";
            self.note(
                Disposition::TreatAsWithdraw,
                subcode::ATTRIBUTE_FLAGS,
                what,
                Some(attribute),
            );
        }
        match kind {
            kind::MP_REACH => return self.mp_reach(attribute),
            kind::MP_UNREACH => return self.mp_unreach(attribute),
            _ => {}
        }
        match validate::value(kind, value, self.context) {
            Ok(()) if kind == kind::NEXT_HOP => {
                self.next_hop = <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from);
            }
            Ok(()) => {}
            Err((disposition, subcode, what)) => {
                if disposition == Disposition::AttributeDiscard {
                    self.dropped.insert(kind);
                }
                self.note(disposition, subcode, what, Some(attribute));
            }
        }
        Ok(())
    }

    /// Two MP attributes of one kind end the session; of all others the first one counts (RFC 7606 §3 g).
    fn repeated(&mut self, attribute: RawAttribute<'a>) -> Result<(), Notification> {
        if matches!(attribute.kind, kind::MP_REACH | kind::MP_UNREACH) {
            return Err(Notification::new(code::UPDATE, subcode::MALFORMED_ATTRIBUTES));
        }
        self.note(
            Disposition::AttributeDiscard,
            subcode::MALFORMED_ATTRIBUTES,
            "repeated",
            Some(attribute),
        );
        Ok(())
    }

    fn drop_unread(&mut self, attribute: RawAttribute<'a>) -> Result<(), Notification> {
        self.dropped.insert(attribute.kind);
        // AIGP without an agreement is like an unknown attribute that is not transitive: ignored in silence (RFC 7311 §3.4).
        if attribute.kind != kind::AIGP {
            let what = if attribute.kind == 0 {
                "reserved type"
            } else {
                "from an external peer"
            };
            self.note(
                Disposition::AttributeDiscard,
                subcode::OPTIONAL_ATTRIBUTE,
                what,
                Some(attribute),
            );
        }
        Ok(())
    }

    fn unknown(&mut self, attribute: RawAttribute<'a>) -> Result<(), Notification> {
        if attribute.flags & flag::OPTIONAL == 0 {
            return Err(with_attribute(subcode::UNRECOGNIZED_WELL_KNOWN, attribute));
        }
        if attribute.flags & flag::TRANSITIVE == 0 {
            self.dropped.insert(attribute.kind);
        }
        Ok(())
    }

    fn mp_reach(&mut self, attribute: RawAttribute<'a>) -> Result<(), Notification> {
        let unreadable = || with_attribute(subcode::OPTIONAL_ATTRIBUTE, attribute);
        let [a, b, safi, len, rest @ ..] = attribute.value else {
            return Err(unreadable());
        };
        let Ok(family) = Family::try_from(AfiSafi {
            afi: u16::from_be_bytes([*a, *b]),
            safi: *safi,
        }) else {
            self.foreign_reach = true;
            return Ok(());
        };
        let (next_hop, rest) = rest.split_at_checked((*len).into()).ok_or_else(unreadable)?;
        let next_hop = NextHop::parse(family, next_hop).ok_or_else(unreadable)?;
        // One reserved byte, once a count of SNPAs, stands between next hop and routes (RFC 4760 §3).
        let (_, nlri) = rest.split_first().ok_or_else(unreadable)?;
        let prefixes = Prefixes::parse(family, nlri).map_err(|_| unreadable())?;
        if !next_hop.is_usable() {
            let what = "next hop is not a host address";
            self.note(
                Disposition::TreatAsWithdraw,
                subcode::INVALID_NEXT_HOP,
                what,
                Some(attribute),
            );
        }
        self.mp_reach = Some(MpReach { next_hop, prefixes });
        Ok(())
    }

    fn mp_unreach(&mut self, attribute: RawAttribute<'a>) -> Result<(), Notification> {
        let unreadable = || with_attribute(subcode::OPTIONAL_ATTRIBUTE, attribute);
        let [a, b, safi, nlri @ ..] = attribute.value else {
            return Err(unreadable());
        };
        let pair = AfiSafi {
            afi: u16::from_be_bytes([*a, *b]),
            safi: *safi,
        };
        self.unreach_family = Some(pair);
        self.mp_unreach = match Family::try_from(pair) {
            Ok(family) => Some(Prefixes::parse(family, nlri).map_err(|_| unreadable())?),
            // Routes of a family that we do not know are ignored; nothing is left of them but the family.
            Err(_) if nlri.is_empty() => Some(Prefixes::none(Family::Ipv4Unicast)),
            Err(_) => None,
        };
        Ok(())
    }

    /// Announced routes need ORIGIN and AS_PATH, and, in the NLRI field, NEXT_HOP (RFC 7606 §3 d).
    fn mandatory(&mut self, nlri: bool) {
        if !nlri && !self.has_reachable() {
            return;
        }
        for kind in [kind::ORIGIN, kind::AS_PATH, kind::NEXT_HOP] {
            if !self.seen.contains(kind) && (kind != kind::NEXT_HOP || nlri) {
                let attribute = RawAttribute {
                    flags: 0,
                    kind,
                    value: &[],
                };
                let disposition = Disposition::TreatAsWithdraw;
                self.note(
                    disposition,
                    subcode::MISSING_WELL_KNOWN,
                    "missing",
                    Some(attribute),
                );
            }
        }
    }

    fn has_reachable(&self) -> bool {
        self.foreign_reach || self.mp_reach.is_some_and(|reach| !reach.prefixes.is_empty())
    }

    /// Without any route to withdraw, a broken attribute may have hidden them: the session ends (RFC 7606 §5.2).
    fn must_not_withdraw(&self) -> Result<(), Notification> {
        match &self.fault {
            Some((fault, attribute)) if fault.disposition == Disposition::TreatAsWithdraw => {
                Err(match attribute {
                    Some(attribute) => with_attribute(fault.subcode, *attribute),
                    None => Notification::new(code::UPDATE, fault.subcode),
                })
            }
            _ => Ok(()),
        }
    }

    /// Remembers a fault if it is worse than what is known.
    fn note(
        &mut self,
        disposition: Disposition,
        subcode: u8,
        what: &'static str,
        attribute: Option<RawAttribute<'a>>,
    ) {
        if self
            .fault
            .as_ref()
            .is_none_or(|(fault, _)| fault.disposition < disposition)
        {
            let kind = attribute.map(|attribute| attribute.kind);
            self.fault = Some((
                Fault {
                    kind,
                    what,
                    disposition,
                    subcode,
                },
                attribute,
            ));
        }
    }
}

/// An UPDATE error with the attribute in error as data.
fn with_attribute(subcode: u8, attribute: RawAttribute<'_>) -> Notification {
    let mut data = Vec::new();
    attribute.encode(&mut data);
    Notification::with_data(code::UPDATE, subcode, &data)
}
