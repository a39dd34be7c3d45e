//! Quotas of a range: bytes of keys and values that its live versions may take, and what those of a
//! prefix may. A range counts only while there is a quota; a count starts with a walk over the keys,
//! at the log position that sets the quota, so that all replicas count the same. Each write is
//! judged at its place in the log: two writers at the limit cannot both pass.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_proto::internal::{
    PrefixCount, PrefixLimits, RangeOptions, TransactionOperation, command::Operation,
    transaction_operation,
};
use quorate_proto::v1::PrefixUse;
use quorate_storage::engine::{EngineError, Version};
use quorate_types::prefix_end;

use super::operations::holds;
use super::{ApplyRefusal, Machine, PrefixFull, Store, etcd};

/// Keys and values of live versions, as far as quotas want to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Bytes; `None`: there is no quota of the range, and nobody counts.
    bytes: Option<u64>,
    /// One for each prefix with limits, in the options' order.
    prefixes: Vec<PrefixCount>,
}

impl Usage {
    pub(super) fn restore(bytes: u64, counts: Vec<PrefixCount>, options: &RangeOptions) -> Usage {
        Usage {
            bytes: (options.quota > 0).then_some(bytes),
            prefixes: counts,
        }
    }

    pub(super) fn stored(&self) -> u64 {
        self.bytes.unwrap_or(0)
    }

    pub(super) fn prefixes(&self) -> &[PrefixCount] {
        &self.prefixes
    }
}

/// Bytes of keys and values, by key; `None`: the key is not there.
type Sizes = BTreeMap<Bytes, Option<u64>>;

/// What an operation touches, before it is done.
pub(super) struct Touched {
    before: Sizes,
}

/// What a range's rows are made of.
#[derive(Clone, Copy, Debug)]
enum Rows {
    /// Values as their clients wrote them.
    Plain,
    /// etcd's records, of which users see the value.
    Etcd,
}

impl Rows {
    /// Bytes of a key and its value.
    fn size(self, key: &Bytes, version: &Version) -> u64 {
        let value = match self {
            Rows::Plain => version.value.len(),
            Rows::Etcd => etcd::value_bytes(version),
        };
        (key.len() + value) as u64
    }

    /// As the store has them now.
    fn sizes(
        self,
        keys: impl IntoIterator<Item = Bytes>,
        store: &mut dyn Store,
    ) -> Result<Sizes, EngineError> {
        let mut sizes = Sizes::new();
        for key in keys {
            let version = store.get(&key)?;
            let size = version.map(|version| self.size(&key, &version));
            sizes.insert(key, size);
        }
        Ok(sizes)
    }
}

fn total(sizes: &Sizes) -> u64 {
    sizes.values().flatten().sum()
}

impl Machine {
    /// Starts or ends counts when quotas change. What is counted already goes on.
    pub(super) fn count_from_now(&mut self, store: &mut dyn Store) -> Result<(), EngineError> {
        self.usage.bytes = match (self.options.quota, self.usage.bytes) {
            (0, _) => None,
            (_, Some(bytes)) => Some(bytes),
            (_, None) => Some(store.stored_bytes()?),
        };
        let mut known = std::mem::take(&mut self.usage.prefixes);
        for limits in &self.options.prefixes {
            let at = known.iter().position(|one| one.prefix == limits.prefix);
            self.usage.prefixes.push(match at {
                Some(at) => known.swap_remove(at),
                None => count_prefix(limits, self.rows(), store)?,
            });
        }
        Ok(())
    }

    /// What its prefixes with quotas take.
    pub fn prefix_uses(&self) -> Vec<PrefixUse> {
        let pairs = self.options.prefixes.iter().zip(&self.usage.prefixes);
        pairs
            .map(|(limits, count)| PrefixUse {
                prefix: user_prefix(limits),
                keys: count.keys,
                bytes: count.bytes,
                max_keys: limits.max_keys,
                max_bytes: limits.max_bytes,
            })
            .collect()
    }

    /// Sizes up what an operation touches. `Ok(None)`: nobody counts.
    pub(super) fn touch(
        &self,
        operation: &Operation,
        store: &mut dyn Store,
    ) -> Result<Option<Touched>, EngineError> {
        if self.usage.bytes.is_none() && self.usage.prefixes.is_empty() {
            return Ok(None);
        }
        let keys = match operation {
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
            // Judged and counted where it is known what it comes to: `take_prefixes`.
            | Operation::Etcd(_) => Vec::new(),
        };
        let before = self.rows().sizes(keys, store)?;
        Ok(Some(Touched { before }))
    }

