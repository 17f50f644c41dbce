//! Takes a lab down: everything in its ledger, in reverse order, and then looks whether anything is left.
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;

use super::ledger::{Item, Ledger};
use super::net;
use super::paths::{LABS, Paths};
use super::process::Running;
use crate::failure::{Doing, Failure, Outcome};

/// How long processes get to die after SIGKILL.
const DEATH: Duration = Duration::from_secs(5);

/// What was removed, for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Removed {
    pub(crate) namespaces: usize,
    pub(crate) processes: usize,
    pub(crate) mounts: usize,
    pub(crate) cgroups: usize,
}

/// Removes everything that the ledger of a lab says. Whatever fails is told, but does not keep the rest.
pub(crate) fn down(paths: &Paths) -> Outcome<Removed> {
    let items = Ledger::read(&paths.ledger())?;
    let mut results: Vec<Outcome> = Vec::new();
    let mut removed = Removed::default();
    let cgroups = items.iter().filter_map(|i| match i {
        Item::Cgroup { path } => Some(path),
        _ => None,
    });
    for cgroup in cgroups {
        removed.processes += processes_below(cgroup).len();
        results.push(kill_all(cgroup));
    }
    results.push(kill_strays(&items));
    for item in items.iter().rev() {
        results.push(remove(item, &mut removed));
    }
    if results.iter().all(Result::is_ok) {
        results.push(remove_files(paths));
    }
    // Only if no other lab is there.
    let _ = fs::remove_dir(LABS);
    let failed = results.into_iter().filter_map(Result::err).map(|f| f.to_string());
    let failures: Vec<String> = failed.chain(left(&items, paths)).collect();
    if failures.is_empty() {
        return Ok(removed);
    }
    let failure = Failure::new(crate::exit::Exit::Degraded, "the lab is not quite gone");
    let failure = failures.into_iter().fold(failure, Failure::because);
    Err(failure.next("run the same command again: the ledger is kept until all of it is gone"))
}

/// The lab's directory, the ledger last: whoever is interrupted here can still be followed by another `down`.
fn remove_files(paths: &Paths) -> Outcome {
    let doing = || format!("remove {}", paths.root.display());
    let ledger = paths.ledger();
    for entry in fs::read_dir(&paths.root).doing(doing())? {
        let entry = entry.doing(doing())?;
        let path = entry.path();
        match entry.file_type().doing(doing())? {
            _ if path == ledger => Ok(()),
            kind if kind.is_dir() => fs::remove_dir_all(&path),
            _ => fs::remove_file(&path),
        }
        .doing(doing())?;
    }
    fs::remove_file(&ledger).doing(doing())?;
    fs::remove_dir(&paths.root).doing(doing())
}

fn remove(item: &Item, removed: &mut Removed) -> Outcome {
    match item {
        Item::Namespace { name } => {
            removed.namespaces += usize::from(net::namespace_exists(name));
            net::delete_namespace(name)
        }
        Item::Mount { path } => unmount(path).map(|was| removed.mounts += usize::from(was)),
        Item::Cgroup { path } => remove_cgroup(path).map(|count| removed.cgroups += count),
        // Processes died first, with their control groups.
        Item::Process { .. } | Item::Ready { .. } => Ok(()),
    }
}

/// What of the ledger still exists.
fn left(items: &[Item], paths: &Paths) -> Vec<String> {
    let mut left: Vec<String> = items
        .iter()
        .filter_map(|item| match item {
            Item::Namespace { name } => {
                net::namespace_exists(name).then(|| format!("network namespace {name} is left"))
            }
            Item::Mount { path } => {
                is_mounted(path).then(|| format!("a mount on {} is left", path.display()))
            }
            Item::Cgroup { path } => path
                .exists()
                .then(|| format!("control group {} is left", path.display())),
            Item::Process { role, pid, .. } => Running::newest(std::slice::from_ref(item))
                .iter()
                .any(Running::alive)
                .then(|| format!("process {pid} ({role}) still runs")),
            Item::Ready { .. } => None,
        })
        .collect();
    if paths.root.exists() && left.is_empty() {
        left.push(format!("{} is left", paths.root.display()));
    }
    left
}

/// Kills every process of a control group and of those below it.
fn kill_all(cgroup: &Path) -> Outcome {
    if !cgroup.exists() {
        return Ok(());
    }
    // Since Linux 5.14 one write kills them all; before that one after the other.
    let _ = fs::write(cgroup.join("cgroup.kill"), "1");
    let deadline = Instant::now() + DEATH;
    loop {
        let alive = processes_below(cgroup);
        if alive.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Failure::unreachable(format!("processes {alive:?} do not die"))
                .because("they were killed, but wait in the kernel"));
        }
        for pid in alive {
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
            let _ = nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WNOHANG));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Kills processes of the ledger that are not in their control group any more.
fn kill_strays(items: &[Item]) -> Outcome {
    let strays = items.iter().filter(|i| matches!(i, Item::Process { .. }));
    for item in strays {
        for process in Running::newest(std::slice::from_ref(item)) {
            process.signal(Signal::SIGKILL)?;
        }
    }
    Ok(())
}

fn processes_below(cgroup: &Path) -> Vec<i32> {
    let own = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = own.lines().filter_map(|l| l.parse().ok()).collect();
    for below in directories(cgroup) {
        pids.extend(processes_below(&below));
    }
    pids
}

/// Removes a control group and those below it; gives their number.
fn remove_cgroup(path: &Path) -> Outcome<usize> {
    if !path.exists() {
        return Ok(0);
    }
    let mut count = 1;
    for below in directories(path) {
        count += remove_cgroup(&below)?;
    }
    // A process that was just killed may hold its group for a moment.
    let deadline = Instant::now() + DEATH;
    loop {
        match fs::remove_dir(path) {
            Ok(()) => return Ok(count),
            Err(e) if e.raw_os_error() == Some(nix::libc::EBUSY) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(e) => return Err(e).doing(format!("remove the control group {}", path.display())),
        }
    }
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| e.path())
        .collect()
}

/// Takes a mount away; false if there was none.
fn unmount(path: &Path) -> Outcome<bool> {
    let mut was = false;
    while is_mounted(path) {
        umount2(path, MntFlags::MNT_DETACH).doing(format!("unmount {}", path.display()))?;
        was = true;
    }
    Ok(was)
}

fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let path = path.display().to_string();
    mounts.lines().any(|l| l.split(' ').nth(1) == Some(path.as_str()))
}
