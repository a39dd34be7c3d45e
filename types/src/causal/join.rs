//! The rules by which a replica takes in what others wrote, as functions of its clock and
//! one record.
//!
//! Joins never fail and have no limits: those bind new client writes (see `write`). Each
//! function changes the clock in place and returns what becomes of the record; the caller
//! stores both in one step, and tells [`super::Unsettled`]. Not here: how repair compares
//! two replicas, and which keys it sends.

use super::record::{KeyState, Live, Record};
use super::{Actor, Clock, Delta, Dots};
use crate::time::Timestamp;

/// What taking something in changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the record is to be stored in one step with the clock"]
pub struct Outcome {
    /// The record as it is now, if it is another one than before: to be stored, or to be
    /// removed if it is gone.
    pub record: Option<Record>,
    /// Whether the clock took in a dot that is new to it.
    pub clock_grew: bool,
}

impl Outcome {
    /// Whether there is anything to store; a late copy has nothing.
    pub const fn is_news(&self) -> bool {
        self.record.is_some() || self.clock_grew
    }
}

/// Takes in a write: a delta, a hint, or another copy of one, in any order.
///
/// The value is taken unless its dot is known; what the delta's context holds is no longer
/// live, and is known from now on.
pub fn accept(clock: &mut Clock, record: &Record, delta: &Delta) -> Outcome {
    let known = record.knows(clock, delta.dot);
    let mut live: Live = record
        .live()
        .filter(|(dot, _)| !delta.context.contains(*dot))
        .cloned()
        .collect();
    let mut live_changed = live.iter().len() != record.live().len();
    if !known && let Some(value) = delta.live_value() {
        live.insert(delta.dot, value);
        live_changed = true;
    }
    let clock_grew = clock.add(delta.dot);
    let mut beyond = record.beyond.clone();
    beyond.insert(delta.dot);
    finish(
        clock,
        record,
        (live, live_changed),
        beyond,
        &delta.context,
        clock_grew,
    )
}

/// Takes in what another replica, or several, know of the key: repair of one key.
///
/// What either side knows and does not show as live is dead. The clock takes in the values
/// that are new to it, but for the log's own, and nothing else.
pub fn join_key(clock: &mut Clock, record: &Record, peer: &KeyState) -> Outcome {
    let kept = record
        .live()
        .filter(|(dot, _)| peer.live.contains(*dot) || !peer.context.contains(*dot));
    let fresh = peer.live().filter(|(dot, _)| !record.knows(clock, *dot));
    let fresh: Vec<_> = fresh.cloned().collect();
    let mut live: Live = kept.cloned().collect();
    let live_changed = live.iter().len() != record.live().len() || !fresh.is_empty();
    let mut clock_grew = false;
    for (dot, value) in fresh {
        // Between two writes of the log lie numbers that no write has: an overlay's clock
        // would keep each for ever. The record knows them from the peer's context.
        if dot.actor != Actor::LOG {
            clock_grew |= clock.add(dot);
        }
        live.insert(dot, value);
    }
    let beyond = record.beyond.clone();
    finish(
        clock,
        record,
        (live, live_changed),
        beyond,
        &peer.context,
        clock_grew,
    )
}

/// Joins a whole replica of the range: each key that either side holds, with our record of
/// it and what the peer knows of it, and then the peer's clock. Hands every key that changed
/// to `store`.
///
/// `peer` is the peer's clock as of the same moment as its keys, or of an earlier one (see
/// [`Clock::merge`]). Keys whose records are equal may be left out if all is of one moment; a
/// repair that takes its time over hash trees ends with [`Clock::merge_base`] instead.
/// Returns whether the clock grew; what it sets free is [`super::Unsettled`]'s.
pub fn join_range<K>(
    clock: &mut Clock,
    peer: &Clock,
    keys: impl IntoIterator<Item = (K, Record, KeyState)>,
    mut store: impl FnMut(K, Record),
) -> bool {
    let mut grew = false;
    for (key, record, state) in keys {
        let outcome = join_key(clock, &record, &state);
        grew |= outcome.clock_grew;
        if let Some(record) = outcome.record {
            store(key, record);
        }
    }
    grew | clock.merge(peer)
}

/// The record without what base covers by now, if that is another one than before.
///
/// A clock that grew covers dots of many keys. Their records stay right, only larger than
/// need be, until this settles them.
pub fn settle(clock: &Clock, record: &Record) -> Option<Record> {
    let mut beyond = record.beyond.clone();
    beyond.settle(clock).then(|| Record {
        live: record.live.clone(),
        beyond,
    })
}

/// The record without values that expired at or before `deadline`, if there are any: they
/// are dead from now on, here, and wherever this record is joined.
///
/// `deadline` is the node's own clock less `max_clock_offset`, and that clock is known to be
/// within bounds. Reads hide expired values earlier, without this.
pub fn expire(clock: &Clock, record: &Record, deadline: Timestamp) -> Option<Record> {
    let left: Live = record
        .live()
        .filter(|(_, value)| value.is_visible(deadline))
        .cloned()
        .collect();
    if left.iter().len() == record.live().len() {
        return None;
    }
    let mut beyond = record.beyond.clone();
    beyond.settle(clock);
    Some(Record { live: left, beyond })
}

/// Adds a context to `beyond`, settles it, and compares with the record before.
fn finish(
    clock: &Clock,
    before: &Record,
    (live, live_changed): (Live, bool),
    mut beyond: Dots,
    context: &Dots,
    clock_grew: bool,
) -> Outcome {
    // Where a start is closed, all its dots were known to all primaries of that time. A replica
    // that is being filled knows few of them, and must not take for new what was replaced.
    for (disk, start) in context.closed() {
        if !clock.has_closed(disk, start) {
            beyond.close(disk, start);
        }
    }
    for (actor, counters) in context.actors() {
        if counters.top() > clock.base_of(actor) {
            beyond.insert_all(actor, counters);
        }
    }
    beyond.settle(clock);
    let changed = live_changed || beyond != before.beyond;
    Outcome {
        record: changed.then_some(Record { live, beyond }),
        clock_grew,
    }
}
