//! Which identity an address has, and behind which tunnel endpoint it is (spec clustermesh §5.1).

/// [`IpCacheValue::endpoint`] is set.
pub const IPCACHE_HAS_ENDPOINT: u8 = 1;
/// Reached without a tunnel although an endpoint is known.
pub const IPCACHE_SKIP_TUNNEL: u8 = 2;

/// A prefix; `prefix_len` counts from the start of the 16 bytes, so IPv4 prefixes are 96 longer than they read.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpCacheKey {
    /// Bits that count.
    pub prefix_len: u32,
    /// Address, network order.
    pub ip: [u8; 16],
}

/// What is known about the addresses of a prefix.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IpCacheValue {
    /// Security identity (24 bits).
    pub identity: u32,
    /// Underlay address of the node behind which it is; valid with [`IPCACHE_HAS_ENDPOINT`].
    pub endpoint: [u8; 16],
    /// Encryption key index: 0 none, 255 WireGuard, 1 to 15 an IPsec SPI.
    pub key: u8,
    /// `IPCACHE_*` bits.
    pub flags: u8,
    /// Zero.
    pub pad: u16,
    /// Zero.
    pub spare: u32,
}

const _: () = {
    assert!(size_of::<IpCacheKey>() == 20);
    assert!(size_of::<IpCacheValue>() == 28);
};
