//! What each kind of command does to the keys of its range.

use bytes::Bytes;
use quorate_proto::internal::{
    Conditional, DeleteInterval, Expire, RangeOptions, Transaction, TransactionOperation, Write,
    command::Operation, transaction_operation,
};
use quorate_proto::v1::{Expect, expect::State};
use quorate_storage::engine::{EngineError, Version};
use quorate_types::causal::{Dot, Dots, Value};
use quorate_types::{Revision, Timestamp};

use super::{Applied, ApplyOutcome, ApplyRefusal, Machine, Store, TxnResult, live_values};

impl Machine {
    pub(super) fn operate(
        &mut self,
        revision: Revision,
        operation: Operation,
        store: &mut dyn Store,
    ) -> Result<Applied, EngineError> {
        let touched = self.touch(&operation, store)?;
        if let Some(touched) = &touched
            && let Some(refusal) = self.exceeds_quota(&operation, touched, store)?
        {
            return Ok(Applied::refused(revision, refusal));
        }
        let upkeep = matches!(
            operation,
            Operation::CollectBelow(_)
                | Operation::Ceiling(_)
                | Operation::Options(_)
                | Operation::LeaseGrant(_)
                | Operation::LeaseRenew(_)
                | Operation::LeaseCheckpoint(_)
        );
        if !upkeep {
            self.last_change = revision;
        }
        let outcome = match operation {
            Operation::Put(write) => {
                if let Some(refusal) = self.leases.refuses(&write) {
                    return Ok(Applied::refused(revision, refusal));
                }
                let unseen = unseen(revision, &write, store)?;
                self.replaced(revision, &write.key, &write.seen);
                self.put(revision, write, store);
                ApplyOutcome::Written { deleted: 0, unseen }
            }
            Operation::Delete(write) => {
                self.replaced(revision, &write.key, &write.seen);
                let deleted = u64::from(self.remove(revision, write.key, store)?);
                ApplyOutcome::Written { deleted, unseen: 0 }
            }
            Operation::Conditional(conditional) => {
                self.conditional(revision, conditional, store)?
            }
            Operation::Transaction(transaction) => self.transact(revision, transaction, store)?,
            Operation::Batch(mut batch) => {
                let mut operations = batch.operations.iter();
                if let Some(refusal) = operations.find_map(|one| self.refuses_lease(one)) {
                    return Ok(Applied::refused(revision, refusal));
                }
                let count = batch.operations.len();
                if self.faults.half_batches && revision.0.is_multiple_of(8) {
                    batch.operations.truncate(count / 2);
                }
                let mut results = self.run(revision, batch.operations, store)?;
                results.resize_with(count, TxnResult::default);
                ApplyOutcome::Transacted {
                    succeeded: true,
                    results,
                }
            }
            Operation::Expire(expire) => self.expire(revision, expire, store)?,
            // Of an etcd keyspace nothing goes that was not compacted.
            Operation::CollectBelow(_) if self.etcd.is_some() => ApplyOutcome::Nothing,
            Operation::CollectBelow(floor) => {
                self.floor = self.floor.max(Revision(floor.min(revision.0)));
                store.collect_below(self.floor);
                ApplyOutcome::Nothing
            }
            Operation::Ceiling(ceiling) => {
                self.ceiling = self.ceiling.max(Revision(ceiling));
                ApplyOutcome::Nothing
            }
            Operation::DeleteInterval(interval) => {
                self.delete_interval(revision, &interval, store)?
            }
            Operation::Options(options) => {
                self.set_options(options, store)?;
                ApplyOutcome::Nothing
            }
            Operation::Absorb(absorb) => self.absorb(revision, absorb, store)?,
            Operation::Tentative(tentative) => self.tentative(revision, tentative, store)?,
            Operation::LeaseGrant(grant) => self.grant(revision, grant),
            Operation::LeaseRenew(renew) => self.renew(revision, renew),
            Operation::LeaseRevoke(revoke) => self.revoke(revision, &revoke, store)?,
            Operation::LeaseExpire(expire) => self.expire_leases(revision, expire, store)?,
            Operation::LeaseCheckpoint(checkpoint) => self.checkpoint(&checkpoint),
            Operation::LeaseCut(cut) => self.cut_leases(revision, cut, store)?,
            Operation::Etcd(command) => self.etcd_command(revision, command, store)?,
            Operation::CloseRequest(_) => ApplyOutcome::Nothing, // handled before
        };
        if let Some(touched) = touched {
            self.count(&touched, store)?;
        }
        Ok(Applied::new(revision, outcome))
    }

