//! A remote cluster made of Debian's etcd, certificates of its own, and a wire that can be cut:
//!
//! ```text
//!   RemoteClusters ── TLS ──▶ Wire (cut, mend) ──▶ etcd ◀── puts and deletes of the test
//!        ▲
//!   directory with the file of each cluster
//! ```
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use etcd_client::{
    Certificate, Client, CompactionOptions, ConnectOptions, DeleteOptions, Identity, TlsOptions,
};
use isthmus_remote_cluster::{Options, RemoteClusterState, RemoteClusters, RemoteSnapshot, Timing};
use isthmus_testkit::{Need, Process, free_tcp_port, needs};
use isthmus_topology::{ClusterId, ClusterName, MaxClusters};
use isthmus_trust::{Authority, ClientName, LeafRequest, PairFiles, ServerNames, Validity};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) type Outcome = Result<(), Box<dyn std::error::Error>>;
/// For whatever should happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) fn possible(test: &str) -> bool {
    let etcd = Need::Program {
        name: "etcd",
        package: "etcd-server",
    };
    needs(test, &[etcd])
}

pub(crate) fn name(text: &str) -> ClusterName {
    ClusterName::new(text).expect("a cluster name")
}

/// Certificates: an authority, a server that is any `*.mesh.cilium.io`, and the client `remote`.
pub(crate) struct Certificates {
    pub(crate) dir: PathBuf,
}

impl Certificates {
    pub(crate) fn make(dir: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        std::fs::create_dir_all(dir)?;
        let now = jiff::Timestamp::now();
        let (ca, _) = Authority::ensure("test CA", &dir.join("ca.crt"), &dir.join("ca.key"), now)?;
        let server = LeafRequest::server(&ServerNames::default(), Validity::days(now, 30))?;
        ca.ensure_leaf(
            &server,
            &PairFiles::new(dir.join("server.crt"), dir.join("server.key")),
            now,
        )?;
        let client = LeafRequest::client(&ClientName::Remote, Validity::days(now, 30));
        ca.ensure_leaf(
            &client,
            &PairFiles::new(dir.join("remote.crt"), dir.join("remote.key")),
            now,
        )?;
        Ok(Self { dir: dir.to_owned() })
    }
}

/// One etcd with an empty history.
pub(crate) struct Etcd {
    pub(crate) port: u16,
    process: Process,
    _data: tempfile::TempDir,
    client: Client,
}

