//! AS paths (RFC 4271 §4.3 b, RFC 6793), always with 4-byte AS numbers inside this crate.
use std::fmt;

/// The AS number that stands for a 4-byte AS in 2-byte fields (RFC 6793 §4.2.2).
pub const AS_TRANS: u16 = 23456;

/// Most AS numbers that one segment can hold.
pub const MAX_SEGMENT_LEN: usize = 255;

/// Kinds of path segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SegmentKind {
    /// AS_SET: an unordered set, deprecated by RFC 9774.
    Set = 1,
    /// AS_SEQUENCE: the ASes in the order in which they were crossed, nearest first.
    Sequence = 2,
    /// AS_CONFED_SEQUENCE (RFC 5065).
    ConfedSequence = 3,
    /// AS_CONFED_SET (RFC 5065), deprecated by RFC 9774.
    ConfedSet = 4,
}

impl SegmentKind {
    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => SegmentKind::Set,
            2 => SegmentKind::Sequence,
            3 => SegmentKind::ConfedSequence,
            4 => SegmentKind::ConfedSet,
            _ => return None,
        })
    }
}

/// What can be wrong with the bytes of an AS_PATH.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AsPathError {
    /// A segment type that does not exist.
    #[error("unknown path segment type {0}")]
    UnknownSegment(u8),
    /// A segment with no AS in it.
    #[error("path segment without an AS")]
    EmptySegment,
    /// A segment that claims more ASes than there are bytes.
    #[error("path segment runs past the end of the attribute")]
    Overrun,
    /// One byte left after the last segment.
    #[error("stray byte after the last path segment")]
    Trailing,
}

/// One segment of a path: borrowed, 2 or 4 bytes for each AS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// The kind of segment.
    pub kind: SegmentKind,
    asns: &'a [u8],
    as4: bool,
}

impl<'a> Segment<'a> {
    /// The AS numbers, nearest first.
    pub fn asns(&self) -> impl DoubleEndedIterator<Item = u32> + ExactSizeIterator + use<'a> {
        let as4 = self.as4;
        self.asns.chunks_exact(if as4 { 4 } else { 2 }).map(be)
    }

    /// How many AS numbers the segment holds.
    #[must_use]
    pub fn count(&self) -> usize {
        self.asns.len() / if self.as4 { 4 } else { 2 }
    }
}

fn be(chunk: &[u8]) -> u32 {
    chunk.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

/// A borrowed AS path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsPath<'a> {
    bytes: &'a [u8],
    as4: bool,
}

