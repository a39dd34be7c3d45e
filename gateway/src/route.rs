//! Finding a replica that serves a request of one range: here, or on another node, until the
//! deadline. The order of the search is `chase`; what a replica does is the caller's closure.
//!
//! A write may be tried several times: it carries one name on all attempts, so it is applied once.
//! An attempt whose answer was lost is remembered: from then on no error may say "no effect" unless
//! the range itself decided so. A forwarded request is tried here, once.

use std::sync::Arc;
use std::time::Duration;

use quorate_proto::internal::ForwardResponse;
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use quorate_raft::{CallError, Group, ProposeError, RangeView, ReadError};
use quorate_types::{Effect, NodeId, RangeId, Reason, RequestHandle};
use tokio::time::Instant;

use crate::answer::Answer;
use crate::chase::{Chase, Step};
use crate::context::Context;
use crate::errors::GatewayError;
use crate::gateway::Gateway;

/// How long a range without a majority in reach is given to come back before a request says so.
const MAJORITY_PATIENCE: Duration = Duration::from_millis(1500);

/// What came of one attempt.
pub enum Tried<T> {
    /// The range's answer, or its refusal: final.
    Done(Result<T, GatewayError>),
    /// Not here, and without effect: `hint` may serve it.
    Elsewhere {
        /// Who is thought to.
        hint: Option<NodeId>,
    },
    /// Not now: another replica, or a later moment, may serve it. Without effect.
    NotNow(GatewayError),
    /// It may have been done, or may still be.
    Unknown,
}

impl<T> From<ReadError> for Tried<T> {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotLeader { hint } => Tried::Elsewhere { hint },
            ReadError::NoMajority | ReadError::Stopped => Tried::Elsewhere { hint: None },
            ReadError::TimedOut => Tried::NotNow(GatewayError::TimedOut),
        }
    }
}

impl<T> From<ProposeError> for Tried<T> {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader { hint } => Tried::Elsewhere { hint },
            ProposeError::NoMajority | ProposeError::Stopped => Tried::Elsewhere { hint: None },
            ProposeError::Unknown => Tried::Unknown,
        }
    }
}

/// Where the search begins, and how long it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefer {
    /// The leader: writes.
    Leader,
    /// The replica here if there is one, else the leader; until the deadline.
    Here,
    /// The replica here if there is one; each other one a few times.
    AnyReplica,
}

/// Rounds over all replicas for a read that any of them may serve.
const ANY_REPLICA_ROUNDS: u32 = 3;

/// One request of one range.
pub struct Errand<'a> {
    /// Whose replicas are tried.
    pub range: &'a RangeView,
    /// Where to begin.
    pub prefer: Prefer,
    /// The name of a write, for the error that says its outcome is unknown.
    pub handle: Option<RequestHandle>,
    /// Deadline and origin.
    pub context: &'a Context,
}

/// The state of one search.
struct Search<'a> {
    errand: &'a Errand<'a>,
    sent: bool,
    tried: bool,
    last: Option<GatewayError>,
}

impl Search<'_> {
    /// A final error, told truthfully: after a lost attempt only the range's own decision is one.
    fn refused(&self, error: GatewayError) -> GatewayError {
        let decided = matches!(
            error.reason(),
            Some(
                Reason::BelowWindow
                    | Reason::CompareFailed
                    | Reason::QuotaExceeded
                    | Reason::LeaseNotFound
                    | Reason::LeaseLimit
                    | Reason::AlreadyExists
            )
        );
        match self.errand.handle {
            Some(handle) if self.sent && !decided && error.effect() == Effect::None => {
                GatewayError::OutcomeUnknown { handle }
            }
            _ => error,
        }
    }

    /// Takes note of why one replica did not serve it. A time-out replaces no other reason: it says
    /// the least.
    fn not_now(&mut self, error: GatewayError) {
        if self.last.is_none() || error.reason() != Some(Reason::TimedOut) {
            self.last = Some(error);
        }
    }

    /// The error of a search that found nobody.
    fn given_up(self, missing: Vec<NodeId>) -> GatewayError {
        let range = self.errand.range.id;
        if let (true, Some(handle)) = (self.sent, self.errand.handle) {
            return GatewayError::OutcomeUnknown { handle };
        }
        let majority = self.errand.range.replicas.len() / 2 + 1;
        if self.errand.range.replicas.len() - missing.len() < majority
            && self.errand.prefer != Prefer::AnyReplica
        {
            return GatewayError::NoMajority { range, missing };
        }
        self.last.unwrap_or(if self.tried {
            GatewayError::NoLeader {
                range,
                missing,
                hint: None,
            }
        } else {
            GatewayError::TimedOut
        })
    }
}

