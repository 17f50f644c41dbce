//! A process that does not outlive its test.
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How much of a log is shown when a test fails.
const SHOWN_LOG: usize = 8 * 1024;

/// A child whose output goes to a file; dropped, it is killed by its pid, and when the test is failing its log is shown.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    _dir: TempDir,
}

impl Process {
    /// Starts `command` under `name`.
    pub fn start(name: impl Into<String>, mut command: Command) -> io::Result<Self> {
        let name = name.into();
        let dir = TempDir::new()?;
        let log = dir.path().join("log");
        let out = std::fs::File::create(&log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().map_err(|e| {
            let program = command.get_program().display();
            io::Error::new(e.kind(), format!("{name} ({program}) does not start: {e}"))
        })?;
        Ok(Self {
            name,
            child,
            log,
            _dir: dir,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).map_err(io::Error::from)
    }

    /// How it ended, if it did.
    pub fn exited(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended = self.child.try_wait().ok().flatten();
        if ended.is_none() {
            // A child that cannot be killed is already gone.
            drop(self.child.kill());
            drop(self.child.wait());
        }
        if std::thread::panicking() {
            let log = self.log();
            let from = log.ceil_char_boundary(log.len().saturating_sub(SHOWN_LOG));
            let end = match ended {
                Some(status) => match status.signal() {
                    Some(signal) => format!("had died of signal {signal}"),
                    None => format!("had ended with {:?}", status.code()),
                },
                None => "was running".into(),
            };
            eprintln!("--- {} {end}; its log:\n{}---", self.name, &log[from..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait_until;
    use std::time::Duration;

    #[test]
    fn a_process_dies_with_its_guard() -> Result<(), Box<dyn std::error::Error>> {
        let mut command = Command::new("sh");
        command.args(["-c", "echo started; exec sleep 600"]);
        let process = Process::start("sleeper", command)?;
        let said = || process.log().contains("started");
        wait_until(Duration::from_secs(5), "the shell speaks", said)?;
        let proc = PathBuf::from(format!("/proc/{}", process.pid()));
        assert!(proc.exists());
        drop(process);
        assert!(!proc.exists(), "it is gone and reaped");
        Ok(())
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = Process::start("ghost", Command::new("/no/such/program")).expect_err("not there");
        assert!(error.to_string().contains("ghost (/no/such/program)"), "{error}");
    }
}
