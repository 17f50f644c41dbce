//! Loads the eBPF programs, owns their maps and pins, and makes the maps equal what is wanted.
//!
//! ```text
//! Desired ─┐
//!          ├─ plan (pure) ─→ Plan ─→ apply ─→ maps ←─ programs ─→ links, all pinned
//! Observed ┘                                   ↑
//! AliveBits ── one store, no system call ──────┘
//! ```
//! Everything is synchronous and survives the process: links, programs and maps are pinned, so `kill -9` loses nothing and
//! [`Datapath::open`] of the next process finds what is there and writes nothing that is already right.
//!
//! ```no_run
//! # fn main() -> Result<(), isthmus_datapath::Error> {
//! use isthmus_datapath::{Capacity, Config, Datapath, Desired, WithoutBackend};
//! let mut datapath = Datapath::open(Config {
//!     pin_dir: "/sys/fs/bpf/isthmus".into(),
//!     mount_bpffs: true,
//!     cgroup: Some("/sys/fs/cgroup".into()),
//!     uplinks: vec!["eth0".into()],
//!     overlay: None,
//!     cluster_id: 1,
//!     without_backend: WithoutBackend::Refuse,
//!     capacity: Capacity::default(),
//! })?;
//! let report = datapath.sync(&Desired::default())?;
//! assert_eq!(report.refused, []);
//! datapath.set_cluster_alive(2, false);
//! # Ok(())
//! # }
//! ```
#![allow(unsafe_code)]

mod alive;
mod bytes;
mod clsact;
mod config;
mod datapath;
mod desired;
mod device;
mod error;
mod hooks;
mod inspect;
mod maps;
mod object;
mod observed;
mod pins;
mod plan;
#[cfg(test)]
mod plan_tests;
mod probe;
mod slots;
mod sys;

pub use alive::AliveBits;
pub use config::{Capacity, Config, WithoutBackend};
pub use datapath::{Counters, Datapath, Metric, Report, programs_at};
pub use desired::{Backend, Desired, Frontend, IpCacheRow, ServiceRow};
pub use error::{Error, RowError};
pub use hooks::Attached;
pub use inspect::{Inspection, ServiceView};
pub use isthmus_bpf_abi::Reason;
pub use observed::Observed;
pub use plan::{Plan, plan, plan_prefix, plan_service};
pub use probe::{Feature, probe};
