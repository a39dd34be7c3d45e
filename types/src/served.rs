//! Which operations and levels a keyspace's mode serves: the table of the design, as pure
//! functions. A request outside it is refused; its level is never changed.
//!
//! Not here: whether a level can be met at the moment (the gateway finds out).

use std::fmt;

use thiserror::Error;

use crate::ladder::Ladder;
use crate::level::{Copies, Level, LevelError};
use crate::options::Mode;

/// What a request does, as far as levels care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A get or scan of the present.
    Read,
    /// A put, delete or increment.
    Write,
    /// A write under a condition on one key.
    CompareAndSet,
    /// Compares and operations on several keys.
    Transaction,
    /// A get or scan at one revision.
    Snapshot,
}

impl Operation {
    /// All operations.
    pub const ALL: &'static [Operation] = &[
        Self::Read,
        Self::Write,
        Self::CompareAndSet,
        Self::Transaction,
        Self::Snapshot,
    ];

    /// The name in error messages and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::CompareAndSet => "compare-and-set",
            Self::Transaction => "transaction",
            Self::Snapshot => "snapshot in time",
        }
    }

    const fn is_read(self) -> bool {
        match self {
            Self::Read | Self::Snapshot => true,
            Self::Write | Self::CompareAndSet | Self::Transaction => false,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a keyspace does not serve a request. Not retryable as it stands; no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The operation needs consensus, which the mode does not have.
    #[error("a keyspace of mode {mode} has no {operation} at any level; modes strong and mixed do")]
    Operation {
        /// The keyspace's mode.
        mode: Mode,
        /// What was asked.
        operation: Operation,
    },
    /// The operation exists in the mode, but not at this level.
    #[error(
        "a keyspace of mode {mode} does not serve a {operation} at {level}; allowed: {allowed}"
    )]
    Level {
        /// The keyspace's mode.
        mode: Mode,
        /// What was asked.
        operation: Operation,
        /// The level that was named.
        level: Level,
        /// The levels at which it is served.
        allowed: &'static str,
    },
    /// The level is none of this kind of request, in no mode.
    #[error(transparent)]
    Kind(#[from] LevelError),
}

/// The levels at which a mode serves an operation, as words; `None`: at none.
pub const fn levels_served(mode: Mode, operation: Operation) -> Option<&'static str> {
    const STRONG_READS: &str = "linearizable, bounded:DURATION, session, stale";
    match (mode, operation) {
        (Mode::Strong, Operation::Read) => Some(STRONG_READS),
        (Mode::Mixed, Operation::Read) => {
            Some("linearizable, bounded:DURATION, session, stale, eventual:R")
        }
        (Mode::Eventual, Operation::Read) => Some("session, eventual:R"),
        (Mode::Strong, Operation::Write) => Some("linearizable"),
        (Mode::Mixed, Operation::Write) => Some("linearizable, eventual:W"),
        (Mode::Eventual, Operation::Write) => Some("eventual:W"),
        (Mode::Strong | Mode::Mixed, Operation::CompareAndSet | Operation::Transaction) => {
            Some("linearizable")
        }
        (Mode::Strong | Mode::Mixed, Operation::Snapshot) => Some(STRONG_READS),
        (
            Mode::Eventual,
            Operation::CompareAndSet | Operation::Transaction | Operation::Snapshot,
        ) => None,
    }
}

/// Whether a mode serves an operation at a level.
///
/// # Errors
///
/// [`Refusal`]: which of mode, operation and level do not fit, and what would.
pub fn served(mode: Mode, operation: Operation, level: &Level) -> Result<(), Refusal> {
    let Some(allowed) = levels_served(mode, operation) else {
        return Err(Refusal::Operation { mode, operation });
    };
    if operation.is_read() {
        level.read()?;
    } else {
        level.write()?;
    }
    if serves_level(mode, operation, level) {
        return Ok(());
    }
    Err(Refusal::Level {
        mode,
        operation,
        level: *level,
        allowed,
    })
}

/// The table itself, for operations that the mode has and levels of their kind.
const fn serves_level(mode: Mode, operation: Operation, level: &Level) -> bool {
    match (operation, level) {
        (Operation::Read | Operation::Write, Level::Eventual { .. }) => match mode {
            Mode::Strong => false,
            Mode::Mixed | Mode::Eventual => true,
        },
        (Operation::Read, Level::Session) => true,
        (
            Operation::Read | Operation::Write,
            Level::Linearizable | Level::Bounded(_) | Level::Session | Level::Stale,
        ) => match mode {
            Mode::Strong | Mode::Mixed => true,
            Mode::Eventual => false,
        },
        (Operation::CompareAndSet | Operation::Transaction, level) => {
            matches!(level, Level::Linearizable)
        }
        (Operation::Snapshot, level) => !level.is_eventual(),
    }
}

/// Whether a mode serves an operation at every rung of a ladder.
///
/// # Errors
///
/// The [`Refusal`] of the first rung that it does not serve.
pub fn served_ladder(mode: Mode, operation: Operation, ladder: &Ladder) -> Result<(), Refusal> {
    ladder
        .rungs()
        .iter()
        .try_for_each(|rung| served(mode, operation, &rung.level))
}

/// The level of a request that names none. What only consensus can do is linearizable, also
/// where the mode then refuses it.
pub const fn default_level(mode: Mode, operation: Operation) -> Level {
    match (mode, operation) {
        (Mode::Eventual, Operation::Read | Operation::Write) => Level::eventual(Copies::Quorum),
        (Mode::Strong | Mode::Mixed, _)
        | (
            Mode::Eventual,
            Operation::CompareAndSet | Operation::Transaction | Operation::Snapshot,
        ) => Level::Linearizable,
    }
}
