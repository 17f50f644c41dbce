//! The machine that decides which clusters and nodes the data path reaches. No clock, no sockets: `now` is an argument.
//!
//! ```text
//!              good                     `failures` misses in a row
//!  Unknown ──────────▶ Alive ───────────────────────────────────────▶ Dead
//!     │                  ▲            (all probed nodes of a cluster)   │
//!     │                  └──────── `recoveries` good ones in a row ◀────┤
//!     └──────────── `failures` misses in a row ────────────────────────▶┘
//! ```
//! Each round sends one echo to each probed node, with an identifier that no earlier round used, so that a flow which is
//! stuck somewhere on the path cannot look like life. Every `full_every`-th round sends a second echo that fills the MTU: its
//! fate is reported, and decides nothing.
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use isthmus_topology::{ClusterId, NodeName};

/// Nodes of one cluster that are probed at most.
const PROBED_NODES: usize = 8;
/// Probes of one node that are remembered at most, for late answers.
const REMEMBERED: usize = 32;
/// Answers whose shortest time tells how long the path is.
const RECENT: usize = 8;

/// How to probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProbeConfig {
    /// Time between two rounds.
    pub(crate) interval: Duration,
    /// Misses in a row until a node counts as dead.
    pub(crate) failures: u32,
    /// Good rounds in a row until a dead node counts as alive again.
    pub(crate) recoveries: u32,
    /// Every how many rounds a probe fills the MTU.
    pub(crate) full_every: u64,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(100),
            failures: 3,
            recoveries: 3,
            full_every: 10,
        }
    }
}

impl ProbeConfig {
    /// How long an answer may take: most of a round, or more where the path is known to be long. The shortest of the last
    /// answers counts, so that packets which waited out a cut somewhere and then arrive in a bunch do not make it look long.
    fn patience(&self, shortest: Option<Duration>) -> Duration {
        let short = self.interval * 3 / 4;
        shortest.map_or(short, |rtt| (rtt * 4).clamp(short, self.interval * 10))
    }
}

/// What the probes say of a node or a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Verdict {
    /// Nothing yet.
    #[default]
    Unknown,
    /// It answers.
    Alive,
    /// It does not answer.
    Dead,
}

/// Which echo it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// A few bytes.
    Small,
    /// As much as the MTU allows.
    Full,
}

/// An echo request to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Probe {
    /// To whom.
    pub(crate) to: IpAddr,
    /// ICMP identifier.
    pub(crate) ident: u16,
    /// ICMP sequence number.
    pub(crate) seq: u16,
    /// How large.
    pub(crate) size: Size,
}

/// What the machine wants done or known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    /// Send this.
    Send(Probe),
    /// A cluster's verdict changed.
    Cluster(ClusterId, Verdict),
    /// A node's verdict changed.
    Node(ClusterId, NodeName, Verdict),
}

/// The nodes that could be probed, by cluster: their overlay addresses.
pub(crate) type Targets = BTreeMap<ClusterId, BTreeMap<NodeName, IpAddr>>;

/// How one node is doing, for status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeReport {
    /// Its overlay address.
    pub(crate) ip: IpAddr,
    /// What the probes say.
    pub(crate) verdict: Verdict,
    /// Smoothed round-trip time.
    pub(crate) rtt: Option<Duration>,
    /// Whether packets that fill the MTU arrive; none if not known.
    pub(crate) full_mtu: Option<bool>,
    /// Probes sent.
    pub(crate) sent: u64,
    /// Answers that came in time.
    pub(crate) answered: u64,
}

#[derive(Debug)]
struct Sent {
    ident: u16,
    seq: u16,
    size: Size,
    at: Instant,
    deadline: Instant,
    /// Counted as a miss already; an answer may still come.
    missed: bool,
}

#[derive(Debug)]
struct NodeProbe {
    report: NodeReport,
    outstanding: VecDeque<Sent>,
    recent: VecDeque<Duration>,
    misses: u32,
    /// Answered in time, in a row.
    good: u32,
    full_misses: u32,
}

