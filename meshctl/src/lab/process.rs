//! The lab's processes: each in its namespace and its control group, with its output in a file.
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, setsid};

use super::ledger::{Item, Ledger};
use crate::failure::{Doing, Failure, Outcome};

/// The hidden command that turns into a process of the lab: it moves itself to its place, then executes the program.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Name of the network namespace.
    #[arg(long)]
    netns: String,
    /// Directory of the control group.
    #[arg(long)]
    cgroup: PathBuf,
    /// Stay in the caller's session, for programs that use the terminal.
    #[arg(long)]
    terminal: bool,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Runs the hidden command; returns only if it fails.
pub(crate) fn become_process(args: &RunArgs) -> Failure {
    match move_and_exec(args) {
        Ok(()) => Failure::unreachable("the program did not start"),
        Err(failure) => failure,
    }
}

fn move_and_exec(args: &RunArgs) -> Outcome {
    // The control group first: from now on `lab down` finds this process whatever happens.
    let procs = args.cgroup.join("cgroup.procs");
    fs::write(&procs, "0").doing(format!("join the control group {}", args.cgroup.display()))?;
    let netns = Path::new("/run/netns").join(&args.netns);
    let file = fs::File::open(&netns).doing(format!("open {}", netns.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET).doing(format!("enter {}", netns.display()))?;
    if !args.terminal {
        setsid().doing("leave the terminal")?;
    }
    let Some((program, arguments)) = args.command.split_first() else {
        return Err(Failure::usage("no program was named"));
    };
    let error = Command::new(program).args(arguments).exec();
    Err(Failure::unreachable(format!("cannot start {program}")).because(error))
}

/// A process to start.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// What it does, e.g. `agent:east-1`: its name in the ledger, in messages and in the log's file name.
    pub(crate) role: String,
    /// Its network namespace.
    pub(crate) netns: String,
    /// Its control group; made here if it is not there.
    pub(crate) cgroup: PathBuf,
    /// The program.
    pub(crate) program: PathBuf,
    /// Its arguments.
    pub(crate) args: Vec<String>,
    /// Where its output goes.
    pub(crate) log: PathBuf,
}

/// A process of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Running {
    /// What it does.
    pub(crate) role: String,
    /// Its id.
    pub(crate) pid: i32,
    started: u64,
}

impl Running {
    /// The newest process of each role that the ledger knows, alive or not.
    pub(crate) fn newest(items: &[Item]) -> Vec<Self> {
        let mut newest: Vec<Self> = Vec::new();
        for item in items {
            let Item::Process { role, pid, started } = item else {
                continue;
            };
            newest.retain(|p| p.role != *role);
            newest.push(Self {
                role: role.clone(),
                pid: *pid,
                started: *started,
            });
        }
        newest
    }

    /// Whether it still runs: its number may belong to another process by now.
    pub(crate) fn alive(&self) -> bool {
        // Collect it if it was our own child and has ended.
        let _ = waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG));
        start_time(self.pid) == Some(self.started)
    }

    /// Sends a signal to it, and never to another that has its number now. False if it is gone.
    pub(crate) fn signal(&self, signal: Signal) -> Outcome<bool> {
        if !self.alive() {
            return Ok(false);
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) => Ok(true),
            Err(Errno::ESRCH) => Ok(false),
            Err(e) => Err(e).doing(format!("send {signal} to {}", self.role)),
        }
    }
}

/// Starts a process and writes it down.
pub(crate) fn start(spec: &Spec, ledger: &Ledger) -> Outcome<Running> {
    fs::create_dir_all(&spec.cgroup).doing(format!("make the control group {}", spec.cgroup.display()))?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o644)
        .open(&spec.log)
        .doing(format!("open {}", spec.log.display()))?;
    let errors = log.try_clone().doing("share the log")?;
    let child = wrapped(&spec.netns, &spec.cgroup, false, &spec.program, &spec.args)?
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .current_dir("/")
        .spawn()
        .doing(format!("start {}", spec.role))?;
    let pid = child.id().cast_signed();
    let running = Running {
        role: spec.role.clone(),
        pid,
        started: start_time(pid).unwrap_or(0),
    };
    ledger.add(&Item::Process {
        role: running.role.clone(),
        pid,
        started: running.started,
    })?;
    Ok(running)
}

/// A command that will run in a namespace and a control group.
pub(crate) fn wrapped(
    netns: &str,
    cgroup: &Path,
    terminal: bool,
    program: &Path,
    args: &[String],
) -> Outcome<Command> {
    let own = std::env::current_exe().doing("find meshctl itself")?;
    let mut command = Command::new(own);
    command.args(["__run", "--netns", netns, "--cgroup"]).arg(cgroup);
    if terminal {
        command.arg("--terminal");
    }
    command.arg("--").arg(program).args(args);
    Ok(command)
}

/// When a process was started, in clock ticks since boot; none if there is no such process or it is only a zombie.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_start_time(&stat)
}

/// Field 3 is the state and field 22 the start; field 2 is a name in brackets that may hold anything, even brackets.
fn parse_start_time(stat: &str) -> Option<u64> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_ascii_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?.parse().ok()?;
    (state != "Z" && state != "X").then_some(start)
}

/// The last lines of a log, for a message about a process that did not come up.
pub(crate) fn last_words(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().rev().take(3).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_an_odd_name() {
        let tail = "1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 1";
        assert_eq!(
            parse_start_time(&format!("42 (a) b (c)) S {tail}")),
            Some(987_654)
        );
        assert_eq!(parse_start_time(&format!("42 (gone) Z {tail}")), None);
        assert_eq!(parse_start_time("nonsense"), None);
    }

    #[test]
    fn a_number_that_another_process_has_now_is_not_ours() {
        let own = std::process::id().cast_signed();
        let mut running = Running {
            role: "test".into(),
            pid: own,
            started: start_time(own).expect("we run"),
        };
        assert!(running.alive());
        running.started += 1;
        assert!(!running.alive());
        assert_eq!(running.signal(Signal::SIGKILL), Ok(false), "nobody is killed");
    }

    #[test]
    fn the_newest_process_of_a_role_counts() {
        let process = |role: &str, pid| Item::Process {
            role: role.into(),
            pid,
            started: 1,
        };
        let items = [
            process("agent:east-1", 1),
            process("tor", 2),
            process("agent:east-1", 3),
        ];
        let pids: Vec<_> = Running::newest(&items)
            .into_iter()
            .map(|p| (p.role, p.pid))
            .collect();
        assert_eq!(pids, [("tor".into(), 2), ("agent:east-1".into(), 3)]);
    }
}
