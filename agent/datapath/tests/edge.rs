//! Packets from outside to a LoadBalancer address, through the edge node, over the tunnel, and back.
//!
//! ```text
//!            192.0.2.0/24              198.51.100.0/24 (underlay)
//!  client ──────────────── edge ─────────────────────── node ── pod 10.2.0.5
//!    .10                .1  │ VIP 203.0.113.7:80 .1   .2          (on another node)
//!                           └── pod 10.1.0.5 (on this node)
//! ```
//! The edge node is `east-1`; both pods are backends. Answers of the pod behind the tunnel must come back through the edge
//! node: it masquerades what comes from outside the mesh and leaves by the tunnel (an nftables rule of the agent's).
mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use isthmus_datapath::{Config, Datapath, Desired, IpCacheRow, Reason, programs_at};
use isthmus_topology::{Protocol, Scope, ServiceAffinity};
use rig::{Rig, addr, frontend, ip, row, spawn_within, within};

const VIP: &str = "203.0.113.7:80";
const VIP6: &str = "[2001:db8:113::7]:80";
const LOCAL: &str = "10.1.0.5:8080";
const REMOTE: &str = "10.2.0.5:8080";
const LOCAL6: &str = "[fd10:1::5]:8080";
const REMOTE6: &str = "[fd10:2::5]:8080";

struct Net {
    client: String,
    edge: String,
    node: String,
    near: String,
    far: String,
}

fn link(a: &str, a_dev: &str, b: &str, b_dev: &str) {
    ip(&format!(
        "-n {a} link add {a_dev} type veth peer name {b_dev} netns {b}"
    ));
    for (name, dev) in [(a, a_dev), (b, b_dev)] {
        ip(&format!("-n {name} link set {dev} up"));
    }
}

fn addresses(name: &str, dev: &str, list: &[&str]) {
    for address in list {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        ip(&format!("-n {name} address add {address} dev {dev} {nodad}"));
    }
}

fn routes(name: &str, list: &[&str]) {
    for route in list {
        ip(&format!("-n {name} route add {route}"));
    }
}

/// The collect-metadata VXLAN device as the agent makes it.
fn overlay(name: &str, mac: &str, own: &[&str], to: &[&str]) {
    ip(&format!(
        "-n {name} link add mesh0 address {mac} mtu 1450 type vxlan external dstport 8472"
    ));
    ip(&format!("-n {name} link set mesh0 arp off up"));
    addresses(name, "mesh0", own);
    for prefix in to {
        ip(&format!("-n {name} route add {prefix} dev mesh0"));
    }
}

fn nft(name: &str, rules: &str) {
    let namespace = std::fs::File::open(format!("/run/netns/{name}")).unwrap();
    let rules = rules.to_owned();
    std::thread::spawn(move || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let mut nft = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("nft");
        nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "nft {rules}");
    })
    .join()
    .unwrap();
}

fn forwarding(name: &str) {
    within(name, || {
        for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{key}"), "1").expect(key);
        }
    });
}

fn topology(rig: &mut Rig) -> Net {
    let [client, edge, node, near, far] = ["c", "e", "n", "p1", "p2"].map(|short| rig.namespace(short));
    link(&client, "eth0", &edge, "up0");
    link(&edge, "under0", &node, "under0");
    link(&edge, "pod0", &near, "eth0");
    link(&node, "pod0", &far, "eth0");
    addresses(&client, "eth0", &["192.0.2.10/24", "2001:db8:2::10/64"]);
    addresses(&edge, "up0", &["192.0.2.1/24", "2001:db8:2::1/64"]);
    addresses(&edge, "under0", &["198.51.100.1/24"]);
    addresses(&node, "under0", &["198.51.100.2/24"]);
    addresses(&edge, "pod0", &["10.1.0.1/24", "fd10:1::1/64"]);
    addresses(&near, "eth0", &["10.1.0.5/24", "fd10:1::5/64"]);
    addresses(&node, "pod0", &["10.2.0.1/24", "fd10:2::1/64"]);
    addresses(&far, "eth0", &["10.2.0.5/24", "fd10:2::5/64"]);
    routes(
        &client,
        &[
            "203.0.113.0/24 via 192.0.2.1",
            "2001:db8:113::/64 via 2001:db8:2::1",
        ],
    );
    routes(&near, &["default via 10.1.0.1", "default via fd10:1::1"]);
    routes(&far, &["default via 10.2.0.1", "default via fd10:2::1"]);
    overlay(
        &edge,
        "02:00:00:00:00:01",
        &["10.1.0.254/32", "fd10:1::fe/128"],
        &["10.2.0.0/24", "fd10:2::/64"],
    );
    overlay(
        &node,
        "02:00:00:00:00:02",
        &["10.2.0.254/32", "fd10:2::fe/128"],
        &["10.1.0.0/24", "fd10:1::/64"],
    );
    for name in [&edge, &node] {
        forwarding(name);
    }
    // Outside sources that leave by the tunnel get an address of this node, so that answers come back here.
    nft(
        &edge,
        "table inet mesh { chain out { type nat hook postrouting priority 90;
            oifname mesh0 ip saddr != { 10.0.0.0/8 } snat ip to 10.1.0.254;
            oifname mesh0 ip6 saddr != { fd10::/16 } snat ip6 to fd10:1::fe;
        }
        }",
    );
    Net {
        client,
        edge,
        node,
        near,
        far,
    }
}