impl Etcd {
    pub(crate) async fn start(
        certificates: &Certificates,
        port: u16,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let data = tempfile::tempdir()?;
        let peer = format!("http://127.0.0.1:{}", free_tcp_port()?);
        let url = format!("https://127.0.0.1:{port}");
        let mut command = Command::new("etcd");
        let file = |name: &str| certificates.dir.join(name).display().to_string();
        command
            .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH)
            .args([
                "--name=test".to_owned(),
                format!("--data-dir={}", data.path().display()),
                format!("--listen-client-urls={url}"),
                format!("--advertise-client-urls={url}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster=test={peer}"),
                // The etcd's cluster id comes from the peer's URL and this token: a new history has a new id.
                format!("--initial-cluster-token={}", data.path().display()),
                format!("--cert-file={}", file("server.crt")),
                format!("--key-file={}", file("server.key")),
                format!("--trusted-ca-file={}", file("ca.crt")),
                "--client-cert-auth".to_owned(),
                "--logger=zap".to_owned(),
                "--unsafe-no-fsync".to_owned(),
            ]);
        let process = Process::start("etcd", command)?;
        let client = connect(certificates, &url).await?;
        Ok(Self {
            port,
            process,
            _data: data,
            client,
        })
    }

    pub(crate) async fn put(&self, key: &str, value: impl Into<Vec<u8>>) -> Outcome {
        self.client.clone().put(key, value, None).await?;
        Ok(())
    }

    pub(crate) async fn delete(&self, key: &str) -> Outcome {
        self.client.clone().delete(key, None).await?;
        Ok(())
    }

    pub(crate) async fn delete_all(&self, prefix: &str) -> Outcome {
        let options = DeleteOptions::new().with_prefix();
        self.client.clone().delete(prefix, Some(options)).await?;
        Ok(())
    }

    /// All values under a prefix.
    pub(crate) async fn values(&self, prefix: &str) -> Result<Vec<Vec<u8>>, Box<dyn std::error::Error>> {
        let options = etcd_client::GetOptions::new().with_prefix();
        let reply = self.client.clone().get(prefix, Some(options)).await?;
        Ok(reply.kvs().iter().map(|kv| kv.value().to_vec()).collect())
    }

    /// Everything up to now is compacted away.
    pub(crate) async fn compact(&self) -> Outcome {
        let mut client = self.client.clone();
        let reply = client.get("x", None).await?;
        let revision = reply
            .header()
            .map(etcd_client::ResponseHeader::revision)
            .unwrap_or_default();
        let options = CompactionOptions::new().with_physical();
        // Compacting the same revision twice is refused, and changes nothing.
        match client.compact(revision, Some(options)).await {
            Err(error) if !error.to_string().contains("compacted") => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Puts what the real exporter was recorded to write.
    pub(crate) async fn load(&self, cluster: &str) -> Outcome {
        for (key, value) in entries(cluster) {
            self.put(&key, value).await?;
        }
        Ok(())
    }

    pub(crate) fn kill(&mut self) -> Outcome {
        self.process.kill()?;
        Ok(())
    }
}

async fn connect(certificates: &Certificates, url: &str) -> Result<Client, Box<dyn std::error::Error>> {
    let read = |name: &str| std::fs::read(certificates.dir.join(name));
    let tls = TlsOptions::new()
        .ca_certificate(Certificate::from_pem(read("ca.crt")?))
        .identity(Identity::from_pem(read("remote.crt")?, read("remote.key")?));
    let options = ConnectOptions::new().with_tls(tls);
    let deadline = Instant::now() + SOON;
    let mut client = Client::connect([url], Some(options)).await?;
    loop {
        match client.get("x", None).await {
            Ok(_) => return Ok(client),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// What of a recording belongs to `clustera` as itself, or to `clusterb` as KVStoreMesh copies it.
pub(crate) fn entries(cluster: &str) -> Vec<(String, Vec<u8>)> {
    let dump = include_str!("../../../../tests/replay/clustermesh-1.20/export-clustera.txt");
    let tree = if cluster == "clustera" {
        "cilium/state/"
    } else {
        "cilium/cache/"
    };
    let (config, synced) = (
        format!("cilium/cluster-config/{cluster}"),
        format!("cilium/synced/{cluster}/"),
    );
    let entry = |block: &str| {
        let key = block.lines().next()?;
        let value = block.lines().find_map(|line| line.strip_prefix("VALUE "))?;
        let value = match value.split_once("base64:") {
            Some((_, text)) if value.starts_with("zstd frame") => base64(text),
            _ => value.into(),
        };
        Some((key.to_owned(), value))
    };
    let ours = |key: &str| {
        key.starts_with(tree) || key.starts_with(&synced) || key == config || key == "cilium/.heartbeat"
    };
    dump.split("KEY   ")
        .filter_map(entry)
        .filter(|(key, _)| ours(key))
        .collect()
}

fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut have) = (Vec::new(), 0_u32, 0);
    for digit in text.bytes().filter_map(|c| ALPHABET.iter().position(|a| *a == c)) {
        bits = (bits << 6) | u32::try_from(digit).expect("6 bits");
        have += 6;
        if have >= 8 {
            have -= 8;
            bytes.push(((bits >> have) & 0xff).try_into().expect("8 bits"));
        }
    }
    bytes
}

/// A TCP forwarder between client and etcd that can be cut.
pub(crate) struct Wire {
    pub(crate) port: u16,
    up: Arc<AtomicBool>,
    cut: watch::Sender<u32>,
    _accept: tokio::task::JoinHandle<()>,
}

impl Wire {
    pub(crate) async fn to(target: u16) -> Result<Self, Box<dyn std::error::Error>> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let up = Arc::new(AtomicBool::new(true));
        let (cut, was_cut) = watch::channel(0);
        let is_up = Arc::clone(&up);
        let accept = tokio::spawn(async move {
            let mut streams = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                if !is_up.load(Ordering::SeqCst) {
                    continue;
                }
                let mut was_cut = was_cut.clone();
                was_cut.mark_unchanged();
                streams.spawn(async move {
                    let Ok(mut server) = TcpStream::connect(("127.0.0.1", target)).await else {
                        return;
                    };
                    let _ = client.set_nodelay(true).and(server.set_nodelay(true));
                    tokio::select! {
                        _ = was_cut.changed() => {}
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    }
                });
            }
        });
        Ok(Self {
            port,
            up,
            cut,
            _accept: accept,
        })
    }

    pub(crate) fn cut(&self) {
        self.up.store(false, Ordering::SeqCst);
        self.cut.send_modify(|n| *n += 1);
    }

    pub(crate) fn mend(&self) {
        self.up.store(true, Ordering::SeqCst);
    }
}

