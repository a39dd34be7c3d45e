//! The vocabulary of errors: what a request's failure did to the data, the machine-readable
//! reasons on the wire, and the two errors that parsing and validation share.
//!
//! Not here: errors of one part (they live in its crate), and gRPC codes (the gateway maps).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::ERROR_INPUT_MAX_CHARACTERS;

/// What a failed operation did to the data. Every error that a user sees says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Nothing was changed, and nothing will be.
    None,
    /// The operation took effect.
    Applied,
    /// It may have taken effect, or may still do so.
    Unknown,
}

impl Effect {
    /// The word on the wire: `none`, `applied`, `unknown`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Applied => "applied",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Effect {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        [Self::None, Self::Applied, Self::Unknown]
            .into_iter()
            .find(|effect| effect.as_str() == text)
            .ok_or_else(|| ParseError::new("effect", text, "none, applied, unknown"))
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// Why a request failed, as `google.rpc.ErrorInfo.reason`. Names stay once given.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// All reasons, in the order of their declaration.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The name on the wire.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Reason::$variant => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// The key has no bytes.
    KeyEmpty = "KEY_EMPTY",
    /// The key is longer than its keyspace allows.
    KeyTooLong = "KEY_TOO_LONG",
    /// The value is longer than its keyspace allows.
    ValueTooLong = "VALUE_TOO_LONG",
    /// A field's value is not one of those that it takes.
    FieldInvalid = "FIELD_INVALID",
    /// No keyspace of that name.
    KeyspaceNotFound = "KEYSPACE_NOT_FOUND",
    /// A keyspace of that name is there already.
    KeyspaceExists = "KEYSPACE_EXISTS",
    /// The keyspace's mode does not serve the level, or the operation at all.
    LevelNotServed = "LEVEL_NOT_SERVED",
    /// A compared revision or value was another one.
    CompareFailed = "COMPARE_FAILED",
    /// What was to be absent is there.
    AlreadyExists = "ALREADY_EXISTS",
    /// A transaction's keys lie in several ranges.
    RangesSpanned = "RANGES_SPANNED",
    /// The revision's versions have been collected.
    RevisionCollected = "REVISION_COLLECTED",
    /// The revision has not been reached yet.
    RevisionFuture = "REVISION_FUTURE",
    /// The page token belongs to another scan.
    PageTokenMismatch = "PAGE_TOKEN_MISMATCH",
    /// The range has no leader that is known.
    NoLeader = "NO_LEADER",
    /// The range's majority cannot be reached.
    NoMajority = "NO_MAJORITY",
    /// No reachable replica, or no log, has caught up with the session token.
    NotCaughtUp = "NOT_CAUGHT_UP",
    /// Not all primaries hold, and have decided, what was named.
    NotConverged = "NOT_CONVERGED",
    /// No reachable replica is as fresh as was asked.
    StalenessExceeded = "STALENESS_EXCEEDED",
    /// The time given was used up.
    TimedOut = "TIMED_OUT",
    /// A queue or budget is full: retry later.
    Overloaded = "OVERLOADED",
    /// The quota of the keyspace, or of a prefix of it, is used up.
    QuotaExceeded = "QUOTA_EXCEEDED",
    /// A value does not fit the schema of its prefix.
    SchemaViolated = "SCHEMA_VIOLATED",
    /// The sequence number lies below the floor of the exactly-once window.
    BelowWindow = "BELOW_WINDOW",
    /// The node's clock, or a time that was sent, is too far from the others'.
    ClockOffset = "CLOCK_OFFSET",
    /// A checksum failed and no good copy was found.
    DataLoss = "DATA_LOSS",
    /// The node is about to stop.
    NodeStopping = "NODE_STOPPING",
    /// Too few holders of the range can be reached, or have answered.
    HoldersMissing = "HOLDERS_MISSING",
    /// The causal context cannot be read, or is of another key.
    ContextInvalid = "CONTEXT_INVALID",
    /// The keyspace's conflict policy has no such change.
    PolicyMismatch = "POLICY_MISMATCH",
    /// Too many concurrent values stand beside each other.
    TooManySiblings = "TOO_MANY_SIBLINGS",
    /// A counter does not fit 64 bits.
    CounterOverflow = "COUNTER_OVERFLOW",
    /// The session token cannot be read, or is of another cluster.
    TokenInvalid = "TOKEN_INVALID",
    /// The key's range lives elsewhere now.
    RangeMoved = "RANGE_MOVED",
    /// There is no such lease: it was never granted, is revoked, or its time has come.
    LeaseNotFound = "LEASE_NOT_FOUND",
    /// Too many leases in a range, or keys on one.
    LeaseLimit = "LEASE_LIMIT",
    /// A mistake of ours.
    Internal = "INTERNAL",
    /// A part of the surface that this version does not have.
    NotImplemented = "NOT_IMPLEMENTED",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Reason {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| ParseError::new("reason", text, "the names of Reason::ALL"))
    }
}

/// An error and what it came from, in one line, for people and logs.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A text that is not what it should be. Not retryable as it stands; no effect.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{input}` is not a valid {what}; allowed: {allowed}")]
pub struct ParseError {
    /// What the text should have been: `level`, `duration`, ….
    pub what: &'static str,
    /// The text, cut to [`ERROR_INPUT_MAX_CHARACTERS`].
    pub input: String,
    /// What would have been taken instead.
    pub allowed: String,
}

impl ParseError {
    /// An error about `input`, which is not a `what`.
    pub fn new(what: &'static str, input: &str, allowed: impl Into<String>) -> Self {
        Self {
            what,
            input: shown(input),
            allowed: allowed.into(),
        }
    }
}

/// The start of a text that a user sent, short enough to repeat in an error.
fn shown(input: &str) -> String {
    let mut shown: String = input.chars().take(ERROR_INPUT_MAX_CHARACTERS).collect();
    if shown.len() < input.len() {
        shown.push('…');
    }
    shown
}

/// One field of a request or of options, and what is wrong with it. No effect.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {problem}")]
pub struct FieldError {
    /// The field's name as on the wire.
    pub field: &'static str,
    /// What is wrong, with the limit and what is allowed.
    pub problem: String,
}

impl FieldError {
    /// An error about `field`.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self {
            field,
            problem: problem.into(),
        }
    }
}
