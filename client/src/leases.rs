//! Leases: keys that go when nobody says any more that they are needed; and the keeper, which says
//! so in the background and tells when it is of no use any more.

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::v1;
use quorate_types::limits::KEEP_ALIVES_MAX;
use quorate_types::{FieldError, LeaseId, Revision};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::answer::{Receipt, receipt};
use crate::attempts::Call;
use crate::client::Client;
use crate::error::ClientError;
use crate::options::WriteOptions;
use crate::request::{Request, Response};

/// A keeper renews when so much of the time is left as one part of these.
const RENEW_PARTS: u32 = 3;
/// After a keep-alive that failed, the next one waits so long.
const RENEW_PAUSE: Duration = Duration::from_millis(100);
/// The shortest time that a keep-alive is given.
const RENEW_TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// A lease that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// What puts name.
    pub id: LeaseId,
    /// How long it lives after the grant, and after each keep-alive.
    pub ttl: Duration,
    /// The revision that granted it.
    pub revision: Revision,
    /// Until then it lives for certain, by this machine's clock: counted from before it was asked
    /// for.
    pub lives_until: Instant,
    /// What was delivered.
    pub receipt: Receipt,
}

/// A lease as its range has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseShown {
    /// Which.
    pub id: LeaseId,
    /// As granted.
    pub ttl: Duration,
    /// Until it is over if nobody keeps it, as its leader counts.
    pub remaining: Duration,
    /// The revision that granted it.
    pub granted: Revision,
    /// The attached keys, in their order, if they were asked for.
    pub keys: Vec<Bytes>,
    /// What was delivered.
    pub receipt: Receipt,
}

/// A lease that was revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Keys that went with it at once; those in other ranges than the lease's follow within a
    /// second or two.
    pub deleted: u64,
    /// What was delivered.
    pub receipt: Receipt,
}

/// Why a lease cannot be relied on any more.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LeaseLost {
    /// Its range says that there is no such lease.
    #[error("the lease is over: it was revoked, or its time had come")]
    Over,
    /// No keep-alive was answered in time. It may live on, but nobody here can know.
    #[error("no keep-alive was answered in time: {0}")]
    Silence(ClientError),
}

impl Client {
    /// Grants a lease; without an id it gets one.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; reason `ALREADY_EXISTS` where the id is in use.
    pub async fn grant_lease(
        &self,
        ttl: Duration,
        id: Option<LeaseId>,
    ) -> Result<Granted, ClientError> {
        let asked = Instant::now();
        let request = Request::LeaseGrant(v1::LeaseGrantRequest {
            keyspace: self.keyspace.to_string(),
            id: id.map_or(0, |id| id.0),
            // The cluster says between which bounds it must lie.
            ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
            request_id: None,
        });
        match self.run(request, Call::default()).await? {
            Response::LeaseGrant(answer) => {
                let ttl = Duration::from_millis(answer.ttl_ms);
                Ok(Granted {
                    id: LeaseId(answer.id),
                    ttl,
                    revision: Revision(answer.revision),
                    lives_until: asked + ttl,
                    receipt: receipt(answer.receipt),
                })
            }
            _ => Err(ClientError::malformed("that of a grant")),
        }
    }

    /// Ends a lease; the keys that are attached to it are deleted.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; reason `LEASE_NOT_FOUND`.
    pub async fn revoke_lease(&self, id: LeaseId) -> Result<Revoked, ClientError> {
        let request = Request::LeaseRevoke(v1::LeaseRevokeRequest {
            keyspace: self.keyspace.to_string(),
            id: id.0,
            request_id: None,
        });
        match self.run(request, Call::default()).await? {
            Response::LeaseRevoke(answer) => Ok(Revoked {
                deleted: answer.deleted,
                receipt: receipt(answer.receipt),
            }),
            _ => Err(ClientError::malformed("that of a revocation")),
        }
    }

