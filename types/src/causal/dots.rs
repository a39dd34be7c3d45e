//! A set of dots, as intervals per actor, and disks whose early starts are closed.
//!
//! Not here: what a set means. A clock, a context and a record's `beyond` are each one.

use std::fmt;

use bytes::Bytes;

use super::encoding::{DecodeError, Reader, Writer};
use super::intervals::Intervals;
use super::{Actor, Clock, Dot};

const VERSION: u8 = 1;

/// Fewest bytes that an actor takes, and a disk: what bounds the counts of an encoding.
const ACTOR_MIN_BYTES: usize = 3;
const DISK_MIN_BYTES: usize = 3;

/// A set of dots.
///
/// A disk's starts may be *closed* below a number: then all their dots are in the set, those
/// that were never given out included. Only clocks close starts, and contexts repeat it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Dots {
    /// Sorted by actor; no set is empty, and no actor is of a closed start.
    actors: Vec<(Actor, Intervals)>,
    /// Sorted by disk; of each, the lowest start that is not closed, never 0.
    closed: Vec<(u64, u32)>,
}

impl Dots {
    /// No dots.
    pub const fn new() -> Self {
        Self {
            actors: Vec::new(),
            closed: Vec::new(),
        }
    }

    /// Whether it holds no dot.
    pub const fn is_empty(&self) -> bool {
        self.actors.is_empty() && self.closed.is_empty()
    }

    /// How many dots it holds, those of closed starts left out.
    pub fn len(&self) -> u64 {
        self.actors
            .iter()
            .fold(0, |sum, (_, counters)| sum.saturating_add(counters.len()))
    }

    /// Whether `dot` is in the set.
    pub fn contains(&self, dot: Dot) -> bool {
        self.is_closed(dot.actor)
            || self
                .counters(dot.actor)
                .is_some_and(|counters| counters.contains(dot.counter))
    }

    /// The counters of an actor that has some, and is not closed.
    pub fn counters(&self, actor: Actor) -> Option<&Intervals> {
        let at = self.position(actor).ok()?;
        Some(&self.actors[at].1)
    }

    /// The actors that are not closed, with their counters, sorted.
    pub fn actors(&self) -> impl Iterator<Item = (Actor, &Intervals)> {
        self.actors
            .iter()
            .map(|(actor, counters)| (*actor, counters))
    }

    /// The disks that have closed starts, and the lowest start of each that is not.
    pub fn closed(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.closed.iter().copied()
    }

    /// Whether all dots of `actor` are in the set, because its start is closed.
    pub fn is_closed(&self, actor: Actor) -> bool {
        !self.closed.is_empty() && actor.start < self.closed_below(actor.disk)
    }

    /// The lowest start of `disk` that is not closed.
    fn closed_below(&self, disk: u64) -> u32 {
        self.closed
            .binary_search_by_key(&disk, |(disk, _)| *disk)
            .map_or(0, |at| self.closed[at].1)
    }

    fn position(&self, actor: Actor) -> Result<usize, usize> {
        self.actors
            .binary_search_by_key(&actor, |(actor, _)| *actor)
    }

    /// Adds a dot, and says whether it is new.
    pub fn insert(&mut self, dot: Dot) -> bool {
        if self.is_closed(dot.actor) || dot.counter == 0 {
            return false;
        }
        match self.position(dot.actor) {
            Ok(at) => self.actors[at].1.insert(dot.counter),
            Err(at) => {
                let mut counters = Intervals::default();
                counters.insert(dot.counter);
                self.actors.insert(at, (dot.actor, counters));
                true
            }
        }
    }

    /// Adds counters of one actor, and says whether any is new.
    pub fn insert_all(&mut self, actor: Actor, counters: &Intervals) -> bool {
        if counters.is_empty() || self.is_closed(actor) {
            return false;
        }
        match self.position(actor) {
            Ok(at) => self.actors[at].1.union(counters),
            Err(at) => {
                self.actors.insert(at, (actor, counters.clone()));
                true
            }
        }
    }

    /// Takes all counters of one actor out.
    pub(super) fn remove_actor(&mut self, actor: Actor) {
        if let Ok(at) = self.position(actor) {
            self.actors.remove(at);
        }
    }

