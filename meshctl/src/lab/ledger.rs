//! The ledger: what the lab has made, written down before it is made, so that `down` finds everything even after a crash
//! in the middle, and touches nothing else.
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::process::Running;
use crate::failure::{Doing, Failure, Outcome};

/// One thing that the lab makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "made", rename_all = "camelCase")]
pub(crate) enum Item {
    /// A named network namespace, with all links in it.
    Namespace {
        /// Its name under /run/netns.
        name: String,
    },
    /// A control group, with all processes in it.
    Cgroup {
        /// Its directory.
        path: PathBuf,
    },
    /// A mounted bpffs, with all pins in it.
    Mount {
        /// Where.
        path: PathBuf,
    },
    /// A process. Written after it was started, since it has no number before; until then its control group has it.
    Process {
        /// What it does, e.g. `agent:east-1`.
        role: String,
        /// Its id.
        pid: i32,
        /// When it was started, in clock ticks since boot: with the id it names one process for ever.
        started: u64,
    },
    /// The lab is complete.
    Ready {
        /// The router that runs.
        tor: String,
        /// How long `up` took, in milliseconds.
        took_ms: u64,
    },
}

/// The ledger of one lab; entries are only added.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    file: Mutex<File>,
}

impl Ledger {
    /// Opens the ledger to add to it; makes it if it is not there.
    pub(crate) fn open(path: &Path) -> Outcome<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .doing(format!("open the lab's ledger {}", path.display()))?;
        Ok(Self {
            path: path.into(),
            file: Mutex::new(file),
        })
    }

    /// Writes an entry down. Only when this has returned may the thing be made.
    pub(crate) fn add(&self, item: &Item) -> Outcome {
        let doing = || format!("write to the lab's ledger {}", self.path.display());
        let line = serde_json::to_string(item).doing(doing())? + "\n";
        let mut file = self
            .file
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        file.write_all(line.as_bytes()).doing(doing())
    }

    /// The newest process of a role, alive or not.
    pub(crate) fn newest(&self, role: &str) -> Option<Running> {
        let items = Self::read(&self.path).unwrap_or_default();
        Running::newest(&items).into_iter().find(|p| p.role == role)
    }

    /// All entries, in the order in which they were written. A last line that was cut off by a crash is left out: what it
    /// was about to announce was never made.
    pub(crate) fn read(path: &Path) -> Outcome<Vec<Item>> {
        let text = std::fs::read_to_string(path).doing(format!("read {}", path.display()))?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut items = Vec::new();
        for (number, line) in whole.lines().enumerate() {
            let item = serde_json::from_str(line).map_err(|e| {
                Failure::unreachable(format!("cannot read line {} of {}", number + 1, path.display()))
                    .because(e)
                    .next("if you did not edit it, it was written by another version: use that version's `meshctl lab down`")
            })?;
            items.push(item);
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_a_cut_line_is_left_out() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("ledger");
        let made = [
            Item::Namespace {
                name: "demo-tor".into(),
            },
            Item::Process {
                role: "agent:east-1".into(),
                pid: 4711,
                started: 99,
            },
        ];
        let ledger = Ledger::open(&path)?;
        for item in &made {
            ledger.add(item)?;
        }
        assert_eq!(Ledger::read(&path)?, made);
        // The machine died in the middle of a line.
        OpenOptions::new()
            .append(true)
            .open(&path)?
            .write_all(br#"{"made":"nam"#)?;
        assert_eq!(Ledger::read(&path)?, made);
        Ok(())
    }

    #[test]
    fn a_line_that_is_no_entry_is_named() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("ledger");
        std::fs::write(&path, "{\"made\":\"rocket\"}\n")?;
        let failure = Ledger::read(&path).expect_err("unknown entry");
        assert!(failure.to_string().contains("line 1"), "{failure}");
        Ok(())
    }
}
