//! A certificate authority with its private key.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::CertificateDer;

use crate::bundle::CaBundle;
use crate::error::{CertError, CertFault};
use crate::facts::CertFacts;
use crate::files;
use crate::leaf::{LeafRequest, Validity};
use crate::pair::{Pair, PairFiles};

/// Days for which an authority made by [`Authority::ensure`] is valid: ten years.
const AUTHORITY_DAYS: u16 = 3650;

/// Share of its life after which a certificate is renewed by [`Authority::ensure_leaf`], in percent.
pub const RENEW_AT: i64 = 66;

/// What [`Authority::ensure`] and [`Authority::ensure_leaf`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What was there is right; nothing was written.
    Kept,
    /// There was nothing; it was made.
    Created,
    /// What was there did not fit (names, issuer, time, damage) and was replaced.
    Renewed,
}

/// A certificate authority that can sign.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
    facts: CertFacts,
    file: PathBuf,
}

impl Authority {
    /// Makes a new self-signed authority (ECDSA P-256) in memory.
    pub fn create(common_name: &str, validity: Validity) -> Result<Self, CertError> {
        let refused = |error: rcgen::Error| CertError::refused("new authority", &error);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        validity.apply(&mut params);
        let key = KeyPair::generate().map_err(refused)?;
        let certificate = params.self_signed(&key).map_err(refused)?;
        let der = certificate.der().clone();
        let facts = CertFacts::of(&der, Path::new("new authority"))?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            der,
            pem: certificate.pem(),
            facts,
            file: PathBuf::new(),
        })
    }

    /// Loads an authority and checks that it may sign, is valid at `now` and fits its key.
    pub fn load(certificate: &Path, key: &Path, now: Timestamp) -> Result<Self, CertError> {
        let pair = Pair::load(&PairFiles::new(certificate, key))?;
        pair.facts().check_time(certificate, now)?;
        if !pair.facts().is_authority {
            let cause = format!(
                "certificate {} is not an authority, so it cannot sign",
                pair.facts().title()
            );
            let cure = "name the file of the certificate authority (usually ca.crt)";
            return Err(CertError::new(
                certificate,
                CertFault::NotAnAuthority,
                cause,
                cure,
            ));
        }
        let refused = |error: rcgen::Error| CertError::refused(&certificate.to_string_lossy(), &error);
        let text = String::from_utf8_lossy(pair.key_pem()).into_owned();
        let signer = KeyPair::from_pem(&text).map_err(refused)?;
        let der = pair.leaf().clone();
        Ok(Self {
            issuer: Issuer::from_ca_cert_der(&der, signer).map_err(refused)?,
            pem: String::from_utf8_lossy(pair.certificate_pem()).into_owned(),
            facts: pair.facts().clone(),
            der,
            file: certificate.to_owned(),
        })
    }

    /// Loads the authority from its two files, or makes and saves one if neither exists. A damaged or expired
    /// authority is an error and is never replaced: every certificate of the cluster hangs on it.
    pub fn ensure(
        common_name: &str,
        certificate: &Path,
        key: &Path,
        now: Timestamp,
    ) -> Result<(Self, Outcome), CertError> {
        if certificate.exists() || key.exists() {
            return Ok((Self::load(certificate, key, now)?, Outcome::Kept));
        }
        let mut made = Self::create(common_name, Validity::days(now, AUTHORITY_DAYS))?;
        made.save(certificate, key)?;
        made.file = certificate.to_owned();
        Ok((made, Outcome::Created))
    }

    /// Writes the certificate (mode 0644) and the private key (mode 0600).
    pub fn save(&self, certificate: &Path, key: &Path) -> Result<(), CertError> {
        files::write_key(key, &self.issuer.key().serialize_pem())?;
        files::write_certificate(certificate, &self.pem)
    }

    /// Signs a leaf certificate with a fresh key (ECDSA P-256).
    pub fn issue(&self, request: &LeafRequest) -> Result<Pair, CertError> {
        let refused = |error: rcgen::Error| CertError::refused(request.common_name(), &error);
        let key = KeyPair::generate().map_err(refused)?;
        let certificate = request.params()?.signed_by(&key, &self.issuer).map_err(refused)?;
        Pair::from_pem(certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
    }

    /// Makes sure that `files` hold a certificate of this authority that answers the request, and keeps it if it
    /// does and has a good part of its life before it ([`RENEW_AT`]).
    pub fn ensure_leaf(
        &self,
        request: &LeafRequest,
        files: &PairFiles,
        now: Timestamp,
    ) -> Result<Outcome, CertError> {
        let there = files.certificate.exists() || files.key.exists();
        if there && self.leaf_is_good(request, files, now) {
            return Ok(Outcome::Kept);
        }
        self.issue(request)?.save(files)?;
        Ok(if there { Outcome::Renewed } else { Outcome::Created })
    }

    fn leaf_is_good(&self, request: &LeafRequest, files: &PairFiles, now: Timestamp) -> bool {
        let Ok(pair) = Pair::load(files) else { return false };
        let facts = pair.facts();
        let life = facts.not_after.as_second() - facts.not_before.as_second();
        let spent = now.as_second() - facts.not_before.as_second();
        facts.common_name == request.common_name()
            && facts.names == request.name_texts()
            && pair.check(&self.bundle(), now).is_ok()
            && spent * 100 < life * RENEW_AT
    }

    /// The authority's own certificate as a bundle of one.
    pub fn bundle(&self) -> CaBundle {
        CaBundle::of_one(self.der.clone(), self.facts.clone(), &self.file)
    }

    /// The certificate in PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// The facts of the certificate.
    pub fn facts(&self) -> &CertFacts {
        &self.facts
    }
}
