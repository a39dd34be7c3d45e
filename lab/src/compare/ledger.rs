//! What was acknowledged, key by key: how far a read was behind it, and what the last reads miss.
//!
//! Only the order of time is used, and only where it is sure: a write is older than another one if
//! it had ended before the other began. One whose end nobody knows is older than none. So what is
//! called old or lost here was really so; in doubt it is not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::sample::{Key, Moment, Sample, Side, Span};

/// A write that took effect, or may have.
#[derive(Clone, Copy, Debug)]
struct Written {
    value: i64,
    side: Side,
    begin: Moment,
    /// When it was acknowledged; [`Moment::NEVER`]: it was not.
    end: Moment,
}

/// How far a read was behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Behind {
    /// Acknowledged writes that it surely missed.
    pub(crate) versions: usize,
    /// How long ago the first of them had been acknowledged.
    pub(crate) age: Duration,
}

/// All writes of a run.
#[derive(Debug, Default)]
pub(crate) struct Ledger(BTreeMap<Key, Vec<Written>>);

impl Ledger {
    /// The ledger of all calls.
    pub(crate) fn of(samples: &[Sample]) -> Self {
        let mut ledger = Self::default();
        for sample in samples {
            let Some(value) = sample.written else {
                continue;
            };
            let done = sample.is_done();
            if !done && !sample.may_apply {
                continue;
            }
            let end = if done { sample.end } else { Moment::NEVER };
            ledger.0.entry(sample.key).or_default().push(Written {
                value,
                side: sample.side,
                begin: sample.begin,
                end,
            });
        }
        ledger
    }

    fn of_key(&self, key: Key) -> &[Written] {
        self.0.get(&key).map_or(&[], Vec::as_slice)
    }

    /// All keys that may hold something.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.0.keys().copied().collect()
    }

    /// The writes of a key that a read found.
    fn found<'a>(&'a self, key: Key, values: &'a [i64]) -> impl Iterator<Item = &'a Written> {
        let all = self.of_key(key).iter();
        all.filter(|written| values.contains(&written.value))
    }

    /// Values that nobody wrote, or that were refused as without effect.
    pub(crate) fn written_by_nobody(&self, key: Key, values: &[i64]) -> usize {
        let known: BTreeSet<i64> = self.of_key(key).iter().map(|one| one.value).collect();
        let unknown = values.iter().filter(|value| !known.contains(value));
        unknown.count()
    }

    /// How far a read that began at this moment was behind what had been acknowledged by then.
    pub(crate) fn behind(&self, key: Key, values: &[i64], begin: Moment) -> Behind {
        // The youngest end of what it found: what began after that is younger than all of it.
        let ends = self.found(key, values).map(|written| written.end);
        let newest = ends.max().unwrap_or(Moment(i64::MIN));
        let missed = self.of_key(key).iter();
        let missed = missed.filter(|written| written.end <= begin && newest < written.begin);
        let ends: Vec<Moment> = missed.map(|written| written.end).collect();
        Behind {
            versions: ends.len(),
            age: ends
                .iter()
                .min()
                .map_or(Duration::ZERO, |end| begin.since(*end)),
        }
    }

    /// How many writes of a key were acknowledged.
    pub(crate) fn acknowledged(&self, key: Key) -> usize {
        let acknowledged = self.of_key(key).iter();
        acknowledged.filter(|one| one.end < Moment::NEVER).count()
    }

    /// Acknowledged writes of a key that are neither among the last values, nor can have been
    /// replaced by one that is: by a younger one whose writer may have heard of them. Across the
    /// cut nobody hears of anything.
    pub(crate) fn lost(&self, key: Key, last: &[i64], cut: Option<Span>) -> Vec<i64> {
        let there: Vec<&Written> = self.found(key, last).collect();
        let acknowledged = self.of_key(key).iter();
        let acknowledged = acknowledged.filter(|one| one.end < Moment::NEVER);
        let lost = acknowledged.filter(|one| !there.iter().any(|by| accounts_for(by, one, cut)));
        lost.map(|one| one.value).collect()
    }

    /// Whether both sides had a write of the key acknowledged.
    pub(crate) fn is_contended(&self, key: Key) -> bool {
        let acknowledged = self.of_key(key).iter();
        let sides = acknowledged.filter(|one| one.end < Moment::NEVER);
        let sides: BTreeSet<Side> = sides.map(|one| one.side).collect();
        sides.len() == Side::BOTH.len()
    }
}

