//! `v3lockpb.Lock`: whoever stands first in line holds the lock, as long as its lease lives. The
//! create revision of its key is a fencing token.

use quorate_proto::etcd::etcdserverpb::{DeleteRangeRequest, RangeRequest};
use quorate_proto::etcd::v3lockpb::lock_server::Lock;
use quorate_proto::etcd::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tonic::{Request, Response, Status};

use super::EtcdStore;
use super::queue::{Waiting, step};

/// The service.
#[derive(Clone, Debug)]
pub(super) struct LockService(pub(super) EtcdStore);

#[tonic::async_trait]
impl Lock for LockService {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let store = &self.0;
        let LockRequest { name, lease } = request.into_inner();
        let lease = store.lease_or_new(lease).await?;
        let standing = store.stand(&name, lease, Default::default()).await?;
        let waiting = Waiting::new(store, &standing);
        store.wait_turn(&name, &standing).await?;
        let own = RangeRequest {
            key: standing.key.clone(),
            ..RangeRequest::default()
        };
        let own = store.range(own, step()).await?;
        if own.kvs.is_empty() {
            return Err(Status::unknown("mutex: session is expired"));
        }
        waiting.done();
        Ok(Response::new(LockResponse {
            header: own.header,
            key: standing.key,
        }))
    }

    async fn unlock(
        &self,
        request: Request<UnlockRequest>,
    ) -> Result<Response<UnlockResponse>, Status> {
        let delete = DeleteRangeRequest {
            key: request.into_inner().key,
            ..DeleteRangeRequest::default()
        };
        let response = self.0.delete_range(delete, step()).await?;
        Ok(Response::new(UnlockResponse {
            header: response.header,
        }))
    }
}
