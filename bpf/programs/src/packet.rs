//! Reading and rewriting IPv4 and IPv6 packets of an skb, by helpers, so that it does not matter what is linear.
use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::{bpf_csum_diff, bpf_skb_load_bytes};
use aya_ebpf::programs::TcContext;
use isthmus_bpf_abi::{CtKey, mapped_v4, unmapped_v4};

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
/// Linux 6.16: checksums of IPv6 need no second correction. Older kernels refuse the flag and need none.
const BPF_F_IPV6: u64 = 1 << 7;

/// What a packet says about its flow. It is filled in place: every copy would cost stack, of which there are 512 bytes.
pub struct Packet {
    /// Addresses, protocol and, after [`Packet::read_ports`], ports.
    pub flow: CtKey,
    /// Fragment of a longer packet, the first one too.
    pub fragment: bool,
    /// Opens a TCP connection.
    pub opens: bool,
    v6: bool,
    /// Offset of the IP header.
    at: u32,
    /// Offset of the transport header.
    l4: u32,
}

/// Which end of a packet to rewrite.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Source,
    Destination,
}

/// Copies packet bytes from `at` over `to`.
#[inline(always)]
fn load(ctx: &TcContext, at: u32, to: &mut [u8]) -> Option<()> {
    let (buffer, length) = (to.as_mut_ptr().cast(), to.len() as u32);
    // SAFETY: a valid skb and a buffer of that length.
    (unsafe { bpf_skb_load_bytes(ctx.as_ptr(), at, buffer, length) } == 0).then_some(())
}

/// The ethertype of the packet, from the skb: right for devices with and without Ethernet headers.
#[inline(always)]
fn protocol(ctx: &TcContext) -> u16 {
    // SAFETY: a valid skb.
    u16::from_be(unsafe { (*ctx.skb.skb).protocol } as u16)
}

impl Packet {
    /// A packet of which nothing is known yet; its IP header starts at `at`.
    #[inline(always)]
    pub fn new(at: u32) -> Self {
        let none = mapped_v4([0; 4]);
        Self {
            flow: CtKey {
                src: none,
                dst: none,
                sport: 0,
                dport: 0,
                proto: 0,
                direction: 0,
                pad: 0,
            },
            fragment: false,
            opens: false,
            v6: false,
            at,
            l4: at,
        }
    }

    /// Reads addresses and protocol.
    #[inline(always)]
    pub fn read(&mut self, ctx: &TcContext) -> Option<()> {
        match protocol(ctx) {
            ETH_P_IP => self.read_v4(ctx),
            ETH_P_IPV6 => self.read_v6(ctx),
            _ => None,
        }
    }

    #[inline(always)]
    fn read_v4(&mut self, ctx: &TcContext) -> Option<()> {
        let mut start = [0u8; 10];
        load(ctx, self.at, &mut start)?;
        let [version, _, _, _, _, _, fragment, offset, _, proto] = start;
        if version & 0x0f < 5 {
            return None;
        }
        self.fragment = fragment & 0x3f != 0 || offset != 0;
        self.l4 = self.at + u32::from(version & 0x0f) * 4;
        self.flow.proto = proto;
        load(ctx, self.at + 12, self.flow.src.get_mut(12..)?)?;
        load(ctx, self.at + 16, self.flow.dst.get_mut(12..)?)
    }

    /// Extension headers are not walked: such a packet has a protocol that nothing here balances.
    #[inline(always)]
    fn read_v6(&mut self, ctx: &TcContext) -> Option<()> {
        let mut proto = [0u8; 1];
        load(ctx, self.at + 6, &mut proto)?;
        [self.flow.proto] = proto;
        self.v6 = true;
        self.l4 = self.at + 40;
        load(ctx, self.at + 8, &mut self.flow.src)?;
        load(ctx, self.at + 24, &mut self.flow.dst)
    }