fn accounts_for(by: &Written, one: &Written, cut: Option<Span>) -> bool {
    let heard = match cut {
        Some(cut) if by.side != one.side => one.begin < cut.begin || by.end > cut.end,
        Some(_) | None => true,
    };
    by.value == one.value || (by.end > one.begin && heard)
}

#[cfg(test)]
mod tests {
    use super::super::sample::End;
    use super::*;

    const KEY: Key = Key::Shared { probe: 0, round: 0 };
    const CUT: Span = Span {
        begin: Moment(100),
        end: Moment(200),
    };

    fn write(value: i64, side: Side, begin: i64, end: Option<i64>) -> Sample {
        Sample {
            probe: 0,
            side,
            node: 1,
            key: KEY,
            begin: Moment(begin),
            end: Moment(end.unwrap_or(begin + 1000)),
            came_to: end.map_or(End::Silent, |_| End::Done { rung: 0 }),
            may_apply: true,
            written: Some(value),
            read: Vec::new(),
            problem: None,
        }
    }

    #[test]
    fn a_read_is_behind_what_was_acknowledged_before_it_and_began_after_what_it_found() {
        let ledger = Ledger::of(&[
            write(1, Side::Majority, 0, Some(10)),
            write(2, Side::Majority, 20, Some(30)),
            write(3, Side::Majority, 40, Some(50)),
            // Nobody knows when it took effect.
            write(4, Side::Majority, 5, None),
        ]);
        let check = |values: &[i64], begin, versions, micros| {
            let expected = Behind {
                versions,
                age: Duration::from_micros(micros),
            };
            assert_eq!(ledger.behind(KEY, values, Moment(begin)), expected);
        };
        check(&[3], 100, 0, 0);
        check(&[1], 100, 2, 70);
        check(&[1], 45, 1, 15);
        check(&[1], 25, 0, 0);
        check(&[], 45, 2, 35);
        check(&[1, 3], 100, 0, 0);
        check(&[4], 100, 0, 0);
    }

    #[test]
    fn what_a_younger_value_may_have_replaced_is_not_lost() {
        let ledger = Ledger::of(&[
            write(1, Side::Majority, 110, Some(120)),
            write(2, Side::Majority, 130, Some(140)),
            write(3, Side::Minority, 150, Some(160)),
        ]);
        let lost = |last: &[i64]| ledger.lost(KEY, last, Some(CUT));
        assert_eq!(lost(&[2, 3]), [0; 0]);
        // The other side cannot have known of it.
        assert_eq!(lost(&[3]), [1, 2]);
        assert_eq!(lost(&[2]), [3]);
        // Older than what was acknowledged after it.
        assert_eq!(lost(&[1, 3]), [2]);
        assert_eq!(lost(&[]), [1, 2, 3]);
        // Without a cut whoever is youngest may have seen all.
        assert_eq!(ledger.lost(KEY, &[3], None), [0; 0]);
    }

    #[test]
    fn across_the_cut_only_what_was_before_it_or_ends_after_it_is_heard_of() {
        let before = write(1, Side::Majority, 50, Some(60));
        let within = write(2, Side::Minority, 150, Some(160));
        let after = write(3, Side::Majority, 190, Some(210));
        let ledger = Ledger::of(&[before, within, after]);
        assert_eq!(ledger.lost(KEY, &[2, 3], Some(CUT)), [0; 0]);
        assert_eq!(ledger.lost(KEY, &[2], Some(CUT)), [3]);
        assert_eq!(ledger.lost(KEY, &[3], Some(CUT)), [0; 0]);
    }

    #[test]
    fn values_that_were_refused_come_from_nowhere() {
        let mut refused = write(1, Side::Majority, 0, None);
        refused.may_apply = false;
        let ledger = Ledger::of(&[refused, write(2, Side::Majority, 0, None)]);
        assert_eq!(ledger.written_by_nobody(KEY, &[1, 2, 7]), 2);
        assert_eq!(ledger.acknowledged(KEY), 0);
        assert!(!ledger.is_contended(KEY));
    }
}
