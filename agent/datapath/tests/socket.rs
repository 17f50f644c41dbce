//! Real sockets of a client in one namespace, real servers in another, and the load balancer between them that is in no
//! path at all.
//!
//! ```text
//!  client 10.99.0.1, fd99::1  ────────  server 10.99.0.2, fd99::2
//!  asks for 10.96.0.1:80                east (cluster 1): 10.200.1.1, 10.200.1.2     fd20::1:1
//!           [fd96::1]:80                west (cluster 2): 10.200.2.1                 fd20::2:1
//! ```
mod rig;

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use isthmus_datapath::{Config, Datapath, Desired, Reason, programs_at};
use isthmus_topology::{Protocol, Scope, ServiceAffinity};
use rig::{Rig, frontend, ip, row, spawn_within, within};

const V4: &str = "10.96.0.1:80";
const V6: &str = "[fd96::1]:80";
const BACKENDS: [&str; 5] = [
    "10.200.1.1:8080",
    "10.200.1.2:8080",
    "10.200.2.1:8080",
    "[fd20::1:1]:8080",
    "[fd20::2:1]:8080",
];
const EAST4: [&str; 2] = ["10.200.1.1:8080", "10.200.1.2:8080"];
const WEST4: [&str; 1] = ["10.200.2.1:8080"];

fn topology(rig: &mut Rig) -> (String, String) {
    let (client, server) = (rig.namespace("c"), rig.namespace("s"));
    ip(&format!(
        "-n {client} link add eth0 type veth peer name eth0 netns {server}"
    ));
    for (name, n) in [(&client, 1), (&server, 2)] {
        ip(&format!("-n {name} address add 10.99.0.{n}/24 dev eth0"));
        ip(&format!("-n {name} address add fd99::{n}/64 dev eth0 nodad"));
        ip(&format!("-n {name} link set eth0 up"));
    }
    for backend in [
        "10.200.1.1/32",
        "10.200.1.2/32",
        "10.200.2.1/32",
        "fd20::1:1/128",
        "fd20::2:1/128",
    ] {
        ip(&format!("-n {server} address add {backend} dev lo"));
    }
    ip(&format!("-n {client} route add 10.200.0.0/16 via 10.99.0.2"));
    ip(&format!("-n {client} route add fd20::/64 via fd99::2"));
    // The virtual addresses lead nowhere: only a translated connect can work.
    ip(&format!("-n {client} route add blackhole 10.96.0.0/16"));
    ip(&format!("-n {client} route add blackhole fd96::/64"));
    (client, server)
}

/// Every backend answers with its own address, over TCP and over UDP.
fn serve(server: &str) {
    let sockets = within(server, || {
        BACKENDS.map(|address| {
            (
                TcpListener::bind(address).expect(address),
                UdpSocket::bind(address).expect(address),
            )
        })
    });
    for ((tcp, udp), name) in sockets.into_iter().zip(BACKENDS) {
        spawn_within(server, move || {
            for stream in tcp.incoming() {
                let _ = stream.and_then(|mut stream| stream.write_all(name.as_bytes()));
            }
        });
        spawn_within(server, move || {
            let mut buffer = [0; 64];
            while let Ok((_, from)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(name.as_bytes(), from);
            }
        });
    }
}

/// Connects and returns who answered, and who the socket says it talks to.
fn ask(target: &str) -> io::Result<(String, SocketAddr)> {
    let target: SocketAddr = target.parse().expect("address");
    let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(5))?;
    let peer = stream.peer_addr()?;
    let mut answer = String::new();
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.read_to_string(&mut answer)?;
    Ok((answer, peer))
}

/// Who answers over 40 connections; each must show the virtual address as its peer.
fn answers(client: &str, target: &'static str) -> BTreeSet<String> {
    within(client, move || {
        (0..40)
            .map(|_| {
                let (answer, peer) = ask(target).expect(target);
                assert_eq!(peer, target.parse().unwrap());
                answer
            })
            .collect()
    })
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn desired() -> Desired {
    let (local, none) = (ServiceAffinity::Local, ServiceAffinity::None);
    let v6: [(u16, &[&str]); 2] = [(1, &["[fd20::1:1]:8080"]), (2, &["[fd20::2:1]:8080"])];
    let mut desired = Desired::default();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let v4 = row(local, &[(1, &EAST4), (2, &WEST4)]);
        desired
            .services
            .insert(frontend(V4, protocol, Scope::Internal), v4);
        desired
            .services
            .insert(frontend(V6, protocol, Scope::Internal), row(none, &v6));
    }
    desired
}

