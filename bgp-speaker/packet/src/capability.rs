//! Capabilities of the OPEN message (RFC 5492).
use crate::family::AfiSafi;

mod code {
    pub(super) const MULTIPROTOCOL: u8 = 1;
    pub(super) const ROUTE_REFRESH: u8 = 2;
    pub(super) const EXTENDED_NEXT_HOP: u8 = 5;
    pub(super) const EXTENDED_MESSAGE: u8 = 6;
    pub(super) const GRACEFUL_RESTART: u8 = 64;
    pub(super) const FOUR_BYTE_AS: u8 = 65;
    pub(super) const ENHANCED_ROUTE_REFRESH: u8 = 70;
    pub(super) const FQDN: u8 = 73;
}

/// One capability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capability {
    /// Routes of a family (RFC 4760 §8).
    Multiprotocol(AfiSafi),
    /// ROUTE-REFRESH messages (RFC 2918).
    RouteRefresh,
    /// Next hops of one family for routes of another (RFC 8950): route family, next hop AFI.
    ExtendedNextHop(Vec<(AfiSafi, u16)>),
    /// Messages of up to 65535 bytes (RFC 8654). Understood, never offered.
    ExtendedMessage,
    /// Graceful restart (RFC 4724 §3).
    GracefulRestart(GracefulRestart),
    /// 4-byte AS numbers, with the AS number of the speaker (RFC 6793 §3).
    FourByteAs(u32),
    /// Begin and end markers of a refresh (RFC 7313). Understood, never offered.
    EnhancedRouteRefresh,
    /// Host and domain name (draft-walton-bgp-hostname-capability).
    Fqdn {
        /// Host name.
        host: String,
        /// Domain name, may be empty.
        domain: String,
    },
    /// One that this codec does not know, or whose value it cannot read; kept as it came.
    Other {
        /// Capability code.
        code: u8,
        /// Its value.
        value: Vec<u8>,
    },
}

/// The graceful restart capability (RFC 4724 §3, RFC 8538 §2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GracefulRestart {
    /// R bit: the speaker has restarted.
    pub restarted: bool,
    /// N bit: routes are kept over NOTIFICATIONs too.
    pub notification: bool,
    /// How long the routes of the speaker shall be kept without a session, in seconds (12 bits).
    pub time: u16,
    /// The families that are kept, each with its F bit: forwarding went on during the restart.
    pub families: Vec<(AfiSafi, bool)>,
}

/// A capability whose length makes no sense; the session cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("capability {0} has a wrong length")]
pub struct CapabilityLength(pub u8);

impl Capability {
    /// Reads the value of one capability. The families and the AS number decide about the session, so their length must be
    /// right; of all others a value that cannot be read is kept as [`Capability::Other`].
    pub(crate) fn decode(code: u8, value: &[u8]) -> Result<Self, CapabilityLength> {
        let known = match code {
            code::MULTIPROTOCOL => {
                let &[a, b, _, safi] = value else {
                    return Err(CapabilityLength(code));
                };
                Some(Capability::Multiprotocol(AfiSafi {
                    afi: u16::from_be_bytes([a, b]),
                    safi,
                }))
            }
            code::FOUR_BYTE_AS => {
                let octets: [u8; 4] = value.try_into().map_err(|_| CapabilityLength(code))?;
                Some(Capability::FourByteAs(u32::from_be_bytes(octets)))
            }
            code::ROUTE_REFRESH => Some(Capability::RouteRefresh),
            code::EXTENDED_MESSAGE => Some(Capability::ExtendedMessage),
            code::ENHANCED_ROUTE_REFRESH => Some(Capability::EnhancedRouteRefresh),
            code::EXTENDED_NEXT_HOP => decode_extended_next_hop(value),
            code::GRACEFUL_RESTART => decode_graceful_restart(value),
            code::FQDN => decode_fqdn(value),
            _ => None,
        };
        Ok(known.unwrap_or_else(|| Capability::Other {
            code,
            value: value.to_vec(),
        }))
    }

