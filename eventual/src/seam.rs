//! What the eventual path sees of the rest: other nodes, and where ranges live. Two narrow traits,
//! joined to transport and catalog where a node is assembled.

use std::sync::Arc;
use std::time::Duration;

use quorate_proto::internal::{EventualRequest, EventualResponse};
use quorate_types::{ConflictPolicy, NodeId, RangeId, Timestamp};
use thiserror::Error;

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

    /// Whether a node has been heard lately.
    fn reachable(&self, node: NodeId) -> bool;

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
}

/// Where ranges live. Answers come from the cached catalog, so they come without any majority.
pub trait Places: Send + Sync {
    /// Where a range lives; `None`: the catalog does not have it, or it has no eventual plane.
    fn place(&self, range: RangeId) -> Option<Arc<Place>>;

    /// Whether the catalog is known, and has a range no more.
    fn was_dropped(&self, range: RangeId) -> bool;
}
