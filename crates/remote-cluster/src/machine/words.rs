//! What goes into the machine of a remote cluster and what comes out.
use std::collections::BTreeSet;
use std::time::Duration;

use isthmus_topology::{ClusterId, ClusterName, MaxClusters};

use crate::feed::Feed;
use crate::listwatch::Suffix;
use crate::{RemoteConfig, Resource, Timing};

/// What the machine has to know from the start.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The remote cluster.
    pub(crate) cluster: ClusterName,
    /// The local cluster.
    pub(crate) local: ClusterName,
    /// Its id.
    pub(crate) local_id: ClusterId,
    /// The size of the local cluster's mesh.
    pub(crate) max: MaxClusters,
    /// How long services are kept while the cluster is away.
    pub(crate) cache_ttl: Option<Duration>,
    /// Intervals and limits.
    pub(crate) timing: Timing,
    /// All randomness comes from it.
    pub(crate) seed: u64,
}

/// What every reply of an etcd carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Which etcd answers.
    pub(crate) cluster_id: u64,
    /// Its revision.
    pub(crate) revision: i64,
}

/// A reply to a list request.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) header: Option<Header>,
    /// Whole keys and their values.
    pub(crate) entries: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) more: bool,
}

/// A message of the watch stream.
#[derive(Debug)]
pub(crate) struct WatchReply {
    pub(crate) header: Option<Header>,
    pub(crate) id: i64,
    pub(crate) created: bool,
    pub(crate) canceled: bool,
    /// Not 0: the revision of the watch has been compacted away.
    pub(crate) compact_revision: i64,
    pub(crate) cancel_reason: String,
    /// Whole keys, values (none: deleted) and revisions.
    pub(crate) events: Vec<(Vec<u8>, Option<Vec<u8>>, i64)>,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The requested revision has been compacted away.
    Compacted,
    /// The server refused this request; the connection is good.
    Refused(String),
    /// The connection is not good.
    Lost(String),
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Input {
    /// A connection is up, to this endpoint.
    Connected(String),
    /// No endpoint could be reached.
    ConnectFailed(String),
    /// A page of a list, or why there is none.
    Listed(Feed, Result<Page, Failure>),
    /// The cluster-config (none: no such key), or why it could not be read.
    Config(Result<(Option<Header>, Option<Vec<u8>>), Failure>),
    /// The id in the cluster-config is ours alone now, or whose it is.
    Reserved(Result<(), ClusterName>),
    /// A message of the watch stream.
    Watched(WatchReply),
    /// The end of the watch stream; with an error, the connection is not good.
    WatchEnded(Option<String>),
    /// The configuration of the connection has changed, for this reason.
    Reconfigured(&'static str),
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    /// Open a connection.
    Connect,
    /// Drop the connection with all its requests; nothing of it may be handed in any more.
    Disconnect,
    /// Request a page.
    List {
        feed: Feed,
        key: Vec<u8>,
        range_end: Vec<u8>,
        revision: i64,
    },
    /// Request the cluster-config.
    ReadConfig,
    /// Create a watch, on the open stream if there is one.
    Watch {
        feed: Feed,
        key: Vec<u8>,
        range_end: Vec<u8>,
        revision: i64,
    },
    /// Reserve the id for this cluster (an earlier one is given back), then say [`Input::Reserved`].
    Reserve(ClusterId),
    /// The configuration is valid: entries that follow are to be understood by it.
    Adopt(RemoteConfig),
    /// Set an entry.
    Put {
        resource: Resource,
        suffix: Suffix,
        value: Vec<u8>,
    },
    /// Delete an entry.
    Delete { resource: Resource, suffix: Suffix },
    /// Delete all entries.
    Clear(Resource),
}

/// What status needs to know beyond the machine's state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Connections that failed or broke.
    pub(crate) failures: u64,
    /// Why the last one did.
    pub(crate) last_reason: String,
    /// To where the connection goes.
    pub(crate) endpoint: String,
    /// Tables that have been complete once.
    pub(crate) synced: BTreeSet<Resource>,
    /// How often caches were dropped.
    pub(crate) revocations: u64,
    /// Deletes of keys that were not known.
    pub(crate) unknown_deletes: u64,
    /// What the server last refused on a good connection.
    pub(crate) refused: String,
}
