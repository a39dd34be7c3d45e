//! What peers ask of this node: every kind of envelope, and who answers it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::raft::TransferLeaderRequest;
use parking_lot::Mutex;
use quorate_proto::internal as wire;
use quorate_proto::internal::envelope::Body;
use quorate_proto::v1::EventualStatus;
use quorate_types::{NodeId, RangeId, Revision, Timestamp};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::consensus::{log_id_from_wire, vote_from_wire};
use crate::group::{Group, ReadError};
use crate::liveness::{Liveness, PeerLiveness};
use crate::network::{
    append_from_wire, append_response_to_wire, vote_request_from_wire, vote_response_to_wire,
};
use crate::node::Inner;
use crate::peer::{Class, PeerHandler};
use crate::transfer::Incoming;

/// A follower's request to the leader is given up after this.
const ASKED_TIMEOUT: Duration = Duration::from_secs(2);

/// Executes requests that other gateways forward.
#[tonic::async_trait]
pub trait ForwardHandler: Send + Sync {
    /// Executes one; errors are part of the answer.
    async fn handle(&self, from: NodeId, forward: wire::Forward) -> wire::ForwardResponse;

    /// Reads, or waits for, the events of a range.
    async fn events(&self, range: RangeId, request: wire::EventsRequest) -> wire::EventsResponse;
    /// Serves a call to an etcd keyspace.
    async fn etcd(&self, range: RangeId, call: wire::EtcdCall) -> wire::EtcdAnswer;
}

/// Sends an answer to a request of the eventual path. Does not block.
pub type EventualAnswer = Box<dyn FnOnce(wire::EventualResponse) + Send>;

/// A request of the eventual path on its way to its handler.
type EventualAsked = (RangeId, u64, wire::EventualRequest);

/// Answers what the eventual path of another node asks.
pub trait EventualHandler: Send + Sync {
    /// Answers one request about a range; refusals are part of the answer. Called one after the
    /// other for each peer: what takes long must go on elsewhere.
    fn handle(
        &self,
        from: NodeId,
        range: RangeId,
        request: wire::EventualRequest,
        answer: EventualAnswer,
    );

    /// What this node holds of a range on the eventual plane. Reads all of it.
    fn report(&self, range: RangeId) -> Option<EventualStatus>;

    /// How many hints this node keeps, and their bytes.
    fn hints(&self) -> (u64, u64);

    /// For how long a replica here has not been found equal with another primary's, at the most.
    fn repair_lag(&self) -> Duration;
}

/// An append on its way to its group.
struct Append {
    group: Arc<Group>,
    id: u64,
    request: wire::AppendRequest,
}

/// What is known of a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerState {
    /// The peer's process start; a change is a restart.
    pub(crate) started: u64,
    /// The peer's clock minus ours, microseconds, delay included.
    pub(crate) clock_offset: i64,
}

/// State of the receiving side.
pub(crate) struct Inbound {
    /// Times of `liveness` count from here.
    origin: Instant,
    liveness: Mutex<Liveness>,
    lanes: Mutex<BTreeMap<NodeId, mpsc::UnboundedSender<Append>>>,
    /// Requests of the eventual path: they may read the disk, and consensus does not wait for it.
    eventual_lanes: Mutex<BTreeMap<NodeId, mpsc::UnboundedSender<EventualAsked>>>,
    pub(crate) peers: Mutex<BTreeMap<NodeId, PeerState>>,
    pub(crate) snapshots: Mutex<BTreeMap<(RangeId, NodeId), Incoming>>,
}

impl Inbound {
    /// Nothing was heard yet. A peer whose phi is above `phi_max` counts as away.
    pub(crate) fn new(phi_max: f64) -> Inbound {
        Inbound {
            origin: Instant::now(),
            liveness: Mutex::new(Liveness::new(phi_max)),
            lanes: Mutex::default(),
            eventual_lanes: Mutex::default(),
            peers: Mutex::default(),
            snapshots: Mutex::default(),
        }
    }

    /// Returns whether the peer was away before.
    fn take_beat_of(&self, node: NodeId) -> bool {
        let now = self.origin.elapsed();
        self.liveness.lock().beat(node, now)
    }

    /// Whether a peer is taken to live.
    pub(crate) fn heard_lately(&self, node: NodeId) -> bool {
        let now = self.origin.elapsed();
        self.liveness.lock().is_reachable(node, now)
    }

