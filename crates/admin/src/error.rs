//! What can go wrong between a daemon and its client.
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What happened, why, and what to do.
    pub error: String,
}

/// An admin API failure; the text is fit to be shown.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Nobody listens.
    #[error("no daemon answers at {socket}: {reason}; is it running, and are you root?")]
    Unreachable {
        /// Where it should listen.
        socket: PathBuf,
        /// What the kernel said.
        reason: String,
    },
    /// The daemon refused the request.
    #[error("{0}")]
    Refused(String),
    /// The daemon's answer is not what this version expects.
    #[error(
        "the daemon at {socket} gave an answer that this version does not understand ({reason}); are both of one version?"
    )]
    Answer {
        /// Who answered.
        socket: PathBuf,
        /// What did not fit.
        reason: String,
    },
    /// The socket cannot be opened.
    #[error("the admin socket {socket} cannot be opened: {reason}")]
    Listen {
        /// Where.
        socket: PathBuf,
        /// Cause and cure.
        reason: String,
    },
}
