//! Views of the clustermesh-apiserver: `GET /v1/status` answers an [`ApiserverStatus`].

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// All that one apiserver knows about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiserverStatus {
    /// Name of the exported cluster.
    pub cluster_name: String,
    /// Id of the exported cluster (clustermesh.md §1.11).
    pub cluster_id: u32,
    /// 255 or 511.
    pub max_connected_clusters: u32,
    /// Version of this program.
    pub version: String,
    /// Whether every resource has its canary (the meaning of `/readyz`).
    pub ready: bool,
    /// What is missing for readiness, in words; empty when ready.
    pub waiting_for: Vec<String>,
    /// Time of start, RFC 3339.
    pub started_at: String,
    /// One row for each exported resource.
    pub resources: Vec<ResourceView>,
    /// The store.
    pub store: StoreView,
    /// Clients connected now, by common name and then address.
    pub clients: Vec<ClientView>,
    /// The server certificate.
    pub certificate: CertificateView,
    /// Authorities whose clients are let in.
    pub authorities: Vec<CertificateView>,
    /// What is wrong with newer certificate files that are therefore not in use.
    pub certificate_fault: Option<String>,
    /// Manifests that were refused; their last good version stays exported.
    pub manifest_errors: Vec<ManifestErrorView>,
}

/// One exported resource: a key family of clustermesh.md §1.2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceView {
    /// `nodes`, `services`, `identities`, `ip`, `endpointslices` or `serviceexports`.
    pub resource: String,
    /// Prefix of its keys.
    pub prefix: String,
    /// Keys in the store.
    pub keys: u64,
    /// Whether the canary is written.
    pub synced: bool,
    /// Keys written since start.
    pub puts: u64,
    /// Keys deleted since start.
    pub deletes: u64,
}

/// The embedded store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreView {
    /// Address on which it listens.
    pub listen: SocketAddr,
    /// `cluster_id` of every reply's header, hexadecimal; changes when the history of revisions begins anew.
    pub cluster_id: String,
    /// Newest revision.
    pub revision: i64,
    /// Oldest revision that can still be read.
    pub compacted: i64,
    /// Keys that exist now.
    pub keys: u64,
    /// Bytes of all versions of all keys that are kept.
    pub bytes: u64,
    /// Open leases.
    pub leases: u64,
    /// Open watches of all clients.
    pub watches: u64,
    /// Requests refused for want of permission since start.
    pub denied: u64,
    /// Connections that failed in the TLS handshake since start.
    pub tls_failures: u64,
    /// The newest of these failures, in words.
    pub last_tls_failure: Option<String>,
    /// Time of the last heartbeat, RFC 3339.
    pub heartbeat_at: Option<String>,
}

/// A connected client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientView {
    /// Common name of its certificate.
    pub common_name: String,
    /// The role that this name has: `root`, `remote`, `local`, or `none`.
    pub role: String,
    /// Where it connects from.
    pub address: SocketAddr,
    /// Time of the connection, RFC 3339.
    pub since: String,
    /// Requests so far.
    pub requests: u64,
    /// Refused requests so far.
    pub denied: u64,
    /// Open watches.
    pub watches: u64,
}

/// A certificate in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateView {
    /// Common name of its subject.
    pub common_name: String,
    /// DNS names and addresses.
    pub names: Vec<String>,
    /// Common name of its issuer.
    pub issuer: String,
    /// End of validity, RFC 3339.
    pub not_after: String,
    /// SHA-256 of the DER form, hexadecimal.
    pub fingerprint: String,
}

/// A refused manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestErrorView {
    /// The file.
    pub file: PathBuf,
    /// Line in the file, from 1; 0 when it concerns the whole file.
    pub line: u64,
    /// Cause and cure.
    pub reason: String,
}
