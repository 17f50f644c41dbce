//! A model of a remote cluster's store, and of the network to it.
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use isthmus_kvstore::{Tree, canary_key};
use isthmus_topology::{ClusterId, ClusterName, MaxClusters};

use super::*;
use crate::Timing;
use crate::feed::family;

pub(super) const CONFIG: &str =
    r#"{"id":1,"capabilities":{"syncedCanaries":true,"maxConnectedClusters":255}}"#;
pub(super) const TABLES: [Resource; 4] = [
    Resource::Nodes,
    Resource::Identities,
    Resource::Ips,
    Resource::Services,
];

pub(super) fn settings() -> Settings {
    Settings {
        cluster: ClusterName::new("west").expect("name"),
        local: ClusterName::new("east").expect("name"),
        local_id: ClusterId::new(9, MaxClusters::C255).expect("id"),
        max: MaxClusters::C255,
        cache_ttl: None,
        timing: Timing::default(),
        seed: 1,
    }
}

/// A store: its history of (key, value, revision), which etcd it says it is, and from where on it can be read.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) id: u64,
    pub(super) history: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub(super) compacted: i64,
}

impl Server {
    /// With heartbeat, configuration and canaries, and no entries.
    pub(super) fn new(id: u64) -> Self {
        let mut server = Self {
            id,
            history: Vec::new(),
            compacted: 0,
        };
        server.put("cilium/.heartbeat", "now");
        server.put("cilium/cluster-config/west", CONFIG);
        for table in TABLES {
            let canary = canary_key(&settings().cluster, Tree::State, family(table));
            server.put(&canary, "now");
        }
        server
    }

    pub(super) fn put(&mut self, key: &str, value: &str) {
        self.history.push((key.into(), Some(value.into())));
    }

    pub(super) fn delete(&mut self, key: &str) {
        if self.at(i64::MAX).contains_key(key.as_bytes()) {
            self.history.push((key.into(), None));
        }
    }

    pub(super) fn revision(&self) -> i64 {
        i64::try_from(self.history.len()).expect("small") + 1
    }

    pub(super) fn header(&self) -> Option<Header> {
        Some(Header {
            cluster_id: self.id,
            revision: self.revision(),
        })
    }

    pub(super) fn at(&self, revision: i64) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut map = BTreeMap::new();
        for (at, (key, value)) in (2..).zip(&self.history) {
            if at <= revision {
                match value {
                    Some(value) => map.insert(key.clone(), value.clone()),
                    None => map.remove(key),
                };
            }
        }
        map
    }

    /// The entries of a table, by suffix.
    pub(super) fn table(&self, resource: Resource) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let prefix = Feed::Table(resource).prefix(&settings().cluster, Tree::State);
        let strip = |(k, v): (Vec<u8>, Vec<u8>)| Some((k.strip_prefix(prefix.as_bytes())?.to_vec(), v));
        self.at(i64::MAX).into_iter().filter_map(strip).collect()
    }
}

#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) key: Vec<u8>,
    pub(super) range_end: Vec<u8>,
    pub(super) next: i64,
    pub(super) created: bool,
}

/// The machine, what it asked of the server, and the tables that it filled.
#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) machine: Machine,
    pub(super) server: Server,
    /// The network is there.
    pub(super) up: bool,
    /// The machine wants a connection.
    pub(super) dialing: bool,
    pub(super) lists: Vec<(Feed, Vec<u8>, Vec<u8>, i64)>,
    pub(super) config_reads: usize,
    pub(super) watches: Vec<Running>,
    pub(super) tables: BTreeMap<Resource, BTreeMap<Vec<u8>, Vec<u8>>>,
    pub(super) holder: Option<ClusterName>,
    pub(super) reserved: Vec<ClusterId>,
}

impl World {
    pub(super) fn new(server: Server) -> Self {
        let now = Instant::now();
        let mut world = Self {
            now,
            machine: Machine::new(settings(), now),
            server,
            up: true,
            dialing: false,
            lists: Vec::new(),
            config_reads: 0,
            watches: Vec::new(),
            tables: BTreeMap::new(),
            holder: None,
            reserved: Vec::new(),
        };
        world.machine.handle_timeout(now);
        world.work();
        world
    }

