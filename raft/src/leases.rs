//! When leases end: measured by the leader of their range, with a clock that never jumps, and
//! proposed; the log decides. Plain code: time is a parameter, the span since any fixed moment.
//!
//! A new leader begins with what its forerunner has left of each lease by the last checkpoint, or
//! with all of it: a change of leaders makes a lease longer, never shorter. Whatever is renewed is
//! measured from when this replica has applied the renewal, which is after its client sent it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_proto::internal::{LeaseCheckpoint, LeaseExpire, lease_checkpoint, lease_expire};
use quorate_types::{LeaseId, Revision};

use crate::machine::leases::{LeaseName, Leases};
use crate::node::Faults;

/// Leases that one entry ends at the most.
const EXPIRE_LEASES_MAX: usize = 1_000;
/// Keys that one entry removes with leases, before the last one's.
const EXPIRE_KEYS_MAX: usize = 10_000;
/// Leases that one entry checkpoints at the most.
const CHECKPOINT_LEASES_MAX: usize = 2_000;
/// After that an expiry that was proposed, and not decided, is proposed again.
const EXPIRE_AGAIN: Duration = Duration::from_secs(1);
/// The longest time between two checkpoints, and the shortest.
const CHECKPOINT_STEP_MAX: Duration = Duration::from_secs(300);
const CHECKPOINT_STEP_MIN: Duration = Duration::from_secs(1);
/// So many leases more than there are may be measured before those that are gone are forgotten.
const FORGOTTEN_MAX: usize = 1_024;

/// One lease under measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Running {
    renewed: Revision,
    ends: Duration,
    /// When it is looked at next.
    at: Duration,
}

/// What is to be proposed now.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Due {
    pub(crate) expire: Vec<LeaseExpire>,
    pub(crate) checkpoint: Vec<LeaseCheckpoint>,
}

/// The leases of one range, as the leader of one term measures them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeaseTimer {
    term: Option<u64>,
    seen: Revision,
    running: BTreeMap<LeaseId, Running>,
    order: BTreeSet<(Duration, LeaseId)>,
    faults: Faults,
}

impl LeaseTimer {
    pub(crate) fn new(faults: Faults) -> LeaseTimer {
        LeaseTimer {
            faults,
            ..LeaseTimer::default()
        }
    }

    /// This replica does not lead.
    pub(crate) fn rest(&mut self) {
        if self.term.is_some() {
            *self = LeaseTimer::new(self.faults);
        }
    }

    /// What is left of a lease; `None`: it is not measured here.
    pub(crate) fn remaining(
        &self,
        id: LeaseId,
        renewed: Revision,
        now: Duration,
    ) -> Option<Duration> {
        let running = self.running.get(&id).filter(|r| r.renewed == renewed)?;
        Some(running.ends.saturating_sub(now))
    }

    /// As the leader of `term`: takes note of renewals, and says what is due.
    pub(crate) fn look(&mut self, now: Duration, term: u64, leases: &Leases) -> Due {
        let is_new = self.term != Some(term);
        if is_new {
            self.rest();
            self.term = Some(term);
        }
        self.take_renewals(now, is_new, leases);
        if self.running.len() > leases.len() + FORGOTTEN_MAX {
            self.forget_gone(leases);
        }
        self.due(now, leases)
    }

    fn take_renewals(&mut self, now: Duration, is_new: bool, leases: &Leases) {
        let mut last = self.seen;
        for (id, lease) in leases.renewed_after(self.seen) {
            last = lease.renewed;
            let mut left = Duration::from_micros(lease.remaining);
            if self.faults.shorten_leases && is_new {
                left /= 2;
            }
            let step = first_checkpoint(Duration::from_micros(lease.ttl));
            let ends = now + left;
            let running = Running {
                renewed: lease.renewed,
                ends,
                at: ends.min(now + step),
            };
            if let Some(before) = self.running.insert(id, running) {
                self.order.remove(&(before.at, id));
            }
            self.order.insert((running.at, id));
        }
        self.seen = last;
    }

