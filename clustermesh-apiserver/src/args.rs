//! The command line, and what can be refused about it.
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use isthmus_kvstore::ExportMode;
use isthmus_store::AuthMode;
use isthmus_telemetry::LogFormat;
use isthmus_topology::{ClusterId, ClusterName, MaxClusters};
use isthmus_trust::{PairFiles, TlsFiles};

/// Exports one cluster to its peers: reads it from a directory of Kubernetes manifests and serves it through an embedded
/// store that speaks the etcd v3 API over mutual TLS.
#[derive(Debug, clap::Parser)]
#[command(version)]
pub(crate) struct Args {
    /// Name of this cluster.
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster_name: String,

    /// Id of this cluster: 1 to 255, or to 511 with --max-connected-clusters 511. Unique in the mesh.
    #[arg(long, value_name = "ID")]
    pub(crate) cluster_id: u32,

    /// Size of the mesh, the same in all its clusters: 255 or 511.
    #[arg(long, default_value_t = 255, value_name = "N")]
    pub(crate) max_connected_clusters: u32,

    /// Directory with this cluster's Kubernetes manifests; followed while running.
    #[arg(long, value_name = "DIR")]
    pub(crate) manifests: PathBuf,

    /// Address on which peers and agents are served.
    #[arg(long, default_value = "0.0.0.0:2379", value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,

    /// Directory with tls.crt, tls.key and ca.crt; followed while running.
    #[arg(long, value_name = "DIR")]
    pub(crate) tls_dir: Option<PathBuf>,

    /// Server certificate (PEM), instead of the one in --tls-dir.
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,

    /// Private key of the server certificate (PEM), instead of the one in --tls-dir.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,

    /// Bundle of the authorities whose clients are let in (PEM), instead of the one in --tls-dir.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,

    /// Which common names peers may have: legacy (`remote`), migration (also `remote-<peer>`), cluster (only the latter).
    #[arg(long, value_enum, default_value = "migration", value_name = "MODE")]
    pub(crate) auth_mode: AuthModeArg,

    /// In which form global services are exported.
    #[arg(
        long,
        value_enum,
        default_value = "services-and-endpointslices",
        value_name = "MODE"
    )]
    pub(crate) export_mode: ExportModeArg,

    /// Whether service exports (MCS-API) are exported.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub(crate) service_exports: bool,

    /// Whether namespaces without the annotation clustermesh.cilium.io/global take part.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub(crate) default_global_namespace: bool,

    /// Directory in which to remember which identity was given to which labels.
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,

    /// Seconds after which the keys of a dead apiserver go: 25 to 86400.
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    pub(crate) kvstore_lease_ttl: i64,

    /// Admin socket of this daemon.
    #[arg(long, default_value = "/run/isthmus/apiserver.sock", value_name = "SOCKET")]
    pub(crate) admin_socket: PathBuf,

    /// Serve /metrics, /healthz and /readyz on this TCP address too.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics: Option<SocketAddr>,

    /// How log lines are written: text or json.
    #[arg(long, default_value = "text")]
    pub(crate) log_format: LogFormat,
}

/// [`AuthMode`] on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "lowercase")]
pub(crate) enum AuthModeArg {
    Legacy,
    Migration,
    Cluster,
}

impl From<AuthModeArg> for AuthMode {
    fn from(mode: AuthModeArg) -> Self {
        match mode {
            AuthModeArg::Legacy => Self::Legacy,
            AuthModeArg::Migration => Self::Migration,
            AuthModeArg::Cluster => Self::Cluster,
        }
    }
}

/// [`ExportMode`] on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ExportModeArg {
    #[value(name = "services")]
    Services,
    #[value(name = "services-and-endpointslices")]
    Both,
    #[value(name = "endpointslices-only")]
    EndpointSlices,
}

impl From<ExportModeArg> for ExportMode {
    fn from(mode: ExportModeArg) -> Self {
        match mode {
            ExportModeArg::Services => Self::Services,
            ExportModeArg::Both => Self::ServicesAndEndpointSlices,
            ExportModeArg::EndpointSlices => Self::EndpointSlicesOnly,
        }
    }
}

/// Which cluster is exported, checked.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) name: ClusterName,
    pub(crate) id: ClusterId,
    pub(crate) max: MaxClusters,
}

impl Args {
    /// Checks name, id and size of the mesh.
    pub(crate) fn cluster(&self) -> Result<Cluster> {
        let max = MaxClusters::try_from(self.max_connected_clusters).context("--max-connected-clusters")?;
        let name = ClusterName::new(self.cluster_name.clone()).context("--cluster-name")?;
        let id = ClusterId::new(self.cluster_id, max).context("--cluster-id")?;
        Ok(Cluster { name, id, max })
    }

    /// The certificate files, from --tls-dir or one by one.
    pub(crate) fn tls_files(&self) -> Result<TlsFiles> {
        let files = self.tls_dir.as_deref().map(TlsFiles::in_directory);
        let choose = |flag: &str, own: &Option<PathBuf>, there: Option<&PathBuf>| {
            own.as_ref().or(there).cloned().with_context(|| {
                format!(
                    "no {flag}: give --tls-dir with tls.crt, tls.key and ca.crt, or --cert, --key and --ca"
                )
            })
        };
        let pair = files.as_ref().map(|files| &files.pair);
        Ok(TlsFiles {
            pair: PairFiles::new(
                choose("--cert", &self.cert, pair.map(|pair| &pair.certificate))?,
                choose("--key", &self.key, pair.map(|pair| &pair.key))?,
            ),
            bundle: choose("--ca", &self.ca, files.as_ref().map(|files| &files.bundle))?,
        })
    }

    /// Checks what the file system can answer at once.
    pub(crate) fn check(&self) -> Result<()> {
        if !(25..=86_400).contains(&self.kvstore_lease_ttl) {
            bail!(
                "--kvstore-lease-ttl {}: give 25 to 86400 seconds",
                self.kvstore_lease_ttl
            );
        }
        check_directory(&self.manifests)
    }
}

fn check_directory(directory: &Path) -> Result<()> {
    let shown = directory.display();
    match std::fs::read_dir(directory) {
        Ok(_) => Ok(()),
        Err(error) => bail!(
            "--manifests {shown}: cannot be read ({error}); create the directory or give the one with the manifests"
        ),
    }
}
