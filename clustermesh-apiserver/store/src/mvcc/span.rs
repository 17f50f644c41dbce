//! A span of keys, as the etcd API writes it: `key` and `range_end`.

use std::ops::Bound;

/// A span of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    start: Vec<u8>,
    end: End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// The start key alone.
    Single,
    /// Up to this key, without it.
    Before(Vec<u8>),
    /// To the end of all keys.
    Open,
}

impl Span {
    /// Reads the pair of the API: no `range_end` means the key alone, one NUL byte means all keys from `key` on.
    pub fn new(key: &[u8], range_end: &[u8]) -> Self {
        let end = match range_end {
            [] => End::Single,
            [0] => End::Open,
            end => End::Before(end.to_vec()),
        };
        Self {
            start: key.to_vec(),
            end,
        }
    }

    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        Self {
            start: prefix.to_vec(),
            end: after_prefix(prefix).map_or(End::Open, End::Before),
        }
    }

    /// The first key that can be in the span.
    pub fn start(&self) -> &[u8] {
        &self.start
    }

    /// The only key, if the span holds only one.
    pub fn single(&self) -> Option<&[u8]> {
        matches!(self.end, End::Single).then_some(self.start.as_slice())
    }

    /// Whether `key` lies in the span.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_slice() && self.reaches(key)
    }

    /// Whether `key`, which is not before the start, is not behind the end.
    pub(crate) fn reaches(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Single => key == self.start.as_slice(),
            End::Before(end) => key < end.as_slice(),
            End::Open => true,
        }
    }

    /// Whether every key of `other` lies in this span.
    pub fn covers(&self, other: &Self) -> bool {
        if other.start < self.start {
            return false;
        }
        match (&self.end, other.upper()) {
            (End::Open, _) => true,
            (_, Bound::Included(last)) => self.reaches(last),
            (End::Before(end), Bound::Excluded(other_end)) => other_end <= end.as_slice(),
            _ => false,
        }
    }

    fn upper(&self) -> Bound<&[u8]> {
        match &self.end {
            End::Single => Bound::Included(&self.start),
            End::Before(end) => Bound::Excluded(end),
            End::Open => Bound::Unbounded,
        }
    }
}

/// The first key behind all keys that begin with `prefix`; `None` if there is no such key.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=kept].to_vec();
    end[kept] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_the_api_pairs() {
        assert!(Span::new(b"a", b"").contains(b"a") && !Span::new(b"a", b"").contains(b"a\0"));
        assert!(Span::new(b"a", b"c").contains(b"b") && !Span::new(b"a", b"c").contains(b"c"));
        assert!(Span::new(b"b", b"\0").contains(b"\xff\xff") && !Span::new(b"b", b"\0").contains(b"a"));
        assert!(Span::prefix(b"a/").contains(b"a/x") && !Span::prefix(b"a/").contains(b"a0"));
        assert!(Span::prefix(b"\xff").contains(b"\xff\xff"));
    }

    #[test]
    fn covering_is_inclusion() {
        let state = Span::new(b"cilium/state/", b"cilium/state0");
        assert!(state.covers(&Span::new(b"cilium/state/ip/", b"cilium/state/ip0")));
        assert!(state.covers(&state) && state.covers(&Span::new(b"cilium/state/x", b"")));
        assert!(!state.covers(&Span::new(b"cilium/state/", b"cilium/state1")));
        assert!(!state.covers(&Span::new(b"cilium/state/x", b"\0")));
        assert!(!state.covers(&Span::new(b"cilium/cache/", b"")));
        assert!(Span::new(b"\0", b"\0").covers(&Span::new(b"\0", b"\0")));
        assert!(!Span::new(b"a", b"").covers(&Span::new(b"a", b"b")));
        assert!(Span::new(b"a", b"").covers(&Span::new(b"a", b"")));
    }
}
