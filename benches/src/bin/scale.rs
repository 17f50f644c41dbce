//! One cluster with many endpoints: how much memory its apiserver takes, and how long an agent's first sync lasts.
//!
//! ```text
//!   manifests (100,000 endpoints, 1,000 services) ─▶ clustermesh-apiserver ══mTLS, loopback══▶ client of an agent
//! ```
//! Budget: first sync ≤ 2 s, apiserver ≤ 150 MB; with an empty directory ≤ 20 MB.
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use isthmus_admin::AdminClient;
use isthmus_remote_cluster::{Options, RemoteClusters};
use isthmus_testkit::{Process, free_tcp_port, wait_until_async};
use isthmus_topology::{ClusterId, ClusterName, MaxClusters};
use isthmus_trust::{Authority, ClientName, LeafRequest, PairFiles, ServerNames, Validity};
use jiff::Timestamp;

/// Measures the apiserver's memory and an agent's first sync.
#[derive(Debug, Parser)]
struct Args {
    /// Endpoints, one ip entry each.
    #[arg(long, default_value_t = 100_000)]
    endpoints: u32,
    /// Global services, two backends each.
    #[arg(long, default_value_t = 1_000)]
    services: u32,
    /// How often the first sync is measured.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// The apiserver to measure.
    #[arg(long, default_value = "target/release/clustermesh-apiserver")]
    apiserver: PathBuf,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let args = Args::parse();
    let dir = tempfile::tempdir()?;
    issue_certificates(dir.path())?;

    std::fs::create_dir(dir.path().join("empty"))?;
    let idle = start(&args, dir.path(), "empty", free_tcp_port()?).await?;
    println!(
        "apiserver, nothing to export: {} MB resident",
        memory(&idle, "VmRSS")?
    );
    drop(idle);

    write_cluster(&dir.path().join("full"), &args)?;
    let port = free_tcp_port()?;
    let begun = Instant::now();
    let server = start(&args, dir.path(), "full", port).await?;
    println!(
        "apiserver, {} endpoints and {} services: ready after {:.2?}",
        args.endpoints,
        args.services,
        begun.elapsed()
    );
    write_peer(dir.path(), port)?;
    let mut times = Vec::new();
    for _ in 0..args.runs {
        times.push(first_sync(dir.path(), &args).await?);
    }
    times.sort_unstable();
    let (low, high) = (times[0], times[times.len() - 1]);
    println!(
        "first sync of an agent: median {:.2?} ({low:.2?} to {high:.2?}, {} runs)",
        times[times.len() / 2],
        times.len()
    );
    println!(
        "apiserver after that: {} MB resident, {} MB at most",
        memory(&server, "VmRSS")?,
        memory(&server, "VmHWM")?
    );
    Ok(())
}

/// Starts an apiserver of cluster `big` over a directory of manifests and waits until it is ready.
async fn start(args: &Args, dir: &Path, manifests: &str, port: u16) -> Result<Process> {
    let admin = dir.join(format!("{manifests}.sock"));
    let mut command = Command::new(&args.apiserver);
    command.args([
        "--cluster-name",
        "big",
        "--cluster-id",
        "7",
        "--listen",
        &format!("127.0.0.1:{port}"),
    ]);
    command
        .arg("--manifests")
        .arg(dir.join(manifests))
        .arg("--admin-socket")
        .arg(&admin);
    command
        .arg("--cert")
        .arg(dir.join("server.crt"))
        .arg("--key")
        .arg(dir.join("server.key"));
    command.arg("--ca").arg(dir.join("ca.crt"));
    let server = Process::start("clustermesh-apiserver", command).context("build it first: make build")?;
    let client = AdminClient::new(admin);
    wait_until_async(Duration::from_secs(120), "the apiserver is ready", async || {
        client.text("/readyz").await.is_ok()
    })
    .await
    .with_context(|| server.log())?;
    Ok(server)
}

/// A fresh client of the cluster: how long until every table is complete?
async fn first_sync(dir: &Path, args: &Args) -> Result<Duration> {
    let options = Options::new(
        dir.join("peers"),
        ClusterName::new("me")?,
        ClusterId::new(1, MaxClusters::C255)?,
    );
    let begun = Instant::now();
    let clusters = RemoteClusters::start(options);
    let mut snapshots = clusters.subscribe();
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        if snapshot.ready() && snapshot.clusters.len() == 1 {
            let taken = begun.elapsed();
            let big = snapshot.clusters.values().next().context("one cluster")?;
            ensure!(
                big.ips.len() >= args.endpoints as usize,
                "only {} ip entries came",
                big.ips.len()
            );
            ensure!(
                big.services.len() == args.services as usize,
                "only {} services came",
                big.services.len()
            );
            return Ok(taken);
        }
        tokio::time::timeout(Duration::from_secs(60), snapshots.changed())
            .await
            .context("no first sync in 60 s")??;
    }
}

