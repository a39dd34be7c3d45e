//! A graceful stop: leadership is handed over first, so that clients notice little; then the
//! groups stop, the engine is flushed, and the log is closed.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use quorate_types::NodeId;
use tokio::time::Instant;

use crate::group::Group;
use crate::node::{Inner, RaftNode};

/// All hand-overs together may take so long.
const HAND_OVER_MAX: Duration = Duration::from_secs(3);
const HAND_OVER_POLL: Duration = Duration::from_millis(2);

impl RaftNode {
    /// Hands leadership of all groups to replicas that live and have caught up, where there are
    /// such. The node goes on serving. How many groups it led, and how many of them no more.
    pub async fn hand_over(&self) -> (usize, usize) {
        let deadline = Instant::now() + HAND_OVER_MAX;
        let groups = self.inner.all_groups();
        let hand_overs = groups.iter().filter(|g| g.is_leader()).map(|group| {
            let inner = self.inner.clone();
            async move {
                inner.hand_over_group(group, deadline).await;
                !group.is_leader()
            }
        });
        let handed_over = futures::future::join_all(hand_overs).await;
        let gone = handed_over.iter().filter(|gone| **gone).count();
        (handed_over.len(), gone)
    }

    /// Ends the node at once, as a crash does: nothing is handed over, flushed or answered. For
    /// simulations, whose processes cannot be killed; take its disk and its link away before.
    #[doc(hidden)]
    pub fn abandon(&self) {
        for task in self.inner.tasks.lock().drain(..) {
            task.abort();
        }
        for (_, group) in std::mem::take(&mut *self.inner.groups.write()) {
            tokio::spawn(async move {
                // A core that has failed with its disk is as dead as one that was told to end.
                let _ = group.raft.shutdown().await;
            });
        }
    }

    /// Stops everything. Call [`RaftNode::hand_over`] before, and stop taking requests.
    pub async fn stop(&self) {
        for task in self.inner.tasks.lock().drain(..) {
            task.abort();
        }
        let groups = self.inner.all_groups();
        let stops = groups.iter().map(|group| async move {
            let freeze = |m: &mut crate::apply::RangeMachine| m.freeze();
            let frozen = group
                .raft
                .with_state_machine(move |m| Box::pin(async move { freeze(m) }))
                .await;
            if let Err(error) = frozen {
                tracing::debug!(range = %group.range, %error, "not flushed at the stop");
            }
            if let Err(error) = group.raft.shutdown().await {
                tracing::warn!(range = %group.range, %error, "a replica did not stop well");
            }
        });
        futures::future::join_all(stops).await;
        self.inner.groups.write().clear();
        if let Err(error) = self.inner.engine.close().await {
            tracing::warn!(%error, "the engine was not flushed; the log has everything");
        }
        self.inner.log.close().await;
    }
}

impl Inner {
    async fn hand_over_group(&self, group: &Arc<Group>, deadline: Instant) {
        group.wake();
        while group.is_leader() && Instant::now() < deadline {
            let Some(target) = self.successor(group) else {
                tokio::time::sleep(HAND_OVER_POLL).await;
                continue;
            };
            if group
                .raft
                .trigger()
                .transfer_leader(target.0)
                .await
                .is_err()
            {
                return;
            }
            let patience = Instant::now() + Duration::from_millis(self.options.election_max_ms);
            while group.is_leader() && Instant::now() < patience.min(deadline) {
                tokio::time::sleep(HAND_OVER_POLL).await;
            }
        }
    }

    /// The reachable voter that is farthest.
    fn successor(&self, group: &Arc<Group>) -> Option<NodeId> {
        let metrics = group.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        let voters: Vec<u64> = group.raft.voter_ids().collect();
        replication
            .iter()
            .filter(|(id, _)| **id != self.node.0 && voters.contains(id))
            .filter(|(id, _)| self.inbound.heard_lately(NodeId(**id)))
            .filter_map(|(id, matched)| matched.as_ref().map(|m| (m.index, *id)))
            .max()
            .map(|(_, id)| NodeId(id))
    }
}
