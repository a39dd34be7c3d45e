//! What the eventual path sees of the rest: other nodes, and where ranges live. Narrow traits,
//! joined to transport and catalog where a node is assembled; and a third one for `mixed` ranges:
//! what their logs have decided.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::internal::{EventualRequest, EventualResponse};
use quorate_types::causal::{Dots, KeyState};
use quorate_types::{ConflictPolicy, NodeId, RangeId, Revision, Timestamp};
use thiserror::Error;
use tokio::time::Instant;

use crate::error::EventualError;
use crate::quorum::Holders;

/// Why a node did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PeerFailure {
    /// It was not sent: the node has done nothing.
    #[error("node {0} cannot be reached")]
    NotSent(NodeId),
    /// No answer came: the node may have done it.
    #[error("node {0} did not answer")]
    NoAnswer(NodeId),
    /// The node has refused it.
    #[error("node {node} refused: {problem}")]
    Refused {
        /// Who.
        node: NodeId,
        /// Why.
        problem: String,
    },
}

/// How other nodes are asked.
#[async_trait::async_trait]
pub trait Peers: Send + Sync {
    /// Sends a request, and waits for its answer.
    async fn ask(
        &self,
        to: NodeId,
        range: RangeId,
        request: EventualRequest,
        timeout: Duration,
    ) -> Result<EventualResponse, PeerFailure>;

    /// Whether a node is taken to live.
    fn reachable(&self, node: NodeId) -> bool;

    /// Whether it is, and has not come and gone of late: nobody waits for one that flaps where
    /// another can be asked.
    fn steady(&self, node: NodeId) -> bool;

    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// Whether that is known to be within `max_clock_offset` of most others.
    fn clock_is_sound(&self) -> bool;
}

/// A range as the catalog has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Who holds it, and who stands in.
    pub holders: Holders,
    /// Those who held it from its first moment: they need no filling.
    pub founders: Vec<NodeId>,
    /// What happens to concurrent values.
    pub policy: ConflictPolicy,
    /// Whether the range has a log, which absorbs what is written here (mode `mixed`).
    pub has_log: bool,
}

/// Where ranges live. Answers come from the cached catalog, so they come without any majority.
pub trait Places: Send + Sync {
    /// Where a range lives; `None`: the catalog does not have it, or it has no eventual plane.
    fn place(&self, range: RangeId) -> Option<Arc<Place>>;

    /// Whether the catalog is known, and has a range no more.
    fn was_dropped(&self, range: RangeId) -> bool;
}

/// What the log of a `mixed` range has decided, as this node has applied it.
#[async_trait::async_trait]
pub trait Decisions: Send + Sync {
    /// A key's live values and all dots that the log knows of it, and the entry as of which that
    /// is so, or a later one. `None`: this node is no replica of the range's log.
    ///
    /// # Errors
    /// [`EventualError`] where it is one and cannot say, now or because of damage.
    fn decided(&self, range: RangeId, key: &[u8])
    -> Result<Option<(KeyState, u64)>, EventualError>;

    /// A page of the keys that the log shows, in order, after a look at what it had taken in by then.
    /// `None`: this node is no replica of the range's log.
    ///
    /// # Errors
    /// As [`Decisions::decided`].
    fn keys(
        &self,
        range: RangeId,
        request: &quorate_storage::engine::ScanRequest,
    ) -> Result<Option<KeysPage>, EventualError>;

    /// All dots that the log has taken in, closed starts among them, and the last entry applied
    /// then. `None`: this node is no replica of the range's log.
    fn taken_in(&self, range: RangeId) -> Option<(Dots, u64)>;

    /// The last entry applied here, and the last whose effects are on this disk.
    fn applied_and_durable(&self, range: RangeId) -> (u64, u64);

    /// Who leads the range's log, as far as this node knows.
    fn leader(&self, range: RangeId) -> Option<NodeId>;

    /// Brings what is applied to the disk, soon.
    async fn flush(&self, range: RangeId);

    /// Waits until all is applied here that the log had decided when this was called. Returns
    /// whether it is.
    async fn catch_up(&self, range: RangeId, deadline: Instant) -> bool;

    /// Has the log decide. Returns once that is applied here; only a leader can do it. After an
    /// error it may be decided late, or never.
    ///
    /// # Errors
    /// [`EventualError`] where it was not decided by `deadline`.
    async fn decide(
        &self,
        range: RangeId,
        proposal: Proposal,
        deadline: Instant,
    ) -> Result<Revision, EventualError>;
}

/// A page of the keys that a log shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeysPage {
    /// Encoded, in the order of the scan.
    pub keys: Vec<Bytes>,
    /// All dots that the log knew of every key before they were read.
    pub base: Dots,
    /// Where the next page begins (or ends, if reverse).
    pub resume: Option<Bytes>,
}

/// What a log is to decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proposal {
    /// What is known of some keys is to be joined into what is committed.
    Absorb {
        /// Encoded keys, with their states.
        items: Vec<(Bytes, Bytes)>,
        /// The dots of which the log then knows all that this node does.
        base: Option<Bytes>,
    },
    /// The strong attempt of a ladder.
    Tentative {
        /// The encoded key.
        key: Bytes,
        /// Its deltas, encoded.
        deltas: Vec<Bytes>,
    },
}

/// Where no range has a log.
pub struct NoLogs;

#[async_trait::async_trait]
impl Decisions for NoLogs {
    fn decided(&self, _: RangeId, _: &[u8]) -> Result<Option<(KeyState, u64)>, EventualError> {
        Ok(None)
    }

    fn keys(
        &self,
        _: RangeId,
        _: &quorate_storage::engine::ScanRequest,
    ) -> Result<Option<KeysPage>, EventualError> {
        Ok(None)
    }

    fn taken_in(&self, _: RangeId) -> Option<(Dots, u64)> {
        None
    }

    fn applied_and_durable(&self, _: RangeId) -> (u64, u64) {
        (0, 0)
    }

    fn leader(&self, _: RangeId) -> Option<NodeId> {
        None
    }

    async fn flush(&self, _: RangeId) {}

    async fn catch_up(&self, _: RangeId, _: Instant) -> bool {
        false
    }

    async fn decide(
        &self,
        range: RangeId,
        _: Proposal,
        _: Instant,
    ) -> Result<Revision, EventualError> {
        Err(EventualError::NoRange(range))
    }
}
