//! A cluster as a directory: what `connect` and the listings need to know of it. The lab writes one for each of its
//! clusters; on virtual machines and bare metal people or their tools write the same.
//!
//! ```text
//! east/
//!   cluster.yaml            name, id, pod CIDRs, how to reach its clustermesh-apiserver
//!   pki/ca.crt  ca.key      its authority (the key is needed only where certificates are issued)
//!   pki/server.crt|key      the clustermesh-apiserver's certificate
//!   clustermesh/            what its agents read: Cilium's configuration directory, one file for each peer
//!   manifests/              its objects as ordinary Kubernetes manifests
//!   run/apiserver.sock      the admin sockets of its daemons
//!   run/NODE.agent.sock  run/NODE.bgp.sock
//! ```
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::cli::Scope;
use crate::failure::{Doing, Failure, Outcome};
use crate::lab::Lab;

/// What cluster.yaml says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ClusterFile {
    /// Name, unique in the mesh.
    pub(crate) name: String,
    /// Id, unique in the mesh.
    pub(crate) id: u32,
    /// 255 or 511, equal in the whole mesh.
    #[serde(default = "default_max")]
    pub(crate) max_connected_clusters: u32,
    /// Addresses of its pods: no other cluster may use them.
    #[serde(rename = "podCIDRs")]
    pub(crate) pod_cidrs: Vec<IpNet>,
    /// How peers reach its clustermesh-apiserver, e.g. `https://172.30.1.2:2379`.
    pub(crate) endpoints: Vec<String>,
    /// Its nodes: each has an agent, and perhaps a speaker.
    pub(crate) nodes: Vec<String>,
}

fn default_max() -> u32 {
    255
}

/// A cluster's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Context {
    /// Where it is.
    pub(crate) dir: PathBuf,
    /// What its cluster.yaml says.
    pub(crate) cluster: ClusterFile,
}

impl Context {
    /// Reads a cluster's directory.
    pub(crate) fn load(dir: &Path) -> Outcome<Self> {
        let file = dir.join("cluster.yaml");
        let text = std::fs::read_to_string(&file).map_err(|e| {
            Failure::usage(format!("{} is no cluster's directory", dir.display()))
                .because(format!("{}: {e}", file.display()))
                .next("name a lab's cluster, or a directory with a cluster.yaml, or use --context-dir")
        })?;
        let cluster = serde_saphyr::from_str(&text).map_err(|e| {
            Failure::usage(format!("cannot read {}", file.display()))
                .because(e)
                .next("it needs name, id, podCIDRs, endpoints and nodes")
        })?;
        Ok(Self {
            dir: dir.into(),
            cluster,
        })
    }

    /// Writes cluster.yaml.
    pub(crate) fn save(dir: &Path, cluster: &ClusterFile) -> Outcome {
        let text = serde_saphyr::to_string(cluster).doing("write cluster.yaml")?;
        let file = dir.join("cluster.yaml");
        std::fs::write(&file, text).doing(format!("write {}", file.display()))
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.cluster.name
    }

    /// A file of its public key infrastructure.
    pub(crate) fn pki(&self, file: &str) -> PathBuf {
        self.dir.join("pki").join(file)
    }

    /// What its agents read.
    pub(crate) fn clustermesh(&self) -> PathBuf {
        self.dir.join("clustermesh")
    }

    /// The admin socket of its clustermesh-apiserver.
    pub(crate) fn apiserver_socket(&self) -> PathBuf {
        self.dir.join("run/apiserver.sock")
    }

    /// The admin socket of a node's agent.
    pub(crate) fn agent_socket(&self, node: &str) -> PathBuf {
        self.dir.join(format!("run/{node}.agent.sock"))
    }

    /// The admin socket of a node's speaker.
    pub(crate) fn bgp_socket(&self, node: &str) -> PathBuf {
        self.dir.join(format!("run/{node}.bgp.sock"))
    }
}

/// All clusters that a command is about: those of a lab, or those below a directory, sorted by name.
pub(crate) fn all(scope: &Scope) -> Outcome<Vec<Context>> {
    match (&scope.context_dir, &scope.lab) {
        (Some(dir), _) => below(dir),
        (None, Some(name)) => Lab::open(name)?.contexts(),
        (None, None) => Lab::only()?.contexts(),
    }
}

/// One cluster, by its directory or by its name.
pub(crate) fn one(scope: &Scope, name: &str) -> Outcome<Context> {
    if name.contains('/') {
        return Context::load(Path::new(name));
    }
    let contexts = all(scope)?;
    let known: Vec<String> = contexts.iter().map(|c| c.name().to_owned()).collect();
    contexts.into_iter().find(|c| c.name() == name).ok_or_else(|| {
        Failure::usage(format!("there is no cluster {name}")).next(format!(
            "use one of {}, or a cluster's directory",
            known.join(", ")
        ))
    })
}

fn below(dir: &Path) -> Outcome<Vec<Context>> {
    let entries = std::fs::read_dir(dir).map_err(|e| {
        Failure::usage(format!("cannot read the directory of clusters {}", dir.display())).because(e)
    })?;
    let mut dirs: Vec<PathBuf> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.join("cluster.yaml").exists())
        .collect();
    dirs.sort();
    if dirs.is_empty() {
        return Err(Failure::usage(format!("no cluster is below {}", dir.display()))
            .next("a cluster is a directory with a cluster.yaml"));
    }
    dirs.iter().map(|dir| Context::load(dir)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn east() -> ClusterFile {
        ClusterFile {
            name: "east".into(),
            id: 1,
            max_connected_clusters: 255,
            pod_cidrs: vec!["10.1.0.0/16".parse().expect("CIDR")],
            endpoints: vec!["https://172.30.1.2:2379".into()],
            nodes: vec!["east-1".into()],
        }
    }

    #[test]
    fn a_directory_is_read_as_it_was_written() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        Context::save(dir.path(), &east())?;
        let context = Context::load(dir.path())?;
        assert_eq!(context.cluster, east());
        assert!(context.agent_socket("east-1").ends_with("run/east-1.agent.sock"));
        Ok(())
    }

    #[test]
    fn an_unknown_field_and_a_missing_file_are_named() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let missing = Context::load(dir.path()).expect_err("no file");
        assert!(missing.to_string().contains("cluster.yaml"), "{missing}");
        std::fs::write(
            dir.path().join("cluster.yaml"),
            "name: east\nid: 1\npodCIDRs: []\nendpoints: []\nnodes: []\nnoodles: []\n",
        )?;
        let unknown = Context::load(dir.path()).expect_err("unknown field");
        assert!(unknown.to_string().contains("noodles"), "{unknown}");
        Ok(())
    }
}