    fn forget_gone(&mut self, leases: &Leases) {
        self.running.retain(|id, _| leases.get(*id).is_some());
        let running = &self.running;
        self.order.retain(|(_, id)| running.contains_key(id));
    }

    fn due(&mut self, now: Duration, leases: &Leases) -> Due {
        let mut batches = Batches::default();
        while let Some((at, id)) = self.order.first().copied().filter(|(at, _)| *at <= now) {
            self.order.remove(&(at, id));
            let lease = leases.get(id);
            let (Some(lease), Some(running)) = (lease, self.running.get_mut(&id)) else {
                self.running.remove(&id);
                continue;
            };
            running.at = if running.ends <= now {
                let granted = lease.granted;
                let keys = leases.count_keys(LeaseName { id, granted });
                batches.expire(id, running.renewed, keys);
                now + EXPIRE_AGAIN
            } else {
                batches.checkpoint(id, running.renewed, running.ends - now);
                let step = checkpoint_step(Duration::from_micros(lease.ttl));
                running.ends.min(now + step)
            };
            self.order.insert((running.at, id));
        }
        batches.due
    }
}

/// A lease that is renewed at a third of its time is never checkpointed.
fn first_checkpoint(ttl: Duration) -> Duration {
    (ttl / 2).min(CHECKPOINT_STEP_MAX)
}

fn checkpoint_step(ttl: Duration) -> Duration {
    (ttl / 10).clamp(CHECKPOINT_STEP_MIN, CHECKPOINT_STEP_MAX)
}

/// What is due, cut into entries.
#[derive(Default)]
struct Batches {
    due: Due,
    keys: usize,
}

impl Batches {
    fn expire(&mut self, id: LeaseId, renewed: Revision, keys: usize) {
        let item = lease_expire::Item {
            id: id.0,
            renewed: renewed.0,
        };
        match self.due.expire.last_mut() {
            Some(last)
                if last.items.len() < EXPIRE_LEASES_MAX && self.keys + keys <= EXPIRE_KEYS_MAX =>
            {
                last.items.push(item);
                self.keys += keys;
            }
            Some(_) | None => {
                self.due.expire.push(LeaseExpire { items: vec![item] });
                self.keys = keys;
            }
        }
    }

