//! The client against Debian's etcd, filled with what Cilium's own exporter was recorded to write (1.20): the cluster
//! `clustera` (id 1) as itself, `clusterb` (id 2) as KVStoreMesh copies it.
mod disturbances;
mod following;
mod refusals;
#[path = "../rig/mod.rs"]
mod rig;

use isthmus_topology::ServiceName;
use rig::{Etcd, Node, Wire};

const WEB: &str = "cilium/state/services/v1/clustera/demo/web";
const IP: &str = "cilium/state/ip/v1/default/10.1.0.21";

fn recorded(key: &str) -> String {
    let found = rig::entries("clustera").into_iter().find(|(k, _)| k == key);
    String::from_utf8(found.expect("recorded").1).expect("text")
}

fn web() -> ServiceName {
    ServiceName::new("demo", "web").expect("a name")
}

/// An etcd with clustera's state, behind a wire, in the configuration.
async fn clustera(node: &Node) -> Result<(Etcd, Wire), Box<dyn std::error::Error>> {
    let etcd = Etcd::start(&node.certificates, isthmus_testkit::free_tcp_port()?).await?;
    etcd.load("clustera").await?;
    let wire = Wire::to(etcd.port).await?;
    node.configure("clustera", wire.port)?;
    Ok((etcd, wire))
}
