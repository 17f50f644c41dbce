//! What the maps hold, read back from the kernel, with what can be derived from it: free slots, free backend ids.
use std::collections::{BTreeMap, BTreeSet};

use isthmus_bpf_abi::{BACKEND_EMPTY, BackendValue, Group, IpCacheKey, IpCacheValue, SvcKey, SvcValue};

use crate::config::Capacity;
use crate::plan::Plan;
use crate::slots::{MAX_ORDER, SlotRuns};

/// Address, port and cluster: what makes a backend one backend.
pub(crate) type BackendKey = ([u8; 16], u16, u16);

/// The content of the maps that the agent owns.
#[derive(Debug, Clone)]
pub struct Observed {
    pub(crate) services: BTreeMap<SvcKey, SvcValue>,
    /// Services whose value makes no sense: not ours, or half overwritten.
    pub(crate) damaged: BTreeSet<SvcKey>,
    pub(crate) slots: Vec<u32>,
    /// By id; id 0 is never used.
    pub(crate) backends: Vec<BackendValue>,
    pub(crate) ipcache: BTreeMap<IpCacheKey, IpCacheValue>,
    pub(crate) backend_ids: BTreeMap<BackendKey, u32>,
    /// For each backend id, how many visible slots point to it.
    pub(crate) refs: Vec<u32>,
    pub(crate) runs: SlotRuns,
    pub(crate) next_svc_id: u32,
    pub(crate) max_services: u32,
}

pub(crate) fn key_of(backend: &BackendValue) -> BackendKey {
    (backend.ip, backend.port, backend.cluster)
}

/// The valid groups of a service.
pub(crate) fn groups_of(svc: &SvcValue) -> impl Iterator<Item = Group> + '_ {
    svc.groups.iter().copied().take(usize::from(svc.n_groups))
}

impl Observed {
    /// Empty maps of these sizes.
    pub fn empty(capacity: &Capacity) -> Self {
        Self::restore(
            capacity,
            BTreeMap::new(),
            vec![0; capacity.slots as usize],
            vec![BackendValue::default(); capacity.backends as usize],
            BTreeMap::new(),
        )
    }

    /// From the content of the maps. A service whose slot runs make no sense (they overlap another's, or lie outside) is
    /// set aside, to be written anew or removed.
    pub(crate) fn restore(
        capacity: &Capacity,
        services: BTreeMap<SvcKey, SvcValue>,
        slots: Vec<u32>,
        backends: Vec<BackendValue>,
        ipcache: BTreeMap<IpCacheKey, IpCacheValue>,
    ) -> Self {
        let backend_ids = backends
            .iter()
            .zip(0u32..)
            .filter(|(backend, _)| backend.state != BACKEND_EMPTY)
            .map(|(backend, id)| (key_of(backend), id))
            .collect();
        let mut observed = Self {
            services: BTreeMap::new(),
            damaged: BTreeSet::new(),
            refs: vec![0; backends.len()],
            slots,
            backends,
            ipcache,
            backend_ids,
            runs: SlotRuns::new(capacity.slots),
            next_svc_id: services
                .values()
                .map(|svc| svc.svc_id)
                .max()
                .map_or(1, |id| id.wrapping_add(1)),
            max_services: capacity.services,
        };
        for (key, svc) in services {
            if observed.reserve_runs(&svc) {
                observed.add_refs(&svc, 1);
                observed.services.insert(key, svc);
            } else {
                observed.damaged.insert(key);
            }
        }
        observed
    }

    /// True if every slot that the group shows points to a backend.
    pub(crate) fn all_present(&self, group: &Group) -> bool {
        let active = |id: &u32| {
            self.backends
                .get(*id as usize)
                .is_some_and(|held| held.state != BACKEND_EMPTY)
        };
        self.visible(group).len() == usize::from(group.count) && self.visible(group).iter().all(active)
    }

    /// The backend ids that the slots of a group show.
    pub(crate) fn visible(&self, group: &Group) -> &[u32] {
        let base = group.base() as usize;
        self.slots
            .get(base..base + usize::from(group.count))
            .unwrap_or_default()
    }

    /// Takes the runs of a service; all of them or none.
    fn reserve_runs(&mut self, svc: &SvcValue) -> bool {
        let mut done = Vec::new();
        for group in groups_of(svc) {
            let order = group.order();
            if order > MAX_ORDER
                || u32::from(group.count) > 1 << order
                || !self.runs.reserve(group.base(), order)
            {
                for (base, order) in done {
                    self.runs.free(base, order);
                }
                return false;
            }
            done.push((group.base(), order));
        }
        true
    }

    fn add_refs(&mut self, svc: &SvcValue, by: i64) {
        for group in groups_of(svc) {
            let base = group.base() as usize;
            for slot in base..base + usize::from(group.count) {
                let id = self.slots.get(slot).copied().unwrap_or(0) as usize;
                if let Some(refs) = self.refs.get_mut(id) {
                    *refs = (i64::from(*refs) + by).max(0) as u32;
                }
            }
        }
    }

    /// What the maps hold after `plan` was written to them.
    pub(crate) fn note(&mut self, plan: &Plan) {
        let replaced: Vec<SvcValue> = plan
            .services
            .iter()
            .map(|(key, _)| key)
            .chain(&plan.removed)
            .filter_map(|key| self.services.remove(key))
            .collect();
        for svc in &replaced {
            self.add_refs(svc, -1);
        }
        for key in plan.services.iter().map(|(key, _)| key).chain(&plan.removed) {
            self.damaged.remove(key);
        }
        for (id, value) in &plan.backends {
            self.set_backend(*id, *value);
        }
        for (slot, id) in &plan.slots {
            if let Some(at) = self.slots.get_mut(*slot as usize) {
                *at = *id;
            }
        }
        for (key, svc) in &plan.services {
            self.add_refs(svc, 1);
            self.next_svc_id = self.next_svc_id.max(svc.svc_id.wrapping_add(1));
            self.services.insert(*key, *svc);
        }
        for (base, order) in &plan.taken {
            self.runs.reserve(*base, *order);
        }
        for (base, order) in &plan.freed {
            self.runs.free(*base, *order);
        }
        for (id, value) in &plan.cleared {
            self.set_backend(*id, *value);
        }
        self.ipcache.extend(plan.ipcache.iter().copied());
        for key in &plan.ipcache_removed {
            self.ipcache.remove(key);
        }
    }

    fn set_backend(&mut self, id: u32, value: BackendValue) {
        let Some(at) = self.backends.get_mut(id as usize) else {
            return;
        };
        if at.state != BACKEND_EMPTY {
            self.backend_ids.remove(&key_of(at));
        }
        *at = value;
        if value.state != BACKEND_EMPTY {
            self.backend_ids.insert(key_of(&value), id);
        }
    }

    /// How many frontends are programmed.
    pub fn services(&self) -> usize {
        self.services.len()
    }

    /// How many backends are known.
    pub fn backends(&self) -> usize {
        self.backend_ids.len()
    }

    /// How many prefixes the ipcache has.
    pub fn prefixes(&self) -> usize {
        self.ipcache.len()
    }
}
