//! What a replica of an etcd keyspace's range does for a gateway, its own or another's.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcd::etcdserverpb::response_op::Response;
use quorate_proto::etcd::etcdserverpb::{RangeRequest, RangeResponse, ResponseOp};
use quorate_proto::internal::etcd_answer::Answer;
use quorate_proto::internal::etcd_call::Call;
use quorate_proto::internal::{
    Command, EtcdAnswer, EtcdCall, EtcdKept, EtcdLease, EtcdLeaseLook, EtcdLeases, EtcdLook,
    EtcdLooked, EtcdRefused,
};
use quorate_raft::machine::etcd::{EtcdOutcome, RangeAnswer, Revisions, Span, key_value};
use quorate_raft::machine::leases::LeaseName;
use quorate_raft::machine::{ApplyOutcome, ApplyRefusal};
use quorate_raft::{Group, ProposeError, ReadError};
use quorate_storage::engine::{EngineError, ScanRequest};
use quorate_types::{LeaseId, RangeId, Revision};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::{errors, find, prefix};
use crate::gateway::Gateway;

/// Rows of one page of a range, and bytes that end it.
const PAGE_ROWS: usize = 1_000;
const PAGE_BYTES: usize = 1 << 20;
/// Longest that a peer may have this node work on a call.
const PEER_TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Why a replica did not serve a call.
pub(super) enum Missed {
    /// It had no effect; the leader, or another replica, may serve it.
    Elsewhere(Option<u64>),
    /// Nobody will, or it may have been done.
    Refused(Status),
}

impl From<Status> for Missed {
    fn from(status: Status) -> Self {
        Missed::Refused(status)
    }
}

impl From<ProposeError> for Missed {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader { hint } => Missed::Elsewhere(hint.map(|node| node.0)),
            ProposeError::NoMajority | ProposeError::Stopped => Missed::Elsewhere(None),
            ProposeError::Unknown => Missed::Refused(errors::timed_out()),
        }
    }
}

impl From<ReadError> for Missed {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotLeader { hint } => Missed::Elsewhere(hint.map(|node| node.0)),
            ReadError::NoMajority | ReadError::Stopped => Missed::Elsewhere(None),
            ReadError::TimedOut => Missed::Refused(errors::timed_out()),
        }
    }
}

impl From<EngineError> for Missed {
    fn from(error: EngineError) -> Self {
        Missed::Refused(Status::data_loss(format!("etcdserver: {error}")))
    }
}

impl Gateway {
    /// What another node's gateway asks of a replica here.
    pub(crate) async fn etcd_for_peer(&self, range: RangeId, call: EtcdCall) -> EtcdAnswer {
        let timeout = Duration::from_millis(u64::from(call.timeout_ms)).min(PEER_TIMEOUT_MAX);
        let deadline = Instant::now() + timeout;
        let catalog = self.node().catalog();
        let found = find(&catalog, &call.keyspace);
        let (Ok((keyspace, view)), Some(group), Some(call)) =
            (found, self.node().group(range), call.call)
        else {
            return refused(Missed::Elsewhere(None));
        };
        if view.id != range {
            return refused(Missed::Elsewhere(None));
        }
        self.etcd_here(&group, &prefix(keyspace), call, deadline)
            .await
    }

    /// Serves a call at a replica of this node.
    pub(super) async fn etcd_here(
        &self,
        group: &Arc<Group>,
        prefix: &Bytes,
        call: Call,
        deadline: Instant,
    ) -> EtcdAnswer {
        let served = match call {
            Call::Command(command) => decide(group, command, deadline).await,
            Call::Range(request) => {
                let answer = RangeAnswer::new(&request);
                let read = range(group, prefix, &request, answer, deadline).await;
                read.map(done)
            }
            Call::Page(request) => {
                let answer = RangeAnswer::page(&request);
                let read = range(group, prefix, &request, answer, deadline).await;
                read.map(done)
            }
            Call::Look(look) => look_at(group, look, deadline).await,
            Call::Keep(keep) => {
                let ids = keep.ids.into_iter().map(LeaseId).collect();
                let kept = group.keep_alive(ids, deadline).await;
                let answer = kept.map(|ttls| Answer::Kept(EtcdKept { ttls }));
                answer
                    .map(|answer| (group.etcd(Revisions::current), answer))
                    .map_err(Missed::from)
            }
            Call::Lease(look) => leases(group, prefix, look, deadline).await,
        };
        match served {
            Ok((revision, answer)) => EtcdAnswer {
                revision,
                term: group.applied().term,
                answer: Some(answer),
            },
            Err(missed) => refused(missed),
        }
    }
}

