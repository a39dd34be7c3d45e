//! Why a request was not served: one enum, and its two forms on the wire, a gRPC status with rich
//! details and the error inside a pipeline's answer.
//!
//! The details are made once, as the in-band message; the status is derived from it, so a forwarded
//! node's error reaches the client unchanged. Not here: deciding whether to retry (`route`).

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use quorate_eventual::EventualError;
use quorate_proto::v1;
use quorate_types::causal::Dots;
use quorate_types::{
    Effect, FieldError, LeaseId, Mode, NodeId, RangeId, Reason, Refusal, RequestHandle, Revision,
    format_duration,
};
use thiserror::Error;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::eventual_errors::{eventual_meaning, eventual_metadata};

/// The domain of our `google.rpc.ErrorInfo`.
pub const ERROR_DOMAIN: &str = "quorate";
/// When a client that was refused for load may come again.
pub const OVERLOAD_RETRY_AFTER: Duration = Duration::from_millis(100);
/// When a client that met a range without leader or majority may come again.
pub const UNAVAILABLE_RETRY_AFTER: Duration = Duration::from_millis(200);
/// Longest message of an error; details travel in headers, which peers limit.
pub const MESSAGE_MAX_CHARACTERS: usize = 600;
/// Most ranges or replicas that one error names.
pub const NAMED_MAX: usize = 16;

