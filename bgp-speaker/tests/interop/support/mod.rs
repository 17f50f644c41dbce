//! What every story has: a link between a node and a router, our speaker on the node, its cluster's manifests.
mod link;
mod manifests;
mod speaker;

use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

pub(crate) use link::{Link, NODE_V4, NODE_V6, Namespace, TOR_V4, TOR_V6};
pub(crate) use manifests::Cluster;
pub(crate) use speaker::{PeerSettings, Speaker, act, read};

/// AS of the node's speaker.
pub(crate) const NODE_AS: u32 = 65001;
/// AS of the router.
pub(crate) const TOR_AS: u32 = 65000;
/// The deadline of waits that prove nothing about speed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

static QUIET: RwLock<()> = RwLock::new(());

/// For a story that measures nothing: others may run beside it.
pub(crate) fn beside_others() -> RwLockReadGuard<'static, ()> {
    QUIET.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// For a story that measures: no other story runs meanwhile.
pub(crate) fn alone() -> RwLockWriteGuard<'static, ()> {
    QUIET.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}
