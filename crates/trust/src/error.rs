//! What can be wrong with a certificate, said so that a person can mend it.

use std::path::{Path, PathBuf};

/// The kind of fault, for tests, counters and exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CertFault {
    /// The file cannot be read.
    Unreadable,
    /// The file cannot be written.
    Unwritable,
    /// The file holds no PEM block of the kind that is needed, or one that cannot be decoded.
    Malformed,
    /// The time of validity has ended.
    Expired,
    /// The time of validity has not begun.
    NotYetValid,
    /// No authority in the bundle signed this certificate.
    WrongIssuer,
    /// The private key does not belong to the certificate.
    KeyMismatch,
    /// The certificate is not an authority and so cannot sign.
    NotAnAuthority,
    /// A name that was asked for cannot stand in a certificate.
    BadName,
    /// The cryptographic library refused.
    Refused,
}

/// A fault in a certificate, key or bundle: which file, why, and what cures it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {cause}; {cure}", file.display())]
pub struct CertError {
    /// The file at fault (empty for material that never was a file).
    pub file: PathBuf,
    /// The kind of fault.
    pub fault: CertFault,
    /// The cause, without a final stop.
    pub cause: String,
    /// What to do about it, without a final stop.
    pub cure: String,
}

impl CertError {
    pub(crate) fn new(
        file: &Path,
        fault: CertFault,
        cause: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self {
            file: file.to_owned(),
            fault,
            cause: cause.into(),
            cure: cure.into(),
        }
    }

    pub(crate) fn unreadable(file: &Path, error: &std::io::Error) -> Self {
        let cure = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "create it (`meshctl cert` issues all that a cluster needs) or correct the path"
            }
            std::io::ErrorKind::PermissionDenied => "run as the owner of the file or change its permissions",
            _ => "check the path and the file system",
        };
        Self::new(
            file,
            CertFault::Unreadable,
            format!("cannot be read: {error}"),
            cure,
        )
    }

    pub(crate) fn unwritable(file: &Path, error: &std::io::Error) -> Self {
        let cure = "check that the directory exists, is writable and has space";
        Self::new(
            file,
            CertFault::Unwritable,
            format!("cannot be written: {error}"),
            cure,
        )
    }

    pub(crate) fn refused(what: &str, error: &impl std::fmt::Display) -> Self {
        let cure = "use ECDSA P-256 or RSA of 2048 bits or more, or issue the certificates anew";
        Self::new(
            Path::new(what),
            CertFault::Refused,
            format!("the cryptographic library refused: {error}"),
            cure,
        )
    }
}
