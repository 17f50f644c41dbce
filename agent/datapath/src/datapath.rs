//! The open data path.
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use isthmus_bpf_abi::{ABI_VERSION, CONFIG_PASS_WITHOUT_BACKEND, ConfigValue, Reason, SCHEMA_HASH};

use crate::alive::AliveBits;
use crate::clsact;
use crate::config::{Config, WithoutBackend};
use crate::desired::{Desired, Frontend, IpCacheRow, ServiceRow};
use crate::device::Device;
use crate::error::{Error, RowError};
use crate::hooks::{self, Attached, Hook};
use crate::maps::{Maps, check_pins};
use crate::object;
use crate::observed::{Observed, groups_of};
use crate::pins::{self, Pins};
use crate::plan::{self, Plan};

/// What this process has done to the maps since it opened them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Map entries written or removed. Stays 0 over a restart with the same desired state.
    pub ops_written: u64,
    /// Calls that wrote something.
    pub applies: u64,
    /// Desired rows that could not be expressed.
    pub rows_refused: u64,
}

/// What one call has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Map entries written or removed.
    pub written: usize,
    /// Rows that cannot be expressed; what the maps held for them stays.
    pub refused: Vec<RowError>,
    /// Time for the comparison.
    pub planned_in: Duration,
    /// Time for the writes.
    pub written_in: Duration,
}

/// One counter of the programs, summed over all CPUs since the maps were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// What was counted.
    pub reason: Reason,
    /// Packets, or socket calls.
    pub packets: u64,
    /// Bytes of the packets.
    pub bytes: u64,
}

/// The programs, attached and pinned, and their maps. Dropping it changes nothing in the kernel.
#[derive(Debug)]
pub struct Datapath {
    config: Config,
    pins: Pins,
    maps: Maps,
    programs: BTreeMap<&'static str, OwnedFd>,
    alive: AliveBits,
    observed: Observed,
    attached: Vec<Attached>,
    adopted: bool,
    tcx: bool,
    stale: bool,
    counters: Counters,
}

impl Datapath {
    /// Loads the programs and attaches them, or adopts what an earlier process has left pinned.
    ///
    /// Adopted maps keep their content and adopted links stay where they are; only if this build has other programs are
    /// those replaced, in place. Pinned maps of another type, layout or size are refused and left alone.
    pub fn open(config: Config) -> Result<Self, Error> {
        let tcx = hooks::has_tcx();
        if !tcx {
            tracing::warn!(
                "no tcx (Linux 6.6): clsact filters instead, and whoever adds one before ours sees packets first"
            );
        }
        Self::open_by(config, tcx)
    }

    /// As [`open`](Self::open), but on devices by clsact filters even where the kernel has tcx.
    pub fn open_with_clsact(config: Config) -> Result<Self, Error> {
        Self::open_by(config, false)
    }

