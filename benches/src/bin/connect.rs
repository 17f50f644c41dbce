//! What a connect through a global service costs: direct, through the socket load balancer, through nftables' flat DNAT map,
//! with 1 and with 50,000 services.
//!
//! ```text
//!  client ── router ── server     one line for direct and socket load balancing, one for each nftables table;
//!  .1.1      .1.2/.2.1     .2.2   the table sits in the router, where a node has it for its pods
//! ```
//! All run interleaved, round after round; each service has a backend address of its own (with one shared backend the DNAT
//! paths would pay for source port clashes and look worse than they are). Timed is `connect(2)` alone; p50 of each run,
//! then median and spread over the rounds; "over direct" is the median of the differences within a round. "direct" connects
//! to the backends' addresses themselves, as many of them.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use isthmus_datapath::{Backend, Capacity, Config, Datapath, Desired, Frontend, ServiceRow, WithoutBackend};
use isthmus_topology::{Protocol, Scope, ServiceAffinity, ServicePort};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, setsockopt, socket, sockopt};
use nix::unistd::Pid;

const VIPS: u32 = 0x0a60_0000;
const BACKENDS: u32 = 0x0a80_0000;
const PORT: u16 = 80;
const BACKEND_PORT: u16 = 8080;
/// Most that socket load balancing may add to a connect, in nanoseconds.
const CLAIM_NS: i64 = 1500;

#[derive(Debug, Parser)]
#[command(about = "Cost of a connect: direct, socket load balancing, nftables")]
struct Args {
    /// Services in the large tables.
    #[arg(long, default_value_t = 50_000)]
    services: u32,
    /// Interleaved rounds.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Milliseconds for each path in each round.
    #[arg(long, default_value_t = 700)]
    millis: u64,
    /// (internal) Be the client: first address, port and number of addresses.
    #[arg(long, hide = true, num_args = 3)]
    client: Option<Vec<u32>>,
    /// (internal) Namespace of the client.
    #[arg(long, hide = true, default_value = "")]
    namespace: String,
    /// (internal) cgroup of the client.
    #[arg(long, hide = true)]
    cgroup: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    match &args.client {
        Some(client) => be_client(&args, client),
        None => {
            ensure!(
                nix::unistd::geteuid().is_root(),
                "network namespaces and eBPF need root: run as root"
            );
            Bench::new(&args)?.run(&args)
        }
    }
}

/// Connects for a while and prints how often and the median time of `connect(2)` in nanoseconds.
fn be_client(args: &Args, client: &[u32]) -> Result<()> {
    let [first, port, count] = *client else {
        bail!("--client takes three numbers")
    };
    if let Some(cgroup) = &args.cgroup {
        fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).context("enter the cgroup")?;
    }
    enter(&args.namespace)?;
    pin_to(0)?;
    let targets: Vec<SockaddrIn> = (0..count)
        .map(|i| SocketAddrV4::new(Ipv4Addr::from(first + i), u16::try_from(port).unwrap_or(PORT)).into())
        .collect();
    let mut samples: Vec<u32> = Vec::with_capacity(1 << 20);
    let until = Instant::now() + Duration::from_millis(args.millis);
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    while Instant::now() < until {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let target = &targets[(random >> 16) as usize % targets.len()];
        samples.push(one_connect(target)?);
    }
    ensure!(!samples.is_empty(), "no connect in {} ms", args.millis);
    samples.sort_unstable();
    println!("{} {}", samples.len(), samples[samples.len() / 2]);
    Ok(())
}

fn one_connect(target: &SockaddrIn) -> Result<u32> {
    use std::os::fd::AsRawFd as _;
    let fd = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // Close by reset: no TIME_WAIT, so ports do not run out.
    setsockopt(&fd, sockopt::Linger, &libc_linger())?;
    let started = Instant::now();
    connect(fd.as_raw_fd(), target).with_context(|| format!("connect to {target}"))?;
    Ok(started.elapsed().as_nanos().min(u128::from(u32::MAX)) as u32)
}

fn libc_linger() -> nix::libc::linger {
    nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    }
}

fn pin_to(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("pin to a CPU")
}

fn enter(namespace: &str) -> Result<()> {
    let file = fs::File::open(Path::new("/run/netns").join(namespace)).context("open the namespace")?;
    setns(file, CloneFlags::CLONE_NEWNET).context("enter the namespace")
}

/// One way to a backend.
struct Way {
    name: &'static str,
    services: u32,
    line: String,
    first: u32,
    port: u16,
    cgroup: Option<PathBuf>,
}

/// Namespaces, cgroups and pins, removed at the end.
struct Bench {
    name: String,
    namespaces: Vec<String>,
    cgroups: Vec<PathBuf>,
    pins: Vec<PathBuf>,
    ways: Vec<Way>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        for name in &self.namespaces {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
        for dir in &self.pins {
            let _ = Datapath::remove(dir);
            let _ = fs::remove_dir(dir);
        }
        for dir in &self.cgroups {
            let _ = fs::remove_dir(dir);
        }
    }
}

