//! Socket load balancing: a connect goes to a backend at once, so no packet is ever rewritten.
//!
//! `connect` and `sendmsg` put a backend's address into the call and remember (socket, backend) → virtual address;
//! `recvmsg` and `getpeername` look that up, so the program sees the address that it asked for.
use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_set_retval};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use isthmus_bpf_abi::{
    BackendValue, CONFIG_PASS_WITHOUT_BACKEND, Reason, SCOPE_INTERNAL, SkRevKey, SkRevValue, SvcKey,
    SvcValue, mapped_v4, mix, unmapped_v4,
};

use crate::maps::{SK_REV, config_flags, count, pick, service};

const ALLOW: i32 = 1;
const DENY: i32 = 0;
const ECONNREFUSED: i32 = 111;

/// The address of the call, in the family of the hook.
trait Family {
    fn read(addr: *mut bpf_sock_addr) -> [u8; 16];
    /// False if a socket of this family cannot use `ip`.
    fn write(addr: *mut bpf_sock_addr, ip: &[u8; 16]) -> bool;
}

struct V4;
struct V6;

impl Family for V4 {
    #[inline(always)]
    fn read(addr: *mut bpf_sock_addr) -> [u8; 16] {
        // SAFETY: the kernel passes a valid context and lets these hooks read this field.
        mapped_v4(unsafe { (*addr).user_ip4 }.to_ne_bytes())
    }

    #[inline(always)]
    fn write(addr: *mut bpf_sock_addr, ip: &[u8; 16]) -> bool {
        let Some(ip) = unmapped_v4(ip) else { return false };
        // SAFETY: as above, and the field is writable in these hooks.
        unsafe { (*addr).user_ip4 = u32::from_ne_bytes(ip) };
        true
    }
}

impl Family for V6 {
    #[inline(always)]
    fn read(addr: *mut bpf_sock_addr) -> [u8; 16] {
        // SAFETY: as for V4. Volatile, because the verifier knows this context only in aligned words.
        unsafe {
            let words = &raw const (*addr).user_ip6;
            let word = |i: usize| words.cast::<u32>().add(i).read_volatile().to_ne_bytes();
            let ([a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]) =
                (word(0), word(1), word(2), word(3));
            [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
        }
    }

    #[inline(always)]
    fn write(addr: *mut bpf_sock_addr, ip: &[u8; 16]) -> bool {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *ip;
        // SAFETY: as for reading, and the field is writable in these hooks.
        unsafe {
            let words = (&raw mut (*addr).user_ip6).cast::<u32>();
            words.write_volatile(u32::from_ne_bytes([a, b, c, d]));
            words.add(1).write_volatile(u32::from_ne_bytes([e, f, g, h]));
            words.add(2).write_volatile(u32::from_ne_bytes([i, j, k, l]));
            words.add(3).write_volatile(u32::from_ne_bytes([m, n, o, p]));
        }
        true
    }
}

#[inline(always)]
fn port(addr: *mut bpf_sock_addr) -> u16 {
    // SAFETY: a valid context; the field holds the port in network order.
    u16::from_be(unsafe { (*addr).user_port } as u16)
}

#[inline(always)]
fn set_port(addr: *mut bpf_sock_addr, port: u16) {
    // SAFETY: a valid context; the field is writable in these hooks.
    unsafe { (*addr).user_port = u32::from(port.to_be()) };
}

/// For connect and sendmsg: from the virtual address to a backend.
#[inline(always)]
fn translate<F: Family>(ctx: &SockAddrContext, rand: impl Fn(u64) -> u32) -> i32 {
    let addr = ctx.sock_addr;
    // SAFETY: a valid context.
    let proto = unsafe { (*addr).protocol } as u8;
    let key = SvcKey {
        ip: F::read(addr),
        port: port(addr),
        proto,
        scope: SCOPE_INTERNAL,
    };
    let Some(svc) = service(&key) else { return ALLOW };
    // SAFETY: a valid context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let Some(chosen) = pick(svc, rand(cookie)) else {
        return refuse(Reason::SocketNoBackend);
    };
    if !F::write(addr, &chosen.backend.ip) {
        return refuse(Reason::SocketFamily);
    }
    set_port(addr, chosen.backend.port);
    remember(cookie, &key, svc, chosen.backend);
    count(Reason::SocketTranslated, 0);
    ALLOW
}

#[inline(always)]
fn remember(cookie: u64, key: &SvcKey, svc: &SvcValue, backend: &BackendValue) {
    let rev = SkRevKey {
        cookie,
        ip: backend.ip,
        port: backend.port,
        pad: [0; 3],
    };
    let vip = SkRevValue {
        ip: key.ip,
        port: key.port,
        pad: 0,
        svc_id: svc.svc_id,
    };
    // A full LRU evicts; a failed insert only means that getpeername shows the backend.
    let _ = SK_REV.insert(rev, vip, 0);
}

#[inline(always)]
fn refuse(reason: Reason) -> i32 {
    count(reason, 0);
    if config_flags() & CONFIG_PASS_WITHOUT_BACKEND != 0 {
        return ALLOW;
    }
    // SAFETY: allowed in connect and sendmsg hooks.
    unsafe { bpf_set_retval(-ECONNREFUSED) };
    DENY
}

/// For recvmsg and getpeername: from the backend to the virtual address. These hooks may not refuse.
#[inline(always)]
fn restore<F: Family>(ctx: &SockAddrContext) -> i32 {
    let addr = ctx.sock_addr;
    // SAFETY: a valid context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let key = SkRevKey {
        cookie,
        ip: F::read(addr),
        port: port(addr),
        pad: [0; 3],
    };
    // SAFETY: copied out below before anything can replace it; the entry is this socket's own.
    if let Some(vip) = unsafe { SK_REV.get(key) }
        && F::write(addr, &vip.ip)
    {
        set_port(addr, vip.port);
    }
    ALLOW
}

#[inline(always)]
fn any(_cookie: u64) -> u32 {
    // SAFETY: always allowed.
    unsafe { bpf_get_prandom_u32() }
}

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    translate::<V4>(&ctx, any)
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    translate::<V6>(&ctx, any)
}

// Datagrams of one socket stay with one backend as long as the backends do not change.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    translate::<V4>(&ctx, mix)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    translate::<V6>(&ctx, mix)
}

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    restore::<V4>(&ctx)
}

#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    restore::<V6>(&ctx)
}

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    restore::<V4>(&ctx)
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    restore::<V6>(&ctx)
}
