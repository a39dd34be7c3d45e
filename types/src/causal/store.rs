//! A causal replica of a range in memory: the reference for stores that keep their records
//! elsewhere, and what tests run.
//!
//! Not here: durability, and who is asked to hold what.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{
    Actor, Clock, Delta, Dot, Dots, KeyState, Outcome, Record, Unsettled, accept, expire, join_key,
    join_range, settle,
};
use crate::time::Timestamp;

/// How many keys are settled at a time after a change of the clock.
const SETTLE_BATCH_KEYS: usize = 1024;

/// All records of a range and its clock, as of one moment: what repair of a range and the
/// filling of a new replica send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeImage {
    /// The records, by key.
    pub records: BTreeMap<Bytes, Record>,
    /// The clock of the same moment.
    pub clock: Clock,
}

/// A causal replica of one range, in memory.
#[derive(Clone, Debug)]
pub struct RangeStore {
    actor: Actor,
    /// The last counter that the actor gave out.
    counter: u64,
    clock: Clock,
    records: BTreeMap<Bytes, Record>,
    unsettled: Unsettled<Bytes>,
}

impl RangeStore {
    /// An empty replica, which names its writes by `actor`: a start that was never used.
    pub fn new(actor: Actor) -> Self {
        Self::filled(actor, RangeImage::default())
    }

    /// A replica filled from a peer's image in one step, under a name of its own.
    pub fn filled(actor: Actor, image: RangeImage) -> Self {
        let mut unsettled = Unsettled::default();
        for (key, record) in &image.records {
            unsettled.note(key, &Record::default(), record);
        }
        Self {
            actor,
            counter: 0,
            clock: image.clock,
            records: image.records,
            unsettled,
        }
    }

    /// Who names this replica's writes.
    pub const fn actor(&self) -> Actor {
        self.actor
    }

    /// What it has taken in.
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The record of a key; the default for one that is not stored.
    pub fn record(&self, key: &[u8]) -> Record {
        self.records.get(key).cloned().unwrap_or_default()
    }

    /// All stored records, in the order of their keys.
    pub fn records(&self) -> impl ExactSizeIterator<Item = (&Bytes, &Record)> {
        self.records.iter()
    }

    /// What a read and a repair of one key send.
    pub fn state(&self, key: &[u8]) -> KeyState {
        self.record(key).state(&self.clock)
    }

    /// The range as of now.
    pub fn image(&self) -> RangeImage {
        RangeImage {
            records: self.records.clone(),
            clock: self.clock.clone(),
        }
    }

    /// A name for a new write, never given out again.
    pub const fn next_dot(&mut self) -> Dot {
        self.counter += 1;
        Dot::new(self.actor, self.counter)
    }

    /// Takes in a write; see [`accept`].
    pub fn accept(&mut self, key: &Bytes, delta: &Delta) -> Outcome {
        let before = self.record(key);
        let outcome = accept(&mut self.clock, &before, delta);
        self.store(key, &before, &outcome);
        outcome
    }

    /// Takes in what others know of a key; see [`join_key`].
    pub fn join_key(&mut self, key: &Bytes, peer: &KeyState) -> Outcome {
        let before = self.record(key);
        let outcome = join_key(&mut self.clock, &before, peer);
        self.store(key, &before, &outcome);
        outcome
    }

    /// Takes in a peer's whole replica; see [`join_range`]. Says whether anything was new.
    pub fn join_range(&mut self, peer: &RangeImage) -> bool {
        let keys: BTreeSet<Bytes> = self
            .records
            .keys()
            .chain(peer.records.keys())
            .cloned()
            .collect();
        let absent = Record::default();
        let both: Vec<_> = keys
            .into_iter()
            .map(|key| {
                let theirs = peer.records.get(&key).unwrap_or(&absent);
                let ours = self.record(&key);
                (key, ours, theirs.state(&peer.clock))
            })
            .collect();
        let mut changed = Vec::new();
        let grew = join_range(&mut self.clock, &peer.clock, both, |key, record| {
            changed.push((key, record));
        });
        let news = grew || !changed.is_empty();
        for (key, record) in changed {
            let before = self.record(&key);
            self.put(&key, &before, record);
        }
        self.settle();
        news
    }

    /// Takes in a peer's base at the end of a repair that compared records; see
    /// [`Clock::merge_base`] for when that is allowed.
    pub fn merge_base(&mut self, peer: &Dots) -> bool {
        let grew = self.clock.merge_base(peer);
        self.settle();
        grew
    }

    /// Takes in a peer's clock at the end of a repair of each key; see [`Clock::merge`] for
    /// when that is allowed.
    pub fn merge_clock(&mut self, peer: &Clock) -> bool {
        let grew = self.clock.merge(peer);
        self.settle();
        grew
    }

    /// Kills the values that expired at or before `deadline`; see [`expire`]. Returns how
    /// many records changed.
    pub fn expire(&mut self, deadline: Timestamp) -> usize {
        let expired: Vec<_> = self
            .records
            .iter()
            .filter_map(|(key, record)| {
                let after = expire(&self.clock, record, deadline)?;
                Some((key.clone(), record.clone(), after))
            })
            .collect();
        for (key, before, after) in &expired {
            self.put(key, before, after.clone());
        }
        expired.len()
    }

    /// Closes starts of a disk; see [`Clock::close`].
    pub fn close(&mut self, disk: u64, start: u32) -> bool {
        let closed = self.clock.close(disk, start);
        self.settle();
        closed
    }

    /// Whether every record keeps its rules, is settled, and says something.
    ///
    /// # Errors
    ///
    /// The key of the first that does not.
    pub fn validate(&self) -> Result<(), Bytes> {
        let bad = self.records.iter().find(|(_, record)| {
            record.validate(&self.clock).is_err()
                || settle(&self.clock, record).is_some()
                || record.is_gone()
        });
        bad.map_or(Ok(()), |(key, _)| Err(key.clone()))
    }

    fn store(&mut self, key: &Bytes, before: &Record, outcome: &Outcome) {
        if let Some(record) = &outcome.record {
            self.put(key, before, record.clone());
        }
        if outcome.clock_grew {
            self.settle();
        }
    }

    fn put(&mut self, key: &Bytes, before: &Record, after: Record) {
        self.unsettled.note(key, before, &after);
        if after.is_gone() {
            self.records.remove(key);
        } else {
            self.records.insert(key.clone(), after);
        }
    }

    /// Trims the records that the clock's growth set free. Ends, because each pass takes
    /// dots out of every record that it names.
    fn settle(&mut self) {
        loop {
            let due = self.unsettled.due(&self.clock, SETTLE_BATCH_KEYS);
            if due.is_empty() {
                return;
            }
            for key in due {
                let before = self.record(&key);
                if let Some(after) = settle(&self.clock, &before) {
                    self.put(&key, &before, after);
                }
            }
        }
    }
}
