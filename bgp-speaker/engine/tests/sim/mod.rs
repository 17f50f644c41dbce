//! A network of speakers in virtual time. Nothing sleeps, nothing is random: a run is a function of what the test does.
//!
//! Connections are ordered byte pipes with a delay. A partition holds bytes back (TCP would send them again) and swallows new
//! connection attempts. A node that crashes loses its connections without a word unless the test says that FINs are sent.
#![allow(dead_code, reason = "each test file uses its part of the simulator")]
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use isthmus_bgp_engine::{
    ConnId, Input, OriginatedRoute, OriginatedRoutes, Output, PeerConfig, PeerId, PeerView, Recipients,
    Restarting, Speaker, SpeakerConfig, State,
};
use isthmus_bgp_packet::{AttributesBuilder, Family, Origin};

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A node is known by its number; its address is 192.0.2.(n + 1).
pub(crate) type NodeId = usize;

pub(crate) fn address(node: NodeId) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, u8::try_from(node + 1).unwrap()).into()
}

pub(crate) fn peer_id(node: NodeId) -> PeerId {
    PeerId(u32::try_from(node + 1).unwrap())
}

pub(crate) struct Node {
    pub(crate) speaker: Option<Speaker>,
    pub(crate) config: SpeakerConfig,
    pub(crate) peers: BTreeMap<PeerId, PeerConfig>,
    pub(crate) routes: OriginatedRoutes,
    /// Everything but Send, with its time.
    pub(crate) log: Vec<(Duration, Output)>,
    conns: BTreeMap<ConnId, usize>,
    /// Does not tell the engine that bytes were written.
    pub(crate) stalled: bool,
}

#[derive(Debug, Clone, Copy)]
struct Pipe {
    ends: [(NodeId, ConnId); 2],
    accepted: bool,
    open: bool,
    delay: Duration,
    last: [Duration; 2],
}

#[derive(Debug, Clone)]
enum Wire {
    Syn { pipe: usize },
    Answer { pipe: usize, up: bool },
    Data { pipe: usize, to: usize, bytes: Vec<u8> },
    Fin { pipe: usize, to: usize },
}

pub(crate) struct Sim {
    pub(crate) now: Duration,
    pub(crate) nodes: Vec<Node>,
    pipes: Vec<Pipe>,
    wires: BTreeMap<(Duration, u64), Wire>,
    held: Vec<Wire>,
    cuts: BTreeSet<(NodeId, NodeId)>,
    sequence: u64,
    pub(crate) delay: Duration,
    /// Delays of the next connections, in the order in which they are asked for.
    pub(crate) next_delays: Vec<Duration>,
    /// Deliver at most this many bytes at once.
    pub(crate) segment: usize,
    /// All bytes that a node received, for tests that look at messages.
    pub(crate) tap: Vec<(NodeId, Vec<u8>)>,
}

impl Sim {
    pub(crate) fn new() -> Self {
        Self {
            now: Duration::ZERO,
            nodes: Vec::new(),
            pipes: Vec::new(),
            wires: BTreeMap::new(),
            held: Vec::new(),
            cuts: BTreeSet::new(),
            sequence: 0,
            delay: MS,
            next_delays: Vec::new(),
            segment: usize::MAX,
            tap: Vec::new(),
        }
    }

    /// Adds a node with an AS number; its router id is 10.0.0.(n + 1).
    pub(crate) fn node(&mut self, asn: u32) -> NodeId {
        let id = self.nodes.len();
        let router_id = Ipv4Addr::new(10, 0, 0, u8::try_from(id + 1).unwrap());
        let config = SpeakerConfig {
            asn,
            router_id,
            restarting: None,
        };
        let speaker = Some(Speaker::new(self.now, config.clone()).unwrap());
        self.nodes.push(Node {
            speaker,
            config,
            peers: BTreeMap::new(),
            routes: BTreeMap::new(),
            log: Vec::new(),
            conns: BTreeMap::new(),
            stalled: false,
        });
        id
    }

    /// Makes two nodes peers of each other; `edit` changes both configurations.
    pub(crate) fn join(&mut self, a: NodeId, b: NodeId, mut edit: impl FnMut(NodeId, &mut PeerConfig)) {
        for (node, other) in [(a, b), (b, a)] {
            let asn = self.nodes[other].config.asn;
            let mut config = PeerConfig::new(address(other), asn);
            edit(node, &mut config);
            self.nodes[node].peers.insert(peer_id(other), config);
        }
        for node in [a, b] {
            self.apply_peers(node);
        }
    }

