//! A level that is watched: one stream of calls on each side.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a stream does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Act {
    Read,
    Write,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// What is promised of a read's age; what breaks it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AgePromise {
    /// Nothing.
    None,
    /// Nothing that the log had acknowledged is missing.
    Fresh,
    /// Nothing that it had acknowledged longer ago than this, in milliseconds, is missing.
    Bounded { age_ms: u64 },
}

/// Whose writes a read looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plane {
    /// Those that a majority decides.
    Strong,
    /// Those that any node takes.
    Eventual,
}

/// One level, for reading or for writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) act: Act,
    /// The level as it is written.
    pub(crate) level: String,
    /// Of reads.
    pub(crate) promise: AgePromise,
    /// Of writes: reads look at what this stream writes, as the state of this plane.
    pub(crate) shows: Option<Plane>,
}

impl Probe {
    pub(crate) fn read(level: impl Into<String>, promise: AgePromise) -> Self {
        Self {
            act: Act::Read,
            level: level.into(),
            promise,
            shows: None,
        }
    }

    pub(crate) fn write(level: impl Into<String>, shows: Option<Plane>) -> Self {
        Self {
            act: Act::Write,
            level: level.into(),
            promise: AgePromise::None,
            shows,
        }
    }
}
