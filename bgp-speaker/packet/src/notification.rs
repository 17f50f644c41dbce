//! NOTIFICATION messages and the error codes in them (RFC 4271 §4.5 and §6, RFC 4486, 6608, 7313, 8538, 9003, 9384).
use std::borrow::Cow;
use std::fmt;

/// Error codes of the NOTIFICATION message (RFC 4271 §4.5).
pub mod code {
    /// Message Header Error.
    pub const HEADER: u8 = 1;
    /// OPEN Message Error.
    pub const OPEN: u8 = 2;
    /// UPDATE Message Error.
    pub const UPDATE: u8 = 3;
    /// Hold Timer Expired.
    pub const HOLD_TIMER: u8 = 4;
    /// Finite State Machine Error.
    pub const FSM: u8 = 5;
    /// Cease.
    pub const CEASE: u8 = 6;
    /// ROUTE-REFRESH Message Error (RFC 7313).
    pub const ROUTE_REFRESH: u8 = 7;
    /// Send Hold Timer Expired (RFC 9687).
    pub const SEND_HOLD_TIMER: u8 = 8;
}

/// Subcodes of [`code::HEADER`].
pub mod header {
    /// The marker is not all ones.
    pub const NOT_SYNCHRONIZED: u8 = 1;
    /// The length field is out of range for the message type.
    pub const BAD_LENGTH: u8 = 2;
    /// The message type is unknown.
    pub const BAD_TYPE: u8 = 3;
}

/// Subcodes of [`code::OPEN`].
pub mod open {
    /// Malformed in a way that no other subcode names.
    pub const UNSPECIFIC: u8 = 0;
    /// The version is not 4; the data is the version that we speak.
    pub const UNSUPPORTED_VERSION: u8 = 1;
    /// The AS number is not the one that the configuration names.
    pub const BAD_PEER_AS: u8 = 2;
    /// The BGP identifier is zero, or is our own on an internal session.
    pub const BAD_BGP_IDENTIFIER: u8 = 3;
    /// An optional parameter is not a capability list.
    pub const UNSUPPORTED_PARAMETER: u8 = 4;
    /// The hold time is 1 or 2 seconds, or not acceptable.
    pub const UNACCEPTABLE_HOLD_TIME: u8 = 6;
    /// A capability that we require is missing; the data lists it (RFC 5492 §3).
    pub const UNSUPPORTED_CAPABILITY: u8 = 7;
}

/// Subcodes of [`code::UPDATE`].
pub mod update {
    /// Malformed attribute list.
    pub const MALFORMED_ATTRIBUTES: u8 = 1;
    /// A well-known attribute is not recognised.
    pub const UNRECOGNIZED_WELL_KNOWN: u8 = 2;
    /// A mandatory well-known attribute is missing.
    pub const MISSING_WELL_KNOWN: u8 = 3;
    /// Attribute flags conflict with the attribute type.
    pub const ATTRIBUTE_FLAGS: u8 = 4;
    /// Attribute length conflicts with the attribute type.
    pub const ATTRIBUTE_LENGTH: u8 = 5;
    /// The ORIGIN value is undefined.
    pub const INVALID_ORIGIN: u8 = 6;
    /// The NEXT_HOP is syntactically wrong.
    pub const INVALID_NEXT_HOP: u8 = 8;
    /// An optional attribute is in error.
    pub const OPTIONAL_ATTRIBUTE: u8 = 9;
    /// A prefix field is syntactically wrong.
    pub const INVALID_NETWORK: u8 = 10;
    /// The AS_PATH is syntactically wrong.
    pub const MALFORMED_AS_PATH: u8 = 11;
}

