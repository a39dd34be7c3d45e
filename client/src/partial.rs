//! Batches that were done in part. Their operations succeed or fail one by one, so what may
//! still succeed is inside an answer: the batch is sent again under its name, and ranges that
//! have done their part answer from memory.

use quorate_proto::v1;
use quorate_proto::v1::operation::Operation;
use quorate_types::Effect;

use crate::failure::{Failure, error_from_wire};
use crate::request::{Request, Response};
use crate::retry::is_passing;

/// Why it is worth to send the request again, though it was answered. Of several operations
/// that may still succeed the most doubtful one speaks.
pub(crate) fn unfinished(response: &Response) -> Option<Failure> {
    let Response::Batch(batch) = response else {
        return None;
    };
    let errors = batch
        .results
        .iter()
        .filter_map(|result| result.error.clone());
    errors
        .map(error_from_wire)
        .filter(is_passing)
        .max_by_key(|error| error.fate.effect != Effect::None)
        .map(|error| Failure::Refused(Box::new(error)))
}

/// Says of refused writes that an earlier attempt may have applied them.
pub(crate) fn cast_doubt(request: &Request, response: &mut Response) {
    let (Request::Batch(request), Response::Batch(response)) = (request, response) else {
        return;
    };
    for (operation, result) in request.operations.iter().zip(&mut response.results) {
        let is_write = matches!(
            operation.operation,
            Some(Operation::Put(_) | Operation::Delete(_))
        );
        if let Some(v1::Error { effect, .. }) = result.error.as_mut().filter(|_| is_write) {
            Effect::Unknown.as_str().clone_into(effect);
        }
    }
}
