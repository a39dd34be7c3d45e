//! What errors of the eventual path are on the wire: their codes, reasons, and what they are about.
//!
//! Not here: their two forms there (`errors`).

use quorate_eventual::EventualError;
use quorate_storage::engine::EngineError;
use quorate_types::Reason;
use quorate_types::causal::WriteError;
use tonic::Code;

use crate::errors::{named, shortened};

/// Code and reason of an error of the eventual path.
pub(crate) fn eventual_meaning(error: &EventualError) -> (Code, Reason) {
    match error {
        EventualError::NoRange(_) => (Code::Unavailable, Reason::RangeMoved),
        EventualError::TooMany(_) => (Code::InvalidArgument, Reason::FieldInvalid),
        EventualError::Unreachable { .. }
        | EventualError::TooFewAnswers { .. }
        | EventualError::AbsenceUnknown { .. }
        | EventualError::Filling(_)
        | EventualError::PeerFailed(_) => (Code::Unavailable, Reason::HoldersMissing),
        EventualError::SessionBehind { .. } => (Code::Unavailable, Reason::NotCaughtUp),
        EventualError::TooFewHolders { .. } | EventualError::NotDecided { .. } => {
            (Code::DeadlineExceeded, Reason::HoldersMissing)
        }
        EventualError::RetryUnknown => (Code::FailedPrecondition, Reason::BelowWindow),
        EventualError::Context(_) => (Code::InvalidArgument, Reason::ContextInvalid),
        EventualError::Write(error) => write_meaning(error),
        EventualError::Evaluate(_) => (Code::OutOfRange, Reason::CounterOverflow),
        EventualError::HintsFull { .. } => (Code::ResourceExhausted, Reason::Overloaded),
        EventualError::OldCopy => (Code::Unavailable, Reason::NodeStopping),
        EventualError::Damaged(_) | EventualError::DamagedRow(_) => {
            (Code::DataLoss, Reason::DataLoss)
        }
        EventualError::Engine(error) => match error.as_ref() {
            EngineError::Corrupt { .. } | EngineError::Damaged { .. } => {
                (Code::DataLoss, Reason::DataLoss)
            }
            _ => (Code::Internal, Reason::Internal),
        },
        EventualError::Peer(_) | EventualError::Log(_) => (Code::Internal, Reason::Internal),
    }
}

fn write_meaning(error: &WriteError) -> (Code, Reason) {
    match error {
        WriteError::Misfit { .. } => (Code::FailedPrecondition, Reason::PolicyMismatch),
        WriteError::Siblings { .. } => (Code::FailedPrecondition, Reason::TooManySiblings),
        WriteError::Overflow(_) => (Code::OutOfRange, Reason::CounterOverflow),
        WriteError::ContextBytes { .. } => (Code::ResourceExhausted, Reason::Overloaded),
        WriteError::Parts { .. } => (Code::FailedPrecondition, Reason::FieldInvalid),
        WriteError::Empty(_)
        | WriteError::Twice
        | WriteError::ElementBytes { .. }
        | WriteError::Depth => (Code::InvalidArgument, Reason::FieldInvalid),
    }
}

/// What it is about, by name.
pub(crate) fn eventual_metadata(error: &EventualError, mut put: impl FnMut(&str, String)) {
    match error {
        EventualError::Unreachable {
            range,
            wanted,
            reachable,
            missing,
        } => {
            put("range", range.to_string());
            put("wanted", wanted.to_string());
            put("reachable", reachable.to_string());
            put("missing", named(missing));
            if *reachable > 0 {
                put("levels", format!("eventual:{reachable}"));
            }
        }
        EventualError::SessionBehind {
            range,
            missing,
            asked,
        } => {
            put("range", range.to_string());
            put("missing", shortened(&missing.to_string()));
            put("asked", named(asked));
        }
        EventualError::TooFewHolders { wanted, stored } => {
            put("wanted", wanted.to_string());
            put("stored", stored.to_string());
        }
        EventualError::TooMany(too_many) => {
            put("field", "consistency.rungs".to_owned());
            put("problem", too_many.to_string());
        }
        EventualError::Context(_) => put("field", "context".to_owned()),
        _ => {}
    }
}
