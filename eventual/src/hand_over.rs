//! Hints go home: each primary that is back gets what is kept for it, in batches, at a bounded
//! rate, and what it then has on disk is noted. When a hint may go is `hints`' rule.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate_proto::internal::{
    HandOver, eventual_request::Request, eventual_response::Response, hand_over,
};
use quorate_types::NodeId;
use tokio::task::AbortHandle;

use crate::error::EventualError;
use crate::node::Inner;
use crate::replica::Replica;
use crate::step::Step;

/// Hints in one message.
pub(crate) const BATCH_HINTS_MAX: usize = 256;
/// Bytes of hints in one message; the hint that crosses it is the last.
const BATCH_BYTES_MAX: usize = 512 << 10;
/// How often hints are looked at.
const HAND_OVER_INTERVAL: Duration = Duration::from_millis(250);
/// A primary is given this long to take a batch.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts the work in the background.
pub(crate) fn start(inner: &Arc<Inner>) -> AbortHandle {
    let weak = Arc::downgrade(inner);
    let task = tokio::spawn(async move {
        loop {
            tokio::time::sleep(HAND_OVER_INTERVAL).await;
            let Some(inner) = weak.upgrade() else { return };
            for replica in inner.all_replicas() {
                if let Err(error) = inner.hand_over(&replica).await {
                    tracing::debug!(range = %replica.range, %error, "hints stay for now");
                }
            }
        }
    });
    task.abort_handle()
}

impl Inner {
    /// Hands a range's hints to those primaries that can be reached.
    async fn hand_over(&self, replica: &Arc<Replica>) -> Result<(), EventualError> {
        if replica.with_hints(|hints| hints.is_empty()) {
            return Ok(());
        }
        let place = self.place(replica.range)?;
        for node in replica.with_hints(|hints| hints.targets(&place.holders.primaries)) {
            if node == self.node {
                self.take_own(replica)?;
            } else if self.peers.reachable(node) {
                self.hand_over_to(replica, node).await?;
            }
        }
        Ok(())
    }

    /// A node that keeps hints of a range that it holds has them on disk: a courtesy's coordinator
    /// took the write in first, and a stand-in that became a primary does so now.
    fn take_own(&self, replica: &Replica) -> Result<(), EventualError> {
        let dots = replica.with_hints(|hints| hints.wanted_by(self.node, BATCH_HINTS_MAX));
        for dot in &dots {
            if let Some(hint) = replica.hint(*dot)? {
                replica.do_step(&Step::Accept {
                    key: hint.key,
                    deltas: vec![hint.delta],
                })?;
            }
        }
        let node = self.node;
        replica.do_step(&Step::Held { node, dots })?;
        Ok(())
    }

    /// Hands over until the primary has all, fails, or is gone.
    async fn hand_over_to(&self, replica: &Replica, node: NodeId) -> Result<(), EventualError> {
        loop {
            let dots = replica.with_hints(|hints| hints.wanted_by(node, BATCH_HINTS_MAX));
            let mut items = Vec::new();
            let mut handed = Vec::new();
            let mut bytes = 0;
            for dot in dots {
                if bytes >= BATCH_BYTES_MAX {
                    break;
                }
                // A hint that was forgotten meanwhile is on enough primaries.
                if let Some(hint) = replica.hint(dot)? {
                    bytes += hint.bytes();
                    items.push(hand_over::Item {
                        key: hint.key,
                        delta: hint.delta,
                    });
                    handed.push(dot);
                }
            }
            if handed.is_empty() {
                return Ok(());
            }
            let request = Request::HandOver(HandOver { items });
            match self
                .ask(node, replica.range, request, HAND_OVER_TIMEOUT)
                .await?
            {
                Response::Stored(stored) if stored.primary => {}
                _ => return Ok(()),
            }
            let count = handed.len() as u64;
            metrics::counter!("quorate_hints_handed_over_total").increment(count);
            metrics::counter!("quorate_hint_bytes_handed_over_total").increment(bytes as u64);
            self.counts
                .hints_handed_over
                .fetch_add(count, Ordering::Relaxed);
            let dots = handed;
            replica.do_step(&Step::Held { node, dots })?;
            self.pace(bytes).await;
        }
    }

    /// Keeps background traffic within its budget.
    pub(crate) async fn pace(&self, bytes: usize) {
        let budget = self.options.background_bytes_per_second.max(1) as f64;
        tokio::time::sleep(Duration::from_secs_f64(bytes as f64 / budget)).await;
    }
}