    /// Reads the ports of a TCP or UDP packet.
    #[inline(always)]
    pub fn read_ports(&mut self, ctx: &TcContext) -> Option<()> {
        let mut ports = [0u8; 4];
        load(ctx, self.l4, &mut ports)?;
        let [a, b, c, d] = ports;
        (self.flow.sport, self.flow.dport) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        match self.flow.proto {
            TCP => {
                let mut flags = [0u8; 1];
                load(ctx, self.l4 + 13, &mut flags)?;
                let [flags] = flags;
                self.opens = flags & 0x12 == 0x02;
                Some(())
            }
            UDP => Some(()),
            _ => None,
        }
    }

    /// Writes another address and port into one end and corrects the checksums; `ports` is the old one and the new one.
    /// 0 if that was done. A function of its own in the kernel too, because its stack would add to the callers'.
    #[inline(never)]
    pub fn rewrite(&self, ctx: &TcContext, end: End, ip: &[u8; 16], ports: u32) -> u32 {
        u32::from(
            self.try_rewrite(ctx, end, ip, (ports >> 16) as u16, ports as u16)
                .is_none(),
        )
    }

    #[inline(always)]
    fn try_rewrite(&self, ctx: &TcContext, end: End, ip: &[u8; 16], old_port: u16, port: u16) -> Option<()> {
        let old = if end == End::Source {
            &self.flow.src
        } else {
            &self.flow.dst
        };
        let (checksum, udp) = match self.flow.proto {
            TCP => (self.l4 + 16, 0),
            _ => (self.l4 + 6, u64::from(BPF_F_MARK_MANGLED_0)),
        };
        let port_at = self.l4 + if end == End::Source { 0 } else { 2 };
        if self.v6 {
            self.rewrite_v6(ctx, end, old, ip, checksum, udp)?;
        } else {
            self.rewrite_v4(ctx, end, unmapped_v4(old)?, unmapped_v4(ip)?, checksum, udp)?;
        }
        let (from, to) = (u64::from(old_port.to_be()), u64::from(port.to_be()));
        ctx.l4_csum_replace(checksum as usize, from, to, udp | 2).ok()?;
        ctx.store(port_at as usize, &port.to_be_bytes(), 0).ok()
    }

    #[inline(always)]
    fn rewrite_v4(
        &self,
        ctx: &TcContext,
        end: End,
        old: [u8; 4],
        new: [u8; 4],
        checksum: u32,
        udp: u64,
    ) -> Option<()> {
        let (from, to) = (
            u64::from(u32::from_ne_bytes(old)),
            u64::from(u32::from_ne_bytes(new)),
        );
        ctx.l4_csum_replace(checksum as usize, from, to, udp | u64::from(BPF_F_PSEUDO_HDR) | 4)
            .ok()?;
        ctx.l3_csum_replace(self.at as usize + 10, from, to, 4).ok()?;
        let at = self.at + if end == End::Source { 12 } else { 16 };
        ctx.store(at as usize, &new, 0).ok()
    }

    #[inline(always)]
    fn rewrite_v6(
        &self,
        ctx: &TcContext,
        end: End,
        old: &[u8; 16],
        new: &[u8; 16],
        checksum: u32,
        udp: u64,
    ) -> Option<()> {
        let (mut from, mut to) = (*old, *new);
        // SAFETY: both are 16 bytes on the stack.
        let diff = unsafe { bpf_csum_diff(from.as_mut_ptr().cast(), 16, to.as_mut_ptr().cast(), 16, 0) };
        if diff < 0 {
            return None;
        }
        let flags = udp | u64::from(BPF_F_PSEUDO_HDR);
        if ctx
            .l4_csum_replace(checksum as usize, 0, diff as u64, flags | BPF_F_IPV6)
            .is_err()
        {
            ctx.l4_csum_replace(checksum as usize, 0, diff as u64, flags)
                .ok()?;
        }
        let at = self.at + if end == End::Source { 8 } else { 24 };
        ctx.store(at as usize, new, 0).ok()
    }
}