fn counted(datapath: &Datapath, reason: Reason) -> u64 {
    datapath.metrics().expect("metrics")[reason as usize].packets
}

#[test]
fn sockets_reach_backends_by_affinity_and_see_the_virtual_address() {
    let Some(mut rig) = Rig::new("socket") else { return };
    let (client, server) = topology(&mut rig);
    serve(&server);
    rig.enter_cgroup();
    let mut datapath = Datapath::open(rig.config()).expect("open");
    let report = datapath.sync(&desired()).expect("sync");
    assert_eq!(
        (report.refused, report.written),
        (vec![], 5 + 10 + 4),
        "5 backends, 2 × 5 slots, 4 services"
    );

    affinity_and_failover(&mut datapath, &client);
    no_backend(&datapath, &client);
    udp(&datapath, &client);
    families(&client);
    restart(datapath, &rig, &client);
}

fn affinity_and_failover(datapath: &mut Datapath, client: &str) {
    let written = datapath.counters().ops_written;
    assert_eq!(answers(client, V4), set(&EAST4), "affinity local");
    datapath.set_cluster_alive(1, false);
    assert_eq!(answers(client, V4), set(&WEST4), "east is cut off: one bit");
    datapath.set_cluster_alive(1, true);
    assert_eq!(answers(client, V4), set(&EAST4), "east is back");
    assert_eq!(datapath.counters().ops_written, written, "bits are no map writes");

    let http = frontend(V4, Protocol::Tcp, Scope::Internal);
    assert_eq!(datapath.set_backend_count(&http, 1, 0).expect("count").written, 1);
    assert_eq!(
        answers(client, V4),
        set(&WEST4),
        "all local backends gone: one count"
    );
    assert!(
        datapath.set_backend_count(&http, 1, 3).is_err(),
        "there are only two"
    );
    assert_eq!(datapath.set_backend_count(&http, 1, 2).expect("count").written, 1);
    assert_eq!(answers(client, V4), set(&EAST4));

    let one = row(ServiceAffinity::Local, &[(1, &EAST4[1..]), (2, &WEST4)]);
    datapath.set_service(&http, Some(&one)).expect("set");
    assert_eq!(answers(client, V4), set(&EAST4[1..]), "one local backend left");
    datapath
        .set_service(&http, desired().services.get(&http))
        .expect("set");
    assert_eq!(answers(client, V4), set(&EAST4));
}

fn no_backend(datapath: &Datapath, client: &str) {
    datapath.set_cluster_alive(1, false);
    datapath.set_cluster_alive(2, false);
    let before = counted(datapath, Reason::SocketNoBackend);
    let (error, took) = within(client, || {
        let started = Instant::now();
        (ask(V4).expect_err("no backend"), started.elapsed())
    });
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(took < Duration::from_secs(1), "at once, not {took:?}");
    assert_eq!(counted(datapath, Reason::SocketNoBackend), before + 1);
    datapath.set_cluster_alive(1, true);
    datapath.set_cluster_alive(2, true);
}

fn udp(datapath: &Datapath, client: &str) {
    for (target, bind) in [(V4, "0.0.0.0:0"), (V6, "[::]:0")] {
        within(client, move || {
            let vip: SocketAddr = target.parse().unwrap();
            let mut buffer = [0; 64];
            let loose = UdpSocket::bind(bind).unwrap();
            loose.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut seen = BTreeSet::new();
            for _ in 0..5 {
                loose.send_to(b"?", vip).unwrap();
                let (length, from) = loose.recv_from(&mut buffer).expect("answer");
                assert_eq!(from, vip, "recvfrom shows the virtual address");
                seen.insert(buffer[..length].to_vec());
            }
            assert_eq!(seen.len(), 1, "datagrams of a socket stay together");

            let tied = UdpSocket::bind(bind).unwrap();
            tied.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            tied.connect(vip).unwrap();
            assert_eq!(tied.peer_addr().unwrap(), vip);
            tied.send(b"?").unwrap();
            assert_eq!(tied.recv_from(&mut buffer).expect("answer").1, vip);
        });
    }
    assert!(counted(datapath, Reason::SocketTranslated) > 0);
}