fn issue_certificates(dir: &Path) -> Result<()> {
    let now = Timestamp::now();
    let (ca, _) = Authority::ensure("big", &dir.join("ca.crt"), &dir.join("ca.key"), now)?;
    let server = LeafRequest::server(&ServerNames::default(), Validity::days(now, 2))?;
    ca.ensure_leaf(
        &server,
        &PairFiles::new(dir.join("server.crt"), dir.join("server.key")),
        now,
    )?;
    let remote = LeafRequest::client(&ClientName::Remote, Validity::days(now, 2));
    ca.ensure_leaf(
        &remote,
        &PairFiles::new(dir.join("remote.crt"), dir.join("remote.key")),
        now,
    )?;
    Ok(())
}

/// Cilium's configuration of one remote cluster (spec §3.1).
fn write_peer(dir: &Path, port: u16) -> Result<()> {
    std::fs::create_dir(dir.join("peers"))?;
    let at = dir.display();
    let text = format!(
        "endpoints:\n- https://127.0.0.1:{port}\ntrusted-ca-file: {at}/ca.crt\nkey-file: {at}/remote.key\ncert-file: {at}/remote.crt\n"
    );
    std::fs::write(dir.join("peers/big"), text)?;
    Ok(())
}

/// Writes the cluster as a hundred files of CiliumEndpoints and one of everything else.
fn write_cluster(dir: &Path, args: &Args) -> Result<()> {
    std::fs::create_dir(dir)?;
    let mut head = String::from("apiVersion: v1\nkind: Namespace\nmetadata: {name: load}\n");
    for identity in 0..500 {
        let id = (7 << 16) + 1000 + identity;
        write!(
            head,
            "---\napiVersion: cilium.io/v2\nkind: CiliumIdentity\nmetadata: {{name: \"{id}\"}}\nsecurity-labels: {{\"k8s:app\": app-{identity}, \
             \"k8s:io.cilium.k8s.policy.cluster\": big, \"k8s:io.kubernetes.pod.namespace\": load}}\n"
        )?;
    }
    for service in 0..args.services {
        write_service(&mut head, service)?;
    }
    std::fs::write(dir.join("services.yaml"), head)?;
    for file in 0..100 {
        let mut text = String::new();
        for endpoint in (file..args.endpoints).step_by(100) {
            write_endpoint(&mut text, endpoint)?;
        }
        std::fs::write(dir.join(format!("endpoints-{file:02}.yaml")), text)?;
    }
    Ok(())
}

fn address(endpoint: u32) -> String {
    format!(
        "10.{}.{}.{}",
        64 + (endpoint >> 16),
        endpoint >> 8 & 255,
        endpoint & 255
    )
}

fn write_endpoint(text: &mut String, endpoint: u32) -> Result<()> {
    let (id, ip) = ((7 << 16) + 1000 + endpoint % 500, address(endpoint));
    let node = endpoint / 100;
    write!(
        text,
        "---\napiVersion: cilium.io/v2\nkind: CiliumEndpoint\nmetadata: {{name: pod-{endpoint}, namespace: load}}\nstatus:\n  identity: \
         {{id: {id}}}\n  networking: {{node: 172.16.{}.{}, addressing: [{{ipv4: {ip}}}]}}\n  state: ready\n",
        node >> 8,
        node & 255
    )?;
    Ok(())
}

fn write_service(text: &mut String, service: u32) -> Result<()> {
    let (a, b) = (address(service * 2), address(service * 2 + 1));
    write!(
        text,
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: svc-{service}, namespace: load, annotations: {{service.cilium.io/global: \
         \"true\"}}}}\nspec: {{clusterIP: 172.20.{}.{}, clusterIPs: [172.20.{}.{}], ports: [{{name: http, port: 80, targetPort: 8080, protocol: \
         TCP}}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: svc-{service}-a, namespace: load, labels: \
         {{kubernetes.io/service-name: svc-{service}}}}}\naddressType: IPv4\nports: [{{name: http, port: 8080, protocol: TCP}}]\nendpoints:\n- \
         {{addresses: [{a}], conditions: {{ready: true}}}}\n- {{addresses: [{b}], conditions: {{ready: true}}}}\n",
        service >> 8,
        service & 255,
        service >> 8,
        service & 255
    )?;
    Ok(())
}

/// A memory figure of a process in MB, from `/proc/PID/status`.
fn memory(process: &Process, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
    let line = status
        .lines()
        .find(|line| line.starts_with(field))
        .context("no such field")?;
    let kb: u64 = line.split_whitespace().nth(1).context("no value")?.parse()?;
    Ok(kb / 1024)
}
