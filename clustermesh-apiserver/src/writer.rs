//! Writing to the store: only what differs, under leases, in batches.
use std::sync::Arc;
use std::time::Instant;

use isthmus_store::{Refused, StoreError, StoreHandle, Write};

use crate::leases::Leases;
use crate::progress::{FamilyProgress, Progress};

/// Writes under one lock of the store: short enough that readers do not notice.
const BATCH: usize = 256;

/// The only writer of this cluster's keys.
#[derive(Debug)]
pub(crate) struct Writer {
    store: StoreHandle,
    leases: Leases,
    ttl: i64,
    queue: Vec<Write>,
    progress: Arc<Progress>,
}

impl Writer {
    pub(crate) fn new(store: StoreHandle, ttl: i64, progress: Arc<Progress>) -> Self {
        Self {
            store,
            leases: Leases::default(),
            ttl,
            queue: Vec::new(),
            progress,
        }
    }

    pub(crate) fn store(&self) -> &StoreHandle {
        &self.store
    }

    /// Queues a put unless the store holds exactly this value already, under a lease of ours.
    pub(crate) async fn put(&mut self, family: &FamilyProgress, key: &str, value: Vec<u8>) {
        let there = self.store.get(key.as_bytes());
        let kept = there
            .as_ref()
            .map(|record| record.lease)
            .filter(|id| self.leases.contains(*id));
        if kept.is_some() && there.is_some_and(|record| record.value() == value) {
            return;
        }
        let lease = match kept {
            Some(lease) => lease,
            None => {
                let Some(lease) = self.fresh_lease() else {
                    return family.failed();
                };
                self.leases.attach(lease);
                lease
            }
        };
        family.put();
        self.queue.push(Write::Put {
            key: key.as_bytes().to_vec(),
            value,
            lease,
        });
        self.flush_if(BATCH).await;
    }

    /// Queues a deletion unless the key is not there.
    pub(crate) async fn delete(&mut self, family: &FamilyProgress, key: &str) {
        if let Some(record) = self.store.get(key.as_bytes()) {
            self.leases.detach(record.lease);
            family.deleted();
            self.queue.push(Write::Delete {
                key: key.as_bytes().to_vec(),
            });
            self.flush_if(BATCH).await;
        }
    }

    /// Carries out all that is queued.
    pub(crate) async fn flush(&mut self) {
        self.flush_if(1).await;
    }

    async fn flush_if(&mut self, least: usize) {
        if self.queue.len() < least {
            return;
        }
        let mut writes = std::mem::take(&mut self.queue);
        let (count, begun) = (writes.len(), Instant::now());
        while let Err(Refused {
            error,
            write,
            mut rest,
        }) = self.store.apply(writes)
        {
            match (error, write) {
                (StoreError::LeaseNotFound, Write::Put { key, value, lease }) => {
                    // Somebody revoked it: its keys are gone, and the next resync puts them under another.
                    tracing::warn!(lease, "a lease is gone, its keys are written anew");
                    self.leases.remove(lease);
                    if let Some(fresh) = self.fresh_lease() {
                        rest.insert(
                            0,
                            Write::Put {
                                key,
                                value,
                                lease: fresh,
                            },
                        );
                        rest.iter_mut()
                            .for_each(|write| self.release(write, lease, fresh));
                    }
                }
                (error, Write::Put { key, .. } | Write::Delete { key }) => {
                    self.progress.write_failed();
                    let key = String::from_utf8_lossy(&key);
                    tracing::error!(%key, %error, "the store refused a key; it stays as it was");
                }
            }
            writes = rest;
        }
        self.progress.wrote(count, begun.elapsed());
        tokio::task::yield_now().await;
    }

    fn release(&mut self, write: &mut Write, gone: i64, fresh: i64) {
        if let Write::Put { lease, .. } = write
            && *lease == gone
        {
            *lease = fresh;
            self.leases.attach(fresh);
        }
    }

    fn fresh_lease(&mut self) -> Option<i64> {
        if let Some(id) = self.leases.with_room() {
            return Some(id);
        }
        match self.store.lease_grant(self.ttl) {
            Ok(id) => {
                self.leases.add(id);
                Some(id)
            }
            Err(error) => {
                tracing::error!(%error, "the store grants no lease");
                None
            }
        }
    }

    /// Renews all leases; answers whether one was gone, so that keys are missing.
    pub(crate) fn renew(&mut self) -> bool {
        let mut lost = false;
        for id in self.leases.ids() {
            if !self.store.lease_renew(id) {
                tracing::warn!(lease = id, "a lease is gone, its keys are written anew");
                self.leases.remove(id);
                lost = true;
            }
        }
        lost
    }
}
