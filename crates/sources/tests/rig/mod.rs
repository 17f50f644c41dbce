//! A directory of manifests under test, and waiting for what a change makes of it.
#![allow(dead_code, reason = "each test file uses a part of it")]
use std::path::PathBuf;
use std::time::{Duration, Instant};

use isthmus_sources::{Settings, Snapshot, Source};
use isthmus_topology::{ClusterId, ClusterName, MaxClusters};

pub(crate) fn settings() -> Settings {
    Settings {
        cluster: ClusterName::new("east").expect("valid"),
        id: ClusterId::new(1, MaxClusters::C255).expect("valid"),
        max: MaxClusters::C255,
        default_global_namespace: true,
        state_dir: None,
    }
}

pub(crate) struct Rig {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) source: Source,
}

impl Rig {
    /// Opens a source over these files.
    pub(crate) async fn with(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).expect("written");
        }
        let source = Source::directory(directory.path(), settings())
            .await
            .expect("a source");
        Self { directory, source }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes in place, as an editor that saves without a new file does.
    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
    }

    /// Waits until the snapshot is as it should be; tells how long it took.
    pub(crate) async fn until(&mut self, what: &str, is_so: impl Fn(&Snapshot) -> bool) -> Duration {
        let start = Instant::now();
        let mut last = self.source.snapshot();
        let reached = tokio::time::timeout(Duration::from_secs(10), async {
            while !is_so(&last) {
                last = self.source.changed().await;
            }
        });
        if reached.await.is_err() {
            panic!("after 10 s still not: {what}\n{last:#?}");
        }
        start.elapsed()
    }

    /// The problems, as `file:line:column: reason` with the file's name only.
    pub(crate) fn problems(&self) -> Vec<String> {
        let root = format!("{}/", self.directory.path().display());
        let problems = self.source.snapshot().problems;
        problems
            .iter()
            .map(|p| p.to_string().replace(&root, ""))
            .collect()
    }
}

pub(crate) fn service(name: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: demo}}\nspec:\n  clusterIP: {ip}\n  \
         ports: [{{name: http, port: 80}}]\n"
    )
}

pub(crate) fn node(name: &str, ip: &str, cidr: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{podCIDRs: [\"{cidr}\"]}}\n\
         status: {{addresses: [{{type: InternalIP, address: {ip}}}]}}\n"
    )
}
