//! The file as it is written: keys, lines, defaults.
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::error::{ConfigError, Problem};
use super::{BGP_PORT, Config, Family, Import, Password, PeerConfig};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawConfig {
    #[serde(rename = "localASN")]
    local_asn: Spanned<u32>,
    #[serde(rename = "routerID")]
    router_id: Option<Spanned<Ipv4Addr>>,
    listen: Option<RawListen>,
    #[serde(default)]
    peers: Vec<Spanned<RawPeer>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawListen {
    address: Option<IpAddr>,
    port: Option<u16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawPeer {
    name: String,
    peer_address: IpAddr,
    peer_port: Option<u16>,
    #[serde(rename = "peerASN", default)]
    peer_asn: u32,
    local_address: Option<IpAddr>,
    hold_time_seconds: Option<u64>,
    connect_retry_time_seconds: Option<u64>,
    password: Option<String>,
    password_file: Option<PathBuf>,
    #[serde(default)]
    passive: bool,
    ebgp_multihop: Option<u64>,
    families: Option<Vec<Family>>,
    #[serde(default)]
    next_hop: RawNextHop,
    graceful_restart: Option<RawGracefulRestart>,
    max_prefixes: Option<u32>,
    #[serde(default)]
    import: Import,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawNextHop {
    ipv4: Option<Ipv4Addr>,
    ipv6: Option<Ipv6Addr>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawGracefulRestart {
    enabled: bool,
    restart_time_seconds: Option<u64>,
}

/// RFC 4271 suggests 90 s; Cilium's default too.
const HOLD_TIME: u64 = 90;
/// Cilium's 120 s would leave a node without its routes for two minutes after a router's reboot.
const CONNECT_RETRY: u64 = 5;
/// Cilium's default.
const RESTART_TIME: u64 = 120;
/// The restart time is a field of 12 bits (RFC 4724 §3).
const RESTART_TIME_MAX: u64 = 4095;

impl Config {
    /// Reads a configuration from the text of a file.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let raw: RawConfig = serde_saphyr::from_str(text).map_err(|error| syntax(&error, path))?;
        let at = |line: u64, problem: Problem| ConfigError::Value {
            path: path.to_owned(),
            line,
            problem,
        };
        if raw.local_asn.value == 0 {
            return Err(at(raw.local_asn.defined.line(), Problem::LocalAsnZero));
        }
        if let Some(id) = &raw.router_id
            && id.value.is_unspecified()
        {
            return Err(at(id.defined.line(), Problem::RouterIdZero));
        }
        let base = path.parent().unwrap_or(Path::new("."));
        let mut peers: Vec<PeerConfig> = Vec::with_capacity(raw.peers.len());
        let mut names = BTreeSet::new();
        let mut addresses = BTreeMap::new();
        for peer in raw.peers {
            let line = peer.defined.line();
            let peer = peer.value.validate(base).map_err(|problem| at(line, problem))?;
            if !names.insert(peer.name.clone()) {
                return Err(at(line, Problem::PeerNameTwice(peer.name)));
            }
            let address = peer.address.ip();
            if let Some(other) = addresses.insert(address, peer.name.clone()) {
                return Err(at(
                    line,
                    Problem::PeerAddressTwice {
                        name: peer.name,
                        address,
                        other,
                    },
                ));
            }
            peers.push(peer);
        }
        Ok(Self {
            local_asn: raw.local_asn.value,
            router_id: raw.router_id.map(|id| id.value),
            listen: raw.listen.map(RawListen::sockets).unwrap_or_default(),
            peers,
        })
    }
}

impl RawListen {
    /// One socket for each family, so that TCP-MD5 keys and port conflicts are those of one family.
    fn sockets(self) -> Vec<SocketAddr> {
        let port = self.port.unwrap_or(BGP_PORT);
        match self.address {
            _ if port == 0 => Vec::new(),
            None | Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => vec![
                (Ipv4Addr::UNSPECIFIED, port).into(),
                (Ipv6Addr::UNSPECIFIED, port).into(),
            ],
            Some(address) => vec![(address, port).into()],
        }
    }
}

impl RawPeer {
    fn validate(self, base: &Path) -> Result<PeerConfig, Problem> {
        if self.name.is_empty() {
            return Err(Problem::PeerNameEmpty);
        }
        let address = self.peer_address;
        if address.is_unspecified() || address.is_multicast() {
            return Err(Problem::PeerAddress {
                peer: self.name,
                address,
            });
        }
        if matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local()) {
            return Err(Problem::LinkLocal {
                peer: self.name,
                address,
            });
        }
        if self
            .local_address
            .is_some_and(|local| local.is_ipv4() != address.is_ipv4())
        {
            return Err(Problem::MixedAddresses(self.name));
        }
        let hold = self.hold_time_seconds.unwrap_or(HOLD_TIME);
        if !(hold == 0 || (3..=65535).contains(&hold)) {
            return Err(Problem::HoldTime {
                peer: self.name,
                value: hold,
            });
        }
        let retry = self.range(
            "connectRetryTimeSeconds",
            self.connect_retry_time_seconds,
            CONNECT_RETRY,
            65535,
        )?;
        let ttl = self.range("ebgpMultihop", self.ebgp_multihop, 1, 255)?;
        let families = match &self.families {
            None => BTreeSet::from([Family::Ipv4Unicast, Family::Ipv6Unicast]),
            Some(list) => list.iter().copied().collect(),
        };
        if families.is_empty() {
            return Err(Problem::NoFamilies(self.name));
        }
        Ok(PeerConfig {
            address: SocketAddr::new(address, self.peer_port.unwrap_or(BGP_PORT)),
            local_address: self.local_address,
            asn: self.peer_asn,
            hold_time: Duration::from_secs(hold),
            connect_retry: Duration::from_secs(retry),
            password: self.secret(base)?,
            password_file: self.password_file.as_ref().map(|file| base.join(file)),
            passive: self.passive,
            ttl: u8::try_from(ttl).unwrap_or(u8::MAX),
            families,
            next_hop_v4: self.next_hop.ipv4,
            next_hop_v6: self.next_hop.ipv6,
            graceful_restart: self.restart_time()?,
            max_prefixes: self.max_prefixes,
            import: self.import,
            name: self.name,
        })
    }

    fn range(&self, key: &'static str, value: Option<u64>, default: u64, max: u64) -> Result<u64, Problem> {
        let value = value.unwrap_or(default);
        if (1..=max).contains(&value) {
            return Ok(value);
        }
        Err(Problem::Range {
            peer: self.name.clone(),
            key,
            value,
            min: 1,
            max,
        })
    }

    fn restart_time(&self) -> Result<Option<Duration>, Problem> {
        let Some(restart) = self.graceful_restart.as_ref().filter(|restart| restart.enabled) else {
            return Ok(None);
        };
        let key = "restartTimeSeconds";
        let seconds = self.range(key, restart.restart_time_seconds, RESTART_TIME, RESTART_TIME_MAX)?;
        Ok(Some(Duration::from_secs(seconds)))
    }

    fn secret(&self, base: &Path) -> Result<Option<Password>, Problem> {
        let bytes = match (&self.password, &self.password_file) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => return Err(Problem::PasswordTwice(self.name.clone())),
            (Some(text), None) => text.clone().into_bytes(),
            (None, Some(file)) => {
                let file = base.join(file);
                std::fs::read(&file)
                    .map_err(|error| Problem::PasswordFile {
                        peer: self.name.clone(),
                        file,
                        reason: error.to_string(),
                    })?
                    .trim_ascii_end()
                    .to_vec()
            }
        };
        let wrong = || Problem::PasswordLength {
            peer: self.name.clone(),
            length: bytes.len(),
            max: Password::MAX,
        };
        Password::new(&bytes).map(Some).ok_or_else(wrong)
    }
}

fn syntax(error: &serde_saphyr::Error, path: &Path) -> ConfigError {
    let error = error.without_snippet();
    let line = error.location().map_or(0, |location| location.line());
    let message = match error {
        serde_saphyr::Error::SerdeUnknownField { field, expected, .. } => unknown("key", field, expected),
        serde_saphyr::Error::SerdeUnknownVariant {
            variant, expected, ..
        } => unknown("value", variant, expected),
        serde_saphyr::Error::SerdeMissingField { field, .. } => format!("{field} is missing: add it"),
        other => {
            let text = other.render_with_formatter(&serde_saphyr::UserMessageFormatter);
            text.lines().next().unwrap_or_default().to_owned()
        }
    };
    ConfigError::Syntax {
        path: path.to_owned(),
        line,
        message,
    }
}

/// `unknown key "holdTimeSecond", did you mean "holdTimeSeconds"?`
fn unknown(what: &str, found: &str, expected: &[&'static str]) -> String {
    let nearest = expected
        .iter()
        .map(|known| (distance(found, known), *known))
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 3);
    match nearest {
        Some((_, known)) => format!("unknown {what} {found:?}, did you mean {known:?}?"),
        None => format!("unknown {what} {found:?}, known are: {}", expected.join(", ")),
    }
}

/// Edits (insert, delete, replace) between two words, capitals and dashes aside.
fn distance(a: &str, b: &str) -> usize {
    let plain = |word: &str| -> Vec<char> {
        word.chars()
            .filter(|c| c.is_alphanumeric())
            .map(|c| c.to_ascii_lowercase())
            .collect()
    };
    let (a, b) = (plain(a), plain(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
