//! From what is wanted and what is there to what must be written: a pure function, in an order that no reader can see half of.
//!
//! Backends come first, then the slots that point to them (in a free run, or beyond the visible end of a run), then the one
//! write of the service that makes them visible, and last what nothing points to any more. Runs and ids that become free
//! are not used again in the same plan, so a program that has just read a service never finds another's backends there.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use isthmus_bpf_abi::{
    AFFINITY_LOCAL, AFFINITY_NONE, AFFINITY_REMOTE, BACKEND_ACTIVE, BACKEND_EMPTY, BackendValue, Group,
    IPCACHE_HAS_ENDPOINT, IPCACHE_SKIP_TUNNEL, IpCacheKey, IpCacheValue, MAX_CLUSTERS, MAX_GROUPS,
    SCOPE_EXTERNAL, SCOPE_INTERNAL, SvcKey, SvcValue, mapped_v4,
};
use isthmus_topology::{Scope, ServiceAffinity};

use crate::desired::{Backend, Desired, Frontend, IpCacheRow, ServiceRow};
use crate::error::RowError;
use crate::observed::{Observed, groups_of};
use crate::slots::{SlotRuns, order_of};

/// Writes, in the order of the fields.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Backends that are new.
    pub(crate) backends: Vec<(u32, BackendValue)>,
    /// Slots that no service shows yet.
    pub(crate) slots: Vec<(u32, u32)>,
    /// Services that are new or changed.
    pub(crate) services: Vec<(SvcKey, SvcValue)>,
    /// Services that are gone.
    pub(crate) removed: Vec<SvcKey>,
    /// Backends that nothing points to any more.
    pub(crate) cleared: Vec<(u32, BackendValue)>,
    /// Prefixes that are new or changed.
    pub(crate) ipcache: Vec<(IpCacheKey, IpCacheValue)>,
    /// Prefixes that are gone.
    pub(crate) ipcache_removed: Vec<IpCacheKey>,
    /// Slot runs that the services above use and did not use before.
    pub(crate) taken: Vec<(u32, u8)>,
    /// Slot runs that no service uses any more.
    pub(crate) freed: Vec<(u32, u8)>,
    /// Rows that cannot be written; what the maps hold for them stays.
    pub refused: Vec<RowError>,
}

impl Plan {
    /// How many map entries it writes or removes.
    pub fn len(&self) -> usize {
        self.backends.len()
            + self.slots.len()
            + self.services.len()
            + self.removed.len()
            + self.cleared.len()
            + self.ipcache.len()
            + self.ipcache_removed.len()
    }

    /// True if the maps are already as wanted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What to write so that the maps hold `desired`.
pub fn plan(desired: &Desired, observed: &Observed) -> Plan {
    let mut planner = Planner::new(observed);
    let mut wanted = BTreeSet::new();
    for (frontend, row) in &desired.services {
        match svc_key(frontend) {
            Ok(key) => {
                wanted.insert(key);
                planner.service(frontend, key, row);
            }
            Err(refusal) => planner.plan.refused.push(refusal),
        }
    }
    for key in observed.services.keys().filter(|key| !wanted.contains(*key)) {
        planner.remove_service(key);
    }
    planner
        .plan
        .removed
        .extend(observed.damaged.iter().filter(|key| !wanted.contains(*key)));
    planner.sweep_backends();
    planner.ipcache(&desired.ipcache);
    planner.plan
}

/// What to write so that the maps hold `row` for `frontend` (or nothing), all else untouched.
pub fn plan_service(
    frontend: &Frontend,
    row: Option<&ServiceRow>,
    observed: &Observed,
) -> Result<Plan, RowError> {
    let key = svc_key(frontend)?;
    let mut planner = Planner::new(observed);
    match row {
        Some(row) => planner.service(frontend, key, row),
        None => planner.remove_service(&key),
    }
    planner.clear_touched();
    match planner.plan.refused.pop() {
        Some(refusal) => Err(refusal),
        None => Ok(planner.plan),
    }
}

/// What to write so that the ipcache holds `row` for `prefix` (or nothing), all else untouched.
pub fn plan_prefix(prefix: &IpNet, row: Option<&IpCacheRow>, observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    let key = ipcache_key(prefix);
    let held = observed.ipcache.get(&key);
    match row.map(ipcache_value) {
        Some(value) if held != Some(&value) => plan.ipcache.push((key, value)),
        None if held.is_some() => plan.ipcache_removed.push(key),
        _ => {}
    }
    plan
}

struct Planner<'a> {
    observed: &'a Observed,
    plan: Plan,
    runs: SlotRuns,
    new_backends: BTreeMap<([u8; 16], u16, u16), u32>,
    next_backend: u32,
    next_svc_id: u32,
    added_services: usize,
    /// Change of the number of visible slots that point to a backend.
    refs: BTreeMap<u32, i64>,
}