/// Why a request was not served, and what that did to the data.
#[derive(Clone, Debug, Error)]
pub enum GatewayError {
    /// A field is not what it may be. No effect; not retryable as it stands.
    #[error("{field}: {problem}")]
    Field {
        /// The field's name on the wire.
        field: Cow<'static, str>,
        /// What is wrong, which limit, what instead.
        problem: String,
        /// `FIELD_INVALID`, or a narrower one.
        reason: Reason,
    },
    /// No such keyspace. No effect.
    #[error(
        "no keyspace `{name}`; `quorate keyspace list` shows all, `quorate keyspace create` makes one"
    )]
    KeyspaceNotFound {
        /// The name that was asked for.
        name: String,
    },
    /// Such a keyspace exists. No effect.
    #[error("keyspace `{name}` exists already")]
    KeyspaceExists {
        /// The name that was to be made.
        name: String,
    },
    /// The mode forbids it. No effect.
    #[error("keyspace `{keyspace}`: {refusal}")]
    LevelNotServed {
        /// The keyspace.
        keyspace: String,
        /// What does not fit.
        refusal: Refusal,
    },
    /// This version has no such thing. No effect.
    #[error("{what} is not part of this version; {instead}")]
    NotImplemented {
        /// What was asked.
        what: String,
        /// What is there.
        instead: &'static str,
    },
    /// A condition on a key did not hold. No effect.
    #[error("the key's revision is {current}, not {expected}")]
    CompareFailed {
        /// What the request named.
        expected: Revision,
        /// What is there; zero: no such key.
        current: Revision,
    },
    /// A transaction's keys lie in several ranges. No effect.
    #[error("the keys of a transaction must lie in one range, these lie in {}: {}", ranges.len(), named(ranges))]
    RangesSpanned {
        /// All of them.
        ranges: Vec<RangeId>,
    },
    /// The history at that revision is gone. No effect.
    #[error(
        "revision {at} cannot be read any more: versions superseded at or below {floor} are collected"
    )]
    RevisionCollected {
        /// What was asked for.
        at: Revision,
        /// The lowest revision that can be read.
        floor: Revision,
    },
    /// The events that a watch is to begin with are gone. No effect.
    #[error(
        "events of range {range} from revision {from} on are collected; the first revision that can be watched from is {first}: read what is there, then watch from the revision that was read"
    )]
    EventsCollected {
        /// Whose events.
        range: RangeId,
        /// What was asked for, or had been reached.
        from: Revision,
        /// The first that is there.
        first: Revision,
    },
    /// The keyspace keeps no history, and the scan needs one. No effect.
    #[error(
        "keyspace `{keyspace}` keeps no history, so a scan of more than one page or range cannot be one snapshot; ask for fewer rows, for level stale, or give the keyspace a history"
    )]
    NoHistory {
        /// The keyspace.
        keyspace: String,
    },
    /// That revision has not come yet. No effect.
    #[error("revision {at} is in the future; now is {now}")]
    RevisionFuture {
        /// What was asked for.
        at: Revision,
        /// The node's clock.
        now: Revision,
    },
    /// The page token is of another scan, or damaged. No effect.
    #[error("page_token: {problem}; start again without one")]
    PageToken {
        /// What is wrong.
        problem: &'static str,
    },
    /// The session token cannot be used. No effect.
    #[error("consistency.session_token: {problem}")]
    SessionToken {
        /// What is wrong.
        problem: &'static str,
    },
    /// Nobody leads the range now, as far as is known. No effect.
    #[error(
        "range {range} has no leader that could be reached; not reachable: {}",
        named(missing)
    )]
    NoLeader {
        /// Whose leader.
        range: RangeId,
        /// Replicas out of reach.
        missing: Vec<NodeId>,
        /// Who may lead, for the gateway that forwarded the request.
        hint: Option<NodeId>,
    },
    /// A majority of the range is out of reach. No effect.
    #[error(
        "range {range} has no majority within reach; not reachable: {}; stale reads may still be served",
        named(missing)
    )]
    NoMajority {
        /// Whose majority.
        range: RangeId,
        /// Replicas out of reach.
        missing: Vec<NodeId>,
    },
    /// This node does not hold the range, though another thought so. No effect.
    #[error("range {range} is not here")]
    RangeMoved {
        /// Which one.
        range: RangeId,
    },
    /// No replica has what the session has seen. No effect.
    #[error(
        "no reachable replica of range {range} has caught up with revision {wanted} of the session token"
    )]
    NotCaughtUp {
        /// Whose replicas.
        range: RangeId,
        /// What the token has seen.
        wanted: Revision,
    },
    /// The log has not decided all that the session has seen. No effect.
    #[error(
        "the log of range {range} has not decided yet what the session has seen: missing {missing}"
    )]
    SessionBehind {
        /// Whose log.
        range: RangeId,
        /// Names of writes.
        missing: Box<Dots>,
    },
    /// Not all primaries hold what was waited for. No effect.
    #[error(
        "not all primaries hold, and have decided, what is named: {}",
        listed(lacking)
    )]
    NotConverged {
        /// Who lacks what.
        lacking: Vec<Lack>,
    },
    /// No replica is fresh enough. No effect.
    #[error("no reachable replica of range {range} is known to be at most {} old (the best: {})", format_duration(*wanted), match best { Some(best) => format_duration(*best), None => "none reachable".to_owned() })]
    StalenessExceeded {
        /// Whose replicas.
        range: RangeId,
        /// What was asked for.
        wanted: Duration,
        /// The best that was seen.
        best: Option<Duration>,
    },
    /// The time was used up, and the request had no effect.
    #[error("the time given was used up before the request took effect")]
    TimedOut,
    /// The time was used up, or the range's answer lost, after a write was sent.
    #[error(
        "the outcome is unknown: the answer did not come in time; ask with `quorate outcome {handle}`"
    )]
    OutcomeUnknown {
        /// What to ask with.
        handle: RequestHandle,
    },
    /// Work in several steps stopped half-way. It can be repeated.
    #[error("{what}")]
    Interrupted {
        /// Where, and what to do.
        what: String,
    },
    /// The catalog did not say in time whether it has changed.
    #[error(
        "whether keyspace `{name}` was changed is unknown: the meta range did not answer in time; see `quorate keyspace show {name}`"
    )]
    ChangeUnknown {
        /// The keyspace.
        name: String,
    },
    /// The id lies below what the range remembers: it may have been applied. Never will be now.
    #[error(
        "request {handle} lies below the range's exactly-once window: it may have been applied before, and is not applied now"
    )]
    BelowWindow {
        /// The write.
        handle: RequestHandle,
    },
    /// The id was closed by an `outcome` request. No effect, ever.
    #[error("request {handle} was closed as not applied by a question for its outcome")]
    Closed {
        /// The write.
        handle: RequestHandle,
    },
    /// A limit on work in progress is reached.
    #[error("{what} is at its limit of {limit}; retry later")]
    Overloaded {
        /// Which queue or budget.
        what: &'static str,
        /// Its limit, with the unit.
        limit: Cow<'static, str>,
        /// None, but where it is the answer that there is no room for.
        effect: Effect,
    },
    /// The quota of the keyspace, or of a prefix of it, is used up. No effect.
    #[error("{what}")]
    QuotaExceeded {
        /// The keyspace.
        keyspace: String,
        /// Which quota, and what it allows.
        what: String,
    },
    /// There is no such lease. No effect.
    #[error(
        "no lease {}: it was not granted here, is revoked, or nobody kept it alive in time; `quorate lease grant` makes one",
        named(ids)
    )]
    LeaseNotFound {
        /// The one that was named; of a transaction, all.
        ids: Vec<LeaseId>,
    },
    /// The id of a lease is in use. No effect.
    #[error("lease {id} exists already; choose another id, or none and get one")]
    LeaseExists {
        /// Which.
        id: LeaseId,
    },
    /// A range keeps no more leases, or a lease takes no more keys. No effect.
    #[error("{what}")]
    LeaseLimit {
        /// Which limit, and what to do.
        what: String,
    },
    /// This node's clock is too far from most others'. No effect.
    #[error("this node's clock is {offset_ms} ms from most others'; ask another node")]
    ClockOffset {
        /// The others' minus ours.
        offset_ms: i64,
    },
    /// Stored bytes are damaged. Never returned as a value. No effect.
    #[error("a stored record is damaged: {what}")]
    DataLoss {
        /// As the storage says it.
        what: String,
    },
    /// The node is stopping. No effect.
    #[error("this node is stopping")]
    Stopping,
    /// A mistake of ours, or of a peer's version.
    #[error("internal: {what}")]
    Internal {
        /// What went wrong.
        what: String,
        /// What it may have done.
        effect: Effect,
    },
    /// The eventual path's refusal, or what it could not reach.
    #[error(transparent)]
    Eventual(#[from] EventualError),
    /// What the node that served a forwarded request answered.
    #[error("{}", .0.message)]
    Remote(Box<v1::Error>),
}