    fn checkpoint(&mut self, id: LeaseId, renewed: Revision, left: Duration) {
        let item = lease_checkpoint::Item {
            id: id.0,
            renewed: renewed.0,
            remaining: u64::try_from(left.as_micros()).unwrap_or(u64::MAX),
        };
        match self.due.checkpoint.last_mut() {
            Some(last) if last.items.len() < CHECKPOINT_LEASES_MAX => last.items.push(item),
            Some(_) | None => {
                let items = vec![item];
                self.due.checkpoint.push(LeaseCheckpoint { items });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_proto::internal::{Command, LeaseGrant, LeaseRenew, Write, command::Operation};
    use quorate_storage::engine::{EngineError, Version};

    use super::*;
    use crate::machine::{ApplyOutcome, ApplyRefusal, Machine, Store};

    /// Keys in a map.
    #[derive(Default)]
    struct Plain(BTreeMap<Bytes, Version>);

    impl Store for Plain {
        fn get(&mut self, key: &[u8]) -> Result<Option<Version>, EngineError> {
            Ok(self.0.get(key).cloned())
        }
        fn keys(&mut self, _: &Bytes, _: &Bytes, _: usize) -> Result<Vec<Bytes>, EngineError> {
            Ok(self.0.keys().cloned().collect())
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
            Ok(0)
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

    const SECOND: Duration = Duration::from_secs(1);

    /// One range, its leader's timer, and a clock.
    struct Range {
        machine: Machine,
        store: Plain,
        timer: LeaseTimer,
        now: Duration,
        term: u64,
    }

    impl Range {
        fn new() -> Range {
            Range {
                machine: Machine::default(),
                store: Plain::default(),
                timer: LeaseTimer::default(),
                now: Duration::from_secs(77),
                term: 1,
            }
        }

        fn apply(&mut self, operation: Operation) -> ApplyOutcome {
            let command = Command {
                operation: Some(operation),
                ..Command::default()
            };
            let applied = self.machine.apply(command, &mut self.store);
            applied.unwrap().outcome
        }

        fn grant(&mut self, id: u64, ttl: Duration) -> ApplyOutcome {
            let ttl = ttl.as_micros() as u64;
            self.apply(Operation::LeaseGrant(LeaseGrant { id, ttl }))
        }

        fn put(&mut self, key: &'static str, lease: u64) -> ApplyOutcome {
            self.apply(Operation::Put(Write {
                key: key.into(),
                lease,
                ..Write::default()
            }))
        }

        fn renew(&mut self, ids: &[u64]) -> ApplyOutcome {
            self.apply(Operation::LeaseRenew(LeaseRenew { ids: ids.to_vec() }))
        }

        fn look(&mut self) -> Due {
            self.timer.look(self.now, self.term, self.machine.leases())
        }

        /// The leader looks after a while, and all that it proposes is decided.
        fn pass(&mut self, time: Duration) {
            self.machine.validate().unwrap();
            self.now += time;
            let due = self.look();
            for expire in due.expire {
                self.apply(Operation::LeaseExpire(expire));
            }
            for checkpoint in due.checkpoint {
                self.apply(Operation::LeaseCheckpoint(checkpoint));
            }
        }

        fn keys(&self) -> Vec<&[u8]> {
            self.store.0.keys().map(|key| &key[..]).collect()
        }
    }

    const DONE: ApplyOutcome = ApplyOutcome::Written {
        deleted: 0,
        unseen: 0,
    };
    const GRANTED: ApplyOutcome = ApplyOutcome::Compared {
        succeeded: true,
        current: None,
    };
    const IN_USE: ApplyOutcome = ApplyOutcome::Compared {
        succeeded: false,
        current: None,
    };
    const NOT_FOUND: ApplyOutcome = ApplyOutcome::Refused(ApplyRefusal::LeaseNotFound);

    #[test]
    fn keys_go_with_their_lease_and_with_no_other() {
        let mut range = Range::new();
        assert_eq!(range.put("early", 5), NOT_FOUND);
        assert_eq!(range.grant(5, 10 * SECOND), GRANTED);
        assert_eq!(range.grant(5, 10 * SECOND), IN_USE);
        assert_eq!(range.grant(6, 60 * SECOND), GRANTED);
        for key in ["a", "b", "c", "d"] {
            assert_eq!(range.put(key, 5), DONE);
        }
        range.put("b", 0);
        range.put("c", 6);
        range.apply(Operation::Delete(Write {
            key: "d".into(),
            ..Write::default()
        }));
        range.put("d", 0);
        range.pass(Duration::ZERO);
        range.pass(10 * SECOND - Duration::from_micros(1));
        assert_eq!(range.keys(), [b"a", b"b", b"c", b"d"]);
        range.pass(Duration::from_micros(1));
        assert_eq!(range.keys(), [b"b", b"c", b"d"]);
        assert_eq!(range.put("late", 5), NOT_FOUND);
        assert_eq!(
            range.renew(&[5, 6]),
            ApplyOutcome::Renewed(vec![0, 60_000_000])
        );
    }

    #[test]
    fn an_expiry_loses_to_a_keep_alive_before_it_in_the_log() {
        let mut range = Range::new();
        range.grant(5, 10 * SECOND);
        range.put("a", 5);
        range.pass(Duration::ZERO);
        range.now += 10 * SECOND;
        let due = range.look();
        assert_eq!(due.expire.len(), 1);
        range.renew(&[5]);
        for expire in due.expire.clone() {
            range.apply(Operation::LeaseExpire(expire));
        }
        assert_eq!(range.keys(), [b"a"]);
        // The renewal's whole time, from when this leader sees it.
        range.pass(Duration::ZERO);
        range.pass(9 * SECOND);
        assert_eq!(range.keys(), [b"a"]);
        range.pass(SECOND);
        assert!(range.keys().is_empty());
    }

    #[test]
    fn a_new_leader_shortens_nothing_and_starts_from_the_checkpoint() {
        let mut range = Range::new();
        range.grant(5, 100 * SECOND);
        range.put("a", 5);
        for _ in 0..80 {
            range.pass(SECOND);
        }
        let left = range.machine.leases().get(LeaseId(5)).unwrap().remaining;
        assert!((20_000_000..=31_000_000).contains(&left), "{left}");
        range.term += 1;
        range.pass(Duration::ZERO);
        for _ in 0..20 {
            range.pass(SECOND);
            assert_eq!(range.keys(), [b"a"], "its time has not come");
        }
        for _ in 0..12 {
            range.pass(SECOND);
        }
        assert!(range.keys().is_empty(), "the checkpoint was forgotten");
    }

    #[test]
    fn a_checkpoint_loses_to_a_keep_alive() {
        let mut range = Range::new();
        range.grant(5, 10 * SECOND);
        range.pass(Duration::ZERO);
        range.now += 5 * SECOND;
        let due = range.look();
        range.renew(&[5]);
        for checkpoint in due.checkpoint {
            range.apply(Operation::LeaseCheckpoint(checkpoint));
        }
        let lease = *range.machine.leases().get(LeaseId(5)).unwrap();
        assert_eq!(lease.remaining, lease.ttl);
    }

    #[test]
    fn what_is_stored_restores_the_same_leases() {
        let mut range = Range::new();
        range.grant(5, 10 * SECOND);
        range.grant(6, 10 * SECOND);
        range.put("a", 5);
        range.put("b", 6);
        let mut stored = BTreeMap::new();
        let mut keep = |machine: &mut Machine| {
            for (name, value) in machine.take_meta() {
                match value {
                    Some(value) => stored.insert(name, value),
                    None => stored.remove(&name),
                };
            }
            Machine::restore(stored.clone()).unwrap()
        };
        assert_eq!(keep(&mut range.machine).leases(), range.machine.leases());
        range.put("a", 6);
        range.renew(&[6]);
        range.put("c", 5);
        range.put("c", 0);
        range.apply(Operation::LeaseRevoke(
            quorate_proto::internal::LeaseRevoke { id: 5 },
        ));
        let restored = keep(&mut range.machine);
        assert_eq!(restored.leases(), range.machine.leases());
        assert!(restored.leases().get(LeaseId(5)).is_none());
        let name = restored.leases().lease_of(b"a").unwrap();
        assert_eq!(restored.leases().count_keys(name), 2);
    }

    #[test]
    fn a_hundred_thousand_leases_are_looked_at_when_they_are_due_and_not_before() {
        let mut range = Range::new();
        for id in 1..=100_000 {
            range.grant(id, 60 * SECOND);
        }
        range.look();
        range.now += 20 * SECOND;
        let ids: Vec<u64> = (1..=90_000).collect();
        range.renew(&ids);
        assert_eq!(range.look(), Due::default(), "nothing is due");
        range.now += 40 * SECOND;
        let expired: usize = range.look().expire.iter().map(|e| e.items.len()).sum();
        assert_eq!(expired, 10_000);
    }

    #[test]
    fn a_lease_has_a_most_of_keys() {
        let mut range = Range::new();
        range.grant(5, 60 * SECOND);
        for key in 0..quorate_types::limits::LEASE_KEYS_MAX as u64 {
            let key = Bytes::copy_from_slice(&key.to_be_bytes());
            let write = Write {
                key,
                lease: 5,
                ..Write::default()
            };
            assert_eq!(range.apply(Operation::Put(write)), DONE);
        }
        let full = ApplyOutcome::Refused(ApplyRefusal::LeaseFull);
        assert_eq!(range.put("more", 5), full);
    }
}
