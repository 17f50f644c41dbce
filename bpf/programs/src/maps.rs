//! The maps, and the look-ups that several programs share. Sizes here are the smallest; the agent sets the real ones.
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, lpm_trie::Key};
use aya_ebpf::macros::btf_map;
use isthmus_bpf_abi::{
    Alive, BACKEND_ACTIVE, BackendValue, ConfigValue, CtKey, CtValue, IpCacheValue, MetricValue, Reason,
    SkRevKey, SkRevValue, SvcKey, SvcValue, choose,
};

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;
const MMAPABLE: usize = 1 << 10;
const REASONS: usize = Reason::ALL.len();

#[btf_map]
pub static SERVICES: HashMap<SvcKey, SvcValue, 1024> = HashMap::new();
#[btf_map]
pub static SLOTS: Array<u32, 1024> = Array::new();
#[btf_map]
pub static BACKENDS: Array<BackendValue, 1024> = Array::new();
#[btf_map]
pub static ALIVE: Array<Alive, 1, MMAPABLE> = Array::new();
#[btf_map]
pub static SK_REV: LruHashMap<SkRevKey, SkRevValue, 1024> = LruHashMap::new();
#[btf_map]
pub static IPCACHE: LpmTrie<[u8; 16], IpCacheValue, 1024, NO_PREALLOC> = LpmTrie::new();
#[btf_map]
pub static EDGE_CT: LruHashMap<CtKey, CtValue, 1024> = LruHashMap::new();
#[btf_map]
pub static CONFIG: Array<ConfigValue, 1> = Array::new();
#[btf_map]
pub static METRICS: PerCpuArray<MetricValue, REASONS> = PerCpuArray::new();

/// A backend that was chosen, with its id.
pub struct Chosen {
    pub id: u32,
    pub backend: &'static BackendValue,
}

/// Counts one packet of `bytes` (0 for a socket call).
#[inline(always)]
pub fn count(reason: Reason, bytes: u32) {
    if let Some(metric) = METRICS.get_ptr_mut(reason as u32) {
        // SAFETY: a valid pointer into this CPU's own value; programs of one CPU do not run over each other here except
        // from interrupts, which may lose one count.
        unsafe {
            (*metric).packets += 1;
            (*metric).bytes += u64::from(bytes);
        }
    }
}

/// Looks a frontend up.
#[inline(always)]
pub fn service(key: &SvcKey) -> Option<&'static SvcValue> {
    // SAFETY: values are only written by the agent, whole; a torn read while it replaces one is caught by the checks of the
    // slot and the backend in `pick`.
    unsafe { SERVICES.get(key) }
}

/// Chooses a backend for a new connection; `None` if no live cluster has one.
#[inline(always)]
pub fn pick(svc: &SvcValue, rand: u32) -> Option<Chosen> {
    let id = choose_id(svc, rand);
    if id == 0 {
        return None;
    }
    let backend = BACKENDS.get(id)?;
    if backend.state == BACKEND_ACTIVE {
        return Some(Chosen { id, backend });
    }
    count(Reason::StaleSlot, 0);
    None
}

/// Id of a backend, or 0. A function of its own in the kernel too, so that its loops do not take the stack of the callers.
#[inline(never)]
fn choose_id(svc: &SvcValue, rand: u32) -> u32 {
    let (Some(config), Some(alive)) = (CONFIG.get(0), ALIVE.get(0)) else {
        return 0;
    };
    let Some(slot) = choose(svc, alive, config.cluster_id, rand) else {
        return 0;
    };
    SLOTS.get(slot).copied().unwrap_or(0)
}

/// `CONFIG_*` bits.
#[inline(always)]
pub fn config_flags() -> u32 {
    CONFIG.get(0).map_or(0, |config| config.flags)
}

/// What is known about an address.
#[inline(always)]
pub fn ipcache(ip: &[u8; 16]) -> Option<&'static IpCacheValue> {
    IPCACHE.get(&Key::new(128, *ip))
}