    pub(crate) fn apply_peers(&mut self, node: NodeId) {
        let (now, peers) = (self.now, self.nodes[node].peers.clone());
        self.speaker(node).set_peers(now, peers).unwrap();
        self.outputs(node);
    }

    pub(crate) fn speaker(&mut self, node: NodeId) -> &mut Speaker {
        self.nodes[node].speaker.as_mut().expect("the node is up")
    }

    pub(crate) fn view(&self, node: NodeId, other: NodeId) -> PeerView {
        self.nodes[node]
            .speaker
            .as_ref()
            .unwrap()
            .peer(peer_id(other))
            .unwrap()
    }

    pub(crate) fn is_up(&self, a: NodeId, b: NodeId) -> bool {
        let up = |a: NodeId, b: NodeId| {
            self.nodes[a].speaker.is_some() && self.view(a, b).state == State::Established
        };
        up(a, b) && up(b, a)
    }

    /// Sets the routes of a node, all with the same plain attributes.
    pub(crate) fn originate(&mut self, node: NodeId, prefixes: &[&str]) {
        let attributes = AttributesBuilder::originated(Origin::Igp).build();
        let route = |prefix: &&str| {
            let route = OriginatedRoute {
                attributes: attributes.clone(),
                peers: Recipients::All,
            };
            (prefix.parse::<IpNet>().unwrap(), route)
        };
        self.set_routes(node, prefixes.iter().map(route).collect());
    }

    pub(crate) fn set_routes(&mut self, node: NodeId, routes: OriginatedRoutes) {
        self.nodes[node].routes = routes.clone();
        let now = self.now;
        self.speaker(node).set_routes(now, routes);
        self.outputs(node);
    }

    /// The best routes of a node: `prefix via next-hop [path]`, a star for stale ones.
    pub(crate) fn table(&self, node: NodeId) -> Vec<String> {
        let speaker = self.nodes[node].speaker.as_ref().unwrap();
        let mut list = Vec::new();
        for family in Family::ALL {
            for route in speaker.routes(family, true) {
                let hop = route.next_hop.map_or("local".into(), |hop| hop.to_string());
                let path = route.attributes.view().as_path().to_string();
                let star = if route.stale { "*" } else { "" };
                list.push(format!("{}{star} via {hop} [{path}]", route.prefix));
            }
        }
        list
    }

    /// Runs until a condition holds; fails after `limit` of virtual time.
    pub(crate) fn run_until(
        &mut self,
        limit: Duration,
        what: &str,
        mut condition: impl FnMut(&Self) -> bool,
    ) {
        let end = self.now + limit;
        while !condition(self) {
            let next = self.next().filter(|next| *next <= end);
            let Some(next) = next else {
                panic!("not within {limit:?}: {what}\n{}", self.describe())
            };
            self.step_to(next);
        }
    }

