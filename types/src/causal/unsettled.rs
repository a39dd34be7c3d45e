//! Which records a growing base sets free.
//!
//! A record keeps the dots that base does not cover. When base comes to cover them, the
//! record has less to say, and that of a deleted key nothing: it is to be removed. Looking
//! for such records by scanning would cost too much, waiting for their next access would
//! leave deleted keys behind; so this index names them. Not here: the records.

use std::collections::{BTreeMap, BTreeSet};

use super::{Actor, Clock, Dots, Record};

/// The keys whose records know dots beyond base, by the base of each actor at which they are
/// to be settled: a record is touched when a gap before or behind its dots has closed, not
/// each time that base grows.
///
/// A store of many records tells it of every record that it writes ([`Unsettled::note`]),
/// and after each change of the clock settles the keys that are due
/// ([`Unsettled::due`], [`super::settle`]). It is small while deltas arrive in order,
/// is kept in memory, and rebuilt at a start from the records whose `beyond` is not empty.
#[derive(Clone, Debug)]
pub struct Unsettled<K> {
    thresholds: BTreeMap<Actor, BTreeSet<(u64, K)>>,
}

impl<K> Default for Unsettled<K> {
    fn default() -> Self {
        Self {
            thresholds: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone> Unsettled<K> {
    /// Notes that the record of `key` was `before` and is `after`.
    pub fn note(&mut self, key: &K, before: &Record, after: &Record) {
        self.note_beyond(key, before.beyond(), after.beyond());
    }

    /// As [`Unsettled::note`], of what the records know beyond base.
    pub(super) fn note_beyond(&mut self, key: &K, before: &Dots, after: &Dots) {
        if before == after {
            return;
        }
        for (actor, at) in thresholds(before) {
            if let Some(keys) = self.thresholds.get_mut(&actor) {
                keys.remove(&(at, key.clone()));
                if keys.is_empty() {
                    self.thresholds.remove(&actor);
                }
            }
        }
        for (actor, at) in thresholds(after) {
            let keys = self.thresholds.entry(actor).or_default();
            keys.insert((at, key.clone()));
        }
    }

    /// The keys, at most `keys_max`, whose records can be settled with this clock. Each
    /// stays due until [`Unsettled::note`] hears of its settled record; the caller goes on
    /// until none is due.
    pub fn due(&self, clock: &Clock, keys_max: usize) -> BTreeSet<K> {
        let due = self.thresholds.iter().flat_map(|(actor, keys)| {
            let base = clock.base_of(*actor);
            keys.iter()
                .take_while(move |(at, _)| *at <= base)
                .map(|(_, key)| key.clone())
        });
        due.take(keys_max).collect()
    }

    /// Whether no record knows a dot beyond base.
    pub fn is_empty(&self) -> bool {
        self.thresholds.is_empty()
    }

    /// How many pairs of a key and an actor it holds.
    pub fn len(&self) -> usize {
        self.thresholds.values().map(BTreeSet::len).sum()
    }
}

/// The bases of actors at which a record is to be settled. What it knows to be closed is settled
/// once the clock has closed it: then the base of the last start below is the highest number.
fn thresholds(beyond: &Dots) -> impl Iterator<Item = (Actor, u64)> {
    let open = beyond
        .actors()
        .filter_map(|(actor, counters)| Some((actor, counters.settles_at()?)));
    let closed = beyond.closed().filter_map(|(disk, start)| {
        let start = start.checked_sub(1)?;
        Some((Actor { disk, start }, u64::MAX))
    });
    open.chain(closed)
}
