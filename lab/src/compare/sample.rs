//! One call as it was made and answered: what all numbers and pictures are made of.

use std::fmt;
use std::time::Duration;

/// A moment of the run, in microseconds since what counts began; before that, while all warm up,
/// below zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Moment(pub(crate) i64);

impl Moment {
    /// Later than all others.
    pub(crate) const NEVER: Self = Self(i64::MAX);

    /// So long after the beginning.
    pub(crate) fn after(time: Duration) -> Self {
        Self(i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
    }

    /// From an earlier moment to this one; zero from a later one.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        let micros = self.0.saturating_sub(earlier.0).max(0);
        Duration::from_micros(micros.unsigned_abs())
    }
}

/// The sides of the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Side {
    /// That which has a majority of what decides.
    Majority,
    /// The other one.
    Minority,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Majority, Self::Minority];

    /// As people read it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Majority => "majority",
            Self::Minority => "minority",
        }
    }

    /// Its place among both.
    pub(crate) const fn place(self) -> usize {
        match self {
            Self::Majority => 0,
            Self::Minority => 1,
        }
    }
}

/// A key of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    /// Written by one stream of one side alone: how far reads are behind is seen on these.
    Own {
        probe: usize,
        side: Side,
        number: usize,
    },
    /// Written by one level's streams of both sides, in one round of time: conflicts are made here.
    Shared { probe: usize, round: usize },
}

impl Key {
    /// The stream that writes it.
    pub(crate) const fn probe(self) -> usize {
        match self {
            Self::Own { probe, .. } | Self::Shared { probe, .. } => probe,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own {
                probe,
                side,
                number,
            } => write!(f, "own/{probe}/{}/{number}", side.name()),
            Self::Shared { probe, round } => write!(f, "shared/{probe}/{round}"),
        }
    }
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Served, at this rung of its ladder.
    Done { rung: u32 },
    /// The store said that it cannot be served now.
    Refused,
    /// There was no answer in time.
    Silent,
}

impl End {
    /// As it is written down.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Done { .. } => "done",
            Self::Refused => "refused",
            Self::Silent => "silent",
        }
    }

    /// The rung on which it was served.
    pub(crate) const fn rung(self) -> Option<u32> {
        match self {
            Self::Done { rung } => Some(rung),
            Self::Refused | Self::Silent => None,
        }
    }
}

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Its stream's level, by place.
    pub(crate) probe: usize,
    pub(crate) side: Side,
    /// Whom the client spoke to.
    pub(crate) node: usize,
    pub(crate) key: Key,
    pub(crate) begin: Moment,
    pub(crate) end: Moment,
    pub(crate) came_to: End,
    /// Of a write that was not served: whether it may take effect for all that.
    pub(crate) may_apply: bool,
    /// What a write wrote.
    pub(crate) written: Option<i64>,
    /// What a read read: all values that stood there.
    pub(crate) read: Vec<i64>,
    /// What was the matter, where it was not served.
    pub(crate) problem: Option<String>,
}

impl Sample {
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.came_to, End::Done { .. })
    }
}

/// From one moment to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) begin: Moment,
    pub(crate) end: Moment,
}

impl Span {
    pub(crate) fn holds(self, moment: Moment) -> bool {
        self.begin <= moment && moment < self.end
    }
}
