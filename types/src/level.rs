//! Consistency levels, as requests name them: what a read or a write promises.
//!
//! Not here: which levels a keyspace serves (see `served`), several levels with budgets
//! (see `ladder`), and how a level is met (the gateway).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::duration::{format_duration, parse_duration};
use crate::error::ParseError;

const LEVELS_ALLOWED: &str = "linearizable, bounded:DURATION (above 0), session, stale, \
     eventual:R with R one of one, quorum, local_quorum, all or 1 to 255; for writes an \
     eventual level may go on with ,strict and ,memory";

/// How many nodes an eventual read asks, or an eventual write is stored on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Copies {
    /// Any one.
    One,
    /// More than half of the primaries' number.
    Quorum,
    /// More than half of the primaries' number in the own zone.
    LocalQuorum,
    /// As many as there are primaries.
    All,
    /// That many, at least 1.
    Count(u8),
}

impl fmt::Display for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One => f.write_str("one"),
            Self::Quorum => f.write_str("quorum"),
            Self::LocalQuorum => f.write_str("local_quorum"),
            Self::All => f.write_str("all"),
            Self::Count(count) => count.fmt(f),
        }
    }
}

impl FromStr for Copies {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "one" => Ok(Self::One),
            "quorum" => Ok(Self::Quorum),
            "local_quorum" => Ok(Self::LocalQuorum),
            "all" => Ok(Self::All),
            number => Some(number)
                .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|number| number.parse().ok())
                .filter(|count| *count > 0)
                .map(Self::Count)
                .ok_or_else(|| {
                    let allowed = "one, quorum, local_quorum, all, or 1 to 255";
                    ParseError::new("number of copies", text, allowed)
                }),
        }
    }
}

/// When a node says that it has an eventual write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ack {
    /// Once it is on disk.
    #[default]
    Disk,
    /// Once it is in memory.
    Memory,
}

/// What a read promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadLevel {
    /// The latest committed value in real-time order.
    Linearizable,
    /// Committed state at most that old.
    Bounded(Duration),
    /// State no older than what the session token has read and written.
    Session,
    /// A consistent prefix of the committed history.
    Stale,
    /// The join of committed and tentative state over that many nodes.
    Eventual(Copies),
}

/// What a write promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteLevel {
    /// Decided by a majority, on disk.
    Linearizable,
    /// Taken by some nodes.
    Eventual {
        /// By how many.
        w: Copies,
        /// Whether only primaries count, not stand-ins.
        strict: bool,
        /// When a node counts.
        ack: Ack,
    },
}

/// A level as a request names it, before it is known whether it is a read's or a write's.
/// As text: `linearizable`, `bounded:5s`, `eventual:quorum,strict,memory`, ….
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Level {
    /// The latest committed value; a majority decides.
    Linearizable,
    /// Reads only: committed state at most that old.
    Bounded(Duration),
    /// Reads only: no older than the session token.
    Session,
    /// Reads only: a consistent prefix of the committed history.
    Stale,
    /// Any so many nodes.
    Eventual {
        /// How many.
        copies: Copies,
        /// Writes only: whether only primaries count.
        strict: bool,
        /// Writes only: when a node counts.
        ack: Ack,
    },
}

/// A level that the kind of request does not have. Not retryable as it stands; no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LevelError {
    /// A write at a level that only reads have.
    #[error("`{level}` is a level of reads; writes have linearizable and eventual:W")]
    ReadOnly {
        /// The level that was named.
        level: Level,
    },
    /// A read with a suffix that only writes have.
    #[error("`{level}`: strict and memory are for writes; reads have eventual:R alone")]
    WriteSuffix {
        /// The level that was named.
        level: Level,
    },
}

impl Level {
    /// `eventual` over that many copies, sloppy and on disk, as when nothing more is said.
    pub const fn eventual(copies: Copies) -> Self {
        Self::Eventual {
            copies,
            strict: false,
            ack: Ack::Disk,
        }
    }

    /// Whether the eventual path serves it.
    pub const fn is_eventual(&self) -> bool {
        matches!(self, Self::Eventual { .. })
    }

