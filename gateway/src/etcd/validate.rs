//! What of a request is refused before anything is asked of the log.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;
use quorate_proto::etcd::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_proto::etcd::etcdserverpb::request_op::Request;
use quorate_proto::etcd::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use quorate_raft::machine::etcd::Span;
use tonic::Status;

use super::errors;

/// Compares, and operations, of one list of a transaction.
const TXN_OPERATIONS_MAX: usize = 128;
/// Bytes of one change.
const REQUEST_BYTES_MAX: usize = 1_572_864;

pub(crate) fn range(request: &RangeRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(errors::empty_key());
    }
    let known = SortOrder::try_from(request.sort_order).is_ok()
        && SortTarget::try_from(request.sort_target).is_ok();
    known.then_some(()).ok_or_else(errors::bad_sort_option)
}

pub(crate) fn put(request: &PutRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(errors::empty_key());
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(errors::value_provided());
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(errors::lease_provided());
    }
    Ok(())
}

pub(crate) fn delete_range(request: &DeleteRangeRequest) -> Result<(), Status> {
    match request.key.is_empty() {
        true => Err(errors::empty_key()),
        false => Ok(()),
    }
}

/// Bytes of a change.
pub(crate) fn size(message: &impl Message) -> Result<(), Status> {
    match message.encoded_len() > REQUEST_BYTES_MAX {
        true => Err(errors::request_too_large()),
        false => Ok(()),
    }
}

pub(crate) fn txn(request: &TxnRequest) -> Result<(), Status> {
    shape(request, TXN_OPERATIONS_MAX)?;
    touched(&request.success)?;
    touched(&request.failure)?;
    Ok(())
}

fn shape(request: &TxnRequest, operations_max: usize) -> Result<(), Status> {
    let most = [
        request.compare.len(),
        request.success.len(),
        request.failure.len(),
    ];
    if most.into_iter().any(|count| count > operations_max) {
        return Err(errors::too_many_operations());
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(errors::empty_key());
    }
    let left = operations_max
        - request
            .compare
            .len()
            .max(request.success.len())
            .max(request.failure.len());
    for operation in request.success.iter().chain(&request.failure) {
        match &operation.request {
            Some(Request::RequestRange(one)) => range(one)?,
            Some(Request::RequestPut(one)) => put(one)?,
            Some(Request::RequestDeleteRange(one)) => delete_range(one)?,
            Some(Request::RequestTxn(inner)) => shape(inner, left)?,
            // Like the call that is not there.
            None => return Err(errors::key_not_found()),
        }
    }
    Ok(())
}

/// Keys that a list of operations puts, and spans that it deletes: no key is touched twice on one
/// way through it. The two lists of a transaction inside are two ways.
fn touched(operations: &[RequestOp]) -> Result<(BTreeSet<Bytes>, Vec<Span>), Status> {
    let mut deleted = Vec::new();
    for operation in operations {
        if let Some(Request::RequestDeleteRange(delete)) = &operation.request {
            deleted.push(Span::of(&delete.key, &delete.range_end));
        }
    }
    let mut put = BTreeSet::new();
    for operation in operations {
        let Some(Request::RequestTxn(inner)) = &operation.request else {
            continue;
        };
        let (then_put, then_deleted) = touched(&inner.success)?;
        let (else_put, else_deleted) = touched(&inner.failure)?;
        let both: BTreeSet<Bytes> = then_put.union(&else_put).cloned().collect();
        let is_deleted = |key: &Bytes, spans: &[Span]| spans.iter().any(|span| span.contains(key));
        let is_twice = |key: &Bytes| put.contains(key) || is_deleted(key, &deleted);
        if both.iter().any(is_twice) {
            return Err(errors::duplicate_key());
        }
        let inner_deleted: Vec<Span> = then_deleted.into_iter().chain(else_deleted).collect();
        if put.iter().any(|key| is_deleted(key, &inner_deleted)) {
            return Err(errors::duplicate_key());
        }
        put.extend(both);
        deleted.extend(inner_deleted);
    }
    for operation in operations {
        let Some(Request::RequestPut(one)) = &operation.request else {
            continue;
        };
        let is_deleted = deleted.iter().any(|span| span.contains(&one.key));
        if is_deleted || !put.insert(one.key.clone()) {
            return Err(errors::duplicate_key());
        }
    }
    Ok((put, deleted))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn put_of(key: &'static str) -> RequestOp {
        RequestOp {
            request: Some(Request::RequestPut(PutRequest {
                key: Bytes::from_static(key.as_bytes()),
                ..PutRequest::default()
            })),
        }
    }

    fn delete_of(key: &'static str, end: &'static str) -> RequestOp {
        RequestOp {
            request: Some(Request::RequestDeleteRange(DeleteRangeRequest {
                key: Bytes::from_static(key.as_bytes()),
                range_end: Bytes::from_static(end.as_bytes()),
                prev_kv: false,
            })),
        }
    }

    fn txn_of(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> TxnRequest {
        TxnRequest {
            compare: Vec::new(),
            success,
            failure,
        }
    }

    #[test]
    fn no_key_is_touched_twice_on_one_way() {
        let inner = |success, failure| RequestOp {
            request: Some(Request::RequestTxn(txn_of(success, failure))),
        };
        let fine = [
            vec![put_of("a"), put_of("b"), delete_of("c", "d")],
            vec![delete_of("a", "c"), delete_of("b", "d")],
            vec![inner(vec![put_of("a")], vec![put_of("a")]), put_of("b")],
        ];
        for operations in fine {
            assert!(txn(&txn_of(operations, Vec::new())).is_ok());
        }
        let twice = [
            vec![put_of("a"), put_of("a")],
            vec![put_of("b"), delete_of("a", "c")],
            vec![inner(vec![put_of("a")], Vec::new()), put_of("a")],
            vec![
                inner(vec![put_of("a")], Vec::new()),
                inner(vec![put_of("a")], Vec::new()),
            ],
            vec![inner(vec![delete_of("a", "c")], Vec::new()), put_of("b")],
        ];
        for operations in twice {
            let refused = txn(&txn_of(Vec::new(), operations)).unwrap_err();
            assert_eq!(refused.message(), errors::duplicate_key().message());
        }
    }

    #[test]
    fn transactions_are_bounded_also_inside() {
        let many = (0..129).map(|_| delete_of("a", "")).collect();
        let refused = txn(&txn_of(many, Vec::new())).unwrap_err();
        assert_eq!(refused.message(), errors::too_many_operations().message());
    }
}