/// What one primary lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// Who.
    pub node: NodeId,
    /// Of which range.
    pub range: RangeId,
    /// What, or why it is not known.
    pub why: String,
}

fn listed(lacking: &[Lack]) -> String {
    let one = |lack: &Lack| format!("node {} of range {}: {}", lack.node, lack.range, lack.why);
    let texts: Vec<_> = lacking.iter().take(NAMED_MAX).map(one).collect();
    texts.join("; ")
}

/// Up to [`NAMED_MAX`] ids in words.
pub(crate) fn named<T: std::fmt::Display>(ids: &[T]) -> String {
    if ids.is_empty() {
        return "none".to_owned();
    }
    let mut text = ids
        .iter()
        .take(NAMED_MAX)
        .map(T::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    if ids.len() > NAMED_MAX {
        text.push_str(", …");
    }
    text
}

impl From<FieldError> for GatewayError {
    fn from(error: FieldError) -> Self {
        Self::field(error.field, error.problem)
    }
}

impl GatewayError {
    /// A field that is not what it may be, for a reason that has no narrower name.
    pub fn field(field: impl Into<Cow<'static, str>>, problem: impl Into<String>) -> Self {
        Self::Field {
            field: field.into(),
            problem: problem.into(),
            reason: Reason::FieldInvalid,
        }
    }

    /// The refusal of a mode, as the table of levels says it.
    pub fn not_served(keyspace: &str, refusal: Refusal) -> Self {
        Self::LevelNotServed {
            keyspace: keyspace.to_owned(),
            refusal,
        }
    }

    /// What the eventual plane would have served.
    pub fn no_eventual_plane(what: impl Into<String>, mode: Mode) -> Self {
        let instead = match mode {
            Mode::Strong | Mode::Mixed => {
                "available: linearizable writes; linearizable, bounded, session and stale reads"
            }
            Mode::Eventual => "keyspaces of mode strong and mixed are served",
        };
        Self::NotImplemented {
            what: what.into(),
            instead,
        }
    }

    /// A mistake of ours that changed nothing.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::Internal {
            what: what.into(),
            effect: Effect::None,
        }
    }

    /// The gRPC code.
    pub fn code(&self) -> Code {
        match self {
            Self::Field { .. } | Self::PageToken { .. } | Self::SessionToken { .. } => {
                Code::InvalidArgument
            }
            Self::KeyspaceNotFound { .. } | Self::LeaseNotFound { .. } => Code::NotFound,
            Self::KeyspaceExists { .. } | Self::LeaseExists { .. } => Code::AlreadyExists,
            Self::LevelNotServed { .. }
            | Self::CompareFailed { .. }
            | Self::RangesSpanned { .. }
            | Self::NoHistory { .. }
            | Self::BelowWindow { .. }
            | Self::Closed { .. } => Code::FailedPrecondition,
            Self::NotImplemented { .. } => Code::Unimplemented,
            Self::RevisionCollected { .. }
            | Self::EventsCollected { .. }
            | Self::RevisionFuture { .. } => Code::OutOfRange,
            Self::NoLeader { .. }
            | Self::NoMajority { .. }
            | Self::RangeMoved { .. }
            | Self::NotCaughtUp { .. }
            | Self::SessionBehind { .. }
            | Self::StalenessExceeded { .. }
            | Self::ClockOffset { .. }
            | Self::Interrupted { .. }
            | Self::Stopping => Code::Unavailable,
            Self::TimedOut
            | Self::NotConverged { .. }
            | Self::OutcomeUnknown { .. }
            | Self::ChangeUnknown { .. } => Code::DeadlineExceeded,
            Self::Overloaded { .. } | Self::QuotaExceeded { .. } | Self::LeaseLimit { .. } => {
                Code::ResourceExhausted
            }
            Self::DataLoss { .. } => Code::DataLoss,
            Self::Eventual(error) => eventual_meaning(error).0,
            Self::Internal { .. } => Code::Internal,
            Self::Remote(error) => Code::from_i32(error.code.cast_signed()),
        }
    }

    /// The machine-readable reason; `None` for a remote one that this version does not know.
    pub fn reason(&self) -> Option<Reason> {
        Some(match self {
            Self::Field { reason, .. } => *reason,
            Self::KeyspaceNotFound { .. } => Reason::KeyspaceNotFound,
            Self::KeyspaceExists { .. } => Reason::KeyspaceExists,
            Self::LevelNotServed { .. } => Reason::LevelNotServed,
            Self::NotImplemented { .. } => Reason::NotImplemented,
            Self::CompareFailed { .. } => Reason::CompareFailed,
            Self::RangesSpanned { .. } => Reason::RangesSpanned,
            Self::RevisionCollected { .. }
            | Self::EventsCollected { .. }
            | Self::NoHistory { .. } => Reason::RevisionCollected,
            Self::RevisionFuture { .. } => Reason::RevisionFuture,
            Self::PageToken { .. } => Reason::PageTokenMismatch,
            Self::SessionToken { .. } => Reason::TokenInvalid,
            Self::NoLeader { .. } => Reason::NoLeader,
            Self::NoMajority { .. } => Reason::NoMajority,
            Self::RangeMoved { .. } => Reason::RangeMoved,
            Self::NotCaughtUp { .. } | Self::SessionBehind { .. } => Reason::NotCaughtUp,
            Self::NotConverged { .. } => Reason::NotConverged,
            Self::StalenessExceeded { .. } => Reason::StalenessExceeded,
            Self::TimedOut
            | Self::OutcomeUnknown { .. }
            | Self::ChangeUnknown { .. }
            | Self::Interrupted { .. } => Reason::TimedOut,
            Self::BelowWindow { .. } | Self::Closed { .. } => Reason::BelowWindow,
            Self::Overloaded { .. } => Reason::Overloaded,
            Self::QuotaExceeded { .. } => Reason::QuotaExceeded,
            Self::LeaseNotFound { .. } => Reason::LeaseNotFound,
            Self::LeaseExists { .. } => Reason::AlreadyExists,
            Self::LeaseLimit { .. } => Reason::LeaseLimit,
            Self::ClockOffset { .. } => Reason::ClockOffset,
            Self::DataLoss { .. } => Reason::DataLoss,
            Self::Stopping => Reason::NodeStopping,
            Self::Internal { .. } => Reason::Internal,
            Self::Eventual(error) => eventual_meaning(error).1,
            Self::Remote(error) => return error.reason.parse().ok(),
        })
    }

    /// What the request did to the data.
    pub fn effect(&self) -> Effect {
        match self {
            Self::OutcomeUnknown { .. }
            | Self::BelowWindow { .. }
            | Self::ChangeUnknown { .. }
            | Self::Interrupted { .. } => Effect::Unknown,
            Self::Internal { effect, .. } | Self::Overloaded { effect, .. } => *effect,
            Self::Eventual(error) => error.effect(),
            // A peer that says nothing we can read may have done anything.
            Self::Remote(error) => error.effect.parse().unwrap_or(Effect::Unknown),
            Self::Field { .. }
            | Self::KeyspaceNotFound { .. }
            | Self::KeyspaceExists { .. }
            | Self::LevelNotServed { .. }
            | Self::NotImplemented { .. }
            | Self::CompareFailed { .. }
            | Self::RangesSpanned { .. }
            | Self::RevisionCollected { .. }
            | Self::EventsCollected { .. }
            | Self::NoHistory { .. }
            | Self::RevisionFuture { .. }
            | Self::PageToken { .. }
            | Self::SessionToken { .. }
            | Self::NoLeader { .. }
            | Self::NoMajority { .. }
            | Self::RangeMoved { .. }
            | Self::NotCaughtUp { .. }
            | Self::SessionBehind { .. }
            | Self::NotConverged { .. }
            | Self::StalenessExceeded { .. }
            | Self::TimedOut
            | Self::Closed { .. }
            | Self::QuotaExceeded { .. }
            | Self::LeaseNotFound { .. }
            | Self::LeaseExists { .. }
            | Self::LeaseLimit { .. }
            | Self::ClockOffset { .. }
            | Self::DataLoss { .. }
            | Self::Stopping => Effect::None,
        }
    }

    /// When the same request may be tried again; none: not as it stands.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { .. } => Some(OVERLOAD_RETRY_AFTER),
            Self::Remote(error) => Some(u64::from(error.retry_after_ms))
                .filter(|millis| *millis > 0)
                .map(Duration::from_millis),
            _ if self.code() == Code::Unavailable => Some(UNAVAILABLE_RETRY_AFTER),
            _ => None,
        }
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        let mut metadata = BTreeMap::new();
        let mut put = |name: &str, value: String| {
            metadata.insert(name.to_owned(), value);
        };
        match self {
            Self::Field { field, problem, .. } => {
                put("field", field.to_string());
                put("problem", shortened(problem));
            }
            Self::PageToken { problem } => {
                put("field", "page_token".to_owned());
                put("problem", (*problem).to_owned());
            }
            Self::SessionToken { problem } => {
                put("field", "consistency.session_token".to_owned());
                put("problem", (*problem).to_owned());
            }
            Self::KeyspaceNotFound { name }
            | Self::KeyspaceExists { name }
            | Self::ChangeUnknown { name } => {
                put("keyspace", name.clone());
            }
            Self::LevelNotServed { keyspace, .. }
            | Self::NoHistory { keyspace }
            | Self::QuotaExceeded { keyspace, .. } => put("keyspace", keyspace.clone()),
            Self::CompareFailed { expected, current } => {
                put("expected_revision", expected.to_string());
                put("revision", current.to_string());
            }
            Self::RangesSpanned { ranges } => put("ranges", named(ranges)),
            Self::RevisionCollected { at, floor } => {
                put("revision", at.to_string());
                put("floor", floor.to_string());
            }
            Self::EventsCollected { range, from, first } => {
                put("range", range.to_string());
                put("revision", from.to_string());
                put("first_revision", first.to_string());
            }
            Self::RevisionFuture { at, now } => {
                put("revision", at.to_string());
                put("now", now.to_string());
            }
            Self::NoLeader { range, missing, .. } | Self::NoMajority { range, missing } => {
                put("range", range.to_string());
                put("missing", named(missing));
                put("levels", "stale, bounded".to_owned());
            }
            Self::RangeMoved { range } => put("range", range.to_string()),
            Self::NotCaughtUp { range, wanted } => {
                put("range", range.to_string());
                put("revision", wanted.to_string());
            }
            Self::NotConverged { lacking } => {
                let nodes: Vec<_> = lacking.iter().map(|lack| lack.node).collect();
                put("missing", named(&nodes));
                put("lacking", shortened(&listed(lacking)));
            }
            Self::SessionBehind { range, missing } => {
                put("range", range.to_string());
                put("missing", shortened(&missing.to_string()));
            }
            Self::StalenessExceeded {
                range,
                wanted,
                best,
            } => {
                put("range", range.to_string());
                put("staleness_max", format_duration(*wanted));
                if let Some(best) = best {
                    put("staleness", format_duration(*best));
                }
                put("levels", "stale".to_owned());
            }
            Self::OutcomeUnknown { handle }
            | Self::BelowWindow { handle }
            | Self::Closed { handle } => put("handle", handle.to_string()),
            Self::Overloaded { limit, .. } => put("limit", limit.to_string()),
            Self::LeaseNotFound { ids } => put("lease", named(ids)),
            Self::LeaseExists { id } => put("lease", id.to_string()),
            Self::Eventual(error) => eventual_metadata(error, put),
            Self::NotImplemented { .. }
            | Self::TimedOut
            | Self::LeaseLimit { .. }
            | Self::ClockOffset { .. }
            | Self::DataLoss { .. }
            | Self::Stopping
            | Self::Interrupted { .. }
            | Self::Internal { .. }
            | Self::Remote(_) => {}
        }
        metadata
    }

    /// Who may lead, if this is the answer of a node that does not.
    pub fn leader_hint(&self) -> Option<NodeId> {
        match self {
            Self::NoLeader { hint, .. } => *hint,
            _ => None,
        }
    }
}

