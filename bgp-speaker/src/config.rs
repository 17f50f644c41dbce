//! The speaker's own configuration: one YAML file, every key named as in Cilium's BGP resources where Cilium has one.
//!
//! ```yaml
//! localASN: 65001
//! routerID: 10.0.0.1            # default: the InternalIP of the node
//! listen: {address: "::", port: 179}   # without it, or with port 0, the speaker only dials
//! peers:
//! - name: tor
//!   peerAddress: 10.0.0.254
//!   peerASN: 65000              # 0 takes any AS
//!   families: [ipv4-unicast, ipv6-unicast]
//!   gracefulRestart: {enabled: true, restartTimeSeconds: 120}
//! ```
//!
//! An unknown key is an error: a misspelt `holdTimeSeconds` must not silently mean 90 seconds.
mod error;
mod file;
mod raw;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use error::ConfigError;
pub(crate) use file::ConfigFile;

/// The BGP port (RFC 4271 §4).
pub(crate) const BGP_PORT: u16 = 179;

/// A validated configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// The AS of this speaker, 1 to 4294967295.
    pub(crate) local_asn: u32,
    /// The BGP Identifier; none means: the node's first IPv4 InternalIP.
    pub(crate) router_id: Option<Ipv4Addr>,
    /// Where to listen; empty means: only dial.
    pub(crate) listen: Vec<SocketAddr>,
    /// Peers, in the order of the file; names and addresses are unique.
    pub(crate) peers: Vec<PeerConfig>,
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerConfig {
    /// Its name in listings and logs.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The source address of our connections, if fixed.
    pub(crate) local_address: Option<IpAddr>,
    /// Its AS; 0 takes any (Cilium's peerASN 0).
    pub(crate) asn: u32,
    /// Proposed hold time: 0 (no keepalives) or 3 s and more.
    pub(crate) hold_time: Duration,
    /// Pause between attempts to connect.
    pub(crate) connect_retry: Duration,
    /// TCP-MD5 (RFC 2385).
    pub(crate) password: Option<Password>,
    /// Where the key was read from: a new key in it is taken as soon as it is there.
    pub(crate) password_file: Option<PathBuf>,
    /// Never dial, wait for the peer.
    pub(crate) passive: bool,
    /// TTL of our packets on an eBGP session.
    pub(crate) ttl: u8,
    /// Families to negotiate; never empty.
    pub(crate) families: BTreeSet<Family>,
    /// Next hop of the IPv4 routes that we send; none means: our address of the session.
    pub(crate) next_hop_v4: Option<Ipv4Addr>,
    /// Next hop of the IPv6 routes that we send; none means: our IPv6 address of the session or of its interface.
    pub(crate) next_hop_v6: Option<Ipv6Addr>,
    /// Restart time that we propose (RFC 4724); none means that graceful restart is off.
    pub(crate) graceful_restart: Option<Duration>,
    /// Tear the session down above that many prefixes in one family.
    pub(crate) max_prefixes: Option<u32>,
    /// What to do with what the peer sends.
    pub(crate) import: Import,
}

/// An address family that this speaker negotiates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
pub(crate) enum Family {
    /// AFI 1, SAFI 1.
    #[serde(rename = "ipv4-unicast")]
    Ipv4Unicast,
    /// AFI 2, SAFI 1.
    #[serde(rename = "ipv6-unicast")]
    Ipv6Unicast,
}

/// What happens to the routes of a peer. They are never advertised to another peer and never installed in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Import {
    /// Kept, so that listings show them.
    #[default]
    Accept,
    /// Counted and dropped (what Cilium does).
    Reject,
}

/// A TCP-MD5 key. Its Debug form never shows it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(Vec<u8>);

impl Password {
    /// The longest key that Linux takes.
    pub(crate) const MAX: usize = libc::TCP_MD5SIG_MAXKEYLEN;

    /// A key of 1 to [`Self::MAX`] bytes.
    pub(crate) fn new(bytes: &[u8]) -> Option<Self> {
        (1..=Self::MAX)
            .contains(&bytes.len())
            .then(|| Self(bytes.to_vec()))
    }

    /// The key, for the kernel.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(hidden)")
    }
}

#[cfg(test)]
mod tests;
