//! The machine in virtual time: a path that answers after a delay, or not at all.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use isthmus_topology::{ClusterId, MaxClusters, NodeName};
use proptest::prelude::*;

use super::machine::{Output, Probe, ProbeConfig, Prober, Size, Targets, Verdict};

fn west() -> ClusterId {
    ClusterId::new(2, MaxClusters::C255).expect("id")
}

fn name(n: usize) -> NodeName {
    NodeName::new(format!("west-{n}")).expect("name")
}

fn ip(n: usize) -> IpAddr {
    IpAddr::from([10, 2, u8::try_from(n).expect("small"), 1])
}

fn targets(nodes: usize) -> Targets {
    BTreeMap::from([(west(), (1..=nodes).map(|n| (name(n), ip(n))).collect())])
}

/// A simulated world: answers come `delay` after the probe from every address of `answering`.
struct World {
    prober: Prober,
    start: Instant,
    now: Instant,
    delay: Duration,
    answering: Vec<IpAddr>,
    full_mtu: bool,
    flying: Vec<(Instant, Probe)>,
    sent: Vec<Probe>,
    verdicts: Vec<(Duration, Output)>,
}

impl World {
    fn new(nodes: usize) -> Self {
        let start = Instant::now();
        let mut prober = Prober::new(ProbeConfig::default(), 7);
        prober.set_targets(start, &targets(nodes));
        Self {
            prober,
            start,
            now: start,
            delay: Duration::from_micros(300),
            answering: (1..=nodes).map(ip).collect(),
            full_mtu: true,
            flying: Vec::new(),
            sent: Vec::new(),
            verdicts: Vec::new(),
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let arrival = self.flying.iter().map(|(at, _)| *at).min();
            let next = self
                .prober
                .poll_timeout()
                .into_iter()
                .chain(arrival)
                .min()
                .unwrap_or(end);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next.max(self.now);
            let (arrived, flying) = std::mem::take(&mut self.flying)
                .into_iter()
                .partition(|(at, _)| *at <= self.now);
            self.flying = flying;
            for (_, probe) in arrived as Vec<(Instant, Probe)> {
                self.prober
                    .handle_reply(self.now, probe.to, probe.ident, probe.seq);
            }
            self.prober.handle_timeout(self.now);
            self.drain();
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.prober.poll_output() {
            match output {
                Output::Send(probe) => {
                    self.sent.push(probe);
                    if self.answering.contains(&probe.to) && (self.full_mtu || probe.size == Size::Small) {
                        self.flying.push((self.now + self.delay, probe));
                    }
                }
                verdict => self.verdicts.push((self.now - self.start, verdict)),
            }
        }
    }

    fn cluster(&self) -> Verdict {
        self.prober
            .report()
            .get(&west())
            .map_or(Verdict::Unknown, |(verdict, _)| *verdict)
    }
}

#[test]
fn a_cluster_is_alive_after_its_first_answer_and_dead_within_400_ms_of_silence() {
    let mut world = World::new(2);
    assert_eq!(world.cluster(), Verdict::Unknown);
    world.run(Duration::from_millis(10));
    assert_eq!(world.cluster(), Verdict::Alive);
    // The worst moment: right after an answer.
    world.answering.clear();
    let cut = world.now;
    while world.cluster() == Verdict::Alive {
        world.run(Duration::from_millis(1));
    }
    let took = world.now - cut;
    assert!(took <= Duration::from_millis(400), "{took:?}");
    assert!(
        took >= Duration::from_millis(250),
        "three misses in a row, not one: {took:?}"
    );
}

#[test]
fn a_dead_cluster_is_alive_again_after_three_good_rounds_and_not_before() {
    let mut world = World::new(2);
    world.run(Duration::from_millis(50));
    world.answering.clear();
    world.run(Duration::from_secs(1));
    assert_eq!(world.cluster(), Verdict::Dead);
    // One good round, then silence again: it stays dead.
    world.answering = vec![ip(1), ip(2)];
    world.run(Duration::from_millis(110));
    world.answering.clear();
    world.run(Duration::from_millis(500));
    assert_eq!(world.cluster(), Verdict::Dead);
    world.answering = vec![ip(1), ip(2)];
    world.run(Duration::from_millis(310));
    assert_eq!(world.cluster(), Verdict::Alive);
}

/// A switch keeps what it could not deliver and delivers it all when the wire is back.
#[test]
fn answers_that_waited_out_a_cut_neither_revive_nor_delay_the_next_verdict() {
    let mut world = World::new(1);
    world.run(Duration::from_millis(1050));
    world.delay = Duration::from_millis(900);
    let cut = world.now;
    for round in 0..9 {
        world.delay = Duration::from_millis(900 - round * 100);
        world.run(Duration::from_millis(100));
    }
    assert_eq!(world.cluster(), Verdict::Dead, "cut {:?} ago", world.now - cut);
    world.delay = Duration::from_micros(300);
    world.run(Duration::from_millis(60));
    assert_eq!(world.cluster(), Verdict::Dead, "nine late answers at once");
    world.run(Duration::from_millis(300));
    assert_eq!(world.cluster(), Verdict::Alive);
    world.answering.clear();
    world.run(Duration::from_millis(400));
    assert_eq!(world.cluster(), Verdict::Dead);
}

#[test]
fn a_path_that_became_long_is_followed() {
    let mut world = World::new(1);
    world.run(Duration::from_secs(1));
    world.delay = Duration::from_millis(250);
    world.run(Duration::from_secs(3));
    assert_eq!(world.cluster(), Verdict::Alive);
}

#[test]
fn the_death_of_one_node_is_not_the_death_of_its_cluster() {
    let mut world = World::new(2);
    world.run(Duration::from_millis(50));
    world.answering = vec![ip(2)];
    world.run(Duration::from_secs(1));
    assert_eq!(world.cluster(), Verdict::Alive);
    let (_, last) = world.verdicts.last().expect("a verdict");
    assert_eq!(*last, Output::Node(west(), name(1), Verdict::Dead));
}

#[test]
fn two_lost_answers_and_a_long_path_are_no_death() {
    let mut world = World::new(1);
    world.delay = Duration::from_millis(180);
    world.run(Duration::from_secs(2));
    assert_eq!(
        world.cluster(),
        Verdict::Alive,
        "answers take longer than a round"
    );
    let verdicts = world.verdicts.len();
    world.answering.clear();
    world.run(Duration::from_millis(190));
    world.answering = vec![ip(1)];
    world.run(Duration::from_secs(2));
    assert_eq!(world.verdicts.len(), verdicts);
}

#[test]
fn a_path_that_swallows_full_packets_is_reported_but_alive() {
    let mut world = World::new(1);
    world.full_mtu = false;
    world.run(Duration::from_secs(5));
    let (verdict, nodes) = &world.prober.report()[&west()];
    assert_eq!(
        (*verdict, nodes[&name(1)].full_mtu),
        (Verdict::Alive, Some(false))
    );
    world.full_mtu = true;
    world.run(Duration::from_secs(2));
    assert_eq!(world.prober.report()[&west()].1[&name(1)].full_mtu, Some(true));
}

#[test]
fn every_round_is_a_fresh_flow_and_at_most_eight_nodes_are_probed() {
    let mut world = World::new(20);
    world.run(Duration::from_secs(3));
    let probed = &world.prober.report()[&west()].1;
    assert_eq!(probed.len(), 7, "every third of twenty");
    let mut flows: Vec<_> = world.sent.iter().map(|p| (p.to, p.ident)).collect();
    let all = flows.len();
    flows.sort_unstable();
    flows.dedup();
    assert_eq!(flows.len(), all);
}

#[test]
fn targets_that_stay_keep_their_verdict_and_targets_that_go_are_forgotten() {
    let mut world = World::new(2);
    world.run(Duration::from_millis(50));
    world.prober.set_targets(world.now, &targets(3));
    world.drain();
    assert_eq!(world.cluster(), Verdict::Alive);
    world.prober.set_targets(world.now, &Targets::new());
    assert!(world.prober.report().is_empty() && world.prober.poll_timeout().is_none());
}

#[test]
fn rounds_are_not_made_up_for_after_a_pause() {
    let mut world = World::new(1);
    world.run(Duration::from_millis(50));
    let before = world.sent.len();
    world.now += Duration::from_secs(3600);
    world.prober.handle_timeout(world.now);
    world.drain();
    assert_eq!(world.sent.len(), before + 1);
    assert_eq!(world.cluster(), Verdict::Alive, "one miss, whatever the pause");
}

proptest! {
    /// Fewer than three losses in a row never kill, whatever the delays below a round.
    #[test]
    fn bounded_loss_keeps_a_node_alive(pattern in prop::collection::vec(any::<bool>(), 1..60), delay_us in 1u64..60_000) {
        let mut world = World::new(1);
        world.delay = Duration::from_micros(delay_us);
        world.run(Duration::from_millis(95));
        let mut lost = 0;
        for answered in pattern {
            lost = if answered || lost == 2 { 0 } else { lost + 1 };
            world.answering = if lost == 0 { vec![ip(1)] } else { Vec::new() };
            world.run(Duration::from_millis(100));
            prop_assert_eq!(world.cluster(), Verdict::Alive);
        }
    }

    /// Whatever arrives, and whenever: no panic, and only the addresses and identifiers of our own probes count.
    #[test]
    fn foreign_replies_change_nothing(replies in prop::collection::vec((any::<u8>(), any::<u16>(), any::<u16>()), 0..200)) {
        let mut world = World::new(1);
        world.answering.clear();
        world.run(Duration::from_millis(150));
        let ours: Vec<_> = world.sent.iter().map(|p| (p.ident, p.seq)).collect();
        for (n, ident, seq) in replies {
            if !ours.contains(&(ident, seq)) {
                world.prober.handle_reply(world.now, IpAddr::from([10, 2, n, 1]), ident, seq);
            }
        }
        world.drain();
        prop_assert_eq!(world.cluster(), Verdict::Unknown);
    }
}
