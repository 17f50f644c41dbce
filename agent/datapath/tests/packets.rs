//! Packets through single programs (BPF_PROG_TEST_RUN): the verdict, and every byte that comes out.
mod rig;

use std::collections::BTreeMap;
use std::path::PathBuf;

use aya::programs::{ProgramError, SchedClassifier, TestRun as _, TestRunOptions};
use isthmus_datapath::{Datapath, Desired, IpCacheRow, Reason};
use isthmus_topology::{Protocol, Scope, ServiceAffinity};
use rig::{Rig, addr, frontend, row};

/// `TC_ACT_UNSPEC`: on to whoever is next.
const NEXT: u32 = u32::MAX;
/// `TC_ACT_SHOT`.
const DROP: u32 = 2;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// The sum that checksums are the complement of.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            total += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// A packet to be sent or expected.
#[derive(Clone)]
struct Packet {
    src: (&'static str, u16),
    dst: (&'static str, u16),
    proto: u8,
    flags: u8,
    fragment: u16,
    checksum: bool,
}

fn packet(proto: u8, src: (&'static str, u16), dst: (&'static str, u16)) -> Packet {
    Packet {
        src,
        dst,
        proto,
        flags: SYN,
        fragment: 0,
        checksum: true,
    }
}

fn octets(ip: &str) -> Vec<u8> {
    match addr(ip) {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

impl Packet {
    fn transport(&self, src: &[u8], dst: &[u8]) -> Vec<u8> {
        let mut out = [self.src.1.to_be_bytes(), self.dst.1.to_be_bytes()].concat();
        let at = if self.proto == TCP {
            out.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
            16
        } else {
            out.extend([0, 13, 0, 0]);
            6
        };
        out.extend(b"hello");
        if self.checksum {
            let pseudo = [&[0, self.proto][..], &(out.len() as u16).to_be_bytes()].concat();
            let checksum = !sum(&[src, dst, &pseudo, &out]);
            out[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        out
    }

    /// The frame with valid checksums.
    fn bytes(&self) -> Vec<u8> {
        let (src, dst) = (octets(self.src.0), octets(self.dst.0));
        let transport = self.transport(&src, &dst);
        let mut out = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        if src.len() == 4 {
            out.extend([0x08, 0x00, 0x45, 0]);
            out.extend((20 + transport.len() as u16).to_be_bytes());
            out.extend([0, 7]);
            out.extend(self.fragment.to_be_bytes());
            out.extend([64, self.proto, 0, 0]);
            out.extend([src, dst].concat());
            let checksum = !sum(&[&out[14..34]]);
            out[24..26].copy_from_slice(&checksum.to_be_bytes());
        } else {
            out.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            out.extend((transport.len() as u16).to_be_bytes());
            out.extend([self.proto, 64]);
            out.extend([src, dst].concat());
        }
        out.extend(transport);
        out
    }
}

struct Programs(PathBuf);

impl Programs {
    /// Verdict and packet; `None` if the kernel takes no such packet for a test run (it refuses the shortest).
    fn run(&self, program: &str, frame: &[u8]) -> Option<(u32, Vec<u8>)> {
        let program = SchedClassifier::from_pin(self.0.join(program)).expect(program);
        let mut out = vec![0; frame.len() + 64];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::new()
        };
        let result = match program.test_run(options) {
            Err(ProgramError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::EINVAL) => {
                return None;
            }
            result => result.expect("test run"),
        };
        let length = result.data_size_out as usize;
        out.truncate(length);
        Some((result.return_value, out))
    }

    /// Runs a packet and expects another one with the same checksums as if it had been sent like that.
    fn expect(&self, program: &str, sent: &Packet, expected: &Packet) {
        let (verdict, out) = self.run(program, &sent.bytes()).expect("a whole packet");
        assert_eq!(verdict, NEXT, "{program}");
        assert_eq!(
            out,
            expected.bytes(),
            "{program}: {:?} → {:?}",
            sent.src,
            sent.dst
        );
    }

    fn verdict(&self, program: &str, frame: &[u8]) -> u32 {
        let Some((verdict, out)) = self.run(program, frame) else {
            return NEXT;
        };
        assert_eq!(out, frame, "{program} must not touch it");
        verdict
    }
}

fn open(rig: &Rig) -> (Datapath, Programs) {
    let mut datapath = Datapath::open(rig.config()).expect("open");
    let mut desired = Desired::default();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let none = ServiceAffinity::None;
        let v4 = row(none, &[(2, &["10.2.0.5:8080"])]);
        let v6 = row(none, &[(2, &["[fd10:2::5]:8080"])]);
        let mixed = row(none, &[(2, &["[fd10:2::5]:8080"])]);
        desired
            .services
            .insert(frontend("203.0.113.7:80", protocol, Scope::External), v4);
        desired
            .services
            .insert(frontend("[2001:db8::7]:80", protocol, Scope::External), v6);
        desired
            .services
            .insert(frontend("203.0.113.8:80", protocol, Scope::External), mixed);
        desired.services.insert(
            frontend("203.0.113.9:80", protocol, Scope::External),
            row(none, &[]),
        );
    }
    let endpoint = |ip: &str| IpCacheRow {
        identity: 6,
        endpoint: Some(addr(ip)),
        key: 0,
        skip_tunnel: false,
    };
    desired.ipcache = BTreeMap::from([
        ("10.2.0.0/24".parse().unwrap(), endpoint("198.51.100.2")),
        ("fd10:2::/64".parse().unwrap(), endpoint("2001:db8:1::2")),
        (
            "10.1.0.0/24".parse().unwrap(),
            IpCacheRow {
                identity: 70_001,
                endpoint: None,
                key: 0,
                skip_tunnel: false,
            },
        ),
    ]);
    assert_eq!(datapath.sync(&desired).expect("sync").refused, []);
    let layout = std::fs::read_dir(&rig.pin_dir)
        .unwrap()
        .flatten()
        .find(|e| e.path().join("progs").is_dir());
    (datapath, Programs(layout.expect("layout").path().join("progs")))
}

fn packets(datapath: &Datapath, reason: Reason) -> u64 {
    datapath.metrics().expect("metrics")[reason as usize].packets
}

#[test]
fn packets_come_out_as_they_should() {
    let Some(rig) = Rig::new("packets") else { return };
    let (datapath, programs) = open(&rig);
    rewrites(&programs);
    sticky(&datapath, &programs);
    leaves_alone(&programs);
    drops(&datapath, &programs);
    tunnel(&datapath, &programs);
    nonsense(&programs);
}

/// Frames with random bytes in them: a program drops one, passes it on untouched, or rewrites addresses, ports and checksums
/// of one that was for a virtual address; nothing else changes and nothing fails.
fn nonsense(programs: &Programs) {
    let seeds = [
        packet(TCP, ("192.0.2.10", 40_000), ("203.0.113.7", 80)).bytes(),
        packet(UDP, ("2001:db8:2::10", 40_000), ("2001:db8::7", 80)).bytes(),
        packet(TCP, ("10.2.0.5", 8080), ("192.0.2.10", 40_000)).bytes(),
    ];
    let mut random = 0x2545_f491_4f6c_dd1du64;
    let mut next = move |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 20) as usize % below
    };
    for round in 0..600 {
        let mut frame = seeds[round % seeds.len()].clone();
        for _ in 0..=next(3) {
            let at = next(frame.len());
            frame[at] = next(256) as u8;
        }
        for program in [
            "edge_ingress",
            "edge_egress",
            "overlay_egress",
            "edge_l3_ingress",
            "edge_l3_egress",
        ] {
            let Some((verdict, out)) = programs.run(program, &frame) else {
                continue;
            };
            assert!(
                [NEXT, DROP].contains(&verdict),
                "{program}: {verdict} for {frame:02x?}"
            );
            assert_eq!(out.len(), frame.len(), "{program}: {frame:02x?}");
            let (headers, changed) = (
                14 + 40 + 20,
                out.iter().zip(&frame).filter(|(a, b)| a != b).count(),
            );
            assert!(
                out[..12] == frame[..12] && changed <= 16 + 2 + 4,
                "{program}: {frame:02x?} became {out:02x?}"
            );
            assert!(
                out.get(headers..) == frame.get(headers..) || frame[12] == 0x08,
                "{program}: the payload"
            );
        }
    }
}

/// To a backend and back, with every checksum right, over both families and protocols.
fn rewrites(programs: &Programs) {
    let families = [
        ("192.0.2.10", "203.0.113.7", "10.2.0.5"),
        ("2001:db8:2::10", "2001:db8::7", "fd10:2::5"),
    ];
    for (client, vip, pod) in families {
        for proto in [TCP, UDP] {
            let (client, vip, pod) = ((client, 40_000), (vip, 80), (pod, 8080));
            programs.expect(
                "edge_ingress",
                &packet(proto, client, vip),
                &packet(proto, client, pod),
            );
            programs.expect(
                "edge_egress",
                &packet(proto, pod, client),
                &packet(proto, vip, client),
            );
        }
    }
    // UDP over IPv4 without a checksum stays without.
    let bare = |src, dst| Packet {
        checksum: false,
        ..packet(UDP, src, dst)
    };
    let (client, vip, pod) = (("192.0.2.10", 40_001), ("203.0.113.7", 80), ("10.2.0.5", 8080));
    programs.expect("edge_ingress", &bare(client, vip), &bare(client, pod));
}

/// A flow keeps its backend when its cluster is cut off, but a SYN and a datagram look for another one.
fn sticky(datapath: &Datapath, programs: &Programs) {
    let (client, vip, pod) = (("192.0.2.10", 40_000), ("203.0.113.7", 80), ("10.2.0.5", 8080));
    let open = |src, dst| Packet {
        flags: ACK,
        ..packet(TCP, src, dst)
    };
    datapath.set_cluster_alive(2, false);
    programs.expect("edge_ingress", &open(client, vip), &open(client, pod));
    assert_eq!(
        programs.verdict("edge_ingress", &packet(TCP, client, vip).bytes()),
        DROP,
        "a new connection"
    );
    assert_eq!(
        programs.verdict("edge_ingress", &packet(UDP, client, vip).bytes()),
        DROP,
        "a datagram"
    );
    datapath.set_cluster_alive(2, true);
}

fn leaves_alone(programs: &Programs) {
    let client = ("192.0.2.10", 40_000);
    let mut frames = vec![
        packet(TCP, client, ("203.0.113.7", 81)).bytes(),
        packet(TCP, client, ("192.0.2.1", 22)).bytes(),
        packet(1, client, ("203.0.113.7", 80)).bytes(),
        vec![0; 60],
        [&[2; 12][..], &[0x08, 0x06], &[0; 46]].concat(),
    ];
    let vip = packet(TCP, client, ("203.0.113.7", 80)).bytes();
    // Cut off everywhere.
    frames.extend((14..37).map(|length| vip[..length].to_vec()));
    for frame in frames {
        for program in ["edge_ingress", "edge_egress"] {
            assert_eq!(programs.verdict(program, &frame), NEXT, "{program} {frame:?}");
        }
    }
}

fn drops(datapath: &Datapath, programs: &Programs) {
    let client = ("192.0.2.10", 40_002);
    let fragment = Packet {
        fragment: 0x2000,
        ..packet(UDP, client, ("203.0.113.7", 80))
    };
    let cases = [
        (fragment, Reason::EdgeFragment),
        (packet(TCP, client, ("203.0.113.8", 80)), Reason::EdgeFamily),
        (packet(TCP, client, ("203.0.113.9", 80)), Reason::EdgeNoBackend),
    ];
    for (packet, reason) in cases {
        let before = packets(datapath, reason);
        assert_eq!(
            programs.verdict("edge_ingress", &packet.bytes()),
            DROP,
            "{reason:?}"
        );
        assert_eq!(packets(datapath, reason), before + 1, "{reason:?}");
    }
}

fn tunnel(datapath: &Datapath, programs: &Programs) {
    let pod = ("10.1.0.5", 40_000);
    let cases = [
        (
            packet(TCP, pod, ("10.2.0.5", 80)).bytes(),
            NEXT,
            Reason::OverlayEncap,
        ),
        (
            packet(TCP, ("fd10:1::5", 1), ("fd10:2::5", 80)).bytes(),
            NEXT,
            Reason::OverlayEncap,
        ),
        (
            packet(TCP, pod, ("10.3.0.5", 80)).bytes(),
            DROP,
            Reason::OverlayNoEndpoint,
        ),
        (
            packet(TCP, pod, ("10.1.0.6", 80)).bytes(),
            DROP,
            Reason::OverlayNoEndpoint,
        ),
        (
            [&[2; 12][..], &[0x08, 0x06], &[0; 46]].concat(),
            DROP,
            Reason::OverlayNotIp,
        ),
    ];
    for (frame, verdict, reason) in cases {
        let before = packets(datapath, reason);
        assert_eq!(programs.verdict("overlay_egress", &frame), verdict, "{reason:?}");
        assert_eq!(packets(datapath, reason), before + 1, "{reason:?}");
    }
    let frame = packet(TCP, pod, ("10.2.0.5", 80)).bytes();
    assert_eq!(programs.verdict("overlay_ingress", &frame), DROP, "no tunnel key");
    assert_eq!(packets(datapath, Reason::OverlayNoKey), 1);
}
