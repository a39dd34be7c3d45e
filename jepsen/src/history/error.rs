//! Why a file is no history: the line, and what is wrong there.

use std::io;

use thiserror::Error;

/// A file that cannot be used, with the line that says so.
#[derive(Debug, Error)]
#[error("line {line}")]
pub struct ReadError {
    /// The line, from 1 on.
    pub line: u64,
    /// What is wrong there.
    #[source]
    pub problem: Problem,
}

impl ReadError {
    /// A problem of a line.
    pub fn new(line: u64, problem: Problem) -> Self {
        Self { line, problem }
    }

    /// A line that is no EDN, JSON or log line.
    pub fn syntax(line: u64, what: impl Into<String>) -> Self {
        Self::new(line, Problem::Syntax(what.into()))
    }

    /// A line that is well-formed and no event of a history.
    pub fn event(line: u64, what: impl Into<String>) -> Self {
        Self::new(line, Problem::Event(what.into()))
    }
}

/// What can be wrong with a history.
#[derive(Debug, Error)]
pub enum Problem {
    /// The file could not be read on.
    #[error("cannot be read")]
    Io(#[from] io::Error),
    /// Nothing is in it.
    #[error("the history is empty: no event was found")]
    Empty,
    /// Bytes that are no text.
    #[error("not UTF-8")]
    NotUtf8,
    /// The file ends within something.
    #[error("the file ends within {0}: it was cut off")]
    Truncated(&'static str),
    /// Text that is not in the file's format.
    #[error("{0}")]
    Syntax(String),
    /// An event without what an event has.
    #[error("{0}")]
    Event(String),
    /// A completion that nothing led to.
    #[error("process {process} completes `{f}` without having invoked anything")]
    NotInvoked {
        /// Whose.
        process: String,
        /// Of what.
        f: String,
    },
    /// A second completion of one operation.
    #[error(
        "process {process} completes `{f}` twice: its last operation, invoked in line {invoked}, \
         was completed in line {completed}"
    )]
    CompletedTwice {
        /// Whose.
        process: String,
        /// Of what.
        f: String,
        /// Line of the invocation.
        invoked: u64,
        /// Line of the first completion.
        completed: u64,
    },
    /// A second invocation before the first was completed.
    #[error(
        "process {process} invokes `{f}` while its operation of line {invoked} is open: \
         a process does one thing at a time"
    )]
    StillOpen {
        /// Whose.
        process: String,
        /// Of what.
        f: String,
        /// Line of the open invocation.
        invoked: u64,
    },
    /// A completion of something else than was invoked.
    #[error("process {process} completes `{f}`, but line {invoked} invoked `{asked}`")]
    OtherOperation {
        /// Whose.
        process: String,
        /// What was completed.
        f: String,
        /// What was invoked.
        asked: String,
        /// Line of the invocation.
        invoked: u64,
    },
    /// An event before an earlier one.
    #[error("out of time order: time {time} ns is before {before} ns of line {line}")]
    TimeBackwards {
        /// This event's time.
        time: i64,
        /// The time that it should not precede.
        before: i64,
        /// Where that stands.
        line: u64,
    },
    /// Indexes that do not rise.
    #[error("out of order: index {index} follows index {before}")]
    IndexBackwards {
        /// This event's index.
        index: i64,
        /// The one before.
        before: i64,
    },
}
