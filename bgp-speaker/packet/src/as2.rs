//! Speakers with 2-byte AS numbers: their attributes to and from 4-byte form (RFC 6793).
use crate::as_path::{AS_TRANS, AsPath, SegmentKind, merge_as4, write_header};
use crate::attribute::{RawAttribute, flag, kind};

/// The 4-byte path behind an AS_PATH of 2-byte ASes and, if there is one, an AS4_PATH. Both are well formed.
pub(crate) fn merged_path(path: &[u8], as4_path: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len() * 2);
    let Ok(path) = AsPath::parse(path, false) else {
        return out;
    };
    match as4_path {
        Some(as4_path) => merge_as4(&path, &AsPath::trusted(as4_path), &mut out),
        None => path.write_as4(&mut out),
    }
    out
}

/// True for an AGGREGATOR of six bytes whose AS is AS_TRANS.
pub(crate) fn is_trans(aggregator: &[u8]) -> bool {
    aggregator.starts_with(&AS_TRANS.to_be_bytes())
}

/// The 8-byte aggregator behind one of six bytes and, if there is one, an AS4_AGGREGATOR.
pub(crate) fn merged_aggregator(aggregator: &[u8], as4_aggregator: Option<&[u8]>) -> Vec<u8> {
    match as4_aggregator {
        Some(long) if is_trans(aggregator) => long.to_vec(),
        _ => [&[0, 0], aggregator].concat(),
    }
}

/// Writes a canonical AS_PATH for a 2-byte speaker. If an AS did not fit, returns the AS4_PATH that must follow.
pub(crate) fn write_path(attribute: RawAttribute<'_>, out: &mut Vec<u8>) -> Option<Vec<u8>> {
    let path = AsPath::trusted(attribute.value);
    let mut short = Vec::with_capacity(attribute.value.len() / 2 + 2);
    let lossy = path.write_as2(&mut short);
    RawAttribute {
        value: &short,
        ..attribute
    }
    .encode(out);
    if !lossy {
        return None;
    }
    // Confederation segments do not belong into AS4_PATH (RFC 6793 §3).
    let mut long = Vec::with_capacity(attribute.value.len());
    for segment in path
        .segments()
        .filter(|s| matches!(s.kind, SegmentKind::Sequence | SegmentKind::Set))
    {
        write_header(&mut long, segment.kind, segment.count());
        segment
            .asns()
            .for_each(|asn| long.extend_from_slice(&asn.to_be_bytes()));
    }
    Some(long)
}

/// Writes a canonical AGGREGATOR for a 2-byte speaker. If the AS did not fit, returns the AS4_AGGREGATOR that must follow.
pub(crate) fn write_aggregator(attribute: RawAttribute<'_>, out: &mut Vec<u8>) -> Option<Vec<u8>> {
    let ([a, b, c, d], id) = attribute.value.split_first_chunk::<4>()?;
    let fits = (*a, *b) == (0, 0);
    let short = if fits { [*c, *d] } else { AS_TRANS.to_be_bytes() };
    RawAttribute {
        value: &[&short, id].concat(),
        ..attribute
    }
    .encode(out);
    (!fits).then(|| attribute.value.to_vec())
}

/// Writes what [`write_path`] and [`write_aggregator`] could not say.
pub(crate) fn write_as4(kind: u8, value: &[u8], out: &mut Vec<u8>) {
    debug_assert!(matches!(kind, kind::AS4_PATH | kind::AS4_AGGREGATOR));
    RawAttribute {
        flags: flag::OPTIONAL | flag::TRANSITIVE,
        kind,
        value,
    }
    .encode(out);
}
