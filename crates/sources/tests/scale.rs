//! A large cluster is read whole, whatever the sizes of its files, and follows changes. It prints its times; figures that
//! count are `benches/src/bin/scale.rs`'s, ten times as large and optimised.
mod rig;

use std::fmt::Write as _;
use std::time::Instant;

use isthmus_sources::Source;
use rig::service;

const OBJECTS: u32 = 10_000;

fn endpoint(n: u32) -> String {
    let (a, b, c) = (n >> 16, (n >> 8) & 255, n & 255);
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumEndpoint\nmetadata: {{name: pod-{n}, namespace: demo}}\nstatus:\n  \
         identity: {{id: {}}}\n  networking: {{node: 192.0.2.1, addressing: [{{ipv4: 10.{a}.{b}.{c}}}]}}\n  state: ready\n---\n",
        65_536 + n % 500 + 1
    )
}

fn pod(n: u32) -> String {
    let (a, b, c) = (n >> 16, (n >> 8) & 255, n & 255);
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: pod-{n}, namespace: demo, labels: {{app: app-{}}}}}\nspec: {{nodeName: n}}\n\
         status: {{phase: Running, podIP: 10.{a}.{b}.{c}, hostIP: 192.0.2.1}}\n---\n",
        n % 500
    )
}

/// Resident memory in MB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("Linux");
    let number = line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok());
    number.expect("a number") / 1024
}

async fn load(what: &str, objects_per_file: u32, object: impl Fn(u32) -> String) {
    let directory = tempfile::tempdir().expect("a directory");
    for file in 0..OBJECTS / objects_per_file {
        let mut text = String::new();
        for n in 0..objects_per_file {
            text.push_str(&object(file * objects_per_file + n));
        }
        std::fs::write(directory.path().join(format!("pods-{file}.yaml")), text).expect("written");
    }
    let mut services = String::new();
    for n in 0..1000 {
        let _ = writeln!(
            services,
            "{}---",
            service(&format!("s{n}"), &format!("10.96.{}.{}", n / 250, n % 250))
        );
    }
    std::fs::write(directory.path().join("services.yaml"), services).expect("written");
    let before = resident();
    let start = Instant::now();
    let mut source = Source::directory(directory.path(), rig::settings())
        .await
        .expect("a source");
    let snapshot = source.changed().await;
    let loaded = start.elapsed();
    assert_eq!(
        (snapshot.ips.len(), snapshot.services.len()),
        (OBJECTS as usize, 1000),
        "{:?}",
        snapshot.problems.first()
    );
    let memory = resident() - before;
    let start = Instant::now();
    std::fs::write(directory.path().join("one.yaml"), service("late", "10.97.0.1")).expect("written");
    source.changed().await;
    let service_change = start.elapsed();
    let start = Instant::now();
    std::fs::write(directory.path().join("two.yaml"), object(OBJECTS + 1)).expect("written");
    source.changed().await;
    let pod_change = start.elapsed();
    println!(
        "{what}, {objects_per_file} in a file: loaded in {loaded:?}, {memory} MB; a service changes in {service_change:?}, \
         a pod in {pod_change:?}"
    );
}

#[tokio::test]
async fn many_pods() {
    load("10,000 CiliumEndpoints", OBJECTS, endpoint).await;
    load("10,000 CiliumEndpoints", 1000, endpoint).await;
    load("10,000 Pods", 1000, pod).await;
}
