//! The processes of a cluster: how each is started, and the files that they read.
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use isthmus_trust::{Authority, LeafRequest, PairFiles, ServerNames, Validity};
use jiff::Timestamp;

use super::manifest;
use super::paths::{Paths, own_program};
use super::plan::{Cluster, ECHO_PORT, Node, Plan, Pod, TOR_AS, UPLINK};
use super::process::Spec;
use crate::context::{ClusterFile, Context};
use crate::failure::{Doing, Failure, Outcome};

/// Days for which the lab's certificates are good.
const CERTIFICATE_DAYS: u16 = 365;
/// Port of the etcd API.
const ETCD_PORT: u16 = 2379;

/// The daemons that `lab up` starts.
pub(crate) const PROGRAMS: [&str; 3] = ["clustermesh-apiserver", "isthmus-agent", "bgp-speaker"];

/// Writes a cluster's directory: objects, certificates, configurations.
pub(crate) fn write_files(paths: &Paths, cluster: &Cluster) -> Outcome {
    let dir = paths.cluster(&cluster.name);
    for sub in ["pki", "clustermesh", "run", "state"] {
        let sub = dir.join(sub);
        fs::create_dir_all(&sub).doing(format!("make {}", sub.display()))?;
    }
    manifest::write_cluster(&dir.join("manifests"), cluster)?;
    write_certificates(&dir.join("pki"), cluster)?;
    for node in &cluster.nodes {
        let file = dir.join(format!("{}.bgp.yaml", node.name));
        fs::write(&file, speaker_conf(cluster, node)).doing(format!("write {}", file.display()))?;
    }
    Context::save(&dir, &cluster_file(cluster))
}

fn cluster_file(cluster: &Cluster) -> ClusterFile {
    ClusterFile {
        name: cluster.name.clone(),
        id: cluster.id.into(),
        max_connected_clusters: 255,
        pod_cidrs: cluster.pod_cidrs.to_vec(),
        endpoints: vec![format!("https://{}:{ETCD_PORT}", cluster.control.uplink.ip())],
        nodes: cluster.nodes.iter().map(|n| n.name.clone()).collect(),
    }
}

fn write_certificates(pki: &Path, cluster: &Cluster) -> Outcome {
    let doing = || format!("make the certificates of {}", cluster.name);
    let now = Timestamp::now();
    let name = format!("Isthmus CA {}", cluster.name);
    let (authority, _) =
        Authority::ensure(&name, &pki.join("ca.crt"), &pki.join("ca.key"), now).doing(doing())?;
    let names = ServerNames {
        ips: cluster
            .control
            .uplink
            .own
            .iter()
            .map(ipnet::IpNet::addr)
            .collect(),
        ..ServerNames::default()
    };
    let request = LeafRequest::server(&names, Validity::days(now, CERTIFICATE_DAYS)).doing(doing())?;
    let files = PairFiles::new(pki.join("server.crt"), pki.join("server.key"));
    authority.ensure_leaf(&request, &files, now).doing(doing())?;
    Ok(())
}

/// Hold time 3 s, graceful restart 2 s: a speaker that is killed has so long to come back, and a node that vanishes is left
/// by the router after five seconds at most.
fn speaker_conf(cluster: &Cluster, node: &Node) -> String {
    let mut text = format!(
        "localASN: {}\nrouterID: {}\npeers:\n",
        cluster.asn,
        node.uplink.ip()
    );
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "- name: tor\n  peerAddress: {}\n  peerASN: {TOR_AS}\n  holdTimeSeconds: 3\n  connectRetryTimeSeconds: 1\n  \
         gracefulRestart: {{enabled: true, restartTimeSeconds: 2}}\n",
        node.uplink.tor[0].addr()
    );
    text
}

/// Fails if a daemon's program is not there.
pub(crate) fn check_programs() -> Outcome {
    let missing: Vec<_> = PROGRAMS
        .into_iter()
        .filter(|p| own_program(p).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::unreachable("the lab's daemons are not all there")
        .because(format!(
            "neither beside meshctl nor on PATH: {}",
            missing.join(", ")
        ))
        .next("make build"))
}