/// Subcodes of [`code::CEASE`] (RFC 4486, 8538, 9384).
pub mod cease {
    /// More prefixes than the limit.
    pub const MAX_PREFIXES: u8 = 1;
    /// Administrative shutdown; the data may be a text (RFC 9003).
    pub const ADMIN_SHUTDOWN: u8 = 2;
    /// The peer was removed from the configuration.
    pub const PEER_DECONFIGURED: u8 = 3;
    /// Administrative reset; the data may be a text (RFC 9003).
    pub const ADMIN_RESET: u8 = 4;
    /// The connection was refused.
    pub const CONNECTION_REJECTED: u8 = 5;
    /// Another configuration change.
    pub const CONFIG_CHANGE: u8 = 6;
    /// The connection lost against another one to the same peer (RFC 4271 §6.8).
    pub const COLLISION: u8 = 7;
    /// Out of resources.
    pub const OUT_OF_RESOURCES: u8 = 8;
    /// No graceful restart for this session end; the data wraps the real reason (RFC 8538 §3).
    pub const HARD_RESET: u8 = 9;
    /// The BFD session went down (RFC 9384).
    pub const BFD_DOWN: u8 = 10;
}

/// Subcodes of [`code::FSM`] (RFC 6608).
pub mod fsm {
    /// Unexpected message in OpenSent.
    pub const IN_OPEN_SENT: u8 = 1;
    /// Unexpected message in OpenConfirm.
    pub const IN_OPEN_CONFIRM: u8 = 2;
    /// Unexpected message in Established.
    pub const IN_ESTABLISHED: u8 = 3;
}

/// The longest shutdown text, in bytes (RFC 9003 §2).
pub const MAX_SHUTDOWN_TEXT: usize = 255;

/// A NOTIFICATION: why a session ends. It is also this codec's error for everything that must end a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Error code, see [`code`].
    pub code: u8,
    /// Error subcode; its meaning depends on the code.
    pub subcode: u8,
    /// Data whose meaning depends on code and subcode.
    pub data: Vec<u8>,
}

impl Notification {
    /// A notification without data.
    #[must_use]
    pub const fn new(code: u8, subcode: u8) -> Self {
        Self {
            code,
            subcode,
            data: Vec::new(),
        }
    }

    /// A notification with data; what does not fit into one message is cut.
    #[must_use]
    pub fn with_data(code: u8, subcode: u8, data: &[u8]) -> Self {
        let room = crate::frame::MAX_LEN - crate::frame::HEADER_LEN - 2;
        Self {
            code,
            subcode,
            data: data[..data.len().min(room)].to_vec(),
        }
    }

    /// A Cease with a shutdown text of at most [`MAX_SHUTDOWN_TEXT`] bytes (RFC 9003); the rest is cut at a character.
    #[must_use]
    pub fn cease_with_text(subcode: u8, text: &str) -> Self {
        let mut end = text.len().min(MAX_SHUTDOWN_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut data = Vec::with_capacity(end + 1);
        if end > 0 {
            data.push(u8::try_from(end).unwrap_or(u8::MAX));
            data.extend_from_slice(&text.as_bytes()[..end]);
        }
        Self {
            code: code::CEASE,
            subcode,
            data,
        }
    }

    /// Wraps this notification in a Cease/Hard Reset, so that a peer with RFC 8538 keeps no stale routes.
    #[must_use]
    pub fn into_hard_reset(self) -> Self {
        let mut data = vec![self.code, self.subcode];
        data.extend_from_slice(&self.data);
        Self::with_data(code::CEASE, cease::HARD_RESET, &data)
    }

    /// True for Cease/Hard Reset: the receiver must not keep routes over it (RFC 8538 §3.1).
    #[must_use]
    pub const fn is_hard_reset(&self) -> bool {
        self.code == code::CEASE && self.subcode == cease::HARD_RESET
    }

    /// The shutdown text of an administrative shutdown or reset, if there is one. Bytes that are not UTF-8 are replaced,
    /// control characters are replaced by spaces, and a length that lies is taken as "up to the end of the message".
    #[must_use]
    pub fn shutdown_text(&self) -> Option<String> {
        if self.code != code::CEASE || !matches!(self.subcode, cease::ADMIN_SHUTDOWN | cease::ADMIN_RESET) {
            return None;
        }
        let (&len, rest) = self.data.split_first()?;
        let text = &rest[..rest.len().min(usize::from(len))];
        if text.is_empty() {
            return None;
        }
        Some(
            String::from_utf8_lossy(text)
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect(),
        )
    }

    /// Reads the body of a NOTIFICATION message (what follows the header).
    ///
    /// # Errors
    /// A body shorter than two bytes is a header error. It must not be answered (RFC 4271 §6.4), only logged.
    pub fn decode(body: &[u8]) -> Result<Self, Notification> {
        match body {
            [code, subcode, data @ ..] => Ok(Self {
                code: *code,
                subcode: *subcode,
                data: data.to_vec(),
            }),
            _ => Err(Notification::new(code::HEADER, header::BAD_LENGTH)),
        }
    }

    /// Writes the whole message, header included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = crate::frame::begin(out, crate::frame::MessageType::Notification);
        out.extend_from_slice(&[self.code, self.subcode]);
        let room = crate::frame::MAX_LEN - crate::frame::HEADER_LEN - 2;
        out.extend_from_slice(&self.data[..self.data.len().min(room)]);
        crate::frame::finish(out, start);
    }

