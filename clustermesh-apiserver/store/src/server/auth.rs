//! Service Auth, the reading part: users and roles are fixed by certificates, so there is nothing to change.
//!
//! Routed by hand, because etcd-client does not export the messages of AuthStatus, and its service trait cannot be
//! written down without them.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use etcd_client::proto::{
    PbAuthRoleGetRequest, PbAuthRoleGetResponse, PbAuthRoleListRequest, PbAuthRoleListResponse,
    PbAuthUserGetRequest, PbAuthUserGetResponse, PbAuthUserListRequest, PbAuthUserListResponse,
    PbResponseHeader,
};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::{Api, not_served, sender};
use crate::access::Role;
use crate::error::StoreError;
use crate::shared::Peer;

/// `AuthStatusRequest` of the API.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct AuthStatusRequest {}

/// `AuthStatusResponse` of the API.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AuthStatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<PbResponseHeader>,
    #[prost(bool, tag = "2")]
    enabled: bool,
    #[prost(uint64, tag = "3")]
    auth_revision: u64,
}

/// Users and roles never change while the server runs.
const AUTH_REVISION: u64 = 1;
/// `Permission.Type` of the API.
const READ: i32 = 0;
const READ_WRITE: i32 = 2;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct AuthApi(pub(crate) Api);

impl NamedService for AuthApi {
    const NAME: &'static str = "etcdserverpb.Auth";
}

type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Service<http::Request<Body>> for AuthApi {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let api = self.0.clone();
        Box::pin(async move {
            let method = request
                .uri()
                .path()
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .to_owned();
            Ok(match method.as_str() {
                "AuthStatus" => unary(request, api, Api::auth_status).await,
                "UserList" => unary(request, api, Api::user_list).await,
                "UserGet" => unary(request, api, Api::user_get).await,
                "RoleList" => unary(request, api, Api::role_list).await,
                "RoleGet" => unary(request, api, Api::role_get).await,
                other => not_served(&format!("Auth.{other}")).into_http(),
            })
        })
    }
}

/// A plain function as a gRPC method.
struct Method<A, B> {
    api: Api,
    answer: fn(&Api, &Peer, &A) -> Result<B, StoreError>,
}

impl<A, B: Send + 'static> UnaryService<A> for Method<A, B> {
    type Response = B;
    type Future = std::future::Ready<Result<Response<B>, Status>>;

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let answer = sender(&request)
            .and_then(|peer| (self.answer)(&self.api, &peer, request.get_ref()).map_err(Status::from));
        std::future::ready(answer.map(Response::new))
    }
}

async fn unary<A, B>(
    request: http::Request<Body>,
    api: Api,
    answer: fn(&Api, &Peer, &A) -> Result<B, StoreError>,
) -> http::Response<Body>
where
    A: prost::Message + Default + Send + Sync + 'static,
    B: prost::Message + Default + Send + Sync + 'static,
{
    Grpc::new(ProstCodec::<B, A>::default())
        .unary(Method { api, answer }, request)
        .await
}

impl Api {
    fn header(&self) -> Option<PbResponseHeader> {
        Some(self.shared.read().header())
    }

    fn auth_status(&self, _: &Peer, _: &AuthStatusRequest) -> Result<AuthStatusResponse, StoreError> {
        Ok(AuthStatusResponse {
            header: self.header(),
            enabled: true,
            auth_revision: AUTH_REVISION,
        })
    }

    fn user_list(
        &self,
        peer: &Peer,
        _: &PbAuthUserListRequest,
    ) -> Result<PbAuthUserListResponse, StoreError> {
        self.shared.allow_write(peer, b"user list")?;
        let mut users = self.shared.policy.users();
        let clients = crate::shared::lock(&self.shared.clients);
        users.extend(
            clients
                .values()
                .filter(|peer| peer.role.is_some())
                .map(|peer| peer.common_name.clone()),
        );
        drop(clients);
        users.sort_unstable();
        users.dedup();
        Ok(PbAuthUserListResponse {
            header: self.header(),
            users,
        })
    }

    fn user_get(
        &self,
        peer: &Peer,
        request: &PbAuthUserGetRequest,
    ) -> Result<PbAuthUserGetResponse, StoreError> {
        if request.name != peer.common_name {
            self.shared.allow_write(peer, b"user get")?;
        }
        let role = self
            .shared
            .policy
            .role(&request.name)
            .ok_or(StoreError::UserNotFound)?;
        Ok(PbAuthUserGetResponse {
            header: self.header(),
            roles: vec![role.name().to_owned()],
        })
    }

    fn role_list(
        &self,
        peer: &Peer,
        _: &PbAuthRoleListRequest,
    ) -> Result<PbAuthRoleListResponse, StoreError> {
        self.shared.allow_write(peer, b"role list")?;
        let roles = Role::ALL.iter().map(|role| role.name().to_owned()).collect();
        Ok(PbAuthRoleListResponse {
            header: self.header(),
            roles,
        })
    }

    fn role_get(
        &self,
        peer: &Peer,
        request: &PbAuthRoleGetRequest,
    ) -> Result<PbAuthRoleGetResponse, StoreError> {
        let role = Role::ALL.into_iter().find(|role| role.name() == request.role);
        if role.is_none() || role != peer.role {
            self.shared.allow_write(peer, b"role get")?;
        }
        let role = role.ok_or(StoreError::RoleNotFound)?;
        let mut response = PbAuthRoleGetResponse {
            header: self.header(),
            ..Default::default()
        };
        for (key, range_end) in self.shared.policy.readable(role) {
            response.perm.push(Default::default());
            if let Some(permission) = response.perm.last_mut() {
                permission.perm_type = if role == Role::Root { READ_WRITE } else { READ };
                permission.key = key;
                permission.range_end = range_end;
            }
        }
        Ok(response)
    }
}
