//! The OPEN message (RFC 4271 §4.2, RFC 5492, RFC 6793, RFC 9072).
use std::net::Ipv4Addr;

use crate::as_path::AS_TRANS;
use crate::capability::Capability;
use crate::family::AfiSafi;
use crate::frame::{MessageType, begin, finish};
use crate::notification::{Notification, code, open};

const VERSION: u8 = 4;
const PARAMETER_CAPABILITIES: u8 = 2;
const PARAMETER_EXTENDED: u8 = 255;

/// An OPEN message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// AS number of the sender: of the 4-byte AS capability if there is one, else of the fixed field.
    pub asn: u32,
    /// Hold time that the sender proposes, in seconds: 0 or at least 3.
    pub hold_time: u16,
    /// BGP identifier of the sender; not 0.0.0.0.
    pub router_id: Ipv4Addr,
    /// Capabilities in the order in which they came.
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// Reads the body of an OPEN and checks what can be checked without the configuration.
    ///
    /// # Errors
    /// The NOTIFICATION of RFC 4271 §6.2.
    pub fn decode(body: &[u8]) -> Result<Self, Notification> {
        let [version, as1, as2, hold1, hold2, id1, id2, id3, id4, params @ ..] = body else {
            return Err(Notification::new(code::OPEN, open::UNSPECIFIC));
        };
        if *version != VERSION {
            return Err(Notification::with_data(
                code::OPEN,
                open::UNSUPPORTED_VERSION,
                &[0, VERSION],
            ));
        }
        let hold_time = u16::from_be_bytes([*hold1, *hold2]);
        if matches!(hold_time, 1 | 2) {
            return Err(Notification::new(code::OPEN, open::UNACCEPTABLE_HOLD_TIME));
        }
        let router_id = Ipv4Addr::new(*id1, *id2, *id3, *id4);
        if router_id.is_unspecified() {
            return Err(Notification::new(code::OPEN, open::BAD_BGP_IDENTIFIER));
        }
        let capabilities = decode_parameters(params)?;
        let short = u16::from_be_bytes([*as1, *as2]);
        let long = capabilities.iter().find_map(|capability| match capability {
            Capability::FourByteAs(asn) => Some(*asn),
            _ => None,
        });
        let asn = long.unwrap_or(u32::from(short));
        // AS_TRANS stands for "see the capability", and is nobody's own number (RFC 6793 §9).
        if short == 0 || asn == 0 || asn == u32::from(AS_TRANS) {
            return Err(Notification::new(code::OPEN, open::BAD_PEER_AS));
        }
        Ok(Self {
            asn,
            hold_time,
            router_id,
            capabilities,
        })
    }

    /// Writes the whole message, header included. All capabilities go into one parameter.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = begin(out, MessageType::Open);
        let short = u16::try_from(self.asn).unwrap_or(AS_TRANS);
        out.push(VERSION);
        out.extend_from_slice(&short.to_be_bytes());
        out.extend_from_slice(&self.hold_time.to_be_bytes());
        out.extend_from_slice(&self.router_id.octets());
        let mut list = Vec::new();
        self.capabilities
            .iter()
            .for_each(|capability| capability.encode(&mut list));
        match (u8::try_from(list.len()), u8::try_from(list.len() + 2)) {
            (Ok(0), _) => out.push(0),
            // 255 is what marks the extended form, so the short form ends below it.
            (Ok(len), Ok(whole)) if whole != PARAMETER_EXTENDED => {
                out.extend_from_slice(&[whole, PARAMETER_CAPABILITIES, len]);
            }
            _ => {
                let len = u16::try_from(list.len()).unwrap_or(u16::MAX - 3);
                out.extend_from_slice(&[PARAMETER_EXTENDED, PARAMETER_EXTENDED]);
                out.extend_from_slice(&(len + 3).to_be_bytes());
                out.push(PARAMETER_CAPABILITIES);
                out.extend_from_slice(&len.to_be_bytes());
            }
        }
        out.extend_from_slice(&list);
        finish(out, start);
    }

    /// The families that the sender offers; IPv4 unicast if it names none (RFC 4760 §8).
    #[must_use]
    pub fn families(&self) -> Vec<AfiSafi> {
        let mut list: Vec<AfiSafi> = self
            .capabilities
            .iter()
            .filter_map(|capability| match capability {
                Capability::Multiprotocol(family) => Some(*family),
                _ => None,
            })
            .collect();
        list.sort_unstable();
        list.dedup();
        if list.is_empty() {
            list.push(AfiSafi { afi: 1, safi: 1 });
        }
        list
    }
}