fn done(response: RangeResponse) -> (i64, Answer) {
    let revision = response.header.map_or(0, |header| header.revision);
    let response = Some(Response::ResponseRange(response));
    (revision, Answer::Done(ResponseOp { response }))
}

fn refused(missed: Missed) -> EtcdAnswer {
    let refused = match missed {
        Missed::Elsewhere(leader) => EtcdRefused {
            code: Code::Unavailable.into(),
            message: String::new(),
            elsewhere: true,
            leader: leader.unwrap_or(0),
        },
        Missed::Refused(status) => EtcdRefused {
            code: status.code().into(),
            message: status.message().to_owned(),
            elsewhere: false,
            leader: 0,
        },
    };
    EtcdAnswer {
        answer: Some(Answer::Refused(refused)),
        ..EtcdAnswer::default()
    }
}

async fn decide(
    group: &Arc<Group>,
    command: Command,
    deadline: Instant,
) -> Result<(i64, Answer), Missed> {
    let proposed = group.propose(command, deadline).await?;
    let current = || group.etcd(Revisions::current);
    Ok(match proposed.applied.outcome {
        ApplyOutcome::Etcd(outcome) => {
            let EtcdOutcome { revision, answer } = *outcome;
            let response = answer.map_err(errors::refused)?;
            (revision, Answer::Done(ResponseOp { response }))
        }
        ApplyOutcome::Compared { succeeded, .. } => (current(), Answer::Held(succeeded)),
        ApplyOutcome::Written { .. } => (current(), Answer::Held(true)),
        ApplyOutcome::Refused(ApplyRefusal::LeasesMany) => {
            let status =
                Status::resource_exhausted("etcdserver: as many leases as can be are there");
            return Err(status.into());
        }
        _ => return Err(super::strange().into()),
    })
}

async fn look_at(
    group: &Arc<Group>,
    look: EtcdLook,
    deadline: Instant,
) -> Result<(i64, Answer), Missed> {
    if look.linearizable {
        group.read_barrier(deadline).await?;
    }
    let looked = group.etcd(|revisions| {
        let moment = match look.revision {
            ..=0 => Ok(revisions.moment()),
            // One that is to come is waited for from now on.
            asked if asked > revisions.current() => Ok(revisions.moment()),
            asked => revisions.moment_of(asked),
        };
        // What was compacted is said by the oldest revision.
        let looked = EtcdLooked {
            compacted: revisions.compacted(),
            revision: revisions.at(Revision(look.moment)),
            moment: moment.map_or(0, |moment| moment.0),
            leader: group.leader().map_or(0, |node| node.0),
            index: group.applied().index,
        };
        (revisions.current(), Answer::Looked(looked))
    });
    Ok(looked)
}

async fn leases(
    group: &Arc<Group>,
    prefix: &Bytes,
    look: EtcdLeaseLook,
    deadline: Instant,
) -> Result<(i64, Answer), Missed> {
    group.read_barrier(deadline).await?;
    if !group.is_leader() {
        return Err(Missed::Elsewhere(group.leader().map(|node| node.0)));
    }
    let ids = match look.id {
        0 => group.lease_ids(),
        id => vec![LeaseId(id)],
    };
    let shown = ids.into_iter().filter_map(|id| {
        let (lease, left) = group.lease(id)?;
        let name = LeaseName {
            id,
            granted: lease.granted,
        };
        let keys = match look.keys {
            true => group.lease_keys(name),
            false => Vec::new(),
        };
        let user_key = |key: Bytes| key.slice(prefix.len().min(key.len())..);
        Some(EtcdLease {
            id: id.0,
            ttl: lease.ttl,
            remaining: u64::try_from(left.as_micros()).unwrap_or(u64::MAX),
            keys: keys.into_iter().map(user_key).collect(),
        })
    });
    let leases = EtcdLeases {
        leases: shown.collect(),
    };
    Ok((group.etcd(Revisions::current), Answer::Leases(leases)))
}

