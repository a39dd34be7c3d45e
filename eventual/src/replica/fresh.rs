//! Keys of a replica beside a log that the log is to be told of, in the order in which they first
//! changed: a key that is always written to keeps no other waiting. Not here: telling it.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use tokio::time::Instant;

/// Keys that changed since this node last took them to the log, each once.
#[derive(Default)]
pub(super) struct Fresh {
    turns: BTreeMap<Turn, Bytes>,
    turn_of: HashMap<Bytes, Turn>,
    next: u64,
}

/// Since when a key waits; of several at one moment, the number of its coming.
pub(super) type Turn = (Instant, u64);

impl Fresh {
    /// A key changed now; one that waits already keeps its turn.
    pub(super) fn insert(&mut self, key: Bytes) {
        self.insert_since(key, Instant::now());
    }

    /// As `insert`, of a key that changed a while ago.
    pub(super) fn insert_since(&mut self, key: Bytes, since: Instant) {
        if self.turn_of.contains_key(&key) {
            return;
        }
        let turn = (since, self.next);
        self.next += 1;
        self.turn_of.insert(key.clone(), turn);
        self.turns.insert(turn, key);
    }

    /// There is nothing to be told of a key any more.
    pub(super) fn remove(&mut self, key: &Bytes) {
        if let Some(turn) = self.turn_of.remove(key) {
            self.turns.remove(&turn);
        }
    }

    /// A turn behind those of all keys that have changed so far, and before those of all that
    /// change from now on.
    pub(super) fn turn(&self) -> Turn {
        (Instant::now(), self.next)
    }

    /// The key that has waited longest, and since when, if its turn comes before `until`.
    pub(super) fn take_before(&mut self, until: Turn) -> Option<(Bytes, Instant)> {
        let first = self.turns.first_entry()?;
        if *first.key() >= until {
            return None;
        }
        let ((since, _), key) = first.remove_entry();
        self.turn_of.remove(&key);
        Some((key, since))
    }

    /// Whether no key waits whose turn comes before `until`.
    pub(super) fn is_empty_before(&self, until: Turn) -> bool {
        let first = self.turns.first_key_value();
        first.is_none_or(|(turn, _)| *turn >= until)
    }

    /// Since when the log has not been told all.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.turns.first_key_value().map(|((since, _), _)| *since)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_have_their_turn_in_the_order_of_their_first_change() {
        let mut fresh = Fresh::default();
        for key in ["z", "a", "m", "z"] {
            fresh.insert(Bytes::from_static(key.as_bytes()));
        }
        fresh.remove(&Bytes::from_static(b"a"));
        let began = fresh.oldest().unwrap();
        let round = fresh.turn();
        let first = fresh.take_before(round).unwrap();
        assert_eq!(first, (Bytes::from_static(b"z"), began));
        // In its new turn it belongs to the next round.
        fresh.insert(Bytes::from_static(b"z"));
        assert!(!fresh.is_empty_before(round));
        assert_eq!(fresh.take_before(round).unwrap().0, "m");
        assert!(fresh.is_empty_before(round) && fresh.take_before(round).is_none());
        let round = fresh.turn();
        assert_eq!(fresh.take_before(round).unwrap().0, "z");
        assert!(fresh.is_empty() && fresh.oldest().is_none());
    }
}
