//! The quota of a range: bytes of keys and values that its live versions may take. A range counts
//! only while it has a quota; the count starts with a walk over its keys, at the log position that
//! sets the quota, so that all replicas count the same.

use bytes::Bytes;
use quorate_proto::internal::{TransactionOperation, command::Operation, transaction_operation};
use quorate_storage::engine::EngineError;

use super::{Machine, Store};

/// Keys and values of live versions, as far as a quota wants to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Bytes; `None`: there is no quota, and nobody counts.
    bytes: Option<u64>,
}

impl Usage {
    pub(super) fn restore(bytes: u64, quota: u64) -> Usage {
        Usage {
            bytes: (quota > 0).then_some(bytes),
        }
    }

    pub(super) fn stored(self) -> u64 {
        self.bytes.unwrap_or(0)
    }
}

/// What an operation touches, before it is done.
pub(super) struct Touched {
    keys: Vec<Bytes>,
    before: u64,
}

impl Machine {
    /// Starts or ends the count when the quota changes.
    pub(super) fn count_from_now(&mut self, store: &mut dyn Store) -> Result<(), EngineError> {
        self.usage.bytes = match (self.options.quota, self.usage.bytes) {
            (0, _) => None,
            (_, Some(bytes)) => Some(bytes),
            (_, None) => Some(store.stored_bytes()?),
        };
        Ok(())
    }

    /// Sizes up what an operation touches. `Ok(None)`: nobody counts.
    pub(super) fn touch(
        &self,
        operation: &Operation,
        store: &mut dyn Store,
    ) -> Result<Option<Touched>, EngineError> {
        if self.usage.bytes.is_none() {
            return Ok(None);
        }
        let mut keys = match operation {
            Operation::Put(write) | Operation::Delete(write) => vec![write.key.clone()],
            Operation::Conditional(conditional) => conditional
                .write
                .iter()
                .map(|write| write.key.clone())
                .collect(),
            Operation::Transaction(transaction) => {
                let all = transaction.then.iter().chain(&transaction.otherwise);
                all.filter_map(written_key).collect()
            }
            Operation::Batch(batch) => batch.operations.iter().filter_map(written_key).collect(),
            Operation::Expire(expire) => expire.items.iter().map(|item| item.key.clone()).collect(),
            Operation::DeleteInterval(interval) => {
                store.keys(&interval.start, &interval.end, interval.limit as usize)?
            }
            Operation::Absorb(absorb) => absorb.items.iter().map(|item| item.key.clone()).collect(),
            Operation::Tentative(tentative) => vec![tentative.key.clone()],
            Operation::LeaseRevoke(revoke) => self.keys_of_leases([revoke.id]),
            Operation::LeaseExpire(expire) => {
                self.keys_of_leases(expire.items.iter().map(|item| item.id))
            }
            Operation::LeaseCut(cut) => self.keys_of_names(cut),
            Operation::CollectBelow(_)
            | Operation::Ceiling(_)
            | Operation::CloseRequest(_)
            | Operation::LeaseGrant(_)
            | Operation::LeaseRenew(_)
            | Operation::LeaseCheckpoint(_)
            | Operation::Options(_)
            // What is kept until it is compacted has no quota.
            | Operation::Etcd(_) => Vec::new(),
        };
        keys.sort_unstable();
        keys.dedup();
        let before = sizes(&keys, store)?;
        Ok(Some(Touched { keys, before }))
    }

    /// Whether the puts of an operation would not fit, judged by all of them.
    pub(super) fn exceeds_quota(&self, operation: &Operation, touched: &Touched) -> bool {
        let added = added_bytes(operation);
        let left = self.usage.stored().saturating_sub(touched.before);
        added > 0 && left.saturating_add(added) > self.options.quota
    }

    /// Counts what an operation did.
    pub(super) fn count(
        &mut self,
        touched: &Touched,
        store: &mut dyn Store,
    ) -> Result<(), EngineError> {
        let after = sizes(&touched.keys, store)?;
        if let Some(bytes) = &mut self.usage.bytes {
            *bytes = bytes.saturating_sub(touched.before).saturating_add(after);
        }
        Ok(())
    }
}

fn written_key(operation: &TransactionOperation) -> Option<Bytes> {
    match operation.operation.as_ref()? {
        transaction_operation::Operation::Put(write) => Some(write.key.clone()),
        transaction_operation::Operation::Delete(key) => Some(key.clone()),
        transaction_operation::Operation::Get(_) => None,
    }
}

