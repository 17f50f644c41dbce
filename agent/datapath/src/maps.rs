//! The pinned maps: what each must look like, and reading and writing them.
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use isthmus_bpf_abi::{
    Alive, BackendValue, ConfigValue, CtKey, CtValue, IpCacheKey, IpCacheValue, MetricValue, Reason,
    SkRevKey, SkRevValue, SvcKey, SvcValue, map_names,
};

use crate::bytes::{Bytes, one, rows};
use crate::config::Capacity;
use crate::error::Error;
use crate::observed::Observed;
use crate::plan::Plan;
use crate::sys::{self, MapInfo};

const HASH: u32 = 1;
const ARRAY: u32 = 2;
const PERCPU_ARRAY: u32 = 6;
const LRU_HASH: u32 = 9;
const LPM_TRIE: u32 = 11;
const NO_PREALLOC: u32 = 1;
const MMAPABLE: u32 = 1 << 10;

/// What a map must look like.
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    kind: u32,
    key_size: usize,
    value_size: usize,
    pub(crate) max_entries: u32,
    flags: u32,
}

const fn shape<K, V>(name: &'static str, kind: u32, max_entries: u32, flags: u32) -> Shape {
    Shape {
        name,
        kind,
        key_size: size_of::<K>(),
        value_size: size_of::<V>(),
        max_entries,
        flags,
    }
}

/// The shapes of all maps.
pub(crate) fn shapes(capacity: &Capacity) -> [Shape; 9] {
    [
        shape::<SvcKey, SvcValue>(map_names::SERVICES, HASH, capacity.services, 0),
        shape::<u32, u32>(map_names::SLOTS, ARRAY, capacity.slots, 0),
        shape::<u32, BackendValue>(map_names::BACKENDS, ARRAY, capacity.backends, 0),
        shape::<u32, Alive>(map_names::ALIVE, ARRAY, 1, MMAPABLE),
        shape::<SkRevKey, SkRevValue>(map_names::SK_REV, LRU_HASH, capacity.sockets, 0),
        shape::<IpCacheKey, IpCacheValue>(map_names::IPCACHE, LPM_TRIE, capacity.ipcache, NO_PREALLOC),
        shape::<CtKey, CtValue>(map_names::EDGE_CT, LRU_HASH, capacity.flows, 0),
        shape::<u32, ConfigValue>(map_names::CONFIG, ARRAY, 1, 0),
        shape::<u32, MetricValue>(map_names::METRICS, PERCPU_ARRAY, Reason::ALL.len() as u32, 0),
    ]
}

impl Shape {
    /// Refuses a pinned map that is not like this. `sizes`: also compare the number of entries.
    fn check(&self, path: &Path, info: &MapInfo, sizes: bool) -> Result<(), Error> {
        let pairs = [
            ("type", info.kind, self.kind),
            ("key size", info.key_size, self.key_size as u32),
            ("value size", info.value_size, self.value_size as u32),
            ("flags", info.flags, self.flags),
            (
                "max_entries",
                info.max_entries,
                if sizes { self.max_entries } else { info.max_entries },
            ),
        ];
        match pairs.into_iter().find(|(_, found, wanted)| found != wanted) {
            Some((field, found, wanted)) => Err(Error::ForeignMap {
                path: path.to_owned(),
                field,
                found: found.into(),
                wanted: wanted.into(),
            }),
            None => Ok(()),
        }
    }
}

/// Refuses if any map that is already pinned in `dir` has another shape; maps that are not pinned are fine.
pub(crate) fn check_pins(dir: &Path, capacity: &Capacity) -> Result<(), Error> {
    for shape in shapes(capacity) {
        if dir.join(shape.name).exists() {
            PinnedMap::open(dir, &shape, true)?;
        }
    }
    Ok(())
}

/// One open map.
#[derive(Debug)]
pub(crate) struct PinnedMap {
    name: &'static str,
    pub(crate) fd: OwnedFd,
    info: MapInfo,
}

impl PinnedMap {
    fn open(dir: &Path, shape: &Shape, sizes: bool) -> Result<Self, Error> {
        let path = dir.join(shape.name);
        let foreign = |e: io::Error| Error::ForeignPin {
            path: path.clone(),
            reason: e.to_string(),
        };
        let fd = sys::open_pin(&path).map_err(foreign)?;
        // A program or a link answers here too, with other fields: the type then does not fit.
        let info = sys::map_info(fd.as_fd()).map_err(foreign)?;
        shape.check(&path, &info, sizes)?;
        Ok(Self {
            name: shape.name,
            fd,
            info,
        })
    }

    fn failed(&self, call: &'static str, source: io::Error) -> Error {
        match source.raw_os_error() {
            Some(libc::E2BIG | libc::ENOSPC) => Error::MapFull {
                map: self.name,
                capacity: self.info.max_entries,
            },
            _ => Error::Bpf {
                call,
                object: self.name.to_owned(),
                source,
            },
        }
    }

    fn dump<K: Bytes, V: Bytes>(&self) -> Result<impl Iterator<Item = (K, V)> + use<K, V>, Error> {
        let (keys, values) = sys::dump(self.fd.as_fd(), &self.info).map_err(|e| self.failed("dump", e))?;
        Ok(rows::<K>(&keys).into_iter().zip(rows::<V>(&values)))
    }

