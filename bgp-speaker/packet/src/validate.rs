//! What each path attribute must look like, and what happens if it does not (RFC 7606 §7 and the RFC of each attribute).
use std::fmt;

use crate::as_path::{AsPath, SegmentKind};
use crate::attribute::{Origin, flag, kind};
use crate::nlri::is_usable_v4;
use crate::notification::update as subcode;
use crate::update::Context;

/// What becomes of an UPDATE that can be read. Anything worse ends the session with a NOTIFICATION.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Disposition {
    /// It is used as it is.
    Accept,
    /// It is used without the attributes in error.
    AttributeDiscard,
    /// Its routes are taken as withdrawn.
    TreatAsWithdraw,
}

/// The worst thing that is wrong with an UPDATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Type of the attribute in error; `None` if it is the list as a whole.
    pub kind: Option<u8>,
    /// What is wrong, for people.
    pub what: &'static str,
    /// What becomes of the UPDATE.
    pub disposition: Disposition,
    /// The subcode of UPDATE Message Error that names the error.
    pub subcode: u8,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Some(kind) => match name(kind) {
                Some(name) => write!(f, "{name}: {}", self.what),
                None => write!(f, "attribute {kind}: {}", self.what),
            },
            None => f.write_str(self.what),
        }
    }
}

/// The name of an attribute that this codec knows.
#[must_use]
pub const fn name(kind: u8) -> Option<&'static str> {
    Some(match kind {
        kind::ORIGIN => "ORIGIN",
        kind::AS_PATH => "AS_PATH",
        kind::NEXT_HOP => "NEXT_HOP",
        kind::MED => "MULTI_EXIT_DISC",
        kind::LOCAL_PREF => "LOCAL_PREF",
        kind::ATOMIC_AGGREGATE => "ATOMIC_AGGREGATE",
        kind::AGGREGATOR => "AGGREGATOR",
        kind::COMMUNITIES => "COMMUNITIES",
        kind::ORIGINATOR_ID => "ORIGINATOR_ID",
        kind::CLUSTER_LIST => "CLUSTER_LIST",
        kind::MP_REACH => "MP_REACH_NLRI",
        kind::MP_UNREACH => "MP_UNREACH_NLRI",
        kind::EXTENDED_COMMUNITIES => "EXTENDED COMMUNITIES",
        kind::AS4_PATH => "AS4_PATH",
        kind::AS4_AGGREGATOR => "AS4_AGGREGATOR",
        kind::TUNNEL_ENCAPSULATION => "Tunnel Encapsulation",
        kind::AIGP => "AIGP",
        kind::LARGE_COMMUNITIES => "LARGE_COMMUNITY",
        kind::OTC => "Only to Customer",
        kind::PREFIX_SID => "Prefix-SID",
        _ => return None,
    })
}

/// The Optional and Transitive flags that an attribute must have; `None` for those that this codec does not know.
pub(crate) const fn expected_flags(kind: u8) -> Option<u8> {
    Some(match kind {
        kind::ORIGIN | kind::AS_PATH | kind::NEXT_HOP | kind::LOCAL_PREF | kind::ATOMIC_AGGREGATE => {
            flag::TRANSITIVE
        }
        kind::MED
        | kind::ORIGINATOR_ID
        | kind::CLUSTER_LIST
        | kind::MP_REACH
        | kind::MP_UNREACH
        | kind::AIGP => flag::OPTIONAL,
        kind::AGGREGATOR
        | kind::COMMUNITIES
        | kind::EXTENDED_COMMUNITIES
        | kind::AS4_PATH
        | kind::AS4_AGGREGATOR
        | kind::TUNNEL_ENCAPSULATION
        | kind::LARGE_COMMUNITIES
        | kind::OTC
        | kind::PREFIX_SID => flag::OPTIONAL | flag::TRANSITIVE,
        _ => return None,
    })
}

