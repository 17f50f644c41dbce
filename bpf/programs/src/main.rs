//! The eBPF programs of Isthmus.
//!
//! ```text
//! socket   cgroup connect4/6 sendmsg4/6              virtual address → backend
//!          cgroup recvmsg4/6 getpeername4/6          backend → virtual address
//! overlay  tcx egress / ingress of the VXLAN device  identity and endpoint ↔ tunnel key
//! edge     tcx ingress / egress of the uplinks       LoadBalancer address → backend, and back
//! ```
//! Maps and the choice of a backend come from `isthmus-bpf-abi`. A reachable panic would make the verifier refuse a program,
//! so nothing here indexes, divides or unwraps.
#![no_std]
#![no_main]

mod edge;
mod maps;
mod overlay;
mod packet;
mod socket;

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
