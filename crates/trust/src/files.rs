//! Reading and writing PEM files.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::{CertError, CertFault};

/// Mode of a private key's file: nobody but the owner.
const KEY_MODE: u32 = 0o600;
/// Mode of a certificate's file.
const CERT_MODE: u32 = 0o644;

pub(crate) fn read(file: &Path) -> Result<Vec<u8>, CertError> {
    fs::read(file).map_err(|error| CertError::unreadable(file, &error))
}

/// All certificates of a PEM file, in order; at least one.
pub(crate) fn certificates(pem: &[u8], file: &Path) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let list = list.map_err(|error| {
        let cause = format!("is not well-formed PEM ({error})");
        CertError::new(file, CertFault::Malformed, cause, "copy the file again, whole")
    })?;
    if list.is_empty() {
        let cure = "put PEM certificates (-----BEGIN CERTIFICATE-----) into it";
        return Err(CertError::new(
            file,
            CertFault::Malformed,
            "holds no certificate",
            cure,
        ));
    }
    Ok(list)
}

/// The first private key of a PEM file (PKCS#8, SEC1 or PKCS#1).
pub(crate) fn private_key(pem: &[u8], file: &Path) -> Result<PrivateKeyDer<'static>, CertError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        let cause = format!("holds no private key that can be read ({error})");
        let cure = "put an unencrypted PEM private key (PKCS#8, SEC1 or PKCS#1) into it";
        CertError::new(file, CertFault::Malformed, cause, cure)
    })
}

pub(crate) fn write_certificate(file: &Path, pem: &str) -> Result<(), CertError> {
    write(file, pem.as_bytes(), CERT_MODE).map_err(|error| CertError::unwritable(file, &error))
}

pub(crate) fn write_key(file: &Path, pem: &str) -> Result<(), CertError> {
    write(file, pem.as_bytes(), KEY_MODE).map_err(|error| CertError::unwritable(file, &error))
}

/// Replaces `file` in one step, so that a reader sees the old or the new content and a key is never readable for others, not even for a moment.
fn write(file: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let fresh = file.with_file_name(name);
    let _ = fs::remove_file(&fresh);
    let result = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&fresh)
        .and_then(|mut out| {
            out.write_all(content)?;
            out.sync_all()?;
            fs::rename(&fresh, file)
        });
    if result.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    result
}