impl Gateway {
    /// Finds a replica that serves the errand, and returns its answer.
    ///
    /// `here` serves it at a replica of this node, `request` makes what another node is sent.
    ///
    /// # Errors
    ///
    /// What the range decided; or, once the time is up, why nobody served it.
    pub(crate) async fn route<T, Here, Served>(
        &self,
        errand: &Errand<'_>,
        here: Here,
        request: impl Fn() -> Request,
    ) -> Result<T, GatewayError>
    where
        T: Answer,
        Here: Fn(Arc<Group>) -> Served,
        Served: Future<Output = Tried<T>>,
    {
        if errand.context.forwarded.is_some() {
            return Box::pin(self.serve_forwarded(errand, here)).await;
        }
        let mut search = Search {
            errand,
            sent: false,
            tried: false,
            last: None,
        };
        let mut chase = Chase::new(&errand.range.replicas, self.first_choice(errand));
        loop {
            if errand.context.is_over() {
                return Err(search.given_up(self.missing(errand.range)));
            }
            let tried = match chase.step() {
                Step::Pause(pause) => {
                    if self.is_hopeless(errand, chase.rounds()) {
                        return Err(search.given_up(self.missing(errand.range)));
                    }
                    let wake = errand.context.deadline.min(Instant::now() + pause);
                    Box::pin(tokio::time::sleep_until(wake)).await;
                    chase.hint(self.first_choice(errand));
                    continue;
                }
                Step::Try(node) if node == self.node_id() => self.try_here(errand, &here).await,
                // Boxed: the rarer way should not make every request's future as large as it is.
                Step::Try(node) => Box::pin(self.try_there(node, errand, request())).await,
            };
            search.tried = true;
            match tried {
                Tried::Done(Ok(answer)) => return Ok(answer),
                Tried::Done(Err(error)) => return Err(search.refused(error)),
                Tried::Elsewhere { hint } => chase.hint(hint),
                Tried::NotNow(error) => search.not_now(error),
                Tried::Unknown => {
                    search.sent = true;
                    search.not_now(GatewayError::TimedOut);
                }
            }
        }
    }

