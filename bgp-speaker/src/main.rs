//! The BGP daemon: advertises pod CIDRs and LoadBalancer addresses with live backends.
//!
//! A route exists only while somebody behind it can answer (`advertise`). The protocol is `isthmus-bgp-engine`'s; this
//! binary is its shell: sockets, time, files, the admin API.
mod admin;
mod advertise;
mod args;
mod config;
mod connection;
mod daemon;
mod dial;
mod event;
mod follow;
mod intent;
mod listen;
mod log;
mod metrics;
mod next_hop;
mod peers;
mod remote;
mod shell;
mod socket;
mod view;

use std::process::ExitCode;

use clap::Parser;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let args = args::Args::parse();
    isthmus_telemetry::init_logs(args.log_format, "info");
    match daemon::run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bgp-speaker: {error:#}");
            ExitCode::FAILURE
        }
    }
}
