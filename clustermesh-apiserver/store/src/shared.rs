//! What the server's tasks and the daemon's own writer share: the core behind a lock, the bell that rings on changes,
//! and the register of clients.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::access::{AccessPolicy, Role};
use crate::error::StoreError;
use crate::mvcc::{Identity, Mvcc, Retention, Span};

/// Milliseconds for which a list that does not come back for its next page still holds its revision.
const LIST_PATIENCE: u64 = 60_000;
/// Compacted changes that are freed under one lock.
const COMPACT_BITE: usize = 2_000;

/// The shared state.
#[derive(Debug)]
pub(crate) struct Shared {
    core: RwLock<Mvcc>,
    changed: watch::Sender<i64>,
    start: Instant,
    pub(crate) policy: AccessPolicy,
    lists: Mutex<BTreeMap<i64, u64>>,
    retention: Mutex<Retention>,
    pub(crate) clients: Mutex<BTreeMap<u64, Arc<Peer>>>,
    next_client: AtomicU64,
    pub(crate) denied: AtomicU64,
    pub(crate) tls_failures: Mutex<TlsFailures>,
}

/// Connections that failed before they had a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFailures {
    /// Since start.
    pub count: u64,
    /// The newest, in words.
    pub last: Option<String>,
}

/// A connected client.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: u64,
    pub(crate) common_name: String,
    pub(crate) role: Option<Role>,
    pub(crate) address: SocketAddr,
    pub(crate) since: Timestamp,
    pub(crate) requests: AtomicU64,
    pub(crate) denied: AtomicU64,
    pub(crate) watches: AtomicU64,
}

impl Shared {
    pub(crate) fn new(policy: AccessPolicy, retention: Retention) -> Self {
        let core = Mvcc::new(fresh_identity());
        Self {
            changed: watch::Sender::new(core.revision()),
            core: RwLock::new(core),
            start: Instant::now(),
            policy,
            lists: Mutex::default(),
            retention: Mutex::new(retention),
            clients: Mutex::default(),
            next_client: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            tls_failures: Mutex::default(),
        }
    }

    /// Milliseconds since the store began: the core's clock.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Mvcc> {
        // A core operation that panicked would be a bug, but the data it left is still the best there is.
        self.core.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the core and rings the bell if the revision moved.
    pub(crate) fn write<T>(&self, change: impl FnOnce(&mut Mvcc, u64) -> T) -> T {
        let now = self.now();
        let mut core = self.core.write().unwrap_or_else(PoisonError::into_inner);
        let before = core.revision();
        let answer = change(&mut core, now);
        let revision = core.revision();
        if revision != before {
            self.changed.send_replace(revision);
        }
        answer
    }

    /// A receiver that is told of every new revision.
    pub(crate) fn bell(&self) -> watch::Receiver<i64> {
        self.changed.subscribe()
    }

    /// Remembers that a list at `revision` goes on.
    pub(crate) fn hold_list(&self, revision: i64) {
        lock(&self.lists).insert(revision, self.now());
    }

    /// Frees all that a compaction made unreadable, in bites, so that readers get in between.
    pub(crate) fn free_compacted(&self) {
        while self.write(|core, _| core.compact_step(COMPACT_BITE)) {}
    }

    /// Ends what is due: leases, and history that is old enough.
    pub(crate) fn tick(&self) {
        let now = self.now();
        if self
            .read()
            .lease_deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            let ended = self.write(Mvcc::lease_expire);
            tracing::info!(ended, "leases ran out, their keys are deleted");
        }
        let oldest = {
            let mut lists = lock(&self.lists);
            lists.retain(|_, used| *used + LIST_PATIENCE > now);
            lists.keys().next().copied()
        };
        let target = lock(&self.retention).target(now, &self.read(), oldest);
        if let Some(revision) = target
            && self.write(|core, _| core.compact(revision)).is_ok()
        {
            tracing::debug!(revision, "compacted");
            self.free_compacted();
        }
    }

    pub(crate) fn add_client(&self, common_name: String, address: SocketAddr) -> Arc<Peer> {
        let peer = Arc::new(Peer {
            id: self.next_client.fetch_add(1, Ordering::Relaxed),
            role: self.policy.role(&common_name),
            common_name,
            address,
            since: Timestamp::now(),
            requests: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            watches: AtomicU64::new(0),
        });
        lock(&self.clients).insert(peer.id, Arc::clone(&peer));
        peer
    }

    pub(crate) fn remove_client(&self, peer: &Peer) {
        lock(&self.clients).remove(&peer.id);
    }

    pub(crate) fn tls_failed(&self, address: SocketAddr, reason: &str) {
        let mut failures = lock(&self.tls_failures);
        failures.count += 1;
        failures.last = Some(format!("{address}: {reason}"));
    }

    /// Lets a client read a span, or counts the refusal.
    pub(crate) fn allow_read(&self, peer: &Peer, span: &Span) -> Result<(), StoreError> {
        let allowed = peer.role.is_some_and(|role| self.policy.may_read(role, span));
        self.allow(peer, allowed, span.start())
    }

    /// Lets a client change things, or counts the refusal.
    pub(crate) fn allow_write(&self, peer: &Peer, what: &[u8]) -> Result<(), StoreError> {
        self.allow(peer, peer.role == Some(Role::Root), what)
    }

    fn allow(&self, peer: &Peer, allowed: bool, what: &[u8]) -> Result<(), StoreError> {
        peer.requests.fetch_add(1, Ordering::Relaxed);
        if allowed {
            return Ok(());
        }
        let before = peer.denied.fetch_add(1, Ordering::Relaxed);
        self.denied.fetch_add(1, Ordering::Relaxed);
        let (client, what) = (&peer.common_name, String::from_utf8_lossy(what));
        // Once for each connection: a client that tries again and again must not fill the log.
        if before == 0 {
            tracing::warn!(%client, address = %peer.address, %what, "request denied to this common name");
        }
        Err(if client.is_empty() {
            StoreError::UserEmpty
        } else {
            StoreError::PermissionDenied
        })
    }
}

/// How often [`Shared::tick`] is called.
pub(crate) const TICK: Duration = Duration::from_millis(500);

/// Locks; every guarded value is sound between any two statements, so a panicked holder does no harm.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fresh_identity() -> Identity {
    // The standard library seeds each state from the operating system's randomness.
    let random = || RandomState::new().build_hasher().finish() | 1;
    Identity {
        cluster_id: random(),
        member_id: random(),
    }
}
