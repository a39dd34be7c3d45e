//! Calls with one answer, of every service: from gRPC to the gateway and back.

use quorate_proto::v1::pipeline_request::Request;
use tokio::time::Instant;
use tonic::{Response, Status};

use crate::answer::Answer;
use crate::context::Context;
use crate::deadline;
use crate::errors::GatewayError;
use crate::gateway::Gateway;

/// Serves a call within its own deadline.
pub(crate) async fn unary<T, A: Answer>(
    gateway: &Gateway,
    request: tonic::Request<T>,
    wrap: fn(T) -> Request,
) -> Result<Response<A>, Status> {
    let now = Instant::now();
    let deadline = deadline::of_call(request.metadata(), now)?;
    let request = wrap(request.into_inner());
    let answer = served(gateway, request, Context::new(now, deadline)).await?;
    Ok(Response::new(answer))
}

/// Serves a request whose answer is of this kind.
pub(crate) async fn served<A: Answer>(
    gateway: &Gateway,
    request: Request,
    context: Context,
) -> Result<A, Status> {
    let response = gateway.serve(request, context).await?;
    let answer = A::unpack(response);
    Ok(answer.ok_or_else(|| GatewayError::internal("an answer of another kind"))?)
}
