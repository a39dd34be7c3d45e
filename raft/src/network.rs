//! openraft's network, on calls between peers: one value per group and target. Appends are
//! pipelined in a bounded window; snapshots are fragmented in `transfer`.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::v2::RaftNetworkV2;
use openraft::network::{RPCOption, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend};
use parking_lot::Mutex;
use quorate_proto::internal as wire;
use quorate_proto::internal::envelope::Body;
use quorate_types::{NodeId, RangeId};

use crate::appends::{Merged, Paced};
use crate::consensus::{
    Consensus, LogId, Vote, log_id_from_wire, log_id_term, log_id_to_wire, payload_of,
    vote_from_wire, vote_to_wire,
};
use crate::peer::{CallError, Calls, Class};
use crate::snapshot::SnapshotData;

/// Appends of one group to one follower that may be under way at once. It bounds what a leader
/// holds in memory for a follower that does not answer.
const APPENDS_IN_FLIGHT_MAX: usize = 32;
/// A follower that has not answered an append by then is treated as unreachable.
const APPEND_TIMEOUT: Duration = Duration::from_millis(2_000);

pub(crate) type Snapshot = openraft::type_config::alias::SnapshotOf<Consensus, SnapshotData>;

/// Makes the networks of one group.
#[derive(Clone, Debug)]
pub(crate) struct Factory {
    pub(crate) range: RangeId,
    pub(crate) calls: Arc<Calls>,
    pub(crate) acknowledged: Arc<Acknowledged>,
}

/// Up to where followers have acknowledged a leader's entries, for receipts: openraft tells only
/// that a majority has. Noted before openraft hears of it, so whoever made an entry decided is
/// there when it is applied.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged(Mutex<BTreeMap<NodeId, LogId>>);

impl Acknowledged {
    fn note(&self, node: NodeId, upto: LogId) {
        let mut followers = self.0.lock();
        let known = followers.entry(node).or_insert(upto);
        *known = upto.max(*known);
    }

    /// Who has acknowledged an entry in the term in which it was made.
    pub(crate) fn of(&self, entry: &LogId) -> Vec<NodeId> {
        let term = log_id_term(entry);
        let has = |upto: &LogId| log_id_term(upto) == term && upto.index >= entry.index;
        let followers = self.0.lock();
        let having = followers.iter().filter(|(_, upto)| has(upto));
        having.map(|(node, _)| *node).collect()
    }
}

impl RaftNetworkFactory<Consensus> for Factory {
    type Network = Network;

    async fn new_client(&mut self, target: u64, _node: &openraft::impls::EmptyNode) -> Network {
        Network {
            range: self.range,
            target: NodeId(target),
            calls: self.calls.clone(),
            acknowledged: self.acknowledged.clone(),
            is_followed: Arc::default(),
        }
    }
}

/// One group's way to one node.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) range: RangeId,
    pub(crate) target: NodeId,
    pub(crate) calls: Arc<Calls>,
    acknowledged: Arc<Acknowledged>,
    /// Whether somebody waits for commits there, as its last answer said.
    is_followed: Arc<AtomicBool>,
}

impl Network {
    pub(crate) async fn call(
        &self,
        class: Class,
        body: Body,
        timeout: Duration,
    ) -> Result<Body, CallError> {
        self.calls
            .call(self.target, class, self.range.0, body, timeout)
            .await
    }

    async fn append(
        &self,
        request: AppendEntriesRequest<Consensus>,
    ) -> Result<AppendEntriesResponse<Consensus>, RPCError<Consensus>> {
        let body = Body::Append(append_to_wire(&request));
        match self.call(Class::Consensus, body, APPEND_TIMEOUT).await {
            Ok(Body::AppendResponse(response)) => {
                let is_followed = response.is_followed;
                self.is_followed.store(is_followed, Ordering::Relaxed);
                append_response_from_wire(&response)
            }
            other => Err(unexpected(other)),
        }
    }
}

fn unexpected<T>(result: Result<Body, T>) -> RPCError<Consensus>
where
    T: std::error::Error + 'static,
{
    match result {
        Err(error) => RPCError::Unreachable(Unreachable::new(&error)),
        Ok(_) => RPCError::Unreachable(Unreachable::new(&AnyError::error(
            "an answer of another kind",
        ))),
    }
}

/// A request as it travels.
pub(crate) fn append_to_wire(request: &AppendEntriesRequest<Consensus>) -> wire::AppendRequest {
    let entries = request.entries.iter().map(|entry| wire::Entry {
        term: log_id_term(&entry.log_id),
        index: entry.log_id.index,
        payload: payload_of(entry),
    });
    wire::AppendRequest {
        vote: Some(vote_to_wire(&request.vote)),
        previous: request.prev_log_id.as_ref().map(log_id_to_wire),
        committed: request.leader_commit.as_ref().map(log_id_to_wire),
        entries: entries.collect(),
    }
}

/// The inverse of [`append_to_wire`].
pub(crate) fn append_from_wire(
    request: wire::AppendRequest,
) -> Result<AppendEntriesRequest<Consensus>, std::io::Error> {
    let entries = request
        .entries
        .into_iter()
        .map(|e| crate::consensus::entry_of(e.term, e.index, e.payload))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(AppendEntriesRequest {
        vote: vote_from_wire(&request.vote.unwrap_or_default()),
        prev_log_id: request.previous.as_ref().map(log_id_from_wire),
        entries,
        leader_commit: request.committed.as_ref().map(log_id_from_wire),
    })
}