/// The verdict on one attribute: fine, or what to do and why.
pub(crate) type Verdict = Result<(), (Disposition, u8, &'static str)>;

const fn withdraw(subcode: u8, what: &'static str) -> Verdict {
    Err((Disposition::TreatAsWithdraw, subcode, what))
}

const fn discard(subcode: u8, what: &'static str) -> Verdict {
    Err((Disposition::AttributeDiscard, subcode, what))
}

const WRONG_LENGTH: &str = "wrong length";

/// True for what external peers have no business to send: dropped unread (RFC 7606 §7.5, §7.9, §7.10).
pub(crate) const fn is_internal_only(kind: u8) -> bool {
    matches!(kind, kind::LOCAL_PREF | kind::ORIGINATOR_ID | kind::CLUSTER_LIST)
}

/// Checks the value of a known attribute other than MP_REACH_NLRI and MP_UNREACH_NLRI.
pub(crate) fn value(kind: u8, value: &[u8], context: Context) -> Verdict {
    match kind {
        kind::ORIGIN => origin(value),
        kind::AS_PATH => as_path(value, context),
        kind::NEXT_HOP => next_hop(value),
        kind::MED | kind::LOCAL_PREF | kind::ORIGINATOR_ID | kind::OTC => {
            if value.len() == 4 {
                Ok(())
            } else {
                withdraw(subcode::ATTRIBUTE_LENGTH, WRONG_LENGTH)
            }
        }
        kind::ATOMIC_AGGREGATE => {
            if value.is_empty() {
                Ok(())
            } else {
                discard(subcode::ATTRIBUTE_LENGTH, WRONG_LENGTH)
            }
        }
        kind::AGGREGATOR => aggregator(value, if context.as4 { 8 } else { 6 }),
        kind::CLUSTER_LIST | kind::COMMUNITIES => multiple(value, 4),
        kind::EXTENDED_COMMUNITIES => multiple(value, 8),
        kind::LARGE_COMMUNITIES => multiple(value, 12),
        kind::AS4_PATH => as4_path(value, context),
        kind::AS4_AGGREGATOR if context.as4 => {
            discard(subcode::OPTIONAL_ATTRIBUTE, "on a session with 4-byte ASes")
        }
        kind::AS4_AGGREGATOR => aggregator(value, 8),
        kind::TUNNEL_ENCAPSULATION => tunnel_encapsulation(value),
        kind::PREFIX_SID => prefix_sid(value),
        _ => Ok(()),
    }
}

fn origin(value: &[u8]) -> Verdict {
    match value {
        [byte] if Origin::from_byte(*byte).is_some() => Ok(()),
        [_] => withdraw(subcode::INVALID_ORIGIN, "undefined value"),
        _ => withdraw(subcode::ATTRIBUTE_LENGTH, WRONG_LENGTH),
    }
}

fn as_path(value: &[u8], context: Context) -> Verdict {
    use crate::as_path::AsPathError as Error;
    let path = match AsPath::parse(value, context.as4) {
        Ok(path) => path,
        Err(error) => {
            let what = match error {
                Error::UnknownSegment(_) => "unknown segment type",
                Error::EmptySegment => "empty segment",
                Error::Overrun => "segment runs past the end",
                Error::Trailing => "stray byte at the end",
            };
            return withdraw(subcode::MALFORMED_AS_PATH, what);
        }
    };
    check_members(&path)
}

/// What no path may contain: AS 0 (RFC 7607), sets (RFC 9774), and confederation segments, since this speaker is in no
/// confederation (RFC 5065 §5).
fn check_members(path: &AsPath<'_>) -> Verdict {
    for segment in path.segments() {
        let what = match segment.kind {
            SegmentKind::Sequence => {
                if segment.asns().all(|asn| asn != 0) {
                    continue;
                }
                "AS 0"
            }
            SegmentKind::Set => "AS_SET",
            SegmentKind::ConfedSequence | SegmentKind::ConfedSet => "confederation segment",
        };
        return withdraw(subcode::MALFORMED_AS_PATH, what);
    }
    Ok(())
}

/// AS4_PATH: useless between speakers of 4-byte ASes, dropped if malformed (RFC 6793 §6).
fn as4_path(value: &[u8], context: Context) -> Verdict {
    if context.as4 {
        return discard(subcode::OPTIONAL_ATTRIBUTE, "on a session with 4-byte ASes");
    }
    match AsPath::parse(value, true) {
        Ok(path) if path.is_empty() => discard(subcode::OPTIONAL_ATTRIBUTE, "empty path"),
        Ok(path) => match path.contains(0) {
            true => withdraw(subcode::MALFORMED_AS_PATH, "AS 0"),
            false => Ok(()),
        },
        Err(_) => discard(subcode::OPTIONAL_ATTRIBUTE, "malformed path"),
    }
}

fn next_hop(value: &[u8]) -> Verdict {
    match <[u8; 4]>::try_from(value) {
        Ok(octets) if is_usable_v4(octets.into()) => Ok(()),
        Ok(_) => withdraw(subcode::INVALID_NEXT_HOP, "not a host address"),
        Err(_) => withdraw(subcode::ATTRIBUTE_LENGTH, WRONG_LENGTH),
    }
}

fn aggregator(value: &[u8], len: usize) -> Verdict {
    if value.len() != len {
        return discard(subcode::ATTRIBUTE_LENGTH, WRONG_LENGTH);
    }
    match value[..len - 4].iter().all(|byte| *byte == 0) {
        true => discard(subcode::OPTIONAL_ATTRIBUTE, "AS 0"),
        false => Ok(()),
    }
}

fn multiple(value: &[u8], of: usize) -> Verdict {
    match value.is_empty() || !value.len().is_multiple_of(of) {
        true => withdraw(subcode::ATTRIBUTE_LENGTH, WRONG_LENGTH),
        false => Ok(()),
    }
}

/// TLVs of a 2-byte type and a 2-byte length, each full of sub-TLVs whose length takes two bytes from type 128 on
/// (RFC 9012 §2; §13 for the treatment).
fn tunnel_encapsulation(value: &[u8]) -> Verdict {
    let mut rest = value;
    while !rest.is_empty() {
        let Some((sub, tail)) = tlv_16(rest) else {
            return withdraw(subcode::OPTIONAL_ATTRIBUTE, "tunnel runs past the end");
        };
        if !sub_tlvs_fit(sub) {
            return withdraw(subcode::OPTIONAL_ATTRIBUTE, "tunnel option runs past the end");
        }
        rest = tail;
    }
    Ok(())
}

fn tlv_16(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let ([_, _, a, b], tail) = bytes.split_first_chunk::<4>()?;
    tail.split_at_checked(u16::from_be_bytes([*a, *b]).into())
}

fn sub_tlvs_fit(mut rest: &[u8]) -> bool {
    while let Some((&kind, tail)) = rest.split_first() {
        let after = if kind < 128 {
            tail.split_first()
                .and_then(|(len, tail)| tail.get(usize::from(*len)..))
        } else {
            tail.split_first_chunk::<2>()
                .and_then(|(len, tail)| tail.get(usize::from(u16::from_be_bytes(*len))..))
        };
        let Some(after) = after else {
            return false;
        };
        rest = after;
    }
    true
}

/// TLVs of a 1-byte type and a 2-byte length (RFC 8669 §3; §6 for the treatment).
fn prefix_sid(value: &[u8]) -> Verdict {
    let mut rest = value;
    while !rest.is_empty() {
        let after = rest
            .split_first_chunk::<3>()
            .and_then(|([_, a, b], tail)| tail.get(usize::from(u16::from_be_bytes([*a, *b]))..));
        let Some(after) = after else {
            return discard(subcode::OPTIONAL_ATTRIBUTE, "option runs past the end");
        };
        rest = after;
    }
    Ok(())
}
