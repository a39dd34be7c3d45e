//! Absorption: what the nodes of a `mixed` range took in on this path is taken to the range's log
//! by whoever leads it, so that all replicas decide it alike; and rows go that the log knows.
//!
//! The lowest priority of all writes: an entry at a time, with a pause after each round. Not
//! here: what a log does with it, and what a row is (`replica`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use quorate_types::RangeId;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::node::Inner;
use crate::replica::{Replica, Trimming};
use crate::seam::Proposal;

/// How often a range is looked at.
const ABSORB_INTERVAL: Duration = Duration::from_millis(100);
/// An entry is given this long.
const ABSORB_TIMEOUT: Duration = Duration::from_secs(5);
/// Entries of one range in a row, before others have their turn.
const ENTRIES_PER_ROUND: usize = 64;
/// Ranges whose entries are under way at once: one that cannot decide holds up few others.
const RANGES_AT_ONCE: usize = 16;

/// Starts the work in the background.
pub(crate) fn start(inner: &Arc<Inner>) -> AbortHandle {
    let weak = Arc::downgrade(inner);
    let task = tokio::spawn(async move {
        let mut shown = BTreeSet::new();
        loop {
            tokio::time::sleep(ABSORB_INTERVAL).await;
            let Some(inner) = weak.upgrade() else { return };
            let mut replicas = inner.all_replicas();
            replicas.retain(|replica| replica.has_log());
            observe(&replicas, &mut shown);
            let inner = &inner;
            stream::iter(replicas)
                .for_each_concurrent(RANGES_AT_ONCE, |replica| async move {
                    inner.absorb(&replica).await;
                    inner.trim(&replica).await;
                })
                .await;
        }
    });
    task.abort_handle()
}

/// Says how much of each range is beside its log, and for how long. `shown`: ranges of which
/// anything was said to be.
fn observe(replicas: &[Arc<Replica>], shown: &mut BTreeSet<RangeId>) {
    for replica in replicas {
        let (range, rows) = (replica.range, replica.overlay_rows());
        let is_shown = match rows {
            0 => shown.remove(&range),
            _ => {
                shown.insert(range);
                true
            }
        };
        if is_shown {
            let age = replica.overlay_age().unwrap_or_default().as_secs_f64();
            let range = range.0.to_string();
            metrics::gauge!("quorate_overlay_rows", "range" => range.clone()).set(rows as f64);
            metrics::gauge!("quorate_overlay_age_seconds", "range" => range).set(age);
        }
    }
}

impl Inner {
    async fn absorb(&self, replica: &Replica) {
        for _ in 0..ENTRIES_PER_ROUND {
            if self.decisions.leader(replica.range) != Some(self.node) {
                return;
            }
            let next = match replica.next_absorption(self.options.absorb_keys_max) {
                Ok(Some(next)) => next,
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(range = %replica.range, %error, "rows cannot be absorbed");
                    return;
                }
            };
            if self.options.faults.trim_when_proposed
                && let Err(error) = replica.trim_at_once(&next.items)
            {
                tracing::error!(range = %replica.range, %error, "rows are not trimmed");
            }
            let keys = next.items.len() as u64;
            let base = next.base.map(|base| base.to_bytes());
            let items = next.items.clone();
            let proposal = Proposal::Absorb { items, base };
            let deadline = Instant::now() + ABSORB_TIMEOUT;
            let asked = self
                .decisions
                .decide(replica.range, proposal, deadline)
                .await;
            if let Err(error) = asked {
                tracing::debug!(range = %replica.range, %error, "not absorbed");
                replica.absorb_again(next.items, next.since);
                return;
            }
            let lag = metrics::histogram!("quorate_absorption_lag_seconds");
            for since in &next.since {
                lag.record(since.elapsed().as_secs_f64());
            }
            metrics::counter!("quorate_absorbed_keys_total").increment(keys);
            metrics::counter!("quorate_absorptions_total").increment(1);
            if next.is_last {
                return;
            }
        }
    }

    async fn trim(&self, replica: &Replica) {
        loop {
            match replica.trim() {
                Ok(Trimming::Done) => return,
                Ok(Trimming::GoOn) => tokio::task::yield_now().await,
                Ok(Trimming::Flush) => return self.decisions.flush(replica.range).await,
                Err(error) => {
                    tracing::debug!(range = %replica.range, %error, "rows are not trimmed");
                    return;
                }
            }
        }
    }
}