    fn open_by(config: Config, tcx: bool) -> Result<Self, Error> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        config.capacity.check()?;
        if let Some(cgroup) = config.cgroup.as_ref().filter(|cgroup| !pins::is_cgroup2(cgroup)) {
            return Err(Error::NotCgroup2 { path: cgroup.clone() });
        }
        let uplinks = config
            .uplinks
            .iter()
            .map(|name| Device::find(name))
            .collect::<Result<Vec<_>, _>>()?;
        let overlay = config.overlay.as_deref().map(Device::find).transpose()?;
        let pins = Pins::prepare(&config.pin_dir, config.mount_bpffs)?;
        check_pins(&pins.maps(), &config.capacity)?;
        let (programs, fresh) = programs(&pins, &config)?;
        let maps = Maps::open(&pins.maps(), Some(&config.capacity))?;
        let alive = AliveBits::map(maps.alive.fd.as_fd()).map_err(|source| Error::Bpf {
            call: "mmap",
            object: "ALIVE".into(),
            source,
        })?;
        let observed = maps.observe()?;
        let mut datapath = Self {
            config,
            pins,
            maps,
            programs,
            alive,
            observed,
            attached: Vec::new(),
            adopted: false,
            tcx,
            stale: false,
            counters: Counters::default(),
        };
        datapath.settle(fresh)?;
        datapath.attach(&uplinks, overlay.as_ref())?;
        Ok(datapath)
    }

    /// Brings settings and programs up to date before anything new is attached.
    fn settle(&mut self, fresh: bool) -> Result<(), Error> {
        let held = self.maps.read_config()?;
        self.adopted = held.schema_hash == SCHEMA_HASH;
        if !self.adopted {
            // New maps: all zero, also the alive bits.
            self.alive.set_all();
        }
        let mut flags = 0;
        if self.config.without_backend == WithoutBackend::Pass {
            flags |= CONFIG_PASS_WITHOUT_BACKEND;
        }
        let mut wanted = ConfigValue {
            schema_hash: SCHEMA_HASH,
            object_hash: held.object_hash,
            abi_version: ABI_VERSION,
            cluster_id: self.config.cluster_id,
            flags,
            ..ConfigValue::default()
        };
        self.write_config(held, wanted)?;
        if fresh {
            for (name, fd) in &self.programs {
                hooks::repin(fd.as_fd(), &self.pins.programs().join(name))?;
            }
            hooks::update_links(&self.pins, |hook| self.program(hook))?;
        }
        // Only now: had we died before, the next start would do it again.
        let settled = wanted;
        wanted.object_hash = object::object_hash();
        self.write_config(settled, wanted)
    }

    fn write_config(&mut self, held: ConfigValue, wanted: ConfigValue) -> Result<(), Error> {
        if held != wanted {
            self.maps.write_config(wanted)?;
            self.counters.ops_written += 1;
        }
        Ok(())
    }

    fn program(&self, hook: Hook) -> Result<OwnedFd, Error> {
        let missing = || Error::Load {
            program: hook.program.to_owned(),
            reason: "not loaded".into(),
        };
        let fd = self.programs.get(hook.program).ok_or_else(missing)?;
        fd.try_clone().map_err(|source| Error::Bpf {
            call: "dup",
            object: hook.program.into(),
            source,
        })
    }

    fn attach(&mut self, uplinks: &[Device], overlay: Option<&Device>) -> Result<(), Error> {
        let mut attached = Vec::new();
        if let Some(cgroup) = &self.config.cgroup {
            for hook in hooks::SOCKET {
                attached.push(hooks::attach_cgroup(&self.pins, hook, cgroup, |hook| {
                    self.program(hook)
                })?);
            }
        }
        if let Some(overlay) = overlay {
            attached.extend(self.attach_device(overlay, hooks::OVERLAY)?);
        }
        for uplink in uplinks {
            attached.extend(self.attach_device(uplink, edge_hooks(uplink))?);
        }
        self.attached = attached;
        self.prune(uplinks, overlay)
    }

    fn attach_device(&self, device: &Device, hooks: [Hook; 2]) -> Result<Vec<Attached>, Error> {
        let attach = |hook: &Hook| {
            if self.tcx {
                hooks::attach_device(&self.pins, *hook, device, |hook| self.program(hook))
            } else {
                clsact::attach(&self.pins, *hook, device)
            }
        };
        hooks.iter().map(attach).collect()
    }

    /// Detaches from where the configuration no longer wants us. A tunnel device that is not named (yet) stays as it is.
    fn prune(&self, uplinks: &[Device], overlay: Option<&Device>) -> Result<(), Error> {
        let removed = hooks::prune(&self.pins, |program, index| match index {
            None => self.config.cgroup.is_some(),
            Some(index) if hooks::OVERLAY.iter().any(|hook| hook.program == program) => {
                overlay.is_none_or(|device| device.index == index)
            }
            Some(index) => uplinks.iter().any(|device| {
                device.index == index && edge_hooks(device).iter().any(|hook| hook.program == program)
            }),
        })?;
        for link in removed {
            tracing::info!(link, "detached");
        }
        Ok(())
    }

    /// Attaches to the tunnel device `name`, or finds the programs attached there. Returns how many had to be attached.
    pub fn attach_overlay(&mut self, name: &str) -> Result<usize, Error> {
        self.config.overlay = Some(name.to_owned());
        self.reattach()
    }

    /// Names the uplinks anew; programs on others are detached. Returns how many had to be attached.
    pub fn set_uplinks(&mut self, names: &[String]) -> Result<usize, Error> {
        self.config.uplinks = names.to_vec();
        self.reattach()
    }

    /// Attaches wherever the configuration wants it and something has undone it: a device was made anew, a pin removed.
    /// Call it when links change. Returns how many hooks had to be attached.
    pub fn reattach(&mut self) -> Result<usize, Error> {
        let uplinks = self
            .config
            .uplinks
            .iter()
            .map(|name| Device::find(name))
            .collect::<Result<Vec<_>, _>>()?;
        let overlay = self.config.overlay.as_deref().map(Device::find).transpose()?;
        self.attach(&uplinks, overlay.as_ref())?;
        Ok(self.attached.iter().filter(|hook| !hook.adopted).count())
    }

    /// True if the maps were there before this process.
    pub fn is_adopted(&self) -> bool {
        self.adopted
    }

    /// Where the programs are attached.
    pub fn attached(&self) -> &[Attached] {
        &self.attached
    }

    /// What this process has done to the maps.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What the maps hold, as of the last call that wrote.
    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Reads the maps anew, for when something else may have changed them.
    pub fn observe(&mut self) -> Result<&Observed, Error> {
        self.observed = self.maps.observe()?;
        self.stale = false;
        Ok(&self.observed)
    }

    /// Makes the maps hold `desired`, and nothing else.
    pub fn sync(&mut self, desired: &Desired) -> Result<Report, Error> {
        self.refresh()?;
        let started = Instant::now();
        let plan = plan::plan(desired, &self.observed);
        self.apply(plan, started.elapsed())
    }

    /// Makes the maps hold `row` for one frontend, or nothing for it; all others are left as they are.
    pub fn set_service(&mut self, frontend: &Frontend, row: Option<&ServiceRow>) -> Result<Report, Error> {
        self.refresh()?;
        let started = Instant::now();
        let plan = plan::plan_service(frontend, row, &self.observed)?;
        self.apply(plan, started.elapsed())
    }

    /// Makes the ipcache hold `row` for one prefix, or nothing for it.
    pub fn set_prefix(&mut self, prefix: &IpNet, row: Option<&IpCacheRow>) -> Result<Report, Error> {
        self.refresh()?;
        let plan = plan::plan_prefix(prefix, row, &self.observed);
        self.apply(plan, Duration::ZERO)
    }

    /// Sets how many backends of `cluster` a frontend shows: one write. 0 takes them all out, and a later call can show them
    /// again; more than were written for it are refused. The next [`sync`](Self::sync) sets what `Desired` says.
    pub fn set_backend_count(
        &mut self,
        frontend: &Frontend,
        cluster: u16,
        count: u16,
    ) -> Result<Report, Error> {
        self.refresh()?;
        let started = Instant::now();
        let key = plan::svc_key(frontend)?;
        let unknown = || Error::Unknown {
            what: format!("{frontend} with {count} backends in cluster {cluster}"),
        };
        let mut svc = *self.observed.services.get(&key).ok_or_else(unknown)?;
        let group = groups_of(&svc)
            .find(|group| group.cluster == cluster)
            .ok_or_else(unknown)?;
        let mut shown = group;
        shown.count = count;
        if u32::from(count) > 1 << group.order() || !self.observed.all_present(&shown) {
            return Err(unknown());
        }
        for group in svc.groups.iter_mut().filter(|group| group.cluster == cluster) {
            group.count = count;
        }
        let plan = Plan {
            services: vec![(key, svc)],
            ..Plan::default()
        };
        self.apply(
            if count == shown.count && group.count == count {
                Plan::default()
            } else {
                plan
            },
            started.elapsed(),
        )
    }

    /// Sets whether new connections may go to `cluster`: one store, seen by every service at once.
    pub fn set_cluster_alive(&self, cluster: u16, alive: bool) -> bool {
        self.alive.set(cluster, alive)
    }

    /// The alive bits, for a prober that must not wait for whoever holds the data path.
    pub fn alive(&self) -> AliveBits {
        self.alive.clone()
    }

    /// The counters of the programs.
    pub fn metrics(&self) -> Result<Vec<Metric>, Error> {
        let metrics = self.maps.metrics()?.into_iter();
        Ok(metrics
            .map(|(reason, sum)| Metric {
                reason,
                packets: sum.packets,
                bytes: sum.bytes,
            })
            .collect())
    }

    /// Detaches everything of ours under `pin_dir` and removes it, whoever loaded it.
    pub fn remove(pin_dir: &Path) -> Result<(), Error> {
        pins::remove_all(pin_dir)
    }

    fn refresh(&mut self) -> Result<(), Error> {
        if self.stale {
            self.observe()?;
        }
        Ok(())
    }

    fn apply(&mut self, plan: Plan, planned_in: Duration) -> Result<Report, Error> {
        self.counters.rows_refused += plan.refused.len() as u64;
        let written = plan.len();
        let started = Instant::now();
        if written > 0 {
            self.counters.applies += 1;
            self.counters.ops_written += written as u64;
            // If this fails half-way we no longer know what is there: the next call looks.
            self.stale = true;
            self.maps.apply(&plan)?;
            self.stale = false;
        }
        let written_in = started.elapsed();
        self.observed.note(&plan);
        Ok(Report {
            written,
            refused: plan.refused,
            planned_in,
            written_in,
        })
    }
}

