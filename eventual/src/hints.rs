//! The hints that a node keeps for one range: an index over what is stored, and the rule of when
//! one may go. Pure code; the hints themselves are rows of the replica's table.
//!
//! A hint that an acknowledgement counted on is data. It may go once its delta is on the disks of
//! as many distinct *present* primaries as the write wanted holders; a hand-over to one that was
//! counted already is no progress. What it then still lacks, and what nobody counted on, is a
//! courtesy: it goes when all present primaries have it, or when courtesies take too much room.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_types::NodeId;
use quorate_types::causal::Dot;

use crate::step::Hint;

/// What is known of a stored hint without reading it.
#[derive(Clone, Debug)]
struct Kept {
    key: Bytes,
    bytes: usize,
    wanted: u8,
    holders: Vec<NodeId>,
}

impl Kept {
    /// Whether some acknowledgement still rests on it.
    fn is_counted(&self, primaries: &[NodeId]) -> bool {
        self.wanted > 0 && self.held_by(primaries) < usize::from(self.wanted)
    }

    fn held_by(&self, primaries: &[NodeId]) -> usize {
        primaries
            .iter()
            .filter(|node| self.holders.contains(node))
            .count()
    }
}

/// All hints of one range.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    kept: BTreeMap<Dot, Kept>,
    of_key: BTreeMap<Bytes, BTreeSet<Dot>>,
    bytes: usize,
}

impl Hints {
    /// A hint is stored. Says whether it is new.
    pub fn add(&mut self, dot: Dot, hint: &Hint) -> bool {
        if self.kept.contains_key(&dot) {
            return false;
        }
        let kept = Kept {
            key: hint.key.clone(),
            bytes: hint.bytes(),
            wanted: hint.wanted,
            holders: hint.holders.clone(),
        };
        self.bytes += kept.bytes;
        let dots = self.of_key.entry(kept.key.clone()).or_default();
        dots.insert(dot);
        self.kept.insert(dot, kept);
        true
    }

    /// An acknowledgement counts on a hint that is kept already. Says whether it wants more
    /// holders than were wanted.
    pub fn want(&mut self, dot: Dot, wanted: u8) -> bool {
        let kept = self.kept.get_mut(&dot);
        let Some(kept) = kept.filter(|kept| kept.wanted < wanted) else {
            return false;
        };
        kept.wanted = wanted;
        true
    }

    /// Primaries known to have a hint's delta on disk.
    pub fn holders(&self, dot: Dot) -> Vec<NodeId> {
        let kept = self.kept.get(&dot);
        kept.map_or_else(Vec::new, |kept| kept.holders.clone())
    }

    /// A hint is gone. Says whether it was there.
    pub fn remove(&mut self, dot: Dot) -> bool {
        let Some(kept) = self.kept.remove(&dot) else {
            return false;
        };
        self.bytes -= kept.bytes;
        if let Some(dots) = self.of_key.get_mut(&kept.key) {
            dots.remove(&dot);
            if dots.is_empty() {
                self.of_key.remove(&kept.key);
            }
        }
        true
    }

    /// A primary has a hint's delta on disk. Says whether that is new.
    pub fn held(&mut self, dot: Dot, node: NodeId) -> bool {
        let kept = self.kept.get_mut(&dot);
        let Some(kept) = kept.filter(|kept| !kept.holders.contains(&node)) else {
            return false;
        };
        kept.holders.push(node);
        true
    }

    /// The hints of a key.
    pub fn of_key(&self, key: &[u8]) -> Vec<Dot> {
        let dots = self.of_key.get(key);
        dots.map_or_else(Vec::new, |dots| dots.iter().copied().collect())
    }

    /// The lowest start of each disk of which there is a hint.
    pub fn starts(&self) -> BTreeMap<u64, u32> {
        let mut starts = BTreeMap::new();
        for actor in self.kept.keys().map(|dot| dot.actor) {
            let lowest = starts.entry(actor.disk).or_insert(actor.start);
            *lowest = actor.start.min(*lowest);
        }
        starts
    }

