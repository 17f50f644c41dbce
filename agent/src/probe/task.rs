//! The shell around the machine: two raw sockets, a clock, one thread.
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use isthmus_datapath::AliveBits;
use isthmus_topology::{ClusterId, NodeName};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};

use super::echo;
use super::machine::{NodeReport, Output, Probe, ProbeConfig, Prober, Size, Targets, Verdict};

/// What the probes know, for status.
pub(crate) type Report = BTreeMap<ClusterId, (Verdict, BTreeMap<NodeName, NodeReport>)>;

/// A verdict changed; the report has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbeEvent {
    /// Of a cluster; its bit is set already.
    Cluster,
    /// Of a node.
    Node,
}

/// What to probe.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ProbePlan {
    /// The nodes, by cluster.
    pub(crate) targets: Targets,
    /// Size of the largest IP packet that the overlay carries.
    pub(crate) full_size: usize,
}

/// A running prober; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct ProbeTask {
    plans: watch::Sender<ProbePlan>,
    prober: Arc<Mutex<Prober>>,
}

impl ProbeTask {
    /// Starts to probe; verdicts go to `alive` at once and to `events`.
    pub(crate) fn start(
        config: ProbeConfig,
        alive: AliveBits,
        events: mpsc::UnboundedSender<ProbeEvent>,
    ) -> io::Result<Self> {
        let sockets = Sockets {
            v4: raw_socket(false),
            v6: raw_socket(true),
        };
        let (plans, plan) = watch::channel(ProbePlan::default());
        let prober = Arc::new(Mutex::new(Prober::new(config, salt())));
        let shell = Shell {
            prober: Arc::clone(&prober),
            plan,
            alive,
            events,
            full_size: 0,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name("isthmus-probe".to_owned())
            .spawn(move || runtime.block_on(shell.run(sockets)))?;
        Ok(Self { plans, prober })
    }

    /// Changes what is probed.
    pub(crate) fn set_plan(&self, plan: ProbePlan) {
        self.plans.send_if_modified(|now| {
            let changed = *now != plan;
            *now = plan;
            changed
        });
    }

    /// What is known now.
    pub(crate) fn report(&self) -> Report {
        lock(&self.prober).report()
    }
}

/// One socket for each family that the kernel has.
struct Sockets {
    v4: io::Result<std::net::UdpSocket>,
    v6: io::Result<std::net::UdpSocket>,
}

struct Shell {
    prober: Arc<Mutex<Prober>>,
    plan: watch::Receiver<ProbePlan>,
    alive: AliveBits,
    events: mpsc::UnboundedSender<ProbeEvent>,
    full_size: usize,
}

impl Shell {
    async fn run(mut self, sockets: Sockets) {
        let v4 = register(sockets.v4, "IPv4");
        let v6 = register(sockets.v6, "IPv6");
        loop {
            let wake = lock(&self.prober).poll_timeout();
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = self.plan.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let plan = self.plan.borrow_and_update().clone();
                    self.full_size = plan.full_size;
                    lock(&self.prober).set_targets(Instant::now(), &plan.targets);
                }
                () = readable(v4.as_ref()) => {}
                () = readable(v6.as_ref()) => {}
                () = sleep => {}
            }
            // Answers first: a late wake-up of ours must not look like a miss.
            self.drain(v4.as_ref(), false);
            self.drain(v6.as_ref(), true);
            lock(&self.prober).handle_timeout(Instant::now());
            self.output(v4.as_ref(), v6.as_ref());
        }
    }

    fn drain(&mut self, socket: Option<&UdpSocket>, v6: bool) {
        let mut buffer = [0; 2048];
        while let Some(Ok((length, from))) = socket.map(|socket| socket.try_recv_from(&mut buffer)) {
            if let Some((ident, seq)) = echo::reply(v6, &buffer[..length]) {
                lock(&self.prober).handle_reply(Instant::now(), from.ip(), ident, seq);
            }
        }
    }

    fn output(&mut self, v4: Option<&UdpSocket>, v6: Option<&UdpSocket>) {
        let mut events = Vec::new();
        let mut prober = lock(&self.prober);
        while let Some(output) = prober.poll_output() {
            match output {
                Output::Send(probe) => send(if probe.to.is_ipv6() { v6 } else { v4 }, probe, self.full_size),
                Output::Cluster(id, verdict) => {
                    // The one write of a failover.
                    self.alive.set(id.value(), verdict == Verdict::Alive);
                    tracing::info!(cluster = %id, ?verdict, "data path to a cluster");
                    events.push(ProbeEvent::Cluster);
                }
                Output::Node(id, node, verdict) => {
                    tracing::info!(cluster = %id, %node, ?verdict, "data path to a node");
                    events.push(ProbeEvent::Node);
                }
            }
        }
        drop(prober);
        for event in events {
            // Nobody listens only while the agent ends.
            let _ = self.events.send(event);
        }
    }
}

/// A poisoned lock is a panic elsewhere: the machine's state is whole after every call.
fn lock(prober: &Mutex<Prober>) -> MutexGuard<'_, Prober> {
    prober.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn readable(socket: Option<&UdpSocket>) {
    match socket {
        // An error shows again when the socket is read.
        Some(socket) => drop(socket.readable().await),
        None => std::future::pending().await,
    }
}

/// A probe that cannot be sent is a probe without an answer: the machine counts it.
fn send(socket: Option<&UdpSocket>, probe: Probe, full_size: usize) {
    let packet = (probe.size == Size::Full).then_some(full_size);
    let bytes = echo::request(probe.to.is_ipv6(), probe.ident, probe.seq, packet);
    let sent = socket.map(|socket| socket.try_send_to(&bytes, SocketAddr::new(probe.to, 0)));
    if let Some(Err(error)) = sent {
        tracing::debug!(to = %probe.to, %error, "probe not sent");
    }
}

fn raw_socket(v6: bool) -> io::Result<std::net::UdpSocket> {
    let (domain, protocol, any) = if v6 {
        (Domain::IPV6, Protocol::ICMPV6, IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    } else {
        (Domain::IPV4, Protocol::ICMPV4, IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(any, 0).into())?;
    Ok(socket.into())
}

fn register(socket: io::Result<std::net::UdpSocket>, family: &str) -> Option<UdpSocket> {
    match socket.and_then(UdpSocket::from_std) {
        Ok(socket) => Some(socket),
        Err(error) => {
            tracing::warn!(%error, family, "no raw socket: nodes of this family cannot be probed; run as root");
            None
        }
    }
}

/// Differs from start to start: identifiers of an earlier process are not used again at once.
fn salt() -> u16 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |time| time.subsec_micros() as u16)
}
