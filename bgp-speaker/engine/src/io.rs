//! What crosses the edge of the engine: inputs from sockets, outputs to them. Data only.
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use isthmus_bgp_packet::{Family, Notification};

use crate::config::PeerId;

/// Names a TCP connection for as long as it, or the attempt to make it, lives. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "conn-{}", self.0)
    }
}

/// What sockets tell the engine. A connection that the engine closed, or that failed, may still be named by inputs that
/// were on their way: they are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input<'a> {
    /// The connection that [`Output::Connect`] asked for is up.
    Connected {
        /// Which one.
        conn: ConnId,
        /// Our end.
        local: SocketAddr,
    },
    /// The connection that [`Output::Connect`] asked for did not come up.
    ConnectFailed {
        /// Which one.
        conn: ConnId,
        /// Why, for people.
        error: &'a str,
    },
    /// Bytes arrived; any number, cut anywhere.
    Received {
        /// On which connection.
        conn: ConnId,
        /// What arrived.
        bytes: &'a [u8],
    },
    /// So many more bytes of [`Output::Send`] are now with the kernel. The engine sends no further routes to a peer with too
    /// much unwritten, so a slow peer costs no memory; and a peer that stops reading altogether is dropped (RFC 9687).
    Written {
        /// On which connection.
        conn: ConnId,
        /// How many, since the last such report.
        bytes: usize,
    },
    /// The other side closed, or the connection failed.
    Closed {
        /// Which one.
        conn: ConnId,
        /// Why, for people: `"closed by peer"`, `"connection reset"` …
        error: &'a str,
    },
}

/// What the engine wants from the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Connect, then answer with [`Input::Connected`] or [`Input::ConnectFailed`]. There is at most one attempt at a time for
    /// each peer. The engine gives up with [`Output::Close`], so the shell needs no time-out of its own.
    Connect {
        /// For which peer; the shell finds socket options (source address, MD5, TTL) under it.
        peer: PeerId,
        /// The name of the new connection.
        conn: ConnId,
        /// Where to.
        remote: SocketAddr,
    },
    /// Write these whole messages, in order.
    Send {
        /// On which connection.
        conn: ConnId,
        /// The bytes.
        bytes: Bytes,
    },
    /// Close, after what was to be sent before has been written (give it a second at most; a NOTIFICATION may be in it).
    /// Also ends an attempt to connect. The engine has forgotten the connection.
    Close {
        /// Which one.
        conn: ConnId,
    },
    /// A session is established. For logs and metrics; the engine knows already.
    SessionUp {
        /// With whom.
        peer: PeerId,
        /// Over which connection.
        conn: ConnId,
        /// Its AS number.
        asn: u32,
        /// Hold time in seconds, as negotiated; 0 is none.
        hold_time: u16,
        /// The families that both sides offered.
        families: Vec<Family>,
    },
    /// A session that was established is over, or one that was being opened failed.
    SessionDown {
        /// With whom.
        peer: PeerId,
        /// Why.
        reason: DownReason,
        /// Whether the session had been established.
        was_established: bool,
        /// Whether routes of the peer are kept as stale (graceful restart).
        stale_kept: bool,
    },
    /// Something that an operator may want to read, but that changed no session.
    Notice {
        /// About which peer.
        peer: PeerId,
        /// What happened.
        notice: Notice,
    },
}

/// Why a session ended or could not be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DownReason {
    /// The connection closed or failed without a NOTIFICATION.
    Connection(String),
    /// The peer sent this NOTIFICATION.
    Received(Notification),
    /// We sent this NOTIFICATION.
    Sent(Notification),
    /// We closed without a NOTIFICATION, so that the peer keeps our routes (we restart).
    Restart,
    /// The peer opened a new connection over an old one: it restarted (RFC 4724 §4.2).
    PeerRestarted,
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DownReason::Connection(error) => f.write_str(error),
            DownReason::Received(notification) => write!(f, "received {notification}"),
            DownReason::Sent(notification) => write!(f, "sent {notification}"),
            DownReason::Restart => f.write_str("we restart"),
            DownReason::PeerRestarted => f.write_str("the peer restarted"),
        }
    }
}

/// Things to log that end no session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// An UPDATE was malformed; its routes were withdrawn (RFC 7606 treat-as-withdraw).
    TreatedAsWithdraw {
        /// What is wrong with it.
        fault: String,
        /// How many prefixes it named.
        prefixes: usize,
    },
    /// An UPDATE had an attribute that was dropped (RFC 7606 attribute-discard).
    AttributeDiscarded {
        /// What is wrong with it.
        fault: String,
    },
    /// The End-of-RIB of a family arrived: the peer has sent its whole table.
    EndOfRib(Family),
    /// Routes of a peer that had been kept over its absence were removed.
    StaleRemoved {
        /// Of which family.
        family: Family,
        /// How many.
        routes: usize,
    },
    /// Routes could not be sent for want of a next hop of their family: configure one.
    NoNextHop(Family),
    /// A route whose attributes do not fit into one message was not sent.
    TooBig(ipnet::IpNet),
    /// We have finished restarting (reported for each peer): routes are chosen and sent from here on.
    DeferralEnded,
}

/// Why [`crate::Speaker::accept`] refused a connection: close it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No peer has this address.
    #[error("no peer is configured with the address {0}")]
    UnknownPeer(IpAddr),
    /// The peer is administratively down, or is down after too many prefixes.
    #[error("the peer is administratively down")]
    AdminDown,
    /// The session failed several times in a row and is being damped.
    #[error("the session to the peer flaps and is held down for a while")]
    Damped,
    /// There are two connections with this peer already.
    #[error("two connections with the peer are being opened already")]
    Busy,
}
