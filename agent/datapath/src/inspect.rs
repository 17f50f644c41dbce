//! What is pinned, read without the agent and without changing anything.
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::path::Path;

use ipnet::IpNet;
use isthmus_bpf_abi::{
    AFFINITY_LOCAL, AFFINITY_REMOTE, IPCACHE_HAS_ENDPOINT, IPCACHE_SKIP_TUNNEL, IpCacheKey, IpCacheValue,
    SCOPE_EXTERNAL, SvcKey, SvcValue, unmapped_v4,
};
use isthmus_topology::{Protocol, Scope, ServiceAffinity, ServicePort};

use crate::alive::AliveBits;
use crate::datapath::{Datapath, Metric};
use crate::desired::{Backend, Frontend, IpCacheRow};
use crate::error::Error;
use crate::hooks::{self, Attached};
use crate::maps::Maps;
use crate::observed::{Observed, groups_of};
use crate::pins::Pins;

/// The content of a pin directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inspection {
    /// Id of this node's cluster.
    pub cluster_id: u16,
    /// Frontends by address.
    pub services: BTreeMap<Frontend, ServiceView>,
    /// Identities and endpoints by prefix.
    pub ipcache: BTreeMap<IpNet, IpCacheRow>,
    /// Clusters that new connections avoid.
    pub dead_clusters: Vec<u16>,
    /// Counters of the programs.
    pub metrics: Vec<Metric>,
    /// Links that are pinned.
    pub attached: Vec<Attached>,
}

/// A frontend as the kernel sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceView {
    /// Number of the frontend.
    pub id: u32,
    /// Which clusters it prefers.
    pub affinity: ServiceAffinity,
    /// Backends that may be chosen, of each cluster.
    pub groups: BTreeMap<u16, Vec<Backend>>,
}

impl Datapath {
    /// Reads what is pinned under `pin_dir`; `None` if nothing of this build's layout is. Works without an agent, also
    /// while one is running.
    pub fn inspect(pin_dir: &Path) -> Result<Option<Inspection>, Error> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        let Some(pins) = Pins::existing(pin_dir) else {
            return Ok(None);
        };
        let maps = Maps::open(&pins.maps(), None)?;
        let observed = maps.observe()?;
        let alive = AliveBits::map(maps.alive.fd.as_fd()).map_err(|source| Error::Bpf {
            call: "mmap",
            object: "ALIVE".into(),
            source,
        })?;
        let metrics = maps.metrics()?.into_iter();
        Ok(Some(Inspection {
            cluster_id: maps.read_config()?.cluster_id,
            services: observed.service_views(),
            ipcache: observed
                .ipcache
                .iter()
                .filter_map(|(key, value)| prefix(key, value))
                .collect(),
            dead_clusters: alive.dead(),
            metrics: metrics
                .map(|(reason, sum)| Metric {
                    reason,
                    packets: sum.packets,
                    bytes: sum.bytes,
                })
                .collect(),
            attached: hooks::list(&pins),
        }))
    }
}

impl Observed {
    /// The frontends with their backends.
    pub fn service_views(&self) -> BTreeMap<Frontend, ServiceView> {
        self.services
            .iter()
            .filter_map(|(key, svc)| Some((frontend(key)?, self.view(svc))))
            .collect()
    }

    fn view(&self, svc: &SvcValue) -> ServiceView {
        let backend = |id: &u32| {
            let held = self.backends.get(*id as usize)?;
            Some(Backend {
                ip: address(&held.ip),
                port: held.port,
            })
        };
        ServiceView {
            id: svc.svc_id,
            affinity: match svc.affinity {
                AFFINITY_LOCAL => ServiceAffinity::Local,
                AFFINITY_REMOTE => ServiceAffinity::Remote,
                _ => ServiceAffinity::None,
            },
            groups: groups_of(svc)
                .map(|group| {
                    (
                        group.cluster,
                        self.visible(&group).iter().filter_map(backend).collect(),
                    )
                })
                .collect(),
        }
    }
}

fn address(ip: &[u8; 16]) -> IpAddr {
    match unmapped_v4(ip) {
        Some(v4) => IpAddr::from(v4),
        None => IpAddr::V6(Ipv6Addr::from(*ip)),
    }
}

fn frontend(key: &SvcKey) -> Option<Frontend> {
    let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|p| p.number() == Some(key.proto))?;
    Some(Frontend {
        ip: address(&key.ip),
        port: ServicePort {
            protocol,
            port: key.port,
        },
        scope: if key.scope == SCOPE_EXTERNAL {
            Scope::External
        } else {
            Scope::Internal
        },
    })
}

fn prefix(key: &IpCacheKey, value: &IpCacheValue) -> Option<(IpNet, IpCacheRow)> {
    let ip = address(&key.ip);
    // ::ffff:0:0/95 and shorter would be IPv6 prefixes that only look mapped.
    let length = if ip.is_ipv4() {
        key.prefix_len.checked_sub(96)?
    } else {
        key.prefix_len
    };
    let net = IpNet::new(ip, u8::try_from(length).ok()?).ok()?;
    let row = IpCacheRow {
        identity: value.identity,
        endpoint: (value.flags & IPCACHE_HAS_ENDPOINT != 0).then(|| address(&value.endpoint)),
        key: value.key,
        skip_tunnel: value.flags & IPCACHE_SKIP_TUNNEL != 0,
    };
    Some((net, row))
}
