//! A set of an actor's counters: the gapless part from 1, and islands above it.
//!
//! Not here: whose counters they are (see `dots`).

use super::encoding::{DecodeError, Reader, Writer};

/// A set of numbers from 1, as sorted, disjoint, not adjacent intervals. A set without gaps,
/// which is the usual one, takes no memory of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Intervals {
    /// All of `1..=gapless` are in the set; 0 for none.
    gapless: u64,
    /// Inclusive intervals above `gapless + 1`, with at least one number between two.
    islands: Vec<(u64, u64)>,
}

impl Intervals {
    /// All of `1..=top`; empty for 0.
    pub const fn up_to(top: u64) -> Self {
        Self {
            gapless: top,
            islands: Vec::new(),
        }
    }

    /// The highest number to which nothing is missing; 0 if 1 is missing.
    pub const fn gapless(&self) -> u64 {
        self.gapless
    }

    /// The highest number; 0 for an empty set.
    pub fn top(&self) -> u64 {
        self.islands.last().map_or(self.gapless, |(_, last)| *last)
    }

    /// The lowest number.
    pub fn lowest(&self) -> Option<u64> {
        self.ranges().next().map(|(first, _)| first)
    }

    /// Whether it holds no number.
    pub const fn is_empty(&self) -> bool {
        self.gapless == 0 && self.islands.is_empty()
    }

    /// How many numbers it holds.
    pub fn len(&self) -> u64 {
        let above: u64 = self
            .islands
            .iter()
            .map(|(first, last)| last - first + 1)
            .sum();
        self.gapless + above
    }

    /// Whether `number` is in the set; 0 never is.
    pub fn contains(&self, number: u64) -> bool {
        if number <= self.gapless {
            return number != 0;
        }
        let after = self.islands.partition_point(|(first, _)| *first <= number);
        after > 0 && number <= self.islands[after - 1].1
    }

    /// Adds a number, and says whether it is new; 0 is not added.
    pub fn insert(&mut self, number: u64) -> bool {
        if number == 0 || self.contains(number) {
            return false;
        }
        let after = self.islands.partition_point(|(first, _)| *first <= number);
        let joins_left = after > 0 && self.islands[after - 1].1 + 1 == number;
        let joins_right = self
            .islands
            .get(after)
            .is_some_and(|(first, _)| number + 1 == *first);
        match (joins_left, joins_right) {
            (true, true) => {
                self.islands[after - 1].1 = self.islands[after].1;
                self.islands.remove(after);
            }
            (true, false) => self.islands[after - 1].1 = number,
            (false, true) => self.islands[after].0 = number,
            (false, false) if self.gapless + 1 == number => self.gapless = number,
            (false, false) => self.islands.insert(after, (number, number)),
        }
        self.absorb_first_island();
        true
    }

    /// The first island may have come to touch the gapless part.
    fn absorb_first_island(&mut self) {
        if let Some((first, last)) = self.islands.first().copied()
            && first - 1 == self.gapless
        {
            self.gapless = last;
            self.islands.remove(0);
        }
    }

    /// Adds all of `other`, and says whether any was new. Linear in the intervals of both.
    pub fn union(&mut self, other: &Self) -> bool {
        if self.islands.is_empty() && other.islands.is_empty() {
            let grew = other.gapless > self.gapless;
            self.gapless = self.gapless.max(other.gapless);
            return grew;
        }
        let joined = self.joined(other);
        let grew = joined != *self;
        *self = joined;
        grew
    }

    fn joined(&self, other: &Self) -> Self {
        let mut builder = Builder::default();
        let (mut left, mut right) = (self.ranges().peekable(), other.ranges().peekable());
        loop {
            let next = match (left.peek(), right.peek()) {
                (Some(mine), Some(theirs)) if mine.0 <= theirs.0 => left.next(),
                (_, Some(_)) => right.next(),
                (_, None) => left.next(),
            };
            let Some(range) = next else { break };
            builder.push(range);
        }
        builder.finish()
    }

