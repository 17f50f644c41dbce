//! A peer that says exactly what a story wants, byte by byte.
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use isthmus_testkit::wait_for;
use socket2::{Domain, Socket, Type};

use crate::support::{Link, NODE_V4, PATIENCE, PeerSettings, Speaker, TOR_AS, TOR_V4};

/// Message types (RFC 4271 §4.1).
pub(super) const OPEN: u8 = 1;
/// Message types (RFC 4271 §4.1).
pub(super) const UPDATE: u8 = 2;
/// Message types (RFC 4271 §4.1).
pub(super) const NOTIFICATION: u8 = 3;
/// Message types (RFC 4271 §4.1).
pub(super) const KEEPALIVE: u8 = 4;

/// What the peer says in its OPEN.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opening {
    /// BGP version.
    pub(super) version: u8,
    /// AS.
    pub(super) asn: u32,
    /// Hold time in seconds.
    pub(super) hold_time: u16,
    /// BGP identifier.
    pub(super) identifier: [u8; 4],
    /// Whether it can do 4-byte AS numbers.
    pub(super) four_byte_as: bool,
}

impl Default for Opening {
    fn default() -> Self {
        Self {
            version: 4,
            asn: TOR_AS,
            hold_time: 90,
            identifier: [10, 0, 0, 254],
            four_byte_as: true,
        }
    }
}

impl Opening {
    /// The OPEN message.
    pub(super) fn message(self) -> Vec<u8> {
        let mut capabilities = vec![1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 2, 0];
        if self.four_byte_as {
            capabilities.extend([65, 4]);
            capabilities.extend(self.asn.to_be_bytes());
        }
        let short = u16::try_from(self.asn).unwrap_or(23456);
        let mut body = vec![self.version];
        body.extend(short.to_be_bytes());
        body.extend(self.hold_time.to_be_bytes());
        body.extend(self.identifier);
        let length = u8::try_from(capabilities.len()).expect("few capabilities");
        body.extend([length + 2, 2, length]);
        body.extend(capabilities);
        message(OPEN, &body)
    }
}

/// A message with a right header.
pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).expect("a short message");
    let mut bytes = vec![0xff; 16];
    bytes.extend(length.to_be_bytes());
    bytes.push(kind);
    bytes.extend(body);
    bytes
}

/// The body of an UPDATE with these attributes and announced prefixes.
pub(super) fn update(attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let length = u16::try_from(attributes.len()).expect("few attributes");
    let mut body = vec![0, 0];
    body.extend(length.to_be_bytes());
    body.extend(attributes);
    body.extend(nlri);
    message(UPDATE, &body)
}

/// A speaker that waits, and a cable without a router.
pub(super) fn stage() -> (Link, Speaker) {
    let link = Link::new();
    let speaker = Speaker::start(&link, &PeerSettings::default().with("passive: true"));
    (link, speaker)
}

/// The connection of the scripted peer.
#[derive(Debug)]
pub(super) struct Script {
    stream: TcpStream,
}

impl Script {
    /// Connects from the router, as soon as the speaker listens.
    pub(super) fn connect(link: &Link) -> Self {
        Self::connect_from(link, TOR_V4)
    }

    /// Connects from an address in the router's namespace.
    pub(super) fn connect_from(link: &Link, source: &str) -> Self {
        let address = |text: &str, port| SocketAddr::new(text.parse().expect("an address"), port);
        let (source, speaker) = (address(source, 0), address(NODE_V4, 179));
        let dial = || -> std::io::Result<TcpStream> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&source.into())?;
            socket.connect(&speaker.into())?;
            Ok(socket.into())
        };
        let stream = wait_for(PATIENCE, "the speaker listens", || link.tor.run(dial).ok());
        let stream = stream.expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("settable");
        stream.set_nodelay(true).expect("settable");
        Self { stream }
    }

    /// Connects and opens a session.
    pub(super) fn establish(link: &Link, opening: Opening) -> Self {
        Self::connect(link).open(opening)
    }

    /// Opens a session.
    pub(super) fn open(mut self, opening: Opening) -> Self {
        self.send(&opening.message());
        self.expect(OPEN);
        self.send(&message(KEEPALIVE, &[]));
        self.expect(KEEPALIVE);
        self
    }

    /// Sends bytes.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the speaker reads");
    }

    /// The next message: its type and body; none when the speaker has closed.
    pub(super) fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 19];
        match self.stream.read_exact(&mut header) {
            Ok(()) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
                ) =>
            {
                return None;
            }
            Err(error) => panic!("the speaker says nothing: {error}"),
        }
        let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
        let mut body = vec![0; length - 19];
        self.stream.read_exact(&mut body).expect("a whole message");
        Some((header[18], body))
    }

    /// The body of the next message of a type; UPDATEs and KEEPALIVEs in between are skipped.
    pub(super) fn expect(&mut self, kind: u8) -> Vec<u8> {
        loop {
            match self.next() {
                Some((found, body)) if found == kind => return body,
                Some((UPDATE | KEEPALIVE, _)) => {}
                other => panic!("message type {kind} was expected, not {other:?}"),
            }
        }
    }

    /// Code and subcode of the NOTIFICATION that must come.
    pub(super) fn expect_notification(&mut self) -> (u8, u8) {
        let body = self.expect(NOTIFICATION);
        (body[0], body[1])
    }

    /// Whether the speaker has closed without a word within a while.
    pub(super) fn closed_silently(&mut self) -> bool {
        self.stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("settable");
        self.next().is_none()
    }
}
