//! Services Maintenance and Cluster: what tools ask of a store with one member.

use etcd_client::proto::{
    PbAlarmRequest, PbAlarmResponse, PbClusterService, PbDefragmentRequest, PbDefragmentResponse,
    PbDowngradeRequest, PbDowngradeResponse, PbHashKvRequest, PbHashKvResponse, PbHashRequest,
    PbHashResponse, PbMaintenanceService, PbMember, PbMemberAddRequest, PbMemberAddResponse,
    PbMemberListRequest, PbMemberListResponse, PbMemberPromoteRequest, PbMemberPromoteResponse,
    PbMemberRemoveRequest, PbMemberRemoveResponse, PbMemberUpdateRequest, PbMemberUpdateResponse,
    PbMoveLeaderRequest, PbMoveLeaderResponse, PbSnapshotRequest, PbSnapshotResponse, PbStatusRequest,
    PbStatusResponse,
};
use tonic::{Request, Response, Status, async_trait};

use super::{Api, not_served, sender};
use crate::mvcc::RAFT_TERM;

/// The version of etcd's API that this store speaks; clients choose by it what they may ask.
const API_VERSION: &str = "3.5.0";

#[async_trait]
impl PbMaintenanceService for Api {
    async fn alarm(&self, request: Request<PbAlarmRequest>) -> Result<Response<PbAlarmResponse>, Status> {
        sender(&request)?;
        let header = Some(self.shared.read().header());
        Ok(Response::new(PbAlarmResponse {
            header,
            alarms: Vec::new(),
        }))
    }

    async fn status(&self, request: Request<PbStatusRequest>) -> Result<Response<PbStatusResponse>, Status> {
        sender(&request)?;
        let core = self.shared.read();
        let sizes = core.sizes();
        let index = sizes.revision.unsigned_abs();
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        Ok(Response::new(PbStatusResponse {
            header: Some(core.header()),
            version: API_VERSION.to_owned(),
            db_size: bytes(sizes.bytes),
            db_size_in_use: bytes(sizes.bytes_live),
            leader: core.identity().member_id,
            raft_index: index,
            raft_applied_index: index,
            raft_term: RAFT_TERM,
            ..Default::default()
        }))
    }

    async fn defragment(
        &self,
        request: Request<PbDefragmentRequest>,
    ) -> Result<Response<PbDefragmentResponse>, Status> {
        self.shared.allow_write(&*sender(&request)?, b"defragment")?;
        // Memory is freed as it falls idle: nothing to do.
        Ok(Response::new(PbDefragmentResponse {
            header: Some(self.shared.read().header()),
        }))
    }

    async fn hash(&self, _: Request<PbHashRequest>) -> Result<Response<PbHashResponse>, Status> {
        Err(not_served("Maintenance.Hash"))
    }

    async fn hash_kv(&self, _: Request<PbHashKvRequest>) -> Result<Response<PbHashKvResponse>, Status> {
        Err(not_served("Maintenance.HashKV"))
    }

    type SnapshotStream = tokio_stream::Empty<Result<PbSnapshotResponse, Status>>;

    async fn snapshot(
        &self,
        _: Request<PbSnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(not_served("Maintenance.Snapshot"))
    }

    async fn move_leader(
        &self,
        _: Request<PbMoveLeaderRequest>,
    ) -> Result<Response<PbMoveLeaderResponse>, Status> {
        Err(not_served("Maintenance.MoveLeader"))
    }

    async fn downgrade(
        &self,
        _: Request<PbDowngradeRequest>,
    ) -> Result<Response<PbDowngradeResponse>, Status> {
        Err(not_served("Maintenance.Downgrade"))
    }
}

#[async_trait]
impl PbClusterService for Api {
    async fn member_list(
        &self,
        request: Request<PbMemberListRequest>,
    ) -> Result<Response<PbMemberListResponse>, Status> {
        sender(&request)?;
        let core = self.shared.read();
        let member = PbMember {
            id: core.identity().member_id,
            name: "clustermesh-apiserver".to_owned(),
            client_ur_ls: vec![self.url.to_string()],
            ..Default::default()
        };
        Ok(Response::new(PbMemberListResponse {
            header: Some(core.header()),
            members: vec![member],
        }))
    }

    async fn member_add(
        &self,
        _: Request<PbMemberAddRequest>,
    ) -> Result<Response<PbMemberAddResponse>, Status> {
        Err(not_served("Cluster.MemberAdd"))
    }

    async fn member_remove(
        &self,
        _: Request<PbMemberRemoveRequest>,
    ) -> Result<Response<PbMemberRemoveResponse>, Status> {
        Err(not_served("Cluster.MemberRemove"))
    }

    async fn member_update(
        &self,
        _: Request<PbMemberUpdateRequest>,
    ) -> Result<Response<PbMemberUpdateResponse>, Status> {
        Err(not_served("Cluster.MemberUpdate"))
    }

    async fn member_promote(
        &self,
        _: Request<PbMemberPromoteRequest>,
    ) -> Result<Response<PbMemberPromoteResponse>, Status> {
        Err(not_served("Cluster.MemberPromote"))
    }
}
