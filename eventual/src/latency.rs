//! How fast peers answer: what a coordinator waits before it asks one more replica, and what it
//! expects of them.
//!
//! The 99th percentile of a peer's recent answers ("The Tail at Scale", Dean and Barroso 2013,
//! hedged requests).

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_types::{NodeId, per_mille};

/// Answers of a peer that are remembered.
const RECENT_MAX: usize = 128;
/// New answers after which the percentile is taken anew.
const REFRESH_ANSWERS: usize = 16;
/// Before anything is known of a peer.
const HEDGE_DEFAULT: Duration = Duration::from_millis(20);
/// A peer is never given less.
const HEDGE_MIN: Duration = Duration::from_millis(2);
/// A peer is never given more.
const HEDGE_MAX: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
struct Recent {
    answers: VecDeque<Duration>,
    fresh: usize,
    percentile: Option<Duration>,
}

/// The latencies of all peers.
#[derive(Debug, Default)]
pub struct Latencies(Mutex<HashMap<NodeId, Recent>>);

impl Latencies {
    /// A peer has answered after so long.
    pub fn answered(&self, node: NodeId, after: Duration) {
        let mut peers = self.0.lock();
        let recent = peers.entry(node).or_default();
        if recent.answers.len() == RECENT_MAX {
            recent.answers.pop_front();
        }
        recent.answers.push_back(after);
        recent.fresh += 1;
        if recent.fresh >= REFRESH_ANSWERS || recent.percentile.is_none() {
            recent.fresh = 0;
            recent.percentile = per_mille(recent.answers.iter().copied().collect(), 990);
        }
    }

    /// What is remembered of a peer, the oldest first.
    pub fn recent(&self, node: NodeId) -> Vec<Duration> {
        let peers = self.0.lock();
        let recent = peers.get(&node).map(|recent| recent.answers.iter());
        recent.into_iter().flatten().copied().collect()
    }

    /// How long to wait for a peer before another one is asked as well.
    pub fn patience(&self, node: NodeId) -> Duration {
        let peers = self.0.lock();
        let percentile = peers.get(&node).and_then(|recent| recent.percentile);
        percentile
            .unwrap_or(HEDGE_DEFAULT)
            .clamp(HEDGE_MIN, HEDGE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_follows_the_slowest_of_a_hundred() {
        let latencies = Latencies::default();
        let node = NodeId(1);
        assert_eq!(latencies.patience(node), HEDGE_DEFAULT);
        for millis in 1..=RECENT_MAX as u64 {
            latencies.answered(node, Duration::from_millis(millis));
        }
        let patience = latencies.patience(node);
        assert!(patience >= Duration::from_millis(110), "{patience:?}");
        for _ in 0..RECENT_MAX + REFRESH_ANSWERS {
            latencies.answered(node, Duration::from_micros(10));
        }
        assert_eq!(latencies.patience(node), HEDGE_MIN);
    }
}