    /// Whether it is, and does not come and go.
    pub(crate) fn is_steady(&self, node: NodeId) -> bool {
        let now = self.origin.elapsed();
        self.liveness.lock().is_steady(node, now)
    }

    /// What is known of a peer's life.
    pub(crate) fn look_at(&self, node: NodeId) -> PeerLiveness {
        let now = self.origin.elapsed();
        self.liveness.lock().look(node, now)
    }
}

impl PeerHandler for Inner {
    fn receive(&self, from: NodeId, envelopes: Vec<wire::Envelope>) {
        for envelope in envelopes {
            let Some(body) = envelope.body else { continue };
            if envelope.response {
                self.calls.complete(from, envelope.id, body);
            } else {
                self.dispatch(from, RangeId(envelope.group), envelope.id, body);
            }
        }
    }

    fn lost(&self, peer: NodeId, class: Class) {
        self.calls.lost(peer, class);
    }
}

impl Inner {
    fn dispatch(&self, from: NodeId, range: RangeId, id: u64, body: Body) {
        match body {
            Body::Append(request) => self.take_append(from, range, id, request),
            Body::Beat(beat) => self.take_beat(from, &beat),
            Body::Quiesce(quiesce) => self.take_quiesce(from, range, &quiesce),
            Body::Catalog(catalog) => self.take_catalog(catalog),
            Body::CatalogRequest(request) => self.give_catalog(from, &request),
            Body::Snapshot(chunk) => self.take_snapshot(from, range, id, *chunk),
            Body::Vote(_)
            | Body::TransferLeader(_)
            | Body::ReadIndex(_)
            | Body::CloseAt(_)
            | Body::ReplaceVoter(_) => self.serve_group(from, range, id, body),
            Body::CatalogUpdate(update) => {
                self.meet(from, &update);
                self.serve_node(from, range, id, Body::CatalogUpdate(update));
            }
            Body::Forward(_) | Body::Status(_) | Body::Events(_) | Body::Etcd(_) => {
                self.serve_node(from, range, id, body)
            }
            Body::Eventual(request) => self.serve_eventual(from, range, id, *request),
            Body::AppendResponse(_)
            | Body::VoteResponse(_)
            | Body::TransferLeaderResponse(_)
            | Body::SnapshotResponse(_)
            | Body::ForwardResponse(_)
            | Body::ReadIndexResponse(_)
            | Body::StatusResponse(_)
            | Body::CatalogUpdated(_)
            | Body::ReplaceVoterResponse(_)
            | Body::EventualResponse(_)
            | Body::EventsResponse(_)
            | Body::EtcdAnswer(_)
            | Body::Failure(_) => {
                tracing::warn!(%from, "an answer that was sent as a question");
            }
        }
    }

    pub(crate) fn refuse(&self, from: NodeId, range: RangeId, id: u64, problem: &str) {
        let failure = Body::Failure(wire::Failure {
            problem: problem.to_string(),
        });
        self.calls
            .answer(from, Class::Consensus, range.0, id, failure);
    }

    /// Appends of one peer go through one lane, in order: openraft takes them pipelined.
    fn take_append(&self, from: NodeId, range: RangeId, id: u64, request: wire::AppendRequest) {
        let Some(group) = self.group(range) else {
            return self.refuse(from, range, id, "no replica of the range here");
        };
        group.wake_by_leader();
        let append = Append { group, id, request };
        let mut lanes = self.inbound.lanes.lock();
        let lane = lanes.entry(from).or_insert_with(|| self.start_lane(from));
        // The lane ends with the node.
        let _ = lane.send(append);
    }

    /// The queue is unbounded here because its sender bounds it: each leader has a window of
    /// appends under way.
    fn start_lane(&self, from: NodeId) -> mpsc::UnboundedSender<Append> {
        let (sender, mut receiver) = mpsc::unbounded_channel::<Append>();
        let calls = self.calls.clone();
        let task = tokio::spawn(async move {
            let mut under_way = FuturesUnordered::new();
            loop {
                tokio::select! {
                    biased;
                    Some((range, id, body)) = under_way.next() => {
                        calls.answer(from, Class::Consensus, range, id, body);
                    }
                    append = receiver.recv() => match append {
                        // A future that joins is polled first in the order of joining, and hands
                        // its request to openraft when it is: order holds.
                        Some(append) => under_way.push(serve_append(append)),
                        None => return,
                    },
                }
            }
        });
        self.tasks.lock().push(task.abort_handle());
        sender
    }

