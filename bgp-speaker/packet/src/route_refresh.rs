//! The ROUTE-REFRESH message (RFC 2918, RFC 7313).
use crate::family::AfiSafi;
use crate::frame::{MessageType, begin, finish};
use crate::notification::{Notification, code};

/// What a ROUTE-REFRESH says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subtype {
    /// Send everything again.
    Request,
    /// The answer begins (RFC 7313).
    Begin,
    /// The answer ends (RFC 7313).
    End,
    /// Something newer; to be ignored.
    Other(u8),
}

/// A ROUTE-REFRESH message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteRefresh {
    /// Of which family.
    pub family: AfiSafi,
    /// What it says.
    pub subtype: Subtype,
}

impl RouteRefresh {
    /// Reads the body. What follows the four bytes of a request (outbound route filters, RFC 5291, which we never offer) is
    /// ignored.
    ///
    /// # Errors
    /// Invalid Message Length (RFC 7313 §5), with the whole message as data.
    pub fn decode(body: &[u8]) -> Result<Self, Notification> {
        let invalid = || {
            let mut message = Vec::new();
            let start = begin(&mut message, MessageType::RouteRefresh);
            message.extend_from_slice(body);
            finish(&mut message, start);
            Notification::with_data(code::ROUTE_REFRESH, 1, &message)
        };
        let [a, b, subtype, safi, rest @ ..] = body else {
            return Err(invalid());
        };
        let subtype = match subtype {
            0 => Subtype::Request,
            1 => Subtype::Begin,
            2 => Subtype::End,
            other => Subtype::Other(*other),
        };
        if !rest.is_empty() && matches!(subtype, Subtype::Begin | Subtype::End) {
            return Err(invalid());
        }
        Ok(Self {
            family: AfiSafi {
                afi: u16::from_be_bytes([*a, *b]),
                safi: *safi,
            },
            subtype,
        })
    }

    /// Writes the whole message, header included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = begin(out, MessageType::RouteRefresh);
        let subtype = match self.subtype {
            Subtype::Request => 0,
            Subtype::Begin => 1,
            Subtype::End => 2,
            Subtype::Other(byte) => byte,
        };
        out.extend_from_slice(&self.family.afi.to_be_bytes());
        out.extend_from_slice(&[subtype, self.family.safi]);
        finish(out, start);
    }
}