    /// Hints that a primary does not have yet, the oldest names first, at most `max`.
    pub fn wanted_by(&self, node: NodeId, max: usize) -> Vec<Dot> {
        let wanted = self
            .kept
            .iter()
            .filter(|(_, kept)| !kept.holders.contains(&node));
        wanted.map(|(dot, _)| *dot).take(max).collect()
    }

    /// Primaries that lack some hint.
    pub fn targets(&self, primaries: &[NodeId]) -> BTreeSet<NodeId> {
        let lacks = |node: &&NodeId| self.kept.values().any(|kept| !kept.holders.contains(node));
        primaries.iter().filter(lacks).copied().collect()
    }

    /// Hints that `needed` of the present primaries have, at most `max`.
    pub fn done(&self, primaries: &[NodeId], needed: usize, max: usize) -> Vec<Dot> {
        let done = self
            .kept
            .iter()
            .filter(|(_, kept)| kept.held_by(primaries) >= needed);
        done.map(|(dot, _)| *dot).take(max).collect()
    }

    /// Courtesies to drop, the oldest names first, so that those left take at most `bytes_max`.
    pub fn surplus(&self, primaries: &[NodeId], bytes_max: usize) -> Vec<Dot> {
        let courtesies: Vec<_> = self
            .kept
            .iter()
            .filter(|(_, kept)| !kept.is_counted(primaries))
            .collect();
        let mut bytes: usize = courtesies.iter().map(|(_, kept)| kept.bytes).sum();
        let mut surplus = Vec::new();
        for (dot, kept) in courtesies {
            if bytes <= bytes_max {
                break;
            }
            bytes -= kept.bytes;
            surplus.push(*dot);
        }
        surplus
    }

    /// How many an acknowledgement still rests on.
    pub fn counted(&self, primaries: &[NodeId]) -> usize {
        let kept = self.kept.values();
        kept.filter(|kept| kept.is_counted(primaries)).count()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Bytes of all.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::causal::Actor;

    use super::*;

    fn dot(counter: u64) -> Dot {
        Dot::new(Actor { disk: 9, start: 1 }, counter)
    }

    fn hint(wanted: u8) -> Hint {
        Hint {
            key: Bytes::from_static(b"k"),
            delta: Bytes::from_static(b"delta"),
            wanted,
            holders: Vec::new(),
        }
    }

    #[test]
    fn a_counted_hint_is_no_courtesy_until_enough_present_primaries_have_it() {
        let primaries = [NodeId(1), NodeId(2), NodeId(3)];
        let mut hints = Hints::default();
        assert!(hints.add(dot(1), &hint(2)));
        assert!(!hints.add(dot(1), &hint(2)));
        assert!(hints.surplus(&primaries, 0).is_empty());
        assert!(hints.held(dot(1), NodeId(1)));
        assert!(!hints.held(dot(1), NodeId(1)));
        // One that has left the range does not count.
        hints.held(dot(1), NodeId(7));
        assert!(hints.surplus(&primaries, 0).is_empty());
        hints.held(dot(1), NodeId(2));
        assert_eq!(hints.surplus(&primaries, 0), [dot(1)]);
        assert!(hints.done(&primaries, 3, 9).is_empty());
        hints.held(dot(1), NodeId(3));
        assert_eq!(hints.done(&primaries, 3, 9), [dot(1)]);
    }

    #[test]
    fn courtesies_are_bounded_and_the_oldest_go() {
        let mut hints = Hints::default();
        for counter in 1..=4 {
            hints.add(dot(counter), &hint(0));
        }
        let each = hints.bytes() / 4;
        assert_eq!(hints.surplus(&[NodeId(1)], 2 * each), [dot(1), dot(2)]);
        hints.remove(dot(1));
        assert_eq!((hints.len(), hints.bytes()), (3, 3 * each));
        assert_eq!(hints.of_key(b"k").len(), 3);
        assert_eq!(hints.wanted_by(NodeId(1), 2), [dot(2), dot(3)]);
    }
}
