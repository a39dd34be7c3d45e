//! Absorption: what the nodes of a `mixed` range took in on this path is taken to the range's log
//! by whoever leads it, so that all replicas decide it alike; and rows go that the log knows.
//!
//! The lowest priority of all writes: an entry at a time, with a pause after each round. Not
//! here: what a log does with it, and what a row is (`replica`).

use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::node::Inner;
use crate::replica::Replica;
use crate::seam::Proposal;

/// How often a range is looked at.
const ABSORB_INTERVAL: Duration = Duration::from_millis(100);
/// An entry is given this long.
const ABSORB_TIMEOUT: Duration = Duration::from_secs(5);
/// Entries of one range in a row, before others have their turn.
const ENTRIES_PER_ROUND: usize = 64;

/// Starts the work in the background.
pub(crate) fn start(inner: &Arc<Inner>) -> AbortHandle {
    let weak = Arc::downgrade(inner);
    let task = tokio::spawn(async move {
        loop {
            tokio::time::sleep(ABSORB_INTERVAL).await;
            let Some(inner) = weak.upgrade() else { return };
            for replica in inner.all_replicas() {
                if replica.has_log() {
                    inner.absorb(&replica).await;
                    inner.trim(&replica).await;
                }
            }
        }
    });
    task.abort_handle()
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
                replica.absorb_again(next.items);
                return;
            }
            metrics::counter!("quorate_absorbed_keys_total").increment(keys);
            metrics::counter!("quorate_absorptions_total").increment(1);
        }
    }

    async fn trim(&self, replica: &Replica) {
        match replica.trim() {
            Ok(false) => {}
            Ok(true) => self.decisions.flush(replica.range).await,
            Err(error) => {
                tracing::debug!(range = %replica.range, %error, "rows are not trimmed");
            }
        }
    }
}