    /// The name of code and subcode, as people write it.
    #[must_use]
    pub fn name(&self) -> Cow<'static, str> {
        let Some(known) = known_name(self.code, self.subcode) else {
            return Cow::Owned(format!("code {} subcode {}", self.code, self.subcode));
        };
        Cow::Borrowed(known)
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}/{})", self.name(), self.code, self.subcode)?;
        if let Some(text) = self.shutdown_text() {
            write!(f, ": {text}")?;
        } else if self.is_hard_reset() && self.data.len() >= 2 {
            let inner = Self::with_data(self.data[0], self.data[1], &self.data[2..]);
            // A hard reset inside a hard reset is nonsense, and must not make us recurse.
            if !inner.is_hard_reset() {
                write!(f, ": {inner}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Notification {}

fn known_name(code: u8, subcode: u8) -> Option<&'static str> {
    Some(match (code, subcode) {
        (code::HEADER, 1) => "Connection Not Synchronized",
        (code::HEADER, 2) => "Bad Message Length",
        (code::HEADER, 3) => "Bad Message Type",
        (code::HEADER, _) => "Message Header Error",
        (code::OPEN, 1) => "Unsupported Version Number",
        (code::OPEN, 2) => "Bad Peer AS",
        (code::OPEN, 3) => "Bad BGP Identifier",
        (code::OPEN, 4) => "Unsupported Optional Parameter",
        (code::OPEN, 6) => "Unacceptable Hold Time",
        (code::OPEN, 7) => "Unsupported Capability",
        (code::OPEN, _) => "OPEN Message Error",
        (code::UPDATE, 1) => "Malformed Attribute List",
        (code::UPDATE, 2) => "Unrecognized Well-known Attribute",
        (code::UPDATE, 3) => "Missing Well-known Attribute",
        (code::UPDATE, 4) => "Attribute Flags Error",
        (code::UPDATE, 5) => "Attribute Length Error",
        (code::UPDATE, 6) => "Invalid ORIGIN Attribute",
        (code::UPDATE, 8) => "Invalid NEXT_HOP Attribute",
        (code::UPDATE, 9) => "Optional Attribute Error",
        (code::UPDATE, 10) => "Invalid Network Field",
        (code::UPDATE, 11) => "Malformed AS_PATH",
        (code::UPDATE, _) => "UPDATE Message Error",
        (code::HOLD_TIMER, _) => "Hold Timer Expired",
        (code::FSM, 1) => "Unexpected Message in OpenSent",
        (code::FSM, 2) => "Unexpected Message in OpenConfirm",
        (code::FSM, 3) => "Unexpected Message in Established",
        (code::FSM, _) => "Finite State Machine Error",
        (code::CEASE, 1) => "Maximum Number of Prefixes Reached",
        (code::CEASE, 2) => "Administrative Shutdown",
        (code::CEASE, 3) => "Peer De-configured",
        (code::CEASE, 4) => "Administrative Reset",
        (code::CEASE, 5) => "Connection Rejected",
        (code::CEASE, 6) => "Other Configuration Change",
        (code::CEASE, 7) => "Connection Collision Resolution",
        (code::CEASE, 8) => "Out of Resources",
        (code::CEASE, 9) => "Hard Reset",
        (code::CEASE, 10) => "BFD Down",
        (code::CEASE, _) => "Cease",
        (code::ROUTE_REFRESH, _) => "ROUTE-REFRESH Message Error",
        (code::SEND_HOLD_TIMER, _) => "Send Hold Timer Expired",
        _ => return None,
    })
}
