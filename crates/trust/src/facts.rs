//! What a certificate says about itself, for checks and for status.

use std::net::IpAddr;
use std::path::Path;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use crate::error::{CertError, CertFault};

/// The facts of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertFacts {
    /// Common name of the subject; empty if it has none. For a client this is its user name in the store.
    pub common_name: String,
    /// DNS names and IP addresses for which a server certificate stands, in the order of the certificate.
    pub names: Vec<String>,
    /// Common name of the issuer, or its whole distinguished name if it has no common name.
    pub issuer: String,
    /// First moment of validity.
    pub not_before: Timestamp,
    /// Last moment of validity.
    pub not_after: Timestamp,
    /// SHA-256 of the DER form, lower-case hexadecimal.
    pub fingerprint: String,
    /// Whether it may sign other certificates.
    pub is_authority: bool,
}

impl CertFacts {
    /// Reads the facts of a DER certificate. `file` is named in errors only.
    pub fn of(der: &CertificateDer<'_>, file: &Path) -> Result<Self, CertError> {
        let cert = parse(der, file)?;
        let bad = |what: &str| malformed(file, what);
        let time = |t: i64| Timestamp::from_second(t).map_err(|e| malformed(file, &e.to_string()));
        let names = match cert.subject_alternative_name().map_err(|e| bad(&e.to_string()))? {
            Some(extension) => extension
                .value
                .general_names
                .iter()
                .filter_map(name_text)
                .collect(),
            None => Vec::new(),
        };
        Ok(Self {
            common_name: common_name(cert.subject()).unwrap_or_default(),
            names,
            issuer: common_name(cert.issuer()).unwrap_or_else(|| cert.issuer().to_string()),
            not_before: time(cert.validity().not_before.timestamp())?,
            not_after: time(cert.validity().not_after.timestamp())?,
            fingerprint: fingerprint(der),
            is_authority: cert.is_ca(),
        })
    }

    /// Refuses a certificate that is not valid at `now`.
    pub fn check_time(&self, file: &Path, now: Timestamp) -> Result<(), CertError> {
        let name = self.title();
        if now > self.not_after {
            let cause = format!("certificate {name} expired at {} (now {now:.0})", self.not_after);
            let cure = "issue it anew (`meshctl cert renew`, or the next `meshctl connect` does it)";
            return Err(CertError::new(file, CertFault::Expired, cause, cure));
        }
        if now < self.not_before {
            let cause = format!(
                "certificate {name} is valid only from {} (now {now:.0})",
                self.not_before
            );
            let cure = "set this machine's clock (is NTP running?) or issue the certificate anew";
            return Err(CertError::new(file, CertFault::NotYetValid, cause, cure));
        }
        Ok(())
    }

    /// How the certificate is called in messages: its common name in quotes.
    pub(crate) fn title(&self) -> String {
        format!("{:?}", self.common_name)
    }
}

/// SHA-256 of the DER form, lower-case hexadecimal.
pub(crate) fn fingerprint(der: &CertificateDer<'_>) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn parse<'a>(der: &'a CertificateDer<'_>, file: &Path) -> Result<X509Certificate<'a>, CertError> {
    let (_, cert) = X509Certificate::from_der(der).map_err(|e| malformed(file, &e.to_string()))?;
    Ok(cert)
}

fn malformed(file: &Path, what: &str) -> CertError {
    let cause = format!("holds a certificate that cannot be decoded ({what})");
    CertError::new(
        file,
        CertFault::Malformed,
        cause,
        "replace it by a PEM file of X.509 certificates",
    )
}

fn common_name(name: &X509Name<'_>) -> Option<String> {
    let cn = name.iter_common_name().next()?;
    cn.as_str().ok().map(str::to_owned)
}

fn name_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(dns) => Some((*dns).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let ip = match bytes.len() {
                4 => IpAddr::from(<[u8; 4]>::try_from(*bytes).ok()?),
                16 => IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?),
                _ => return None,
            };
            Some(ip.to_string())
        }
        _ => None,
    }
}
