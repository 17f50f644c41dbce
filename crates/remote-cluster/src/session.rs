//! The requests of one connection: carries them out and hands in what came back. It decides nothing.
use std::time::Duration;

use etcd_client::{Client, GetOptions, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};
use isthmus_topology::ClusterName;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::Code;

use crate::dial::causes;
use crate::feed::Feed;
use crate::machine::{Failure, Header, Input, Page, WatchReply};

/// The largest message that is accepted: a page of the largest values that an etcd stores (256 of 1.5 MiB each).
const MAX_MESSAGE: usize = 512 << 20;
/// How many replies may wait to be worked on; more make the server wait.
const WAITING: usize = 16;

/// A watch to create.
#[derive(Debug)]
pub(crate) struct Create {
    pub(crate) key: Vec<u8>,
    pub(crate) range_end: Vec<u8>,
    pub(crate) revision: i64,
}

/// One connection. Dropping it ends all its requests.
#[derive(Debug)]
pub(crate) struct Session {
    client: Connection,
    replies: mpsc::Sender<Input>,
    inputs: mpsc::Receiver<Input>,
    watches: Option<mpsc::UnboundedSender<Create>>,
    requests: JoinSet<()>,
    timeout: Duration,
}

#[derive(Clone)]
struct Connection(Client);

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Session {
    /// Requests on this client, each of which must be answered within `timeout`.
    pub(crate) fn new(client: Client, timeout: Duration) -> Self {
        let (replies, inputs) = mpsc::channel(WAITING);
        Self {
            client: Connection(client),
            replies,
            inputs,
            watches: None,
            requests: JoinSet::new(),
            timeout,
        }
    }

    /// The next reply.
    pub(crate) async fn next(&mut self) -> Option<Input> {
        let input = self.inputs.recv().await;
        self.note(input)
    }

    /// The next reply, if it is there already.
    pub(crate) fn ready(&mut self) -> Option<Input> {
        let input = self.inputs.try_recv().ok();
        self.note(input)
    }

    fn note(&mut self, input: Option<Input>) -> Option<Input> {
        if matches!(input, Some(Input::WatchEnded(_))) {
            self.watches = None;
        }
        input
    }

    fn spawn(&mut self, request: impl Future<Output = Input> + Send + 'static) {
        while self.requests.try_join_next().is_some() {}
        let replies = self.replies.clone();
        self.requests.spawn(async move {
            let input = request.await;
            // Nobody listens any more when the connection has been given up.
            drop(replies.send(input).await);
        });
    }

    /// Requests a page.
    pub(crate) fn list(&mut self, feed: Feed, key: Vec<u8>, range_end: Vec<u8>, revision: i64, limit: i64) {
        let options = GetOptions::new()
            .with_range(range_end)
            .with_limit(limit)
            .with_revision(revision);
        let (client, timeout) = (self.client.clone(), self.timeout);
        self.spawn(async move { Input::Listed(feed, get(client, key, options, timeout).await) });
    }

    /// Requests the cluster-config.
    pub(crate) fn read_config(&mut self, cluster: &ClusterName) {
        let key = isthmus_kvstore::cluster_config_key(cluster).into_bytes();
        let (client, timeout) = (self.client.clone(), self.timeout);
        self.spawn(async move {
            let page = get(client, key, GetOptions::new(), timeout).await;
            let value = |page: Page| {
                (
                    page.header,
                    page.entries.into_iter().next().map(|(_, value)| value),
                )
            };
            Input::Config(page.map(value))
        });
    }

    /// Creates a watch, on the open stream or a new one.
    pub(crate) fn watch(&mut self, create: Create) {
        let create = match &self.watches {
            Some(watches) => match watches.send(create) {
                Ok(()) => return,
                Err(closed) => closed.0,
            },
            None => create,
        };
        let (watches, creates) = mpsc::unbounded_channel();
        self.watches = Some(watches);
        let (client, replies) = (self.client.clone(), self.replies.clone());
        self.spawn(async move {
            let end = watch(client, create, creates, &replies).await;
            Input::WatchEnded(end.err())
        });
    }
}