fn edge_hooks(uplink: &Device) -> [Hook; 2] {
    if uplink.ethernet {
        hooks::EDGE
    } else {
        hooks::EDGE_L3
    }
}

/// The pinned programs if they are those of this build, else freshly loaded ones (`true`).
fn programs(pins: &Pins, config: &Config) -> Result<(BTreeMap<&'static str, OwnedFd>, bool), Error> {
    let held = Maps::open(&pins.maps(), Some(&config.capacity)).and_then(|maps| maps.read_config());
    if held.is_ok_and(|held| held.schema_hash == SCHEMA_HASH && held.object_hash == object::object_hash())
        && let Some(programs) = object::open_programs(pins)
    {
        return Ok((programs, false));
    }
    raise_memlock();
    Ok((object::load_programs(&pins.maps(), &config.capacity)?, true))
}

/// Kernels before 5.11 charge maps against this limit.
fn raise_memlock() {
    let limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: a valid limit; a refusal shows later as a map that cannot be made.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}

/// How many programs, ours and others', are at each hook where we attach, for tests and for `doctor`. Devices are left out
/// on kernels without tcx.
pub fn programs_at(config: &Config) -> Result<BTreeMap<String, usize>, Error> {
    let mut out = BTreeMap::new();
    let failed = |object: &str| {
        let object = object.to_owned();
        move |source| Error::Bpf {
            call: "query",
            object,
            source,
        }
    };
    if let Some(cgroup) = &config.cgroup {
        for hook in hooks::SOCKET {
            let ids = hooks::cgroup_programs(cgroup, hook).map_err(failed(hook.program))?;
            out.insert(hook.program.to_owned(), ids.len());
        }
    }
    if !hooks::has_tcx() {
        return Ok(out);
    }
    let uplinks = config.uplinks.iter().map(|name| (name, None));
    for (name, overlay) in uplinks.chain(config.overlay.iter().map(|name| (name, Some(hooks::OVERLAY)))) {
        let device = Device::find(name)?;
        for hook in overlay.unwrap_or_else(|| edge_hooks(&device)) {
            let ids = hooks::device_programs(device.index, hook).map_err(failed(hook.program))?;
            out.insert(format!("{} {name}", hook.program), ids.len());
        }
    }
    Ok(out)
}