    /// Runs for a time.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.next().filter(|next| *next <= end) {
            self.step_to(next);
        }
        self.now = end;
    }

    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        for (id, node) in self.nodes.iter().enumerate() {
            text.push_str(&format!("node {id}\n"));
            for peer in node.speaker.iter().flat_map(Speaker::peers) {
                text.push_str(&format!(
                    "  {} {} {:?}\n",
                    peer.address, peer.state, peer.last_error
                ));
            }
            for (at, output) in node.log.iter().rev().take(12).rev() {
                text.push_str(&format!("    {at:?} {output:?}\n"));
            }
        }
        text
    }

    fn next(&self) -> Option<Duration> {
        let timers = self
            .nodes
            .iter()
            .filter_map(|node| node.speaker.as_ref()?.poll_timeout());
        let wire = self.wires.keys().next().map(|(at, _)| *at);
        timers.chain(wire).min().map(|at| at.max(self.now))
    }

    fn step_to(&mut self, at: Duration) {
        self.now = at;
        if let Some(entry) = self.wires.first_entry()
            && entry.key().0 <= at
        {
            let wire = entry.remove();
            return self.deliver(wire);
        }
        for node in 0..self.nodes.len() {
            let Some(speaker) = self.nodes[node].speaker.as_mut() else {
                continue;
            };
            if speaker.poll_timeout().is_some_and(|due| due <= at) {
                speaker.handle_timeout(at);
                assert!(
                    speaker.poll_timeout().is_none_or(|due| due > at),
                    "a timer that is due for ever"
                );
                self.outputs(node);
            }
        }
    }

    fn is_cut(&self, pipe: usize) -> bool {
        let [(a, _), (b, _)] = self.pipes[pipe].ends;
        self.cuts.contains(&(a.min(b), a.max(b)))
    }

    fn deliver(&mut self, wire: Wire) {
        let pipe = match wire {
            Wire::Syn { pipe }
            | Wire::Answer { pipe, .. }
            | Wire::Data { pipe, .. }
            | Wire::Fin { pipe, .. } => pipe,
        };
        if self.is_cut(pipe) {
            if !matches!(wire, Wire::Syn { .. }) {
                self.held.push(wire);
            }
            return;
        }
        let now = self.now;
        match wire {
            Wire::Syn { pipe } => self.syn(pipe),
            Wire::Answer { pipe, up } => {
                let (node, conn) = self.pipes[pipe].ends[0];
                let Node {
                    speaker: Some(speaker),
                    conns,
                    ..
                } = &mut self.nodes[node]
                else {
                    return;
                };
                if !conns.contains_key(&conn) {
                    return;
                }
                let local = SocketAddr::new(address(node), 40_000);
                if up {
                    speaker.handle_input(now, Input::Connected { conn, local });
                } else {
                    conns.remove(&conn);
                    speaker.handle_input(
                        now,
                        Input::ConnectFailed {
                            conn,
                            error: "connection refused",
                        },
                    );
                }
                self.outputs(node);
            }
            Wire::Data { pipe, to, bytes } => {
                let (node, conn) = self.pipes[pipe].ends[to];
                if self.nodes[node].conns.get(&conn) != Some(&pipe) {
                    return self.reset(pipe, 1 - to);
                }
                self.tap.push((node, bytes.clone()));
                for chunk in bytes.chunks(self.segment) {
                    let Some(speaker) = self.nodes[node].speaker.as_mut() else {
                        return;
                    };
                    speaker.handle_input(now, Input::Received { conn, bytes: chunk });
                    self.outputs(node);
                }
            }
            Wire::Fin { pipe, to } => {
                let (node, conn) = self.pipes[pipe].ends[to];
                if self.nodes[node].conns.get(&conn) == Some(&pipe) {
                    self.nodes[node].conns.remove(&conn);
                    let Some(speaker) = self.nodes[node].speaker.as_mut() else {
                        return;
                    };
                    speaker.handle_input(
                        now,
                        Input::Closed {
                            conn,
                            error: "closed by peer",
                        },
                    );
                    self.outputs(node);
                }
            }
        }
    }

    fn syn(&mut self, pipe: usize) {
        let [(from, _), (to, _)] = self.pipes[pipe].ends;
        let (now, local) = (self.now, SocketAddr::new(address(to), 179));
        let remote = SocketAddr::new(address(from), 40_000);
        let accepted = match self.nodes[to].speaker.as_mut() {
            Some(speaker) => speaker.accept(now, local, remote).ok(),
            None => None,
        };
        if let Some(conn) = accepted {
            self.pipes[pipe].ends[1].1 = conn;
            self.pipes[pipe].accepted = true;
            self.nodes[to].conns.insert(conn, pipe);
        }
        // The kernel answers before the daemon accepts, so a refusal is a connection that closes at once.
        self.send_wire(
            pipe,
            0,
            Wire::Answer {
                pipe,
                up: self.nodes[to].speaker.is_some(),
            },
        );
        if accepted.is_none() && self.nodes[to].speaker.is_some() {
            self.send_wire(pipe, 0, Wire::Fin { pipe, to: 0 });
        }
        if accepted.is_some() {
            self.outputs(to);
        }
    }

    /// Data for a connection that its node does not know (any more): the sender hears of it.
    fn reset(&mut self, pipe: usize, to: usize) {
        if self.pipes[pipe].open {
            self.pipes[pipe].open = false;
            self.send_wire(pipe, to, Wire::Fin { pipe, to });
        }
    }

    fn send_wire(&mut self, pipe: usize, to: usize, wire: Wire) {
        let at = (self.now + self.pipes[pipe].delay).max(self.pipes[pipe].last[to]);
        self.pipes[pipe].last[to] = at;
        self.sequence += 1;
        self.wires.insert((at, self.sequence), wire);
    }

    /// Carries out what a node wants.
    pub(crate) fn outputs(&mut self, node: NodeId) {
        while let Some(output) = self.nodes[node].speaker.as_mut().and_then(Speaker::poll_output) {
            if !matches!(output, Output::Send { .. }) {
                self.nodes[node].log.push((self.now, output.clone()));
            }
            match output {
                Output::Connect { conn, remote, .. } => self.connect(node, conn, remote.ip()),
                Output::Send { conn, bytes } => {
                    let Some(pipe) = self.nodes[node].conns.get(&conn).copied() else {
                        continue;
                    };
                    let to = self.other_end(pipe, node, conn);
                    self.send_wire(
                        pipe,
                        to,
                        Wire::Data {
                            pipe,
                            to,
                            bytes: bytes.to_vec(),
                        },
                    );
                    let (now, stalled) = (self.now, self.nodes[node].stalled);
                    if !stalled {
                        self.speaker(node).handle_input(
                            now,
                            Input::Written {
                                conn,
                                bytes: bytes.len(),
                            },
                        );
                    }
                }
                Output::Close { conn } => {
                    let Some(pipe) = self.nodes[node].conns.remove(&conn) else {
                        continue;
                    };
                    let to = self.other_end(pipe, node, conn);
                    self.send_wire(pipe, to, Wire::Fin { pipe, to });
                }
                Output::SessionUp { .. } | Output::SessionDown { .. } | Output::Notice { .. } => {}
            }
        }
    }

    fn other_end(&self, pipe: usize, node: NodeId, conn: ConnId) -> usize {
        usize::from(self.pipes[pipe].ends[0] == (node, conn))
    }

    fn connect(&mut self, node: NodeId, conn: ConnId, remote: IpAddr) {
        let to = (0..self.nodes.len())
            .find(|id| address(*id) == remote)
            .expect("a node with the address");
        let delay = if self.next_delays.is_empty() {
            self.delay
        } else {
            self.next_delays.remove(0)
        };
        let ends = [(node, conn), (to, ConnId(0))];
        self.pipes.push(Pipe {
            ends,
            accepted: false,
            open: true,
            delay,
            last: [Duration::ZERO; 2],
        });
        let pipe = self.pipes.len() - 1;
        self.nodes[node].conns.insert(conn, pipe);
        self.send_wire(pipe, 1, Wire::Syn { pipe });
    }

    /// Nothing passes between two nodes.
    pub(crate) fn cut(&mut self, a: NodeId, b: NodeId) {
        self.cuts.insert((a.min(b), a.max(b)));
    }

    /// What was held back passes now.
    pub(crate) fn heal(&mut self, a: NodeId, b: NodeId) {
        self.cuts.remove(&(a.min(b), a.max(b)));
        for wire in std::mem::take(&mut self.held) {
            self.sequence += 1;
            self.wires.insert((self.now, self.sequence), wire);
        }
    }

    /// The node stops. With `fins` its kernel closes its connections, without them it is silent (power cut).
    pub(crate) fn crash(&mut self, node: NodeId, fins: bool) {
        self.nodes[node].speaker = None;
        for (conn, pipe) in std::mem::take(&mut self.nodes[node].conns) {
            if fins {
                let to = self.other_end(pipe, node, conn);
                self.send_wire(pipe, to, Wire::Fin { pipe, to });
            }
        }
    }

    /// The node starts again, with its routes and peers as they were configured.
    pub(crate) fn start(&mut self, node: NodeId, restarting: Option<Restarting>) {
        self.nodes[node].config.restarting = restarting;
        let mut speaker = Speaker::new(self.now, self.nodes[node].config.clone()).unwrap();
        speaker.set_routes(self.now, self.nodes[node].routes.clone());
        speaker
            .set_peers(self.now, self.nodes[node].peers.clone())
            .unwrap();
        self.nodes[node].speaker = Some(speaker);
        self.outputs(node);
    }

    /// Puts bytes into the established connection from `from` to `to`, as if the speaker had sent them.
    pub(crate) fn inject(&mut self, from: NodeId, to: NodeId, bytes: &[u8]) {
        let found = self.nodes[to].conns.iter().find(|(_, pipe)| {
            let ends = self.pipes[**pipe].ends;
            ends.iter().any(|(node, _)| *node == from)
        });
        let (conn, _) = found.expect("a connection between the nodes");
        let (conn, now) = (*conn, self.now);
        self.speaker(to)
            .handle_input(now, Input::Received { conn, bytes });
        self.outputs(to);
    }

    /// How often a session of the node was lost.
    pub(crate) fn flaps(&self, node: NodeId) -> usize {
        let lost = |(_, output): &&(Duration, Output)| {
            matches!(
                output,
                Output::SessionDown {
                    was_established: true,
                    ..
                }
            )
        };
        self.nodes[node].log.iter().filter(lost).count()
    }
}

impl Sim {
    /// Sets the routes with which a node that is down will start.
    pub(crate) fn originate_later(&mut self, node: NodeId, prefixes: &[&str]) {
        let attributes = AttributesBuilder::originated(Origin::Igp).build();
        let route = OriginatedRoute {
            attributes,
            peers: Recipients::All,
        };
        self.nodes[node].routes = prefixes
            .iter()
            .map(|prefix| (prefix.parse().unwrap(), route.clone()))
            .collect();
    }
}
