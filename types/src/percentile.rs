//! Percentiles of durations that are all at hand: the one way in which the workspace takes them.
//!
//! Not here: histograms of durations too many to keep (the bench has one).

use std::time::Duration;

/// The p-th of 1,000 of some durations, by the nearest rank; none of none.
pub fn per_mille(mut durations: Vec<Duration>, p: usize) -> Option<Duration> {
    durations.sort_unstable();
    let at = (durations.len() * p).div_ceil(1_000).saturating_sub(1);
    durations.get(at).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_thousand_is_above() {
        let durations: Vec<_> = (1..=1_000).rev().map(Duration::from_micros).collect();
        let micros = |p| per_mille(durations.clone(), p);
        assert_eq!(micros(500), Some(Duration::from_micros(500)));
        assert_eq!(micros(990), Some(Duration::from_micros(990)));
        assert_eq!(per_mille(Vec::new(), 500), None);
    }
}