fn malformed() -> Notification {
    Notification::new(code::OPEN, open::UNSPECIFIC)
}

/// Reads the optional parameters, in the short form or in the extended one of RFC 9072.
fn decode_parameters(bytes: &[u8]) -> Result<Vec<Capability>, Notification> {
    let (&len, rest) = bytes.split_first().ok_or_else(malformed)?;
    let (extended, mut rest) = match rest {
        [PARAMETER_EXTENDED, a, b, tail @ ..] if len != 0 => {
            (true, exactly(tail, u16::from_be_bytes([*a, *b]).into())?)
        }
        _ => (false, exactly(rest, len.into())?),
    };
    let mut capabilities = Vec::new();
    while let Some((&kind, tail)) = rest.split_first() {
        let (len, tail) = if extended {
            let (len, tail) = tail.split_first_chunk::<2>().ok_or_else(malformed)?;
            (usize::from(u16::from_be_bytes(*len)), tail)
        } else {
            let (len, tail) = tail.split_first().ok_or_else(malformed)?;
            (usize::from(*len), tail)
        };
        let (value, tail) = tail.split_at_checked(len).ok_or_else(malformed)?;
        if kind != PARAMETER_CAPABILITIES {
            return Err(Notification::new(code::OPEN, open::UNSUPPORTED_PARAMETER));
        }
        decode_capabilities(value, &mut capabilities)?;
        rest = tail;
    }
    Ok(capabilities)
}

fn exactly(bytes: &[u8], len: usize) -> Result<&[u8], Notification> {
    if bytes.len() == len {
        Ok(bytes)
    } else {
        Err(malformed())
    }
}

