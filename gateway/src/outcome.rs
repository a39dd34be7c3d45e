//! What became of a write whose answer was lost. The question closes the id in the range's log, so
//! that "not applied" stays true whatever copy of the write is still under way.

use std::sync::Arc;

use quorate_proto::internal::{CloseRequest, Command, command};
use quorate_proto::v1::{self, outcome_response::State, pipeline_request::Request};
use quorate_raft::machine::{ApplyOutcome, ApplyRefusal};
use quorate_raft::{Group, Proposed};
use quorate_types::RequestHandle;

use crate::context::Context;
use crate::errors::GatewayError;
use crate::gateway::Gateway;
use crate::level;
use crate::receipt::{Spent, receipt};
use crate::route::{Errand, Prefer, Tried};

impl Gateway {
    /// What became of a write.
    ///
    /// # Errors
    ///
    /// A handle that is none, or whose range is not there; else see [`GatewayError`].
    pub(crate) async fn outcome(
        &self,
        request: v1::OutcomeRequest,
        context: Context,
    ) -> Result<v1::OutcomeResponse, GatewayError> {
        let handle: RequestHandle =
            request
                .handle
                .parse()
                .map_err(|error: quorate_types::ParseError| {
                    GatewayError::field("handle", error.to_string())
                })?;
        let catalog = self.node().catalog();
        let Some((_, range)) = catalog.range(handle.range) else {
            let problem = format!("there is no range {} (any more)", handle.range);
            return Err(GatewayError::field("handle", problem));
        };
        let errand = Errand {
            range,
            prefer: Prefer::Leader,
            handle: None,
            context: &context,
        };
        let here = |group: Arc<Group>| async move {
            let spent = Spent::begin();
            match group.propose(close(handle), context.deadline).await {
                Ok(proposed) => Tried::Done(Ok(self.told(&group, &proposed, spent, &context))),
                Err(error) => error.into(),
            }
        };
        let resend = || {
            Request::Outcome(v1::OutcomeRequest {
                handle: request.handle.clone(),
            })
        };
        self.route(&errand, here, resend).await
    }

    fn told(
        &self,
        group: &Group,
        proposed: &Proposed,
        spent: Spent,
        context: &Context,
    ) -> v1::OutcomeResponse {
        let applied = &proposed.applied;
        let (state, succeeded) = match &applied.outcome {
            ApplyOutcome::Remembered {
                closed: false,
                succeeded,
                ..
            } => (State::Applied, *succeeded),
            ApplyOutcome::Refused(ApplyRefusal::BelowWindow) => (State::TooOld, false),
            ApplyOutcome::Remembered { closed: true, .. }
            | ApplyOutcome::Refused(
                ApplyRefusal::QuotaExceeded
                | ApplyRefusal::PrefixFull(_)
                | ApplyRefusal::LeaseNotFound
                | ApplyRefusal::LeaseFull
                | ApplyRefusal::LeasesMany,
            )
            | ApplyOutcome::Renewed(_)
            | ApplyOutcome::Etcd(_)
            | ApplyOutcome::Nothing
            | ApplyOutcome::Written { .. }
            | ApplyOutcome::Compared { .. }
            | ApplyOutcome::Transacted { .. } => (State::NotApplied, false),
        };
        let spent = Spent {
            consensus: proposed.consensus,
            ..spent
        };
        let rung = level::write_rung_to_wire();
        let revision = if state == State::Applied {
            applied.revision.0
        } else {
            0
        };
        v1::OutcomeResponse {
            state: state as i32,
            revision,
            succeeded,
            receipt: Some(receipt(
                self.node_id(),
                group,
                rung,
                applied.revision,
                spent,
                context,
            )),
        }
    }
}

/// Closing is idempotent, so it has no name of its own.
fn close(handle: RequestHandle) -> Command {
    let close = CloseRequest {
        client: handle.request.client.0,
        sequence: handle.request.sequence,
    };
    Command {
        operation: Some(command::Operation::CloseRequest(close)),
        ..Command::default()
    }
}
