//! What goes into the VNI of a tunnel packet (spec clustermesh §5.1).

/// The identity of a node towards its own pods.
pub const IDENTITY_HOST: u32 = 1;
/// Everything that is not known.
pub const IDENTITY_WORLD: u32 = 2;
/// A node of the mesh, seen from another node.
pub const IDENTITY_REMOTE_NODE: u32 = 6;
const IDENTITY_WORLD_V4: u32 = 9;
const IDENTITY_WORLD_V6: u32 = 10;

/// The VNI for a packet from a source with this identity (`None`: not in the ipcache).
#[inline(always)]
pub const fn vni_of(source: Option<u32>) -> u32 {
    match source {
        Some(IDENTITY_HOST) => IDENTITY_REMOTE_NODE,
        None | Some(0 | IDENTITY_WORLD | IDENTITY_WORLD_V4 | IDENTITY_WORLD_V6) => IDENTITY_WORLD,
        Some(identity) => identity & 0x00ff_ffff,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_sees_hosts_as_remote_nodes_and_strangers_as_world() {
        for (source, vni) in [
            (None, 2),
            (Some(1), 6),
            (Some(2), 2),
            (Some(9), 2),
            (Some(10), 2),
            (Some(6), 6),
            (Some(73_452), 73_452),
        ] {
            assert_eq!(vni_of(source), vni, "{source:?}");
        }
    }
}