    /// Code and value as they stand on the wire; a value longer than 255 bytes is cut.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[self.code(), 0]);
        match self {
            Capability::Multiprotocol(family) => write_family(*family, 0, out),
            Capability::FourByteAs(asn) => out.extend_from_slice(&asn.to_be_bytes()),
            Capability::RouteRefresh | Capability::ExtendedMessage | Capability::EnhancedRouteRefresh => {}
            Capability::ExtendedNextHop(list) => {
                for (family, next_hop_afi) in list {
                    out.extend_from_slice(&family.afi.to_be_bytes());
                    out.extend_from_slice(&[0, family.safi]);
                    out.extend_from_slice(&next_hop_afi.to_be_bytes());
                }
            }
            Capability::GracefulRestart(restart) => encode_graceful_restart(restart, out),
            Capability::Fqdn { host, domain } => {
                for name in [host, domain] {
                    let name = &name.as_bytes()[..name.len().min(64)];
                    out.push(u8::try_from(name.len()).unwrap_or(0));
                    out.extend_from_slice(name);
                }
            }
            Capability::Other { value, .. } => out.extend_from_slice(value),
        }
        out.truncate(start + 2 + 255);
        out[start + 1] = u8::try_from(out.len() - start - 2).unwrap_or(u8::MAX);
    }

    /// The capability code.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Capability::Multiprotocol(_) => code::MULTIPROTOCOL,
            Capability::RouteRefresh => code::ROUTE_REFRESH,
            Capability::ExtendedNextHop(_) => code::EXTENDED_NEXT_HOP,
            Capability::ExtendedMessage => code::EXTENDED_MESSAGE,
            Capability::GracefulRestart(_) => code::GRACEFUL_RESTART,
            Capability::FourByteAs(_) => code::FOUR_BYTE_AS,
            Capability::EnhancedRouteRefresh => code::ENHANCED_ROUTE_REFRESH,
            Capability::Fqdn { .. } => code::FQDN,
            Capability::Other { code, .. } => *code,
        }
    }
}

fn write_family(family: AfiSafi, between: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&family.afi.to_be_bytes());
    out.extend_from_slice(&[between, family.safi]);
}

fn decode_extended_next_hop(value: &[u8]) -> Option<Capability> {
    let (chunks, []) = value.as_chunks::<6>() else {
        return None;
    };
    let entry = |[a, b, _, safi, c, d]: &[u8; 6]| {
        (
            AfiSafi {
                afi: u16::from_be_bytes([*a, *b]),
                safi: *safi,
            },
            u16::from_be_bytes([*c, *d]),
        )
    };
    Some(Capability::ExtendedNextHop(chunks.iter().map(entry).collect()))
}

fn decode_graceful_restart(value: &[u8]) -> Option<Capability> {
    let (head, rest) = value.split_first_chunk::<2>()?;
    let (families, []) = rest.as_chunks::<4>() else {
        return None;
    };
    let head = u16::from_be_bytes(*head);
    let family = |[a, b, safi, flags]: &[u8; 4]| {
        (
            AfiSafi {
                afi: u16::from_be_bytes([*a, *b]),
                safi: *safi,
            },
            flags & 0x80 != 0,
        )
    };
    Some(Capability::GracefulRestart(GracefulRestart {
        restarted: head & 0x8000 != 0,
        notification: head & 0x4000 != 0,
        time: head & 0x0fff,
        families: families.iter().map(family).collect(),
    }))
}

fn encode_graceful_restart(restart: &GracefulRestart, out: &mut Vec<u8>) {
    let bits = u16::from(restart.restarted) << 15 | u16::from(restart.notification) << 14;
    out.extend_from_slice(&(bits | restart.time.min(0x0fff)).to_be_bytes());
    for (family, forwarding) in &restart.families {
        out.extend_from_slice(&family.afi.to_be_bytes());
        out.extend_from_slice(&[family.safi, u8::from(*forwarding) << 7]);
    }
}

fn decode_fqdn(value: &[u8]) -> Option<Capability> {
    let (&len, rest) = value.split_first()?;
    let (host, rest) = rest.split_at_checked(usize::from(len))?;
    let domain = match rest.split_first() {
        Some((&len, rest)) => rest.get(..usize::from(len))?,
        None => &[],
    };
    let text = |bytes| {
        String::from_utf8(Vec::from(bytes))
            .ok()
            .filter(|s| !s.contains(char::is_control))
    };
    Some(Capability::Fqdn {
        host: text(host)?,
        domain: text(domain)?,
    })
}
