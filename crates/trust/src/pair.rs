//! A certificate chain together with its private key.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::bundle::CaBundle;
use crate::error::{CertError, CertFault};
use crate::facts::CertFacts;
use crate::files;

/// The two files of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairFiles {
    /// PEM certificate, followed by intermediate authorities if there are any.
    pub certificate: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
}

impl PairFiles {
    /// Names the two files.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            certificate: certificate.into(),
            key: key.into(),
        }
    }
}

/// A certificate chain and the private key that fits it.
#[derive(Debug)]
pub struct Pair {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    certificate_pem: Vec<u8>,
    key_pem: Vec<u8>,
    facts: CertFacts,
    files: PairFiles,
}

impl Pair {
    /// Reads both files and checks that the key belongs to the certificate. Time and issuer: [`Pair::check`].
    pub fn load(files: &PairFiles) -> Result<Self, CertError> {
        let certificate_pem = files::read(&files.certificate)?;
        let key_pem = files::read(&files.key)?;
        Self::build(certificate_pem, key_pem, files.clone())
    }

    /// Takes PEM texts that were never in a file.
    pub fn from_pem(certificate_pem: Vec<u8>, key_pem: Vec<u8>) -> Result<Self, CertError> {
        Self::build(
            certificate_pem,
            key_pem,
            PairFiles::new("certificate in memory", "key in memory"),
        )
    }

    fn build(certificate_pem: Vec<u8>, key_pem: Vec<u8>, files: PairFiles) -> Result<Self, CertError> {
        let chain = files::certificates(&certificate_pem, &files.certificate)?;
        let key = files::private_key(&key_pem, &files.key)?;
        let facts = CertFacts::of(&chain[0], &files.certificate)?;
        let pair = Self {
            chain,
            key,
            certificate_pem,
            key_pem,
            facts,
            files,
        };
        pair.certified_key().map(|_| pair)
    }

    /// Checks time of validity and issuer.
    pub fn check(&self, bundle: &CaBundle, now: Timestamp) -> Result<(), CertError> {
        self.facts.check_time(&self.files.certificate, now)?;
        bundle.check_chain(&self.chain, &self.files.certificate, now)
    }

    /// Writes certificate (0644) and key (0600), the key first: a reader that sees the new certificate finds its key.
    pub fn save(&self, files: &PairFiles) -> Result<(), CertError> {
        files::write_key(&files.key, &String::from_utf8_lossy(&self.key_pem))?;
        files::write_certificate(
            &files.certificate,
            &String::from_utf8_lossy(&self.certificate_pem),
        )
    }

    pub(crate) fn certified_key(&self) -> Result<CertifiedKey, CertError> {
        let provider = rustls::crypto::ring::default_provider();
        CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), &provider).map_err(|error| {
            match error {
                rustls::Error::InconsistentKeys(_) => mismatch(&self.files, &self.facts),
                other => CertError::refused(&self.files.key.to_string_lossy(), &other),
            }
        })
    }

    /// The certificate chain, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    pub(crate) fn leaf(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    /// The facts of the leaf certificate.
    pub fn facts(&self) -> &CertFacts {
        &self.facts
    }

    /// The certificate chain in PEM.
    pub fn certificate_pem(&self) -> &[u8] {
        &self.certificate_pem
    }

    /// The private key in PEM. Never log it.
    pub fn key_pem(&self) -> &[u8] {
        &self.key_pem
    }
}

fn mismatch(files: &PairFiles, facts: &CertFacts) -> CertError {
    let certificate: &Path = &files.certificate;
    let cause = format!(
        "is not the private key of certificate {} in {}",
        facts.title(),
        certificate.display()
    );
    let cure = "copy certificate and key from the same place, or issue both anew";
    CertError::new(&files.key, CertFault::KeyMismatch, cause, cure)
}
