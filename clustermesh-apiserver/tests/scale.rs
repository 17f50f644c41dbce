//! The size that the daemon is built for: 100,000 addresses and 1,000 services, against the budgets of a first list in 2 s and of
//! 150 MB (200 MB where the addresses come from pods; 20 MB with nothing to export). Budgets are those of an optimised daemon:
//!
//! ```text
//! cargo build --release -p clustermesh-apiserver
//! APISERVER=target/release/clustermesh-apiserver cargo test -p clustermesh-apiserver --test scale -- --nocapture --test-threads 1
//! ```

mod rig;

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use etcd_client::{Client, GetOptions};
use isthmus_testkit::{Process, wait_until_async};
use isthmus_trust::ClientName;
use rig::Rig;

const ADDRESSES: usize = 100_000;
const SERVICES: usize = 1_000;
const PATIENCE: Duration = Duration::from_secs(180);

/// A figure of /proc/PID/status in MB.
fn memory(server: &Process, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// What gives the addresses: a cluster with Cilium has endpoints, one without has pods, of which more must be remembered.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Endpoint,
    Pod,
}

fn write_manifests(rig: &Rig, kind: Kind) {
    for node in 0..100 {
        let mut text = String::new();
        let net = (node / 64 + 1, node % 64 * 4);
        write!(
            text,
            "apiVersion: v1\nkind: Node\nmetadata: {{name: n{node}}}\nspec: {{podCIDR: 10.{}.{}.0/22}}\nstatus: {{addresses: [{{type: InternalIP, address: 192.0.2.{node}}}]}}\n",
            net.0, net.1
        )
        .unwrap();
        for n in 0..ADDRESSES / 100 {
            let address = format!("10.{}.{}.{}", net.0, net.1 + n / 256, n % 256);
            let app = n % 50;
            match kind {
                Kind::Endpoint => write!(
                    text,
                    "---\napiVersion: cilium.io/v2\nkind: CiliumEndpoint\nmetadata: {{name: web-{node}-{n}, namespace: shop}}\nstatus: {{identity: {{id: {}}}, networking: {{node: 192.0.2.{node}, addressing: [{{ipv4: {address}}}]}}}}\n",
                    65_836 + app
                ),
                Kind::Pod => write!(
                    text,
                    "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: web-{node}-{n}, namespace: shop, labels: {{app: web-{app}}}}}\nspec: {{nodeName: n{node}, serviceAccountName: default, containers: [{{name: c, image: i}}]}}\nstatus: {{phase: Running, podIP: {address}, podIPs: [{{ip: {address}}}], hostIP: 192.0.2.{node}}}\n"
                ),
            }
            .unwrap();
        }
        rig.manifest(&format!("n{node}.yaml"), &text);
    }
    let mut text = String::new();
    for n in 0..SERVICES {
        write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{n}, namespace: shop, annotations: {{service.cilium.io/global: 'true'}}}}\nspec: {{clusterIP: 10.96.{}.{}, clusterIPs: [10.96.{}.{}], ports: [{{name: http, port: 80, protocol: TCP}}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s{n}-x, namespace: shop, labels: {{kubernetes.io/service-name: s{n}}}}}\naddressType: IPv4\nports: [{{name: http, port: 8080, protocol: TCP}}]\nendpoints: [{{addresses: [10.1.0.{}], conditions: {{ready: true}}}}]\n",
            n / 250, n % 250 + 1, n / 250, n % 250 + 1, n % 256
        )
        .unwrap();
    }
    rig.manifest("services.yaml", &text);
}

/// Lists a prefix as a mesh reader does; answers how many keys came.
async fn list(client: &mut Client, prefix: &str) -> usize {
    let (mut from, mut revision, mut count) = (prefix.as_bytes().to_vec(), 0, 0);
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().unwrap() += 1;
    loop {
        let options = GetOptions::new()
            .with_range(end.clone())
            .with_limit(256)
            .with_revision(revision);
        let response = client.get(from, Some(options)).await.unwrap();
        revision = response.header().unwrap().revision();
        count += response.kvs().len();
        if !response.more() {
            return count;
        }
        from = [response.kvs().last().unwrap().key(), &[0]].concat();
    }
}

fn command(rig: &Rig) -> Command {
    let good = rig.command();
    let mut command = Command::new(std::env::var_os("APISERVER").unwrap_or_default());
    command.args(good.get_args());
    command
}

/// These are budgets of what users run: `tests/run` names the optimised program.
fn optimised() -> bool {
    let named = std::env::var_os("APISERVER").is_some();
    if !named {
        println!("skipped: APISERVER does not name an optimised clustermesh-apiserver (make test does)");
    }
    named
}

async fn ready(rig: &Rig) {
    let admin = rig.admin();
    wait_until_async(PATIENCE, "ready", async || admin.text("/readyz").await.is_ok())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_costs_next_to_nothing() {
    if !optimised() {
        return;
    }
    let rig = Rig::new("east");
    let server = Process::start("clustermesh-apiserver", command(&rig)).unwrap();
    ready(&rig).await;
    println!("idle: {} MB resident", memory(&server, "VmRSS"));
    assert!(memory(&server, "VmRSS") <= 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_endpoints() {
    full(Kind::Endpoint, 150).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_pods() {
    full(Kind::Pod, 200).await;
}

async fn full(kind: Kind, most_memory: u64) {
    if !optimised() {
        return;
    }
    let rig = Rig::new("east");
    write_manifests(&rig, kind);
    let begun = Instant::now();
    let server = Process::start("clustermesh-apiserver", command(&rig)).unwrap();
    ready(&rig).await;
    println!(
        "{kind:?}s: ready after {:.2?}, {} MB resident",
        begun.elapsed(),
        memory(&server, "VmRSS")
    );
    let status = rig.status().await;
    println!(
        "{} keys, {} MB of versions, {} leases",
        status.store.keys,
        status.store.bytes >> 20,
        status.store.leases
    );
    assert!(
        status.manifest_errors.is_empty(),
        "{:?}",
        status.manifest_errors.first()
    );

    let mut client = rig.client(&ClientName::Remote).await;
    let mut times = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        let mut counts = Vec::new();
        for family in [
            "nodes/v1/east/",
            "identities/v1/id/",
            "ip/v1/default/",
            "services/v1/east/",
        ] {
            counts.push(list(&mut client, &format!("cilium/state/{family}")).await);
        }
        times.push(begun.elapsed());
        assert_eq!(counts[2..], [ADDRESSES, SERVICES], "{counts:?}");
    }
    times.sort_unstable();
    println!(
        "first list in pages of 256: median {:.0?}, {:.0?} to {:.0?}",
        times[2], times[0], times[4]
    );
    let (now, most) = (memory(&server, "VmRSS"), memory(&server, "VmHWM"));
    println!("after that: {now} MB resident, {most} MB at most");
    // The best of five: what else the machine does must not decide a test.
    assert!(times[0] <= Duration::from_secs(2), "{times:?}");
    assert!(now <= most_memory, "{now} MB of {most_memory}");
}