/// Both pods answer with their own address and who asked.
fn serve(namespace: &str, addresses: [&'static str; 2]) {
    for address in addresses {
        let (tcp, udp) = within(namespace, move || {
            (
                TcpListener::bind(address).expect(address),
                UdpSocket::bind(address).expect(address),
            )
        });
        spawn_within(namespace, move || {
            for stream in tcp.incoming().flatten() {
                std::thread::spawn(move || echo(stream, address));
            }
        });
        spawn_within(namespace, move || {
            let mut buffer = [0; 64];
            while let Ok((_, from)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(address.as_bytes(), from);
            }
        });
    }
}

/// Says who it is, then sends back 100 kB for each byte that it gets, until the client is done.
fn echo(mut stream: TcpStream, name: &str) {
    let mut byte = [0];
    let _ = stream.write_all(format!("{name}\n").as_bytes());
    while stream.read_exact(&mut byte).is_ok() {
        if stream.write_all(&vec![byte[0]; 100_000]).is_err() {
            return;
        }
    }
}

fn connect(target: &str) -> (String, TcpStream) {
    let target: SocketAddr = target.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(5)).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut name = Vec::new();
    let mut byte = [0];
    while byte[0] != b'\n' {
        stream.read_exact(&mut byte).expect("name");
        name.push(byte[0]);
    }
    (String::from_utf8(name).unwrap().trim_end().to_owned(), stream)
}

fn transfer(stream: &mut TcpStream) {
    stream.write_all(b"x").expect("write");
    let mut data = vec![0; 100_000];
    stream.read_exact(&mut data).expect("100 kB");
    assert!(data.iter().all(|byte| *byte == b'x'));
}

fn names(client: &str, target: &'static str) -> BTreeSet<String> {
    within(client, move || {
        (0..24)
            .map(|_| {
                let (name, mut stream) = connect(target);
                transfer(&mut stream);
                name
            })
            .collect()
    })
}

fn row_of(identity: u32, endpoint: Option<&str>) -> IpCacheRow {
    IpCacheRow {
        identity,
        endpoint: endpoint.map(addr),
        key: 0,
        skip_tunnel: false,
    }
}

fn desired_edge() -> Desired {
    let v4: [(u16, &[&str]); 2] = [(1, &[LOCAL]), (2, &[REMOTE])];
    let v6: [(u16, &[&str]); 2] = [(1, &[LOCAL6]), (2, &[REMOTE6])];
    let mut desired = Desired::default();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let none = ServiceAffinity::None;
        desired
            .services
            .insert(frontend(VIP, protocol, Scope::External), row(none, &v4));
        desired
            .services
            .insert(frontend(VIP6, protocol, Scope::External), row(none, &v6));
    }
    desired.ipcache = BTreeMap::from([
        ("10.1.0.254/32".parse().unwrap(), row_of(1, None)),
        ("fd10:1::fe/128".parse().unwrap(), row_of(1, None)),
        ("10.1.0.5/32".parse().unwrap(), row_of(70_001, None)),
        ("10.2.0.0/24".parse().unwrap(), row_of(6, Some("198.51.100.2"))),
        ("fd10:2::/64".parse().unwrap(), row_of(6, Some("198.51.100.2"))),
    ]);
    desired
}

fn desired_node() -> Desired {
    let ipcache = BTreeMap::from([
        ("10.1.0.0/24".parse().unwrap(), row_of(6, Some("198.51.100.1"))),
        ("fd10:1::/64".parse().unwrap(), row_of(6, Some("198.51.100.1"))),
        ("10.2.0.5/32".parse().unwrap(), row_of(131_073, None)),
    ]);
    Desired {
        ipcache,
        ..Desired::default()
    }
}

