//! etcd's v3 API over one keyspace of Quorate's (`keyspace create NAME --api etcd`): services that
//! etcd's clients speak to, unchanged.
//!
//! A request becomes an [`EtcdCall`], which a replica of the keyspace's one range serves: this
//! node's or another's, changes the leader's (`here`). What it means is decided in the log
//! (`quorate_raft::machine::etcd`). Served and not served: docs/ETCD.md.

mod cluster;
mod election;
mod errors;
mod here;
mod json;
mod kv;
mod lease;
mod lock;
mod maintenance;
mod pages;
mod queue;
mod schemas;
mod serve;
mod streams;
mod validate;
mod watch;

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcd::etcdserverpb::ResponseHeader;
use quorate_proto::internal::etcd_answer::Answer;
use quorate_proto::internal::etcd_call::Call;
use quorate_proto::internal::{EtcdAnswer, EtcdCall, EtcdLook, EtcdLooked};
use quorate_raft::{CallError, CatalogView, KeyspaceView, RangeView};
use quorate_types::{Api, NodeId, stable_hash, user_interval};
use tokio::time::Instant;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::deadline;
use crate::gateway::Gateway;

pub use self::serve::{EtcdOptions, serve_etcd};

/// How long a request may take whose client does not say: as etcd's own servers have it.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(7);
/// Pause before the next try, where nobody could serve a request.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// The store that etcd's clients see: one keyspace, through one gateway. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct EtcdStore {
    gateway: Gateway,
    keyspace: String,
}

/// An answer, and how far the store was.
#[derive(Debug)]
pub(crate) struct Answered {
    revision: i64,
    term: u64,
    answer: Option<Answer>,
}

/// The keyspace, and its one range.
fn find<'a>(
    catalog: &'a CatalogView,
    name: &str,
) -> Result<(&'a KeyspaceView, &'a RangeView), Status> {
    let missing = || {
        Status::unavailable(format!(
            "etcdserver: there is no keyspace `{name}` with etcd's API; `quorate keyspace create {name} --api etcd` makes it"
        ))
    };
    let keyspace = catalog.keyspace(name).ok_or_else(missing)?;
    match (keyspace.options.api, &keyspace.ranges[..]) {
        (Api::Etcd, [range]) => Ok((keyspace, range)),
        _ => Err(missing()),
    }
}

/// What stands before each key of a keyspace, as it is stored.
fn prefix(keyspace: &KeyspaceView) -> Bytes {
    user_interval(keyspace.id, None, &[], &[]).start
}

/// When a call must be answered.
fn deadline_of(metadata: &MetadataMap) -> Result<Instant, Status> {
    let now = Instant::now();
    if metadata.get(deadline::TIMEOUT_HEADER).is_none() {
        return Ok(now + TIMEOUT_DEFAULT);
    }
    Ok(deadline::of_call(metadata, now)?)
}

impl EtcdStore {
    pub(crate) fn new(gateway: Gateway, keyspace: String) -> EtcdStore {
        EtcdStore { gateway, keyspace }
    }

    /// A header as etcd's clients expect it first in each answer.
    pub(crate) fn header(&self, revision: i64, term: u64) -> ResponseHeader {
        ResponseHeader {
            cluster_id: stable_hash(self.gateway.node().cluster().as_bytes()),
            member_id: self.gateway.node_id().0,
            revision,
            raft_term: term,
        }
    }

    /// Has a replica serve a call: the leader, or one here where any will do.
    ///
    /// # Errors
    ///
    /// What was refused; or, once the time is up, that nobody served it. A change whose answer was
    /// lost may have been done: it is not tried again.
    pub(crate) async fn call(&self, call: Call, deadline: Instant) -> Result<Answered, Status> {
        let mut hint = None;
        loop {
            if self.gateway.is_stopping() {
                return Err(errors::stopped());
            }
            let (answer, is_lost) = self.try_once(&call, hint.take(), deadline).await?;
            match answer {
                Some(EtcdAnswer {
                    answer: Some(Answer::Refused(refused)),
                    ..
                }) if refused.elsewhere => {
                    hint = (refused.leader != 0).then_some(NodeId(refused.leader));
                }
                Some(EtcdAnswer {
                    answer: Some(Answer::Refused(refused)),
                    ..
                }) => return Err(Status::new(refused.code.into(), refused.message)),
                Some(answer) => {
                    return Ok(Answered {
                        revision: answer.revision,
                        term: answer.term,
                        answer: answer.answer,
                    });
                }
                None if is_lost && matches!(call, Call::Command(_)) => {
                    return Err(errors::timed_out());
                }
                None => {}
            }
            let pause = Instant::now() + RETRY_PAUSE;
            if pause >= deadline {
                return Err(errors::timed_out());
            }
            if hint.is_none_or(|node| node == self.gateway.node_id()) {
                tokio::time::sleep_until(pause).await;
            }
        }
    }

    /// One try. No answer: nobody was there to give it, or it was lost.
    async fn try_once(
        &self,
        call: &Call,
        hint: Option<NodeId>,
        deadline: Instant,
    ) -> Result<(Option<EtcdAnswer>, bool), Status> {
        let catalog = self.gateway.node().catalog();
        let (keyspace, range) = find(&catalog, &self.keyspace)?;
        let here = self.gateway.node().group(range.id);
        let leader = hint.or_else(|| here.as_ref()?.leader());
        let me = self.gateway.node_id();
        if let Some(group) = &here
            && (!needs_leader(call) || leader.is_none_or(|leader| leader == me))
        {
            let prefix = prefix(keyspace);
            let answer = self
                .gateway
                .etcd_here(group, &prefix, call.clone(), deadline);
            return Ok((Some(answer.await), false));
        }
        let reachable = |node: &&NodeId| self.gateway.node().peer_reachable(**node);
        let node = leader.or_else(|| range.replicas.iter().find(reachable).copied());
        let Some(node) = node.filter(|node| reachable(&node)) else {
            return Ok((None, false));
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let sent = EtcdCall {
            keyspace: self.keyspace.clone(),
            timeout_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
            call: Some(call.clone()),
        };
        let asking = self.gateway.node().ask_etcd(node, range.id, sent, left);
        Ok(match self.gateway.while_reachable(node, asking).await {
            Ok(answer) => (Some(answer), false),
            Err(CallError::NotSent(_)) => (None, false),
            Err(CallError::Lost | CallError::TimedOut | CallError::Refused(_)) => (None, true),
        })
    }

    /// How far the store is.
    pub(crate) async fn look(
        &self,
        look: EtcdLook,
        deadline: Instant,
    ) -> Result<(Answered, EtcdLooked), Status> {
        let mut answered = self.call(Call::Look(look), deadline).await?;
        match answered.answer.take() {
            Some(Answer::Looked(looked)) => Ok((answered, looked)),
            _ => Err(strange()),
        }
    }
}

/// Changes are decided by the leader, and leases are measured there.
fn needs_leader(call: &Call) -> bool {
    match call {
        Call::Command(_) | Call::Keep(_) | Call::Lease(_) => true,
        Call::Range(_) | Call::Page(_) | Call::Look(_) => false,
    }
}

fn strange() -> Status {
    Status::internal("etcdserver: an answer of another kind")
}
