//! Estimates of staleness for the receipts of reads: made once in a while, and remembered between.
//!
//! Not here: how one is made (`outlook`).

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_types::RangeId;
use tokio::time::Instant;

use crate::node::Inner;
use crate::outlook::visible_after;
use crate::quorum::Holders;

/// After this an estimate is made anew: an estimate costs as much as some twenty reads.
const AGE_MAX: Duration = Duration::from_secs(1);
/// Estimates that are remembered; past it all are forgotten.
const REMEMBERED_MAX: usize = 16_384;

#[derive(Clone, Copy, Debug)]
struct Estimate {
    made: Instant,
    visible_after: Option<Duration>,
}

/// What was estimated lately: of a range, for reads of so many holders.
#[derive(Debug, Default)]
pub(crate) struct Estimates(Mutex<HashMap<(RangeId, usize), Estimate>>);

impl Estimates {
    /// What is remembered, or else what `make` says.
    fn recall(
        &self,
        of: (RangeId, usize),
        now: Instant,
        make: impl FnOnce() -> Option<Duration>,
    ) -> Option<Duration> {
        let known = self.0.lock().get(&of).copied();
        if let Some(known) = known.filter(|known| now < known.made + AGE_MAX) {
            return known.visible_after;
        }
        // Without the lock: others may make the same one meanwhile, and come to the same.
        let visible_after = make();
        let mut all = self.0.lock();
        if all.len() == REMEMBERED_MAX {
            all.clear();
        }
        let made = now;
        all.insert(
            of,
            Estimate {
                made,
                visible_after,
            },
        );
        visible_after
    }
}

impl Inner {
    /// An estimate: 999 of 1,000 reads of `reads` holders through this node see what was
    /// acknowledged with one copy this long before they began. `None` as in [`visible_after`]: an
    /// estimate is forgotten at once when a primary goes away.
    pub(crate) fn visible_after(
        &self,
        range: RangeId,
        holders: &Holders,
        reads: usize,
    ) -> Option<Duration> {
        let is_there = |node: &_| *node == self.node || self.peers.reachable(*node);
        if !holders.primaries.iter().all(is_there) {
            return None;
        }
        let make = || visible_after(self.node, &self.outlook(holders), reads);
        self.estimates.recall((range, reads), Instant::now(), make)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_estimate_is_made_again_when_it_is_old() {
        let estimates = Estimates::default();
        let of = (RangeId(1), 1);
        let recall = |millis| {
            let make = || Some(Duration::from_millis(millis));
            estimates.recall(of, Instant::now(), make)
        };
        assert_eq!(recall(3), Some(Duration::from_millis(3)));
        assert_eq!(recall(4), Some(Duration::from_millis(3)), "remembered");
        tokio::time::advance(AGE_MAX).await;
        assert_eq!(recall(5), Some(Duration::from_millis(5)), "made again");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let estimates = Estimates::default();
        let now = Instant::now();
        for range in 0..2 * REMEMBERED_MAX as u64 {
            estimates.recall((RangeId(range), 1), now, || None);
        }
        assert!(estimates.0.lock().len() <= REMEMBERED_MAX);
    }
}
