//! What can be wrong with the configuration file, each with its line and its cure.
use std::path::PathBuf;

/// The configuration is not usable; the last good one stays in force.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: check that it exists and is readable")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not the YAML that is wanted.
    #[error("{path}:{line}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1; 0 if unknown.
        line: u64,
        /// Cause and cure.
        message: String,
    },
    /// A value is not usable.
    #[error("{path}:{line}: {problem}")]
    Value {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Cause and cure.
        problem: Problem,
    },
}

/// A value that is well-formed but cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    /// Neither a number nor 0.
    #[error("localASN is 0: write the AS number of this speaker, 1 to 4294967295")]
    LocalAsnZero,
    /// RFC 6286: an identifier is never 0.
    #[error("routerID is 0.0.0.0: write an IPv4 address of this node")]
    RouterIdZero,
    /// Names appear in listings.
    #[error("a peer has an empty name: give it one, listings show it")]
    PeerNameEmpty,
    /// Twice the same name.
    #[error("peer {0:?} is there twice: give every peer its own name")]
    PeerNameTwice(String),
    /// Twice the same address.
    #[error("peer {name:?} has the address {address} of peer {other:?}: one session for each address")]
    PeerAddressTwice {
        /// The second.
        name: String,
        /// Its address.
        address: std::net::IpAddr,
        /// The first.
        other: String,
    },
    /// RFC 4271 §4.2.
    #[error("peer {peer:?}: holdTimeSeconds is {value}: it must be 0 (off) or 3 to 65535 (RFC 4271 §4.2)")]
    HoldTime {
        /// The peer.
        peer: String,
        /// What it says.
        value: u64,
    },
    /// A value outside its range.
    #[error("peer {peer:?}: {key} is {value}: it must be {min} to {max}")]
    Range {
        /// The peer.
        peer: String,
        /// The key.
        key: &'static str,
        /// What it says.
        value: u64,
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// Nothing to negotiate.
    #[error("peer {0:?}: families is empty: leave it out for IPv4 and IPv6 unicast")]
    NoFamilies(String),
    /// Two sources of one secret.
    #[error("peer {0:?} has password and passwordFile: keep one")]
    PasswordTwice(String),
    /// The kernel takes 1 to 80 bytes.
    #[error("peer {peer:?}: the password has {length} bytes: TCP-MD5 takes 1 to {max}")]
    PasswordLength {
        /// The peer.
        peer: String,
        /// What it has.
        length: usize,
        /// The kernel's limit.
        max: usize,
    },
    /// A secret that is not there must not become an empty secret.
    #[error("peer {peer:?}: cannot read passwordFile {file}: {reason}")]
    PasswordFile {
        /// The peer.
        peer: String,
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// A link-local address means nothing without its interface.
    #[error(
        "peer {peer:?}: peerAddress {address} is link-local, which is not supported: use the global or unique-local address that the router has on the link"
    )]
    LinkLocal {
        /// The peer.
        peer: String,
        /// Its address.
        address: std::net::IpAddr,
    },
    /// The source address cannot reach the peer.
    #[error("peer {0:?}: localAddress and peerAddress are of different families: use two of one family")]
    MixedAddresses(String),
    /// Not an address of a host.
    #[error(
        "peer {peer:?}: peerAddress {address} is not the address of a host: write the address that the router has on the shared link"
    )]
    PeerAddress {
        /// The peer.
        peer: String,
        /// Its address.
        address: std::net::IpAddr,
    },
}
