//! Address families (RFC 4760, IANA "Address Family Numbers" and "SAFI Values").
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// An address family number as it stands on the wire: any AFI with any SAFI, known to us or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AfiSafi {
    /// Address Family Identifier, for example 1 for IPv4 and 2 for IPv6.
    pub afi: u16,
    /// Subsequent Address Family Identifier, for example 1 for unicast.
    pub safi: u8,
}

impl fmt::Display for AfiSafi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Family::try_from(*self) {
            Ok(family) => family.fmt(f),
            Err(_) => write!(f, "afi {}/safi {}", self.afi, self.safi),
        }
    }
}

/// An address family whose routes this codec reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// AFI 1, SAFI 1.
    Ipv4Unicast,
    /// AFI 2, SAFI 1.
    Ipv6Unicast,
}

impl Family {
    /// Every family, in the order in which tables are sent.
    pub const ALL: [Family; 2] = [Family::Ipv4Unicast, Family::Ipv6Unicast];

    /// The family that a prefix belongs to.
    #[must_use]
    pub fn of(prefix: &IpNet) -> Self {
        match prefix {
            IpNet::V4(_) => Family::Ipv4Unicast,
            IpNet::V6(_) => Family::Ipv6Unicast,
        }
    }

    /// The family that an address belongs to.
    #[must_use]
    pub fn of_address(address: &IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::Ipv4Unicast,
            IpAddr::V6(_) => Family::Ipv6Unicast,
        }
    }

    /// The longest prefix length of the family, in bits.
    #[must_use]
    pub const fn max_prefix_len(self) -> u8 {
        match self {
            Family::Ipv4Unicast => 32,
            Family::Ipv6Unicast => 128,
        }
    }

    /// A dense number from 0, to index arrays that hold one entry for each family.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl From<Family> for AfiSafi {
    fn from(family: Family) -> Self {
        match family {
            Family::Ipv4Unicast => AfiSafi { afi: 1, safi: 1 },
            Family::Ipv6Unicast => AfiSafi { afi: 2, safi: 1 },
        }
    }
}

/// The AFI/SAFI pair is none that this codec knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("address family {0} is not supported (only IPv4 and IPv6 unicast are)")]
pub struct UnknownFamily(pub AfiSafi);

impl TryFrom<AfiSafi> for Family {
    type Error = UnknownFamily;

    fn try_from(pair: AfiSafi) -> Result<Self, UnknownFamily> {
        match (pair.afi, pair.safi) {
            (1, 1) => Ok(Family::Ipv4Unicast),
            (2, 1) => Ok(Family::Ipv6Unicast),
            _ => Err(UnknownFamily(pair)),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Ipv4Unicast => "ipv4/unicast",
            Family::Ipv6Unicast => "ipv6/unicast",
        })
    }
}
