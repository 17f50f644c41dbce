//! Exit codes, the same for every output format.
use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// Everything is as it should be.
    Ok = 0,
    /// The command line, or what it names, is wrong; nothing was changed.
    Usage = 1,
    /// It works, but not all of it.
    Degraded = 2,
    /// It does not work.
    Down = 3,
    /// Nobody answers, or the machine cannot do it.
    Unreachable = 4,
    /// It did not happen in the time allowed.
    Timeout = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
