//! The command line.
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::lab::UpOptions;
use crate::lab::plan::DEFAULT_NAME;
use crate::lab::process::RunArgs;
use crate::lab::router::FibArgs;
use crate::output::Format;
use crate::traffic::{ClientArgs, EchoArgs};

/// Joins clusters into a mesh, shows how it stands, and runs a lab of two clusters on this machine.
#[derive(Debug, Parser)]
#[command(
    name = "meshctl",
    version,
    max_term_width = 100,
    after_help = "Start here:\n  sudo meshctl lab up\n  sudo meshctl connect east west\n  sudo meshctl status\n\n\
                  Exit codes: 0 ok, 1 usage, 2 degraded, 3 down, 4 unreachable, 5 timeout"
)]
pub(crate) struct Cli {
    /// No symbols, no colours, no line that changes; also with NO_COLOR and when standard error is no terminal.
    #[arg(long, global = true)]
    pub(crate) plain: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a lab: two clusters, a router and a client on this machine.
    #[command(subcommand)]
    Lab(LabCommand),
    /// Join two clusters, and wait until a packet has crossed.
    Connect(ConnectArgs),
    /// Part two clusters.
    Disconnect(ConnectArgs),
    /// How every cluster of the mesh stands.
    Status(ListArgs),
    /// Services, their backends in every cluster, and which clusters get new connections.
    Services(ListArgs),
    /// Nodes of all clusters, as each cluster sees them.
    Nodes(ListArgs),
    /// BGP sessions and routes.
    #[command(subcommand)]
    Bgp(BgpCommand),
    /// Versions of meshctl and of the daemons that it reaches.
    Version(ListArgs),
    /// A completion script for a shell, on standard output.
    Completion {
        /// The shell.
        shell: Shell,
    },
    #[command(name = "__run", hide = true)]
    Run(RunArgs),
    #[command(name = "__echo", hide = true)]
    Echo(EchoArgs),
    #[command(name = "__traffic", hide = true)]
    Traffic(ClientArgs),
    #[command(name = "__fib", hide = true)]
    Fib(FibArgs),
}

/// The lab that is meant.
#[derive(Debug, Clone, Args)]
pub(crate) struct LabName {
    /// Name of the lab: the prefix of all that it makes.
    #[arg(long, default_value = DEFAULT_NAME)]
    pub(crate) name: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LabCommand {
    /// Bring a lab up, not meshed yet.
    Up {
        #[command(flatten)]
        lab: LabName,
        #[command(flatten)]
        options: UpOptions,
    },
    /// Take a lab down; nothing of it is left.
    Down {
        #[command(flatten)]
        lab: LabName,
    },
    /// The lab's processes and links.
    Status {
        #[command(flatten)]
        lab: LabName,
        /// How to show it.
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
    },
    /// Run a program in a node, a pod, the client or the router.
    Exec {
        #[command(flatten)]
        lab: LabName,
        /// Where: `client`, `tor`, `east-1`, `box-east-1`, …
        place: String,
        /// The program and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Open a shell there.
    Shell {
        #[command(flatten)]
        lab: LabName,
        /// Where: `client`, `tor`, `east-1`, `box-east-1`, …
        place: String,
    },
    /// Break a part: node:west-1, cluster:west, link:tor-east-1, agent:east-1, speaker:east-1, apiserver:west,
    /// pods:east/echo.
    Break {
        #[command(flatten)]
        lab: LabName,
        /// What to break.
        part: String,
    },
    /// Heal a part that was broken, or all of them.
    Heal {
        #[command(flatten)]
        lab: LabName,
        /// What to heal; without it, whatever is broken.
        part: Option<String>,
    },
    /// Show in under a minute what the mesh does, with measured figures.
    Demo {
        #[command(flatten)]
        lab: LabName,
        /// How to show the summary.
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
    },
}

/// Which clusters are meant, where they are not all in one lab.
#[derive(Debug, Clone, Args)]
pub(crate) struct Scope {
    /// The lab; without it the only one that is up.
    #[arg(long, value_name = "NAME")]
    pub(crate) lab: Option<String>,
    /// A directory with one directory for each cluster (cluster.yaml, pki, clustermesh, run), instead of a lab.
    #[arg(long, value_name = "DIR", conflicts_with = "lab")]
    pub(crate) context_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// A cluster: its name, or its directory.
    pub(crate) first: String,
    /// The other cluster.
    pub(crate) second: String,
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// Check everything and say what would be written, without writing it.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Return when the configuration is written, without waiting for both sides and the probe.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Seconds to wait for both sides and the probe.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub(crate) timeout: u64,
}

/// What every listing takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// One daemon's admin socket, instead of all daemons of all clusters.
    #[arg(long, value_name = "SOCKET", conflicts_with_all = ["lab", "context_dir"])]
    pub(crate) socket: Option<PathBuf>,
    /// How to show it.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Wait until everything is as it should be.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Seconds for --wait.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub(crate) timeout: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BgpCommand {
    /// Sessions: who, how long, how many routes.
    Peers(ListArgs),
    /// Routes that were received, sent, or chosen.
    Routes {
        /// The table.
        #[arg(value_enum, default_value = "best")]
        table: Table,
        #[command(flatten)]
        list: ListArgs,
    },
}

/// A table of routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Table {
    /// What peers have sent.
    In,
    /// What peers have been sent, and what not, with the reason.
    Out,
    /// The best path of every prefix.
    Best,
}

impl Table {
    /// As the speaker's admin API says it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
            Self::Best => "best",
        }
    }
}
