//! Metrics: Cilium's names where the meaning is Cilium's (clustermesh.md §6.5), else `isthmus_`.
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use isthmus_kvstore::{Family as Keys, Tree, family_prefix};
use isthmus_telemetry::Metrics;
use isthmus_telemetry::client::metrics::counter::Counter;
use isthmus_telemetry::client::metrics::family::Family;
use isthmus_telemetry::client::metrics::gauge::Gauge;
use isthmus_topology::ClusterName;

use crate::view::Seen;

/// How often they are brought up to date.
const EVERY: Duration = Duration::from_secs(2);

type Labels = Vec<(&'static str, String)>;
type Real = Gauge<f64, AtomicU64>;

/// All metrics of the daemon.
#[derive(Debug)]
pub(crate) struct Gauges {
    cluster: String,
    bootstrap: Family<Labels, Real>,
    synced: Family<Labels, Gauge>,
    keys: Family<Labels, Gauge>,
    sync_errors: Family<Labels, Counter>,
    write_seconds: Counter<f64, AtomicU64>,
    writes: Counter,
    revision: Gauge,
    bytes: Gauge,
    clients: Family<Labels, Gauge>,
    watches: Gauge,
    denied: Counter,
    tls_failures: Counter,
    problems: Gauge,
}

impl Gauges {
    pub(crate) fn register(metrics: &Metrics, cluster: &ClusterName) -> Self {
        let new = Self {
            cluster: cluster.to_string(),
            bootstrap: Family::default(),
            synced: Family::default(),
            keys: Family::default(),
            sync_errors: Family::default(),
            write_seconds: Counter::default(),
            writes: Counter::default(),
            revision: Gauge::default(),
            bytes: Gauge::default(),
            clients: Family::default(),
            watches: Gauge::default(),
            denied: Counter::default(),
            tls_failures: Counter::default(),
            problems: Gauge::default(),
        };
        let cilium = |name: &str| format!("cilium_clustermesh_apiserver_{name}");
        metrics.register(
            cilium("bootstrap_seconds"),
            "Seconds from start to readiness",
            new.bootstrap.clone(),
        );
        let help = "Whether the first list is written";
        metrics.register(cilium("kvstore_initial_sync_completed"), help, new.synced.clone());
        metrics.register(
            cilium("kvstore_sync_errors"),
            "Writes that were refused",
            new.sync_errors.clone(),
        );
        metrics.register("isthmus_apiserver_keys", "Keys in the store", new.keys.clone());
        metrics.register(
            "isthmus_apiserver_writes",
            "Writes to the store",
            new.writes.clone(),
        );
        metrics.register(
            "isthmus_apiserver_write_seconds",
            "Seconds spent writing",
            new.write_seconds.clone(),
        );
        metrics.register("isthmus_store_revision", "Newest revision", new.revision.clone());
        metrics.register(
            "isthmus_store_bytes",
            "Bytes of all versions kept",
            new.bytes.clone(),
        );
        metrics.register("isthmus_store_clients", "Connected clients", new.clients.clone());
        metrics.register("isthmus_store_watches", "Open watches", new.watches.clone());
        metrics.register(
            "isthmus_store_denied_requests",
            "Requests refused by role",
            new.denied.clone(),
        );
        metrics.register(
            "isthmus_store_tls_failures",
            "Failed TLS handshakes",
            new.tls_failures.clone(),
        );
        metrics.register(
            "isthmus_manifest_problems",
            "Problems in the manifests now",
            new.problems.clone(),
        );
        new
    }

    /// Keeps them up to date for ever.
    pub(crate) async fn run(self, seen: Seen, begun: Instant) {
        let mut timer = tokio::time::interval(EVERY);
        loop {
            timer.tick().await;
            if let Some(ready) = seen.progress.ready_at() {
                let labels = vec![("source_cluster", self.cluster.clone())];
                self.bootstrap
                    .get_or_create(&labels)
                    .set(ready.duration_since(begun).as_secs_f64());
            }
            self.update(&seen);
        }
    }

    fn update(&self, seen: &Seen) {
        for family in Keys::ALL {
            let scope = family_prefix(Tree::State, family);
            let scope = scope.strip_prefix("cilium/").unwrap_or(&scope).to_owned();
            let labels = vec![("scope", scope.clone()), ("source_cluster", self.cluster.clone())];
            let action = [labels.clone(), vec![("action", "write".to_owned())]].concat();
            let progress = seen.progress.family(family);
            self.synced
                .get_or_create(&action)
                .set(i64::from(progress.synced()));
            self.keys.get_or_create(&labels).set(signed(seen.keys(family)));
            raise(&self.sync_errors.get_or_create(&labels), progress.failures());
        }
        let (failures, writes, seconds) = seen.progress.totals();
        let own = vec![
            ("scope", "store".to_owned()),
            ("source_cluster", self.cluster.clone()),
        ];
        raise(&self.sync_errors.get_or_create(&own), failures);
        raise(&self.writes, writes);
        self.write_seconds
            .inc_by((seconds - self.write_seconds.get()).max(0.0));
        let sizes = seen.store.sizes();
        self.revision.set(sizes.revision);
        self.bytes.set(signed(sizes.bytes));
        let clients = seen.store.clients();
        for role in [Some("root"), Some("remote"), Some("local"), None] {
            let count = clients
                .iter()
                .filter(|client| client.role.map(isthmus_store::Role::name) == role)
                .count();
            let labels = vec![("role", role.unwrap_or("none").to_owned())];
            self.clients.get_or_create(&labels).set(signed(count as u64));
        }
        self.watches
            .set(signed(clients.iter().map(|client| client.watches).sum()));
        raise(&self.denied, seen.store.denied());
        raise(&self.tls_failures, seen.store.tls_failures().count);
        self.problems.set(signed(seen.problems() as u64));
    }
}

/// Brings a counter up to a total that is counted elsewhere.
fn raise(counter: &Counter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
