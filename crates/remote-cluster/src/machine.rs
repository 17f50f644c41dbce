//! The life of one remote cluster (spec §3.2), without I/O and without a clock.
//!
//! ```text
//!  Away ──▶ Connecting ──▶ Up: heartbeat list ─▶ cluster-config ─▶ id reserved ─▶ tables, each after its canary ─▶ ready
//!   ▲            │                │                   │                │              │
//!   └────────────┴── delay ───────┴───────────────────┴── a reason ────┴──────────────┘   (all entries stay)
//! ```
//! Every reply goes through the lock on the etcd's cluster id: the first one is locked, another one breaks the connection,
//! because its revisions mean nothing here (spec §2.1).
mod admission;
mod describe;
mod following;
mod words;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use isthmus_kvstore::Tree;
use isthmus_topology::ClusterName;

use crate::backoff::Backoff;
use crate::feed::Feed;
use crate::listwatch::{Event, ListWatch, Suffix};
use crate::watchplane::{Addressee, WatchPlane};
use crate::{RemoteConfig, Resource};

pub(crate) use words::{Facts, Failure, Header, Input, Output, Page, Settings, WatchReply};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No connection; the next one is opened then.
    Away {
        until: Instant,
    },
    Connecting,
    Up(Up),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Up {
    /// The last sign of life.
    heartbeat: Instant,
    /// When the connection is given up if there is no cluster-config until then.
    config_deadline: Instant,
    step: Step,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The heartbeat is being listed.
    Heartbeat,
    /// The cluster-config is being read, or will be read again then.
    Config { again: Option<Instant> },
    /// The id is being reserved.
    Reserving(RemoteConfig),
    /// The tables are being followed.
    Following,
}

/// What the cache TTL counts (spec §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cache {
    /// The cluster is ready.
    Live,
    /// It is not, since then.
    Aging { since: Instant },
    /// It has not been for longer than the TTL: its services are dropped until it is ready again.
    Revoked,
}

/// The life of one remote cluster.
#[derive(Debug)]
pub(crate) struct Machine {
    settings: Settings,
    phase: Phase,
    lock: Option<u64>,
    feeds: BTreeMap<Feed, ListWatch>,
    plane: WatchPlane,
    config: Option<RemoteConfig>,
    reconnect: Backoff,
    config_retry: Backoff,
    cache: Cache,
    pub(crate) facts: Facts,
    outputs: VecDeque<Output>,
}

impl Machine {
    /// A cluster that will be connected to at once.
    pub(crate) fn new(settings: Settings, now: Instant) -> Self {
        let timing = &settings.timing;
        let seed = settings.seed;
        let (min, max) = (timing.list_retry_min, timing.list_retry_max);
        let list = |(n, feed)| (feed, ListWatch::new(min, max, seed.wrapping_add(n)));
        Self {
            phase: Phase::Away { until: now },
            lock: None,
            feeds: (1..).zip(Feed::all()).map(list).collect(),
            plane: WatchPlane::new(),
            config: None,
            reconnect: Backoff::new(timing.reconnect_min, timing.reconnect_max, seed),
            config_retry: Backoff::new(timing.list_retry_min, timing.config_retry_max, !seed),
            cache: Cache::Aging { since: now },
            facts: Facts::default(),
            outputs: VecDeque::new(),
            settings,
        }
    }

    /// What to do next.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What it says of itself, once it has been read.
    pub(crate) fn config(&self) -> Option<&RemoteConfig> {
        self.config.as_ref()
    }