    pub(super) fn work(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            self.perform(output);
        }
    }

    pub(super) fn perform(&mut self, output: Output) {
        match output {
            Output::Connect => self.dialing = true,
            Output::Disconnect => {
                self.dialing = false;
                self.lists.clear();
                self.config_reads = 0;
                self.watches.clear();
            }
            Output::List {
                feed,
                key,
                range_end,
                revision,
            } => {
                self.lists.push((feed, key, range_end, revision));
            }
            Output::ReadConfig => self.config_reads += 1,
            Output::Watch {
                key,
                range_end,
                revision,
                ..
            } => {
                assert!(
                    self.watches.iter().all(|w| w.created),
                    "creations wait for each other"
                );
                self.watches.push(Running {
                    key,
                    range_end,
                    next: revision,
                    created: false,
                });
            }
            Output::Reserve(id) => {
                self.reserved.push(id);
                let answer = self.holder.clone().map_or(Ok(()), Err);
                self.machine.handle_input(self.now, Input::Reserved(answer));
            }
            Output::Adopt(_) => {}
            Output::Put {
                resource,
                suffix,
                value,
            } => {
                self.tables
                    .entry(resource)
                    .or_default()
                    .insert(suffix.into(), value);
            }
            Output::Delete { resource, suffix } => {
                let gone = self.tables.entry(resource).or_default().remove(&*suffix);
                assert!(gone.is_some(), "deletes are of entries that are there");
            }
            Output::Clear(resource) => drop(self.tables.remove(&resource)),
        }
    }

    pub(super) fn input(&mut self, input: Input) {
        self.machine.handle_input(self.now, input);
        self.work();
    }

    pub(super) fn table(&self, resource: Resource) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.tables.get(&resource).cloned().unwrap_or_default()
    }

    /// The server does one thing that it was asked for; `pick` chooses which. False if there is nothing to do.
    pub(super) fn serve(&mut self, pick: usize) -> bool {
        if self.dialing && self.up {
            self.dialing = false;
            self.input(Input::Connected("https://west".into()));
        } else if self.dialing {
            self.dialing = false;
            self.input(Input::ConnectFailed("refused".into()));
            return false;
        } else if !self.up {
            return false;
        } else if self.config_reads > 0 {
            self.config_reads -= 1;
            let value = self
                .server
                .at(i64::MAX)
                .remove(&b"cilium/cluster-config/west"[..]);
            self.input(Input::Config(Ok((self.server.header(), value))));
        } else if !self.lists.is_empty() {
            let list = self.lists.remove(pick % self.lists.len());
            self.serve_list(list);
        } else {
            return self.serve_watch(pick);
        }
        true
    }

    pub(super) fn serve_list(&mut self, (feed, key, range_end, revision): (Feed, Vec<u8>, Vec<u8>, i64)) {
        if revision != 0 && revision < self.server.compacted {
            return self.input(Input::Listed(feed, Err(Failure::Compacted)));
        }
        let all = self.server.at(if revision == 0 { i64::MAX } else { revision });
        let mut entries: Vec<_> = all
            .range(key..range_end)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let more = entries.len() > 2;
        entries.truncate(2);
        let header = self.server.header();
        self.input(Input::Listed(
            feed,
            Ok(Page {
                header,
                entries,
                more,
            }),
        ));
    }

    pub(super) fn serve_watch(&mut self, pick: usize) -> bool {
        let count = self.watches.len();
        for index in (0..count).map(|n| (n + pick) % count) {
            let watch = self.watches[index].clone();
            let mut reply = WatchReply {
                header: self.server.header(),
                id: i64::try_from(index).expect("small"),
                created: false,
                canceled: false,
                compact_revision: 0,
                cancel_reason: String::new(),
                events: Vec::new(),
            };
            let events = (2..).zip(&self.server.history).filter(|(at, (key, _))| {
                *at >= watch.next
                    && (watch.key.as_slice()..watch.range_end.as_slice()).contains(&key.as_slice())
            });
            let events: Vec<_> = events
                .take(2)
                .map(|(at, (k, v))| (k.clone(), v.clone(), at))
                .collect();
            if !watch.created {
                reply.created = true;
                self.watches[index].created = true;
            } else if watch.next < self.server.compacted && watch.next > 0 {
                // Ended watches keep their place, so that the numbers of the others stay.
                self.watches[index].next = i64::MIN;
                (reply.canceled, reply.compact_revision) = (true, self.server.compacted);
            } else if watch.next > 0 && !events.is_empty() {
                self.watches[index].next = events.last().map_or(watch.next, |(_, _, at)| at + 1);
                reply.events = events;
            } else {
                continue;
            }
            self.input(Input::Watched(reply));
            return true;
        }
        false
    }

    /// Time passes, with every timeout at its moment.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.machine.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.machine.handle_timeout(self.now);
            self.work();
            if self.dialing && !self.up {
                self.serve(0);
            }
        }
        self.now = end;
    }

    /// Serves and waits until the cluster is ready and nothing is left to do.
    pub(super) fn quiet(&mut self) {
        self.up = true;
        for _ in 0..200 {
            while self.serve(0) {}
            if self.machine.is_ready() {
                return;
            }
            let next = self.machine.poll_timeout().expect("something is waited for");
            self.pass(next.saturating_duration_since(self.now));
        }
        panic!("never ready: {}", self.machine.describe(self.now));
    }
}
