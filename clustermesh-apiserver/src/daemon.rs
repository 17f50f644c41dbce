//! Putting the parts together.
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use isthmus_admin::{AdminServer, serve_tcp};
use isthmus_sources::{Settings, Source};
use isthmus_store::mvcc::Retention;
use isthmus_store::{AccessPolicy, ServeOptions, Server, StoreHandle};
use isthmus_telemetry::Metrics;
use isthmus_trust::ServerTls;
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Args;
use crate::changes::Exporting;
use crate::follow::Follower;
use crate::metrics::Gauges;
use crate::progress::Progress;
use crate::view::{self, Seen};
use crate::writer::Writer;

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(args: Args) -> Result<()> {
    let begun = Instant::now();
    let cluster = args.cluster()?;
    args.check()?;
    let tls = Arc::new(ServerTls::load(args.tls_files()?, Timestamp::now())?);
    let store = StoreHandle::new(
        AccessPolicy::new(cluster.name.as_str(), args.auth_mode.into()),
        Retention::default(),
    );
    let server = Server::start(
        &store,
        ServeOptions {
            listen: args.listen,
            tls: Arc::clone(&tls),
        },
    )
    .await?;
    let progress = Arc::new(Progress::default());
    let exporting = Exporting {
        cluster: cluster.clone(),
        mode: args.export_mode.into(),
        service_exports: args.service_exports,
    };
    let writer = Writer::new(store.clone(), args.kvstore_lease_ttl, Arc::clone(&progress));
    let follower = Follower::start(exporting, writer, Arc::clone(&progress)).await;

    let settings = Settings {
        cluster: cluster.name.clone(),
        id: cluster.id,
        max: cluster.max,
        default_global_namespace: args.default_global_namespace,
        state_dir: args.state_dir.clone(),
    };
    let (snapshots_in, snapshots) = tokio::sync::watch::channel(None);
    let seen = Seen {
        cluster: cluster.clone(),
        started_at: Timestamp::now(),
        address: server.address(),
        store,
        tls,
        progress,
        snapshots,
    };
    let metrics = Metrics::new();
    let gauges = Gauges::register(&metrics, &cluster.name);
    let _admin = AdminServer::start(&args.admin_socket, view::routes(seen.clone(), metrics.clone())).await?;
    if let Some(address) = args.metrics {
        serve_tcp(address, view::common(seen.clone(), metrics))
            .await
            .context("--metrics")?;
    }
    tokio::spawn(gauges.run(seen, begun));
    tracing::info!(cluster = %cluster.name, id = %cluster.id, address = %server.address(), "serving");

    let source = Source::directory(&args.manifests, settings).await?;
    snapshots_in.send_replace(Some(source.subscribe()));
    let ttl = Duration::from_secs(args.kvstore_lease_ttl.unsigned_abs());
    tokio::select! {
        () = follower.run(source, ttl) => Ok(()),
        // Nothing is revoked: a restart must not tell readers that the cluster is empty (clustermesh.md §1.4).
        result = terminated() => result,
    }
}

async fn terminated() -> Result<()> {
    let mut term = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("terminated");
    Ok(())
}