fn families(client: &str) {
    assert_eq!(
        answers(client, V6),
        set(&["[fd20::1:1]:8080", "[fd20::2:1]:8080"]),
        "affinity none"
    );
    // An IPv6 socket that asks for an IPv4 service.
    assert_eq!(answers(client, "[::ffff:10.96.0.1]:80"), set(&EAST4));
    // Not a service: untouched.
    let direct = within(client, || ask("10.200.2.1:8080").expect("direct"));
    assert_eq!(
        direct,
        ("10.200.2.1:8080".to_owned(), "10.200.2.1:8080".parse().unwrap())
    );
}

/// Gone without a word, and back: nothing changes for anybody, and nothing is written.
fn restart(datapath: Datapath, rig: &Rig, client: &str) {
    let config = rig.config();
    datapath.set_cluster_alive(2, false);
    drop(datapath);
    assert_eq!(answers(client, V4), set(&EAST4), "nobody is there, and it works");
    let inspection = Datapath::inspect(&config.pin_dir)
        .expect("inspect")
        .expect("pins");
    assert_eq!((inspection.cluster_id, inspection.dead_clusters), (1, vec![2]));
    assert_eq!(inspection.services.len(), 4);
    assert_eq!(inspection.attached.len(), 8);

    kill_an_agent(&config, client);

    let mut datapath = Datapath::open(config.clone()).expect("open again");
    assert!(datapath.is_adopted() && datapath.attached().iter().all(|hook| hook.adopted));
    let report = datapath.sync(&desired()).expect("sync");
    assert_eq!((report.written, datapath.counters().ops_written), (0, 0));
    assert!(!datapath.alive().is_alive(2), "what the prober had found stays");
    for (hook, programs) in programs_at(&config).expect("query") {
        assert_eq!(programs, 1, "{hook} is attached once");
    }
}

const AGENT: &str = "ISTHMUS_TEST_AGENT";

/// Another process opens the same data path and dies by SIGKILL while connections are being made.
fn kill_an_agent(config: &Config, client: &str) {
    let mut agent = Command::new(std::env::current_exe().unwrap())
        .args(["agent_process", "--exact", "--nocapture"])
        .env(
            AGENT,
            format!(
                "{} {}",
                config.pin_dir.display(),
                config.cgroup.as_ref().unwrap().display()
            ),
        )
        .stdout(Stdio::piped())
        .spawn()
        .expect("agent");
    let mut ready = [0; 1024];
    let mut seen = String::new();
    while !seen.contains("AGENT READY") {
        let length = agent.stdout.as_mut().unwrap().read(&mut ready).expect("agent");
        assert!(length > 0, "the agent ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(&ready[..length]));
    }
    let load = spawn_within(client, || (0..200).filter(|_| ask(V4).is_err()).count());
    agent.kill().expect("kill");
    agent.wait().expect("wait");
    assert_eq!(load.join().expect("load"), 0, "no connect failed");
}

/// The process that `kill_an_agent` kills; no test of its own.
#[test]
fn agent_process() {
    let Ok(arguments) = std::env::var(AGENT) else {
        return;
    };
    let (pin_dir, cgroup) = arguments.split_once(' ').expect("arguments");
    let mut config = config_of(pin_dir, cgroup);
    config.mount_bpffs = false;
    let mut datapath = Datapath::open(config).expect("open");
    assert_eq!(datapath.sync(&desired()).expect("sync").written, 0);
    println!("AGENT READY");
    // Until the test kills it.
    loop {
        std::thread::park();
    }
}

fn config_of(pin_dir: &str, cgroup: &str) -> Config {
    Config {
        pin_dir: pin_dir.into(),
        mount_bpffs: false,
        cgroup: Some(cgroup.into()),
        uplinks: Vec::new(),
        overlay: None,
        cluster_id: 1,
        without_backend: isthmus_datapath::WithoutBackend::Refuse,
        capacity: isthmus_datapath::Capacity::SMALL,
    }
}