/// Reads a range: what was acknowledged before is in it, unless the client does not want that.
pub(super) async fn range(
    group: &Arc<Group>,
    prefix: &Bytes,
    request: &RangeRequest,
    answer: RangeAnswer<'_>,
    deadline: Instant,
) -> Result<RangeResponse, Missed> {
    if !request.serializable {
        group.read_barrier(deadline).await?;
    }
    loop {
        let (current, moment) = group.etcd(|revisions| (revisions.current(), revisions.moment()));
        if request.revision <= 0
            && request.range_end.is_empty()
            && let Some(response) = one(group, prefix, &request.key, answer.clone(), current)?
        {
            return Ok(response);
        }
        let at = match request.revision {
            ..=0 => moment,
            asked => group
                .etcd(|revisions| revisions.moment_of(asked))
                .map_err(errors::refused)?,
        };
        let mut walk = Walk::new(group, prefix, request, answer.clone(), at);
        loop {
            match walk.step() {
                Ok(true) => tokio::task::yield_now().await,
                Ok(false) => return Ok(walk.answer.finish(current)),
                // Compacted meanwhile: what is asked for is told anew.
                Err(Missed::Elsewhere(None)) => break,
                Err(missed) => return Err(missed),
            }
        }
    }
}

/// The newest state of one key; none: something has changed meanwhile, read it as of a moment.
fn one(
    group: &Group,
    prefix: &Bytes,
    key: &Bytes,
    mut answer: RangeAnswer<'_>,
    before: i64,
) -> Result<Option<RangeResponse>, EngineError> {
    let stored = [&prefix[..], &key[..]].concat();
    let version = group.table().get(&stored)?;
    // Under the machine's lock: what apply has made visible is counted by then.
    if group.etcd(Revisions::current) != before {
        return Ok(None);
    }
    if let Some(version) = version {
        answer.take(key_value(key.clone(), version)?);
    }
    Ok(Some(answer.finish(before)))
}

/// A range that is read page by page, as of one moment.
pub(super) struct Walk<'a> {
    group: &'a Group,
    prefix: &'a Bytes,
    next: Option<Bytes>,
    end: Bytes,
    at: Revision,
    pub(super) answer: RangeAnswer<'a>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        group: &'a Group,
        prefix: &'a Bytes,
        request: &RangeRequest,
        answer: RangeAnswer<'a>,
        at: Revision,
    ) -> Walk<'a> {
        let span = Span::of(&request.key, &request.range_end);
        let (start, end) = span.stored(prefix);
        Walk {
            group,
            prefix,
            // Before the first change there is nothing.
            next: (!span.is_empty() && at > Revision::ZERO).then_some(start),
            end,
            at,
            answer,
        }
    }

    /// Takes one page. False: it was the last.
    pub(super) fn step(&mut self) -> Result<bool, Missed> {
        let Some(start) = self.next.take() else {
            return Ok(false);
        };
        let keys_only = self.answer.only_counts();
        let page = self.group.table().scan(&ScanRequest {
            start,
            end: self.end.clone(),
            reverse: false,
            at: Some(self.at.0),
            rows_max: self.answer.wants().min(PAGE_ROWS),
            bytes_max: PAGE_BYTES,
            keys_only,
        });
        let page = page.map_err(|error| match error {
            EngineError::BelowFloor { .. } => Missed::Elsewhere(None),
            other => Missed::from(other),
        })?;
        for (key, version) in page.rows {
            if keys_only {
                self.answer.count();
                continue;
            }
            let key = key.slice(self.prefix.len().min(key.len())..);
            self.answer.take(key_value(key, version)?);
        }
        self.next = page.resume.filter(|_| self.answer.wants() > 0);
        Ok(self.next.is_some())
    }
}