#[derive(Debug)]
struct ClusterProbe {
    verdict: Verdict,
    next_round: Instant,
    /// When something of it is due: its place in [`Prober::wakes`].
    wake: Instant,
    nodes: BTreeMap<NodeName, NodeProbe>,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Prober {
    config: ProbeConfig,
    salt: u16,
    rounds: u64,
    clusters: BTreeMap<ClusterId, ClusterProbe>,
    /// Who is due when: 500 clusters cost no more for a packet than one.
    wakes: BTreeSet<(Instant, ClusterId)>,
    by_ip: BTreeMap<IpAddr, (ClusterId, NodeName)>,
    outputs: VecDeque<Output>,
}

impl Prober {
    /// A machine without targets. `salt` differs from start to start, so that identifiers do too.
    pub(crate) fn new(config: ProbeConfig, salt: u16) -> Self {
        Self {
            config,
            salt,
            rounds: 0,
            clusters: BTreeMap::new(),
            wakes: BTreeSet::new(),
            by_ip: BTreeMap::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Replaces the targets; nodes that stay keep what is known of them.
    pub(crate) fn set_targets(&mut self, now: Instant, targets: &Targets) {
        self.clusters
            .retain(|id, _| targets.get(id).is_some_and(|nodes| !nodes.is_empty()));
        (self.wakes, self.by_ip) = (BTreeSet::new(), BTreeMap::new());
        for (id, nodes) in targets.iter().filter(|(_, nodes)| !nodes.is_empty()) {
            let chosen = spread(nodes);
            // Clusters take turns within a round, so that 500 of them are no burst.
            let first = now + self.config.interval * u32::from(id.value() % 16) / 64;
            let cluster = self.clusters.entry(*id).or_insert_with(|| ClusterProbe {
                verdict: Verdict::Unknown,
                next_round: first,
                wake: first,
                nodes: BTreeMap::new(),
            });
            cluster
                .nodes
                .retain(|name, node| chosen.get(name) == Some(&node.report.ip));
            for (name, ip) in chosen {
                self.by_ip.insert(ip, (*id, name.clone()));
                cluster.nodes.entry(name).or_insert_with(|| NodeProbe::new(ip));
            }
            judge(*id, cluster, &mut self.outputs);
            cluster.wake = cluster.next_wake();
            self.wakes.insert((cluster.wake, *id));
        }
    }

    /// When [`Self::handle_timeout`] wants to be called next; ask again after every call of anything else.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// Counts what was not answered in time, and begins the rounds that are due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, id)) = self.wakes.first().copied().filter(|(at, _)| *at <= now) {
            self.wakes.remove(&(at, id));
            if let Some(cluster) = self.clusters.get_mut(&id) {
                self.rounds += u64::from(cluster.next_round <= now);
                cluster.handle_timeout(now, id, (self.rounds, self.salt), &self.config, &mut self.outputs);
                cluster.wake = cluster.next_wake();
                self.wakes.insert((cluster.wake, id));
            }
        }
    }

    /// An echo reply came.
    pub(crate) fn handle_reply(&mut self, now: Instant, from: IpAddr, ident: u16, seq: u16) {
        let Some((id, name)) = self.by_ip.get(&from) else {
            return;
        };
        let Some(cluster) = self.clusters.get_mut(id) else {
            return;
        };
        let Some(node) = cluster.nodes.get_mut(name) else {
            return;
        };
        if node.answer(now, ident, seq, &self.config) {
            self.outputs
                .push_back(Output::Node(*id, name.clone(), node.report.verdict));
            judge(*id, cluster, &mut self.outputs);
        }
        self.wakes.remove(&(cluster.wake, *id));
        cluster.wake = cluster.next_wake();
        self.wakes.insert((cluster.wake, *id));
    }

    /// The next thing to do; call until it is empty after every call of anything else.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What is known of the probed nodes.
    pub(crate) fn report(&self) -> BTreeMap<ClusterId, (Verdict, BTreeMap<NodeName, NodeReport>)> {
        let nodes = |cluster: &ClusterProbe| {
            cluster
                .nodes
                .iter()
                .map(|(name, node)| (name.clone(), node.report.clone()))
                .collect()
        };
        self.clusters
            .iter()
            .map(|(id, c)| (*id, (c.verdict, nodes(c))))
            .collect()
    }
}

impl ClusterProbe {
    fn next_wake(&self) -> Instant {
        let open = |node: &NodeProbe| {
            node.outstanding
                .iter()
                .filter(|s| !s.missed)
                .map(|s| s.deadline)
                .min()
        };
        self.nodes
            .values()
            .filter_map(open)
            .chain([self.next_round])
            .min()
            .unwrap_or(self.next_round)
    }

    fn handle_timeout(
        &mut self,
        now: Instant,
        id: ClusterId,
        (round, salt): (u64, u16),
        config: &ProbeConfig,
        outputs: &mut VecDeque<Output>,
    ) {
        for (name, node) in &mut self.nodes {
            if node.expire(now, config) {
                outputs.push_back(Output::Node(id, name.clone(), node.report.verdict));
            }
        }
        judge(id, self, outputs);
        if self.next_round <= now {
            for node in self.nodes.values_mut() {
                node.send(now, round, salt, config, outputs);
            }
            // After a pause (a stopped process, a suspended machine) rounds are not made up for.
            self.next_round = (self.next_round + config.interval).max(now + config.interval / 2);
        }
    }
}

impl NodeProbe {
    fn new(ip: IpAddr) -> Self {
        Self {
            report: NodeReport {
                ip,
                verdict: Verdict::Unknown,
                rtt: None,
                full_mtu: None,
                sent: 0,
                answered: 0,
            },
            outstanding: VecDeque::new(),
            recent: VecDeque::new(),
            misses: 0,
            good: 0,
            full_misses: 0,
        }
    }