    fn write<K: Bytes, V: Bytes>(&self, entries: &[(K, V)]) -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut keys = Vec::with_capacity(entries.len() * size_of::<K>());
        let mut values = Vec::with_capacity(entries.len() * size_of::<V>());
        for (key, value) in entries {
            keys.extend_from_slice(key.bytes());
            values.extend_from_slice(value.bytes());
        }
        let sizes = (size_of::<K>(), size_of::<V>());
        sys::update_all(self.fd.as_fd(), &keys, &values, sizes).map_err(|e| self.failed("update", e))
    }

    fn remove<K: Bytes>(&self, keys: &[K]) -> Result<(), Error> {
        let bytes: Vec<u8> = keys.iter().flat_map(Bytes::bytes).copied().collect();
        sys::delete_all(self.fd.as_fd(), &bytes, size_of::<K>()).map_err(|e| self.failed("delete", e))
    }
}

/// All maps of one pin directory.
#[derive(Debug)]
pub(crate) struct Maps {
    services: PinnedMap,
    slots: PinnedMap,
    backends: PinnedMap,
    pub(crate) alive: PinnedMap,
    ipcache: PinnedMap,
    config: PinnedMap,
    metrics: PinnedMap,
}

impl Maps {
    /// Opens the pins in `dir`. With a capacity their sizes must be that; without, any size will do.
    pub(crate) fn open(dir: &Path, capacity: Option<&Capacity>) -> Result<Self, Error> {
        let [services, slots, backends, alive, _, ipcache, _, config, metrics] =
            shapes(capacity.unwrap_or(&Capacity::SMALL));
        let open = |shape: Shape| PinnedMap::open(dir, &shape, capacity.is_some());
        Ok(Self {
            services: open(services)?,
            slots: open(slots)?,
            backends: open(backends)?,
            alive: open(alive)?,
            ipcache: open(ipcache)?,
            config: open(config)?,
            metrics: open(metrics)?,
        })
    }

    /// The sizes that the maps have.
    pub(crate) fn capacity(&self) -> Capacity {
        Capacity {
            services: self.services.info.max_entries,
            slots: self.slots.info.max_entries,
            backends: self.backends.info.max_entries,
            ipcache: self.ipcache.info.max_entries,
            ..Capacity::SMALL
        }
    }

    pub(crate) fn observe(&self) -> Result<Observed, Error> {
        let services: BTreeMap<SvcKey, SvcValue> = self.services.dump()?.collect();
        let slots = self.slots.dump::<u32, u32>()?.map(|(_, id)| id).collect();
        let backends = self
            .backends
            .dump::<u32, BackendValue>()?
            .map(|(_, value)| value)
            .collect();
        let ipcache: BTreeMap<IpCacheKey, IpCacheValue> = self.ipcache.dump()?.collect();
        Ok(Observed::restore(
            &self.capacity(),
            services,
            slots,
            backends,
            ipcache,
        ))
    }

    /// Writes a plan in its order. On an error what was written stays; the next observation shows what that is.
    pub(crate) fn apply(&self, plan: &Plan) -> Result<(), Error> {
        self.backends.write(&plan.backends)?;
        self.slots.write(&plan.slots)?;
        self.services.write(&plan.services)?;
        self.services.remove(&plan.removed)?;
        self.backends.write(&plan.cleared)?;
        self.ipcache.write(&plan.ipcache)?;
        self.ipcache.remove(&plan.ipcache_removed)
    }

    pub(crate) fn read_config(&self) -> Result<ConfigValue, Error> {
        let mut value = vec![0; size_of::<ConfigValue>()];
        sys::lookup(self.config.fd.as_fd(), 0u32.bytes(), &mut value)
            .map_err(|e| self.config.failed("lookup", e))?;
        Ok(one(&value).unwrap_or_default())
    }

    pub(crate) fn write_config(&self, value: ConfigValue) -> Result<(), Error> {
        self.config.write(&[(0u32, value)])
    }

    /// Sums over all CPUs.
    pub(crate) fn metrics(&self) -> Result<Vec<(Reason, MetricValue)>, Error> {
        let cpus = aya::util::nr_cpus().map_err(|(what, source)| Error::Path {
            action: "read",
            path: what.into(),
            source,
        })?;
        let mut values = vec![0; size_of::<MetricValue>() * cpus];
        let mut out = Vec::with_capacity(Reason::ALL.len());
        for reason in Reason::ALL {
            let key = *reason as u32;
            sys::lookup(self.metrics.fd.as_fd(), key.bytes(), &mut values)
                .map_err(|e| self.metrics.failed("lookup", e))?;
            let sum = rows::<MetricValue>(&values)
                .into_iter()
                .fold(MetricValue::default(), |sum, cpu| MetricValue {
                    packets: sum.packets.wrapping_add(cpu.packets),
                    bytes: sum.bytes.wrapping_add(cpu.bytes),
                });
            out.push((*reason, sum));
        }
        Ok(out)
    }
}