fn decode_capabilities(mut rest: &[u8], list: &mut Vec<Capability>) -> Result<(), Notification> {
    while let Some((&code, tail)) = rest.split_first() {
        let (&len, tail) = tail.split_first().ok_or_else(malformed)?;
        let (value, tail) = tail.split_at_checked(len.into()).ok_or_else(malformed)?;
        let capability = Capability::decode(code, value).map_err(|_| malformed())?;
        // Repeating a capability means nothing (RFC 5492 §4).
        if !list.contains(&capability) {
            list.push(capability);
        }
        rest = tail;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::GracefulRestart;

    fn body(message: &[u8]) -> &[u8] {
        &message[crate::frame::HEADER_LEN..]
    }

    fn sample(capabilities: Vec<Capability>) -> Open {
        Open {
            asn: 4_200_000_001,
            hold_time: 3,
            router_id: Ipv4Addr::new(10, 0, 0, 1),
            capabilities,
        }
    }

    #[test]
    fn every_capability_survives_a_round_trip() {
        let v6 = AfiSafi { afi: 2, safi: 1 };
        let open = sample(vec![
            Capability::Multiprotocol(v6),
            Capability::RouteRefresh,
            Capability::ExtendedNextHop(vec![(AfiSafi { afi: 1, safi: 1 }, 2)]),
            Capability::ExtendedMessage,
            Capability::GracefulRestart(GracefulRestart {
                restarted: true,
                notification: true,
                time: 4095,
                families: vec![(v6, true)],
            }),
            Capability::FourByteAs(4_200_000_001),
            Capability::EnhancedRouteRefresh,
            Capability::Fqdn {
                host: "tor-1".into(),
                domain: "example.net".into(),
            },
            Capability::Other {
                code: 200,
                value: vec![1, 2, 3],
            },
        ]);
        let mut out = Vec::new();
        open.encode(&mut out);
        assert_eq!(Open::decode(body(&out)), Ok(open));
    }

    #[test]
    fn many_capabilities_take_the_extended_form() {
        let many = (0..40u8).map(|n| Capability::Other {
            code: 100 + n,
            value: vec![n; 20],
        });
        let open = sample(
            std::iter::once(Capability::FourByteAs(4_200_000_001))
                .chain(many)
                .collect(),
        );
        let mut out = Vec::new();
        open.encode(&mut out);
        assert_eq!(body(&out)[9..11], [255, 255]);
        assert_eq!(Open::decode(body(&out)), Ok(open));
    }

    /// Bad OPENs, each with the code that RFC 4271 §6.2 wants.
    #[test]
    fn bad_opens() {
        let open = |version: u8, asn: u16, hold: u16, id: u32, params: &[u8]| {
            let mut body = vec![version];
            body.extend_from_slice(&asn.to_be_bytes());
            body.extend_from_slice(&hold.to_be_bytes());
            body.extend_from_slice(&id.to_be_bytes());
            body.extend_from_slice(params);
            body
        };
        let table: &[(&str, Vec<u8>, u8)] = &[
            ("version 3", open(3, 1, 90, 1, &[0]), open::UNSUPPORTED_VERSION),
            ("AS 0", open(4, 0, 90, 1, &[0]), open::BAD_PEER_AS),
            (
                "AS_TRANS without capability",
                open(4, 23456, 90, 1, &[0]),
                open::BAD_PEER_AS,
            ),
            (
                "AS 0 in the capability",
                open(4, 1, 90, 1, &[8, 2, 6, 65, 4, 0, 0, 0, 0]),
                open::BAD_PEER_AS,
            ),
            (
                "hold time 1",
                open(4, 1, 1, 1, &[0]),
                open::UNACCEPTABLE_HOLD_TIME,
            ),
            (
                "hold time 2",
                open(4, 1, 2, 1, &[0]),
                open::UNACCEPTABLE_HOLD_TIME,
            ),
            ("router id 0", open(4, 1, 90, 0, &[0]), open::BAD_BGP_IDENTIFIER),
            (
                "authentication parameter",
                open(4, 1, 90, 1, &[3, 1, 1, 0]),
                open::UNSUPPORTED_PARAMETER,
            ),
            (
                "parameter past the end",
                open(4, 1, 90, 1, &[4, 2, 9, 1, 4]),
                open::UNSPECIFIC,
            ),
            (
                "capability past the parameter",
                open(4, 1, 90, 1, &[4, 2, 2, 1, 4]),
                open::UNSPECIFIC,
            ),
            ("one-byte parameter", open(4, 1, 90, 1, &[1, 2]), open::UNSPECIFIC),
            (
                "short multiprotocol capability",
                open(4, 1, 90, 1, &[5, 2, 3, 1, 1, 0]),
                open::UNSPECIFIC,
            ),
            (
                "short AS capability",
                open(4, 1, 90, 1, &[5, 2, 3, 65, 1, 0]),
                open::UNSPECIFIC,
            ),
            (
                "extended length past the end",
                open(4, 1, 90, 1, &[255, 255, 0, 9, 2, 0, 1, 2]),
                open::UNSPECIFIC,
            ),
            (
                "parameters longer than said",
                open(4, 1, 90, 1, &[0, 2, 0]),
                open::UNSPECIFIC,
            ),
        ];
        for (name, body, subcode) in table {
            let error = Open::decode(body).expect_err(name);
            assert_eq!((error.code, error.subcode), (code::OPEN, *subcode), "{name}");
        }
        let version = Open::decode(&open(3, 1, 90, 1, &[0])).unwrap_err();
        assert_eq!(version.data, [0, 4], "the version that we speak");
    }

    #[test]
    fn odd_capabilities_that_do_not_matter_are_kept_as_they_came() {
        // Fifty times route refresh; FQDN whose length lies; graceful restart of a wrong length; software version of length 0.
        let mut list: Vec<u8> = [2, 0].repeat(50);
        list.extend_from_slice(&[73, 2, 200, 1, 64, 3, 0, 120, 0, 75, 1, 0]);
        let len = u8::try_from(list.len()).unwrap();
        let mut body = vec![4, 0, 1, 0, 90, 1, 1, 1, 1, len + 2, 2, len];
        body.extend_from_slice(&list);
        let open = Open::decode(&body).unwrap();
        assert_eq!(open.capabilities.len(), 4);
        assert_eq!(open.capabilities[0], Capability::RouteRefresh);
        assert!(
            open.capabilities[1..]
                .iter()
                .all(|c| matches!(c, Capability::Other { .. }))
        );
        assert_eq!(open.families(), [AfiSafi { afi: 1, safi: 1 }]);
    }
}
