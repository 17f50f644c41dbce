//! What can go wrong, with the cure in the message.
use std::io;
use std::path::PathBuf;

/// Why the data path could not be opened, read or changed. Whatever was loaded before keeps running.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not root.
    #[error("loading eBPF programs needs root (or CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN): run as root")]
    NotRoot,
    /// The pin directory is not on a bpffs.
    #[error(
        "{path} is not on a bpffs, so nothing in it would outlive this process: mount one (mount -t bpf bpf {path}) or \
         let us mount it (mount_bpffs)"
    )]
    NotBpffs {
        /// Directory that was asked for.
        path: PathBuf,
    },
    /// The cgroup is not a cgroup2 directory.
    #[error(
        "{path} is not a cgroup2 directory: mount cgroup2 (mount -t cgroup2 none {path}) or name another one"
    )]
    NotCgroup2 {
        /// Directory that was asked for.
        path: PathBuf,
    },
    /// A file or directory could not be used.
    #[error("cannot {action} {path}: {source}")]
    Path {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// No such network device in this network namespace.
    #[error("no network device {name} in this network namespace: create it first or correct the name")]
    NoDevice {
        /// Name that was asked for.
        name: String,
    },
    /// A pinned map is not what this build expects.
    #[error(
        "the pinned map {path} has {field} {found}, this build and configuration want {wanted}: it is left alone; remove the \
         pins (meshctl uninstall, or Datapath::remove) to start afresh, or use the build and sizes that made them"
    )]
    ForeignMap {
        /// The pin.
        path: PathBuf,
        /// Which property differs.
        field: &'static str,
        /// What the pinned map has.
        found: u64,
        /// What is expected.
        wanted: u64,
    },
    /// The pin is no map, program or link, or not of the expected kind.
    #[error(
        "the pin {path} is not one of ours ({reason}): it is left alone; remove it if nothing else uses it"
    )]
    ForeignPin {
        /// The pin.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Pins of another layout are present and attached.
    #[error(
        "{found} holds the data path of another version and stays attached: remove it first (meshctl uninstall, or \
         Datapath::remove), then start again"
    )]
    OtherLayout {
        /// The directory of the other layout.
        found: PathBuf,
    },
    /// The kernel refused a bpf(2) call.
    #[error("bpf {call} on {object}: {source}")]
    Bpf {
        /// The command.
        call: &'static str,
        /// What it was for.
        object: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel refused to load a program.
    #[error("the kernel refused the program {program}: {reason}")]
    Load {
        /// Name of the program.
        program: String,
        /// The loader's message, with the end of the verifier's log.
        reason: String,
    },
    /// A map is full; what was there before is kept.
    #[error("the map {map} is full ({capacity} entries): raise its capacity and start the data path afresh")]
    MapFull {
        /// Name of the map.
        map: &'static str,
        /// Its size.
        capacity: u32,
    },
    /// A size that the layout cannot number.
    #[error("capacity of {what} is {wanted}, it must be between 1 and {most}")]
    Capacity {
        /// Which one.
        what: &'static str,
        /// What was asked for.
        wanted: u32,
        /// The most that is possible.
        most: u32,
    },
    /// A desired row cannot be expressed in the maps; the row that was there before is kept.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The frontend is not programmed, or has no backends in this cluster.
    #[error("{what} is not programmed")]
    Unknown {
        /// What was asked for.
        what: String,
    },
}

/// Why a desired row cannot be expressed in the maps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The protocol has no number.
    #[error("{frontend}: only protocols with a number can be balanced")]
    Protocol {
        /// The row.
        frontend: String,
    },
    /// Backends in too many clusters.
    #[error(
        "{frontend} has backends in {clusters} clusters, at most {most} can be used at once: leave some out"
    )]
    TooManyClusters {
        /// The row.
        frontend: String,
        /// How many it has.
        clusters: usize,
        /// How many fit.
        most: usize,
    },
    /// Too many backends in one cluster.
    #[error("{frontend} has {backends} backends in cluster {cluster}, at most 65535 can be used")]
    TooManyBackends {
        /// The row.
        frontend: String,
        /// The cluster.
        cluster: u16,
        /// How many there are.
        backends: usize,
    },
    /// A cluster id that the alive bitmap has no bit for.
    #[error("{frontend} names cluster {cluster}, ids end at 1023")]
    ClusterId {
        /// The row.
        frontend: String,
        /// The id.
        cluster: u16,
    },
    /// No free slots or backends left.
    #[error("{frontend} does not fit: no {what} left, raise the capacity")]
    NoRoom {
        /// The row.
        frontend: String,
        /// Slots or backends.
        what: &'static str,
    },
}