/// A text as an error carries it.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(MESSAGE_MAX_CHARACTERS).collect()
}

impl From<GatewayError> for v1::Error {
    fn from(error: GatewayError) -> Self {
        if let GatewayError::Remote(error) = error {
            return *error;
        }
        let retry_after = error.retry_after().unwrap_or_default();
        v1::Error {
            code: (error.code() as i32).cast_unsigned(),
            message: shortened(&error.to_string()),
            reason: error.reason().map_or("", Reason::as_str).to_owned(),
            effect: error.effect().as_str().to_owned(),
            retry_after_ms: u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX),
            metadata: error.metadata(),
        }
    }
}

impl From<GatewayError> for Status {
    fn from(error: GatewayError) -> Self {
        status_of(v1::Error::from(error))
    }
}

/// The status of a unary call, from the same content as an error inside an answer.
pub fn status_of(error: v1::Error) -> Status {
    let code = Code::from_i32(error.code.cast_signed());
    let mut details = ErrorDetails::new();
    if error.retry_after_ms > 0 {
        details.set_retry_info(Some(Duration::from_millis(u64::from(error.retry_after_ms))));
    }
    if let (Some(field), Some(problem)) =
        (error.metadata.get("field"), error.metadata.get("problem"))
    {
        details.add_bad_request_violation(field, problem);
    }
    if code == Code::FailedPrecondition {
        let subject = error.metadata.values().next().cloned().unwrap_or_default();
        details.add_precondition_failure_violation(&error.reason, subject, &error.message);
    }
    let mut metadata = error.metadata;
    metadata.insert("effect".to_owned(), error.effect);
    let metadata: HashMap<_, _> = metadata.into_iter().collect();
    details.set_error_info(error.reason, ERROR_DOMAIN, metadata);
    Status::with_error_details(code, error.message, details)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use quorate_types::{ClientId, RequestId};

    fn handle() -> RequestHandle {
        RequestHandle {
            range: RangeId(7),
            request: RequestId {
                client: ClientId(0xc0ffee),
                sequence: 42,
            },
        }
    }

    #[test]
    fn a_field_error_is_a_bad_request_with_reason_and_effect() {
        let status = Status::from(GatewayError::field("limit", "11000 is above 10000"));
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(info.reason, "FIELD_INVALID");
        assert_eq!(info.domain, ERROR_DOMAIN);
        assert_eq!(info.metadata["effect"], "none");
        let violations = &details.bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, "limit");
        assert!(violations[0].description.contains("10000"));
    }

    #[test]
    fn an_unknown_outcome_carries_the_handle() {
        let status = Status::from(GatewayError::OutcomeUnknown { handle: handle() });
        assert_eq!(status.code(), Code::DeadlineExceeded);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(info.metadata["handle"], "r7-0000000000c0ffee-42");
        assert_eq!(info.metadata["effect"], "unknown");
        assert!(details.retry_info().is_none());
    }

    #[test]
    fn overload_says_when_to_retry() {
        let error = GatewayError::Overloaded {
            what: "requests in flight",
            limit: "8 requests".into(),
            effect: Effect::None,
        };
        let status = Status::from(error);
        assert_eq!(status.code(), Code::ResourceExhausted);
        let delay = status.get_error_details().retry_info().unwrap().retry_delay;
        assert_eq!(delay, Some(OVERLOAD_RETRY_AFTER));
    }

    #[test]
    fn a_remote_error_passes_unchanged() {
        let first = v1::Error::from(GatewayError::NoMajority {
            range: RangeId(3),
            missing: vec![NodeId(1), NodeId(2)],
        });
        let remote = GatewayError::Remote(Box::new(first.clone()));
        assert_eq!(remote.code(), Code::Unavailable);
        assert_eq!(remote.reason(), Some(Reason::NoMajority));
        assert_eq!(remote.effect(), Effect::None);
        assert_eq!(v1::Error::from(remote), first);
        assert_eq!(first.metadata["missing"], "1, 2");
    }

    #[test]
    fn a_failed_precondition_names_what_failed() {
        let status = Status::from(GatewayError::CompareFailed {
            expected: Revision(5),
            current: Revision(9),
        });
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().metadata["revision"], "9");
        assert_eq!(
            details.precondition_failure().unwrap().violations[0].r#type,
            "COMPARE_FAILED"
        );
    }

    #[test]
    fn long_lists_are_cut() {
        let error = GatewayError::RangesSpanned {
            ranges: (1..100).map(RangeId).collect(),
        };
        assert!(error.to_string().ends_with("16, …"));
    }
}
