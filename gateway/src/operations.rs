//! The operations inside batches and transactions: into commands, and their results out of what
//! the range applied.

use std::collections::HashMap;

use bytes::Bytes;
use quorate_proto::internal::{TransactionOperation, Write, transaction_operation};
use quorate_proto::v1::{self, operation::Operation as Op};
use quorate_raft::machine::{ApplyOutcome, TxnResult};
use quorate_raft::{Group, KeyspaceView};
use quorate_storage::engine::Version;
use quorate_types::Revision;

use crate::errors::GatewayError;
use crate::lease::Attach;
use crate::validate;
use crate::write::{key_value, stored};

/// An operation with its key as it is stored.
pub(crate) struct Prepared {
    pub(crate) key: Bytes,
    pub(crate) operation: v1::Operation,
    /// Of a put.
    pub(crate) attach: Attach,
}

impl Prepared {
    /// Whether it changes its key.
    pub(crate) fn is_write(&self) -> bool {
        matches!(self.operation.operation, Some(Op::Put(_) | Op::Delete(_)))
    }

    /// The lease that a put names; zero: none.
    pub(crate) fn lease(&self) -> u64 {
        match &self.operation.operation {
            Some(Op::Put(put)) => put.lease,
            Some(Op::Delete(_) | Op::Get(_)) | None => 0,
        }
    }

    fn user_key(&self) -> Bytes {
        validate::operation_key(&self.operation)
    }

    /// As a part of a command. The operation has been validated.
    pub(crate) fn command(&self, keyspace: &KeyspaceView) -> TransactionOperation {
        use transaction_operation::Operation;
        let key = self.key.clone();
        let operation = match &self.operation.operation {
            Some(Op::Put(put)) => {
                let ttl = validate::ttl("put.ttl_ms", put.ttl_ms, &keyspace.options).unwrap_or(0);
                Some(Operation::Put(Write {
                    key,
                    value: put.value.clone(),
                    ttl,
                    seen: Bytes::new(),
                    lease: self.attach.lease,
                    lease_granted: self.attach.granted,
                }))
            }
            Some(Op::Delete(_)) => Some(Operation::Delete(key)),
            Some(Op::Get(_)) => Some(Operation::Get(key)),
            None => None,
        };
        TransactionOperation { operation }
    }

    /// What a get sees in the table now.
    pub(crate) fn read(&self, group: &Group) -> Result<v1::OperationResult, GatewayError> {
        let version = group.table().get(&self.key).map_err(stored)?;
        Ok(v1::OperationResult {
            found: version.is_some(),
            entry: version.map(|version| key_value(self.user_key(), version)),
            ..v1::OperationResult::default()
        })
    }
}

/// The results of the operations that ran, in their order. Of an earlier attempt the range
/// remembers no more than its revision: they are told from its history.
pub(crate) fn results(
    outcome: ApplyOutcome,
    revision: Revision,
    operations: &[Prepared],
    group: &Group,
) -> Result<Vec<v1::OperationResult>, GatewayError> {
    match outcome {
        ApplyOutcome::Transacted { results, .. } if results.len() == operations.len() => {
            let pairs = results.into_iter().zip(operations);
            Ok(pairs
                .map(|(result, operation)| result_of(result, operation))
                .collect())
        }
        _ => remembered(operations, revision, group),
    }
}

fn result_of(result: TxnResult, operation: &Prepared) -> v1::OperationResult {
    v1::OperationResult {
        found: result.found,
        entry: result
            .version
            .map(|(_, version)| key_value(operation.user_key(), version)),
        revision: result.revision.0,
        error: None,
    }
}

/// What operations found that ran as of `revision`: each key as it was before, and what the
/// operations before it in the list made of it. A get of what history holds no more is an error
/// in its place; of a delete it is not told then whether there was anything.
fn remembered(
    operations: &[Prepared],
    revision: Revision,
    group: &Group,
) -> Result<Vec<v1::OperationResult>, GatewayError> {
    let at = |key: &Bytes, revision| group.table().get_at(key, revision).map_err(stored);
    let mut changed: HashMap<&Bytes, Option<Version>> = HashMap::new();
    let mut results = Vec::with_capacity(operations.len());
    for operation in operations {
        let key = &operation.key;
        let before = match changed.get(key) {
            Some(version) => Ok(version.clone()),
            None => at(key, revision.0 - 1),
        };
        let before = match before {
            Err(error @ GatewayError::RevisionCollected { .. }) if !operation.is_write() => {
                results.push(v1::OperationResult {
                    error: Some(v1::Error::from(error)),
                    ..v1::OperationResult::default()
                });
                continue;
            }
            Err(GatewayError::RevisionCollected { .. }) => None,
            before => before?,
        };
        let mut result = TxnResult {
            found: before.is_some(),
            revision,
            version: None,
        };
        match &operation.operation.operation {
            Some(Op::Put(put)) => {
                // Of several puts of the key in one list the last one is there: with its value.
                let put = at(key, revision.0).ok().flatten().map(|now| Version {
                    value: put.value.clone(),
                    ..now
                });
                changed.insert(key, put);
                result.found = false;
            }
            Some(Op::Delete(_)) => drop(changed.insert(key, None)),
            Some(Op::Get(_)) | None => {
                result.revision = Revision::ZERO;
                result.version = before.map(|version| (key.clone(), version));
            }
        }
        results.push(result_of(result, operation));
    }
    Ok(results)
}
