//! Service Lease. Only writers hold leases, so every call asks for the right to write.

use etcd_client::proto::{
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse,
    PbLeaseLeasesRequest, PbLeaseLeasesResponse, PbLeaseRevokeRequest, PbLeaseRevokeResponse, PbLeaseService,
    PbLeaseStatus, PbLeaseTimeToLiveRequest, PbLeaseTimeToLiveResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{Api, sender};
use crate::mvcc::LeaseFacts;

#[async_trait]
impl PbLeaseService for Api {
    async fn lease_grant(
        &self,
        request: Request<PbLeaseGrantRequest>,
    ) -> Result<Response<PbLeaseGrantResponse>, Status> {
        self.shared.allow_write(&*sender(&request)?, b"lease grant")?;
        let wanted = request.get_ref();
        let response = self.shared.write(|core, now| {
            let (id, ttl) = core.lease_grant(now, wanted.id, wanted.ttl)?;
            Ok::<_, Status>(PbLeaseGrantResponse {
                header: Some(core.header()),
                id,
                ttl,
                error: String::new(),
            })
        })?;
        Ok(Response::new(response))
    }

    async fn lease_revoke(
        &self,
        request: Request<PbLeaseRevokeRequest>,
    ) -> Result<Response<PbLeaseRevokeResponse>, Status> {
        self.shared.allow_write(&*sender(&request)?, b"lease revoke")?;
        let id = request.get_ref().id;
        let header = self
            .shared
            .write(|core, _| core.lease_revoke(id).map(|()| core.header()))?;
        Ok(Response::new(PbLeaseRevokeResponse { header: Some(header) }))
    }

    type LeaseKeepAliveStream = ReceiverStream<Result<PbLeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<PbLeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        self.shared
            .allow_write(&*sender(&request)?, b"lease keep-alive")?;
        let mut inbound = request.into_inner();
        let (out, stream) = mpsc::channel(4);
        let shared = std::sync::Arc::clone(&self.shared);
        tokio::spawn(async move {
            while let Ok(Some(PbLeaseKeepAliveRequest { id })) = inbound.message().await {
                let response = shared.write(|core, now| {
                    // A lease that is gone is told by 0 seconds.
                    let ttl = core.lease_renew(now, id).unwrap_or(0);
                    PbLeaseKeepAliveResponse {
                        header: Some(core.header()),
                        id,
                        ttl,
                    }
                });
                if out.send(Ok(response)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<PbLeaseTimeToLiveRequest>,
    ) -> Result<Response<PbLeaseTimeToLiveResponse>, Status> {
        self.shared
            .allow_write(&*sender(&request)?, b"lease time-to-live")?;
        let PbLeaseTimeToLiveRequest { id, keys } = *request.get_ref();
        let now = self.shared.now();
        let core = self.shared.read();
        let facts = core.lease_facts(now, id);
        let LeaseFacts { granted, left } = facts.unwrap_or(LeaseFacts { granted: 0, left: -1 });
        let keys = if keys && facts.is_some() {
            core.lease_keys(id)
        } else {
            Vec::new()
        };
        let header = Some(core.header());
        Ok(Response::new(PbLeaseTimeToLiveResponse {
            header,
            id,
            ttl: left,
            granted_ttl: granted,
            keys,
        }))
    }

    async fn lease_leases(
        &self,
        request: Request<PbLeaseLeasesRequest>,
    ) -> Result<Response<PbLeaseLeasesResponse>, Status> {
        self.shared.allow_write(&*sender(&request)?, b"lease list")?;
        let core = self.shared.read();
        let leases = core.lease_ids().map(|id| PbLeaseStatus { id }).collect();
        Ok(Response::new(PbLeaseLeasesResponse {
            header: Some(core.header()),
            leases,
        }))
    }
}
