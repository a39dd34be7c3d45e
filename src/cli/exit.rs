//! Exit codes: what a script learns from a command without reading its output.
//!
//! The one place where reasons of errors become numbers. How errors are worded is in `error`.

use std::io::ErrorKind;
use std::process::ExitCode;

use quorate_client::ClientError;
use quorate_types::{Effect, Reason};
use tonic::Code;

use crate::bench::BenchError;
use crate::dev::DevError;
use crate::transfer::TransferError;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Failed, no effect.
    Failed,
    /// Wrong usage, or a level that the keyspace's mode does not serve.
    Usage,
    /// No such key, keyspace or file.
    NotFound,
    /// A condition did not hold.
    Condition,
    /// Cannot be served now; no effect.
    Unavailable,
    /// The outcome is unknown.
    Unknown,
    /// A checksum failed, and no good copy was found.
    DataLoss,
    /// As a command that was run here.
    Command(u8),
}

impl Exit {
    /// The process's exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Condition => 4,
            Self::Unavailable => 5,
            Self::Unknown => 6,
            Self::DataLoss => 7,
            Self::Command(code) => code,
        }
    }

    /// The exit for an error that a cluster answered, or that the client made of silence.
    ///
    /// What happened to the data comes first: a write that may have been applied is never
    /// reported as one without effect, whatever the reason says.
    pub const fn of(effect: Effect, reason: Option<Reason>, code: Code) -> Self {
        match (effect, reason) {
            (Effect::Unknown | Effect::Applied, _) => Self::Unknown,
            (Effect::None, Some(reason)) => Self::of_reason(reason),
            (Effect::None, None) => Self::of_code(code),
        }
    }

    const fn of_reason(reason: Reason) -> Self {
        match reason {
            Reason::KeyEmpty
            | Reason::KeyTooLong
            | Reason::ValueTooLong
            | Reason::SchemaViolated
            | Reason::FieldInvalid
            | Reason::LevelNotServed
            | Reason::PageTokenMismatch
            | Reason::TokenInvalid
            | Reason::ContextInvalid
            | Reason::PolicyMismatch
            | Reason::NotImplemented => Self::Usage,
            Reason::KeyspaceNotFound | Reason::LeaseNotFound => Self::NotFound,
            Reason::KeyspaceExists
            | Reason::CompareFailed
            | Reason::AlreadyExists
            | Reason::TooManySiblings => Self::Condition,
            Reason::NoLeader
            | Reason::NoMajority
            | Reason::NotCaughtUp
            | Reason::NotConverged
            | Reason::StalenessExceeded
            | Reason::TimedOut
            | Reason::Overloaded
            | Reason::ClockOffset
            | Reason::NodeStopping
            | Reason::HoldersMissing
            | Reason::RangeMoved => Self::Unavailable,
            Reason::RangesSpanned
            | Reason::RevisionCollected
            | Reason::RevisionFuture
            | Reason::QuotaExceeded
            | Reason::BelowWindow
            | Reason::CounterOverflow
            | Reason::LeaseLimit
            | Reason::Internal => Self::Failed,
            Reason::DataLoss => Self::DataLoss,
        }
    }

    /// For answers without a reason: other gRPC software in between, or no answer at all.
    const fn of_code(code: Code) -> Self {
        match code {
            Code::Ok => Self::Done,
            Code::InvalidArgument => Self::Usage,
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::Condition,
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Cancelled => Self::Unavailable,
            Code::DataLoss => Self::DataLoss,
            Code::Unknown
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Internal
            | Code::Unauthenticated => Self::Failed,
        }
    }
}

impl From<&ClientError> for Exit {
    fn from(error: &ClientError) -> Self {
        Self::of(error.effect(), error.reason(), error.code())
    }
}

impl From<&TransferError> for Exit {
    fn from(error: &TransferError) -> Self {
        match error {
            TransferError::File { source, .. } if source.kind() == ErrorKind::NotFound => {
                Self::NotFound
            }
            TransferError::NotImportable { .. } | TransferError::TargetExists { .. } => Self::Usage,
            TransferError::Stopped { source, .. } => Self::from(source),
            TransferError::File { .. }
            | TransferError::KeysUnfit { .. }
            | TransferError::Incomplete { .. }
            | TransferError::Interrupted => Self::Failed,
        }
    }
}

