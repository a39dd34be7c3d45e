//! What a replica has taken in of a range: one clock for all its keys.
//!
//! Not here: the records, which a clock never runs ahead of (see `join`).

use bytes::Bytes;

use super::encoding::{DecodeError, Reader, Writer};
use super::intervals::Intervals;
use super::{Actor, Dot, Dots};
use crate::time::Revision;

const VERSION: u8 = 1;

/// The dots of a range that a replica has taken in. Its gapless part per actor is the base.
///
/// A clock speaks for the keys of its range alone. On disk, in a fill and in a snapshot it
/// changes in one step with the records that it speaks for, and never before them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    dots: Dots,
}

impl Clock {
    /// A clock that has taken in `dots`.
    pub const fn of(dots: Dots) -> Self {
        Self { dots }
    }

    /// All dots that it has taken in.
    pub const fn dots(&self) -> &Dots {
        &self.dots
    }

    /// Whether the replica has taken in `dot`.
    pub fn contains(&self, dot: Dot) -> bool {
        self.dots.contains(dot)
    }

    /// Whether base covers `dot`.
    pub fn covers(&self, dot: Dot) -> bool {
        dot.counter != 0 && dot.counter <= self.base_of(dot.actor)
    }

    /// The highest counter of `actor` up to which nothing is missing; all of them if its
    /// start is closed.
    pub fn base_of(&self, actor: Actor) -> u64 {
        if self.dots.is_closed(actor) {
            return u64::MAX;
        }
        self.dots.counters(actor).map_or(0, Intervals::gapless)
    }

    /// Whether the starts of `disk` below `start` are closed.
    pub fn has_closed(&self, disk: u64, start: u32) -> bool {
        let last = start.checked_sub(1);
        last.is_none_or(|start| self.dots.is_closed(Actor { disk, start }))
    }

    /// The base.
    pub fn base(&self) -> Dots {
        self.dots.gapless()
    }

    /// Takes in a dot, and says whether it is new. For the rules of `join`, which do it
    /// together with the record.
    pub(super) fn add(&mut self, dot: Dot) -> bool {
        self.dots.insert(dot)
    }

    /// Takes in all that a range's log has named up to `revision`: what `committed` looks at.
    pub(super) fn with_log(&mut self, revision: Revision) {
        let counters = Intervals::up_to(revision.0);
        self.dots.insert_all(Actor::LOG, &counters);
    }

    /// Undoes [`Clock::with_log`].
    pub(super) fn without_log(&mut self) {
        self.dots.remove_actor(Actor::LOG);
    }

    /// Takes in all of a peer's clock, and says whether any of it is new.
    ///
    /// Allowed only after every key of the range, those that one side alone holds included,
    /// was joined with the peer's record of it, and if `peer` was copied *no later* than the
    /// first of those records was read. A clock that is newer than the records kills values
    /// that were never received. A repair that leaves out equal records takes
    /// [`Clock::merge_base`].
    pub fn merge(&mut self, peer: &Self) -> bool {
        self.dots.union(&peer.dots)
    }

    /// Takes in a peer's base, and says whether any of it is new: the end of a repair that
    /// compares records, and leaves out those that are equal.
    ///
    /// Allowed as [`Clock::merge`] is, where a key may have been compared instead of joined.
    /// What the peer's clock holds above a gap stays out: if the gap closed before a record
    /// was compared, neither record knows such a dot any more, and a clock that holds it
    /// without its base would take a late copy for a new write.
    pub fn merge_base(&mut self, peer: &Dots) -> bool {
        self.dots.union(&peer.gapless())
    }

    /// Closes the starts of `disk` below `start`, gaps and all, and says whether that is new.
    ///
    /// Allowed once those starts are over, no node holds a hint of theirs, and a full repair
    /// of all primaries has ended after that.
    pub fn close(&mut self, disk: u64, start: u32) -> bool {
        self.dots.close(disk, start)
    }

    /// Which starts still have gaps: what `status` shows until they are closed.
    pub fn gaps(&self) -> impl Iterator<Item = (Actor, &Intervals)> {
        self.dots
            .actors()
            .filter(|(_, counters)| counters.gapless() != counters.top())
    }

    /// Version byte, dots.
    pub fn encode(&self) -> Bytes {
        let mut to = Writer::versioned(VERSION);
        self.dots.encode(&mut to);
        to.finish()
    }

    /// Reads what [`Clock::encode`] wrote.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for anything else.
    pub fn decode(input: &Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::versioned(input, "clock", VERSION)?;
        let dots = Dots::decode(&mut from)?;
        from.finish()?;
        Ok(Self { dots })
    }
}