    /// What the rows of this range are made of.
    fn rows(&self) -> Rows {
        match self.etcd {
            Some(_) => Rows::Etcd,
            None => Rows::Plain,
        }
    }

    /// Counts what a change of an etcd keyspace is about to do, by stored key and the bytes of its
    /// new value, unless a prefix has no room for it.
    pub(super) fn take_prefixes(
        &mut self,
        changes: impl Iterator<Item = (Bytes, Option<u64>)>,
        store: &mut dyn Store,
    ) -> Result<Result<(), Box<PrefixFull>>, EngineError> {
        if self.usage.prefixes.is_empty() {
            return Ok(Ok(()));
        }
        let after = changes.map(|(key, value)| {
            let size = value.map(|bytes| key.len() as u64 + bytes);
            (key, size)
        });
        let after: Sizes = after.collect();
        let before = self.rows().sizes(after.keys().cloned(), store)?;
        if let Some(full) = self.full_prefix(&before, &after) {
            return Ok(Err(Box::new(full)));
        }
        self.move_prefixes(&before, &after);
        Ok(Ok(()))
    }

    /// The first prefix that would grow past its limits.
    fn full_prefix(&self, before: &Sizes, after: &Sizes) -> Option<PrefixFull> {
        let pairs = self.options.prefixes.iter().zip(&self.usage.prefixes);
        let mut full = pairs.filter_map(|(limits, count)| {
            let then = moved(limits, count, before, after);
            full_by(limits, count, &then)
        });
        full.next()
    }

    fn move_prefixes(&mut self, before: &Sizes, after: &Sizes) {
        let pairs = self.options.prefixes.iter().zip(&mut self.usage.prefixes);
        for (limits, count) in pairs {
            *count = moved(limits, count, before, after);
        }
    }

    /// Which quota the puts of an operation would not fit into, judged by all of them.
    pub(super) fn exceeds_quota(
        &self,
        operation: &Operation,
        touched: &Touched,
        store: &mut dyn Store,
    ) -> Result<Option<ApplyRefusal>, EngineError> {
        if !puts_anything(operation) {
            return Ok(None);
        }
        let after = foreseen(operation, &touched.before, store)?;
        if let Some(now) = self.usage.bytes {
            let then = now.saturating_sub(total(&touched.before)) + total(&after);
            if is_past(now, then, self.options.quota) {
                return Ok(Some(ApplyRefusal::QuotaExceeded));
            }
        }
        let full = self.full_prefix(&touched.before, &after);
        Ok(full.map(|full| ApplyRefusal::PrefixFull(Box::new(full))))
    }

    /// Counts what an operation did.
    pub(super) fn count(
        &mut self,
        touched: &Touched,
        store: &mut dyn Store,
    ) -> Result<(), EngineError> {
        let keys = touched.before.keys().cloned();
        let after = self.rows().sizes(keys, store)?;
        if let Some(bytes) = &mut self.usage.bytes {
            *bytes = bytes.saturating_sub(total(&touched.before)) + total(&after);
        }
        self.move_prefixes(&touched.before, &after);
        Ok(())
    }
}

fn user_prefix(limits: &PrefixLimits) -> Bytes {
    let unseen = (limits.unseen as usize).min(limits.prefix.len());
    limits.prefix.slice(unseen..)
}

/// What the keys of a prefix take, by a walk over them.
fn count_prefix(
    limits: &PrefixLimits,
    rows: Rows,
    store: &mut dyn Store,
) -> Result<PrefixCount, EngineError> {
    let mut count = PrefixCount {
        prefix: limits.prefix.clone(),
        ..PrefixCount::default()
    };
    let end = prefix_end(&limits.prefix);
    store.scan(&limits.prefix, &end, None, &mut |key, version| {
        let size = rows.size(&key, &version);
        count.keys += 1;
        count.bytes += size.saturating_sub(u64::from(limits.unseen));
    })?;
    Ok(count)
}

