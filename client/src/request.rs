//! The requests as they travel, as far as sending and retrying need to know them: is it a
//! write, what is its name, which key does it route by.

use bytes::Bytes;
use quorate_proto::v1::operation;
use quorate_proto::{changes, v1};

pub use quorate_proto::v1::pipeline_request::Request;
pub use quorate_proto::v1::pipeline_response::Response;

/// Whether it may change data.
pub(crate) fn is_write(request: &Request) -> bool {
    match request {
        Request::Get(_)
        | Request::Scan(_)
        | Request::History(_)
        | Request::Outcome(_)
        | Request::LeaseShow(_)
        | Request::AwaitConverged(_) => false,
        Request::Put(_)
        | Request::Delete(_)
        | Request::CompareAndSet(_)
        | Request::LeaseGrant(_)
        | Request::LeaseKeepAlive(_)
        | Request::LeaseRevoke(_)
        | Request::Update(_) => true,
        Request::Batch(batch) => has_writes(&batch.operations),
        Request::Txn(txn) => has_writes(&txn.then) || has_writes(&txn.otherwise),
    }
}

fn has_writes(operations: &[v1::Operation]) -> bool {
    operations.iter().any(|operation| {
        matches!(
            operation.operation,
            Some(operation::Operation::Put(_) | operation::Operation::Delete(_))
        )
    })
}

/// Whether it may be applied twice: all but increments, of which a second one counts.
pub(crate) fn is_repeatable(request: &Request) -> bool {
    match request {
        Request::Update(update) => !changes::increments(update.change.as_ref()),
        Request::Get(_)
        | Request::Put(_)
        | Request::Delete(_)
        | Request::Scan(_)
        | Request::Batch(_)
        | Request::CompareAndSet(_)
        | Request::Txn(_)
        | Request::History(_)
        | Request::Outcome(_)
        | Request::LeaseGrant(_)
        | Request::LeaseKeepAlive(_)
        | Request::LeaseRevoke(_)
        | Request::LeaseShow(_)
        | Request::AwaitConverged(_) => true,
    }
}

/// The levels that it names; none: the keyspace's default.
pub(crate) fn rungs(request: &Request) -> &[v1::Rung] {
    let consistency = match request {
        Request::Get(get) => &get.consistency,
        Request::Put(put) => &put.consistency,
        Request::Delete(delete) => &delete.consistency,
        Request::Scan(scan) => &scan.consistency,
        Request::Batch(batch) => &batch.consistency,
        Request::CompareAndSet(cas) => &cas.consistency,
        Request::Txn(txn) => &txn.consistency,
        Request::Update(update) => &update.consistency,
        Request::History(history) => &history.consistency,
        Request::Outcome(_)
        | Request::LeaseGrant(_)
        | Request::LeaseKeepAlive(_)
        | Request::LeaseRevoke(_)
        | Request::LeaseShow(_)
        | Request::AwaitConverged(_) => return &[],
    };
    let rungs = consistency.as_ref().map(|consistency| &consistency.rungs);
    rungs.map_or(&[], Vec::as_slice)
}

/// Where a write's name goes.
pub(crate) fn name_of(request: &mut Request) -> Option<&mut Option<v1::RequestId>> {
    match request {
        Request::Put(put) => Some(&mut put.request_id),
        Request::Delete(delete) => Some(&mut delete.request_id),
        Request::CompareAndSet(cas) => Some(&mut cas.request_id),
        Request::Batch(batch) => Some(&mut batch.request_id),
        Request::Txn(txn) => Some(&mut txn.request_id),
        Request::Update(update) => Some(&mut update.request_id),
        Request::LeaseGrant(grant) => Some(&mut grant.request_id),
        Request::LeaseRevoke(revoke) => Some(&mut revoke.request_id),
        Request::Get(_)
        | Request::Scan(_)
        | Request::History(_)
        | Request::Outcome(_)
        | Request::LeaseKeepAlive(_)
        | Request::LeaseShow(_)
        | Request::AwaitConverged(_) => None,
    }
}

/// Where the keyspace's name goes.
pub(crate) fn keyspace_of(request: &mut Request) -> Option<&mut String> {
    match request {
        Request::Get(get) => Some(&mut get.keyspace),
        Request::Put(put) => Some(&mut put.keyspace),
        Request::Delete(delete) => Some(&mut delete.keyspace),
        Request::Scan(scan) => Some(&mut scan.keyspace),
        Request::Batch(batch) => Some(&mut batch.keyspace),
        Request::CompareAndSet(cas) => Some(&mut cas.keyspace),
        Request::Txn(txn) => Some(&mut txn.keyspace),
        Request::Update(update) => Some(&mut update.keyspace),
        Request::History(history) => Some(&mut history.keyspace),
        Request::AwaitConverged(named) => Some(&mut named.keyspace),
        Request::LeaseGrant(grant) => Some(&mut grant.keyspace),
        Request::LeaseKeepAlive(kept) => Some(&mut kept.keyspace),
        Request::LeaseRevoke(revoke) => Some(&mut revoke.keyspace),
        Request::LeaseShow(show) => Some(&mut show.keyspace),
        Request::Outcome(_) => None,
    }
}

