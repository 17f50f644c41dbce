//! Where intent comes from: a directory of Kubernetes manifests, watched, as tables.
//!
//! [`Source::directory`] reads one cluster from ordinary manifests and publishes a [`Snapshot`] after every change. Bad
//! input is data ([`Problem`]), and what was good before stays. The way of a change:
//!
//! ```text
//! files ──inotify──▶ load (which files changed) ──▶ parse (documents, typed, strict) ──▶ Objects ──▶ resolve ──▶ Snapshot
//! ```
//!
//! Everything right of `load` is pure, so that a watch of a Kubernetes API server can feed the same functions.
#![forbid(unsafe_code)]

mod cilium;
mod directory;
mod document;
mod fault;
mod kind;
pub mod object;
pub mod objects;
mod parse;
mod problems;
mod remember;
pub mod resolve;
mod snapshot;
mod source;
mod vocabulary;
mod watch;

pub use snapshot::{Ignored, Problem, Raw, Snapshot, Table};
pub use source::{Settings, Source, SourceError};