    fn set_options(
        &mut self,
        options: RangeOptions,
        store: &mut dyn Store,
    ) -> Result<(), EngineError> {
        store.keep_history(options.history > 0);
        self.options = options;
        self.count_from_now(store)
    }

    fn put(&mut self, revision: Revision, write: Write, store: &mut dyn Store) {
        self.leases.written(&write);
        let expiry = (write.ttl > 0).then(|| revision.0.saturating_add(write.ttl));
        if let Some(at) = expiry {
            self.expiry.insert(at, write.key.clone());
        }
        store.put(
            write.key,
            Version {
                revision: revision.0,
                expiry,
                value: write.value,
                causal: None,
            },
        );
    }

    fn conditional(
        &mut self,
        revision: Revision,
        conditional: Conditional,
        store: &mut dyn Store,
    ) -> Result<ApplyOutcome, EngineError> {
        let write = conditional.write.unwrap_or_default();
        let current = store.get(&write.key)?;
        if !holds(conditional.expect.as_ref(), current.as_ref()) {
            return Ok(ApplyOutcome::Compared {
                succeeded: false,
                current,
            });
        }
        if let Some(refusal) = self.leases.refuses(&write) {
            return Ok(ApplyOutcome::Refused(refusal));
        }
        self.replaced(revision, &write.key, &write.seen);
        if conditional.delete {
            if current.is_some() {
                self.leases.detach(&write.key);
                store.delete(write.key, revision);
            }
        } else {
            self.put(revision, write, store);
        }
        Ok(ApplyOutcome::Compared {
            succeeded: true,
            current: None,
        })
    }

    fn transact(
        &mut self,
        revision: Revision,
        transaction: Transaction,
        store: &mut dyn Store,
    ) -> Result<ApplyOutcome, EngineError> {
        let mut succeeded = true;
        for compare in &transaction.compare {
            let current = store.get(&compare.key)?;
            succeeded &= holds(compare.expect.as_ref(), current.as_ref());
        }
        let operations = if succeeded {
            transaction.then
        } else {
            transaction.otherwise
        };
        if let Some(refusal) = operations.iter().find_map(|one| self.refuses_lease(one)) {
            return Ok(ApplyOutcome::Refused(refusal));
        }
        let results = self.run(revision, operations, store)?;
        Ok(ApplyOutcome::Transacted { succeeded, results })
    }

    fn refuses_lease(&self, operation: &TransactionOperation) -> Option<ApplyRefusal> {
        match &operation.operation {
            Some(transaction_operation::Operation::Put(write)) => self.leases.refuses(write),
            Some(
                transaction_operation::Operation::Delete(_)
                | transaction_operation::Operation::Get(_),
            )
            | None => None,
        }
    }

    /// Removes a key, with whatever lease it was attached to. Returns whether it was there.
    pub(super) fn remove(
        &mut self,
        revision: Revision,
        key: Bytes,
        store: &mut dyn Store,
    ) -> Result<bool, EngineError> {
        self.leases.detach(&key);
        let existed = store.get(&key)?.is_some();
        if existed {
            store.delete(key, revision);
        }
        Ok(existed)
    }