impl<'a> AsPath<'a> {
    /// A path over the bytes of an attribute, with 4-byte (`as4`) or 2-byte AS numbers, checked for its form only.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn parse(bytes: &'a [u8], as4: bool) -> Result<Self, AsPathError> {
        let size = if as4 { 4 } else { 2 };
        let mut rest = bytes;
        while let [kind, tail @ ..] = rest {
            let Some((&count, tail)) = tail.split_first() else {
                return Err(AsPathError::Trailing);
            };
            SegmentKind::from_byte(*kind).ok_or(AsPathError::UnknownSegment(*kind))?;
            if count == 0 {
                return Err(AsPathError::EmptySegment);
            }
            rest = tail
                .get(usize::from(count) * size..)
                .ok_or(AsPathError::Overrun)?;
        }
        Ok(Self { bytes, as4 })
    }

    /// A path over bytes that are known to be well formed and to have 4-byte AS numbers.
    pub(crate) const fn trusted(bytes: &'a [u8]) -> Self {
        Self { bytes, as4: true }
    }

    /// The segments, nearest first.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'a>> + use<'a> {
        let as4 = self.as4;
        let mut rest = self.bytes;
        std::iter::from_fn(move || {
            let [kind, count, tail @ ..] = rest else {
                return None;
            };
            let kind = SegmentKind::from_byte(*kind)?;
            let (asns, tail) = tail.split_at_checked(usize::from(*count) * if as4 { 4 } else { 2 })?;
            rest = tail;
            Some(Segment { kind, asns, as4 })
        })
    }

    /// Every AS number in the path, nearest first, members of sets included.
    pub fn asns(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.segments().flat_map(|segment| segment.asns())
    }

    /// The length for route choice: a set counts as one, confederation segments count as nothing (RFC 4271 §9.1.2.2, RFC 5065 §5.3).
    #[must_use]
    pub fn hops(&self) -> u32 {
        self.segments()
            .map(|segment| match segment.kind {
                SegmentKind::Sequence => u32::try_from(segment.count()).unwrap_or(u32::MAX),
                SegmentKind::Set => 1,
                SegmentKind::ConfedSequence | SegmentKind::ConfedSet => 0,
            })
            .sum()
    }

    /// The neighbour AS: the first AS of the path, if the path begins with a sequence.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        let segment = self.segments().next()?;
        if segment.kind == SegmentKind::Sequence {
            segment.asns().next()
        } else {
            None
        }
    }

    /// The AS that originated the route: the last AS of the path.
    #[must_use]
    pub fn last(&self) -> Option<u32> {
        self.asns().last()
    }

    /// True if `asn` is somewhere in the path.
    #[must_use]
    pub fn contains(&self, asn: u32) -> bool {
        self.asns().any(|one| one == asn)
    }

    /// True if the path has a segment of the kind.
    #[must_use]
    pub fn has_segment(&self, kind: SegmentKind) -> bool {
        self.segments().any(|segment| segment.kind == kind)
    }

    /// True for a path without any AS: a route of our own AS.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Writes the segments with 4-byte AS numbers.
    pub(crate) fn write_as4(&self, out: &mut Vec<u8>) {
        if self.as4 {
            out.extend_from_slice(self.bytes);
            return;
        }
        for segment in self.segments() {
            write_header(out, segment.kind, segment.count());
            segment
                .asns()
                .for_each(|asn| out.extend_from_slice(&asn.to_be_bytes()));
        }
    }

    /// Writes the segments with 2-byte AS numbers, AS_TRANS for those that do not fit. Returns whether one did not fit.
    pub(crate) fn write_as2(&self, out: &mut Vec<u8>) -> bool {
        let mut lossy = false;
        for segment in self.segments() {
            write_header(out, segment.kind, segment.count());
            for asn in segment.asns() {
                let short = u16::try_from(asn).unwrap_or(AS_TRANS);
                lossy |= u32::from(short) != asn;
                out.extend_from_slice(&short.to_be_bytes());
            }
        }
        lossy
    }

    /// Writes `asn` `times` times in front of the path, then the path (RFC 4271 §5.1.2 b).
    pub(crate) fn write_prepended(&self, asn: u32, times: usize, out: &mut Vec<u8>) {
        if times == 0 {
            return self.write_as4(out);
        }
        let head = self.segments().next().filter(|segment| {
            segment.kind == SegmentKind::Sequence && segment.count() + times <= MAX_SEGMENT_LEN
        });
        let joined = head.map_or(0, |segment| segment.count());
        write_header(out, SegmentKind::Sequence, (times + joined).min(MAX_SEGMENT_LEN));
        (0..times.min(MAX_SEGMENT_LEN)).for_each(|_| out.extend_from_slice(&asn.to_be_bytes()));
        if let Some(segment) = head {
            segment
                .asns()
                .for_each(|asn| out.extend_from_slice(&asn.to_be_bytes()));
        }
        for segment in self.segments().skip(usize::from(head.is_some())) {
            write_header(out, segment.kind, segment.count());
            segment
                .asns()
                .for_each(|asn| out.extend_from_slice(&asn.to_be_bytes()));
        }
    }
}

pub(crate) fn write_header(out: &mut Vec<u8>, kind: SegmentKind, count: usize) {
    out.extend_from_slice(&[kind as u8, u8::try_from(count).unwrap_or(u8::MAX)]);
}

/// Joins the AS_PATH of a 2-byte speaker with its AS4_PATH (RFC 6793 §4.2.3): the leading ASes that AS4_PATH lacks
/// are kept, the rest is AS4_PATH. An AS4_PATH longer than the path is ignored.
pub(crate) fn merge_as4(path: &AsPath<'_>, as4_path: &AsPath<'_>, out: &mut Vec<u8>) {
    let (hops, as4_hops) = (counted(path), counted(as4_path));
    if as4_hops > hops {
        return path.write_as4(out);
    }
    let mut keep = hops - as4_hops;
    for segment in path.segments() {
        if keep == 0 {
            break;
        }
        let weight = segment_weight(&segment);
        let take = if weight <= keep { segment.count() } else { keep };
        keep -= weight.min(keep);
        write_header(out, segment.kind, take);
        segment
            .asns()
            .take(take)
            .for_each(|asn| out.extend_from_slice(&asn.to_be_bytes()));
    }
    for segment in as4_path.segments().filter(|segment| is_plain(segment.kind)) {
        write_header(out, segment.kind, segment.count());
        segment
            .asns()
            .for_each(|asn| out.extend_from_slice(&asn.to_be_bytes()));
    }
}