    async fn try_here<T, Here, Served>(&self, errand: &Errand<'_>, here: &Here) -> Tried<T>
    where
        Here: Fn(Arc<Group>) -> Served,
        Served: Future<Output = Tried<T>>,
    {
        let Some(group) = self.node().group(errand.range.id) else {
            return Tried::Elsewhere { hint: None };
        };
        if errand.prefer == Prefer::Leader && !group.is_leader() {
            return Tried::Elsewhere {
                hint: group.leader(),
            };
        }
        here(group).await
    }

    /// The only attempt at what another gateway sent on.
    async fn serve_forwarded<T, Here, Served>(
        &self,
        errand: &Errand<'_>,
        here: Here,
    ) -> Result<T, GatewayError>
    where
        Here: Fn(Arc<Group>) -> Served,
        Served: Future<Output = Tried<T>>,
    {
        let range = errand.range.id;
        match self.try_here(errand, &here).await {
            Tried::Done(result) => result,
            Tried::Elsewhere { hint } if self.node().group(range).is_some() => {
                Err(GatewayError::NoLeader {
                    range,
                    missing: self.missing(errand.range),
                    hint,
                })
            }
            Tried::Elsewhere { .. } => Err(GatewayError::RangeMoved { range }),
            Tried::NotNow(error) => Err(error),
            Tried::Unknown => Err(match errand.handle {
                Some(handle) => GatewayError::OutcomeUnknown { handle },
                None => GatewayError::TimedOut,
            }),
        }
    }

    async fn try_there<T: Answer>(
        &self,
        node: NodeId,
        errand: &Errand<'_>,
        request: Request,
    ) -> Tried<T> {
        if !self.node().peer_reachable(node) {
            return Tried::Elsewhere { hint: None };
        }
        let left = errand
            .context
            .deadline
            .saturating_duration_since(Instant::now());
        match self.send(node, errand.range.id, left, request).await {
            Ok(response) => self.judge(errand, node, response),
            Err(CallError::NotSent(_)) => Tried::Elsewhere { hint: None },
            Err(CallError::Lost | CallError::TimedOut | CallError::Refused(_)) => Tried::Unknown,
        }
    }

    /// Sends a request on.
    async fn send(
        &self,
        node: NodeId,
        range: RangeId,
        left: Duration,
        request: Request,
    ) -> Result<ForwardResponse, CallError> {
        let request = v1::PipelineRequest {
            id: 0,
            request: Some(request),
            timeout_ms: 0,
        };
        let sending = self.node().forward(node, range, left, request);
        self.while_reachable(node, sending).await
    }

    /// What another node's answer means for the search.
    fn judge<T: Answer>(
        &self,
        errand: &Errand<'_>,
        node: NodeId,
        answer: ForwardResponse,
    ) -> Tried<T> {
        let hint = (answer.leader_hint > 0).then_some(NodeId(answer.leader_hint));
        let response = answer.response.and_then(|response| response.response);
        let error = match response {
            Some(Response::Error(error)) => GatewayError::Remote(Box::new(error)),
            Some(response) => {
                let answer = T::unpack(response);
                if answer.is_some() {
                    self.served_by(errand.range.id, node);
                }
                return Tried::Done(answer.ok_or_else(|| unexpected(node)));
            }
            None => return Tried::Done(Err(unexpected(node))),
        };
        match (error.reason(), error.effect()) {
            (Some(Reason::NoLeader | Reason::RangeMoved | Reason::NodeStopping), Effect::None) => {
                Tried::Elsewhere { hint }
            }
            (
                Some(
                    Reason::NoMajority
                    | Reason::NotCaughtUp
                    | Reason::StalenessExceeded
                    | Reason::TimedOut,
                ),
                Effect::None,
            ) => Tried::NotNow(error),
            (Some(Reason::TimedOut), Effect::Unknown | Effect::Applied) => Tried::Unknown,
            _ => Tried::Done(Err(error)),
        }
    }

    /// Who is tried first.
    fn first_choice(&self, errand: &Errand<'_>) -> Option<NodeId> {
        let group = self.node().group(errand.range.id);
        match (errand.prefer, group) {
            (Prefer::Here | Prefer::AnyReplica, Some(_)) => Some(self.node_id()),
            (Prefer::Leader, Some(group)) => group.leader(),
            (Prefer::Leader | Prefer::Here | Prefer::AnyReplica, None) => self
                .last_served(errand.range.id)
                .or_else(|| self.reachable_replica(errand.range)),
        }
    }

    fn reachable_replica(&self, range: &RangeView) -> Option<NodeId> {
        range
            .replicas
            .iter()
            .copied()
            .find(|node| self.node().peer_reachable(*node))
    }

    /// Replicas that this node cannot reach now.
    pub(crate) fn missing(&self, range: &RangeView) -> Vec<NodeId> {
        let here = self.node_id();
        let gone = |node: &NodeId| *node != here && !self.node().peer_reachable(*node);
        range.replicas.iter().copied().filter(gone).collect()
    }

    /// Whether going on is of no use, though there is time.
    fn is_hopeless(&self, errand: &Errand<'_>, rounds: u32) -> bool {
        match errand.prefer {
            Prefer::AnyReplica => rounds > ANY_REPLICA_ROUNDS,
            Prefer::Leader | Prefer::Here => {
                let majority = errand.range.replicas.len() / 2 + 1;
                errand.context.arrived.elapsed() > MAJORITY_PATIENCE
                    && errand.range.replicas.len() - self.missing(errand.range).len() < majority
            }
        }
    }
}

fn unexpected(node: NodeId) -> GatewayError {
    let what = format!("node {node} answered with something else than was asked");
    GatewayError::Internal {
        what,
        effect: Effect::Unknown,
    }
}
