//! What the programs count. The programs, the agent, the CLI and the docs share this list, so it cannot drift.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $label:literal;)+) => {
        /// Why a packet or a socket call was counted. The number is the index in the metrics map and never changes.
        #[repr(u32)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $name = $number,)+ }

        impl Reason {
            /// Every reason, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Name for metrics and tables.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }
        }
    };
}

reasons! {
    /// A connect or a datagram was given a backend.
    SocketTranslated = 0, "socket_translated";
    /// A connect or a datagram was refused: no backend in a live cluster.
    SocketNoBackend = 1, "socket_no_backend";
    /// A connect or a datagram was refused: the backend is of a family that the socket cannot reach.
    SocketFamily = 2, "socket_family";
    /// A slot pointed to no backend: the agent was just changing it.
    StaleSlot = 3, "stale_slot";
    /// A packet was put into the tunnel.
    OverlayEncap = 4, "overlay_encap";
    /// A packet for the tunnel was dropped: its destination is not in the ipcache or has no endpoint.
    OverlayNoEndpoint = 5, "overlay_no_endpoint";
    /// A packet for the tunnel was dropped: neither IPv4 nor IPv6, or cut short.
    OverlayNotIp = 6, "overlay_not_ip";
    /// A packet came out of the tunnel with the identity of a known source.
    OverlayDecap = 7, "overlay_decap";
    /// A packet came out of the tunnel with the identity world.
    OverlayDecapWorld = 8, "overlay_decap_world";
    /// A packet arrived on the tunnel device without a tunnel key and was dropped.
    OverlayNoKey = 9, "overlay_no_key";
    /// First packet of a balanced flow.
    EdgeNewFlow = 10, "edge_new_flow";
    /// A further packet of a balanced flow.
    EdgeForward = 11, "edge_forward";
    /// An answer got its virtual source address back.
    EdgeReply = 12, "edge_reply";
    /// A packet for a LoadBalancer address was dropped: no backend in a live cluster.
    EdgeNoBackend = 13, "edge_no_backend";
    /// A fragment for a LoadBalancer address was dropped.
    EdgeFragment = 14, "edge_fragment";
    /// A packet for a LoadBalancer address was dropped: the backend is of the other family.
    EdgeFamily = 15, "edge_family";
    /// A packet was dropped because the kernel refused to rewrite it.
    EdgeRewrite = 16, "edge_rewrite";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_indices_of_the_list() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
    }
}
