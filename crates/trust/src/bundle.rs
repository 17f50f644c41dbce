//! Bundles: the authorities that somebody trusts, several in one file.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::X509Certificate;

use crate::error::{CertError, CertFault};
use crate::facts::{CertFacts, fingerprint, parse};
use crate::files;

/// Longest chain of intermediate authorities that is followed.
const CHAIN_MAX: usize = 8;

/// One or more trusted authorities, in the order of the file.
#[derive(Clone, Debug)]
pub struct CaBundle {
    authorities: Vec<(CertificateDer<'static>, CertFacts)>,
    file: PathBuf,
}

impl CaBundle {
    /// Reads a PEM file with at least one certificate.
    pub fn load(file: &Path) -> Result<Self, CertError> {
        Self::from_pem(&files::read(file)?, file)
    }

    /// Reads PEM text; `file` is named in errors only.
    pub fn from_pem(pem: &[u8], file: &Path) -> Result<Self, CertError> {
        let mut authorities = Vec::new();
        for der in files::certificates(pem, file)? {
            let facts = CertFacts::of(&der, file)?;
            authorities.push((der, facts));
        }
        Ok(Self {
            authorities,
            file: file.to_owned(),
        })
    }

    pub(crate) fn of_one(der: CertificateDer<'static>, facts: CertFacts, file: &Path) -> Self {
        Self {
            authorities: vec![(der, facts)],
            file: file.to_owned(),
        }
    }

    /// The facts of every authority, in the order of the file.
    pub fn facts(&self) -> impl Iterator<Item = &CertFacts> {
        self.authorities.iter().map(|(_, facts)| facts)
    }

    /// Whether an authority with this SHA-256 fingerprint is in the bundle.
    pub fn contains(&self, fingerprint: &str) -> bool {
        self.facts().any(|facts| facts.fingerprint == fingerprint)
    }

    /// Adds the authorities of `pem` to the bundle in `file` (made if it does not exist) and answers whether that
    /// changed the file. Those that are in it already are left alone, so that adding twice changes nothing.
    pub fn add(file: &Path, pem: &[u8]) -> Result<bool, CertError> {
        let mut text = if file.exists() {
            files::read(file)?
        } else {
            Vec::new()
        };
        let mut known: Vec<String> = match text.is_empty() {
            true => Vec::new(),
            false => Self::from_pem(&text, file)?
                .facts()
                .map(|facts| facts.fingerprint.clone())
                .collect(),
        };
        let mut changed = false;
        for der in files::certificates(pem, Path::new("authority to add"))? {
            let print = fingerprint(&der);
            if known.contains(&print) {
                continue;
            }
            if text.last().is_some_and(|last| *last != b'\n') {
                text.push(b'\n');
            }
            text.extend_from_slice(pem_block(&der).as_bytes());
            known.push(print);
            changed = true;
        }
        if changed {
            files::write_certificate(file, &String::from_utf8_lossy(&text))?;
        }
        Ok(changed)
    }

    /// Takes the authority with this fingerprint out of the bundle in `file`; answers whether it was there. The last
    /// authority stays: an empty bundle would lock everybody out.
    pub fn remove(file: &Path, fingerprint: &str) -> Result<bool, CertError> {
        let bundle = Self::load(file)?;
        if !bundle.contains(fingerprint) || bundle.authorities.len() == 1 {
            return Ok(false);
        }
        let left = bundle
            .authorities
            .iter()
            .filter(|(_, facts)| facts.fingerprint != fingerprint);
        let text: String = left.map(|(der, _)| pem_block(der)).collect();
        files::write_certificate(file, &text).map(|()| true)
    }

    /// The trust anchors for rustls.
    pub(crate) fn roots(&self) -> Result<RootCertStore, CertError> {
        let mut roots = RootCertStore::empty();
        for (der, facts) in &self.authorities {
            roots.add(der.clone()).map_err(|error| {
                let cause = format!("authority {} is refused: {error}", facts.title());
                CertError::new(
                    &self.file,
                    CertFault::Malformed,
                    cause,
                    "take it out or issue it anew",
                )
            })?;
        }
        Ok(roots)
    }

    /// Checks that an authority of this bundle stands at the end of `chain` (leaf first) and is valid at `now`.
    pub(crate) fn check_chain(
        &self,
        chain: &[CertificateDer<'_>],
        file: &Path,
        now: Timestamp,
    ) -> Result<(), CertError> {
        let Some((leaf, rest)) = chain.split_first() else {
            return Ok(());
        };
        let intermediates = rest
            .iter()
            .map(|der| parse(der, file))
            .collect::<Result<Vec<_>, _>>()?;
        let authorities = self
            .authorities
            .iter()
            .map(|(der, _)| parse(der, &self.file))
            .collect::<Result<Vec<_>, _>>()?;
        let leaf = parse(leaf, file)?;
        let mut current = &leaf;
        for _ in 0..CHAIN_MAX {
            if let Some(place) = authorities.iter().position(|ca| signed(current, ca)) {
                return self.authorities[place].1.check_time(&self.file, now);
            }
            match intermediates.iter().find(|ca| signed(current, ca)) {
                Some(next) => current = next,
                None => break,
            }
        }
        Err(self.wrong_issuer(&CertFacts::of(&chain[0], file)?, file))
    }

    fn wrong_issuer(&self, leaf: &CertFacts, file: &Path) -> CertError {
        let known: Vec<String> = self.facts().map(CertFacts::title).collect();
        let bundle = self.file.display();
        let cause = format!(
            "certificate {} was issued by {:?}, which is none of the authorities in {bundle} ({})",
            leaf.title(),
            leaf.issuer,
            known.join(", ")
        );
        let cure = format!(
            "issue it by one of these, or add its authority to {bundle} (`meshctl connect` does that)"
        );
        CertError::new(file, CertFault::WrongIssuer, cause, cure)
    }
}

fn signed(leaf: &X509Certificate<'_>, authority: &X509Certificate<'_>) -> bool {
    authority.is_ca()
        && leaf.issuer() == authority.subject()
        && leaf.verify_signature(Some(authority.public_key())).is_ok()
}

/// One certificate in PEM (RFC 7468: 64 characters a line).
fn pem_block(der: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for start in (0..text.len()).step_by(64) {
        pem.push_str(&text[start..text.len().min(start + 64)]);
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