    /// What is in `self` and not in `other`. Linear in the intervals of both.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut builder = Builder::default();
        let mut holes = other.ranges().peekable();
        for (mut first, last) in self.ranges() {
            let mut used_up = false;
            while let Some((hole_first, hole_last)) = holes.peek().copied() {
                if hole_first > last {
                    break;
                }
                if first < hole_first {
                    builder.push((first, hole_first - 1));
                }
                if hole_last >= last {
                    used_up = true;
                    break;
                }
                first = first.max(hole_last + 1);
                holes.next();
            }
            if !used_up {
                builder.push((first, last));
            }
        }
        builder.finish()
    }

    /// What is in both. Linear in the intervals of both.
    #[must_use]
    pub fn common(&self, other: &Self) -> Self {
        let mut builder = Builder::default();
        let (mut left, mut right) = (self.ranges().peekable(), other.ranges().peekable());
        while let (Some(mine), Some(theirs)) = (left.peek().copied(), right.peek().copied()) {
            let (first, last) = (mine.0.max(theirs.0), mine.1.min(theirs.1));
            if first <= last {
                builder.push((first, last));
            }
            if mine.1 <= theirs.1 {
                left.next();
            } else {
                right.next();
            }
        }
        builder.finish()
    }

    /// What lies above `floor`.
    #[must_use]
    pub fn above(&self, floor: u64) -> Self {
        if floor == 0 {
            return self.clone();
        }
        let mut builder = Builder::default();
        for (first, last) in self.ranges() {
            if last > floor {
                builder.push((first.max(floor + 1), last));
            }
        }
        builder.finish()
    }

    /// Brings the set into the form that a record keeps of it beside a base: what lies above
    /// `base`, but one interval from 1 where that reaches without a gap from the base up. So
    /// a base that grows by one changes the form only when it comes to the end of such an
    /// interval, or to the beginning of the next. Says whether the form changed.
    pub(super) fn settle(&mut self, base: u64) -> bool {
        if self.settles_at().is_none_or(|threshold| threshold > base) {
            return false;
        }
        self.union(&Self::up_to(base));
        if self.gapless == base {
            self.gapless = 0;
        }
        true
    }

    /// The base from which on a settled set has another form; none for an empty one.
    pub(super) fn settles_at(&self) -> Option<u64> {
        match self.gapless {
            0 => self.islands.first().map(|(first, _)| first - 1),
            gapless => Some(gapless),
        }
    }

    /// The intervals, lowest first, both ends included.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let gapless = (self.gapless > 0).then_some((1, self.gapless));
        gapless.into_iter().chain(self.islands.iter().copied())
    }

    /// `gapless`, the number of islands, and of each its distance to what is below it and
    /// its length, both less than they can be at least.
    pub(super) fn encode(&self, to: &mut Writer) {
        to.number(self.gapless);
        to.count(self.islands.len());
        let mut below = self.gapless;
        for (first, last) in &self.islands {
            to.number(first - below - 2);
            to.number(last - first);
            below = *last;
        }
    }

    pub(super) fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        const WHAT: &str = "counter";
        let gapless = from.number(WHAT)?;
        let count = from.count("interval", 2)?;
        let mut islands = Vec::with_capacity(count);
        let mut below = gapless;
        for _ in 0..count {
            let (distance, length) = (from.number(WHAT)?, from.number(WHAT)?);
            let first = below
                .checked_add(2)
                .and_then(|lowest| lowest.checked_add(distance))
                .ok_or(DecodeError::Number(WHAT))?;
            let last = first.checked_add(length).ok_or(DecodeError::Number(WHAT))?;
            islands.push((first, last));
            below = last;
        }
        Ok(Self { gapless, islands })
    }
}

/// Puts intervals together that come sorted by their first number, and may touch or overlap.
#[derive(Default)]
struct Builder {
    done: Intervals,
    open: Option<(u64, u64)>,
}

impl Builder {
    fn push(&mut self, (first, last): (u64, u64)) {
        match &mut self.open {
            Some(open) if first - 1 <= open.1 => open.1 = open.1.max(last),
            Some(_) | None => {
                self.close();
                self.open = Some((first, last));
            }
        }
    }

    fn close(&mut self) {
        match self.open.take() {
            Some((1, last)) => self.done.gapless = last,
            Some(island) => self.done.islands.push(island),
            None => {}
        }
    }

    fn finish(mut self) -> Intervals {
        self.close();
        self.done
    }
}
