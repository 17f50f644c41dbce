//! Logs and metrics, the same in every daemon.
//!
//! Metric names are Cilium's wherever the meaning is Cilium's (spec §6.5), else they begin with `isthmus_`.
#![forbid(unsafe_code)]

mod logs;
mod metrics;

pub use logs::{LogFormat, init_logs};
pub use metrics::Metrics;
pub use prometheus_client as client;