/// A count, once what was touched is as it is then.
fn moved(limits: &PrefixLimits, count: &PrefixCount, before: &Sizes, then: &Sizes) -> PrefixCount {
    let mut moved = count.clone();
    let of_prefix = |sizes: &Sizes| {
        let of_prefix = sizes.range(limits.prefix.clone()..);
        let of_prefix = of_prefix.take_while(|(key, _)| key.starts_with(&limits.prefix));
        let mut total = (0, 0);
        for size in of_prefix.filter_map(|(_, size)| *size) {
            total.0 += 1;
            total.1 += size.saturating_sub(u64::from(limits.unseen));
        }
        total
    };
    let (gone, came) = (of_prefix(before), of_prefix(then));
    moved.keys = moved.keys.saturating_sub(gone.0).saturating_add(came.0);
    moved.bytes = moved.bytes.saturating_sub(gone.1).saturating_add(came.1);
    moved
}

/// Whether a count grows past a limit; zero: none. One that shrinks may be past it: it was lowered.
fn is_past(now: u64, then: u64, max: u64) -> bool {
    max > 0 && then > max && then > now
}

/// Whether a count grows past its limits.
fn full_by(limits: &PrefixLimits, now: &PrefixCount, then: &PrefixCount) -> Option<PrefixFull> {
    let is_full = is_past(now.keys, then.keys, limits.max_keys)
        || is_past(now.bytes, then.bytes, limits.max_bytes);
    is_full.then(|| PrefixFull {
        prefix: user_prefix(limits),
        keys: (now.keys, then.keys),
        bytes: (now.bytes, then.bytes),
        max_keys: limits.max_keys,
        max_bytes: limits.max_bytes,
    })
}

/// Sizes of what an operation touches as they will be after it.
fn foreseen(
    operation: &Operation,
    before: &Sizes,
    store: &mut dyn Store,
) -> Result<Sizes, EngineError> {
    let mut after = before.clone();
    let size = |key: &Bytes, value: &Bytes| Some((key.len() + value.len()) as u64);
    let run = |after: &mut Sizes, operations: &[TransactionOperation]| {
        for operation in operations {
            match operation.operation.as_ref() {
                Some(transaction_operation::Operation::Put(write)) => {
                    after.insert(write.key.clone(), size(&write.key, &write.value));
                }
                Some(transaction_operation::Operation::Delete(key)) => {
                    after.insert(key.clone(), None);
                }
                Some(transaction_operation::Operation::Get(_)) | None => {}
            }
        }
    };
    match operation {
        Operation::Put(write) => {
            after.insert(write.key.clone(), size(&write.key, &write.value));
        }
        Operation::Conditional(conditional) => {
            if let Some(write) = &conditional.write
                && holds(conditional.expect.as_ref(), store.get(&write.key)?.as_ref())
            {
                after.insert(write.key.clone(), size(&write.key, &write.value));
            }
        }
        Operation::Transaction(transaction) => {
            let mut succeeded = true;
            for compare in &transaction.compare {
                let current = store.get(&compare.key)?;
                succeeded &= holds(compare.expect.as_ref(), current.as_ref());
            }
            match succeeded {
                true => run(&mut after, &transaction.then),
                false => run(&mut after, &transaction.otherwise),
            }
        }
        Operation::Batch(batch) => run(&mut after, &batch.operations),
        // These put nothing.
        _ => {}
    }
    Ok(after)
}

fn written_key(operation: &TransactionOperation) -> Option<Bytes> {
    match operation.operation.as_ref()? {
        transaction_operation::Operation::Put(write) => Some(write.key.clone()),
        transaction_operation::Operation::Delete(key) => Some(key.clone()),
        transaction_operation::Operation::Get(_) => None,
    }
}

