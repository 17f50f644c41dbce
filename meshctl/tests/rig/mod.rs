//! Running meshctl, and looking at what a lab has made.
#![allow(dead_code)] // Each test file uses a part of it.
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use isthmus_testkit::{Need, needs};

/// The program under test.
pub(crate) const MESHCTL: &str = env!("CARGO_BIN_EXE_meshctl");

/// What one run came to.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs meshctl to its end.
pub(crate) fn meshctl(args: &[&str]) -> Run {
    run(Command::new(MESHCTL).args(args))
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Run {
    let Output {
        status,
        stdout,
        stderr,
    } = command.stdin(Stdio::null()).output().expect("it starts");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Run {
        code: status.code().unwrap_or(-1),
        out: text(&stdout),
        err: text(&stderr),
    }
}

/// Whether a lab can be made here; says why not.
pub(crate) fn can_make_labs(test: &str) -> bool {
    needs(test, &[Need::Root])
}

/// Whether the daemons are beside meshctl; says why not.
pub(crate) fn has_daemons(test: &str) -> bool {
    let dir = Path::new(MESHCTL).parent().expect("a directory");
    let daemon = |name: &str| Need::Path {
        path: dir.join(name),
        what: "build it first: cargo build --bins",
    };
    needs(
        test,
        &["isthmus-agent", "bgp-speaker", "clustermesh-apiserver"].map(daemon),
    )
}

/// A lab's name that no other test has; the lab is taken down in the end.
pub(crate) struct LabGuard {
    pub(crate) name: String,
}

impl LabGuard {
    pub(crate) fn new(kind: &str) -> Self {
        Self {
            name: format!("t{}-{kind}", std::process::id()),
        }
    }

    /// Runs a verb of `meshctl lab` for this lab.
    pub(crate) fn lab(&self, verb: &str, more: &[&str]) -> Run {
        let mut args = vec!["lab", verb, "--name", &self.name];
        args.extend(more);
        meshctl(&args)
    }

    /// Everything of this lab that exists on the machine.
    pub(crate) fn traces(&self) -> Vec<String> {
        let mut traces = Vec::new();
        let prefix = format!("{}-", self.name);
        for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&prefix) {
                traces.push(format!("namespace {name}"));
            }
        }
        let root = self.root();
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
        traces.extend(
            mounts
                .lines()
                .filter(|l| l.contains(&format!("{}/", root.display())))
                .map(str::to_owned),
        );
        if root.exists() {
            traces.push(root.display().to_string());
        }
        let group = format!("isthmus-lab-{}", self.name);
        for line in mounts.lines().filter(|l| l.split(' ').nth(2) == Some("cgroup2")) {
            let path = Path::new(line.split(' ').nth(1).expect("mount point")).join(&group);
            traces.extend(path.exists().then(|| path.display().to_string()));
        }
        traces.extend(processes_of(&group));
        traces
    }

    pub(crate) fn root(&self) -> PathBuf {
        Path::new("/run/isthmus/lab").join(&self.name)
    }
}

impl Drop for LabGuard {
    fn drop(&mut self) {
        drop(self.lab("down", &[]));
    }
}

/// Processes that are in a control group of this name, or below it. Those that have ended and wait for init to collect them
/// do not count.
fn processes_of(group: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = entry.path();
        let groups = std::fs::read_to_string(path.join("cgroup")).unwrap_or_default();
        let of = |line: &str| line.ends_with(group) || line.contains(&format!("{group}/"));
        let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
        let ended = status.lines().any(|l| l.starts_with("State:") && l.contains('Z')) || status.is_empty();
        if groups.lines().any(of) && !ended {
            found.push(format!("process {}", path.display()));
        }
    }
    found
}
