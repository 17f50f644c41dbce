//! Service KV.

use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbKvService, PbPutRequest,
    PbPutResponse, PbRangeRequest, PbRangeResponse, PbRangeStreamResponse, PbTxnOpRequest, PbTxnRequest,
    PbTxnResponse,
};
use tonic::{Request, Response, Status, async_trait};

use super::{Api, not_served, sender};
use crate::error::StoreError;
use crate::mvcc::Span;
use crate::shared::Peer;

#[async_trait]
impl PbKvService for Api {
    async fn range(&self, request: Request<PbRangeRequest>) -> Result<Response<PbRangeResponse>, Status> {
        let peer = sender(&request)?;
        let range = request.get_ref();
        self.shared
            .allow_read(&peer, &Span::new(&range.key, &range.range_end))?;
        let response = self.shared.read().range(range)?;
        if response.more {
            let revision = match range.revision {
                0 => response.header.as_ref().map_or(0, |header| header.revision),
                revision => revision,
            };
            self.shared.hold_list(revision);
        }
        Ok(Response::new(response))
    }

    type RangeStreamStream = tokio_stream::Empty<Result<PbRangeStreamResponse, Status>>;

    async fn range_stream(
        &self,
        _: Request<PbRangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(not_served("KV.RangeStream"))
    }

    async fn put(&self, request: Request<PbPutRequest>) -> Result<Response<PbPutResponse>, Status> {
        self.shared
            .allow_write(&*sender(&request)?, &request.get_ref().key)?;
        Ok(Response::new(
            self.shared.write(|core, _| core.put(request.get_ref()))?,
        ))
    }

    async fn delete_range(
        &self,
        request: Request<PbDeleteRequest>,
    ) -> Result<Response<PbDeleteResponse>, Status> {
        self.shared
            .allow_write(&*sender(&request)?, &request.get_ref().key)?;
        Ok(Response::new(
            self.shared.write(|core, _| core.delete(request.get_ref()))?,
        ))
    }

    async fn txn(&self, request: Request<PbTxnRequest>) -> Result<Response<PbTxnResponse>, Status> {
        self.allow_txn(&*sender(&request)?, request.get_ref())?;
        Ok(Response::new(
            self.shared.write(|core, _| core.txn(request.get_ref()))?,
        ))
    }

    async fn compact(
        &self,
        request: Request<PbCompactionRequest>,
    ) -> Result<Response<PbCompactionResponse>, Status> {
        self.shared.allow_write(&*sender(&request)?, b"compaction")?;
        let revision = request.get_ref().revision;
        let header = self
            .shared
            .write(|core, _| core.compact(revision).map(|()| core.header()))?;
        self.shared.free_compacted();
        Ok(Response::new(PbCompactionResponse { header: Some(header) }))
    }
}

impl Api {
    /// A transaction is allowed if each of its parts is, in both branches and inside.
    fn allow_txn(&self, peer: &Peer, txn: &PbTxnRequest) -> Result<(), StoreError> {
        for compare in &txn.compare {
            self.shared
                .allow_read(peer, &Span::new(&compare.key, &compare.range_end))?;
        }
        for op in txn.success.iter().chain(&txn.failure) {
            match op.request.as_ref() {
                Some(PbTxnOpRequest::RequestRange(range)) => {
                    self.shared
                        .allow_read(peer, &Span::new(&range.key, &range.range_end))?;
                }
                Some(PbTxnOpRequest::RequestPut(put)) => self.shared.allow_write(peer, &put.key)?,
                Some(PbTxnOpRequest::RequestDeleteRange(delete)) => {
                    self.shared.allow_write(peer, &delete.key)?;
                }
                Some(PbTxnOpRequest::RequestTxn(inner)) => self.allow_txn(peer, inner)?,
                None => {}
            }
        }
        Ok(())
    }
}
