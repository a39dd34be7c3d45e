//! Time as Quorate counts it: hybrid timestamps, revisions, and the clock that makes them.
//!
//! Not here: reading a clock. The physical time is an argument everywhere.
//!
//! A timestamp is one `u64` of microseconds since the Unix epoch. Its logical part is not
//! a field of its own: where two events share a microsecond, the later one takes the next.
//! (Hybrid logical clocks, Kulkarni et al. 2014, with counter and time in one number.) It
//! stays below 2^53 until the year 2255, so tools that read JSON numbers as doubles keep it
//! exact.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::error::ParseError;

const MICROS_PER_SECOND: u64 = 1_000_000;
const SECONDS_PER_DAY: u64 = 86_400;

/// A hybrid time in microseconds since the Unix epoch; 0 is "none".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// No time: before all others.
    pub const ZERO: Timestamp = Timestamp(0);
    /// After all others.
    pub const MAX: Timestamp = Timestamp(u64::MAX);

    /// From milliseconds since the Unix epoch; the latest timestamp if that is too much.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1000
    }

    /// Later by `duration`, in whole microseconds, or [`Timestamp::MAX`].
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(saturating_micros(duration)))
    }

    /// Earlier by `duration`, in whole microseconds, or [`Timestamp::ZERO`].
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(saturating_micros(duration)))
    }

    /// The time since `earlier`, zero if that is not earlier.
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// As RFC 3339 in UTC with microseconds: `2026-11-22T13:01:00.000042Z`.
    ///
    /// Years past 9999 get more digits than the RFC has room for.
    pub fn to_rfc3339(self) -> String {
        let seconds = self.0 / MICROS_PER_SECOND;
        let (year, month, day) = civil_date(seconds / SECONDS_PER_DAY);
        let second_of_day = seconds % SECONDS_PER_DAY;
        format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
            second_of_day / 3600,
            second_of_day / 60 % 60,
            second_of_day % 60,
            self.0 % MICROS_PER_SECOND,
        )
    }
}

/// A duration in whole microseconds, or the most that fits.
fn saturating_micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// Counts years from March, so that the leap day is a year's last one, within eras of 400
/// years, which all have 146,097 days (Hinnant, "chrono-compatible low-level date
/// algorithms").
fn civil_date(days_since_epoch: u64) -> (u64, u64, u64) {
    const DAYS_FROM_MARCH_OF_YEAR_0: u64 = 719_468;
    const DAYS_PER_ERA: u64 = 146_097;
    let days = days_since_epoch + DAYS_FROM_MARCH_OF_YEAR_0;
    let day_of_era = days % DAYS_PER_ERA;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = days / DAYS_PER_ERA * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// A committed write's timestamp, strictly increasing along its range's log; 0 is "none".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// No revision: that of a key that was never written.
    pub const ZERO: Revision = Revision(0);
    /// Above all others: as a bound of a read, "the latest".
    pub const MAX: Revision = Revision(u64::MAX);

    /// Whether there is no revision.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl From<Timestamp> for Revision {
    fn from(timestamp: Timestamp) -> Self {
        Self(timestamp.0)
    }
}

impl From<Revision> for Timestamp {
    fn from(revision: Revision) -> Self {
        Self(revision.0)
    }
}

macro_rules! decimal_text {
    ($name:ident, $what:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                Some(text)
                    .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
                    .and_then(|text| text.parse().ok())
                    .map(Self)
                    .ok_or_else(|| ParseError::new($what, text, "a whole number, digits only"))
            }
        }
    };
}

decimal_text!(Timestamp, "timestamp");
decimal_text!(Revision, "revision");

/// A remote time was too far ahead of ours to be adopted. Nothing was changed; it may be
/// retried once the clocks agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "the time {remote} is {ahead:?} ahead of this node's {now}; at most {max_offset:?} is taken"
)]
pub struct ClockOffsetError {
    /// The time that was refused.
    pub remote: Timestamp,
    /// Our physical time.
    pub now: Timestamp,
    /// How far `remote` is ahead of `now`.
    pub ahead: Duration,
    /// How far it might have been.
    pub max_offset: Duration,
}

/// A hybrid logical clock: gives out timestamps that never repeat or go back, near the
/// physical time, and after every timestamp that it has observed.
///
/// Invariant: `last` is at least every timestamp given out or adopted.
#[derive(Clone, Debug)]
pub struct HybridClock {
    last: Timestamp,
    max_offset: Duration,
}

impl HybridClock {
    /// A clock that has given out nothing yet, and adopts times up to `max_offset` ahead.
    pub const fn new(max_offset: Duration) -> Self {
        Self::resume(Timestamp::ZERO, max_offset)
    }

    /// A clock that goes on after `last`, which an earlier life of it has given out.
    pub const fn resume(last: Timestamp, max_offset: Duration) -> Self {
        Self { last, max_offset }
    }

    /// The latest timestamp given out or adopted.
    pub const fn last(&self) -> Timestamp {
        self.last
    }

    /// How far ahead of our physical time a remote one may be.
    pub const fn max_offset(&self) -> Duration {
        self.max_offset
    }

    /// The next timestamp: the physical time `now`, or just after the last one given out.
    pub fn tick(&mut self, now: Timestamp) -> Timestamp {
        let next = self.last.0.checked_add(1).expect(
            "invariant: adopted times are near a physical time, far below the end of 64 bits",
        );
        self.last = now.max(Timestamp(next));
        self.last
    }

    /// Adopts a time that came with a message, so that what follows is later than it.
    ///
    /// # Errors
    ///
    /// [`ClockOffsetError`] when it is more than the greatest offset ahead of `now`. It is
    /// not adopted then: one bad clock must not drag all others along.
    pub fn observe(&mut self, remote: Timestamp, now: Timestamp) -> Result<(), ClockOffsetError> {
        if remote > now.saturating_add(self.max_offset) {
            return Err(ClockOffsetError {
                remote,
                now,
                ahead: remote.saturating_duration_since(now),
                max_offset: self.max_offset,
            });
        }
        self.last = self.last.max(remote);
        Ok(())
    }
}
