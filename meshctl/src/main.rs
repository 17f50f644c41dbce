//! The command line of Isthmus, with the one-machine lab.
#![deny(unsafe_code)]

mod cli;
mod connect;
mod context;
mod demo;
mod exit;
mod failure;
mod lab;
mod output;
mod progress;
mod run;
mod traffic;
mod views;

use std::process::ExitCode;

fn main() -> ExitCode {
    run::main()
}