impl<'a> Planner<'a> {
    fn new(observed: &'a Observed) -> Self {
        Self {
            observed,
            plan: Plan::default(),
            runs: observed.runs.clone(),
            new_backends: BTreeMap::new(),
            next_backend: 1,
            next_svc_id: observed.next_svc_id,
            added_services: 0,
            refs: BTreeMap::new(),
        }
    }

    fn service(&mut self, frontend: &Frontend, key: SvcKey, row: &ServiceRow) {
        let old = self.observed.services.get(&key).copied();
        if let Err(refusal) = check(frontend, row) {
            self.plan.refused.push(refusal);
            return;
        }
        let before = (
            self.plan.backends.len(),
            self.plan.slots.len(),
            self.plan.taken.len(),
        );
        match self.value(row, old.as_ref()) {
            Ok((svc, ids)) => self.replace(key, old, svc, ids),
            Err(what) => {
                self.undo(before);
                self.plan.refused.push(RowError::NoRoom {
                    frontend: frontend.to_string(),
                    what,
                });
            }
        }
    }

    /// The new value of a service and the backends that it shows; what it needs written before is added to the plan.
    fn value(
        &mut self,
        row: &ServiceRow,
        old: Option<&SvcValue>,
    ) -> Result<(SvcValue, Vec<u32>), &'static str> {
        if old.is_none()
            && self.observed.services.len() + self.added_services >= self.observed.max_services as usize
        {
            return Err("services");
        }
        let mut svc = SvcValue {
            svc_id: old.map_or(self.next_svc_id, |old| old.svc_id),
            affinity: affinity_code(row.affinity),
            ..SvcValue::default()
        };
        let groups = row.groups.iter().filter(|(_, backends)| !backends.is_empty());
        let mut shown = Vec::new();
        for (at, (cluster, backends)) in groups.enumerate() {
            let ids = self.backend_ids(*cluster, backends)?;
            svc.groups[at] = self.group(*cluster, &ids, old)?;
            shown.extend(ids);
            svc.n_groups += 1;
        }
        Ok((svc, shown))
    }

    fn backend_ids(&mut self, cluster: u16, backends: &BTreeSet<Backend>) -> Result<Vec<u32>, &'static str> {
        backends
            .iter()
            .map(|backend| self.backend(cluster, backend))
            .collect()
    }

    /// The slots of one group: as they are if the set is the same, grown or shortened in place if readers cannot notice,
    /// else in a new run.
    fn group(&mut self, cluster: u16, ids: &[u32], old: Option<&SvcValue>) -> Result<Group, &'static str> {
        let count = ids.len() as u16;
        if let Some(group) = old.and_then(|old| groups_of(old).find(|group| group.cluster == cluster))
            && self.reuse(&group, ids)
        {
            return Ok(Group { count, ..group });
        }
        let order = order_of(ids.len());
        let base = self.runs.alloc(order).ok_or("slots")?;
        self.plan.taken.push((base, order));
        self.plan.slots.extend((base..).zip(ids.iter().copied()));
        Ok(Group::new(cluster, count, base, order))
    }

    /// True if the run at `group` can show exactly `ids` by another count alone, after writing slots beyond what it shows.
    fn reuse(&mut self, group: &Group, ids: &[u32]) -> bool {
        let base = group.base() as usize;
        let Some(run) = self.observed.slots.get(base..base + (1 << group.order())) else {
            return false;
        };
        if ids.len() > run.len() {
            return false;
        }
        let wanted: BTreeSet<u32> = ids.iter().copied().collect();
        let set = |slots: &[u32]| slots.iter().copied().collect::<BTreeSet<u32>>();
        if set(&run[..ids.len()]) == wanted {
            return true;
        }
        let visible = &run[..usize::from(group.count).min(run.len())];
        let shown = set(visible);
        // A shrinking count shows a prefix; a growing one must keep all that is shown.
        if ids.len() < visible.len() || !shown.is_subset(&wanted) {
            return false;
        }
        let added = ids.iter().copied().filter(|id| !shown.contains(id));
        let first = group.base() + visible.len() as u32;
        self.plan.slots.extend((first..).zip(added));
        true
    }

    /// The id of a backend, a free one if it is new.
    fn backend(&mut self, cluster: u16, backend: &Backend) -> Result<u32, &'static str> {
        let ip = map_ip(backend.ip);
        let key = (ip, backend.port, cluster);
        if let Some(id) = self
            .observed
            .backend_ids
            .get(&key)
            .or_else(|| self.new_backends.get(&key))
        {
            return Ok(*id);
        }
        let backends = &self.observed.backends;
        let free = |id: &u32| {
            backends
                .get(*id as usize)
                .is_none_or(|held| held.state == BACKEND_EMPTY)
        };
        let id = (self.next_backend..).find(free).unwrap_or(u32::MAX);
        let Some(held) = backends.get(id as usize) else {
            return Err("backends");
        };
        self.next_backend = id + 1;
        self.new_backends.insert(key, id);
        self.plan.backends.push((
            id,
            BackendValue {
                ip,
                port: backend.port,
                cluster,
                state: BACKEND_ACTIVE,
                generation: held.generation.wrapping_add(1),
                ..BackendValue::default()
            },
        ));
        Ok(id)
    }

    /// Takes back what a service that does not fit has planned.
    fn undo(&mut self, (backends, slots, taken): (usize, usize, usize)) {
        for (id, value) in self.plan.backends.drain(backends..) {
            self.new_backends.remove(&(value.ip, value.port, value.cluster));
            self.next_backend = self.next_backend.min(id);
        }
        self.plan.slots.truncate(slots);
        for (base, order) in self.plan.taken.drain(taken..) {
            self.runs.free(base, order);
        }
    }

    fn replace(&mut self, key: SvcKey, old: Option<SvcValue>, svc: SvcValue, ids: Vec<u32>) {
        if old == Some(svc) {
            return;
        }
        if let Some(old) = old {
            self.release(&old, &svc);
        } else {
            self.next_svc_id = self.next_svc_id.wrapping_add(1);
            self.added_services += 1;
        }
        for id in ids {
            *self.refs.entry(id).or_default() += 1;
        }
        self.plan.services.push((key, svc));
    }

    fn remove_service(&mut self, key: &SvcKey) {
        if let Some(old) = self.observed.services.get(key).copied() {
            self.release(&old, &SvcValue::default());
            self.plan.removed.push(*key);
        }
    }

    /// Lets go of what `old` shows and of its runs that `new` does not use.
    fn release(&mut self, old: &SvcValue, new: &SvcValue) {
        for group in groups_of(old) {
            for id in self.observed.visible(&group) {
                *self.refs.entry(*id).or_default() -= 1;
            }
            if !groups_of(new).any(|kept| kept.base() == group.base()) {
                self.plan.freed.push((group.base(), group.order()));
            }
        }
    }

    fn clear(&mut self, id: u32) {
        let Some(held) = self.observed.backends.get(id as usize) else {
            return;
        };
        let before = self.observed.refs.get(id as usize).copied().unwrap_or(0);
        let after = i64::from(before) + self.refs.get(&id).copied().unwrap_or(0);
        if held.state != BACKEND_EMPTY && after <= 0 {
            let value = BackendValue {
                generation: held.generation,
                ..BackendValue::default()
            };
            self.plan.cleared.push((id, value));
        }
    }

    /// Clears every backend that nothing points to, also what an interrupted agent left behind.
    fn sweep_backends(&mut self) {
        for id in 1..self.observed.backends.len() as u32 {
            self.clear(id);
        }
    }

    /// Clears the backends that this plan has let go of.
    fn clear_touched(&mut self) {
        let touched: Vec<u32> = self
            .refs
            .iter()
            .filter(|(_, change)| **change < 0)
            .map(|(id, _)| *id)
            .collect();
        for id in touched {
            self.clear(id);
        }
    }

    fn ipcache(&mut self, desired: &BTreeMap<IpNet, IpCacheRow>) {
        let desired: BTreeMap<IpCacheKey, IpCacheValue> = desired
            .iter()
            .map(|(prefix, row)| (ipcache_key(prefix), ipcache_value(row)))
            .collect();
        for (key, value) in &desired {
            if self.observed.ipcache.get(key) != Some(value) {
                self.plan.ipcache.push((*key, *value));
            }
        }
        self.plan.ipcache_removed.extend(
            self.observed
                .ipcache
                .keys()
                .filter(|key| !desired.contains_key(*key)),
        );
    }
}