pub(crate) fn append_response_to_wire(
    response: &AppendEntriesResponse<Consensus>,
) -> wire::AppendResponse {
    use wire::append_response::Kind;
    let (kind, log_id, vote) = match response {
        AppendEntriesResponse::Success => (Kind::Success, None, None),
        AppendEntriesResponse::PartialSuccess(id) => {
            (Kind::Partial, id.as_ref().map(log_id_to_wire), None)
        }
        AppendEntriesResponse::Conflict => (Kind::Conflict, None, None),
        AppendEntriesResponse::HigherVote(vote) => {
            (Kind::HigherVote, None, Some(vote_to_wire(vote)))
        }
    };
    wire::AppendResponse {
        kind: kind.into(),
        log_id,
        vote,
        is_followed: false,
    }
}

fn append_response_from_wire(
    response: &wire::AppendResponse,
) -> Result<AppendEntriesResponse<Consensus>, RPCError<Consensus>> {
    use wire::append_response::Kind;
    Ok(match response.kind() {
        Kind::Success => AppendEntriesResponse::Success,
        Kind::Partial => {
            AppendEntriesResponse::PartialSuccess(response.log_id.as_ref().map(log_id_from_wire))
        }
        Kind::Conflict => AppendEntriesResponse::Conflict,
        Kind::HigherVote => {
            AppendEntriesResponse::HigherVote(vote_from_wire(&response.vote.unwrap_or_default()))
        }
    })
}

pub(crate) fn vote_request_to_wire(
    request: &VoteRequest<Consensus>,
    pre_vote: bool,
) -> wire::VoteRequest {
    wire::VoteRequest {
        vote: Some(vote_to_wire(&request.vote)),
        last: request.last_log_id.as_ref().map(log_id_to_wire),
        leadership_transfer: request.leadership_transfer,
        pre_vote,
    }
}

pub(crate) fn vote_request_from_wire(request: &wire::VoteRequest) -> VoteRequest<Consensus> {
    let vote = vote_from_wire(&request.vote.unwrap_or_default());
    let mut made = VoteRequest::new(vote, request.last.as_ref().map(log_id_from_wire));
    made.leadership_transfer = request.leadership_transfer;
    made
}

pub(crate) fn vote_response_to_wire(response: &VoteResponse<Consensus>) -> wire::VoteResponse {
    wire::VoteResponse {
        vote: Some(vote_to_wire(&response.vote)),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(log_id_to_wire),
    }
}

fn vote_response_from_wire(response: &wire::VoteResponse) -> VoteResponse<Consensus> {
    let vote: Vote = vote_from_wire(&response.vote.unwrap_or_default());
    let last: Option<LogId> = response.last.as_ref().map(log_id_from_wire);
    VoteResponse::new(vote, last, response.granted)
}

impl RaftNetworkV2<Consensus> for Network {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Consensus>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Consensus>, RPCError<Consensus>> {
        self.append(request).await
    }

    /// Pipelined: requests are sent in order, less those that [`Merged`] makes needless, at the pace
    /// of [`Paced`], up to the window, and answers are given in that order.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxedFuture<'s, Result<AppendStream<'s>, RPCError<Consensus>>>
    where
        S: Stream<Item = AppendEntriesRequest<Consensus>> + OptionalSend + Unpin + 'static,
    {
        let network = self.clone();
        let answers = Paced::new(Merged::new(input, self.is_followed.clone()))
            .map(move |(request, ticket)| {
                let network = network.clone();
                async move {
                    let previous = request.prev_log_id;
                    let last = request.entries.last().map(|e| e.log_id).or(previous);
                    let response = network.append(request).await;
                    drop(ticket);
                    let response = response?;
                    if let (AppendEntriesResponse::Success, Some(last)) = (&response, &last) {
                        network.acknowledged.note(network.target, *last);
                    }
                    Ok(response.into_stream_result(previous, last))
                }
            })
            .buffered(APPENDS_IN_FLIGHT_MAX);
        let answers: AppendStream<'s> = Box::pin(answers);
        Box::pin(std::future::ready(Ok(answers)))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Consensus>,
        option: RPCOption,
    ) -> Result<VoteResponse<Consensus>, RPCError<Consensus>> {
        let body = Body::Vote(vote_request_to_wire(&request, false));
        match self.call(Class::Consensus, body, option.hard_ttl()).await {
            Ok(Body::VoteResponse(response)) => Ok(vote_response_from_wire(&response)),
            other => Err(unexpected(other)),
        }
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Consensus>,
        option: RPCOption,
    ) -> Result<VoteResponse<Consensus>, RPCError<Consensus>> {
        let body = Body::Vote(vote_request_to_wire(&request, true));
        match self.call(Class::Consensus, body, option.hard_ttl()).await {
            Ok(Body::VoteResponse(response)) => Ok(vote_response_from_wire(&response)),
            other => Err(unexpected(other)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Consensus>, StreamingError<Consensus>> {
        let sending = self.send_snapshot(vote, snapshot);
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = sending => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Consensus>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Consensus>, RPCError<Consensus>> {
        let body = Body::TransferLeader(wire::TransferLeader {
            from: Some(vote_to_wire(request.from_leader())),
            to: *request.to_node_id(),
            last: request.last_log_id().map(log_id_to_wire),
        });
        match self.call(Class::Consensus, body, option.hard_ttl()).await {
            Ok(Body::TransferLeaderResponse(response)) if response.accepted => Ok(Ok(())),
            Ok(Body::TransferLeaderResponse(response)) => Err(RPCError::Unreachable(
                Unreachable::new(&AnyError::error(response.problem)),
            )),
            other => Err(unexpected(other)),
        }
    }
}

type BoxedFuture<'s, T> = futures::future::BoxFuture<'s, T>;
type AppendStream<'s> =
    futures::stream::BoxStream<'s, Result<StreamAppendResult<Consensus>, RPCError<Consensus>>>;