    /// True while a connection is up on which the heartbeat has been listed.
    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Up(up) if up.step != Step::Heartbeat)
    }

    /// True while every exported table is complete and followed.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Up(up) if up.step == Step::Following) && {
            let wanted = self.wanted();
            wanted
                .iter()
                .all(|r| self.feeds.get(&Feed::Table(*r)).is_some_and(ListWatch::is_synced))
        }
    }

    fn is_synced_now(&self, resource: Resource) -> bool {
        self.feeds
            .get(&Feed::Table(resource))
            .is_some_and(ListWatch::is_synced)
    }

    /// The tables that the cluster exports.
    pub(crate) fn wanted(&self) -> Vec<Resource> {
        let Some(config) = &self.config else {
            return Vec::new();
        };
        let exported = |resource: &Resource| match resource {
            Resource::Services => config.slices.services(),
            Resource::EndpointSlices => config.slices.slices(),
            Resource::ServiceExports => config.service_exports.is_some(),
            _ => true,
        };
        Resource::ALL.into_iter().filter(exported).collect()
    }

    fn tree(&self) -> Tree {
        if self.config.as_ref().is_some_and(|config| config.cached) {
            Tree::Cache
        } else {
            Tree::State
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Away { until } => Some(until),
            Phase::Connecting => None,
            Phase::Up(up) => {
                let silent = Some(up.heartbeat + self.settings.timing.heartbeat_timeout);
                let step = match up.step {
                    Step::Config { again } => earliest(Some(up.config_deadline), again),
                    _ => None,
                };
                earliest(silent, step)
            }
        };
        let lists = self.feeds.values().filter_map(ListWatch::poll_timeout).min();
        let rest = earliest(lists, self.plane.poll_timeout());
        earliest(earliest(phase, rest), self.expiry())
    }

    fn expiry(&self) -> Option<Instant> {
        match self.cache {
            Cache::Aging { since } => Some(since + self.settings.cache_ttl?),
            Cache::Live | Cache::Revoked => None,
        }
    }

    /// Some time may have come.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.expiry().is_some_and(|at| at <= now) {
            self.revoke_caches();
        }
        match self.phase {
            Phase::Away { until } if until <= now => {
                self.phase = Phase::Connecting;
                self.outputs.push_back(Output::Connect);
            }
            Phase::Up(up) => self.handle_up_timeout(now, up),
            _ => {}
        }
        self.settle(now);
    }

    fn handle_up_timeout(&mut self, now: Instant, up: Up) {
        let timing = &self.settings.timing;
        if up.heartbeat + timing.heartbeat_timeout <= now {
            let seconds = timing.heartbeat_timeout.as_secs_f32();
            return self.fail(now, format!("no heartbeat for {seconds:.1} s"));
        }
        if let Step::Config { again } = up.step {
            if up.config_deadline <= now {
                let key = isthmus_kvstore::cluster_config_key(&self.settings.cluster);
                let seconds = timing.config_deadline.as_secs_f32();
                let reason = format!(
                    "{key} did not appear for {seconds:.0} s: is the remote cluster really called {}?",
                    self.settings.cluster
                );
                return self.fail(now, reason);
            }
            if again.is_some_and(|at| at <= now) {
                self.read_config();
            }
        }
        for lw in self.feeds.values_mut() {
            lw.handle_timeout(now);
        }
        self.plane.handle_timeout(now);
    }

    /// Something happened.
    pub(crate) fn handle_input(&mut self, now: Instant, input: Input) {
        match (input, self.phase) {
            (Input::Connected(endpoint), Phase::Connecting) => self.connected(now, endpoint),
            (Input::ConnectFailed(reason), Phase::Connecting) => self.fail(now, reason),
            (Input::Reconfigured(why), _) => self.reconfigured(now, why),
            (Input::Listed(feed, reply), Phase::Up(_)) => self.listed(now, feed, reply),
            (Input::Config(reply), Phase::Up(up)) if up.step == Step::Config { again: None } => {
                self.config_read(now, reply);
            }
            (Input::Reserved(answer), Phase::Up(up)) => {
                if let Step::Reserving(config) = up.step {
                    self.reserved(now, config, answer);
                }
            }
            (Input::Watched(reply), Phase::Up(_)) => self.watched(now, reply),
            (Input::WatchEnded(None), Phase::Up(_)) => {
                self.plane.ended(now, self.settings.timing.rewatch_delay);
                self.feeds.values_mut().for_each(ListWatch::rewatch);
            }
            (Input::WatchEnded(Some(error)), Phase::Up(_)) => self.fail(now, error),
            // Of a connection that has been dropped.
            _ => {}
        }
        self.settle(now);
    }

    fn connected(&mut self, now: Instant, endpoint: String) {
        self.facts.endpoint = endpoint;
        self.phase = Phase::Up(Up {
            heartbeat: now,
            config_deadline: now + self.settings.timing.config_deadline,
            step: Step::Heartbeat,
        });
        self.start(Feed::Heartbeat);
    }

    fn reconfigured(&mut self, now: Instant, why: &'static str) {
        if self.phase != Phase::Connecting && matches!(self.phase, Phase::Up(_)) {
            self.facts.last_reason = why.to_owned();
        }
        self.drop_connection();
        self.reconnect.reset();
        self.phase = Phase::Away { until: now };
    }

    /// Gives up the connection and tries again later.
    fn fail(&mut self, now: Instant, reason: String) {
        self.facts.failures += 1;
        self.facts.last_reason = reason;
        self.drop_connection();
        let until = now + self.reconnect.next();
        self.phase = Phase::Away { until };
    }

    fn drop_connection(&mut self) {
        self.lock = None;
        self.facts.endpoint.clear();
        self.plane.clear();
        self.feeds.values_mut().for_each(ListWatch::disconnected);
        self.config_retry.reset();
        // What was requested of the old connection is not wanted any more; what it has said is.
        self.outputs.retain(|output| {
            matches!(
                output,
                Output::Put { .. } | Output::Delete { .. } | Output::Clear(_) | Output::Adopt(_)
            )
        });
        self.outputs.push_back(Output::Disconnect);
    }

    /// Checks that a reply comes from the etcd that the connection began with; if not, gives the connection up.
    fn locked(&mut self, now: Instant, header: Option<Header>) -> Option<Header> {
        let Some(header) = header else {
            self.fail(
                now,
                "the server sent a reply without a header: it is not an etcd".to_owned(),
            );
            return None;
        };
        let locked = *self.lock.get_or_insert(header.cluster_id);
        if locked == header.cluster_id {
            return Some(header);
        }
        let reason = format!(
            "another etcd answers on the same connection (cluster id {:x}, before {locked:x}): everything is read anew",
            header.cluster_id
        );
        self.fail(now, reason);
        None
    }

    fn listed(&mut self, now: Instant, feed: Feed, reply: Result<Page, Failure>) {
        let page = match reply {
            Ok(page) => page,
            Err(failure) => return self.list_failed(now, feed, failure),
        };
        let Some(header) = self.locked(now, page.header) else {
            return;
        };
        if feed == Feed::Heartbeat && !page.entries.is_empty() {
            self.alive(now);
        }
        let prefix = self.prefix(feed);
        let entries = page.entries.into_iter();
        let entries = entries
            .filter_map(|(key, value)| Some((suffix(&key, &prefix)?, value)))
            .collect();
        let mut order = Ok(());
        self.feed(feed, |lw| order = lw.page(header.revision, entries, page.more));
        if order.is_err() {
            self.fail(
                now,
                format!("the pages of {prefix} are out of order: the server is no etcd"),
            );
        }
    }

    fn list_failed(&mut self, now: Instant, feed: Feed, failure: Failure) {
        match failure {
            Failure::Compacted => self.feed(feed, ListWatch::compacted),
            Failure::Refused(reason) => {
                self.facts.refused = reason;
                self.feed(feed, |lw| lw.failed(now));
            }
            Failure::Lost(reason) => self.fail(now, reason),
        }
    }

    fn watched(&mut self, now: Instant, reply: WatchReply) {
        if self.locked(now, reply.header).is_none() {
            return;
        }
        match self.plane.reply(reply.id, reply.created, reply.canceled) {
            Addressee::Created | Addressee::Nobody => {}
            Addressee::Running(feed) => self.events(now, feed, reply.events),
            Addressee::Ended(feed) if reply.compact_revision != 0 => {
                self.list_failed(now, feed, Failure::Compacted);
            }
            Addressee::Ended(feed) => {
                let reason = format!("the server ended the watch: {}", reply.cancel_reason);
                self.list_failed(now, feed, Failure::Refused(reason));
            }
        }
    }

    fn events(&mut self, now: Instant, feed: Feed, events: Vec<(Vec<u8>, Option<Vec<u8>>, i64)>) {
        if feed == Feed::Heartbeat && events.iter().any(|(_, value, _)| value.is_some()) {
            self.alive(now);
        }
        let prefix = self.prefix(feed);
        let event = |(key, value, revision): (Vec<u8>, _, _)| {
            let suffix = suffix(&key, &prefix)?;
            Some(Event {
                suffix,
                value,
                revision,
            })
        };
        let events = events.into_iter().filter_map(event).collect();
        let mut unknown = 0;
        self.feed(feed, |lw| unknown = lw.events(events));
        self.facts.unknown_deletes += u64::try_from(unknown).unwrap_or(u64::MAX);
    }

    fn alive(&mut self, now: Instant) {
        if let Phase::Up(up) = &mut self.phase {
            up.heartbeat = now;
        }
    }

    fn set_step(&mut self, step: Step) {
        if let Phase::Up(up) = &mut self.phase {
            up.step = step;
        }
    }

    fn read_config(&mut self) {
        self.set_step(Step::Config { again: None });
        self.outputs.push_back(Output::ReadConfig);
    }

    fn config_read(&mut self, now: Instant, reply: Result<(Option<Header>, Option<Vec<u8>>), Failure>) {
        match reply {
            Ok((header, value)) => {
                if self.locked(now, header).is_none() {
                    return;
                }
                match value.map(|bytes| self.settings.check_config(&bytes)) {
                    None => self.retry_config(now),
                    Some(Err(reason)) => self.fail(now, reason),
                    Some(Ok(config)) => {
                        self.set_step(Step::Reserving(config));
                        self.outputs.push_back(Output::Reserve(config.id));
                    }
                }
            }
            Err(Failure::Lost(reason)) => self.fail(now, reason),
            Err(Failure::Refused(reason)) => {
                self.facts.refused = reason;
                self.retry_config(now);
            }
            Err(Failure::Compacted) => self.retry_config(now),
        }
    }

    fn retry_config(&mut self, now: Instant) {
        let again = Some(now + self.config_retry.next());
        self.set_step(Step::Config { again });
    }

    fn reserved(&mut self, now: Instant, config: RemoteConfig, answer: Result<(), ClusterName>) {
        if let Err(holder) = answer {
            let reason = format!(
                "{} has cluster id {}, which is the id of {holder}: give one of them another id",
                self.settings.cluster, config.id
            );
            return self.fail(now, reason);
        }
        // Another id is another cluster: what is left of the one before must not be mixed with it.
        if self.config.as_ref().is_some_and(|before| before.id != config.id) {
            Resource::ALL
                .into_iter()
                .for_each(|resource| self.clear(resource));
        }
        self.config = Some(config);
        self.outputs.push_back(Output::Adopt(config));
        self.set_step(Step::Following);
        let wanted = self.wanted();
        // Services that are not exported as such are made of slices, and go with them.
        let unwanted = |r: &Resource| !wanted.contains(r) && *r != Resource::Services;
        for resource in Resource::ALL.into_iter().filter(unwanted) {
            self.clear(resource);
        }
        if config.synced_canaries {
            self.start(Feed::Canaries);
        } else {
            wanted.into_iter().for_each(|r| self.start(Feed::Table(r)));
        }
    }

    /// Follows up on whatever has changed.
    fn settle(&mut self, now: Instant) {
        for feed in Feed::all() {
            self.work(feed);
        }
        if matches!(self.phase, Phase::Up(_)) {
            while let Some((feed, revision)) = self.plane.next() {
                let prefix = self.prefix(feed);
                let range_end = Feed::range_end(&prefix);
                self.outputs.push_back(Output::Watch {
                    feed,
                    key: prefix.into_bytes(),
                    range_end,
                    revision,
                });
            }
        }
        if self.is_ready() {
            self.cache = Cache::Live;
            self.reconnect.reset();
            self.facts.refused.clear();
        } else if self.cache == Cache::Live {
            self.cache = Cache::Aging { since: now };
        }
    }
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    a.into_iter().chain(b).min()
}

/// The key without the prefix of its feed; none for a key that was not asked for.
fn suffix(key: &[u8], prefix: &str) -> Option<Suffix> {
    key.strip_prefix(prefix.as_bytes()).map(Into::into)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
