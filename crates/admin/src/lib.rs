//! The daemons' admin API: its views, its server on a unix socket, and its client.
//!
//! HTTP and JSON over a unix socket: one schema (the view types of this crate), readable with
//! `curl --unix-socket PATH http://x/v1/status`. Every daemon serves `/healthz`, `/readyz`, `/metrics` and its own views
//! under `/v1/`.
#![forbid(unsafe_code)]

pub mod agent;
pub mod apiserver;
pub mod bgp;
mod client;
mod error;
mod server;

pub use client::AdminClient;
pub use error::{AdminError, ErrorBody};
pub use server::{AdminServer, Readiness, common_routes, serve_tcp};
