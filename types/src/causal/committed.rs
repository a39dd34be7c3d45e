//! What a range's log has decided, as a causal replica: the second one that a primary of a
//! `mixed` range has, beside its view (DESIGN, section 2; `mixed.py` beside it).
//!
//! The live values lie in the range's table, where strong reads find them; here is what the
//! table does not say: the clock of absorbed writes, and per key the dots that it does not
//! cover. A function of the log prefix alone. Not here: where the table is, and when an entry
//! is proposed (`overlay` says of what).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::encoding::{DecodeError, Reader, Writer};
use super::intervals::Intervals;
use super::record::{Live, Record, Value};
use super::{Actor, Clock, Delta, Dot, Dots, KeyState, Outcome, Unsettled, accept, join_key};
use crate::time::{Revision, Timestamp};

const STORED_VERSION: u8 = 1;
/// Keys settled at a time after a change of the clock.
const SETTLE_BATCH_KEYS: usize = 1024;

/// The name of the strong write of that revision: the log counts its writes by revisions, so a
/// plain version in the table needs no name beside it. Numbers that no write has are known
/// to be unused once the log is past them.
pub const fn log_dot(revision: Revision) -> Dot {
    Dot::new(Actor::LOG, revision.0)
}

/// The live values of a key in the form of the table: a plain version, or one with `causal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The payload of the only live value, or of the latest one.
    pub value: Bytes,
    /// From when on nothing of it is shown, microseconds; none while one value lasts for ever.
    pub expiry: Option<u64>,
    /// The dots, times and other payloads; none where the only live value is the strong write
    /// of the version's own revision.
    pub causal: Option<Bytes>,
}

impl Stored {
    /// Live values as of `revision`; `None` where there are none: the key is deleted.
    pub fn pack(live: &[(Dot, Value)], revision: Revision) -> Option<Self> {
        let latest = live
            .iter()
            .max_by_key(|(dot, value)| (value.timestamp, *dot))?;
        let plain = live.len() == 1
            && latest.0 == log_dot(revision)
            && latest.1.timestamp == Timestamp(revision.0);
        let expiries = live.iter().map(|(_, value)| value.expiry);
        let expiry = expiries.collect::<Option<Vec<_>>>();
        let causal = (!plain).then(|| {
            let mut to = Writer::versioned(STORED_VERSION);
            to.count(live.len());
            for (dot, value) in live {
                to.dot(*dot);
                // The payload of the latest one stands in the version already.
                let payload = match *dot == latest.0 {
                    true => Bytes::new(),
                    false => value.payload.clone(),
                };
                let value = Value {
                    payload,
                    ..value.clone()
                };
                value.encode(&mut to);
            }
            to.finish()
        });
        Some(Self {
            value: latest.1.payload.clone(),
            expiry: expiry.and_then(|all| all.into_iter().max()).map(|at| at.0),
            causal,
        })
    }

    /// The live values of a version of that revision.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] where `causal` is not what [`Stored::pack`] wrote.
    pub fn unpack(&self, revision: Revision) -> Result<Vec<(Dot, Value)>, DecodeError> {
        let Some(causal) = &self.causal else {
            let value = Value {
                payload: self.value.clone(),
                timestamp: Timestamp(revision.0),
                expiry: self.expiry.map(Timestamp),
            };
            return Ok(vec![(log_dot(revision), value)]);
        };
        let mut from = Reader::versioned(causal, "stored values", STORED_VERSION)?;
        let count = from.count("live value", 1)?;
        let mut live: Vec<(Dot, Value)> = Vec::with_capacity(count);
        for _ in 0..count {
            let dot = from.dot()?;
            if live.last().is_some_and(|(last, _)| *last >= dot) {
                return Err(DecodeError::Order("live values"));
            }
            live.push((dot, Value::decode(&mut from)?));
        }
        from.finish()?;
        let latest = live
            .iter_mut()
            .max_by_key(|(dot, value)| (value.timestamp, *dot));
        let (_, latest) = latest.ok_or(DecodeError::Number("live value"))?;
        latest.payload = self.value.clone();
        Ok(live)
    }
}

