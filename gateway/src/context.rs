//! What travels with a request through the gateway besides its own fields.

use quorate_types::{NodeId, RangeId};
use tokio::time::Instant;

/// Where a request came from and when it must be answered.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// When this node got it.
    pub arrived: Instant,
    /// When its answer is useless.
    pub deadline: Instant,
    /// Another gateway sent it on. It is then served here or not at all: never sent on again, so
    /// no request can travel in circles.
    pub forwarded: Option<Forwarded>,
}

/// Who sent a request on, and to which range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The gateway that has the client.
    pub from: NodeId,
    /// The range that it means.
    pub range: RangeId,
}

impl Context {
    /// A client's own request.
    pub fn new(arrived: Instant, deadline: Instant) -> Context {
        Context {
            arrived,
            deadline,
            forwarded: None,
        }
    }

    /// The same request with less time, if the limit is earlier than the deadline.
    pub fn until(self, limit: Instant) -> Context {
        Context {
            deadline: self.deadline.min(limit),
            ..self
        }
    }

    /// Whether the time is used up.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }
}