    fn serve_group(&self, from: NodeId, range: RangeId, id: u64, body: Body) {
        let Some(group) = self.group(range) else {
            return self.refuse(from, range, id, "no replica of the range here");
        };
        let calls = self.calls.clone();
        tokio::spawn(async move {
            let answer = serve(&group, body).await;
            calls.answer(from, Class::Consensus, range.0, id, answer);
        });
    }

    fn serve_node(&self, from: NodeId, range: RangeId, id: u64, body: Body) {
        let Some(inner) = self.this() else { return };
        let is_large = matches!(&body, Body::Status(_) | Body::Events(_));
        tokio::spawn(async move {
            let answer = inner.serve_request(from, range, body).await;
            let class = match &answer {
                _ if is_large => Class::Bulk,
                Body::EtcdAnswer(answer) => Class::by_size(&**answer),
                Body::ForwardResponse(answer) => Class::by_size(&**answer),
                _ => Class::Consensus,
            };
            inner.calls.answer(from, class, range.0, id, answer);
        });
    }

    fn serve_eventual(
        &self,
        from: NodeId,
        range: RangeId,
        id: u64,
        request: wire::EventualRequest,
    ) {
        let Some(handler) = self.eventual.get() else {
            return self.refuse(from, range, id, "the eventual path is not up yet");
        };
        let mut lanes = self.inbound.eventual_lanes.lock();
        let lane = lanes
            .entry(from)
            .or_insert_with(|| self.start_eventual_lane(from, handler.clone()));
        // The lane ends with the node.
        let _ = lane.send((range, id, request));
    }

    /// The queue is unbounded here because its senders bound it: each has a limit on the requests
    /// that it has in work.
    fn start_eventual_lane(
        &self,
        from: NodeId,
        handler: Arc<dyn EventualHandler>,
    ) -> mpsc::UnboundedSender<EventualAsked> {
        let (sender, mut receiver) = mpsc::unbounded_channel::<EventualAsked>();
        let calls = self.calls.clone();
        let task = tokio::spawn(async move {
            while let Some((range, id, request)) = receiver.recv().await {
                let (calls, class) = (calls.clone(), eventual_class(&request));
                let answer = move |response| {
                    let body = Body::EventualResponse(Box::new(response));
                    calls.answer(from, class, range.0, id, body);
                };
                handler.handle(from, range, request, Box::new(answer));
                // Many may wait: others on this thread come in between.
                tokio::task::consume_budget().await;
            }
        });
        self.tasks.lock().push(task.abort_handle());
        sender
    }

    async fn serve_request(self: &Arc<Self>, from: NodeId, range: RangeId, body: Body) -> Body {
        match body {
            Body::Etcd(call) => match self.forward.get() {
                Some(handler) => Body::EtcdAnswer(Box::new(handler.etcd(range, *call).await)),
                None => failure("no gateway"),
            },
            Body::Events(request) => match self.forward.get() {
                Some(handler) => {
                    Body::EventsResponse(Box::new(handler.events(range, *request).await))
                }
                None => failure("the gateway is not up yet"),
            },
            Body::Forward(forward) => match self.forward.get() {
                Some(handler) => {
                    Body::ForwardResponse(Box::new(handler.handle(from, *forward).await))
                }
                None => failure("the gateway is not up yet"),
            },
            Body::Status(request) => Body::StatusResponse(Box::new(self.report(&request).await)),
            Body::CatalogUpdate(update) => Body::CatalogUpdated(self.serve_update(update).await),
            _ => failure("not a request to a node"),
        }
    }

    fn take_beat(&self, from: NodeId, beat: &wire::NodeBeat) {
        let now = self.clock.now();
        let offset = |clock: u64| clock.wrapping_sub(now.0).cast_signed();
        if self.inbound.take_beat_of(from) {
            tracing::info!(peer = %from, "heard again");
            metrics::counter!("quorate_peer_returns_total", "peer" => from.to_string())
                .increment(1);
        }
        let state = PeerState {
            started: beat.started,
            clock_offset: offset(Timestamp(beat.clock).0),
        };
        let before = self.inbound.peers.lock().insert(from, state);
        if before.is_some_and(|b| b.started != beat.started) {
            self.wake_groups_with(from);
        }
        self.tell_if_removed(from, beat.catalog_epoch);
        if beat.catalog_epoch > self.catalog.borrow().epoch() {
            let request = wire::CatalogRequest {
                epoch: self.catalog.borrow().epoch(),
            };
            // The next beat asks again if this one is lost.
            let _ = self
                .calls
                .tell(from, Class::Bulk, 0, Body::CatalogRequest(request));
        }
    }