    /// What is left of a lease; with `keys` what is attached to it.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; reason `LEASE_NOT_FOUND`.
    pub async fn lease(&self, id: LeaseId, keys: bool) -> Result<LeaseShown, ClientError> {
        let request = Request::LeaseShow(v1::LeaseShowRequest {
            keyspace: self.keyspace.to_string(),
            id: id.0,
            keys,
            ..v1::LeaseShowRequest::default()
        });
        match self.run(request, Call::read(None)).await? {
            Response::LeaseShow(answer) => Ok(LeaseShown {
                id,
                ttl: Duration::from_millis(answer.ttl_ms),
                remaining: Duration::from_millis(answer.remaining_ms),
                granted: Revision(answer.granted),
                keys: answer.keys,
                receipt: receipt(answer.receipt),
            }),
            _ => Err(ClientError::malformed("that of a lease")),
        }
    }

    /// Gives leases their whole time again, once. For each: how long it lives from when its range
    /// decided so; none: there is no such lease.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]. A keep-alive can always be sent again.
    pub async fn renew_leases(
        &self,
        ids: &[LeaseId],
        timeout: Option<Duration>,
    ) -> Result<Vec<Option<Duration>>, ClientError> {
        if ids.is_empty() || ids.len() > KEEP_ALIVES_MAX {
            let problem = format!("{} leases; allowed: 1 to {KEEP_ALIVES_MAX}", ids.len());
            return Err(FieldError::new("ids", problem).into());
        }
        let request = Request::LeaseKeepAlive(v1::LeaseKeepAliveRequest {
            keyspace: self.keyspace.to_string(),
            ids: ids.iter().map(|id| id.0).collect(),
        });
        let options = WriteOptions {
            timeout,
            ..WriteOptions::default()
        };
        match self.run(request, Call::write(&options)).await? {
            Response::LeaseKeepAlive(answer) if answer.kept.len() == ids.len() => {
                let ttl = |kept: &v1::LeaseKept| {
                    (kept.ttl_ms > 0).then(|| Duration::from_millis(kept.ttl_ms))
                };
                Ok(answer.kept.iter().map(ttl).collect())
            }
            _ => Err(ClientError::malformed("that of a keep-alive")),
        }
    }

    /// Keeps a lease alive in the background, until it is lost or the keeper is dropped. The lease
    /// itself stays when the keeper goes: [`Client::revoke_lease`] ends it at once.
    pub fn keep_lease(&self, granted: &Granted) -> LeaseKeeper {
        let (tell, lost) = watch::channel(None);
        let client = self.clone();
        let (id, ttl, until) = (granted.id, granted.ttl, granted.lives_until);
        let task = tokio::spawn(async move {
            let why = client.keep(id, ttl, until).await;
            tell.send_replace(Some(why));
        });
        LeaseKeeper { lost, task }
    }

    /// Renews until that is of no use, and says why.
    async fn keep(&self, id: LeaseId, ttl: Duration, mut lives_until: Instant) -> LeaseLost {
        let step = ttl / RENEW_PARTS;
        let mut next = lives_until.checked_sub(ttl - step).unwrap_or(lives_until);
        loop {
            tokio::time::sleep_until(next).await;
            let sent = Instant::now();
            let left = lives_until.saturating_duration_since(sent);
            let timeout = left.clamp(RENEW_TIMEOUT_MIN, self.timeout());
            match self.renew_leases(&[id], Some(timeout)).await.as_deref() {
                Ok([Some(ttl)]) => {
                    lives_until = sent + *ttl;
                    next = sent + step;
                }
                Ok(_) => return LeaseLost::Over,
                Err(error) if Instant::now() + RENEW_PAUSE >= lives_until => {
                    return LeaseLost::Silence(error.clone());
                }
                Err(_) => next = Instant::now() + RENEW_PAUSE,
            }
        }
    }
}

/// Keeps one lease alive while it is there.
#[derive(Debug)]
pub struct LeaseKeeper {
    lost: watch::Receiver<Option<LeaseLost>>,
    task: JoinHandle<()>,
}

impl LeaseKeeper {
    /// Waits until the lease is lost. What depends on it must stop then; what was on its way can
    /// only be kept out by a fencing token.
    pub async fn lost(&mut self) -> LeaseLost {
        match self.lost.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or(LeaseLost::Over),
            Err(_) => LeaseLost::Over,
        }
    }

    /// Whether it is lost by now.
    pub fn is_lost(&self) -> bool {
        self.lost.borrow().is_some()
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}
