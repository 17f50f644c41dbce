//! The store from inside the process: the daemon's own writer needs no TLS and no role.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use etcd_client::proto::{PbDeleteRequest, PbPutRequest};
use jiff::Timestamp;
use tokio::sync::watch;

use crate::access::{AccessPolicy, Role};
use crate::error::StoreError;
use crate::mvcc::{Identity, Record, Retention, Sizes, Span};
use crate::shared::{Shared, TICK, TlsFailures, lock};

/// A store; clones are the same store.
#[derive(Clone, Debug)]
pub struct StoreHandle {
    pub(crate) shared: Arc<Shared>,
}

/// One change of [`StoreHandle::apply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Put.
    Put {
        /// The key.
        key: Vec<u8>,
        /// The value.
        value: Vec<u8>,
        /// Lease to attach to; 0 for none.
        lease: i64,
    },
    /// Delete one key.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
}

/// Where [`StoreHandle::apply`] stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub error: StoreError,
    /// The change that was refused.
    pub write: Write,
    /// The changes behind it, not tried.
    pub rest: Vec<Write>,
}

/// A connected client, for status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFacts {
    /// Common name of its certificate.
    pub common_name: String,
    /// Its role, if its name has one here.
    pub role: Option<Role>,
    /// Where it connects from.
    pub address: SocketAddr,
    /// When it connected.
    pub since: Timestamp,
    /// Requests so far.
    pub requests: u64,
    /// Refused requests so far.
    pub denied: u64,
    /// Open watches.
    pub watches: u64,
}

impl StoreHandle {
    /// A new, empty store with a fresh `cluster_id`. Must be called inside a tokio runtime: a task ends leases and
    /// forgets old history for as long as a handle lives.
    pub fn new(policy: AccessPolicy, retention: Retention) -> Self {
        let shared = Arc::new(Shared::new(policy, retention));
        let weak = Arc::downgrade(&shared);
        tokio::spawn(async move {
            let mut timer = tokio::time::interval(TICK);
            loop {
                timer.tick().await;
                let Some(shared) = weak.upgrade() else { return };
                shared.tick();
            }
        });
        Self { shared }
    }

    /// Who this store is.
    pub fn identity(&self) -> Identity {
        self.shared.read().identity()
    }

    /// Puts one key; answers the revision.
    pub fn put(&self, key: &[u8], value: &[u8], lease: i64) -> Result<i64, StoreError> {
        let request = PbPutRequest {
            key: key.into(),
            value: value.into(),
            lease,
            ..Default::default()
        };
        self.shared
            .write(|core, _| core.put(&request).map(|_| core.revision()))
    }

    /// Deletes one key; answers whether it was there.
    pub fn delete(&self, key: &[u8]) -> Result<bool, StoreError> {
        let request = PbDeleteRequest {
            key: key.into(),
            ..Default::default()
        };
        self.shared
            .write(|core, _| core.delete(&request).map(|response| response.deleted > 0))
    }

    /// Makes changes one after the other, each at its own revision, under one lock. Stops at the first that is
    /// refused; those before it are made.
    pub fn apply(&self, writes: Vec<Write>) -> Result<(), Refused> {
        self.shared.write(|core, _| {
            let mut writes = writes.into_iter();
            while let Some(write) = writes.next() {
                let refused = match write {
                    Write::Put { key, value, lease } => {
                        let request = PbPutRequest {
                            key,
                            value,
                            lease,
                            ..Default::default()
                        };
                        let error = core.put(&request).err();
                        error.map(|error| {
                            (
                                error,
                                Write::Put {
                                    key: request.key,
                                    value: request.value,
                                    lease,
                                },
                            )
                        })
                    }
                    Write::Delete { key } => {
                        let request = PbDeleteRequest {
                            key,
                            ..Default::default()
                        };
                        core.delete(&request)
                            .err()
                            .map(|error| (error, Write::Delete { key: request.key }))
                    }
                };
                if let Some((error, write)) = refused {
                    return Err(Refused {
                        error,
                        write,
                        rest: writes.collect(),
                    });
                }
            }
            Ok(())
        })
    }

    /// The newest version of a key.
    pub fn get(&self, key: &[u8]) -> Option<Arc<Record>> {
        self.shared.read().newest(key).cloned()
    }

    /// The newest versions of all keys of a span, in order.
    pub fn list(&self, span: &Span) -> Vec<Arc<Record>> {
        self.shared.read().records(span)
    }

    /// How many keys a span holds now.
    pub fn count(&self, span: &Span) -> usize {
        self.shared.read().count(span)
    }

    /// Opens a lease of `ttl` seconds; answers its id.
    pub fn lease_grant(&self, ttl: i64) -> Result<i64, StoreError> {
        self.shared
            .write(|core, now| core.lease_grant(now, 0, ttl).map(|(id, _)| id))
    }

    /// Renews a lease; answers whether it is still there.
    pub fn lease_renew(&self, id: i64) -> bool {
        self.shared.write(|core, now| core.lease_renew(now, id).is_some())
    }

    /// Ends a lease and deletes its keys.
    pub fn lease_revoke(&self, id: i64) -> Result<(), StoreError> {
        self.shared.write(|core, _| core.lease_revoke(id))
    }

    /// Tells of every new revision.
    pub fn changes(&self) -> watch::Receiver<i64> {
        self.shared.bell()
    }

    /// Sizes, for status.
    pub fn sizes(&self) -> Sizes {
        self.shared.read().sizes()
    }

    /// Clients connected now, by common name and address.
    pub fn clients(&self) -> Vec<ClientFacts> {
        let mut clients: Vec<_> = lock(&self.shared.clients)
            .values()
            .map(|peer| ClientFacts {
                common_name: peer.common_name.clone(),
                role: peer.role,
                address: peer.address,
                since: peer.since,
                requests: peer.requests.load(Ordering::Relaxed),
                denied: peer.denied.load(Ordering::Relaxed),
                watches: peer.watches.load(Ordering::Relaxed),
            })
            .collect();
        clients.sort_by(|a, b| (&a.common_name, a.address).cmp(&(&b.common_name, b.address)));
        clients
    }

    /// Requests refused for want of permission since start.
    pub fn denied(&self) -> u64 {
        self.shared.denied.load(Ordering::Relaxed)
    }

    /// Connections that failed in the TLS handshake.
    pub fn tls_failures(&self) -> TlsFailures {
        lock(&self.shared.tls_failures).clone()
    }
}
