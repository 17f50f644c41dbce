//! A private bpffs and a temporary cgroup for one test, removed at its end.
#![allow(dead_code)]
use std::fs;
use std::path::{Path, PathBuf};

use isthmus_datapath::{Capacity, Config, Datapath, WithoutBackend};

/// Where cgroup2 is mounted: alone, or beside the older hierarchies.
fn cgroup_root() -> Option<&'static Path> {
    ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .map(Path::new)
        .into_iter()
        .find(|path| path.join("cgroup.procs").is_file() && path.join("cgroup.controllers").is_file())
}

/// Directories of one test.
pub(crate) struct Rig {
    pub(crate) pin_dir: PathBuf,
    pub(crate) cgroup: PathBuf,
}

impl Rig {
    /// Makes them; `None`, with the reason printed, if this test cannot run here.
    pub(crate) fn new(name: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: loading eBPF programs needs root");
            return None;
        }
        let Some(root) = cgroup_root() else {
            eprintln!("skipped: no cgroup2 mounted at /sys/fs/cgroup or /sys/fs/cgroup/unified");
            return None;
        };
        let name = format!("isthmus-dp-{name}-{}", std::process::id());
        let cgroup = root.join(&name);
        fs::create_dir_all(&cgroup).expect("cgroup");
        Some(Self {
            pin_dir: std::env::temp_dir().join(name),
            cgroup,
        })
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            pin_dir: self.pin_dir.clone(),
            mount_bpffs: true,
            cgroup: Some(self.cgroup.clone()),
            uplinks: Vec::new(),
            overlay: None,
            cluster_id: 1,
            without_backend: WithoutBackend::Refuse,
            capacity: Capacity::SMALL,
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = Datapath::remove(&self.pin_dir);
        let _ = fs::remove_dir(&self.pin_dir);
        let _ = fs::remove_dir(&self.cgroup);
    }
}
