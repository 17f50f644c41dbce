//! What is asked of an authority: names, use and time of a leaf certificate.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType,
};

use crate::error::{CertError, CertFault};

/// Common name of every apiserver's server certificate (clustermesh.md §6.3).
pub const SERVER_COMMON_NAME: &str = "clustermesh-apiserver.cilium.io";
/// Domain of the control-plane names `<cluster>.mesh.cilium.io`.
pub const MESH_DOMAIN: &str = "mesh.cilium.io";

/// Longest common name that X.509 allows (RFC 5280, ub-common-name).
const COMMON_NAME_MAX: usize = 64;

/// From when until when a certificate is valid. Days are the resolution: the beginning is rounded down, the end up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub from: Timestamp,
    /// Last moment.
    pub until: Timestamp,
}

impl Validity {
    /// `days` days from `now`, beginning a day early so that a peer whose clock is behind accepts it.
    pub fn days(now: Timestamp, days: u16) -> Self {
        let day = SignedDuration::from_hours(24);
        let from = now.checked_sub(day).unwrap_or(Timestamp::MIN);
        let until = now.checked_add(day * i32::from(days)).unwrap_or(Timestamp::MAX);
        Self { from, until }
    }

    pub(crate) fn apply(self, params: &mut CertificateParams) {
        let midnight = |date: jiff::civil::Date| {
            rcgen::date_time_ymd(
                i32::from(date.year()),
                date.month().unsigned_abs(),
                date.day().unsigned_abs(),
            )
        };
        let until = self.until.to_zoned(TimeZone::UTC).date();
        params.not_before = midnight(self.from.to_zoned(TimeZone::UTC).date());
        params.not_after = midnight(until.tomorrow().unwrap_or(until));
    }
}

/// Who a client is: the common names of clustermesh.md §2.6.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientName {
    /// `remote`: any peer (auth mode legacy or migration).
    Remote,
    /// `remote-<peer>`: one peer (auth mode cluster).
    RemotePeer(String),
    /// `local-<cluster>`: agents of the cluster itself.
    Local(String),
    /// `admin-<cluster>`: reads and writes everything.
    Admin(String),
    /// `root`: as admin.
    Root,
}

impl ClientName {
    /// The common name itself.
    pub fn common_name(&self) -> String {
        match self {
            Self::Remote => "remote".to_owned(),
            Self::RemotePeer(peer) => format!("remote-{peer}"),
            Self::Local(cluster) => format!("local-{cluster}"),
            Self::Admin(cluster) => format!("admin-{cluster}"),
            Self::Root => "root".to_owned(),
        }
    }

    /// Reads a common name; `None` if it is none of Cilium's.
    pub fn parse(common_name: &str) -> Option<Self> {
        let named = |prefix: &str| {
            let name = common_name.strip_prefix(prefix)?;
            (!name.is_empty()).then(|| name.to_owned())
        };
        match common_name {
            "remote" => Some(Self::Remote),
            "root" => Some(Self::Root),
            _ => named("remote-")
                .map(Self::RemotePeer)
                .or_else(|| named("local-").map(Self::Local))
                .or_else(|| named("admin-").map(Self::Admin)),
        }
    }
}

/// Names under which an apiserver is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerNames {
    /// Namespace of the Service `clustermesh-apiserver`.
    pub namespace: String,
    /// Further DNS names.
    pub dns: Vec<String>,
    /// Further IP addresses.
    pub ips: Vec<IpAddr>,
}

impl Default for ServerNames {
    fn default() -> Self {
        Self {
            namespace: "kube-system".to_owned(),
            dns: Vec::new(),
            ips: Vec::new(),
        }
    }
}

impl ServerNames {
    /// All names of the certificate, DNS first, each once, in the order of clustermesh.md §6.3.
    fn all(&self) -> (Vec<String>, Vec<IpAddr>) {
        let mut dns = vec![
            format!("*.{MESH_DOMAIN}"),
            format!("clustermesh-apiserver.{}.svc", self.namespace),
        ];
        let mut ips = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        for name in &self.dns {
            if !dns.contains(name) {
                dns.push(name.clone());
            }
        }
        for ip in &self.ips {
            if !ips.contains(ip) {
                ips.push(*ip);
            }
        }
        (dns, ips)
    }
}

/// A leaf certificate to be issued by [`crate::Authority::issue`].
#[derive(Clone, Debug)]
pub struct LeafRequest {
    common_name: String,
    dns: Vec<String>,
    ips: Vec<IpAddr>,
    server: bool,
    validity: Validity,
}

impl LeafRequest {
    /// The server certificate of an apiserver.
    pub fn server(names: &ServerNames, validity: Validity) -> Result<Self, CertError> {
        let (dns, ips) = names.all();
        let request = Self {
            common_name: SERVER_COMMON_NAME.to_owned(),
            dns,
            ips,
            server: true,
            validity,
        };
        request.params().map(|_| request)
    }

    /// The certificate of a client of an apiserver.
    pub fn client(name: &ClientName, validity: Validity) -> Self {
        Self {
            common_name: name.common_name(),
            dns: Vec::new(),
            ips: Vec::new(),
            server: false,
            validity,
        }
    }

    /// The common name that will stand in the certificate.
    pub fn common_name(&self) -> &str {
        &self.common_name
    }

    /// Names and addresses as status prints them, to compare with those of an existing certificate.
    pub(crate) fn name_texts(&self) -> Vec<String> {
        self.dns
            .iter()
            .cloned()
            .chain(self.ips.iter().map(IpAddr::to_string))
            .collect()
    }

    pub(crate) fn params(&self) -> Result<CertificateParams, CertError> {
        if self.common_name.is_empty() || self.common_name.len() > COMMON_NAME_MAX {
            return Err(bad_name(&self.common_name, "a common name has 1 to 64 bytes"));
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, self.common_name.as_str());
        for name in &self.dns {
            let name = name
                .as_str()
                .try_into()
                .map_err(|_| bad_name(name, "a DNS name is plain ASCII"))?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params
            .subject_alt_names
            .extend(self.ips.iter().map(|ip| SanType::IpAddress(*ip)));
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if self.server {
            params
                .extended_key_usages
                .insert(0, ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        self.validity.apply(&mut params);
        Ok(params)
    }
}

fn bad_name(name: &str, cause: &str) -> CertError {
    let cause = format!("{name:?} cannot stand in a certificate: {cause}");
    CertError::new(
        Path::new("certificate request"),
        CertFault::BadName,
        cause,
        "choose another name",
    )
}