    fn delete_interval(
        &mut self,
        revision: Revision,
        interval: &DeleteInterval,
        store: &mut dyn Store,
    ) -> Result<ApplyOutcome, EngineError> {
        let keys = store.keys(&interval.start, &interval.end, interval.limit as usize)?;
        let deleted = keys.len() as u64;
        for key in keys {
            self.leases.detach(&key);
            store.delete(key, revision);
        }
        Ok(ApplyOutcome::Written { deleted, unseen: 0 })
    }

    fn run(
        &mut self,
        revision: Revision,
        operations: Vec<TransactionOperation>,
        store: &mut dyn Store,
    ) -> Result<Vec<TxnResult>, EngineError> {
        let mut results = Vec::with_capacity(operations.len());
        for operation in operations {
            let result = match operation.operation {
                Some(transaction_operation::Operation::Put(write)) => {
                    self.put(revision, write, store);
                    TxnResult {
                        found: false,
                        version: None,
                        revision,
                    }
                }
                Some(transaction_operation::Operation::Delete(key)) => TxnResult {
                    found: self.remove(revision, key, store)?,
                    version: None,
                    revision,
                },
                Some(transaction_operation::Operation::Get(key)) => {
                    let version = store.get(&key)?;
                    let found = version.is_some();
                    let version = version.map(|v| (key, v));
                    TxnResult {
                        found,
                        version,
                        revision: Revision::ZERO,
                    }
                }
                None => TxnResult::default(),
            };
            results.push(result);
        }
        Ok(results)
    }

    /// Removes what is named, if it is still what was named, and if its time has come by the
    /// entry's own revision.
    fn expire(
        &mut self,
        revision: Revision,
        expire: Expire,
        store: &mut dyn Store,
    ) -> Result<ApplyOutcome, EngineError> {
        let mut deleted = 0;
        for item in expire.items {
            if item.at > revision.0 {
                continue;
            }
            self.expiry.remove(item.at, &item.key);
            let current = store.get(&item.key)?;
            let Some(current) = current else { continue };
            if self.faults.expire_newer {
                self.leases.detach(&item.key);
                store.delete(item.key, revision);
                continue;
            }
            if current.causal.is_some() {
                let gone = self.expire_values((revision, item.at), item.key, current, store)?;
                deleted += u64::from(gone == Some(true));
            } else if current.revision == item.revision && current.expiry == Some(item.at) {
                self.leases.detach(&item.key);
                store.delete(item.key, revision);
                deleted += 1;
            }
        }
        Ok(ApplyOutcome::Written { deleted, unseen: 0 })
    }
}

/// How many values a put replaces that its client had not seen; none where it does not say what
/// that was.
fn unseen(revision: Revision, write: &Write, store: &mut dyn Store) -> Result<u64, EngineError> {
    let seen = match write.seen.is_empty() {
        true => return Ok(0),
        false => Dots::from_bytes(&write.seen),
    };
    // What does not decode tells nothing, on any replica.
    let Ok(seen) = seen else { return Ok(0) };
    let live = live_values(&write.key, store.get(&write.key)?)?;
    let now = Timestamp(revision.0);
    let unseen = |(dot, value): &&(Dot, Value)| value.is_visible(now) && !seen.contains(*dot);
    Ok(live.iter().filter(unseen).count() as u64)
}

/// Whether a key's present state is the expected one. No expectation always holds.
pub(super) fn holds(expect: Option<&Expect>, current: Option<&Version>) -> bool {
    match expect.and_then(|e| e.state.as_ref()) {
        None => true,
        Some(State::Revision(revision)) => current.is_some_and(|v| v.revision == *revision),
        Some(State::Value(value)) => current.is_some_and(|v| v.value == *value && is_alone(v)),
        Some(State::Absent(_)) => current.is_none(),
        Some(State::Present(_)) => current.is_some(),
    }
}

/// Whether a version shows one value, and no others beside it.
fn is_alone(version: &Version) -> bool {
    version.causal.is_none()
        || live_values(&[], Some(version.clone())).is_ok_and(|live| live.len() == 1)
}
