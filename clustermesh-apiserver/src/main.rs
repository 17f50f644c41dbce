//! Exports a cluster to its peers.
//!
//! ```text
//!   manifests ─ sources ─► snapshot ─ export (pure) ─► follow: diff against the store ─► writer (leases) ─► store ─► peers
//! ```
//! One task ([`follow`]) is the only writer of the cluster's keys.
#![forbid(unsafe_code)]

mod args;
mod beat;
mod changes;
mod daemon;
mod follow;
mod leases;
mod metrics;
mod progress;
mod view;
mod writer;

use std::process::ExitCode;

use clap::Parser;

/// Two workers and small stacks: the daemon mostly waits.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .thread_stack_size(1 << 20)
        .enable_all()
        .build()
}

fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are no failure.
            let code = if error.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
            drop(error.print());
            return code;
        }
    };
    isthmus_telemetry::init_logs(args.log_format, "info");
    let result = runtime()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(daemon::run(args)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clustermesh-apiserver: {error:#}");
            ExitCode::FAILURE
        }
    }
}