/// A node of cluster `east` (id 9) with its configuration directory.
pub(crate) struct Node {
    _dir: tempfile::TempDir,
    pub(crate) certificates: Certificates,
    pub(crate) options: Options,
}

impl Node {
    pub(crate) fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let certificates = Certificates::make(&dir.path().join("certs"))?;
        let conf = dir.path().join("clustermesh");
        std::fs::create_dir(&conf)?;
        let id = ClusterId::new(9, MaxClusters::C255)?;
        let mut options = Options::new(conf, name("east"), id);
        options.timing = Timing {
            reconnect_min: Duration::from_millis(20),
            reconnect_max: Duration::from_millis(200),
            ..Timing::default()
        };
        Ok(Self {
            _dir: dir,
            certificates,
            options,
        })
    }

    /// Writes the file of a cluster as Cilium's chart does: by its name in the mesh, with the address as an alias.
    pub(crate) fn configure(&self, cluster: &str, port: u16) -> Outcome {
        let file = |name: &str| self.certificates.dir.join(name).display().to_string();
        let text = format!(
            "endpoints:\n- https://{cluster}.mesh.cilium.io:{port}\ntrusted-ca-file: {}\ncert-file: {}\nkey-file: {}\n\
             cilium-host-aliases:\n- hostname: {cluster}.mesh.cilium.io\n  ips: [127.0.0.1]\n",
            file("ca.crt"),
            file("remote.crt"),
            file("remote.key"),
        );
        self.write(cluster, &text)
    }

    pub(crate) fn write(&self, cluster: &str, text: &str) -> Outcome {
        std::fs::write(self.options.directory.join(cluster), text)?;
        Ok(())
    }

    pub(crate) fn remove(&self, cluster: &str) -> Outcome {
        std::fs::remove_file(self.options.directory.join(cluster))?;
        Ok(())
    }

    pub(crate) fn start(&self) -> Follower {
        let clusters = RemoteClusters::start(self.options.clone());
        Follower {
            snapshots: clusters.subscribe(),
            clusters,
        }
    }
}

/// A consumer of snapshots.
pub(crate) struct Follower {
    pub(crate) clusters: RemoteClusters,
    pub(crate) snapshots: watch::Receiver<Arc<RemoteSnapshot>>,
}

impl Follower {
    /// Waits for a snapshot that holds; says what the last one was if none does.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        holds: impl Fn(&RemoteSnapshot) -> bool,
    ) -> Result<Arc<RemoteSnapshot>, Box<dyn std::error::Error>> {
        let wait = tokio::time::timeout(SOON, self.snapshots.wait_for(|snapshot| holds(snapshot)));
        match wait.await {
            Ok(snapshot) => Ok(snapshot?.clone()),
            Err(_) => {
                let last = self.clusters.snapshot();
                let statuses: Vec<_> = last.clusters.values().map(|c| &c.status).collect();
                Err(format!("waited in vain until {what}: {statuses:#?} {:?}", last.problems).into())
            }
        }
    }

    /// Waits for a state of one cluster that holds.
    pub(crate) async fn cluster(
        &mut self,
        cluster: &str,
        what: &str,
        holds: impl Fn(&RemoteClusterState) -> bool,
    ) -> Result<Arc<RemoteClusterState>, Box<dyn std::error::Error>> {
        let name = name(cluster);
        let snapshot = self
            .until(what, |s| s.clusters.get(&name).is_some_and(|c| holds(c)))
            .await?;
        Ok(Arc::clone(&snapshot.clusters[&name]))
    }

    pub(crate) async fn ready(
        &mut self,
        cluster: &str,
    ) -> Result<Arc<RemoteClusterState>, Box<dyn std::error::Error>> {
        self.cluster(cluster, "it is ready", |c| c.status.ready).await
    }
}