impl Bench {
    fn new(args: &Args) -> Result<Self> {
        let mut bench = Self {
            name: format!("isthmus-bench-{}", std::process::id()),
            namespaces: Vec::new(),
            cgroups: Vec::new(),
            pins: Vec::new(),
            ways: Vec::new(),
        };
        let plain = bench.line("p")?;
        for services in [1, args.services] {
            let table = bench.line(&format!("n{services}"))?;
            let loaded = load_nft(&table, services)?;
            println!("nftables, {services} services: loaded in {loaded:.0?}");
            let cgroup = bench.load_balancer(services)?;
            let way = |name, line: &str, first, port, cgroup| Way {
                name,
                services,
                line: line.into(),
                first,
                port,
                cgroup,
            };
            bench
                .ways
                .push(way("direct", &plain, BACKENDS, BACKEND_PORT, None));
            bench
                .ways
                .push(way("socket LB", &plain, VIPS, PORT, Some(cgroup.clone())));
            bench.ways.push(way(
                "direct, LB attached",
                &plain,
                BACKENDS,
                BACKEND_PORT,
                Some(cgroup),
            ));
            bench
                .ways
                .push(way("nftables dnat map", &table, VIPS, PORT, None));
        }
        Ok(bench)
    }

    /// client — router — server, with a listener for every backend address.
    fn line(&mut self, short: &str) -> Result<String> {
        let [c, r, s] = ["c", "r", "s"].map(|end| format!("{}-{short}-{end}", self.name));
        for name in [&c, &r, &s] {
            ip(&format!("netns add {name}"))?;
            self.namespaces.push(name.clone());
            ip(&format!("-n {name} link set lo up"))?;
        }
        for (left, right, net) in [(&c, &r, "1"), (&r, &s, "2")] {
            ip(&format!(
                "-n {left} link add right type veth peer name left netns {right}"
            ))?;
            ip(&format!("-n {left} address add 10.99.{net}.1/24 dev right"))?;
            ip(&format!("-n {right} address add 10.99.{net}.2/24 dev left"))?;
            ip(&format!("-n {left} link set right up"))?;
            ip(&format!("-n {right} link set left up"))?;
        }
        ip(&format!("-n {c} route add default via 10.99.1.2"))?;
        ip(&format!("-n {r} route add 10.128.0.0/16 via 10.99.2.2"))?;
        ip(&format!("-n {s} route add default via 10.99.2.1"))?;
        ip(&format!("-n {s} route add local 10.128.0.0/16 dev lo"))?;
        within(&r, || Ok(fs::write("/proc/sys/net/ipv4/ip_forward", "1")?))?;
        let listener = within(&s, || Ok(TcpListener::bind(("0.0.0.0", BACKEND_PORT))?))?;
        std::thread::spawn(move || {
            let _ = pin_to(1);
            for stream in listener.incoming() {
                drop(stream);
            }
        });
        Ok(c)
    }

    /// A cgroup whose sockets are balanced over this many services.
    fn load_balancer(&mut self, services: u32) -> Result<PathBuf> {
        let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .map(Path::new)
            .into_iter()
            .find(|root| root.join("cgroup.controllers").is_file())
            .context("no cgroup2 is mounted at /sys/fs/cgroup or /sys/fs/cgroup/unified")?;
        let name = format!("{}-{services}", self.name);
        let (cgroup, pin_dir) = (root.join(&name), std::env::temp_dir().join(&name));
        fs::create_dir(&cgroup)?;
        self.cgroups.push(cgroup.clone());
        self.pins.push(pin_dir.clone());
        let config = Config {
            pin_dir,
            mount_bpffs: true,
            cgroup: Some(cgroup.clone()),
            uplinks: Vec::new(),
            overlay: None,
            cluster_id: 1,
            without_backend: WithoutBackend::Refuse,
            capacity: Capacity::default(),
        };
        let mut datapath = Datapath::open(config)?;
        // First with three backends each, as the figure for loading asks, then with one, as nftables' map has it.
        let report = datapath.sync(&desired(services, 3))?;
        let (plan, write) = (report.planned_in, report.written_in);
        println!(
            "socket LB, {services} services × 3 backends: loaded in {:.0?} (plan {plan:.0?}, write {write:.0?})",
            plan + write
        );
        datapath.sync(&desired(services, 1))?;
        Ok(cgroup)
    }

