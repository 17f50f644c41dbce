//! Service Watch. One task for each stream pulls from the core's log what its watches have not seen yet, so that a slow
//! reader costs no memory: it only falls behind, and is told when it falls behind a compaction.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use etcd_client::proto::{PbWatchRequest, PbWatchRequestUnion, PbWatchResponse, PbWatchService};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{Api, sender};
use crate::error::StoreError;
use crate::mvcc::{Event, EventFilter, Span};
use crate::shared::{Peer, Shared};

/// How often a quiet watch that asked for it is told the revision, as etcd does.
const PROGRESS_EVERY: Duration = Duration::from_secs(600);
/// Watch id that stands for none or all.
const NO_WATCH: i64 = -1;
/// `FilterType` of the API.
const FILTER_NO_PUT: i32 = 0;
const FILTER_NO_DELETE: i32 = 1;
/// Responses that wait for the network before the task waits.
const QUEUE: usize = 4;

#[async_trait]
impl PbWatchService for Api {
    type WatchStream = ReceiverStream<Result<PbWatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<PbWatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let peer = sender(&request)?;
        let (out, stream) = mpsc::channel(QUEUE);
        let watches = Watches {
            shared: Arc::clone(&self.shared),
            peer,
            out,
            open: BTreeMap::new(),
            next_id: 0,
        };
        tokio::spawn(watches.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// The watches of one stream.
struct Watches {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    out: mpsc::Sender<Result<PbWatchResponse, Status>>,
    open: BTreeMap<i64, Open>,
    next_id: i64,
}

/// One watch.
struct Open {
    filter: EventFilter,
    /// Everything before this revision was sent.
    next: i64,
    progress: bool,
    /// Whether something was sent since the last progress tick.
    busy: bool,
}

/// What the log holds for a watch.
enum News {
    /// Nothing.
    None,
    /// Changes that its filter leaves out; there may be more behind them.
    Unwanted,
    /// Something to send.
    Response(PbWatchResponse),
}

/// The client is gone: the stream ends.
struct Gone;

impl Watches {
    async fn run(mut self, mut inbound: Streaming<PbWatchRequest>) {
        let mut bell = self.shared.bell();
        let mut progress = pin!(tokio::time::interval(PROGRESS_EVERY));
        progress.tick().await;
        let mut asking = true;
        loop {
            let step = tokio::select! {
                message = inbound.message(), if asking => match message {
                    Ok(Some(request)) => self.request(request).await,
                    // The client half-closed (it may go on to listen) or the connection broke.
                    Ok(None) => { asking = false; Ok(()) }
                    Err(_) => Err(Gone),
                },
                changed = bell.changed() => match changed {
                    Ok(()) => { bell.borrow_and_update(); self.pump().await }
                    Err(_) => Err(Gone),
                },
                _ = progress.tick() => self.tell_progress().await,
                () = self.out.closed() => Err(Gone),
            };
            if step.is_err() {
                return;
            }
        }
    }

    async fn request(&mut self, request: PbWatchRequest) -> Result<(), Gone> {
        match request.request_union {
            Some(PbWatchRequestUnion::CreateRequest(create)) => {
                let key = if create.key.is_empty() {
                    &[0][..]
                } else {
                    &create.key
                };
                let filter = EventFilter {
                    span: Span::new(key, &create.range_end),
                    no_put: create.filters.contains(&FILTER_NO_PUT),
                    no_delete: create.filters.contains(&FILTER_NO_DELETE),
                    prev_kv: create.prev_kv,
                };
                let open = Open {
                    filter,
                    next: create.start_revision,
                    progress: create.progress_notify,
                    busy: true,
                };
                self.create(create.watch_id, open).await
            }
            Some(PbWatchRequestUnion::CancelRequest(cancel)) => match self.close(cancel.watch_id) {
                true => {
                    self.send(PbWatchResponse {
                        watch_id: cancel.watch_id,
                        canceled: true,
                        ..self.response()
                    })
                    .await
                }
                false => Ok(()),
            },
            Some(PbWatchRequestUnion::ProgressRequest(_)) => {
                self.pump().await?;
                let mut response = PbWatchResponse {
                    watch_id: NO_WATCH,
                    ..self.response()
                };
                // Not further than the watch that has seen least.
                let seen = self.open.values().map(|open| open.next - 1).min();
                if let (Some(header), Some(seen)) = (response.header.as_mut(), seen) {
                    header.revision = header.revision.min(seen);
                }
                self.send(response).await
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, wanted: i64, mut open: Open) -> Result<(), Gone> {
        if let Err(error) = self.shared.allow_read(&self.peer, &open.filter.span) {
            return self.refuse(permission_text(error)).await;
        }
        if wanted != 0 && self.open.contains_key(&wanted) {
            return self
                .refuse("mvcc: duplicate watch ID provided on the WatchStream".to_owned())
                .await;
        }
        let id = if wanted == 0 { self.fresh_id() } else { wanted };
        let response = PbWatchResponse {
            watch_id: id,
            created: true,
            ..self.response()
        };
        if open.next <= 0 {
            open.next = response.header.as_ref().map_or(0, |header| header.revision) + 1;
        }
        self.open.insert(id, open);
        self.peer.watches.fetch_add(1, Ordering::Relaxed);
        self.send(response).await?;
        self.catch_up(id).await
    }

    async fn refuse(&self, reason: String) -> Result<(), Gone> {
        let response = self.response();
        self.send(PbWatchResponse {
            watch_id: NO_WATCH,
            created: true,
            canceled: true,
            cancel_reason: reason,
            ..response
        })
        .await
    }

    fn fresh_id(&mut self) -> i64 {
        while self.open.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// Sends every watch what is new.
    async fn pump(&mut self) -> Result<(), Gone> {
        let ids: Vec<i64> = self.open.keys().copied().collect();
        for id in ids {
            self.catch_up(id).await?;
        }
        Ok(())
    }

    /// Sends one watch what is new, batch by batch.
    async fn catch_up(&mut self, id: i64) -> Result<(), Gone> {
        loop {
            match self.look(id) {
                News::None => return Ok(()),
                News::Unwanted => {}
                News::Response(response) => self.send(response).await?,
            }
        }
    }

    /// Takes the next batch for a watch out of the log.
    fn look(&mut self, id: i64) -> News {
        let Some(open) = self.open.get_mut(&id) else {
            return News::None;
        };
        let core = self.shared.read();
        if open.next > core.revision() {
            return News::None;
        }
        let mut header = core.header();
        if open.next < core.compacted() {
            let compact_revision = core.compacted();
            drop(core);
            self.close(id);
            return News::Response(PbWatchResponse {
                header: Some(header),
                watch_id: id,
                canceled: true,
                compact_revision,
                cancel_reason: StoreError::Compacted.to_string(),
                ..Default::default()
            });
        }
        let batch = core.events(open.next, &open.filter);
        drop(core);
        open.next = batch.next;
        if batch.events.is_empty() {
            return News::Unwanted;
        }
        open.busy = true;
        // Readers go on from the header's revision: it must not promise more than this batch holds.
        header.revision = batch.next - 1;
        let events = batch.events.iter().map(Event::to_pb).collect();
        News::Response(PbWatchResponse {
            header: Some(header),
            watch_id: id,
            events,
            ..Default::default()
        })
    }

    async fn tell_progress(&mut self) -> Result<(), Gone> {
        self.pump().await?;
        let mut quiet = Vec::new();
        for (id, open) in &mut self.open {
            if open.progress && !std::mem::take(&mut open.busy) {
                quiet.push((*id, open.next - 1));
            }
        }
        for (id, seen) in quiet {
            let mut response = PbWatchResponse {
                watch_id: id,
                ..self.response()
            };
            if let Some(header) = response.header.as_mut() {
                header.revision = header.revision.min(seen);
            }
            self.send(response).await?;
        }
        Ok(())
    }

    fn close(&mut self, id: i64) -> bool {
        let was_open = self.open.remove(&id).is_some();
        if was_open {
            self.peer.watches.fetch_sub(1, Ordering::Relaxed);
        }
        was_open
    }

    /// An empty response with a header.
    fn response(&self) -> PbWatchResponse {
        PbWatchResponse {
            header: Some(self.shared.read().header()),
            ..Default::default()
        }
    }

    async fn send(&self, response: PbWatchResponse) -> Result<(), Gone> {
        self.out.send(Ok(response)).await.map_err(|_| Gone)
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.peer
            .watches
            .fetch_sub(self.open.len() as u64, Ordering::Relaxed);
    }
}

/// Go clients look for etcd's error inside this sentence.
fn permission_text(error: StoreError) -> String {
    format!("rpc error: code = {:?} desc = {error}", error.code())
}
