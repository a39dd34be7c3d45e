//! Keys and values of a run: a few keys at a time, left for new ones; each value once.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::random::Random;

/// Keys in rotation.
pub(super) struct Keys {
    at_once: u64,
    calls_each: u64,
    calls: AtomicU64,
    values: AtomicI64,
}

impl Keys {
    /// So many keys at once, each for about so many calls.
    pub(super) fn new(at_once: u64, calls_each: u64) -> Self {
        Self {
            at_once,
            calls_each,
            calls: AtomicU64::new(0),
            values: AtomicI64::new(0),
        }
    }

    /// A key for the next call.
    pub(super) fn key(&self, random: &mut Random) -> i64 {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let generation = call / (self.at_once * self.calls_each);
        let key = generation * self.at_once + random.next() % self.at_once;
        i64::try_from(key).expect("a run has fewer calls")
    }

    /// All keys that were ever given.
    pub(super) fn used(&self) -> Vec<i64> {
        let calls = self.calls.load(Ordering::Relaxed);
        let generations = calls.div_ceil(self.at_once * self.calls_each);
        let end = i64::try_from(generations * self.at_once).expect("a run has fewer calls");
        (0..end).collect()
    }

    /// A value that was not given before.
    pub(super) fn value(&self) -> i64 {
        self.values.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Numbers of keys that rise from 1, each key written by one process alone.
#[derive(Default)]
pub(super) struct Versions(Mutex<BTreeMap<i64, i64>>);

impl Versions {
    /// The key's next number.
    pub(super) fn next(&self, key: i64) -> i64 {
        let mut last = self.0.lock().expect("nobody panics while counting");
        let last = last.entry(key).or_default();
        *last += 1;
        *last
    }

    /// Any key that has one.
    pub(super) fn any(&self, random: &mut Random) -> Option<i64> {
        let last = self.0.lock().expect("nobody panics while counting");
        let keys: Vec<i64> = last.keys().copied().collect();
        (!keys.is_empty()).then(|| *random.pick(&keys))
    }
}

/// The name of a key in the store.
pub(super) fn name(key: i64) -> String {
    format!("key/{key}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_left_for_new_ones() {
        let keys = Keys::new(2, 3);
        let mut random = Random::of(1, 0);
        let given: Vec<i64> = (0..12).map(|_| keys.key(&mut random)).collect();
        assert!(given[..6].iter().all(|key| *key < 2), "{given:?}");
        assert!(
            given[6..].iter().all(|key| (2..4).contains(key)),
            "{given:?}"
        );
        assert_eq!(keys.used(), [0, 1, 2, 3]);
    }
}
