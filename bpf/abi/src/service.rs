//! Services, backends and what socket load balancing remembers.

/// Most clusters that one service can have backends in.
pub const MAX_GROUPS: usize = 6;

/// Frontend is for pods and hosts of the cluster (ClusterIP; any frontend that sockets of this node may connect to).
pub const SCOPE_INTERNAL: u8 = 0;
/// Frontend is for packets that arrive on an uplink (LoadBalancer and external addresses).
pub const SCOPE_EXTERNAL: u8 = 1;

/// All clusters alike.
pub const AFFINITY_NONE: u8 = 0;
/// This cluster while it has backends and is alive, else the others.
pub const AFFINITY_LOCAL: u8 = 1;
/// The other clusters while one of them has backends and is alive, else this one.
pub const AFFINITY_REMOTE: u8 = 2;

/// No backend under this id.
pub const BACKEND_EMPTY: u8 = 0;
/// Takes new connections.
pub const BACKEND_ACTIVE: u8 = 1;

/// [`ConfigValue::flags`]: a connect to a service without backends goes out untranslated instead of being refused.
pub const CONFIG_PASS_WITHOUT_BACKEND: u32 = 1;

/// What a client connects to.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SvcKey {
    /// Virtual address.
    pub ip: [u8; 16],
    /// Port.
    pub port: u16,
    /// IP protocol number.
    pub proto: u8,
    /// [`SCOPE_INTERNAL`] or [`SCOPE_EXTERNAL`].
    pub scope: u8,
}

/// The backends of one cluster: slots `base() .. base() + count`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Group {
    /// Cluster id.
    pub cluster: u16,
    /// Backends that may be chosen.
    pub count: u16,
    /// First slot (24 bits) and, above it, log2 of the length of its run: `count` may fall and rise again within that.
    pub run: u32,
}

impl Group {
    /// Slots are numbered below this.
    pub const MAX_SLOTS: u32 = 1 << 24;

    /// A group that shows `count` slots of the run of `1 << order` slots at `base`.
    pub const fn new(cluster: u16, count: u16, base: u32, order: u8) -> Self {
        Self {
            cluster,
            count,
            run: (order as u32) << 24 | base,
        }
    }

    /// First slot.
    #[inline(always)]
    pub const fn base(&self) -> u32 {
        self.run & (Self::MAX_SLOTS - 1)
    }

    /// log2 of the length of the run.
    pub const fn order(&self) -> u8 {
        (self.run >> 24) as u8
    }
}

/// One frontend: its backend groups, and which of them to prefer. With the kernel's own
/// 48 bytes and the key an entry is 128 bytes, so a look-up touches two cache lines.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SvcValue {
    /// Number of this frontend, stable while it exists.
    pub svc_id: u32,
    /// [`AFFINITY_NONE`], [`AFFINITY_LOCAL`] or [`AFFINITY_REMOTE`].
    pub affinity: u8,
    /// Valid entries of `groups`.
    pub n_groups: u8,
    /// Zero.
    pub pad: u16,
    /// Backend groups, by cluster id.
    pub groups: [Group; MAX_GROUPS],
}

/// One backend.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BackendValue {
    /// Address.
    pub ip: [u8; 16],
    /// Port.
    pub port: u16,
    /// Cluster id.
    pub cluster: u16,
    /// Node number in its cluster, 0 if unknown.
    pub node: u16,
    /// [`BACKEND_EMPTY`] or [`BACKEND_ACTIVE`].
    pub state: u8,
    /// Zero.
    pub pad: u8,
    /// Grows each time the id is given to another backend.
    pub generation: u32,
    /// Zero.
    pub spare: u32,
}

/// A socket and the backend address that it really talks to.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkRevKey {
    /// Socket cookie.
    pub cookie: u64,
    /// Backend address.
    pub ip: [u8; 16],
    /// Backend port.
    pub port: u16,
    /// Zero.
    pub pad: [u16; 3],
}

/// The frontend that the socket asked for.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkRevValue {
    /// Virtual address.
    pub ip: [u8; 16],
    /// Virtual port.
    pub port: u16,
    /// Zero.
    pub pad: u16,
    /// [`SvcValue::svc_id`].
    pub svc_id: u32,
}

/// Settings of this node, and which layout and which programs are loaded.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConfigValue {
    /// [`SCHEMA_HASH`](crate::SCHEMA_HASH) of whoever made the maps.
    pub schema_hash: u64,
    /// Hash of the object whose programs are attached.
    pub object_hash: u64,
    /// [`ABI_VERSION`](crate::ABI_VERSION) of whoever made the maps.
    pub abi_version: u32,
    /// Id of this node's cluster.
    pub cluster_id: u16,
    /// Zero.
    pub pad: u16,
    /// `CONFIG_*` bits.
    pub flags: u32,
    /// Zero.
    pub spare: u32,
}

/// Packets or connects, and bytes where they are known.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MetricValue {
    /// Packets, or calls of a socket hook.
    pub packets: u64,
    /// Bytes of those packets; 0 for socket hooks.
    pub bytes: u64,
}

const _: () = {
    assert!(size_of::<SvcKey>() == 20);
    assert!(size_of::<Group>() == 8);
    assert!(size_of::<SvcValue>() == 56);
    assert!(size_of::<BackendValue>() == 32);
    assert!(size_of::<SkRevKey>() == 32);
    assert!(size_of::<SkRevValue>() == 24);
    assert!(size_of::<ConfigValue>() == 32);
    assert!(size_of::<MetricValue>() == 16);
};