    /// Closes the starts of `disk` below `start`, and says whether that is new.
    pub(super) fn close(&mut self, disk: u64, start: u32) -> bool {
        if start <= self.closed_below(disk) {
            return false;
        }
        match self.closed.binary_search_by_key(&disk, |(disk, _)| *disk) {
            Ok(at) => self.closed[at].1 = start,
            Err(at) => self.closed.insert(at, (disk, start)),
        }
        self.actors
            .retain(|(actor, _)| actor.disk != disk || actor.start >= start);
        true
    }

    /// Adds all of `other`, and says whether any is new.
    pub fn union(&mut self, other: &Self) -> bool {
        let mut grew = false;
        for (disk, start) in other.closed() {
            grew |= self.close(disk, start);
        }
        for (actor, counters) in other.actors() {
            grew |= self.insert_all(actor, counters);
        }
        grew
    }

    /// What is in `self` and not in `other`. What `self` has closed is left out: it is not a
    /// set from which single dots could be taken.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let left = self.actors().filter(|(actor, _)| !other.is_closed(*actor));
        let actors = left.map(|(actor, mine)| match other.counters(actor) {
            Some(theirs) => (actor, mine.without(theirs)),
            None => (actor, mine.clone()),
        });
        Self {
            actors: actors.filter(|(_, left)| !left.is_empty()).collect(),
            closed: Vec::new(),
        }
    }

    /// Whether `other` holds all of it.
    pub fn is_within(&self, other: &Self) -> bool {
        let closed = self
            .closed()
            .all(|(disk, start)| start <= other.closed_below(disk));
        closed && self.without(other).is_empty()
    }

    /// What others than `actor` named. What is closed is left out, as in [`Dots::without`].
    #[must_use]
    pub fn without_actor(&self, actor: Actor) -> Self {
        let others = self.actors.iter().filter(|(other, _)| *other != actor);
        Self {
            actors: others.cloned().collect(),
            closed: Vec::new(),
        }
    }

    /// What `actor` named. What is closed is left out, as in [`Dots::without`].
    #[must_use]
    pub fn of_actor(&self, actor: Actor) -> Self {
        let own = self.actors.iter().filter(|(one, _)| *one == actor);
        Self {
            actors: own.cloned().collect(),
            closed: Vec::new(),
        }
    }

    /// How many intervals it takes to say the set.
    pub fn intervals(&self) -> usize {
        let of_one = |(_, counters): &(Actor, Intervals)| counters.ranges().count();
        self.actors.iter().map(of_one).sum()
    }

    /// The set with all gaps below each actor's highest number filled: one interval an actor.
    #[must_use]
    pub fn without_gaps(&self) -> Self {
        let filled = self.actors.iter();
        Self {
            actors: filled
                .map(|(actor, counters)| (*actor, Intervals::up_to(counters.top())))
                .collect(),
            closed: self.closed.clone(),
        }
    }

    /// What is in both.
    #[must_use]
    pub fn common(&self, other: &Self) -> Self {
        let mut both = Self::new();
        for (disk, start) in self.closed() {
            match start.min(other.closed_below(disk)) {
                0 => {}
                start => both.closed.push((disk, start)),
            }
        }
        for (actor, mine) in self.actors() {
            if other.is_closed(actor) {
                both.insert_all(actor, mine);
            } else if let Some(theirs) = other.counters(actor) {
                both.insert_all(actor, &mine.common(theirs));
            }
        }
        for (actor, theirs) in other.actors() {
            if self.is_closed(actor) {
                both.insert_all(actor, theirs);
            }
        }
        both
    }

    /// The gapless part of each actor, and what is closed.
    #[must_use]
    pub fn gapless(&self) -> Self {
        let gapless = self.actors.iter().filter_map(|(actor, counters)| {
            let top = counters.gapless();
            (top > 0).then(|| (*actor, Intervals::up_to(top)))
        });
        Self {
            actors: gapless.collect(),
            closed: self.closed.clone(),
        }
    }

    /// Brings what a record knows beyond `clock`'s base into its form, and says whether that
    /// changed it (see [`Intervals::settle`]).
    pub(super) fn settle(&mut self, clock: &Clock) -> bool {
        let closed_before = self.closed.len();
        let closed_there = |disk| clock.dots().closed_below(disk);
        self.closed
            .retain(|(disk, start)| closed_there(*disk) < *start);
        let mut changed = self.closed.len() != closed_before;
        self.actors.retain_mut(|(actor, counters)| {
            changed |= counters.settle(clock.base_of(*actor));
            !counters.is_empty()
        });
        changed
    }

    /// The number of disks, and of each: its identity, the lowest start that is not closed,
    /// the number of actors, and of each of those the distance from the start before and the
    /// counters.
    pub(super) fn encode(&self, to: &mut Writer) {
        let disks = self.disks();
        to.count(disks.len());
        for disk in disks {
            let from = self.actors.partition_point(|(actor, _)| actor.disk < disk);
            let until = self.actors.partition_point(|(actor, _)| actor.disk <= disk);
            let mut start_min = self.closed_below(disk);
            to.number(disk);
            to.number(u64::from(start_min));
            to.count(until - from);
            for (actor, counters) in &self.actors[from..until] {
                to.number(u64::from(actor.start - start_min));
                counters.encode(to);
                // Past the last possible start there is no other actor to write.
                start_min = actor.start.saturating_add(1);
            }
        }
    }

    fn disks(&self) -> Vec<u64> {
        let mut disks: Vec<u64> = self.actors.iter().map(|(actor, _)| actor.disk).collect();
        disks.extend(self.closed.iter().map(|(disk, _)| *disk));
        disks.sort_unstable();
        disks.dedup();
        disks
    }

    /// The set by itself: version byte, dots.
    pub fn to_bytes(&self) -> Bytes {
        let mut to = Writer::versioned(VERSION);
        self.encode(&mut to);
        to.finish()
    }

    /// Reads what [`Dots::to_bytes`] wrote.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for anything else.
    pub fn from_bytes(input: &Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::versioned(input, "set of dots", VERSION)?;
        let dots = Self::decode(&mut from)?;
        from.finish()?;
        Ok(dots)
    }

    pub(super) fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        let mut dots = Self::new();
        let mut disk_min = 0;
        for index in 0..from.count("disk", DISK_MIN_BYTES)? {
            let disk = from.number("disk")?;
            if index > 0 && disk <= disk_min {
                return Err(DecodeError::Order("disks"));
            }
            disk_min = disk;
            dots.decode_disk(disk, from)?;
        }
        Ok(dots)
    }

    fn decode_disk(&mut self, disk: u64, from: &mut Reader) -> Result<(), DecodeError> {
        let closed_below = from.number_u32("start")?;
        if closed_below > 0 {
            self.closed.push((disk, closed_below));
        }
        let count = from.count("actor", ACTOR_MIN_BYTES)?;
        if closed_below == 0 && count == 0 {
            return Err(DecodeError::Number("disk"));
        }
        let mut start_min = Some(closed_below);
        for _ in 0..count {
            let distance = from.number_u32("start")?;
            let start = start_min
                .and_then(|lowest| lowest.checked_add(distance))
                .ok_or(DecodeError::Number("start"))?;
            let counters = Intervals::decode(from)?;
            if counters.is_empty() {
                return Err(DecodeError::Number("counter"));
            }
            self.actors.push((Actor { disk, start }, counters));
            start_min = start.checked_add(1);
        }
        Ok(())
    }
}

/// `1.3:1-7,9 log:12`: each actor and its counters. What is closed is not shown.
impl fmt::Display for Dots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (actor, counters)) in self.actors().enumerate() {
            let between = if at > 0 { " " } else { "" };
            write!(f, "{between}{actor}:")?;
            for (at, (first, last)) in counters.ranges().enumerate() {
                let between = if at > 0 { "," } else { "" };
                write!(f, "{between}{first}")?;
                if last > first {
                    write!(f, "-{last}")?;
                }
            }
        }
        Ok(())
    }
}

impl FromIterator<Dot> for Dots {
    fn from_iter<T: IntoIterator<Item = Dot>>(dots: T) -> Self {
        let mut set = Self::new();
        for dot in dots {
            set.insert(dot);
        }
        set
    }
}
