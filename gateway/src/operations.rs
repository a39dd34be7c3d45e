//! The operations inside batches and transactions: into commands, and their results out of what
//! the range applied.

use bytes::Bytes;
use quorate_proto::internal::{TransactionOperation, Write, transaction_operation};
use quorate_proto::v1::{self, operation::Operation as Op};
use quorate_raft::machine::{ApplyOutcome, TxnResult};
use quorate_raft::{Group, KeyspaceView};
use quorate_types::Revision;

use crate::errors::GatewayError;
use crate::validate;
use crate::write::{key_value, stored};

/// An operation with its key as it is stored.
pub(crate) struct Prepared {
    pub(crate) key: Bytes,
    pub(crate) operation: v1::Operation,
}

impl Prepared {
    /// Whether it changes its key.
    pub(crate) fn is_write(&self) -> bool {
        matches!(self.operation.operation, Some(Op::Put(_) | Op::Delete(_)))
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
/// remembers no more than its revision: gets then see what is there now.
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
        _ => operations
            .iter()
            .map(|operation| remembered(operation, revision, group))
            .collect(),
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

fn remembered(
    operation: &Prepared,
    revision: Revision,
    group: &Group,
) -> Result<v1::OperationResult, GatewayError> {
    if !operation.is_write() {
        return operation.read(group);
    }
    Ok(v1::OperationResult {
        revision: revision.0,
        ..v1::OperationResult::default()
    })
}
