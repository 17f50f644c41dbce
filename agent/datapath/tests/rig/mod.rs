//! What the tests stand on: a private bpffs, a temporary cgroup, network namespaces; all removed at the end.
//!
//! Each file of tests is a process of its own and moves into its cgroup, because socket hooks belong to processes.
#![allow(dead_code)]
use std::fs;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use isthmus_datapath::{Backend, Capacity, Config, Datapath, Frontend, ServiceRow, WithoutBackend};
use isthmus_topology::{Protocol, Scope, ServiceAffinity, ServicePort};

/// Where cgroup2 is mounted: alone, or beside the older hierarchies.
fn cgroup_root() -> Option<&'static Path> {
    ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .map(Path::new)
        .into_iter()
        .find(|path| path.join("cgroup.procs").is_file() && path.join("cgroup.controllers").is_file())
}

/// The cgroup2 path that this process is in.
fn own_cgroup(root: &Path) -> PathBuf {
    let lines = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = lines
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .unwrap_or_default();
    root.join(path)
}

/// Directories and namespaces of one test.
pub(crate) struct Rig {
    pub(crate) name: String,
    pub(crate) pin_dir: PathBuf,
    pub(crate) cgroup: PathBuf,
    home: PathBuf,
    namespaces: Vec<String>,
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
        if Command::new("ip").arg("-V").output().is_err() {
            eprintln!("skipped: no ip command (Debian package iproute2)");
            return None;
        }
        let name = format!("isthmus-dp-{name}-{}", std::process::id());
        let cgroup = root.join(&name);
        fs::create_dir_all(&cgroup).expect("cgroup");
        let pin_dir = std::env::temp_dir().join(&name);
        Some(Self {
            home: own_cgroup(root),
            name,
            pin_dir,
            cgroup,
            namespaces: Vec::new(),
        })
    }

    /// Cgroup, small maps, cluster 1, no devices.
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

    /// Moves this process into the cgroup: from now on its new sockets are balanced.
    pub(crate) fn enter_cgroup(&self) {
        fs::write(self.cgroup.join("cgroup.procs"), std::process::id().to_string())
            .expect("enter the cgroup");
    }

    /// Makes a network namespace with loopback up; returns its name.
    pub(crate) fn namespace(&mut self, short: &str) -> String {
        let name = format!("{}-{short}", self.name);
        ip(&format!("netns add {name}"));
        self.namespaces.push(name.clone());
        ip(&format!("-n {name} link set lo up"));
        name
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for name in &self.namespaces {
            ip(&format!("netns del {name}"));
        }
        if let Err(error) = Datapath::remove(&self.pin_dir) {
            eprintln!("{error}");
        }
        let _ = fs::remove_dir(&self.pin_dir);
        let _ = fs::write(self.home.join("cgroup.procs"), std::process::id().to_string());
        let _ = fs::remove_dir(&self.cgroup);
    }
}

/// Runs `ip ARGS`, which must succeed.
pub(crate) fn ip(args: &str) {
    run("ip", args);
}

/// Runs a command whose arguments have no blanks; it must succeed.
pub(crate) fn run(program: &str, args: &str) {
    let output = Command::new(program)
        .args(args.split_whitespace())
        .output()
        .expect(program);
    assert!(
        output.status.success(),
        "{program} {args}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs `work` in a thread of its own inside a network namespace.
pub(crate) fn within<T: Send + 'static>(namespace: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_within(namespace, work).join().expect("thread")
}

/// Starts `work` in a thread of its own inside a network namespace.
pub(crate) fn spawn_within<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    let file = File::open(format!("/run/netns/{namespace}")).expect("namespace");
    std::thread::spawn(move || {
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).expect("setns");
        work()
    })
}

/// A frontend from `ip:port`.
pub(crate) fn frontend(address: &str, protocol: Protocol, scope: Scope) -> Frontend {
    let address: SocketAddr = address.parse().expect("address");
    Frontend {
        ip: address.ip(),
        port: ServicePort {
            protocol,
            port: address.port(),
        },
        scope,
    }
}

/// A row from clusters and the addresses of their backends.
pub(crate) fn row(affinity: ServiceAffinity, groups: &[(u16, &[&str])]) -> ServiceRow {
    let backend = |address: &&str| {
        let address: SocketAddr = address.parse().expect("address");
        Backend {
            ip: address.ip(),
            port: address.port(),
        }
    };
    ServiceRow {
        affinity,
        groups: groups
            .iter()
            .map(|(cluster, backends)| (*cluster, backends.iter().map(backend).collect()))
            .collect(),
    }
}

/// An address from text.
pub(crate) fn addr(text: &str) -> IpAddr {
    text.parse().expect("address")
}
