//! Framing: the 19-byte header that opens every message (RFC 4271 §4.1).
use crate::notification::{Notification, code, header};

/// Length of the header in bytes: marker, length, type.
pub const HEADER_LEN: usize = 19;
/// The longest message in bytes, header included, without the extended message capability.
pub const MAX_LEN: usize = 4096;

/// The five message types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageType {
    /// OPEN, type 1.
    Open = 1,
    /// UPDATE, type 2.
    Update = 2,
    /// NOTIFICATION, type 3.
    Notification = 3,
    /// KEEPALIVE, type 4.
    Keepalive = 4,
    /// ROUTE-REFRESH, type 5 (RFC 2918).
    RouteRefresh = 5,
}

impl MessageType {
    const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => MessageType::Open,
            2 => MessageType::Update,
            3 => MessageType::Notification,
            4 => MessageType::Keepalive,
            5 => MessageType::RouteRefresh,
            _ => return None,
        })
    }

    /// The shortest and the longest message of the type, in bytes, header included.
    const fn bounds(self) -> (usize, usize) {
        match self {
            MessageType::Open => (29, MAX_LEN),
            MessageType::Update => (23, MAX_LEN),
            MessageType::Notification => (21, MAX_LEN),
            MessageType::Keepalive => (HEADER_LEN, HEADER_LEN),
            // RFC 7313 §5 wants a ROUTE-REFRESH error for a wrong length, so only the header is checked here.
            MessageType::RouteRefresh => (HEADER_LEN, MAX_LEN),
        }
    }
}

/// One whole message, cut out of the byte stream but not yet understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What kind of message it is.
    pub kind: MessageType,
    /// Everything after the header.
    pub body: &'a [u8],
    /// Length of the whole message in bytes: how far to move on in the stream.
    pub len: usize,
}

/// Cuts the first message off `stream`. `Ok(None)` says that more bytes are needed.
///
/// # Errors
/// The NOTIFICATION of RFC 4271 §6.1 when marker, length or type is wrong. The header is judged as soon as it is
/// complete, so a stream that lies about its length is refused before its body arrives.
pub fn split(stream: &[u8]) -> Result<Option<Frame<'_>>, Notification> {
    let Some((head, rest)) = stream.split_first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    if head[..16].iter().any(|byte| *byte != 0xff) {
        return Err(Notification::new(code::HEADER, header::NOT_SYNCHRONIZED));
    }
    let wire_len = [head[16], head[17]];
    let len = usize::from(u16::from_be_bytes(wire_len));
    let bad_length = || Notification::with_data(code::HEADER, header::BAD_LENGTH, &wire_len);
    if !(HEADER_LEN..=MAX_LEN).contains(&len) {
        return Err(bad_length());
    }
    let Some(kind) = MessageType::from_byte(head[18]) else {
        return Err(Notification::with_data(
            code::HEADER,
            header::BAD_TYPE,
            &head[18..],
        ));
    };
    let (min, max) = kind.bounds();
    if !(min..=max).contains(&len) {
        return Err(bad_length());
    }
    Ok(rest.get(..len - HEADER_LEN).map(|body| Frame { kind, body, len }))
}

/// Starts a message at the end of `out`; [`finish`] fills in the length. Returns where the message starts.
pub fn begin(out: &mut Vec<u8>, kind: MessageType) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0xff; 16]);
    out.extend_from_slice(&[0, 0, kind as u8]);
    start
}

/// Ends the message that [`begin`] started at `start`.
pub fn finish(out: &mut [u8], start: usize) {
    let len = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    out[start + 16..start + 18].copy_from_slice(&len.to_be_bytes());
}

/// Writes a whole KEEPALIVE message.
pub fn encode_keepalive(out: &mut Vec<u8>) {
    let start = begin(out, MessageType::Keepalive);
    finish(out, start);
}