/// Whether an operation may put something that a quota judges.
fn puts_anything(operation: &Operation) -> bool {
    match operation {
        Operation::Put(_) | Operation::Transaction(_) | Operation::Batch(_) => true,
        Operation::Conditional(conditional) => !conditional.delete,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use quorate_proto::internal::{
        Command, Conditional, DeleteInterval, RangeOptions, Transaction, Write,
    };
    use quorate_proto::v1::{Compare, Expect, expect::State};
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
            prefixes: Vec::new(),
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

    #[test]
    fn a_list_that_does_not_run_makes_no_room_in_a_keyspace() {
        let (mut machine, mut store) = (Machine::default(), Plain::default());
        let mut apply = |operation| {
            let applied = machine.apply(unnamed(operation), &mut store).unwrap();
            applied.outcome
        };
        apply(options(200).operation.unwrap());
        apply(Operation::Put(one("a", 149)));
        let transaction = |then: &[(&str, usize)], otherwise: &[(&str, usize)]| {
            Operation::Transaction(Transaction {
                compare: vec![Compare {
                    key: "b".into(),
                    expect: absent(),
                }],
                then: puts(then),
                otherwise: puts(otherwise),
            })
        };
        let refused = ApplyOutcome::Refused(ApplyRefusal::QuotaExceeded);
        assert_eq!(
            apply(transaction(&[("b", 149)], &[("a", 0)])),
            refused,
            "`a` stays: 300 of 200"
        );
        assert_ne!(apply(transaction(&[("b", 49)], &[("c", 999)])), refused);
        // Lowered below what is there: what does not grow passes.
        apply(options(100).operation.unwrap());
        assert_ne!(apply(Operation::Put(one("a", 148))), refused, "shrinks");
        assert_eq!(apply(Operation::Put(one("a", 149))), refused, "grows");
        assert_eq!(store.stored_bytes().unwrap(), 199);
        assert_eq!(machine.usage.bytes, Some(199));
    }

    /// Of keys that begin with `prefix`, whose first byte no user sees.
    fn limited(prefix: &'static str, max_keys: u64, max_bytes: u64) -> Command {
        let limits = PrefixLimits {
            prefix: prefix.into(),
            unseen: 1,
            max_keys,
            max_bytes,
        };
        let options = RangeOptions {
            window: 100,
            prefixes: vec![limits],
            ..RangeOptions::default()
        };
        unnamed(Operation::Options(options))
    }

    fn unnamed(operation: Operation) -> Command {
        Command {
            operation: Some(operation),
            ..Command::default()
        }
    }

    fn one(key: &str, bytes: usize) -> Write {
        Write {
            key: key.to_owned().into(),
            value: vec![7; bytes].into(),
            ..Write::default()
        }
    }

    fn puts(writes: &[(&str, usize)]) -> Vec<TransactionOperation> {
        let put = |(key, bytes): &(&str, usize)| TransactionOperation {
            operation: Some(transaction_operation::Operation::Put(one(key, *bytes))),
        };
        writes.iter().map(put).collect()
    }

    fn absent() -> Option<Expect> {
        Some(Expect {
            state: Some(State::Absent(true)),
        })
    }

    fn is_full(outcome: &ApplyOutcome) -> bool {
        matches!(
            outcome,
            ApplyOutcome::Refused(ApplyRefusal::PrefixFull(full)) if full.prefix == "p"
        )
    }

    #[test]
    fn a_prefix_takes_its_keys_and_bytes_and_not_one_more() {
        let (mut machine, mut store) = (Machine::default(), Plain::default());
        let mut apply = |operation| {
            let applied = machine.apply(unnamed(operation), &mut store).unwrap();
            applied.outcome
        };
        apply(Operation::Put(one("xp1", 10)));
        apply(Operation::Put(one("xq", 1_000)));
        apply(limited("xp", 3, 100).operation.unwrap());
        assert!(!is_full(&apply(Operation::Put(one("xp2", 10)))));
        // 24 of 100 bytes: a key of two bytes that users see, and its value.
        assert!(is_full(&apply(Operation::Put(one("xp3", 75)))), "101");
        assert!(!is_full(&apply(Operation::Put(one("xp3", 74)))), "100");
        assert!(is_full(&apply(Operation::Put(one("xp4", 0)))), "a fourth");
        assert!(!is_full(&apply(Operation::Put(one("xq", 9_999)))));
        assert!(!is_full(&apply(Operation::Put(one("xp3", 74)))), "the same");
        // Lowered below what is there: what does not grow passes.
        apply(limited("xp", 1, 50).operation.unwrap());
        assert!(!is_full(&apply(Operation::Put(one("xp3", 73)))), "shrinks");
        assert!(is_full(&apply(Operation::Put(one("xp3", 74)))), "grows");
        apply(Operation::Delete(one("xp3", 0)));
        apply(Operation::Delete(one("xp2", 0)));
        assert!(!is_full(&apply(Operation::Put(one("xp1", 48)))), "50");
        assert!(is_full(&apply(Operation::Put(one("xp1", 49)))), "51");
        assert_eq!(machine.prefix_uses()[0].bytes, 50);
    }

    #[test]
    fn a_condition_is_judged_by_what_it_comes_to() {
        let (mut machine, mut store) = (Machine::default(), Plain::default());
        let mut apply = |operation| {
            let applied = machine.apply(unnamed(operation), &mut store).unwrap();
            applied.outcome
        };
        apply(limited("xp", 1, 0).operation.unwrap());
        apply(Operation::Put(one("xp1", 1)));
        let conditional = |key: &'static str| {
            Operation::Conditional(Conditional {
                write: Some(one(key, 1)),
                expect: absent(),
                delete: false,
            })
        };
        assert!(is_full(&apply(conditional("xp2"))));
        let compared = apply(conditional("xp1"));
        assert!(matches!(
            compared,
            ApplyOutcome::Compared {
                succeeded: false,
                ..
            }
        ));
        let transaction = |key: &'static str, then: &[(&str, usize)], otherwise: &[_]| {
            Operation::Transaction(Transaction {
                compare: vec![Compare {
                    key: key.into(),
                    expect: absent(),
                }],
                then: puts(then),
                otherwise: puts(otherwise),
            })
        };
        // The list that does not run neither fills a prefix nor makes room in it.
        let two = [("xp1", 1), ("xp2", 1)];
        assert!(!is_full(&apply(transaction("xp1", &two, &[("xp1", 2)]))));
        assert!(is_full(&apply(transaction("xp2", &two, &[]))));
        assert!(is_full(&apply(transaction(
            "xp2",
            &[("xp2", 1)],
            &[("xp1", 1)]
        ))));
        let mut moves = puts(&[("xp2", 1)]);
        moves.insert(
            0,
            TransactionOperation {
                operation: Some(transaction_operation::Operation::Delete("xp1".into())),
            },
        );
        let moves = Operation::Transaction(Transaction {
            then: moves,
            ..Transaction::default()
        });
        assert!(!is_full(&apply(moves)), "one goes, one comes");
        assert_eq!(machine.prefix_uses()[0].keys, 1);
    }

    #[test]
    fn counts_are_those_of_a_walk_whatever_was_done_and_stored() {
        let (mut machine, mut store) = (Machine::default(), Plain::default());
        machine.apply(limited("xp", 6, 90), &mut store).unwrap();
        let mut drawn: u64 = 1;
        let mut draw = |below: u64| {
            drawn = drawn
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (drawn >> 33) % below
        };
        let mut refused = 0;
        for _ in 0..3_000 {
            let key = format!("x{}{}", if draw(4) == 0 { 'q' } else { 'p' }, draw(9));
            let other = format!("xp{}", draw(9));
            let bytes = usize::try_from(draw(30)).unwrap();
            let operation = match draw(6) {
                0 | 1 => Operation::Put(one(&key, bytes)),
                2 => Operation::Delete(one(&key, 0)),
                3 => Operation::Conditional(Conditional {
                    write: Some(one(&key, bytes)),
                    expect: absent(),
                    delete: draw(2) == 0,
                }),
                4 => Operation::Transaction(Transaction {
                    compare: vec![Compare {
                        key: key.clone().into(),
                        expect: absent(),
                    }],
                    then: puts(&[(&key, bytes), (&other, 3)]),
                    otherwise: puts(&[(&other, bytes)]),
                }),
                _ => Operation::DeleteInterval(DeleteInterval {
                    start: key.into(),
                    end: "y".into(),
                    limit: 1,
                }),
            };
            let outcome = machine.apply(unnamed(operation), &mut store).unwrap();
            refused += u64::from(is_full(&outcome.outcome));
            let limits = &machine.options.prefixes[0];
            let walked = count_prefix(limits, Rows::Plain, &mut store).unwrap();
            assert_eq!(machine.usage.prefixes[0], walked);
            assert!(walked.keys <= 6 && walked.bytes <= 90, "{walked:?}");
            if draw(50) == 0 {
                let meta = machine.take_meta().into_iter();
                let kept = meta.filter_map(|(name, value)| Some((name, value?)));
                let restored = Machine::restore(kept).unwrap();
                assert_eq!(restored.prefix_uses(), machine.prefix_uses());
            }
        }
        assert!(refused > 100, "{refused} were refused");
    }
}