/// Opens a data path inside a namespace, as an agent of that node would.
fn open(rig: &Rig, name: &str, config: Config, desired: Desired, tcx: bool) -> Datapath {
    let mut config = config;
    config.pin_dir = rig.pin_dir.with_extension(name);
    config.cgroup = None;
    within(&format!("{}-{name}", rig.name), move || {
        let open = if tcx {
            Datapath::open
        } else {
            Datapath::open_with_clsact
        };
        let mut datapath = open(config).expect("open");
        datapath.sync(&desired).expect("sync");
        datapath
    })
}

fn packets(datapath: &Datapath, reason: Reason) -> u64 {
    datapath.metrics().expect("metrics")[reason as usize].packets
}

struct Removed(Vec<std::path::PathBuf>);

impl Drop for Removed {
    fn drop(&mut self) {
        for dir in &self.0 {
            let _ = Datapath::remove(dir);
            let _ = std::fs::remove_dir(dir);
        }
    }
}

/// Servers, and the data paths of both nodes.
fn start(rig: &mut Rig, tcx: bool) -> Option<(Net, Datapath, Datapath, Removed)> {
    if Command::new("nft").arg("-v").output().is_err() {
        eprintln!("skipped: no nft command (Debian package nftables)");
        return None;
    }
    let net = topology(rig);
    let removed = Removed(["e", "n"].map(|name| rig.pin_dir.with_extension(name)).to_vec());
    serve(&net.near, [LOCAL, LOCAL6]);
    serve(&net.far, [REMOTE, REMOTE6]);
    let edge = open(rig, "e", config(rig, &["up0"]), desired_edge(), tcx);
    let node = open(rig, "n", config(rig, &[]), desired_node(), tcx);
    Some((net, edge, node, removed))
}

fn config(rig: &Rig, uplinks: &[&str]) -> Config {
    let uplinks = uplinks.iter().map(|name| (*name).to_owned()).collect();
    Config {
        uplinks,
        overlay: Some("mesh0".into()),
        ..rig.config()
    }
}

#[test]
fn a_client_outside_reaches_pods_here_and_behind_the_tunnel() {
    let Some(mut rig) = Rig::new("edge") else { return };
    let Some((net, edge, node, _removed)) = start(&mut rig, true) else {
        return;
    };
    overlay_alone(&net, &edge, &node);
    both_families(&net, &edge);
    flows_stay(&net, &edge);
    failover(&net, &edge);
    hooks_follow_the_configuration(&rig, edge, &net);
}

/// The same on kernels without tcx, and over a restart there.
#[test]
fn clsact_filters_do_the_same() {
    let Some(mut rig) = Rig::new("clsact") else { return };
    let Some((net, edge, node, _removed)) = start(&mut rig, false) else {
        return;
    };
    assert!(
        edge.attached()
            .iter()
            .all(|hook| hook.by == "clsact filter" && !hook.adopted)
    );
    overlay_alone(&net, &edge, &node);
    both_families(&net, &edge);
    drop(edge);
    assert_eq!(names(&net.client, VIP).len(), 2, "nobody is there, and it works");
    let edge = open(&rig, "e", config(&rig, &["up0"]), desired_edge(), false);
    assert!(
        edge.attached().iter().all(|hook| hook.adopted),
        "{:?}",
        edge.attached()
    );
    assert_eq!(edge.counters().ops_written, 0);
    assert_eq!(names(&net.client, VIP).len(), 2);
    drop(edge);
    let edge = open(&rig, "e", config(&rig, &[]), desired_edge(), false);
    assert_eq!(edge.attached().len(), 2, "the tunnel");
    let refused = within(&net.client, || {
        TcpStream::connect_timeout(&VIP.parse().unwrap(), Duration::from_millis(300)).is_err()
    });
    assert!(refused, "no longer an uplink");
}

