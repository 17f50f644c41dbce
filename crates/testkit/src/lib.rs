//! What tests share: namespaces, processes, peers from Debian, and waiting for a condition.
//!
//! A test waits for a condition with a deadline and never sleeps for a fixed time; it starts a peer under a guard that
//! kills it by its pid and shows its output when the test fails; and when it cannot run (no root, no package) it prints
//! why and returns.
#![deny(unsafe_code)]

mod namespace;
mod need;
mod port;
mod process;
mod wait;

pub use namespace::TestNetns;
pub use need::{Need, find_program, needs};
pub use port::{free_tcp_port, free_udp_port};
pub use process::Process;
pub use wait::{Timeout, wait_for, wait_for_async, wait_until, wait_until_async};