/// The causal part of a range's committed state.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// Of absorbed writes; the log's own part is the last revision, and added when asked.
    clock: Clock,
    /// Dots of a key that the clock's base does not cover.
    beyond: BTreeMap<Bytes, Dots>,
    unsettled: Unsettled<Bytes>,
    changed: BTreeSet<Bytes>,
    clock_changed: bool,
}

impl PartialEq for Committed {
    fn eq(&self, other: &Self) -> bool {
        self.clock == other.clock && self.beyond == other.beyond
    }
}

/// Where in the log something is looked at or done: the revision of the last entry, its own
/// included.
type At = Revision;

impl Committed {
    /// What [`Committed::take_changes`] gave.
    pub fn restore(clock: Clock, beyond: impl IntoIterator<Item = (Bytes, Dots)>) -> Self {
        let mut restored = Self {
            clock,
            ..Self::default()
        };
        for (key, dots) in beyond {
            restored.put_beyond(&key, dots);
        }
        restored.changed.clear();
        restored
    }

    /// Whether nothing was ever absorbed or told of: all values are the log's own.
    pub fn is_plain(&self) -> bool {
        self.clock.dots().is_empty() && self.beyond.is_empty()
    }

    /// What the log has taken in as of `at`.
    pub fn clock(&self, at: At) -> Clock {
        let mut clock = self.clock.clone();
        clock.with_log(at);
        clock
    }

    /// The base of the same, without a copy of what lies above it: that may be a thousand
    /// intervals while many keys are on their way into the log.
    pub fn base(&self, at: At) -> Dots {
        let mut base = self.clock.base();
        base.insert_all(Actor::LOG, &Intervals::up_to(at.0));
        base
    }

    /// The dots of writes that others named, as far as the log has taken them in whole; with what
    /// is closed.
    pub const fn absorbed(&self) -> &Dots {
        self.clock.dots()
    }

    /// What is known of a key with these live values.
    pub fn state(&self, at: At, key: &[u8], live: Vec<(Dot, Value)>) -> KeyState {
        KeyState {
            live: live.into_iter().collect(),
            context: self.seen(at, key),
        }
    }

    /// All dots that the log knows of a key: what a reader of it has seen.
    pub fn seen(&self, at: At, key: &[u8]) -> Dots {
        let mut seen = self.base(at);
        if let Some(beyond) = self.beyond.get(key) {
            seen.union(beyond);
        }
        seen
    }

    /// The dots of a key that base does not cover; none usually.
    pub fn beyond(&self, key: &[u8]) -> Option<&Dots> {
        self.beyond.get(key)
    }

    /// How many keys have such dots.
    pub fn beyond_keys(&self) -> usize {
        self.beyond.len()
    }

    /// A strong write replaced all live values of a key, and what its client had seen on
    /// either plane. What it replaced of the log's own needs no word.
    pub fn replaced(&mut self, at: At, key: &Bytes, seen: &Dots) {
        let mut beyond = self.beyond.get(key).cloned().unwrap_or_default();
        for (actor, counters) in seen.actors() {
            if actor != Actor::LOG && counters.top() > self.clock.base_of(actor) {
                beyond.insert_all(actor, counters);
            }
        }
        self.with_clock(at, |_, clock| {
            beyond.settle(clock);
        });
        self.put_beyond(key, beyond);
    }

    /// Takes in a tentative write: the strong attempt of a ladder. Returns the live values,
    /// if they are others than before.
    pub fn accept(
        &mut self,
        at: At,
        key: &Bytes,
        live: Vec<(Dot, Value)>,
        delta: &Delta,
    ) -> Option<Vec<(Dot, Value)>> {
        let delta = Delta {
            context: until(&delta.context, at),
            timestamp: delta.timestamp.min(Timestamp(at.0)),
            ..delta.clone()
        };
        self.take_in(at, key, live, |clock, record| accept(clock, record, &delta))
    }

    /// Takes in what a primary's view knows of a key: absorption. Returns the live values,
    /// if they are others than before.
    pub fn join(
        &mut self,
        at: At,
        key: &Bytes,
        live: Vec<(Dot, Value)>,
        view: &KeyState,
    ) -> Option<Vec<(Dot, Value)>> {
        let values = view.live().map(|(dot, value)| {
            let timestamp = value.timestamp.min(Timestamp(at.0));
            let value = Value {
                timestamp,
                ..value.clone()
            };
            (*dot, value)
        });
        let view = KeyState::of(values, until(view.context(), at));
        self.take_in(at, key, live, |clock, record| {
            join_key(clock, record, &view)
        })
    }

