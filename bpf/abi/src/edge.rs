//! Flows that the edge balances: packets from outside to LoadBalancer addresses.

/// Client to virtual address; the value says which backend.
pub const DIR_FORWARD: u8 = 0;
/// Backend to client; the value says which virtual address to put back.
pub const DIR_REVERSE: u8 = 1;

/// A flow as a packet of that direction shows it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CtKey {
    /// Source address.
    pub src: [u8; 16],
    /// Destination address.
    pub dst: [u8; 16],
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// IP protocol number.
    pub proto: u8,
    /// [`DIR_FORWARD`] or [`DIR_REVERSE`].
    pub direction: u8,
    /// Zero.
    pub pad: u16,
}

/// The address that replaces the destination (forward) or the source (reverse).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CtValue {
    /// Address to write.
    pub ip: [u8; 16],
    /// Port to write.
    pub port: u16,
    /// Cluster of the backend.
    pub cluster: u16,
    /// Backend id.
    pub backend_id: u32,
    /// [`BackendValue::generation`](crate::BackendValue::generation) when the flow began.
    pub generation: u32,
    /// [`SvcValue::svc_id`](crate::SvcValue::svc_id).
    pub svc_id: u32,
    /// Zero.
    pub spare: u32,
}

const _: () = {
    assert!(size_of::<CtKey>() == 40);
    assert!(size_of::<CtValue>() == 36);
};
