//! `etcdserverpb.Cluster` and `Auth`: who is there, and that everybody may.

use quorate_proto::etcd::etcdserverpb::auth_server::Auth;
use quorate_proto::etcd::etcdserverpb::cluster_server::Cluster;
use quorate_proto::etcd::etcdserverpb::{
    AuthStatusRequest, AuthStatusResponse, Member, MemberAddRequest, MemberAddResponse,
    MemberListRequest, MemberListResponse, MemberPromoteRequest, MemberPromoteResponse,
    MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse,
};
use quorate_proto::internal::EtcdLook;
use quorate_proto::v1;
use tonic::{Request, Response, Status};

use super::{EtcdStore, deadline_of, errors};

/// The service of members.
#[derive(Clone, Debug)]
pub(super) struct ClusterService(pub(super) EtcdStore);

/// A node as etcd's clients see a member.
fn member(node: v1::NodeStatus) -> Member {
    let url = |address: String| match address.is_empty() {
        true => Vec::new(),
        false => vec![format!("http://{address}")],
    };
    Member {
        id: node.id,
        name: format!("node-{}", node.id),
        peer_ur_ls: url(node.endpoint),
        client_ur_ls: url(node.etcd),
        is_learner: false,
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        let deadline = deadline_of(request.metadata())?;
        let look = EtcdLook {
            linearizable: request.into_inner().linearizable,
            ..EtcdLook::default()
        };
        let (answered, _) = self.0.look(look, deadline).await?;
        let status = self.0.gateway.status().await;
        Ok(Response::new(MemberListResponse {
            header: Some(self.0.header(answered.revision, answered.term)),
            members: status.nodes.into_iter().map(member).collect(),
        }))
    }

    async fn member_add(
        &self,
        _: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        Err(errors::not_served("MemberAdd"))
    }

    async fn member_remove(
        &self,
        _: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        Err(errors::not_served("MemberRemove"))
    }

    async fn member_update(
        &self,
        _: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        Err(errors::not_served("MemberUpdate"))
    }

    async fn member_promote(
        &self,
        _: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        Err(errors::not_served("MemberPromote"))
    }
}

/// The service of users, of which there are none.
#[derive(Clone, Debug)]
pub(super) struct AuthService(pub(super) EtcdStore);

#[tonic::async_trait]
impl Auth for AuthService {
    async fn auth_status(
        &self,
        request: Request<AuthStatusRequest>,
    ) -> Result<Response<AuthStatusResponse>, Status> {
        let deadline = deadline_of(request.metadata())?;
        let (answered, _) = self.0.look(EtcdLook::default(), deadline).await?;
        Ok(Response::new(AuthStatusResponse {
            header: Some(self.0.header(answered.revision, answered.term)),
            enabled: false,
            auth_revision: 1,
        }))
    }
}