    fn send(
        &mut self,
        now: Instant,
        round: u64,
        salt: u16,
        config: &ProbeConfig,
        outputs: &mut VecDeque<Output>,
    ) {
        let sizes = if round.is_multiple_of(config.full_every) {
            &[Size::Small, Size::Full][..]
        } else {
            &[Size::Small]
        };
        for size in sizes {
            self.report.sent += 1;
            let number = round * 2 + u64::from(*size == Size::Full);
            // The low 16 bits of the number make the identifier, the next ones the sequence: together they repeat after
            // four billion probes.
            let ident = (number as u16).wrapping_add(salt);
            let seq = (number >> 16) as u16;
            self.outstanding.push_back(Sent {
                ident,
                seq,
                size: *size,
                at: now,
                deadline: now + config.patience(self.recent.iter().min().copied()),
                missed: false,
            });
            let to = self.report.ip;
            outputs.push_back(Output::Send(Probe {
                to,
                ident,
                seq,
                size: *size,
            }));
        }
        while self.outstanding.len() > REMEMBERED {
            self.outstanding.pop_front();
        }
    }

    /// True if the verdict changed.
    fn expire(&mut self, now: Instant, config: &ProbeConfig) -> bool {
        let mut lost = 0;
        for sent in self
            .outstanding
            .iter_mut()
            .filter(|s| !s.missed && s.deadline <= now)
        {
            sent.missed = true;
            match sent.size {
                Size::Small => lost += 1,
                Size::Full => self.full_misses += 1,
            }
        }
        if self.full_misses >= config.failures {
            self.report.full_mtu = Some(false);
        }
        if lost == 0 {
            return false;
        }
        self.good = 0;
        self.misses = self.misses.saturating_add(lost);
        self.misses >= config.failures && self.set(Verdict::Dead)
    }

    /// True if the verdict changed.
    fn answer(&mut self, now: Instant, ident: u16, seq: u16, config: &ProbeConfig) -> bool {
        let found = self
            .outstanding
            .iter()
            .position(|s| s.ident == ident && s.seq == seq);
        let Some(sent) = found.and_then(|index| self.outstanding.remove(index)) else {
            return false;
        };
        let rtt = now.saturating_duration_since(sent.at);
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(rtt);
        if !sent.missed {
            self.report.answered += 1;
            self.report.rtt = Some(self.report.rtt.map_or(rtt, |old| (old * 7 + rtt) / 8));
        }
        if sent.size == Size::Full {
            self.full_misses = 0;
            self.report.full_mtu = Some(true);
            return false;
        }
        // A late answer is a sign of life, and no more: only answers in time bring a dead node back.
        self.misses = 0;
        if !sent.missed {
            self.good = self.good.saturating_add(1);
        }
        match self.report.verdict {
            Verdict::Alive => false,
            Verdict::Unknown => self.set(Verdict::Alive),
            Verdict::Dead => self.good >= config.recoveries && self.set(Verdict::Alive),
        }
    }

    fn set(&mut self, verdict: Verdict) -> bool {
        std::mem::replace(&mut self.report.verdict, verdict) != verdict
    }
}

/// A cluster is alive if one of its nodes is, and dead if all are.
fn judge(id: ClusterId, cluster: &mut ClusterProbe, outputs: &mut VecDeque<Output>) {
    let has = |verdict| cluster.nodes.values().any(|n| n.report.verdict == verdict);
    let verdict = match (has(Verdict::Alive), has(Verdict::Unknown)) {
        (true, _) => Verdict::Alive,
        (false, false) => Verdict::Dead,
        // New nodes do not change what is known of the cluster until they have been probed.
        (false, true) => cluster.verdict,
    };
    if verdict != cluster.verdict {
        cluster.verdict = verdict;
        outputs.push_back(Output::Cluster(id, verdict));
    }
}

/// At most [`PROBED_NODES`] nodes, evenly spread over all.
fn spread(nodes: &BTreeMap<NodeName, IpAddr>) -> BTreeMap<NodeName, IpAddr> {
    let step = nodes.len().div_ceil(PROBED_NODES).max(1);
    nodes
        .iter()
        .step_by(step)
        .map(|(name, ip)| (name.clone(), *ip))
        .collect()
}
