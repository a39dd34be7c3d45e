//! What a caller of the client sees when a request fails: what went wrong, what it did to
//! the data, and how to ask for the outcome.
//!
//! Not here: reading errors off the wire (see `failure`), deciding to retry (see `retry`).

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_types::{Effect, FieldError, Reason, RequestHandle, RequestId};
use thiserror::Error;
use tonic::Code;

/// Why a request failed. Every variant knows what the failure did to the data: see
/// [`ClientError::effect`].
#[derive(Clone, Debug, Error)]
pub enum ClientError {
    /// The request was refused before it was sent: an option or argument is not valid.
    #[error(transparent)]
    Invalid(#[from] FieldError),
    /// A server answered with an error.
    #[error(transparent)]
    Server(Box<ServerError>),
    /// No server gave an answer in time.
    #[error(transparent)]
    Lost(Box<LostError>),
}

/// One field that a server refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldViolation {
    /// The field's name on the wire.
    pub field: String,
    /// What is wrong, and what is allowed.
    pub problem: String,
}

/// What is known of the write that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// Over all attempts: what they did to the data.
    pub effect: Effect,
    /// The id that all attempts carried; none for reads and unnamed writes.
    pub request: Option<RequestId>,
    /// What to ask [`outcome`](crate::Client::outcome) with, if the range is known.
    pub handle: Option<RequestHandle>,
    /// Attempts made, those included that never left this machine.
    pub attempts: u32,
}

impl Fate {
    /// Nothing is known to have been changed.
    pub(crate) const UNTOUCHED: Fate = Fate {
        effect: Effect::None,
        request: None,
        handle: None,
        attempts: 0,
    };
}

/// An error that a server gave as its answer.
#[derive(Clone, Debug, Error)]
#[error("{message}")]
pub struct ServerError {
    /// The gRPC status code.
    pub code: Code,
    /// For people.
    pub message: String,
    /// For programs; none if the server gave none that this version knows.
    pub reason: Option<Reason>,
    /// When the server suggests to try again.
    pub retry_after: Option<Duration>,
    /// What the reason is about: field, limit, revision, ranges, replicas, levels, handle.
    pub metadata: BTreeMap<String, String>,
    /// Fields that were refused.
    pub violations: Vec<FieldViolation>,
    /// What became of the write.
    pub fate: Fate,
}

/// No server gave an answer: they could not be reached, or the time was up.
#[derive(Clone, Debug, Error)]
#[error("no answer within {waited:?} in {} attempt(s) at {}: {problem}", fate.attempts, endpoints.join(", "))]
pub struct LostError {
    /// Whether time ran out (and not: every endpoint failed and retries are off).
    pub timed_out: bool,
    /// How long was waited in all.
    pub waited: Duration,
    /// What the last attempt ran into.
    pub problem: String,
    /// The endpoints of this client.
    pub endpoints: Vec<String>,
    /// What became of the write.
    pub fate: Fate,
}

impl ClientError {
    /// The gRPC code that fits best.
    pub fn code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::InvalidArgument,
            Self::Server(error) => error.code,
            Self::Lost(error) if error.timed_out => Code::DeadlineExceeded,
            Self::Lost(_) => Code::Unavailable,
        }
    }

    /// The machine-readable reason, if a server gave one.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Invalid(_) => Some(Reason::FieldInvalid),
            Self::Server(error) => error.reason,
            Self::Lost(_) => None,
        }
    }

    /// What the failed request did to the data, over all its attempts.
    pub fn effect(&self) -> Effect {
        self.fate().effect
    }

    /// All that is known of the failed write.
    pub fn fate(&self) -> Fate {
        match self {
            Self::Invalid(_) => Fate::UNTOUCHED,
            Self::Server(error) => error.fate,
            Self::Lost(error) => error.fate,
        }
    }

    /// What to ask [`outcome`](crate::Client::outcome) with, if the effect is unknown.
    pub fn handle(&self) -> Option<RequestHandle> {
        self.fate().handle
    }

    /// The id that the write carried. With it and
    /// [`WriteOptions::request_id`](crate::WriteOptions::request_id) the same write can be
    /// tried again, and is still applied once.
    pub fn request(&self) -> Option<RequestId> {
        self.fate().request
    }

    /// When the server suggests to try again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Server(error) => error.retry_after,
            Self::Invalid(_) | Self::Lost(_) => None,
        }
    }

    /// One detail that came with the reason, by its name.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        match self {
            Self::Server(error) => error.metadata.get(name).map(String::as_str),
            Self::Invalid(_) | Self::Lost(_) => None,
        }
    }

    /// Whether the same request may succeed later, unchanged. With
    /// [`effect`](Self::effect) unknown it must then carry the same request id.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Invalid(_) => false,
            Self::Server(error) => crate::retry::is_passing(error),
            Self::Lost(_) => true,
        }
    }

    /// An answer of the wrong kind: the server is not one of ours, or of another version.
    pub(crate) fn malformed(expected: &'static str) -> Self {
        Self::Server(Box::new(ServerError {
            code: Code::Internal,
            message: format!("the server's answer is not {expected}"),
            reason: Some(Reason::Internal),
            retry_after: None,
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            // It answered, and not with an error: the request itself was done.
            fate: Fate {
                effect: Effect::Unknown,
                ..Fate::UNTOUCHED
            },
        }))
    }
}
