//! Who coordinates an eventual request where this node does not hold the range, and what becomes of
//! a request that is sent there.
//!
//! Not here: coordinating (`quorate_eventual`), and strong requests, which a leader serves (`route`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use quorate_eventual::EventualError;
use quorate_proto::internal::ForwardResponse;
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use quorate_raft::{CallError, RangeView};
use quorate_types::{Effect, NodeId};
use tokio::time::Instant;

use crate::answer::Answer;
use crate::context::Context;
use crate::errors::GatewayError;
use crate::gateway::Gateway;

/// A coordinator that has not answered a read for so long may have been cut off a moment ago: the
/// next one is asked as well.
const READ_PATIENCE: Duration = Duration::from_millis(100);

/// Whether a request may be sent to a second coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// Not once the first may have it.
    Never,
    /// Where the first one's answer is lost.
    WhenLost,
    /// Where the first one takes its time.
    WhenSlow,
}

impl Gateway {
    /// Who should coordinate instead of this node, in order. Nobody, where it holds the range, or
    /// was sent the request, or nobody who holds it can be reached.
    fn coordinators(&self, range: &RangeView, context: &Context) -> Vec<NodeId> {
        let here = self.node_id();
        if context.forwarded.is_some() || range.replicas.contains(&here) {
            return Vec::new();
        }
        let mut others: Vec<NodeId> = range.replicas.clone();
        others.retain(|node| self.node().peer_reachable(*node));
        if !others.is_empty() {
            let first = usize::try_from(self.node().random() % others.len() as u64).unwrap_or(0);
            others.rotate_left(first);
        }
        // Who comes and goes is tried last.
        others.sort_by_key(|node| !self.node().peer_steady(*node));
        others
    }

    /// Has another node serve the request, if it should. `lost` is set once a node may have it whose
    /// answer does not come: what is said later of another attempt is not all that is known.
    pub(crate) async fn elsewhere<T: Answer>(
        &self,
        range: &RangeView,
        context: &Context,
        (again, lost): (Again, &AtomicBool),
        request: impl Fn() -> Request,
    ) -> Result<Option<T>, GatewayError> {
        let mut others = self.coordinators(range, context).into_iter();
        let mut asked = FuturesUnordered::new();
        loop {
            if asked.is_empty() {
                let Some(node) = others.next() else {
                    return Ok(None);
                };
                asked.push(self.send_on(node, range, context, request()));
            }
            let slow = tokio::time::sleep(READ_PATIENCE);
            let answer = tokio::select! {
                biased;
                Some(answer) = asked.next() => answer,
                () = slow, if again == Again::WhenSlow && others.len() > 0 => {
                    let next = others.next();
                    asked.extend(next.map(|node| self.send_on(node, range, context, request())));
                    continue;
                }
            };
            match answer {
                Ok(answer) => return taken(answer),
                Err(CallError::NotSent(_) | CallError::Refused(_)) => {}
                Err(CallError::Lost | CallError::TimedOut)
                    if again != Again::Never && !context.is_over() =>
                {
                    lost.store(true, Ordering::Relaxed);
                }
                Err(CallError::Lost | CallError::TimedOut) => return Err(nobody_knows()),
            }
        }
    }

    async fn send_on(
        &self,
        to: NodeId,
        range: &RangeView,
        context: &Context,
        request: Request,
    ) -> Result<ForwardResponse, CallError> {
        let left = context.deadline.saturating_duration_since(Instant::now());
        let asked = v1::PipelineRequest {
            id: 1,
            request: Some(request),
            timeout_ms: 0,
        };
        self.node().forward(to, range.id, left, asked).await
    }
}

/// A coordinator may have taken a write in, and no answer came.
fn nobody_knows() -> GatewayError {
    let (wanted, stored) = (1, 0);
    EventualError::TooFewHolders { wanted, stored }.into()
}

/// What may be said of a write of which an earlier attempt was lost: that one may have taken effect,
/// whatever became of the last.
pub(crate) fn after_lost<T>(
    written: Result<T, GatewayError>,
    lost: &AtomicBool,
) -> Result<T, GatewayError> {
    match written {
        Err(error) if lost.load(Ordering::Relaxed) && error.effect() == Effect::None => {
            Err(nobody_knows())
        }
        written => written,
    }
}

/// What a coordinator said.
fn taken<T: Answer>(answer: ForwardResponse) -> Result<Option<T>, GatewayError> {
    match answer.response.and_then(|answer| answer.response) {
        Some(Response::Error(error)) => Err(GatewayError::Remote(Box::new(error))),
        Some(response) => Ok(T::unpack(response)),
        None => Err(GatewayError::internal("an answer without a response")),
    }
}
