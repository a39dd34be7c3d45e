//! What one attempt can run into, read off gRPC statuses and off the in-band errors of
//! pipelines.
//!
//! Not here: what to do about it (see `retry`).

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::Duration;

use quorate_proto::v1;
use quorate_types::{Effect, Reason};
use tonic::{Code, ConnectError, Status};
use tonic_types::StatusExt;

use crate::error::{Fate, FieldViolation, ServerError};

/// How one attempt failed.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// A server answered with an error.
    Refused(Box<ServerError>),
    /// The request never left this machine.
    NotSent {
        /// What went wrong.
        problem: String,
    },
    /// It may have been sent; no answer came.
    Lost {
        /// What went wrong.
        problem: String,
        /// The attempt's time was up, the connection may be well.
        timed_out: bool,
    },
}

impl Failure {
    /// What this attempt did to the data, as far as this attempt alone can tell.
    pub(crate) fn effect(&self) -> Effect {
        match self {
            Self::Refused(error) => error.fate.effect,
            Self::NotSent { .. } => Effect::None,
            Self::Lost { .. } => Effect::Unknown,
        }
    }

    /// What went wrong, for people.
    pub(crate) fn problem(self) -> String {
        match self {
            Self::Refused(error) => error.message,
            Self::NotSent { problem } | Self::Lost { problem, .. } => problem,
        }
    }

    /// Reads the status of a unary call, or of the opening of a stream.
    pub(crate) fn from_status(status: &Status) -> Self {
        if let Some(info) = status.get_details_error_info() {
            return Self::Refused(Box::new(server_error(status, info)));
        }
        if is_connect_error(status) {
            return Self::NotSent {
                problem: deepest_problem(status),
            };
        }
        match status.code() {
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable => Self::Lost {
                problem: deepest_problem(status),
                timed_out: matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
            },
            code => Self::Refused(Box::new(bare_error(code, status.message()))),
        }
    }

    /// Reads an error inside an answer.
    pub(crate) fn from_wire(error: v1::Error) -> Self {
        Self::Refused(Box::new(error_from_wire(error)))
    }
}

/// Reads an error inside an answer.
pub(crate) fn error_from_wire(error: v1::Error) -> ServerError {
    let metadata: BTreeMap<_, _> = error.metadata.into_iter().collect();
    let violations = metadata
        .get("field")
        .map(|field| FieldViolation {
            field: field.clone(),
            problem: metadata.get("problem").unwrap_or(&error.message).clone(),
        })
        .into_iter()
        .collect();
    ServerError {
        code: Code::from(i32::try_from(error.code).unwrap_or(Code::Unknown as i32)),
        reason: error.reason.parse().ok(),
        retry_after: Some(error.retry_after_ms)
            .filter(|millis| *millis > 0)
            .map(|millis| Duration::from_millis(u64::from(millis))),
        violations,
        fate: fate(&error.effect, &metadata),
        message: error.message,
        metadata,
    }
}

/// An error with `google.rpc` details.
fn server_error(status: &Status, info: tonic_types::ErrorInfo) -> ServerError {
    let mut metadata: BTreeMap<_, _> = info.metadata.into_iter().collect();
    let effect = metadata.remove("effect").unwrap_or_default();
    let violations = status
        .get_details_bad_request()
        .map(|request| request.field_violations)
        .unwrap_or_default()
        .into_iter()
        .map(|violation| FieldViolation {
            field: violation.field,
            problem: violation.description,
        })
        .collect();
    ServerError {
        code: status.code(),
        message: status.message().to_owned(),
        reason: info.reason.parse::<Reason>().ok(),
        retry_after: status
            .get_details_retry_info()
            .and_then(|info| info.retry_delay),
        fate: fate(&effect, &metadata),
        metadata,
        violations,
    }
}

/// An error without details: from a proxy, or from the gRPC library on either side.
fn bare_error(code: Code, message: &str) -> ServerError {
    let effect = match code {
        // These are told before a handler runs.
        Code::InvalidArgument
        | Code::NotFound
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::AlreadyExists
        | Code::Unimplemented => Effect::None,
        // An answer too large to be read is `OutOfRange`: the request itself was done.
        _ => Effect::Unknown,
    };
    ServerError {
        code,
        message: message.to_owned(),
        reason: None,
        retry_after: None,
        metadata: BTreeMap::new(),
        violations: Vec::new(),
        fate: Fate {
            effect,
            ..Fate::UNTOUCHED
        },
    }
}

