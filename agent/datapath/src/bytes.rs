//! Map keys and values as bytes.
use isthmus_bpf_abi::{BackendValue, ConfigValue, IpCacheKey, IpCacheValue, MetricValue, SvcKey, SvcValue};

/// A type without padding for which every bit pattern is valid.
///
/// # Safety
/// Both must be true of the type.
pub(crate) unsafe trait Bytes: Copy {
    fn bytes(&self) -> &[u8] {
        // SAFETY: no padding, so every byte is initialised.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(self).cast(), size_of::<Self>()) }
    }
}

macro_rules! plain {
    ($($ty:ty),+) => {
        // SAFETY: `repr(C)` numbers and arrays of numbers with explicit padding; the ABI crate asserts the sizes.
        $(unsafe impl Bytes for $ty {})+
    };
}

plain!(
    u32,
    SvcKey,
    SvcValue,
    BackendValue,
    IpCacheKey,
    IpCacheValue,
    ConfigValue,
    MetricValue
);

/// The first value in `bytes`.
pub(crate) fn one<T: Bytes>(bytes: &[u8]) -> Option<T> {
    // SAFETY: enough bytes, any alignment, and every bit pattern is valid.
    (bytes.len() >= size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// Values that lie one after the other.
pub(crate) fn rows<T: Bytes>(bytes: &[u8]) -> Vec<T> {
    bytes.chunks_exact(size_of::<T>()).filter_map(one).collect()
}