fn is_plain(kind: SegmentKind) -> bool {
    matches!(kind, SegmentKind::Sequence | SegmentKind::Set)
}

fn counted(path: &AsPath<'_>) -> usize {
    path.segments()
        .filter(|segment| is_plain(segment.kind))
        .map(|segment| segment_weight(&segment))
        .sum()
}

fn segment_weight(segment: &Segment<'_>) -> usize {
    match segment.kind {
        SegmentKind::Set => 1,
        SegmentKind::Sequence => segment.count(),
        SegmentKind::ConfedSequence | SegmentKind::ConfedSet => 0,
    }
}

impl fmt::Display for AsPath<'_> {
    /// The usual text form: sequences as numbers with spaces, sets in braces, confederations in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, segment) in self.segments().enumerate() {
            let (open, close, between) = match segment.kind {
                SegmentKind::Sequence => ("", "", " "),
                SegmentKind::Set => ("{", "}", ","),
                SegmentKind::ConfedSequence => ("(", ")", " "),
                SegmentKind::ConfedSet => ("[", "]", ","),
            };
            write!(f, "{}{open}", if n == 0 { "" } else { " " })?;
            for (n, asn) in segment.asns().enumerate() {
                write!(f, "{}{asn}", if n == 0 { "" } else { between })?;
            }
            f.write_str(close)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(asns: &[u32]) -> Vec<u8> {
        let mut out = Vec::new();
        write_header(&mut out, SegmentKind::Sequence, asns.len());
        asns.iter()
            .for_each(|asn| out.extend_from_slice(&asn.to_be_bytes()));
        out
    }

    #[test]
    fn text_length_and_ends() {
        let mut bytes = sequence(&[65001, 4_200_000_000]);
        write_header(&mut bytes, SegmentKind::Set, 2);
        bytes.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2]);
        let path = AsPath::parse(&bytes, true).unwrap();
        assert_eq!(path.to_string(), "65001 4200000000 {1,2}");
        assert_eq!(
            (path.hops(), path.first(), path.last()),
            (3, Some(65001), Some(2))
        );
        assert!(path.contains(1) && !path.contains(3) && path.has_segment(SegmentKind::Set));
    }

    #[test]
    fn prepending_joins_the_first_sequence_unless_it_is_full() {
        let bytes = sequence(&[1, 2]);
        let mut out = Vec::new();
        AsPath::trusted(&bytes).write_prepended(9, 2, &mut out);
        assert_eq!(AsPath::parse(&out, true).unwrap().to_string(), "9 9 1 2");

        let full = sequence(&[7; 255]);
        let mut out = Vec::new();
        AsPath::trusted(&full).write_prepended(9, 1, &mut out);
        let path = AsPath::parse(&out, true).unwrap();
        assert_eq!(
            (path.segments().count(), path.hops(), path.first()),
            (2, 256, Some(9))
        );
    }

    #[test]
    fn as4_path_replaces_the_tail() {
        // | AS_PATH              | AS4_PATH        | result               |
        for (path, as4, expected) in [
            (&[10, 23456, 23456][..], &[70000, 80000][..], "10 70000 80000"),
            (&[10, 20][..], &[70000, 80000, 90000][..], "10 20"),
            (&[23456][..], &[70000][..], "70000"),
        ] {
            let (path, as4) = (sequence(path), sequence(as4));
            let mut out = Vec::new();
            merge_as4(&AsPath::trusted(&path), &AsPath::trusted(&as4), &mut out);
            let merged = AsPath::parse(&out, true).unwrap();
            assert_eq!(
                merged.asns().map(|a| a.to_string()).collect::<Vec<_>>().join(" "),
                expected
            );
        }
    }

    #[test]
    fn malformed_paths_are_named() {
        for (bytes, expected) in [
            (&[9, 1, 0, 0, 0, 1][..], AsPathError::UnknownSegment(9)),
            (&[2, 0][..], AsPathError::EmptySegment),
            (&[2, 2, 0, 0, 0, 1][..], AsPathError::Overrun),
            (&[2, 1, 0, 0, 0, 1, 2][..], AsPathError::Trailing),
        ] {
            assert_eq!(AsPath::parse(bytes, true), Err(expected));
        }
    }
}