async fn get(
    client: Connection,
    key: Vec<u8>,
    options: GetOptions,
    timeout: Duration,
) -> Result<Page, Failure> {
    let mut kv = client.0.kv_client().max_decoding_message_size(MAX_MESSAGE);
    let reply = tokio::time::timeout(timeout, kv.get(key, Some(options))).await;
    let slow = |_| Failure::Lost(format!("no reply within {:.1} s", timeout.as_secs_f32()));
    let reply = reply.map_err(slow)?.map_err(|e| failure(&e))?.0;
    Ok(Page {
        header: reply.header.map(|h| Header {
            cluster_id: h.cluster_id,
            revision: h.revision,
        }),
        entries: reply.kvs.into_iter().map(|kv| (kv.key, kv.value)).collect(),
        more: reply.more,
    })
}

/// Runs one watch stream: creates watches as they come and hands in its messages. Ends without an error when the server
/// ends the stream without one.
async fn watch(
    client: Connection,
    first: Create,
    mut creates: mpsc::UnboundedReceiver<Create>,
    replies: &mpsc::Sender<Input>,
) -> Result<(), String> {
    let mut watcher = client.0.watch_client().max_decoding_message_size(MAX_MESSAGE);
    let stream = watcher.watch(first.key.clone(), Some(options(first))).await;
    let (mut sender, mut messages): (WatchRequestSender, WatchResponseStream) =
        stream.map_err(|e| reason(&e))?.split();
    loop {
        tokio::select! {
            create = creates.recv() => match create {
                Some(create) => sender.watch(create.key.clone(), Some(options(create))).await.map_err(|e| reason(&e))?,
                None => return Ok(()),
            },
            message = messages.message() => match message.map_err(|e| reason(&e))? {
                Some(message) => drop(replies.send(Input::Watched(reply(message))).await),
                None => return Ok(()),
            },
        }
    }
}

fn options(create: Create) -> WatchOptions {
    WatchOptions::new()
        .with_range(create.range_end)
        .with_start_revision(create.revision)
}

fn reply(message: WatchResponse) -> WatchReply {
    let message = message.0;
    let event = |event: etcd_client::proto::PbEvent| {
        let kv = event.kv?;
        // 0 is a put, 1 a delete (mvccpb.Event.EventType); another kind would be of a version that is not v3.
        let value = (event.r#type == 0).then_some(kv.value);
        Some((kv.key, value, kv.mod_revision))
    };
    WatchReply {
        header: message.header.map(|h| Header {
            cluster_id: h.cluster_id,
            revision: h.revision,
        }),
        id: message.watch_id,
        created: message.created,
        canceled: message.canceled,
        compact_revision: message.compact_revision,
        cancel_reason: message.cancel_reason,
        events: message.events.into_iter().filter_map(event).collect(),
    }
}

/// Why a request failed, in the words of whoever knows: the transport beneath it, or the server.
fn reason(error: &etcd_client::Error) -> String {
    let etcd_client::Error::GRpcStatus(status) = error else {
        return causes(error);
    };
    match std::error::Error::source(status) {
        Some(source) => causes(source),
        None => status.message().to_owned(),
    }
}

/// What a failed request says about the connection.
fn failure(error: &etcd_client::Error) -> Failure {
    let etcd_client::Error::GRpcStatus(status) = error else {
        return Failure::Lost(reason(error));
    };
    match status.code() {
        Code::OutOfRange if status.message().contains("compacted") => Failure::Compacted,
        Code::PermissionDenied
        | Code::Unauthenticated
        | Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::ResourceExhausted
        | Code::NotFound
        | Code::Unimplemented
        | Code::OutOfRange => Failure::Refused(reason(error)),
        _ => Failure::Lost(reason(error)),
    }
}