impl From<&DevError> for Exit {
    fn from(error: &DevError) -> Self {
        match error {
            DevError::NodeCount { .. } | DevError::PortsPastEnd { .. } => Self::Usage,
            DevError::PortInUse { .. }
            | DevError::FolderInUse { .. }
            | DevError::OtherNodeCount { .. }
            | DevError::BadDescription { .. }
            | DevError::File { .. }
            | DevError::Start { .. }
            | DevError::NotReady { .. }
            | DevError::AllStopped => Self::Failed,
        }
    }
}

impl From<&BenchError> for Exit {
    fn from(error: &BenchError) -> Self {
        match error {
            BenchError::Connect { .. } => Self::Usage,
            BenchError::Load { .. } | BenchError::NothingServed { .. } => Self::Unavailable,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(effect: Effect, reason: Option<Reason>, code: Code, expected: u8) {
        let exit = Exit::of(effect, reason, code);
        assert_eq!(exit.code(), expected, "{effect} {reason:?} {code:?}");
    }

    #[test]
    fn every_reason_without_effect_has_its_exit_code() {
        let table: &[(u8, &[Reason])] = &[
            (
                1,
                &[
                    Reason::RangesSpanned,
                    Reason::RevisionCollected,
                    Reason::RevisionFuture,
                    Reason::QuotaExceeded,
                    Reason::BelowWindow,
                    Reason::CounterOverflow,
                    Reason::LeaseLimit,
                    Reason::Internal,
                ],
            ),
            (
                2,
                &[
                    Reason::KeyEmpty,
                    Reason::KeyTooLong,
                    Reason::ValueTooLong,
                    Reason::SchemaViolated,
                    Reason::FieldInvalid,
                    Reason::LevelNotServed,
                    Reason::PageTokenMismatch,
                    Reason::TokenInvalid,
                    Reason::ContextInvalid,
                    Reason::PolicyMismatch,
                    Reason::NotImplemented,
                ],
            ),
            (3, &[Reason::KeyspaceNotFound, Reason::LeaseNotFound]),
            (
                4,
                &[
                    Reason::KeyspaceExists,
                    Reason::CompareFailed,
                    Reason::AlreadyExists,
                    Reason::TooManySiblings,
                ],
            ),
            (
                5,
                &[
                    Reason::NoLeader,
                    Reason::NoMajority,
                    Reason::NotCaughtUp,
                    Reason::NotConverged,
                    Reason::StalenessExceeded,
                    Reason::TimedOut,
                    Reason::Overloaded,
                    Reason::ClockOffset,
                    Reason::NodeStopping,
                    Reason::HoldersMissing,
                    Reason::RangeMoved,
                ],
            ),
            (7, &[Reason::DataLoss]),
        ];
        for (expected, reasons) in table {
            for reason in *reasons {
                check(Effect::None, Some(*reason), Code::Internal, *expected);
            }
        }
        let listed: usize = table.iter().map(|(_, reasons)| reasons.len()).sum();
        assert_eq!(
            listed,
            Reason::ALL.len(),
            "a reason is missing in this table"
        );
    }

    #[test]
    fn an_effect_that_may_be_there_outweighs_the_reason() {
        for reason in Reason::ALL {
            check(Effect::Unknown, Some(*reason), Code::Unavailable, 6);
            check(Effect::Applied, Some(*reason), Code::Internal, 6);
        }
        check(Effect::Unknown, None, Code::DeadlineExceeded, 6);
    }

    #[test]
    fn answers_without_a_reason_go_by_their_code() {
        for (code, expected) in [
            (Code::InvalidArgument, 2),
            (Code::NotFound, 3),
            (Code::AlreadyExists, 4),
            (Code::Unavailable, 5),
            (Code::DeadlineExceeded, 5),
            (Code::ResourceExhausted, 5),
            (Code::DataLoss, 7),
            (Code::Unimplemented, 1),
            (Code::FailedPrecondition, 1),
        ] {
            check(Effect::None, None, code, expected);
        }
    }
}
