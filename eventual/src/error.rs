//! Why the eventual path did not do what was asked, and what that did to the data.

use std::sync::Arc;

use quorate_storage::engine::EngineError;
use quorate_storage::log::LogError;
use quorate_types::causal::{ContextError, DecodeError, Dots, EvaluateError, WriteError};
use quorate_types::{Effect, NodeId, RangeId};
use thiserror::Error;

use crate::quorum::TooMany;
use crate::seam::PeerFailure;

/// Why a request of the eventual path failed.
#[derive(Clone, Debug, Error)]
pub enum EventualError {
    /// The range is not one of this node's, or has no eventual plane. No effect.
    #[error("range {0} has no eventual plane here")]
    NoRange(RangeId),
    /// The level names more holders than there are. No effect.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// Fewer nodes than the level wants can be reached. No effect.
    #[error(
        "{wanted} holders of range {range} are wanted, {reachable} can be reached; not reachable: {missing:?}"
    )]
    Unreachable {
        /// Whose holders.
        range: RangeId,
        /// What the level wants.
        wanted: usize,
        /// Who counts and can be reached.
        reachable: usize,
        /// Primaries that cannot.
        missing: Vec<NodeId>,
    },
    /// The write is stored, but on fewer nodes than the level wants: it may prevail.
    #[error(
        "the write is on {stored} of the {wanted} holders that the level wants; it is kept, and will spread"
    )]
    TooFewHolders {
        /// What the level wants.
        wanted: usize,
        /// Who has it.
        stored: usize,
    },
    /// Too few nodes answered a read in time. No effect.
    #[error("{answered} of {wanted} holders of range {range} answered in time")]
    TooFewAnswers {
        /// Whose holders.
        range: RangeId,
        /// What the level wants.
        wanted: usize,
        /// Who answered.
        answered: usize,
    },
    /// Those who answered do not know all that the session has seen. No effect.
    #[error(
        "no reachable holder of range {range} knows all that the session has seen: missing {missing}; asked: {asked:?}"
    )]
    SessionBehind {
        /// Whose holders.
        range: RangeId,
        /// Names of writes that nobody who was asked knows.
        missing: Box<Dots>,
        /// Who was asked.
        asked: Vec<NodeId>,
    },
    /// No primary could be asked, and no stand-in knows the key: it may exist. No effect.
    #[error(
        "no primary of range {range} can be reached, and no stand-in has seen the key: whether it exists is unknown"
    )]
    AbsenceUnknown {
        /// Whose primaries.
        range: RangeId,
    },
    /// This primary is new, and is being filled. No effect.
    #[error("this replica of range {0} is being filled from its peers")]
    Filling(RangeId),
    /// An earlier attempt of this write went to a start of this node that has ended. It may have
    /// been applied.
    #[error("the write was tried before this node started: whether it was applied is unknown")]
    RetryUnknown,
    /// The context cannot be used. No effect.
    #[error("context: {0}")]
    Context(#[from] ContextError),
    /// The write breaks a rule of its policy or a limit. No effect.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The live values cannot be read as the policy wants. No effect.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// Space for hints is used up. No effect.
    #[error("the space for hints is used up ({limit_bytes} bytes)")]
    HintsFull {
        /// The limit.
        limit_bytes: u64,
    },
    /// The log did not decide in time what it was told; it may do so late.
    #[error("the log of range {range} has not decided: {why}")]
    NotDecided {
        /// Whose log.
        range: RangeId,
        /// Why.
        why: String,
    },
    /// Another node sent what this one cannot read. No effect.
    #[error("what a peer sent does not decode: {0}")]
    Peer(String),
    /// Another node did not do what it was asked. No effect here.
    #[error(transparent)]
    PeerFailed(#[from] PeerFailure),
    /// A newer start of this node's identity is known: this is an old copy of its disk.
    #[error(
        "a later start of this node is known to its peers: this disk is an old copy; replace the node"
    )]
    OldCopy,
    /// The log refuses. The outcome of a write is unknown.
    #[error("the log has failed")]
    Log(#[source] Arc<LogError>),
    /// The engine refuses. No effect.
    #[error("the engine has failed")]
    Engine(#[source] Arc<EngineError>),
    /// A row or entry does not decode: damage that no checksum found. No effect.
    #[error("a stored {0} is damaged")]
    DamagedRow(&'static str),
    /// A stored record does not decode: damage that no checksum found. No effect.
    #[error("a stored record is damaged: {0}")]
    Damaged(#[from] DecodeError),
}

impl From<EngineError> for EventualError {
    fn from(error: EngineError) -> Self {
        EventualError::Engine(Arc::new(error))
    }
}

impl EventualError {
    /// What the request did to the data.
    pub fn effect(&self) -> Effect {
        match self {
            Self::TooFewHolders { .. }
            | Self::Log(_)
            | Self::NotDecided { .. }
            | Self::RetryUnknown => Effect::Unknown,
            Self::NoRange(_)
            | Self::TooMany(_)
            | Self::Unreachable { .. }
            | Self::TooFewAnswers { .. }
            | Self::SessionBehind { .. }
            | Self::AbsenceUnknown { .. }
            | Self::Filling(_)
            | Self::Context(_)
            | Self::Write(_)
            | Self::Evaluate(_)
            | Self::HintsFull { .. }
            | Self::Peer(_)
            | Self::PeerFailed(_)
            | Self::DamagedRow(_)
            | Self::OldCopy
            | Self::Engine(_)
            | Self::Damaged(_) => Effect::None,
        }
    }
}
