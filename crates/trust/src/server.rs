//! TLS of a server that demands client certificates, and the material of a client; both follow their files.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;

use crate::bundle::CaBundle;
use crate::error::{CertError, CertFault};
use crate::facts::CertFacts;
use crate::pair::{Pair, PairFiles};

/// The files of one end of a mutual TLS connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Own certificate and key.
    pub pair: PairFiles,
    /// Bundle of the authorities that may have issued the other end's certificate.
    pub bundle: PathBuf,
}

impl TlsFiles {
    /// `tls.crt`, `tls.key` and `ca.crt` in one directory, as Kubernetes mounts a Secret of type tls.
    pub fn in_directory(directory: &Path) -> Self {
        let pair = PairFiles::new(directory.join("tls.crt"), directory.join("tls.key"));
        Self {
            pair,
            bundle: directory.join("ca.crt"),
        }
    }

    /// What the files look like from outside; a change means that they must be read again.
    fn stamp(&self) -> Stamp {
        [&self.pair.certificate, &self.pair.key, &self.bundle].map(|file| {
            let meta = std::fs::metadata(file).ok()?;
            use std::os::unix::fs::MetadataExt as _;
            Some((meta.ino(), meta.len(), meta.modified().ok()?))
        })
    }
}

/// Inode, length and time of change of each file; `None` where there is no file.
type Stamp = [Option<(u64, u64, SystemTime)>; 3];

/// TLS configuration of a server: own certificate, client certificate required, issued by one of the bundle.
/// The files are looked at for every new connection and read again when they changed; if what they hold then is
/// bad, the last good configuration stays and [`ServerTls::fault`] says what is wrong.
#[derive(Debug)]
pub struct ServerTls {
    files: TlsFiles,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    stamp: Stamp,
    config: Arc<ServerConfig>,
    facts: CertFacts,
    authorities: Vec<CertFacts>,
    fault: Option<CertError>,
    reloads: u64,
}

impl ServerTls {
    /// Reads and checks the files at `now`; anything wrong is an error here.
    pub fn load(files: TlsFiles, now: Timestamp) -> Result<Self, CertError> {
        let stamp = files.stamp();
        let (config, facts, authorities) = build(&files, now)?;
        let state = State {
            stamp,
            config,
            facts,
            authorities,
            fault: None,
            reloads: 0,
        };
        Ok(Self {
            files,
            state: Mutex::new(state),
        })
    }

    /// The configuration for a connection that arrives at `now`.
    pub fn current(&self, now: Timestamp) -> Arc<ServerConfig> {
        let mut state = self.lock();
        let stamp = self.files.stamp();
        if stamp != state.stamp {
            state.stamp = stamp;
            match build(&self.files, now) {
                Ok((config, facts, authorities)) => {
                    let reloads = state.reloads + 1;
                    *state = State {
                        stamp,
                        config,
                        facts,
                        authorities,
                        fault: None,
                        reloads,
                    };
                }
                Err(fault) => state.fault = Some(fault),
            }
        }
        Arc::clone(&state.config)
    }

    /// Facts of the own certificate in use.
    pub fn facts(&self) -> CertFacts {
        self.lock().facts.clone()
    }

    /// Facts of the authorities in use.
    pub fn authorities(&self) -> Vec<CertFacts> {
        self.lock().authorities.clone()
    }

    /// Why the newest files are not in use, if they are not.
    pub fn fault(&self) -> Option<CertError> {
        self.lock().fault.clone()
    }

    /// How often changed files were taken into use.
    pub fn reloads(&self) -> u64 {
        self.lock().reloads
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // The state is replaced as a whole, so it is sound even if a holder panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Built = (Arc<ServerConfig>, CertFacts, Vec<CertFacts>);

fn build(files: &TlsFiles, now: Timestamp) -> Result<Built, CertError> {
    let bundle = CaBundle::load(&files.bundle)?;
    let pair = Pair::load(&files.pair)?;
    // Agents of the own cluster check this certificate with the same bundle, so its issuer must be in it.
    pair.check(&bundle, now)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(bundle.roots()?), Arc::clone(&provider))
            .build()
            .map_err(|error| {
                let cause = format!("cannot be used to verify clients: {error}");
                CertError::new(
                    &files.bundle,
                    CertFault::Malformed,
                    cause,
                    "put at least one usable authority into it",
                )
            })?;
    let refused =
        |error: rustls::Error| CertError::refused(&files.pair.certificate.to_string_lossy(), &error);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair.certified_key()?)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok((
        Arc::new(config),
        pair.facts().clone(),
        bundle.facts().cloned().collect(),
    ))
}

/// What a TLS client library (etcd-client, tonic) wants: PEM texts, checked.
#[derive(Debug)]
pub struct ClientMaterial {
    /// Own certificate and key.
    pub pair: Pair,
    /// The bundle in PEM.
    pub bundle_pem: Vec<u8>,
    /// Facts of the authorities in the bundle.
    pub authorities: Vec<CertFacts>,
}

/// Reads and checks a client's files at `now`. Call it anew for each connection, as etcd's own client does (clustermesh.md §2.1).
pub fn client_material(files: &TlsFiles, now: Timestamp) -> Result<ClientMaterial, CertError> {
    let bundle_pem = crate::files::read(&files.bundle)?;
    let bundle = CaBundle::from_pem(&bundle_pem, &files.bundle)?;
    let pair = Pair::load(&files.pair)?;
    // The issuer is not checked: the other end does that with a bundle of its own.
    pair.facts().check_time(&files.pair.certificate, now)?;
    Ok(ClientMaterial {
        pair,
        bundle_pem,
        authorities: bundle.facts().cloned().collect(),
    })
}