fn put_bytes(operations: &[TransactionOperation]) -> u64 {
    let size = |operation: &TransactionOperation| match operation.operation.as_ref() {
        Some(transaction_operation::Operation::Put(write)) => {
            (write.key.len() + write.value.len()) as u64
        }
        _ => 0,
    };
    operations.iter().map(size).sum()
}

/// Bytes that the puts of an operation bring; of a transaction, of the larger list.
fn added_bytes(operation: &Operation) -> u64 {
    match operation {
        Operation::Put(write) => (write.key.len() + write.value.len()) as u64,
        Operation::Conditional(conditional) if !conditional.delete => {
            let write = conditional.write.as_ref();
            write.map_or(0, |write| (write.key.len() + write.value.len()) as u64)
        }
        Operation::Transaction(transaction) => {
            put_bytes(&transaction.then).max(put_bytes(&transaction.otherwise))
        }
        Operation::Batch(batch) => put_bytes(&batch.operations),
        _ => 0,
    }
}

fn sizes(keys: &[Bytes], store: &mut dyn Store) -> Result<u64, EngineError> {
    let mut total = 0;
    for key in keys {
        total += store
            .get(key)?
            .map_or(0, |version| (key.len() + version.value.len()) as u64);
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use quorate_proto::internal::{Command, RangeOptions, Write};
    use quorate_storage::engine::Version;
    use quorate_types::Revision;

    use super::*;
    use crate::machine::{ApplyOutcome, ApplyRefusal};

    /// Keys in a map.
    #[derive(Default)]
    struct Plain(BTreeMap<Bytes, Version>);

    impl Store for Plain {
        fn get(&mut self, key: &[u8]) -> Result<Option<Version>, EngineError> {
            Ok(self.0.get(key).cloned())
        }
        fn keys(
            &mut self,
            from: &Bytes,
            _: &Bytes,
            limit: usize,
        ) -> Result<Vec<Bytes>, EngineError> {
            Ok(self
                .0
                .range(from.clone()..)
                .take(limit)
                .map(|(key, _)| key.clone())
                .collect())
        }
        fn scan(
            &mut self,
            start: &Bytes,
            end: &Bytes,
            _: Option<Revision>,
            see: &mut dyn FnMut(Bytes, Version),
        ) -> Result<(), EngineError> {
            for (key, version) in self.0.range(start.clone()..end.clone()) {
                see(key.clone(), version.clone());
            }
            Ok(())
        }
        fn stored_bytes(&mut self) -> Result<u64, EngineError> {
            Ok(self
                .0
                .iter()
                .map(|(key, v)| (key.len() + v.value.len()) as u64)
                .sum())
        }
        fn put(&mut self, key: Bytes, version: Version) {
            self.0.insert(key, version);
        }
        fn delete(&mut self, key: Bytes, _: Revision) {
            self.0.remove(&key);
        }
        fn collect_below(&mut self, _: Revision) {}
        fn keep_history(&mut self, _: bool) {}
    }

    fn put(sequence: u64, key: &'static str, bytes: usize) -> Command {
        let write = Write {
            key: key.into(),
            value: vec![7; bytes].into(),
            ..Write::default()
        };
        let operation = Some(Operation::Put(write));
        Command {
            client: 1,
            sequence,
            first_tried: 1,
            operation,
            ..Command::default()
        }
    }

    fn options(quota: u64) -> Command {
        let options = RangeOptions {
            history: 0,
            quota,
            window: 100,
        };
        Command {
            operation: Some(Operation::Options(options)),
            ..Command::default()
        }
    }

    #[test]
    fn a_quota_counts_what_lives_and_refuses_what_does_not_fit() {
        let (mut machine, mut store) = (Machine::default(), Plain::default());
        let mut apply = |command| machine.apply(command, &mut store).unwrap().outcome;
        let written = ApplyOutcome::Written {
            deleted: 0,
            unseen: 0,
        };
        let refused = ApplyOutcome::Refused(ApplyRefusal::QuotaExceeded);
        assert_eq!(apply(put(1, "a", 99)), written);
        apply(options(300));
        assert_eq!(apply(put(2, "b", 99)), written, "200 of 300");
        assert_eq!(apply(put(3, "c", 100)), refused, "301 of 300");
        assert_eq!(apply(put(4, "b", 199)), written, "what it replaces goes");
        assert_eq!(apply(put(5, "c", 1)), refused, "302 of 300");
        let closed = ApplyOutcome::Remembered {
            succeeded: false,
            closed: true,
            deleted: 0,
        };
        assert_eq!(
            apply(put(3, "c", 0)),
            closed,
            "a refused write stays refused"
        );
        apply(options(0));
        assert_eq!(apply(put(6, "c", 1000)), written, "no quota");
    }
}
