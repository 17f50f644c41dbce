//! Keys, values and constants of every eBPF map, shared by the kernel programs and the agent.
//!
//! Addresses are 16 bytes in network order, IPv4 as `::ffff:a.b.c.d`, so that one map serves both families. Ports and ids
//! are numbers in host order. Every struct is `repr(C)` with its padding spelled out, because map keys compare by bytes.
//! A change of any layout changes [`SCHEMA_HASH`]; pinned maps of another schema are refused, never reused.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

mod choose;
mod edge;
mod identity;
mod reason;
mod service;
mod vxlan;

pub use choose::{ALIVE_WORDS, Alive, MAX_CLUSTERS, alive_bit, choose, flow_hash, mix};
pub use edge::{CtKey, CtValue, DIR_FORWARD, DIR_REVERSE};
pub use identity::{IPCACHE_HAS_ENDPOINT, IPCACHE_SKIP_TUNNEL, IpCacheKey, IpCacheValue};
pub use reason::Reason;
pub use service::{
    AFFINITY_LOCAL, AFFINITY_NONE, AFFINITY_REMOTE, BACKEND_ACTIVE, BACKEND_EMPTY, BackendValue,
    CONFIG_PASS_WITHOUT_BACKEND, ConfigValue, Group, MAX_GROUPS, MetricValue, SCOPE_EXTERNAL, SCOPE_INTERNAL,
    SkRevKey, SkRevValue, SvcKey, SvcValue,
};
pub use vxlan::{IDENTITY_HOST, IDENTITY_REMOTE_NODE, IDENTITY_WORLD, vni_of};

/// Version of the map layouts and of the meaning of their fields; part of the name of the pin directory.
pub const ABI_VERSION: u32 = 1;

/// Kernel names of the maps (at most 15 bytes), which are also the names of their pins.
pub mod map_names {
    /// [`SvcKey`](crate::SvcKey) → [`SvcValue`](crate::SvcValue), hash.
    pub const SERVICES: &str = "SERVICES";
    /// Slot → backend id, array of `u32`.
    pub const SLOTS: &str = "SLOTS";
    /// Backend id → [`BackendValue`](crate::BackendValue), array; id 0 is never used.
    pub const BACKENDS: &str = "BACKENDS";
    /// One [`Alive`](crate::Alive), memory-mapped by the agent.
    pub const ALIVE: &str = "ALIVE";
    /// [`SkRevKey`](crate::SkRevKey) → [`SkRevValue`](crate::SkRevValue), LRU, written by the programs.
    pub const SK_REV: &str = "SK_REV";
    /// [`IpCacheKey`](crate::IpCacheKey) → [`IpCacheValue`](crate::IpCacheValue), longest prefix match.
    pub const IPCACHE: &str = "IPCACHE";
    /// [`CtKey`](crate::CtKey) → [`CtValue`](crate::CtValue), LRU, written by the programs.
    pub const EDGE_CT: &str = "EDGE_CT";
    /// One [`ConfigValue`](crate::ConfigValue).
    pub const CONFIG: &str = "CONFIG";
    /// [`Reason`](crate::Reason) → [`MetricValue`](crate::MetricValue) for each CPU.
    pub const METRICS: &str = "METRICS";
    /// All of them.
    pub const ALL: [&str; 9] = [
        SERVICES, SLOTS, BACKENDS, ALIVE, SK_REV, IPCACHE, EDGE_CT, CONFIG, METRICS,
    ];
}

/// FNV-1a over the sizes and field offsets of every map type, and [`ABI_VERSION`].
pub const SCHEMA_HASH: u64 = schema_hash();

macro_rules! layout {
    ($hash:expr, $($ty:ident { $($field:ident),+ })+) => {{
        let mut hash: u64 = $hash;
        $(
            hash = fnv(hash, size_of::<$ty>() as u64);
            $( hash = fnv(hash, core::mem::offset_of!($ty, $field) as u64); )+
        )+
        hash
    }};
}

const fn schema_hash() -> u64 {
    layout!(fnv(0xcbf2_9ce4_8422_2325, ABI_VERSION as u64),
        SvcKey { ip, port, proto, scope }
        Group { cluster, count, run }
        SvcValue { svc_id, affinity, n_groups, groups }
        BackendValue { ip, port, cluster, node, state, generation, spare }
        SkRevKey { cookie, ip, port, pad }
        SkRevValue { ip, port, svc_id }
        IpCacheKey { prefix_len, ip }
        IpCacheValue { identity, endpoint, key, flags, spare }
        CtKey { src, dst, sport, dport, proto, direction, pad }
        CtValue { ip, port, cluster, backend_id, generation, svc_id, spare }
        ConfigValue { schema_hash, object_hash, abi_version, cluster_id, flags }
        MetricValue { packets, bytes }
    )
}

const fn fnv(mut hash: u64, value: u64) -> u64 {
    let bytes = value.to_le_bytes();
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0100_0000_01b3);
        i += 1;
    }
    hash
}

/// An IPv4 address as the maps store it: `::ffff:a.b.c.d`.
#[inline(always)]
pub const fn mapped_v4(ip: [u8; 4]) -> [u8; 16] {
    [
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ip[0], ip[1], ip[2], ip[3],
    ]
}

/// The IPv4 address in a map address, or `None` if it is a true IPv6 address.
#[inline(always)]
pub const fn unmapped_v4(ip: &[u8; 16]) -> Option<[u8; 4]> {
    match ip {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => Some([*a, *b, *c, *d]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v4_addresses_round_trip_and_v6_ones_are_told_apart() {
        assert_eq!(unmapped_v4(&mapped_v4([10, 0, 1, 2])), Some([10, 0, 1, 2]));
        let v6 = "fd00::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
        assert_eq!(unmapped_v4(&v6), None);
    }

    #[test]
    fn map_names_fit_the_kernel() {
        for name in map_names::ALL {
            assert!(name.len() <= 15, "{name}");
        }
    }
}
