//! `v3electionpb.Election`: whoever stands first in line leads, and says a value.

use bytes::Bytes;
use quorate_proto::etcd::etcdserverpb::{PutRequest, ResponseHeader, TxnRequest, request_op};
use quorate_proto::etcd::v3electionpb::election_server::Election;
use quorate_proto::etcd::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use quorate_types::prefix_end;
use tonic::{Request, Response, Status};

use super::EtcdStore;
use super::queue::{Waiting, made_at, operation, prefix_of, step};
use super::streams::{Answers, Sender, sent_by};

/// The service.
#[derive(Clone, Debug)]
pub(super) struct ElectionService(pub(super) EtcdStore);

fn named(leader: Option<LeaderKey>) -> Result<LeaderKey, Status> {
    leader.ok_or_else(|| Status::unknown("\"leader\" field must be provided"))
}

impl EtcdStore {
    async fn proclaim(&self, leader: LeaderKey, value: Bytes) -> Result<ResponseHeader, Status> {
        let put = PutRequest {
            key: leader.key.clone(),
            value,
            lease: leader.lease,
            ..PutRequest::default()
        };
        let txn = TxnRequest {
            compare: vec![made_at(leader.key, leader.rev)],
            success: vec![operation(request_op::Request::RequestPut(put))],
            failure: Vec::new(),
        };
        let response = self.txn(txn, step()).await?;
        match response.succeeded {
            true => Ok(response.header.unwrap_or_default()),
            false => Err(Status::unknown("election: not leader")),
        }
    }

    /// Tells who leads, and each time that changes or the leader says something else.
    async fn observe(self, name: Bytes, told: Sender<LeaderResponse>) -> Result<(), Status> {
        let prefix = prefix_of(&name);
        let mut last = 0;
        loop {
            let (header, kv) = self.first(&name).await?;
            let seen = header.as_ref().map_or(0, |header| header.revision);
            let said = kv.as_ref().map_or(0, |kv| kv.mod_revision);
            if said != 0 && said != last {
                last = said;
                if told.send(Ok(LeaderResponse { header, kv })).await.is_err() {
                    return Ok(());
                }
            }
            let interval = (prefix.clone(), prefix_end(&prefix));
            tokio::select! {
                () = self.wait_change_in(interval, seen, false) => {}
                () = told.closed() => return Ok(()),
            }
        }
    }
}

#[tonic::async_trait]
impl Election for ElectionService {
    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        let store = &self.0;
        let CampaignRequest { name, lease, value } = request.into_inner();
        let lease = store.lease_or_new(lease).await?;
        let standing = store.stand(&name, lease, value.clone()).await?;
        let leader = LeaderKey {
            name: name.clone(),
            key: standing.key.clone(),
            rev: standing.revision,
            lease,
        };
        let waiting = Waiting::new(store, &standing);
        if standing.before.as_ref().is_some_and(|kv| kv.value != value) {
            store.proclaim(leader.clone(), value).await?;
        }
        store.wait_turn(&name, &standing).await?;
        let (header, first) = store.first(&name).await?;
        // The lease may have ended meanwhile.
        if first.is_none_or(|first| first.create_revision != standing.revision) {
            return Err(Status::unknown("election: session is expired"));
        }
        waiting.done();
        Ok(Response::new(CampaignResponse {
            header,
            leader: Some(leader),
        }))
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        let ProclaimRequest { leader, value } = request.into_inner();
        let header = self.0.proclaim(named(leader)?, value).await?;
        Ok(Response::new(ProclaimResponse {
            header: Some(header),
        }))
    }

    async fn leader(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<LeaderResponse>, Status> {
        let (header, kv) = self.0.first(&request.into_inner().name).await?;
        match kv {
            Some(kv) => Ok(Response::new(LeaderResponse {
                header,
                kv: Some(kv),
            })),
            None => Err(Status::unknown("election: no leader")),
        }
    }

    type ObserveStream = Answers<LeaderResponse>;

    async fn observe(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let name = request.into_inner().name;
        let store = self.0.clone();
        Ok(Response::new(sent_by(move |told| {
            store.observe(name, told)
        })))
    }

    async fn resign(
        &self,
        request: Request<ResignRequest>,
    ) -> Result<Response<ResignResponse>, Status> {
        let leader = named(request.into_inner().leader)?;
        let header = self.0.leave(leader.key, leader.rev).await?;
        Ok(Response::new(ResignResponse {
            header: Some(header),
        }))
    }
}
