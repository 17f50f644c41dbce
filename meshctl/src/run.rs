//! From the command line to the exit code.
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::cli::{BgpCommand, Cli, Command, LabCommand, ListArgs};
use crate::connect;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::lab;
use crate::lab::admin::runtime;
use crate::output::{Format, object_text, print};
use crate::progress::Progress;
use crate::traffic;
use crate::views;

/// Parses, runs, says what failed.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let progress = Progress::new(cli.plain);
    let format = format_of(&cli.command);
    let exit = match run(&cli.command, &progress) {
        Ok(exit) => exit,
        Err(failure) => {
            tell(&failure, format, progress.plain());
            failure.exit()
        }
    };
    exit.into()
}

/// clap ends usage errors with 2, which means degraded here.
fn refuse(error: &clap::Error) -> ExitCode {
    // Nobody is left to tell if standard error is closed.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Ok.into(),
        _ => Exit::Usage.into(),
    }
}

fn run(command: &Command, progress: &Progress) -> Outcome<Exit> {
    let done = |()| Exit::Ok;
    match command {
        Command::Lab(command) => lab::commands::run(command, progress),
        Command::Connect(args) => connect::connect(args, progress),
        Command::Disconnect(args) => connect::disconnect(args, progress),
        Command::Status(args) => views::status(args, progress),
        Command::Services(args) => views::services(args, progress),
        Command::Nodes(args) => views::nodes(args, progress),
        Command::Bgp(BgpCommand::Peers(args)) => views::bgp_peers(args, progress),
        Command::Bgp(BgpCommand::Routes { table, list }) => views::bgp_routes(*table, list, progress),
        Command::Version(args) => views::version(args, progress),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "meshctl", &mut script);
            print(&String::from_utf8_lossy(&script)).map(done)
        }
        Command::Run(args) => Err(lab::process::become_process(args)),
        Command::Echo(args) => runtime().block_on(traffic::echo(args)).map(done),
        Command::Traffic(args) => runtime().block_on(traffic::client(args)).map(done),
        Command::Fib(args) => runtime().block_on(lab::router::keep_fib(args)).map(done),
    }
}

fn format_of(command: &Command) -> Format {
    let of = |args: &ListArgs| args.output;
    match command {
        Command::Status(args) | Command::Services(args) | Command::Nodes(args) | Command::Version(args) => {
            of(args)
        }
        Command::Bgp(BgpCommand::Peers(args)) => of(args),
        Command::Bgp(BgpCommand::Routes { list, .. }) => of(list),
        Command::Lab(LabCommand::Status { output, .. } | LabCommand::Demo { output, .. }) => *output,
        _ => Format::Table,
    }
}

/// A failure goes to standard error as text, and to standard output as an object where an object was asked for.
fn tell(failure: &Failure, format: Format, plain: bool) {
    let colour = !plain && std::io::stderr().is_terminal();
    let sign = if colour { "\x1b[31m✗\x1b[0m" } else { "error:" };
    eprintln!("{sign} {failure}");
    if matches!(format, Format::Json | Format::Yaml)
        && let Ok(text) = object_text(&failure.object(), format)
    {
        let _ = print(&text);
    }
}