    /// Takes in the base of a view, all of whose keys the log has taken in as they were at the
    /// moment of that base, or later.
    pub fn merge(&mut self, at: At, base: &Dots) {
        if self.clock.merge(&Clock::of(until(base, at).gapless())) {
            self.clock_changed = true;
            self.settle(at);
        }
    }

    /// What changed since the last call, to be stored with the table as of the same entry: the
    /// clock, and of each key its dots beyond base, `None`: no longer any.
    pub fn take_changes(&mut self) -> (Option<Clock>, Vec<(Bytes, Option<Bytes>)>) {
        let clock = std::mem::take(&mut self.clock_changed).then(|| self.clock.clone());
        let keys = std::mem::take(&mut self.changed).into_iter().map(|key| {
            let dots = self.beyond.get(&key).map(Dots::to_bytes);
            (key, dots)
        });
        (clock, keys.collect())
    }

    fn record(&self, key: &[u8], live: Vec<(Dot, Value)>) -> Record {
        Record {
            live: live.into_iter().collect::<Live>(),
            beyond: self.beyond.get(key).cloned().unwrap_or_default(),
        }
    }

    fn take_in(
        &mut self,
        at: At,
        key: &Bytes,
        live: Vec<(Dot, Value)>,
        join: impl FnOnce(&mut Clock, &Record) -> Outcome,
    ) -> Option<Vec<(Dot, Value)>> {
        let before = self.record(key, live);
        let outcome = self.with_clock(at, |_, clock| join(clock, &before));
        self.clock_changed |= outcome.clock_grew;
        let mut changed = None;
        if let Some(record) = outcome.record {
            let same = record.live().eq(before.live());
            changed = (!same).then(|| record.live().cloned().collect());
            self.put_beyond(key, record.beyond);
        }
        if outcome.clock_grew {
            self.settle(at);
        }
        changed
    }

    /// Does something by the clock as of `at`, in place.
    fn with_clock<T>(&mut self, at: At, act: impl FnOnce(&mut Self, &mut Clock) -> T) -> T {
        let mut clock = std::mem::take(&mut self.clock);
        clock.with_log(at);
        let done = act(self, &mut clock);
        // The log's part stays out: the last revision says it.
        clock.without_log();
        self.clock = clock;
        done
    }

    fn put_beyond(&mut self, key: &Bytes, beyond: Dots) {
        let none = Dots::new();
        let before = self.beyond.get(key).unwrap_or(&none);
        if *before == beyond {
            return;
        }
        self.unsettled.note_beyond(key, before, &beyond);
        self.changed.insert(key.clone());
        if beyond.is_empty() {
            self.beyond.remove(key);
        } else {
            self.beyond.insert(key.clone(), beyond);
        }
    }

    /// Trims what the clock's growth has set free. Ends, because each pass takes dots out of
    /// every key that it names.
    fn settle(&mut self, at: At) {
        self.with_clock(at, |committed, clock| {
            loop {
                let due = committed.unsettled.due(clock, SETTLE_BATCH_KEYS);
                if due.is_empty() {
                    return;
                }
                for key in due {
                    let mut beyond = committed.beyond.get(&key).cloned().unwrap_or_default();
                    beyond.settle(clock);
                    committed.put_beyond(&key, beyond);
                }
            }
        });
    }
}

/// A context without writes of the log that are yet to come: it cannot have seen them.
fn until(seen: &Dots, at: At) -> Dots {
    let later = |counters: &Intervals| counters.top() > at.0;
    if !seen.counters(Actor::LOG).is_some_and(later) {
        return seen.clone();
    }
    let mut kept = Dots::new();
    for (disk, start) in seen.closed() {
        kept.close(disk, start);
    }
    for (actor, counters) in seen.actors() {
        match actor == Actor::LOG {
            true => kept.insert_all(actor, &counters.common(&Intervals::up_to(at.0))),
            false => kept.insert_all(actor, counters),
        };
    }
    kept
}
