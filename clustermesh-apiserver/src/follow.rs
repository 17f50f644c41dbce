//! The one task that writes: follows the manifests, renews the leases, beats, and looks now and then whether the store
//! still holds what it should.
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use isthmus_kvstore::{Family, Tree, canary_key, entry_prefix};
use isthmus_sources::{Snapshot, Source};
use isthmus_store::mvcc::Span;
use jiff::Timestamp;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::beat::{cluster_config, heartbeat};
use crate::changes::{Exporting, family_changes};
use crate::progress::Progress;
use crate::writer::Writer;

/// Readers give up a connection 120 s after the last heartbeat.
const BEAT_EVERY: Duration = Duration::from_secs(60);
/// How often the whole store is compared with the manifests, cluster-config included (clustermesh.md §1.3).
const RESYNC_EVERY: Duration = Duration::from_secs(300);
/// A lease is renewed this many times within its life.
const RENEWALS: u32 = 3;

/// The export of one cluster.
#[derive(Debug)]
pub(crate) struct Follower {
    exporting: Exporting,
    writer: Writer,
    progress: Arc<Progress>,
    /// What the store was last brought in line with.
    seen: Snapshot,
}

impl Follower {
    /// Writes what stands before all resources: cluster-config and the first heartbeat.
    pub(crate) async fn start(exporting: Exporting, writer: Writer, progress: Arc<Progress>) -> Self {
        let mut follower = Self {
            exporting,
            writer,
            progress,
            seen: Snapshot::default(),
        };
        follower.own_keys().await;
        follower.beat().await;
        follower
    }

    /// Follows the source for ever.
    pub(crate) async fn run(mut self, mut source: Source, lease_ttl: Duration) {
        let mut beat = timer(BEAT_EVERY).await;
        let mut resync = timer(RESYNC_EVERY).await;
        let mut renew = timer(lease_ttl / RENEWALS).await;
        let snapshot = source.snapshot();
        self.follow(snapshot).await;
        loop {
            tokio::select! {
                snapshot = source.changed() => self.follow(snapshot).await,
                _ = beat.tick() => self.beat().await,
                _ = resync.tick() => self.resync().await,
                _ = renew.tick() => if self.writer.renew() { self.resync().await },
            }
        }
    }

    /// Brings the store from the last snapshot to this one: puts from what others point at to what points at them,
    /// then deletions the other way round, then canaries.
    async fn follow(&mut self, snapshot: Snapshot) {
        let old = std::mem::replace(&mut self.seen, snapshot);
        let mut gone = Vec::new();
        for family in Family::ALL {
            let (mut before, mut put) = (Vec::new(), BTreeSet::new());
            let progress = self.progress.family(family);
            for change in family_changes(&self.exporting, family, &old, &self.seen, false) {
                let replaces = change.before.is_some();
                before.extend(change.before);
                if let Some((key, value)) = change.now {
                    self.writer.put(progress, &key, value).await;
                    // At the first list nothing can go, so nothing is remembered.
                    if replaces || !before.is_empty() || old.revision > 0 {
                        put.insert(key);
                    }
                }
            }
            before.retain(|key| !put.contains(key));
            gone.push((family, before));
        }
        for (family, keys) in gone.into_iter().rev() {
            for key in keys {
                self.writer.delete(self.progress.family(family), &key).await;
            }
        }
        self.writer.flush().await;
        self.canaries().await;
    }

    /// One canary for each family once its first list is complete; a family that is switched off has one, too.
    async fn canaries(&mut self) {
        if !self.seen.complete {
            return;
        }
        for family in Family::ALL {
            let progress = self.progress.family(family);
            let key = canary_key(&self.exporting.cluster.name, Tree::State, family);
            if progress.synced() && self.writer.store().get(key.as_bytes()).is_some() {
                continue;
            }
            self.writer.put(&self.progress.own, &key, now_text()).await;
            self.writer.flush().await;
            if !progress.synced() {
                tracing::info!(%family, keys = progress.puts(), "first list is exported");
            }
            progress.set_synced();
        }
        self.progress.note_ready();
    }

    /// Compares the whole store with the manifests and mends what differs: a revoked lease, a foreign hand.
    async fn resync(&mut self) {
        self.own_keys().await;
        self.beat().await;
        let nothing = Snapshot::default();
        for family in Family::ALL {
            let progress = self.progress.family(family);
            let mut wanted = BTreeSet::new();
            for change in family_changes(&self.exporting, family, &nothing, &self.seen, true) {
                if let Some((key, value)) = change.now {
                    self.writer.put(progress, &key, value).await;
                    wanted.insert(key.into_bytes());
                }
            }
            self.writer.flush().await;
            let prefix = entry_prefix(Tree::State, family, &self.exporting.cluster.name);
            let span = Span::prefix(prefix.as_bytes());
            if !self.seen.complete || self.writer.store().count(&span) == wanted.len() {
                continue;
            }
            for record in self.writer.store().list(&span) {
                if !wanted.contains(record.key()) {
                    self.writer
                        .delete(progress, &String::from_utf8_lossy(record.key()))
                        .await;
                }
            }
        }
        self.writer.flush().await;
        self.canaries().await;
    }

    async fn own_keys(&mut self) {
        let (key, value) = cluster_config(&self.exporting);
        self.writer.put(&self.progress.own, &key, value).await;
        self.writer.flush().await;
    }

    async fn beat(&mut self) {
        let now = Timestamp::now();
        let (key, value) = heartbeat(now);
        self.writer.put(&self.progress.own, &key, value).await;
        self.writer.flush().await;
        self.progress.beat(now);
    }
}

fn now_text() -> Vec<u8> {
    heartbeat(Timestamp::now()).1
}

/// A timer whose first tick is one period away.
async fn timer(every: Duration) -> Interval {
    let mut timer = interval(every);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timer.tick().await;
    timer
}