    /// The level's name without its parameters, as metrics label it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Linearizable => "linearizable",
            Self::Bounded(_) => "bounded",
            Self::Session => "session",
            Self::Stale => "stale",
            Self::Eventual { .. } => "eventual",
        }
    }

    /// As the level of a read.
    ///
    /// # Errors
    ///
    /// [`LevelError::WriteSuffix`] if it says `strict` or `memory`.
    pub const fn read(&self) -> Result<ReadLevel, LevelError> {
        match *self {
            Self::Linearizable => Ok(ReadLevel::Linearizable),
            Self::Bounded(age) => Ok(ReadLevel::Bounded(age)),
            Self::Session => Ok(ReadLevel::Session),
            Self::Stale => Ok(ReadLevel::Stale),
            Self::Eventual {
                copies,
                strict: false,
                ack: Ack::Disk,
            } => Ok(ReadLevel::Eventual(copies)),
            Self::Eventual { .. } => Err(LevelError::WriteSuffix { level: *self }),
        }
    }

    /// As the level of a write.
    ///
    /// # Errors
    ///
    /// [`LevelError::ReadOnly`] for `bounded`, `session` and `stale`.
    pub const fn write(&self) -> Result<WriteLevel, LevelError> {
        match *self {
            Self::Linearizable => Ok(WriteLevel::Linearizable),
            Self::Eventual {
                copies,
                strict,
                ack,
            } => Ok(WriteLevel::Eventual {
                w: copies,
                strict,
                ack,
            }),
            Self::Bounded(_) | Self::Session | Self::Stale => {
                Err(LevelError::ReadOnly { level: *self })
            }
        }
    }
}

impl From<ReadLevel> for Level {
    fn from(level: ReadLevel) -> Self {
        match level {
            ReadLevel::Linearizable => Self::Linearizable,
            ReadLevel::Bounded(age) => Self::Bounded(age),
            ReadLevel::Session => Self::Session,
            ReadLevel::Stale => Self::Stale,
            ReadLevel::Eventual(copies) => Self::eventual(copies),
        }
    }
}

impl From<WriteLevel> for Level {
    fn from(level: WriteLevel) -> Self {
        match level {
            WriteLevel::Linearizable => Self::Linearizable,
            WriteLevel::Eventual { w, strict, ack } => Self::Eventual {
                copies: w,
                strict,
                ack,
            },
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Linearizable | Self::Session | Self::Stale => Ok(()),
            Self::Bounded(age) => write!(f, ":{}", format_duration(*age)),
            Self::Eventual {
                copies,
                strict,
                ack,
            } => {
                write!(f, ":{copies}")?;
                if *strict {
                    f.write_str(",strict")?;
                }
                match ack {
                    Ack::Disk => Ok(()),
                    Ack::Memory => f.write_str(",memory"),
                }
            }
        }
    }
}

impl fmt::Display for ReadLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Level::from(*self).fmt(f)
    }
}

impl fmt::Display for WriteLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Level::from(*self).fmt(f)
    }
}

impl FromStr for Level {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refused = || ParseError::new("level", text, LEVELS_ALLOWED);
        match text.split_once(':') {
            None => match text {
                "linearizable" => Ok(Self::Linearizable),
                "session" => Ok(Self::Session),
                "stale" => Ok(Self::Stale),
                _ => Err(refused()),
            },
            Some(("bounded", age)) => parse_duration(age)
                .ok()
                .filter(|age| !age.is_zero())
                .map(Self::Bounded)
                .ok_or_else(refused),
            Some(("eventual", rest)) => parse_eventual(rest).ok_or_else(refused),
            Some(_) => Err(refused()),
        }
    }
}

/// What follows `eventual:`: copies, then each suffix at most once.
fn parse_eventual(rest: &str) -> Option<Level> {
    let mut parts = rest.split(',');
    let copies = parts.next()?.parse().ok()?;
    let (mut strict, mut memory) = (false, false);
    for suffix in parts {
        let named = match suffix {
            "strict" => &mut strict,
            "memory" => &mut memory,
            _ => return None,
        };
        if std::mem::replace(named, true) {
            return None;
        }
    }
    let ack = if memory { Ack::Memory } else { Ack::Disk };
    Some(Level::Eventual {
        copies,
        strict,
        ack,
    })
}

impl From<Level> for String {
    fn from(level: Level) -> Self {
        level.to_string()
    }
}

impl TryFrom<String> for Level {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}
