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

/// As receipts tell times.
pub(crate) fn as_micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

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
        v1::Micros {
            queue: as_micros(queue),
            consensus: as_micros(self.consensus),
            disk: as_micros(total.saturating_sub(queue).saturating_sub(self.consensus)),
            total: as_micros(total),
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

/// One receipt of two parts of a request: it promises what both promise. Session tokens are
/// joined by the session.
pub fn joined(mut all: v1::Receipt, other: v1::Receipt) -> v1::Receipt {
    let larger = |one: Option<u64>, two: Option<u64>| one.zip(two).map(|(one, two)| one.max(two));
    all.revision = all.revision.max(other.revision);
    all.staleness_ms = larger(all.staleness_ms, other.staleness_ms);
    all.visible_after_us = larger(all.visible_after_us, other.visible_after_us);
    all.tentative |= other.tentative;
    all.replayed |= other.replayed;
    all.siblings = all.siblings.saturating_add(other.siblings);
    all.replaced_unseen = all.replaced_unseen.saturating_add(other.replaced_unseen);
    if other.rung > all.rung {
        (all.level, all.rung, all.failed) = (other.level, other.rung, other.failed);
    }
    if all.session_missing.is_empty() {
        all.session_missing = other.session_missing;
    }
    for (mine, others) in [
        (&mut all.replicas, other.replicas),
        (&mut all.stand_ins, other.stand_ins),
    ] {
        mine.extend(others);
        mine.sort_unstable();
        mine.dedup();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_part_does_not_promise_the_whole_does_not() {
        let part = |staleness_ms, visible_after_us| v1::Receipt {
            staleness_ms,
            visible_after_us,
            ..v1::Receipt::default()
        };
        let both = joined(part(Some(3), Some(5)), part(Some(4), Some(2)));
        assert_eq!(
            (both.staleness_ms, both.visible_after_us),
            (Some(4), Some(5))
        );
        let unknown = joined(part(None, Some(5)), part(Some(4), None));
        assert_eq!(
            (unknown.staleness_ms, unknown.visible_after_us),
            (None, None)
        );
    }

    #[test]
    fn the_lowest_rung_that_was_met_and_everyone_who_took_part_are_named() {
        let part = |rung, primary, stand_in, missing: &str| v1::Receipt {
            rung,
            replicas: vec![primary],
            stand_ins: vec![stand_in],
            failed: vec!["why".to_owned(); rung as usize],
            session_missing: missing.to_owned(),
            siblings: 1,
            ..v1::Receipt::default()
        };
        let all = joined(part(0, 2, 4, ""), part(1, 1, 4, "1.1:7"));
        assert_eq!((all.rung, all.failed.len(), all.siblings), (1, 1, 2));
        assert_eq!((all.replicas, all.stand_ins), (vec![1, 2], vec![4]));
        assert_eq!(all.session_missing, "1.1:7");
    }
}
