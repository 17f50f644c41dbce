//! LoadBalancer addresses on the uplinks. The destination becomes a backend and the kernel routes the packet on; the answer
//! gets its virtual source back when it leaves.
//!
//! ```text
//! client → VIP:80   ─ ingress: DNAT ─→ client → pod:8080 ─ kernel: route, masquerade if the pod is on another node
//! client ← VIP:80   ←─ egress: undo ─ client ← pod:8080 ←─ kernel: conntrack has undone the masquerade
//! ```
//! A flow keeps its backend while that is active, in a live cluster and of the same generation. A SYN is always chosen
//! anew: the hash of the flow gives the same backend as long as the set is the same, and a reused client port must not be
//! sent to a backend that has left this service.
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use isthmus_bpf_abi::{
    BACKEND_ACTIVE, CtKey, CtValue, DIR_FORWARD, DIR_REVERSE, Reason, SCOPE_EXTERNAL, SvcKey, SvcValue,
    alive_bit, flow_hash, unmapped_v4,
};

use crate::maps::{ALIVE, BACKENDS, EDGE_CT, count, pick, service};
use crate::packet::{End, Packet, TCP};

const ETHERNET: u32 = 14;
const NONE: u32 = 0;

/// From outside, with an Ethernet header.
#[classifier]
pub fn edge_ingress(ctx: TcContext) -> i32 {
    forward(&ctx, ETHERNET)
}

/// From outside, on a device without one.
#[classifier]
pub fn edge_l3_ingress(ctx: TcContext) -> i32 {
    forward(&ctx, NONE)
}

/// To the outside, with an Ethernet header.
#[classifier]
pub fn edge_egress(ctx: TcContext) -> i32 {
    reply(&ctx, ETHERNET)
}

/// To the outside, on a device without one.
#[classifier]
pub fn edge_l3_egress(ctx: TcContext) -> i32 {
    reply(&ctx, NONE)
}

#[inline(always)]
fn forward(ctx: &TcContext, at: u32) -> i32 {
    let mut packet = Packet::new(at);
    if packet.read(ctx).is_none() || packet.read_ports(ctx).is_none() {
        return TC_ACT_UNSPEC;
    }
    let (flow, old_port) = (&packet.flow, packet.flow.dport);
    let key = SvcKey {
        ip: flow.dst,
        port: flow.dport,
        proto: flow.proto,
        scope: SCOPE_EXTERNAL,
    };
    let Some(svc) = service(&key) else {
        return TC_ACT_UNSPEC;
    };
    if packet.fragment {
        return drop(ctx, Reason::EdgeFragment);
    }
    let mut target = NO_TARGET;
    let found = find(&mut packet.flow, svc, packet.opens, &mut target);
    if found != Reason::EdgeForward as u32 && found != Reason::EdgeNewFlow as u32 {
        return drop(
            ctx,
            if found == Reason::EdgeFamily as u32 {
                Reason::EdgeFamily
            } else {
                Reason::EdgeNoBackend
            },
        );
    }
    if packet.rewrite(ctx, End::Destination, &target.ip, pair(old_port, target.port)) != 0 {
        return drop(ctx, Reason::EdgeRewrite);
    }
    if found == Reason::EdgeNewFlow as u32 {
        count(Reason::EdgeNewFlow, ctx.len());
    }
    count(Reason::EdgeForward, ctx.len());
    TC_ACT_UNSPEC
}

#[inline(always)]
fn pair(old: u16, new: u16) -> u32 {
    u32::from(old) << 16 | u32::from(new)
}

const NO_TARGET: CtValue = CtValue {
    ip: [0; 16],
    port: 0,
    cluster: 0,
    backend_id: 0,
    generation: 0,
    svc_id: 0,
    spare: 0,
};

/// Finds the backend of a flow, or chooses one and remembers it. Returns the number of the reason that says which; a
/// function of its own in the kernel too, because the verifier allows 512 bytes of stack for a chain of calls.
#[inline(never)]
fn find(key: &mut CtKey, svc: &SvcValue, opens: bool, target: &mut CtValue) -> u32 {
    let reason = if !opens && known(key, target).is_some() {
        Reason::EdgeForward
    } else {
        match begin(key, svc, target) {
            Ok(()) => Reason::EdgeNewFlow,
            Err(reason) => reason,
        }
    };
    reason as u32
}

/// The backend that the flow has, if it may keep it.
#[inline(always)]
fn known(key: &CtKey, target: &mut CtValue) -> Option<()> {
    // SAFETY: copied out at once.
    *target = *unsafe { EDGE_CT.get(key) }?;
    // An open TCP connection cannot move: another backend would only reset it.
    if key.proto == TCP {
        return Some(());
    }
    let backend = BACKENDS.get(target.backend_id)?;
    let fresh = backend.state == BACKEND_ACTIVE
        && backend.generation == target.generation
        && alive_bit(ALIVE.get(0)?, target.cluster);
    fresh.then_some(())
}

/// Chooses a backend and remembers the flow in both directions.
#[inline(always)]
fn begin(key: &mut CtKey, svc: &SvcValue, target: &mut CtValue) -> Result<(), Reason> {
    let hash = flow_hash(&key.src, &key.dst, key.sport, key.dport, key.proto);
    let chosen = pick(svc, hash).ok_or(Reason::EdgeNoBackend)?;
    let backend = chosen.backend;
    if unmapped_v4(&key.dst).is_some() != unmapped_v4(&backend.ip).is_some() {
        return Err(Reason::EdgeFamily);
    }
    target.cluster = backend.cluster;
    target.backend_id = chosen.id;
    target.generation = backend.generation;
    target.svc_id = svc.svc_id;
    target.spare = 0;
    // The answers' entry first, in the same two variables: stack is scarce.
    let (client, vip, client_port, vip_port) = (key.src, key.dst, key.sport, key.dport);
    (target.ip, target.port) = (vip, vip_port);
    key.direction = DIR_REVERSE;
    (key.src, key.sport, key.dst, key.dport) = (backend.ip, backend.port, client, client_port);
    let _ = EDGE_CT.insert(&*key, &*target, 0);
    (target.ip, target.port) = (backend.ip, backend.port);
    key.direction = DIR_FORWARD;
    (key.src, key.sport, key.dst, key.dport) = (client, client_port, vip, vip_port);
    let _ = EDGE_CT.insert(&*key, &*target, 0);
    Ok(())
}

#[inline(always)]
fn reply(ctx: &TcContext, at: u32) -> i32 {
    let mut packet = Packet::new(at);
    if packet.read(ctx).is_none() || packet.read_ports(ctx).is_none() {
        return TC_ACT_UNSPEC;
    }
    packet.flow.direction = DIR_REVERSE;
    // SAFETY: copied out at once.
    let Some(vip) = (unsafe { EDGE_CT.get(&packet.flow) }).copied() else {
        return TC_ACT_UNSPEC;
    };
    if packet.rewrite(ctx, End::Source, &vip.ip, pair(packet.flow.sport, vip.port)) != 0 {
        return drop(ctx, Reason::EdgeRewrite);
    }
    count(Reason::EdgeReply, ctx.len());
    TC_ACT_UNSPEC
}

#[inline(always)]
fn drop(ctx: &TcContext, reason: Reason) -> i32 {
    count(reason, ctx.len());
    TC_ACT_SHOT
}
