//! `etcdserverpb.Lease`.

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use quorate_proto::etcd::etcdserverpb::lease_server::Lease;
use quorate_proto::etcd::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use quorate_proto::internal::etcd_answer::Answer;
use quorate_proto::internal::etcd_call::Call;
use quorate_proto::internal::{
    EtcdLease, EtcdLeaseLook, LeaseGrant, LeaseRenew, LeaseRevoke, command,
};
use quorate_types::LeaseId;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::{EtcdStore, TIMEOUT_DEFAULT, deadline_of, errors, strange};

/// Longest time to live, seconds.
const TTL_MAX_SECONDS: i64 = 9_000_000_000;
/// Shortest: less is raised to it, as etcd does with its usual times of election.
const TTL_MIN_SECONDS: i64 = 2;
const MICROSECONDS: i64 = 1_000_000;
/// Keep-alives of one stream in work at the same time; more are not read.
const KEEP_ALIVES_IN_WORK_MAX: usize = 64;

impl EtcdStore {
    /// Makes a lease; an id of 0 has one drawn.
    ///
    /// # Errors
    ///
    /// As etcd's `LeaseGrant`.
    pub(crate) async fn lease_grant(
        &self,
        request: LeaseGrantRequest,
        deadline: Instant,
    ) -> Result<LeaseGrantResponse, Status> {
        if request.ttl > TTL_MAX_SECONDS {
            return Err(errors::lease_ttl_too_large());
        }
        let ttl = request.ttl.max(TTL_MIN_SECONDS);
        let id = match request.id {
            0 => self.drawn_lease()?,
            id => id,
        };
        let grant = LeaseGrant {
            id: id.cast_unsigned(),
            ttl: (ttl * MICROSECONDS).cast_unsigned(),
        };
        let operation = command::Operation::LeaseGrant(grant);
        let answered = self.decide(operation, deadline).await?;
        match answered.answer {
            Some(Answer::Held(true)) => Ok(LeaseGrantResponse {
                header: Some(self.header(answered.revision, answered.term)),
                id,
                ttl,
                error: String::new(),
            }),
            Some(Answer::Held(false)) => Err(errors::lease_exists()),
            _ => Err(strange()),
        }
    }

    fn drawn_lease(&self) -> Result<i64, Status> {
        let name = self.gateway.name_of(None)?;
        Ok(LeaseId::drawn(&name.id).0.cast_signed())
    }

    async fn lease_revoke(
        &self,
        request: LeaseRevokeRequest,
        deadline: Instant,
    ) -> Result<LeaseRevokeResponse, Status> {
        let revoke = LeaseRevoke {
            id: request.id.cast_unsigned(),
        };
        let operation = command::Operation::LeaseRevoke(revoke);
        let answered = self.decide(operation, deadline).await?;
        match answered.answer {
            Some(Answer::Held(true)) => Ok(LeaseRevokeResponse {
                header: Some(self.header(answered.revision, answered.term)),
            }),
            Some(Answer::Held(false)) => Err(errors::lease_not_found()),
            _ => Err(strange()),
        }
    }

    /// Gives a lease its whole time again; one that is not there is answered with no time.
    async fn keep_alive(&self, id: i64) -> Result<LeaseKeepAliveResponse, Status> {
        let keep = LeaseRenew {
            ids: vec![id.cast_unsigned()],
        };
        let deadline = Instant::now() + TIMEOUT_DEFAULT;
        let answered = self.call(Call::Keep(keep), deadline).await?;
        let Some(Answer::Kept(kept)) = answered.answer else {
            return Err(strange());
        };
        let ttl = kept.ttls.first().copied().unwrap_or(0);
        Ok(LeaseKeepAliveResponse {
            header: Some(self.header(answered.revision, answered.term)),
            id,
            ttl: ttl.cast_signed() / MICROSECONDS,
        })
    }

    async fn leases(
        &self,
        look: EtcdLeaseLook,
        deadline: Instant,
    ) -> Result<(super::ResponseHeader, Vec<EtcdLease>), Status> {
        let answered = self.call(Call::Lease(look), deadline).await?;
        match answered.answer {
            Some(Answer::Leases(leases)) => {
                Ok((self.header(answered.revision, answered.term), leases.leases))
            }
            _ => Err(strange()),
        }
    }

    async fn time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
        deadline: Instant,
    ) -> Result<LeaseTimeToLiveResponse, Status> {
        let look = EtcdLeaseLook {
            id: request.id.cast_unsigned(),
            keys: request.keys,
        };
        // An id of 0 would mean all of them.
        let (header, leases) = match look.id {
            0 => (self.leases(look, deadline).await?.0, Vec::new()),
            _ => self.leases(look, deadline).await?,
        };
        let gone = LeaseTimeToLiveResponse {
            header: Some(header),
            id: request.id,
            ttl: -1,
            ..LeaseTimeToLiveResponse::default()
        };
        let Some(lease) = leases.into_iter().next() else {
            return Ok(gone);
        };
        let left = Duration::from_micros(lease.remaining);
        Ok(LeaseTimeToLiveResponse {
            ttl: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            granted_ttl: lease.ttl.cast_signed() / MICROSECONDS,
            keys: lease.keys,
            ..gone
        })
    }
}

/// The service.
#[derive(Clone, Debug)]
pub(super) struct LeaseService(pub(super) EtcdStore);

#[tonic::async_trait]
impl Lease for LeaseService {
    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let deadline = deadline_of(request.metadata())?;
        let response = self.0.lease_grant(request.into_inner(), deadline).await?;
        Ok(Response::new(response))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let deadline = deadline_of(request.metadata())?;
        let response = self.0.lease_revoke(request.into_inner(), deadline).await?;
        Ok(Response::new(response))
    }

    type LeaseKeepAliveStream =
        Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let store = self.0.clone();
        let kept = request.into_inner().map(move |asked| {
            let store = store.clone();
            async move { store.keep_alive(asked?.id).await }
        });
        let kept = kept.buffered(KEEP_ALIVES_IN_WORK_MAX);
        Ok(Response::new(Box::pin(kept)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let deadline = deadline_of(request.metadata())?;
        let response = self.0.time_to_live(request.into_inner(), deadline).await?;
        Ok(Response::new(response))
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let deadline = deadline_of(request.metadata())?;
        let (header, leases) = self.0.leases(EtcdLeaseLook::default(), deadline).await?;
        let leases = leases.into_iter().map(|lease| LeaseStatus {
            id: lease.id.cast_signed(),
        });
        Ok(Response::new(LeaseLeasesResponse {
            header: Some(header),
            leases: leases.collect(),
        }))
    }
}
