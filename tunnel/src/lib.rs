//! How each pair of nodes is joined: a pure plan of devices, routes and rules, and what has to change to get there.
//!
//! [`plan`] says what this node should have so that it reaches the pods and nodes of the mesh; [`Plan::check`] states the
//! plan's invariants in words; [`diff`] compares it with what the kernel has and gives ordered, idempotent [`Op`]s. Nothing
//! here touches a kernel: the agent observes and applies.
//!
//! Today there is one technique: VXLAN with one collect-metadata device for all nodes. The endpoint and the identity (VNI)
//! of each packet come from the ipcache, so a remote node costs a route and a map entry, and no FDB or ARP entry.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

mod check;
mod claims;
mod diff;
mod ops;
mod plan;

pub use claims::{Refusal, RefusalKind};
pub use diff::{Observed, ObservedDevice, Prune, diff};
pub use ops::Op;
pub use plan::{
    Device, IpcacheEntry, Mac, Mode, Plan, Route, Rule, Settings, TunnelInputs, overlay_address, plan,
};
