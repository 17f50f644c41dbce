//! Where the programs are attached and how large the maps are.
use std::path::PathBuf;

use isthmus_bpf_abi::Group;

use crate::error::Error;

/// How to open the data path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Directory on a bpffs that holds our pins, one for each node, e.g. `/sys/fs/bpf/isthmus`.
    pub pin_dir: PathBuf,
    /// Mount a bpffs of its own on `pin_dir` if that is not on one yet. It must be the host's mount namespace: a mount that
    /// goes away with the process takes the data path with it.
    pub mount_bpffs: bool,
    /// cgroup2 directory whose processes get socket load balancing; `None`: no socket load balancing.
    pub cgroup: Option<PathBuf>,
    /// Network devices towards the outside, for packets to LoadBalancer addresses.
    pub uplinks: Vec<String>,
    /// Collect-metadata VXLAN device; `None` until there is one (see `Datapath::attach_overlay`).
    pub overlay: Option<String>,
    /// Id of this node's cluster.
    pub cluster_id: u16,
    /// What a socket gets that connects to a service without backends.
    pub without_backend: WithoutBackend,
    /// Sizes of the maps.
    pub capacity: Capacity,
}

/// What a socket gets that connects to a service without backends in a live cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WithoutBackend {
    /// `ECONNREFUSED`, at once.
    #[default]
    Refuse,
    /// The packet goes out to the virtual address untranslated (another load balancer may know it).
    Pass,
}

/// Entries in each map. They are fixed when the maps are made: a later change needs `Datapath::remove` first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Frontends.
    pub services: u32,
    /// Backend slots of all frontends: each group of backends takes the next power of two of its size.
    pub slots: u32,
    /// Different backends (address, port and cluster).
    pub backends: u32,
    /// Prefixes in the ipcache.
    pub ipcache: u32,
    /// Translated sockets that are remembered for getpeername and recvmsg.
    pub sockets: u32,
    /// Entries for balanced flows from outside, two for each flow.
    pub flows: u32,
}

impl Default for Capacity {
    /// For a node of a large mesh: about 60 MB of kernel memory.
    fn default() -> Self {
        Self {
            services: 65_536,
            slots: 524_288,
            backends: 262_144,
            ipcache: 524_288,
            sockets: 131_072,
            flows: 131_072,
        }
    }
}

impl Capacity {
    /// Refuses sizes that cannot be.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let sizes = [
            ("services", self.services, u32::MAX >> 8),
            ("slots", self.slots, Group::MAX_SLOTS),
            ("backends", self.backends, u32::MAX >> 8),
            ("ipcache", self.ipcache, u32::MAX >> 8),
            ("sockets", self.sockets, u32::MAX >> 8),
            ("flows", self.flows, u32::MAX >> 8),
        ];
        match sizes
            .into_iter()
            .find(|(_, wanted, most)| *wanted == 0 || wanted > most)
        {
            Some((what, wanted, most)) => Err(Error::Capacity { what, wanted, most }),
            None => Ok(()),
        }
    }

    /// For the lab and for tests, where one machine carries many nodes: about 2 MB.
    pub const SMALL: Self = Self {
        services: 1024,
        slots: 8192,
        backends: 4096,
        ipcache: 8192,
        sockets: 8192,
        flows: 8192,
    };
}
