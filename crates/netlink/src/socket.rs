//! One netlink socket: requests with acknowledgements, batches, dumps.
use std::cell::Cell;

use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::NetlinkError;

/// So many requests go to the kernel in one write: their acknowledgements must fit the socket's receive buffer.
const BATCH: usize = 64;
/// Bytes of netlink's own header before the message that an acknowledgement quotes.
const QUOTED_HEADER: usize = 16;
/// The attribute of an extended acknowledgement that holds the kernel's words.
const ACK_TEXT: u16 = 1;

/// A handle on the network objects of one namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: Cell<u32>,
}

/// One change to ask for.
pub(crate) struct Request {
    pub(crate) message: RouteNetlinkMessage,
    /// NLM_F_… beyond REQUEST and ACK.
    pub(crate) flags: u16,
    /// What it does, with the object's name.
    pub(crate) action: String,
}

impl Netlink {
    /// A handle on the namespace of the calling thread; it stays there even if the thread moves.
    pub fn open() -> Result<Self, NetlinkError> {
        let fail = |e| NetlinkError::io("open a netlink socket", e);
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(fail)?;
        socket.bind_auto().map_err(fail)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(fail)?;
        // Old kernels lack these: errors are then merely shorter, listings longer.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        // Lets the kernel filter listings by table.
        let _ = socket.set_netlink_get_strict_chk(true);
        Ok(Self {
            socket,
            sequence: Cell::new(1),
        })
    }

    fn next_sequence(&self) -> u32 {
        let now = self.sequence.get();
        self.sequence.set(now.wrapping_add(1).max(1));
        now
    }

    pub(crate) fn change(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        action: String,
    ) -> Result<(), NetlinkError> {
        let request = Request {
            message,
            flags,
            action,
        };
        self.change_many(vec![request]).pop().unwrap_or(Ok(()))
    }

    /// Asks for many changes in as few writes as possible; one result for each, in order.
    pub(crate) fn change_many(&self, requests: Vec<Request>) -> Vec<Result<(), NetlinkError>> {
        let mut results = Vec::with_capacity(requests.len());
        let mut rest = requests.into_iter();
        loop {
            let chunk: Vec<Request> = rest.by_ref().take(BATCH).collect();
            if chunk.is_empty() {
                return results;
            }
            results.extend(self.change_chunk(chunk));
        }
    }

    fn change_chunk(&self, chunk: Vec<Request>) -> Vec<Result<(), NetlinkError>> {
        let mut bytes = Vec::new();
        let mut actions = Vec::with_capacity(chunk.len());
        let first = self.sequence.get();
        for request in chunk {
            let flags = NLM_F_REQUEST | NLM_F_ACK | request.flags;
            append(&mut bytes, request.message, flags, self.next_sequence());
            actions.push(request.action);
        }
        if let Err(e) = self.socket.send(&bytes, 0) {
            let failed = |action| Err(NetlinkError::io(action, std::io::Error::from(e.kind())));
            return actions.into_iter().map(failed).collect();
        }
        let mut results: Vec<Option<Result<(), NetlinkError>>> = actions.iter().map(|_| None).collect();
        while results.iter().any(Option::is_none) {
            if let Err(e) = self.read_acks(first, &actions, &mut results) {
                for slot in results.iter_mut().filter(|slot| slot.is_none()) {
                    *slot = Some(Err(NetlinkError::io(
                        "read an acknowledgement",
                        std::io::Error::from(e.kind()),
                    )));
                }
            }
        }
        results.into_iter().flatten().collect()
    }

    fn read_acks(
        &self,
        first: u32,
        actions: &[String],
        results: &mut [Option<Result<(), NetlinkError>>],
    ) -> std::io::Result<()> {
        let (datagram, _) = self.socket.recv_from_full()?;
        for message in messages(&datagram) {
            let Ok(header) = NetlinkBuffer::new_checked(message) else {
                continue;
            };
            let index = header.sequence_number().wrapping_sub(first) as usize;
            let (Some(slot), Some(action)) = (results.get_mut(index), actions.get(index)) else {
                continue; // an answer to an earlier request that nobody waits for
            };
            if let Ok(NetlinkPayload::Error(ack)) =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(message).map(|m| m.payload)
            {
                *slot = Some(verdict(&ack, action));
            }
        }
        Ok(())
    }

    /// Lists all objects of a kind. A listing that changed while it was read is read again.
    pub(crate) fn dump(
        &self,
        message: RouteNetlinkMessage,
        action: &str,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        for _ in 0..8 {
            if let Some(list) = self.dump_once(message.clone(), action)? {
                return Ok(list);
            }
        }
        Err(NetlinkError::Decode {
            action: action.to_owned(),
            reason: "the table changed during each of 8 attempts to list it".to_owned(),
        })
    }

    fn dump_once(
        &self,
        message: RouteNetlinkMessage,
        action: &str,
    ) -> Result<Option<Vec<RouteNetlinkMessage>>, NetlinkError> {
        const DUMP_INTERRUPTED: u16 = netlink_packet_core::NLM_F_DUMP_INTR;
        let sequence = self.next_sequence();
        let mut bytes = Vec::new();
        append(&mut bytes, message, NLM_F_REQUEST | NLM_F_DUMP, sequence);
        self.socket
            .send(&bytes, 0)
            .map_err(|e| NetlinkError::io(action, e))?;
        let (mut list, mut interrupted) = (Vec::new(), false);
        loop {
            let (datagram, _) = self
                .socket
                .recv_from_full()
                .map_err(|e| NetlinkError::io(action, e))?;
            for message in messages(&datagram) {
                let parsed = match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) {
                    Ok(parsed) => parsed,
                    Err(e) => {
                        tracing::warn!(action, reason = %e, "skipped an object that cannot be read");
                        continue;
                    }
                };
                if parsed.header.sequence_number != sequence {
                    continue;
                }
                interrupted |= parsed.header.flags & DUMP_INTERRUPTED != 0;
                match parsed.payload {
                    NetlinkPayload::InnerMessage(inner) => list.push(inner),
                    NetlinkPayload::Error(ack) => {
                        verdict(&ack, action)?;
                    }
                    NetlinkPayload::Done(_) => return Ok((!interrupted).then_some(list)),
                    _ => {}
                }
            }
        }
    }
}

/// Appends one message, padded to netlink's alignment of 4.
fn append(bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let start = bytes.len();
    bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..]);
}

/// The messages of one datagram.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(datagram.get(..4)?.try_into().ok()?) as usize;
        if length < 16 || length > datagram.len() {
            return None;
        }
        let (message, _) = datagram.split_at(length);
        datagram = &datagram[length.next_multiple_of(4).min(datagram.len())..];
        Some(message)
    })
}

fn verdict(ack: &ErrorMessage, action: &str) -> Result<(), NetlinkError> {
    match ack.raw_code() {
        0 => Ok(()),
        code => Err(NetlinkError::Refused {
            action: action.to_owned(),
            errno: code.abs(),
            detail: kernel_words(&ack.header),
        }),
    }
}

/// The kernel's own words, from the attributes after the quoted header.
fn kernel_words(quoted: &[u8]) -> String {
    let mut rest = quoted.get(QUOTED_HEADER..).unwrap_or_default();
    while rest.len() >= 4 {
        let length = u16::from_ne_bytes([rest[0], rest[1]]) as usize;
        let kind = u16::from_ne_bytes([rest[2], rest[3]]);
        let Some(value) = rest.get(4..length) else {
            break;
        };
        if kind == ACK_TEXT {
            return String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
        }
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    String::new()
}
