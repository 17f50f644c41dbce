//! Where the lab keeps its things.
use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::{Doing, Failure, Outcome};

/// All labs of this machine.
pub(crate) const LABS: &str = "/run/isthmus/lab";

/// The directories of one lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Paths {
    /// `/run/isthmus/lab/NAME`.
    pub(crate) root: PathBuf,
    /// The lab's control group.
    pub(crate) cgroup: PathBuf,
}

impl Paths {
    /// Of the lab `name`, whether it is up or not.
    pub(crate) fn of(name: &str) -> Outcome<Self> {
        Ok(Self {
            root: Path::new(LABS).join(name),
            cgroup: cgroup2_mount()?.join(format!("isthmus-lab-{name}")),
        })
    }

    /// The ledger.
    pub(crate) fn ledger(&self) -> PathBuf {
        self.root.join("ledger")
    }

    /// The private bpffs.
    pub(crate) fn bpf(&self) -> PathBuf {
        self.root.join("bpf")
    }

    /// A cluster's directory (see [`crate::context`]).
    pub(crate) fn cluster(&self, cluster: &str) -> PathBuf {
        self.root.join(cluster)
    }

    /// The router's files.
    pub(crate) fn tor(&self) -> PathBuf {
        self.root.join("tor")
    }

    /// The output of a process.
    pub(crate) fn log(&self, role: &str) -> PathBuf {
        self.root
            .join("logs")
            .join(format!("{}.log", role.replace(':', "-")))
    }
}

/// The labs of this machine, complete or not, sorted by name.
pub(crate) fn labs() -> Vec<String> {
    let entries = fs::read_dir(LABS).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|e| e.path().join("ledger").exists())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Where the cgroup2 hierarchy is mounted.
fn cgroup2_mount() -> Outcome<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").doing("read /proc/mounts")?;
    mounted_cgroup2(&mounts).ok_or_else(|| {
        Failure::unreachable("the lab needs a cgroup2 hierarchy, and none is mounted")
            .next("mount -t cgroup2 none /sys/fs/cgroup/unified")
    })
}

fn mounted_cgroup2(mounts: &str) -> Option<PathBuf> {
    let fields = mounts.lines().map(|l| l.split(' ').collect::<Vec<_>>());
    fields
        .filter(|f| f.get(2) == Some(&"cgroup2"))
        .find_map(|f| f.get(1).map(PathBuf::from))
}

/// One of Isthmus' own programs: beside meshctl, else on PATH.
pub(crate) fn own_program(name: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(|dir| dir.join(name)));
    beside.filter(|p| p.is_file()).or_else(|| system_program(name))
}

/// One of FRR's daemons. Not on PATH: OpenBGPD has a bgpd as well.
pub(crate) fn frr_program(name: &str) -> Option<PathBuf> {
    ["/usr/lib/frr", "/usr/libexec/frr"]
        .map(|dir| Path::new(dir).join(name))
        .into_iter()
        .find(|file| file.is_file())
}

/// A program of the system: on PATH or in the system's directories.
pub(crate) fn system_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_is_found_wherever_it_is_mounted() {
        let hybrid =
            "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mounted_cgroup2(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mounted_cgroup2("cgroup /sys/fs/cgroup cgroup rw 0 0\n"), None);
    }
}