/// The keyspace that it goes to, if it names one.
pub(crate) fn keyspace_name(request: &Request) -> Option<&str> {
    Some(match request {
        Request::Get(get) => &get.keyspace,
        Request::Put(put) => &put.keyspace,
        Request::Delete(delete) => &delete.keyspace,
        Request::Scan(scan) => &scan.keyspace,
        Request::Batch(batch) => &batch.keyspace,
        Request::CompareAndSet(cas) => &cas.keyspace,
        Request::Txn(txn) => &txn.keyspace,
        Request::Update(update) => &update.keyspace,
        Request::History(history) => &history.keyspace,
        Request::AwaitConverged(named) => &named.keyspace,
        Request::LeaseGrant(grant) => &grant.keyspace,
        Request::LeaseKeepAlive(kept) => &kept.keyspace,
        Request::LeaseRevoke(revoke) => &revoke.keyspace,
        Request::LeaseShow(show) => &show.keyspace,
        Request::Outcome(_) => return None,
    })
}

/// The keyspace, and the key whose range decides where the request goes first. None: it has
/// no one range.
pub(crate) fn routing(request: &Request) -> Option<(&str, &[u8])> {
    let (keyspace, key): (&str, &Bytes) = match request {
        Request::Get(get) => (&get.keyspace, &get.key),
        Request::Put(put) => (&put.keyspace, &put.key),
        Request::Delete(delete) if !delete.prefix => (&delete.keyspace, &delete.key),
        Request::CompareAndSet(cas) => (&cas.keyspace, &cas.key),
        Request::Update(update) => (&update.keyspace, &update.key),
        Request::History(history) => (&history.keyspace, &history.key),
        Request::Txn(txn) => (&txn.keyspace, txn_key(txn)?),
        Request::Delete(_)
        | Request::Scan(_)
        | Request::Batch(_)
        | Request::Outcome(_)
        | Request::LeaseGrant(_)
        | Request::LeaseKeepAlive(_)
        | Request::LeaseRevoke(_)
        | Request::LeaseShow(_)
        | Request::AwaitConverged(_) => return None,
    };
    Some((keyspace, key))
}

/// A transaction lies within one range: any of its keys will do.
fn txn_key(txn: &v1::TxnRequest) -> Option<&Bytes> {
    let compared = txn.compare.first().map(|compare| &compare.key);
    let mut operations = txn.then.iter().chain(&txn.otherwise);
    compared.or_else(|| operations.find_map(operation_key))
}

fn operation_key(operation: &v1::Operation) -> Option<&Bytes> {
    Some(match operation.operation.as_ref()? {
        operation::Operation::Put(put) => &put.key,
        operation::Operation::Delete(delete) => &delete.key,
        operation::Operation::Get(get) => &get.key,
    })
}

/// Bytes of keys and values, by which what is in flight is bounded.
pub(crate) fn payload_bytes(request: &Request) -> usize {
    let of_all = |operations: &[v1::Operation]| operations.iter().map(operation_bytes).sum();
    match request {
        Request::Put(put) => put.key.len() + put.value.len(),
        Request::CompareAndSet(cas) => cas.key.len() + cas.value.len(),
        Request::Batch(batch) => of_all(&batch.operations),
        Request::Txn(txn) => {
            let then: usize = of_all(&txn.then);
            let otherwise: usize = of_all(&txn.otherwise);
            then + otherwise
        }
        Request::Update(update) => update.key.len() + changes::bytes_of(update.change.as_ref()),
        Request::Get(_)
        | Request::Delete(_)
        | Request::Scan(_)
        | Request::History(_)
        | Request::Outcome(_)
        | Request::LeaseGrant(_)
        | Request::LeaseKeepAlive(_)
        | Request::LeaseRevoke(_)
        | Request::LeaseShow(_)
        | Request::AwaitConverged(_) => 0,
    }
}

fn operation_bytes(operation: &v1::Operation) -> usize {
    let value = match operation.operation.as_ref() {
        Some(operation::Operation::Put(put)) => put.value.len(),
        Some(operation::Operation::Delete(_) | operation::Operation::Get(_)) | None => 0,
    };
    value + operation_key(operation).map_or(0, Bytes::len)
}

/// The receipt of an answer.
pub(crate) fn receipt_of(response: &Response) -> Option<&v1::Receipt> {
    match response {
        Response::Get(get) => get.receipt.as_ref(),
        Response::Put(put) => put.receipt.as_ref(),
        Response::Delete(delete) => delete.receipt.as_ref(),
        Response::Scan(scan) => scan.receipt.as_ref(),
        Response::Batch(batch) => batch.receipt.as_ref(),
        Response::CompareAndSet(cas) => cas.receipt.as_ref(),
        Response::Txn(txn) => txn.receipt.as_ref(),
        Response::History(history) => history.receipt.as_ref(),
        Response::Outcome(outcome) => outcome.receipt.as_ref(),
        Response::AwaitConverged(done) => done.receipt.as_ref(),
        Response::Update(update) => update.receipt.as_ref(),
        Response::LeaseGrant(grant) => grant.receipt.as_ref(),
        Response::LeaseKeepAlive(kept) => kept.receipt.as_ref(),
        Response::LeaseRevoke(revoke) => revoke.receipt.as_ref(),
        Response::LeaseShow(show) => show.receipt.as_ref(),
        Response::Error(_) => None,
    }
}
