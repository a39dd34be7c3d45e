//! One request as one gRPC call.

use std::time::Duration;

use crate::endpoints::Endpoint;
use crate::failure::Failure;
use crate::limits::ATTEMPT_GRACE;
use crate::request::{Request, Response};

/// Sends the request, and waits for the answer for `timeout`. The server learns of the
/// timeout, so that it can say what it could not do in time.
pub(crate) async fn call(
    endpoint: &Endpoint,
    request: Request,
    timeout: Duration,
) -> Result<Response, Failure> {
    match tokio::time::timeout(
        timeout + ATTEMPT_GRACE,
        dispatch(endpoint, request, timeout),
    )
    .await
    {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(status)) => Err(Failure::from_status(&status)),
        Err(_) => Err(Failure::Lost {
            problem: format!("no answer within {timeout:?}"),
            timed_out: true,
        }),
    }
}

async fn dispatch(
    endpoint: &Endpoint,
    request: Request,
    timeout: Duration,
) -> Result<Response, tonic::Status> {
    macro_rules! send {
        ($method:ident, $body:expr, $variant:ident) => {
            send!(kv.$method, $body, $variant)
        };
        ($service:ident.$method:ident, $body:expr, $variant:ident) => {{
            let mut call = tonic::Request::new($body);
            call.set_timeout(timeout);
            Response::$variant(endpoint.$service().$method(call).await?.into_inner())
        }};
    }
    Ok(match request {
        Request::Get(body) => send!(get, body, Get),
        Request::Put(body) => send!(put, body, Put),
        Request::Delete(body) => send!(delete, body, Delete),
        Request::Scan(body) => send!(scan, body, Scan),
        Request::Batch(body) => send!(batch, body, Batch),
        Request::CompareAndSet(body) => send!(compare_and_set, body, CompareAndSet),
        Request::Txn(body) => send!(txn, body, Txn),
        Request::History(body) => send!(history, body, History),
        Request::Outcome(body) => send!(outcome, body, Outcome),
        Request::Update(body) => send!(update, body, Update),
        Request::AwaitConverged(body) => send!(await_converged, body, AwaitConverged),
        Request::LeaseGrant(body) => send!(lease.grant, body, LeaseGrant),
        Request::LeaseKeepAlive(body) => send!(lease.renew, body, LeaseKeepAlive),
        Request::LeaseRevoke(body) => send!(lease.revoke, body, LeaseRevoke),
        Request::LeaseShow(body) => send!(lease.show, body, LeaseShow),
    })
}