    fn run(&self, args: &Args) -> Result<()> {
        let mut results = vec![Vec::new(); self.ways.len()];
        for _ in 0..args.rounds {
            for (way, results) in self.ways.iter().zip(&mut results) {
                results.push(run_client(way, args.millis)?);
            }
        }
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        println!(
            "\n{} rounds, {} ms each, load average {}",
            args.rounds,
            args.millis,
            load.trim()
        );
        println!(
            "{:<22}{:>9}{:>9}{:>18}{:>13}{:>8}",
            "path", "services", "p50 ns", "spread ns", "over direct", "ratio"
        );
        let mut direct = &results[0];
        for (way, p50) in self.ways.iter().zip(&results) {
            if way.name == "direct" {
                direct = p50;
            }
            // Pairs of the same round: what disturbs one mostly disturbs both.
            let over = median(p50.iter().zip(direct).map(|(way, direct)| way - direct));
            let (middle, base) = (median(p50.iter().copied()), median(direct.iter().copied()));
            let spread = p50
                .iter()
                .fold((i64::MAX, 0), |(low, high), ns| (low.min(*ns), high.max(*ns)));
            let (spread, ratio) = (format!("{}..{}", spread.0, spread.1), middle as f64 / base as f64);
            let verdict = match way.name {
                "socket LB" if over <= CLAIM_NS => "within the claim",
                "socket LB" => "ABOVE the claim",
                _ => "",
            };
            println!(
                "{:<22}{:>9}{middle:>9}{spread:>18}{over:>+13}{ratio:>8.3}  {verdict}",
                way.name, way.services
            );
        }
        println!(
            "claim: a connect through a global service costs at most {CLAIM_NS} ns more than a direct one"
        );
        Ok(())
    }
}

fn median(values: impl Iterator<Item = i64>) -> i64 {
    let mut values: Vec<i64> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Runs one client process and returns its median in nanoseconds.
fn run_client(way: &Way, millis: u64) -> Result<i64> {
    let mut command = Command::new("nice");
    command.args(["-n", "-15"]).arg(std::env::current_exe()?);
    command.args([
        "--millis",
        &millis.to_string(),
        "--namespace",
        &way.line,
        "--client",
    ]);
    command.args([
        way.first.to_string(),
        way.port.to_string(),
        way.services.to_string(),
    ]);
    if let Some(cgroup) = &way.cgroup {
        command.arg("--cgroup").arg(cgroup);
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(
        output.status.success(),
        "the client for {} with {} services failed",
        way.name,
        way.services
    );
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace()
        .nth(1)
        .context("the client said nothing")?
        .parse()
        .context("the client's figure")
}

fn desired(services: u32, backends: u32) -> Desired {
    let backend = |service: u32, n: u32| Backend {
        // The first is the one that is measured; the others are only there to be loaded.
        ip: IpAddr::V4(Ipv4Addr::from(BACKENDS + service + (n << 16))),
        port: BACKEND_PORT,
    };
    let service = |i: u32| {
        let port = ServicePort {
            protocol: Protocol::Tcp,
            port: PORT,
        };
        let frontend = Frontend {
            ip: IpAddr::V4(Ipv4Addr::from(VIPS + i)),
            port,
            scope: Scope::Internal,
        };
        let set: BTreeSet<Backend> = (0..backends).map(|n| backend(i, n)).collect();
        (
            frontend,
            ServiceRow {
                affinity: ServiceAffinity::Local,
                groups: BTreeMap::from([(1, set)]),
            },
        )
    };
    Desired {
        services: (0..services).map(service).collect(),
        ..Desired::default()
    }
}

/// Loads a flat DNAT map into the router of a line; returns how long that took.
fn load_nft(client: &str, services: u32) -> Result<Duration> {
    let mut rules = String::from(
        "table ip bench { map services { type ipv4_addr . inet_service : ipv4_addr . inet_service; elements = {\n",
    );
    for i in 0..services {
        let (vip, backend) = (Ipv4Addr::from(VIPS + i), Ipv4Addr::from(BACKENDS + i));
        writeln!(rules, "{vip} . {PORT} : {backend} . {BACKEND_PORT},")?;
    }
    rules.push_str("} }\nchain pre { type nat hook prerouting priority -100;\ndnat ip to ip daddr . tcp dport map @services;\n}\n}\n");
    let router = format!("{}r", client.strip_suffix('c').unwrap_or(client));
    within(&router, move || {
        let started = Instant::now();
        let mut nft = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .context("nft")?;
        nft.stdin.take().context("nft")?.write_all(rules.as_bytes())?;
        ensure!(nft.wait()?.success(), "nft refused the table");
        Ok(started.elapsed())
    })
}

fn within<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let namespace = namespace.to_owned();
    let thread = std::thread::spawn(move || {
        enter(&namespace)?;
        work()
    });
    thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?
}

fn ip(args: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(args.split_whitespace())
        .output()
        .context("ip (Debian package iproute2)")?;
    ensure!(
        output.status.success(),
        "ip {args}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
