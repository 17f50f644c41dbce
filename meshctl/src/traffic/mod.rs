//! The lab's traffic: a server that says who it is, and a client that counts who answered.
mod client;
mod echo;
mod record;

pub(crate) use client::{ClientArgs, client};
pub(crate) use echo::{EchoArgs, echo};
pub(crate) use record::{Record, now_us};
