//! Communities: standard (RFC 1997), extended (RFC 4360) and large (RFC 8092), as values and as text.
use std::fmt;
use std::str::FromStr;

/// A standard community, written `asn:value` or as one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

impl Community {
    /// Traffic leaves gracefully: prefer any other path (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Self = Self(0xffff_0000);
    /// Drop the traffic (RFC 7999).
    pub const BLACKHOLE: Self = Self(0xffff_029a);
    /// Do not send outside the AS.
    pub const NO_EXPORT: Self = Self(0xffff_ff01);
    /// Do not send to anybody.
    pub const NO_ADVERTISE: Self = Self(0xffff_ff02);
    /// Do not send to external peers, not even inside a confederation.
    pub const NO_EXPORT_SUBCONFED: Self = Self(0xffff_ff03);
    /// Do not send over bilateral peerings (RFC 3765).
    pub const NO_PEER: Self = Self(0xffff_ff04);

    /// The community `asn:value`.
    #[must_use]
    pub const fn pair(asn: u16, value: u16) -> Self {
        Self((asn as u32) << 16 | value as u32)
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0 >> 16, self.0 & 0xffff)
    }
}

/// A text that is no community.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a community: write {expected}")]
pub struct CommunityError {
    text: String,
    expected: &'static str,
}

impl FromStr for Community {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, CommunityError> {
        let wrong = || CommunityError {
            text: text.to_owned(),
            expected: "two numbers 0 to 65535 with a colon, as in 65000:100, or one number 0 to 4294967295",
        };
        match text.split_once(':') {
            Some((asn, value)) => Ok(Self::pair(
                asn.parse().map_err(|_| wrong())?,
                value.parse().map_err(|_| wrong())?,
            )),
            None => text.parse().map(Self).map_err(|_| wrong()),
        }
    }
}

/// A large community, written `global:local1:local2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity {
    /// Global administrator, an AS number.
    pub global: u32,
    /// First part of the local data.
    pub local1: u32,
    /// Second part of the local data.
    pub local2: u32,
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.global, self.local1, self.local2)
    }
}

impl FromStr for LargeCommunity {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, CommunityError> {
        let wrong = || CommunityError {
            text: text.to_owned(),
            expected: "three numbers 0 to 4294967295 with colons, as in 65000:1:2",
        };
        let mut parts = text.split(':').map(str::parse::<u32>);
        let mut next = || parts.next().and_then(Result::ok).ok_or_else(wrong);
        let community = Self {
            global: next()?,
            local1: next()?,
            local2: next()?,
        };
        if parts.next().is_some() {
            return Err(wrong());
        }
        Ok(community)
    }
}

/// An extended community: eight bytes, opaque to this codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedCommunity(pub u64);

impl ExtendedCommunity {
    /// False for the non-transitive types, which stay inside an AS (RFC 4360 §2).
    #[must_use]
    pub const fn is_transitive(self) -> bool {
        self.0 >> 62 & 1 == 0
    }
}

impl fmt::Display for ExtendedCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.to_be_bytes();
        let (asn, value) = ((self.0 >> 32) as u16, self.0 as u32);
        match (bytes[0] & 0xbf, bytes[1]) {
            (0, 2) => write!(f, "rt:{asn}:{value}"),
            (0, 3) => write!(f, "soo:{asn}:{value}"),
            _ => write!(f, "0x{:016x}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms() {
        for (text, value) in [
            ("65000:100", Some(0xfde8_0064)),
            ("4294967295", Some(u32::MAX)),
            ("0:0", Some(0)),
            ("65536:1", None),
        ] {
            assert_eq!(text.parse::<Community>().ok().map(|c| c.0), value, "{text}");
        }
        for wrong in ["", "1:2", "1:2:3:4", "1:2:x", "1:2:4294967296"] {
            assert!(wrong.parse::<LargeCommunity>().is_err(), "{wrong}");
        }
        let large: LargeCommunity = "4294967295:1:0".parse().unwrap();
        assert_eq!(large.to_string(), "4294967295:1:0");
        let error = "a:b".parse::<Community>().unwrap_err().to_string();
        assert!(error.contains("`a:b`") && error.contains("65000:100"), "{error}");
    }

    #[test]
    fn extended_communities_know_whether_they_leave_the_as() {
        assert!(ExtendedCommunity(0x0002_fde8_0000_0064).is_transitive());
        assert!(!ExtendedCommunity(0x4004_fde8_0000_0064).is_transitive());
        assert_eq!(
            ExtendedCommunity(0x0002_fde8_0000_0064).to_string(),
            "rt:65000:100"
        );
    }
}
