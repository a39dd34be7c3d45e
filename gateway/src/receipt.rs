//! What was really delivered: the receipts of what this node served itself.
//!
//! Not here: receipts of peers, which pass through with only the rung set; session tokens
//! (`session`).

use std::time::Duration;

use quorate_proto::v1;
use quorate_raft::Group;
use quorate_types::{NodeId, Revision};
use tokio::time::Instant;

use crate::context::Context;

/// Where the time of a request went.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// When its work at the range began.
    pub began: Instant,
    /// Until the log, or the confirmation of a read, had answered.
    pub consensus: Duration,
}

impl Spent {
    /// Nothing yet.
    pub fn begin() -> Spent {
        Spent {
            began: Instant::now(),
            consensus: Duration::ZERO,
        }
    }

    /// All of the time since then was consensus.
    pub fn confirmed(self) -> Spent {
        Spent {
            consensus: self.began.elapsed(),
            ..self
        }
    }

    fn micros(&self, context: &Context) -> v1::Micros {
        let queue = self.began.saturating_duration_since(context.arrived);
        let total = context.arrived.elapsed();
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        v1::Micros {
            queue: micros(queue),
            consensus: micros(self.consensus),
            disk: micros(total.saturating_sub(queue).saturating_sub(self.consensus)),
            total: micros(total),
        }
    }
}

/// The receipt of something that this node's replica served.
pub fn receipt(
    node: NodeId,
    group: &Group,
    level: v1::Rung,
    revision: Revision,
    spent: Spent,
    context: &Context,
) -> v1::Receipt {
    let leads = group.is_leader();
    let mut replicas = Vec::with_capacity(2);
    replicas.push(node.0);
    let decided = level.level == v1::Level::Linearizable as i32;
    if let Some(leader) = group.leader().filter(|leader| decided && *leader != node) {
        replicas.push(leader.0);
    }
    v1::Receipt {
        level: Some(level),
        node: node.0,
        role: if leads {
            v1::Role::Leader
        } else {
            v1::Role::Follower
        } as i32,
        replicas,
        revision: revision.0,
        micros: Some(spent.micros(context)),
        range: group.range_id().0,
        ..v1::Receipt::default()
    }
}
