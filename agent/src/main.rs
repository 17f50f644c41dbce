//! The node daemon: joins remote clusters and programs this node's data path.
#![deny(unsafe_code)]

mod adopted;
mod args;
mod core;
mod daemon;
mod edge;
mod intents;
mod ipcache;
mod kernel;
mod metrics;
mod probe;
mod services;
mod views;
mod wanted;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = args::Args::parse();
    isthmus_telemetry::init_logs(args.log_format, "info");
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One sentence for people, whatever RUST_BACKTRACE says.
            eprintln!("isthmus-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: args::Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(daemon::run(args))
}