    pub(crate) fn give_catalog(&self, to: NodeId, request: &wire::CatalogRequest) {
        let catalog = self.catalog.borrow().clone();
        if catalog.epoch() > request.epoch {
            // It asks again if this is lost.
            let _ = self
                .calls
                .tell(to, Class::Bulk, 0, Body::Catalog(catalog.wire().clone()));
        }
    }
}

/// Writes and reads of clients are urgent; hand-over and repair are patient.
pub(crate) fn eventual_class(request: &wire::EventualRequest) -> Class {
    use wire::eventual_request::Request;
    match &request.request {
        Some(Request::Stores(_) | Request::Fetch(_) | Request::Decide(_) | Request::Collect(_)) => {
            Class::Consensus
        }
        Some(
            Request::HandOver(_)
            | Request::Page(_)
            | Request::Join(_)
            | Request::TreeRoot(_)
            | Request::TreeLeaves(_)
            | Request::TreeKeys(_)
            | Request::ClockMerge(_)
            | Request::StartsAsked(_)
            | Request::RepairNow(_),
        )
        | None => Class::Bulk,
    }
}

fn failure(problem: &str) -> Body {
    Body::Failure(wire::Failure {
        problem: problem.to_string(),
    })
}

async fn serve_append(append: Append) -> (u64, u64, Body) {
    let range = append.group.range.0;
    let body = match append_from_wire(append.request) {
        Ok(request) => match append.group.raft.append_entries(request).await {
            Ok(response) => Body::AppendResponse(wire::AppendResponse {
                is_followed: append.group.is_followed(),
                ..append_response_to_wire(&response)
            }),
            Err(error) => failure(&error.to_string()),
        },
        Err(error) => failure(&error.to_string()),
    };
    (range, append.id, body)
}

async fn serve(group: &Arc<Group>, body: Body) -> Body {
    match body {
        Body::Vote(request) => serve_vote(group, &request).await,
        Body::TransferLeader(request) => serve_transfer(group, &request).await,
        Body::ReadIndex(_) => {
            group.wake();
            read_index_answer(group, group.rounds.join_as_leader().await)
        }
        Body::CloseAt(request) => {
            let deadline = Instant::now() + ASKED_TIMEOUT;
            let raised = group
                .raise_ceiling(Revision(request.revision), deadline)
                .await;
            read_index_answer(group, raised.map(|()| group.applied().index))
        }
        Body::ReplaceVoter(request) => {
            Body::ReplaceVoterResponse(group.serve_replace(&request).await)
        }
        _ => failure("not a request to a group"),
    }
}

async fn serve_vote(group: &Group, request: &wire::VoteRequest) -> Body {
    let vote = vote_request_from_wire(request);
    let response = if request.pre_vote {
        group.raft.pre_vote(vote).await
    } else {
        group.raft.vote(vote).await
    };
    match response {
        Ok(response) => Body::VoteResponse(vote_response_to_wire(&response)),
        Err(error) => failure(&error.to_string()),
    }
}

async fn serve_transfer(group: &Group, request: &wire::TransferLeader) -> Body {
    group.wake_by_leader();
    let from = vote_from_wire(&request.from.unwrap_or_default());
    let last = request.last.as_ref().map(log_id_from_wire);
    let transfer = TransferLeaderRequest::new(from, request.to, last);
    let problem = match group.raft.handle_transfer_leader(transfer).await {
        Ok(Ok(())) => String::new(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    let accepted = problem.is_empty();
    Body::TransferLeaderResponse(wire::TransferLeaderResponse { accepted, problem })
}

fn read_index_answer(group: &Group, result: Result<u64, ReadError>) -> Body {
    let hint = || group.leader().map_or(0, |l| l.0);
    let answer = match result {
        Ok(index) => wire::ReadIndexResponse {
            ok: true,
            log_id: Some(wire::LogId { term: 0, index }),
            revision: group.applied_revision().0,
            leader_hint: 0,
        },
        Err(_) => wire::ReadIndexResponse {
            leader_hint: hint(),
            ..Default::default()
        },
    };
    Body::ReadIndexResponse(answer)
}