/// An effect that is missing or not known to this version counts as unknown.
fn fate(effect: &str, metadata: &BTreeMap<String, String>) -> Fate {
    let handle = metadata.get("handle").and_then(|text| text.parse().ok());
    Fate {
        effect: effect.parse().unwrap_or(Effect::Unknown),
        handle,
        ..Fate::UNTOUCHED
    }
}

/// Whether the connection could not even be made.
fn is_connect_error(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The innermost cause says most: "Connection refused", not "transport error".
fn deepest_problem(status: &Status) -> String {
    let mut problem = status.message().to_owned();
    let mut source = status.source();
    while let Some(error) = source {
        problem = error.to_string();
        source = error.source();
    }
    if problem.is_empty() {
        problem = status.code().description().to_owned();
    }
    problem
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tonic_types::ErrorDetails;

    use super::*;

    fn refused(failure: Failure) -> ServerError {
        match failure {
            Failure::Refused(error) => *error,
            other => panic!("not a refusal: {other:?}"),
        }
    }

    #[test]
    fn details_of_a_status_are_read() {
        let mut details = ErrorDetails::new();
        details
            .set_error_info(
                "NO_LEADER",
                "quorate",
                [
                    ("effect".to_owned(), "none".to_owned()),
                    ("ranges".to_owned(), "7".to_owned()),
                    ("handle".to_owned(), "r7-00c0ffee00000001-42".to_owned()),
                ],
            )
            .set_retry_info(Some(Duration::from_millis(250)))
            .add_bad_request_violation("key", "is empty");
        let status = Status::with_error_details(Code::Unavailable, "no leader", details);
        let error = refused(Failure::from_status(&status));
        assert_eq!(error.reason, Some(Reason::NoLeader));
        assert_eq!(error.fate.effect, Effect::None);
        assert_eq!(error.fate.handle.unwrap().range.0, 7);
        assert_eq!(error.retry_after, Some(Duration::from_millis(250)));
        assert_eq!(error.metadata["ranges"], "7");
        assert_eq!(error.violations[0].field, "key");
    }

    #[test]
    fn an_effect_that_is_not_told_is_unknown() {
        let mut details = ErrorDetails::new();
        details.set_error_info("INTERNAL", "quorate", []);
        let status = Status::with_error_details(Code::Internal, "oops", details);
        assert_eq!(
            refused(Failure::from_status(&status)).fate.effect,
            Effect::Unknown
        );
        let wire = v1::Error {
            code: Code::Internal as u32,
            reason: "SOMETHING_NEW".to_owned(),
            ..v1::Error::default()
        };
        let error = refused(Failure::from_wire(wire));
        assert_eq!(error.fate.effect, Effect::Unknown);
        assert_eq!(error.reason, None);
    }

    #[test]
    fn an_in_band_error_says_the_same_as_a_status() {
        let wire = v1::Error {
            code: Code::InvalidArgument as u32,
            message: "key: longer than 4096 bytes".to_owned(),
            reason: "KEY_TOO_LONG".to_owned(),
            effect: "none".to_owned(),
            retry_after_ms: 30,
            metadata: [("field".to_owned(), "key".to_owned())].into(),
        };
        let error = refused(Failure::from_wire(wire));
        assert_eq!(error.code, Code::InvalidArgument);
        assert_eq!(error.reason, Some(Reason::KeyTooLong));
        assert_eq!(error.fate.effect, Effect::None);
        assert_eq!(error.retry_after, Some(Duration::from_millis(30)));
        assert_eq!(error.violations[0].field, "key");
    }

    #[test]
    fn a_bare_status_of_the_transport_is_a_loss() {
        for code in [Code::Unavailable, Code::Cancelled, Code::Internal] {
            let failure = Failure::from_status(&Status::new(code, "h2 protocol error"));
            assert!(matches!(failure, Failure::Lost { .. }), "{code:?}");
            assert_eq!(failure.effect(), Effect::Unknown);
        }
        let failure = Failure::from_status(&Status::unimplemented("no such method"));
        assert_eq!(refused(failure).fate.effect, Effect::None);
    }
}
