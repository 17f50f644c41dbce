//! The collect-metadata VXLAN device: which tunnel a packet takes is a look-up, so there is no FDB and no ARP.
use aya_ebpf::bindings::{BPF_F_TUNINFO_IPV6, TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_tunnel_key};
use aya_ebpf::helpers::{bpf_skb_get_tunnel_key, bpf_skb_set_tunnel_key};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use isthmus_bpf_abi::{IDENTITY_WORLD, IPCACHE_HAS_ENDPOINT, Reason, unmapped_v4, vni_of};

use crate::maps::{count, ipcache};
use crate::packet::Packet;

const ETHERNET: u32 = 14;
const PACKET_HOST: u32 = 0;
const TTL: u8 = 64;

/// Into the tunnel: the VNI is the identity of the source, the outer destination the endpoint of the destination.
#[classifier]
pub fn overlay_egress(ctx: TcContext) -> i32 {
    let mut packet = Packet::new(ETHERNET);
    if packet.read(&ctx).is_none() {
        return drop(&ctx, Reason::OverlayNotIp);
    }
    let Some(dst) = ipcache(&packet.flow.dst).filter(|row| row.flags & IPCACHE_HAS_ENDPOINT != 0) else {
        return drop(&ctx, Reason::OverlayNoEndpoint);
    };
    let vni = vni_of(ipcache(&packet.flow.src).map(|row| row.identity));
    if !set_tunnel(&ctx, vni, &dst.endpoint) {
        return drop(&ctx, Reason::OverlayNoEndpoint);
    }
    count(Reason::OverlayEncap, ctx.len());
    TC_ACT_UNSPEC
}

/// Out of the tunnel. The inner destination MAC is whatever the sender had: the packet is for this host all the same.
#[classifier]
pub fn overlay_ingress(ctx: TcContext) -> i32 {
    let Some(identity) = tunnel_identity(&ctx) else {
        return drop(&ctx, Reason::OverlayNoKey);
    };
    let reason = if identity == IDENTITY_WORLD {
        Reason::OverlayDecapWorld
    } else {
        Reason::OverlayDecap
    };
    count(reason, ctx.len());
    // Fails only for packets that are for this host already.
    let _ = ctx.change_type(PACKET_HOST);
    TC_ACT_UNSPEC
}

#[inline(always)]
fn drop(ctx: &TcContext, reason: Reason) -> i32 {
    count(reason, ctx.len());
    TC_ACT_SHOT
}

#[inline(always)]
fn blank_key() -> bpf_tunnel_key {
    // SAFETY: plain numbers, for which zero is valid.
    unsafe { core::mem::zeroed() }
}

#[inline(always)]
fn set_tunnel(ctx: &TcContext, vni: u32, endpoint: &[u8; 16]) -> bool {
    let mut key = blank_key();
    key.tunnel_id = vni;
    key.tunnel_ttl = TTL;
    let flags = if let Some(v4) = unmapped_v4(endpoint) {
        // The helper wants host order here.
        key.__bindgen_anon_1.remote_ipv4 = u32::from_be_bytes(v4);
        0
    } else {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *endpoint;
        key.__bindgen_anon_1.remote_ipv6 = [
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ];
        BPF_F_TUNINFO_IPV6 as u64
    };
    // SAFETY: a valid skb and a key of this size.
    unsafe {
        bpf_skb_set_tunnel_key(
            ctx.skb.skb,
            &raw mut key,
            size_of::<bpf_tunnel_key>() as u32,
            flags,
        ) == 0
    }
}

#[inline(always)]
fn tunnel_identity(ctx: &TcContext) -> Option<u32> {
    let mut key = blank_key();
    let size = size_of::<bpf_tunnel_key>() as u32;
    // SAFETY: a valid skb and a key of this size; the first form fails for an IPv6 underlay, the second for IPv4.
    let got = unsafe {
        bpf_skb_get_tunnel_key(ctx.skb.skb, &raw mut key, size, 0) == 0
            || bpf_skb_get_tunnel_key(ctx.skb.skb, &raw mut key, size, BPF_F_TUNINFO_IPV6 as u64) == 0
    };
    got.then_some(key.tunnel_id)
}
