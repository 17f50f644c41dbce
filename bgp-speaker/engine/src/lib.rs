//! The BGP engine without I/O or clock: sessions, collision handling, RIBs, policy, graceful restart.
//!
//! [`Speaker`] owns every peer and every route. The shell around it moves bytes and time, and decides nothing:
//!
//! ```text
//!  sockets ── Input ──▶ ┌─────────┐ ── Output ──▶ sockets, logs
//!  accept() ───────────▶│ Speaker │
//!  set_peers/set_routes▶│         │──▶ views: peers(), routes(), …
//!  timer ─ timeout() ──▶└─────────┘ ── poll_timeout() ──▶ timer
//! ```
//!
//! 1. Feed what there is: [`Speaker::handle_input`] for every socket event, then [`Speaker::handle_timeout`] if due. In this order: after a
//!    pause (a suspended machine, a long computation) bytes that wait in a socket must be seen before the hold timer is.
//! 2. Then take [`Speaker::poll_output`] until it is `None`. Routes that changed meanwhile are packed into UPDATEs only here,
//!    so many changes fed in one go cost one message.
//! 3. Sleep until [`Speaker::poll_timeout`] or the next socket event.
//!
//! `now` is a monotonic time since a moment that the shell chooses (for example `start.elapsed()`); it never goes back.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

pub mod config;
pub mod io;
mod peer;
pub mod policy;
mod rib;
mod speaker;
pub mod view;

pub use config::{
    AdminState, ConfigError, FamilyConfig, GracefulRestart, MaxPrefixes, OriginatedRoute, OriginatedRoutes,
    PeerConfig, PeerId, Recipients, Restarting, SpeakerConfig,
};
pub use io::{ConnId, DownReason, Input, Notice, Output, Refusal};
pub use policy::{Policy, PrefixRange, Rule, Verdict};
pub use speaker::{PeerChange, Speaker, Stop};
pub use view::{Counters, FamilyView, PeerCapabilities, PeerView, RouteSource, RouteView, State};