fn check(frontend: &Frontend, row: &ServiceRow) -> Result<(), RowError> {
    let groups = || row.groups.iter().filter(|(_, backends)| !backends.is_empty());
    let clusters = groups().count();
    if clusters > MAX_GROUPS {
        return Err(RowError::TooManyClusters {
            frontend: frontend.to_string(),
            clusters,
            most: MAX_GROUPS,
        });
    }
    for (cluster, backends) in groups() {
        if *cluster >= MAX_CLUSTERS {
            return Err(RowError::ClusterId {
                frontend: frontend.to_string(),
                cluster: *cluster,
            });
        }
        if backends.len() > usize::from(u16::MAX) {
            let (frontend, cluster) = (frontend.to_string(), *cluster);
            return Err(RowError::TooManyBackends {
                frontend,
                cluster,
                backends: backends.len(),
            });
        }
    }
    Ok(())
}

/// The map key of a frontend.
pub(crate) fn svc_key(frontend: &Frontend) -> Result<SvcKey, RowError> {
    let proto = frontend.port.protocol.number();
    let proto = proto.ok_or_else(|| RowError::Protocol {
        frontend: frontend.to_string(),
    })?;
    let scope = match frontend.scope {
        Scope::Internal => SCOPE_INTERNAL,
        Scope::External => SCOPE_EXTERNAL,
    };
    Ok(SvcKey {
        ip: map_ip(frontend.ip),
        port: frontend.port.port,
        proto,
        scope,
    })
}

fn affinity_code(affinity: ServiceAffinity) -> u8 {
    match affinity {
        ServiceAffinity::None => AFFINITY_NONE,
        ServiceAffinity::Local => AFFINITY_LOCAL,
        ServiceAffinity::Remote => AFFINITY_REMOTE,
    }
}

fn map_ip(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => mapped_v4(ip.octets()),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn ipcache_key(prefix: &IpNet) -> IpCacheKey {
    let prefix = prefix.trunc();
    let offset = if prefix.addr().is_ipv4() { 96 } else { 0 };
    IpCacheKey {
        prefix_len: offset + u32::from(prefix.prefix_len()),
        ip: map_ip(prefix.addr()),
    }
}

fn ipcache_value(row: &IpCacheRow) -> IpCacheValue {
    let mut flags = 0;
    if row.endpoint.is_some() {
        flags |= IPCACHE_HAS_ENDPOINT;
    }
    if row.skip_tunnel {
        flags |= IPCACHE_SKIP_TUNNEL;
    }
    IpCacheValue {
        identity: row.identity,
        endpoint: row.endpoint.map_or([0; 16], map_ip),
        key: row.key,
        flags,
        ..IpCacheValue::default()
    }
}
