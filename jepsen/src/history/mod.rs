//! Histories: who asked for what, when, and what came of it.
//!
//! An [`Event`] is one line of a recording: an invocation or a completion. An [`Operation`] is an
//! invocation with its completion, made by [`Pairing`], which also refuses what cannot be a
//! history. Both are streamed: nothing here holds more than the operations that are open.
//! What operations mean is the checkers' business.

mod cursor;
mod edn;
mod error;
mod event;
mod json;
mod log;
mod pairing;
mod read;

use std::fmt;
use std::sync::Arc;

pub use error::{Problem, ReadError};
pub use pairing::{Pairing, TIME_DISORDER_MAX_NANOSECONDS};
pub use read::{Events, Format, Operations, operations};

use crate::value::Value;

/// Names of functions and nemeses, shared: a history has few.
pub type Name = Arc<str>;

/// Who acts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Process {
    /// A client, one thing at a time.
    Client(i64),
    /// The file does not say; all of these are taken for one client.
    Unnamed,
    /// Somebody who is no client: the nemesis. Checkers do not look at it.
    Other(Name),
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(number) => number.fmt(f),
            Self::Unnamed => f.write_str("without a number"),
            Self::Other(name) => name.fmt(f),
        }
    }
}

/// What an event says of its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It begins.
    Invoke,
    /// It took effect.
    Ok,
    /// It did not take effect, and will not.
    Fail,
    /// It may have taken effect, or may still.
    Info,
}

/// One event of a history.
#[derive(Clone, Debug)]
pub struct Event {
    /// The line where it begins, from 1 on.
    pub line: u64,
    /// Its index, where the file gives one.
    pub index: Option<i64>,
    /// Monotonic time in nanoseconds, where the file gives one.
    pub time_nanoseconds: Option<i64>,
    /// Who.
    pub process: Process,
    /// Begin or end.
    pub kind: Kind,
    /// What is done; empty where the file does not say.
    pub f: Name,
    /// The key, where the file gives it beside the value.
    pub key: Option<Value>,
    /// What with, or what came back.
    pub value: Value,
}

/// A point in a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// How many events came before. This alone is the order that checkers go by.
    pub position: u64,
    /// The line of the event.
    pub line: u64,
    /// Monotonic time in nanoseconds, where the file gives one.
    pub time_nanoseconds: Option<i64>,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect between invocation and completion.
    Ok,
    /// It never took effect.
    Fail,
    /// It took effect at any time after its invocation, or never.
    Unknown,
}

/// An invocation with what came of it.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Who.
    pub process: Process,
    /// What was done; empty where the file does not say.
    pub f: Name,
    /// The key, where the file gives it beside the value.
    pub key: Option<Value>,
    /// What it was invoked with.
    pub asked: Value,
    /// What came back; [`Value::Nil`] if nothing did.
    pub answered: Value,
    /// When it began.
    pub invoked: Moment,
    /// When it ended; none if the history ends before it does.
    pub completed: Option<Moment>,
    /// How it ended.
    pub outcome: Outcome,
}

impl Operation {
    /// What is known of it: the answer where there is one, else what was asked.
    pub fn known(&self) -> &Value {
        let told = self.outcome == Outcome::Ok && !self.answered.is_nil();
        if told { &self.answered } else { &self.asked }
    }

    /// Where the effect lies at the latest, as a position; past every event if that is unknown.
    pub fn returned(&self) -> u64 {
        match (self.outcome, self.completed) {
            (Outcome::Ok | Outcome::Fail, Some(moment)) => moment.position,
            _ => u64::MAX,
        }
    }

    /// The lines of its two events, for messages.
    pub fn lines(&self) -> String {
        match self.completed {
            Some(end) => format!("lines {}–{}", self.invoked.line, end.line),
            None => format!("line {}, never completed", self.invoked.line),
        }
    }
}
