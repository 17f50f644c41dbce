//! What the daemon tells about itself.
use std::net::SocketAddr;
use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use isthmus_admin::apiserver::{
    ApiserverStatus, CertificateView, ClientView, ManifestErrorView, ResourceView, StoreView,
};
use isthmus_admin::{Readiness, common_routes};
use isthmus_kvstore::{Family, Tree, entry_prefix};
use isthmus_sources::Snapshot;
use isthmus_store::mvcc::Span;
use isthmus_store::{ClientFacts, Role, StoreHandle};
use isthmus_telemetry::Metrics;
use isthmus_trust::{CertFacts, ServerTls};
use jiff::Timestamp;
use tokio::sync::watch;

use crate::args::Cluster;
use crate::progress::Progress;

/// All that status looks at.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) cluster: Cluster,
    pub(crate) started_at: Timestamp,
    pub(crate) address: SocketAddr,
    pub(crate) store: StoreHandle,
    pub(crate) tls: Arc<ServerTls>,
    pub(crate) progress: Arc<Progress>,
    /// The source's snapshots; `None` until its first list is read.
    pub(crate) snapshots: watch::Receiver<Option<watch::Receiver<Snapshot>>>,
}

/// `/healthz`, `/readyz` and `/metrics`.
pub(crate) fn common(seen: Seen, metrics: Metrics) -> Router {
    common_routes(metrics, move || match seen.waiting_for().as_slice() {
        [] => Readiness::Ready,
        missing => Readiness::Waiting(missing.join(", ")),
    })
}

/// Everything that the admin socket serves.
pub(crate) fn routes(seen: Seen, metrics: Metrics) -> Router {
    let status = seen.clone();
    common(seen, metrics).route(
        "/v1/status",
        get(move || {
            let status = status.status();
            async move { Json(status) }
        }),
    )
}

impl Seen {
    fn waiting_for(&self) -> Vec<String> {
        self.progress
            .unsynced()
            .into_iter()
            .map(|family| format!("the first list of {family}"))
            .collect()
    }

    fn status(&self) -> ApiserverStatus {
        let waiting_for = self.waiting_for();
        ApiserverStatus {
            cluster_name: self.cluster.name.to_string(),
            cluster_id: u32::from(self.cluster.id.value()),
            max_connected_clusters: self.cluster.max.max_id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: waiting_for.is_empty(),
            waiting_for,
            started_at: self.started_at.to_string(),
            resources: Family::ALL
                .into_iter()
                .map(|family| self.resource(family))
                .collect(),
            store: self.store_view(),
            clients: self.store.clients().iter().map(client).collect(),
            certificate: certificate(&self.tls.facts()),
            authorities: self.tls.authorities().iter().map(certificate).collect(),
            certificate_fault: self.tls.fault().map(|fault| fault.to_string()),
            manifest_errors: self.manifest_errors(),
        }
    }

    /// Keys of a family in the store.
    pub(crate) fn keys(&self, family: Family) -> u64 {
        let prefix = entry_prefix(Tree::State, family, &self.cluster.name);
        self.store.count(&Span::prefix(prefix.as_bytes())) as u64
    }

    fn resource(&self, family: Family) -> ResourceView {
        let progress = self.progress.family(family);
        ResourceView {
            resource: family.to_string(),
            prefix: entry_prefix(Tree::State, family, &self.cluster.name),
            keys: self.keys(family),
            synced: progress.synced(),
            puts: progress.puts(),
            deletes: progress.deletes(),
        }
    }

    fn store_view(&self) -> StoreView {
        let sizes = self.store.sizes();
        let failures = self.store.tls_failures();
        StoreView {
            listen: self.address,
            cluster_id: format!("{:x}", self.store.identity().cluster_id),
            revision: sizes.revision,
            compacted: sizes.compacted,
            keys: sizes.keys,
            bytes: sizes.bytes,
            leases: sizes.leases,
            watches: self.store.clients().iter().map(|client| client.watches).sum(),
            denied: self.store.denied(),
            tls_failures: failures.count,
            last_tls_failure: failures.last,
            heartbeat_at: self.progress.heartbeat().map(|at| at.to_string()),
        }
    }

    fn manifest_errors(&self) -> Vec<ManifestErrorView> {
        let Some(snapshots) = self.snapshots.borrow().clone() else {
            return Vec::new();
        };
        let problems = Arc::clone(&snapshots.borrow().problems);
        let view = |problem: &isthmus_sources::Problem| ManifestErrorView {
            file: problem.file.to_path_buf(),
            line: u64::from(problem.line),
            reason: problem.reason.clone(),
        };
        problems.iter().map(view).collect()
    }

    /// Problems in the manifests now.
    pub(crate) fn problems(&self) -> usize {
        self.snapshots
            .borrow()
            .as_ref()
            .map_or(0, |snapshots| snapshots.borrow().problems.len())
    }
}

fn client(facts: &ClientFacts) -> ClientView {
    ClientView {
        common_name: facts.common_name.clone(),
        role: facts.role.map_or("none", Role::name).to_owned(),
        address: facts.address,
        since: facts.since.to_string(),
        requests: facts.requests,
        denied: facts.denied,
        watches: facts.watches,
    }
}

fn certificate(facts: &CertFacts) -> CertificateView {
    CertificateView {
        common_name: facts.common_name.clone(),
        names: facts.names.clone(),
        issuer: facts.issuer.clone(),
        not_after: facts.not_after.to_string(),
        fingerprint: facts.fingerprint.clone(),
    }
}