/// The cluster's clustermesh-apiserver, in its control plane's namespace.
pub(crate) fn apiserver(plan: &Plan, paths: &Paths, cluster: &Cluster) -> Outcome<Spec> {
    let dir = paths.cluster(&cluster.name);
    let listen = format!("{}:{ETCD_PORT}", cluster.control.uplink.ip());
    let args = [
        ("--cluster-name", cluster.name.clone()),
        ("--cluster-id", cluster.id.to_string()),
        ("--manifests", text(&dir.join("manifests"))),
        ("--listen", listen),
        ("--cert", text(&dir.join("pki/server.crt"))),
        ("--key", text(&dir.join("pki/server.key"))),
        ("--ca", text(&dir.join("pki/ca.crt"))),
        ("--state-dir", text(&dir.join("state"))),
        ("--admin-socket", text(&dir.join("run/apiserver.sock"))),
    ];
    daemon(
        plan,
        paths,
        "apiserver",
        &cluster.name,
        &cluster.control.name,
        "clustermesh-apiserver",
        &args,
    )
}

/// A node's agent.
pub(crate) fn agent(plan: &Plan, paths: &Paths, cluster: &Cluster, node: &Node) -> Outcome<Spec> {
    let dir = paths.cluster(&cluster.name);
    let pins = paths.bpf().join(&node.name);
    let args = [
        ("--cluster-name", cluster.name.clone()),
        ("--cluster-id", cluster.id.to_string()),
        ("--node-name", node.name.clone()),
        ("--manifests", text(&dir.join("manifests"))),
        ("--clustermesh-config", text(&dir.join("clustermesh"))),
        ("--pin-dir", text(&pins)),
        ("--cgroup", text(&paths.cgroup.join(&node.name))),
        ("--uplink", UPLINK.to_owned()),
        // One machine carries the maps of all nodes.
        ("--map-size", "small".to_owned()),
        (
            "--admin-socket",
            text(&dir.join(format!("run/{}.agent.sock", node.name))),
        ),
    ];
    daemon(
        plan,
        paths,
        "agent",
        &node.name,
        &node.name,
        "isthmus-agent",
        &args,
    )
}

/// A node's speaker.
pub(crate) fn speaker(plan: &Plan, paths: &Paths, cluster: &Cluster, node: &Node) -> Outcome<Spec> {
    let dir = paths.cluster(&cluster.name);
    let args = [
        ("--cluster-name", cluster.name.clone()),
        ("--cluster-id", cluster.id.to_string()),
        ("--node-name", node.name.clone()),
        ("--manifests", text(&dir.join("manifests"))),
        ("--config", text(&dir.join(format!("{}.bgp.yaml", node.name)))),
        (
            "--agent-socket",
            text(&dir.join(format!("run/{}.agent.sock", node.name))),
        ),
        (
            "--admin-socket",
            text(&dir.join(format!("run/{}.bgp.sock", node.name))),
        ),
    ];
    daemon(
        plan,
        paths,
        "speaker",
        &node.name,
        &node.name,
        "bgp-speaker",
        &args,
    )
}

/// The echo server of a pod.
pub(crate) fn echo(plan: &Plan, paths: &Paths, cluster: &Cluster, pod: &Pod) -> Outcome<Spec> {
    let role = format!("pod:{}", pod.name);
    let who = format!("{} {} {}", cluster.name, pod.node, pod.name);
    let args = ["__echo", "--who", &who, "--port", &ECHO_PORT.to_string()];
    Ok(Spec {
        netns: plan.netns(&pod.name),
        cgroup: place_cgroup(plan, paths, &pod.name),
        program: std::env::current_exe().doing("find meshctl itself")?,
        args: args.map(str::to_owned).to_vec(),
        log: paths.log(&role),
        role,
    })
}

/// The control group of what runs in a place: pods and daemons are below their node, where its socket load balancing is.
pub(crate) fn place_cgroup(plan: &Plan, paths: &Paths, place: &str) -> PathBuf {
    match plan.node_of(place) {
        Some(node) if node != place => paths.cgroup.join(node).join(place),
        _ => paths.cgroup.join(place),
    }
}

fn daemon(
    plan: &Plan,
    paths: &Paths,
    kind: &str,
    whose: &str,
    place: &str,
    program: &str,
    args: &[(&str, String)],
) -> Outcome<Spec> {
    let program = own_program(program)
        .ok_or_else(|| Failure::unreachable(format!("{program} was not found")).next("make build"))?;
    let role = format!("{kind}:{whose}");
    Ok(Spec {
        netns: plan.netns(place),
        cgroup: place_cgroup(plan, paths, place),
        program,
        args: args
            .iter()
            .flat_map(|(flag, value)| [(*flag).to_owned(), value.clone()])
            .collect(),
        log: paths.log(&role),
        role,
    })
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