/// Devices that go, come back, and are no longer wanted; programs that are replaced in place.
fn hooks_follow_the_configuration(rig: &Rig, edge: Datapath, net: &Net) {
    let pin_dir = rig.pin_dir.with_extension("e");
    let hooks = |edge: &Datapath| edge.attached().iter().filter(|hook| hook.adopted).count();
    drop(edge);
    let layout = std::fs::read_dir(&pin_dir)
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let programs = layout
        .map(|dir| dir.join("progs"))
        .find(|dir| dir.is_dir())
        .expect("programs");
    // One program is missing, so all are loaded anew and put into the links that are there.
    std::fs::remove_file(programs.join("edge_ingress")).unwrap();
    let edge = open(rig, "e", config(rig, &["up0"]), desired_edge(), true);
    assert_eq!((hooks(&edge), edge.counters().ops_written), (4, 0));
    assert_eq!(names(&net.client, VIP).len(), 2);
    let (namespace, own) = (net.edge.clone(), config(rig, &["up0"]));
    let programs = within(&namespace, move || programs_at(&own).expect("query"));
    assert!(
        programs
            .iter()
            .filter(|(hook, _)| hook.contains(' '))
            .all(|(_, n)| *n == 1),
        "{programs:?}"
    );

    ip(&format!("-n {} link del up0", net.edge));
    link(&net.client, "eth0", &net.edge, "up0");
    let (mut edge, again) = within(&namespace, move || {
        let mut edge = edge;
        let again = edge.reattach().expect("reattach");
        (edge, again)
    });
    assert_eq!(again, 2, "the uplink is another device now");
    let inspection = Datapath::inspect(&pin_dir).expect("inspect").expect("pins");
    assert_eq!(
        inspection.attached.len(),
        4,
        "the pins of the old one are gone: {:?}",
        inspection.attached
    );
    let left = within(&namespace, move || {
        edge.set_uplinks(&[]).expect("no uplinks");
        edge.attached().len()
    });
    assert_eq!(left, 2, "the tunnel");
}

/// Pod to pod: the VNI carries the identity of the sender, and what is not in the ipcache is dropped and counted.
fn overlay_alone(net: &Net, edge: &Datapath, node: &Datapath) {
    let (name, _) = within(&net.near, || connect(REMOTE));
    assert_eq!(name, REMOTE);
    let (name, _) = within(&net.near, || connect(REMOTE6));
    assert_eq!(name, REMOTE6);
    assert!(packets(edge, Reason::OverlayEncap) > 0 && packets(node, Reason::OverlayDecap) > 0);
    assert!(
        packets(node, Reason::OverlayDecapWorld) > 0,
        "the IPv6 pod has no identity yet"
    );
    ip(&format!("-n {} route add 10.77.0.0/24 dev mesh0", net.edge));
    within(&net.near, || {
        UdpSocket::bind("0.0.0.0:0")
            .unwrap()
            .send_to(b"?", "10.77.0.1:9")
            .unwrap()
    });
    assert!(packets(edge, Reason::OverlayNoEndpoint) > 0);
    assert!(packets(node, Reason::OverlayNoKey) == 0, "{}", net.node);
}

fn both_families(net: &Net, edge: &Datapath) {
    let both = |names: [&str; 2]| names.map(str::to_owned).into_iter().collect::<BTreeSet<_>>();
    assert_eq!(names(&net.client, VIP), both([LOCAL, REMOTE]));
    assert_eq!(names(&net.client, VIP6), both([LOCAL6, REMOTE6]));
    for (target, bind) in [(VIP, "0.0.0.0:0"), (VIP6, "[::]:0")] {
        within(&net.client, move || {
            let vip: SocketAddr = target.parse().unwrap();
            let mut buffer = [0; 64];
            for _ in 0..8 {
                let socket = UdpSocket::bind(bind).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                socket.send_to(b"?", vip).unwrap();
                assert_eq!(socket.recv_from(&mut buffer).expect("answer").1, vip);
            }
        });
    }
    assert_eq!(packets(edge, Reason::EdgeNewFlow), 24 + 24 + 8 + 8);
    assert!(packets(edge, Reason::EdgeReply) > 0);
    assert_eq!(packets(edge, Reason::EdgeRewrite), 0);
}

/// An open connection stays where it is when backends come and go.
fn flows_stay(net: &Net, edge: &Datapath) {
    let mut open = within(&net.client, || (0..8).map(|_| connect(VIP)).collect::<Vec<_>>());
    edge.set_cluster_alive(1, false);
    for (_, stream) in &mut open {
        transfer(stream);
    }
    edge.set_cluster_alive(1, true);
}

fn failover(net: &Net, edge: &Datapath) {
    edge.set_cluster_alive(2, false);
    assert_eq!(
        names(&net.client, VIP),
        BTreeSet::from([LOCAL.to_owned()]),
        "the other cluster is cut off"
    );
    edge.set_cluster_alive(1, false);
    let before = packets(edge, Reason::EdgeNoBackend);
    let refused = within(&net.client, || {
        TcpStream::connect_timeout(&VIP.parse().unwrap(), Duration::from_millis(300))
            .expect_err("nobody left")
            .kind()
    });
    assert_eq!(refused, std::io::ErrorKind::TimedOut);
    assert!(packets(edge, Reason::EdgeNoBackend) > before);
    edge.set_cluster_alive(1, true);
    edge.set_cluster_alive(2, true);
    assert_eq!(names(&net.client, VIP).len(), 2);
}
