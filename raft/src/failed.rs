//! Groups that have ended by themselves. openraft ends a group's core where its storage fails, also
//! where no more than one read of the log did; nothing starts it again but the node's own start, and
//! till then the replica is lost to its range. So the node is to end, as it does where a sync fails.
//!
//! Failures of the log and the engine themselves are told by those.

use std::sync::Arc;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::Fatal;
use quorate_types::RangeId;
use tokio::sync::watch;

use crate::node::{Inner, RaftNode};

/// A replica has ended, and serves nothing until its node has been started again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the replica of range {range} has ended: {problem}")]
pub struct GroupFailed {
    /// The range.
    pub range: RangeId,
    /// What consensus says of it.
    pub problem: String,
}

impl Inner {
    pub(crate) fn notice_failed_groups(&self) {
        if self.failed.borrow().is_some() {
            return;
        }
        for group in self.all_groups() {
            let metrics = group.raft.metrics();
            let metrics = metrics.borrow_watched();
            let fatal = match &metrics.running_state {
                // One that is told to end does.
                Ok(()) | Err(Fatal::Stopped) => continue,
                Err(fatal) => fatal,
            };
            let failed = GroupFailed {
                range: group.range,
                problem: fatal.to_string(),
            };
            tracing::error!(%failed, "a replica has ended");
            self.failed.send_replace(Some(Arc::new(failed)));
            return;
        }
    }
}

impl RaftNode {
    /// The first group that has ended by itself, if one has.
    pub fn failed(&self) -> Option<Arc<GroupFailed>> {
        self.inner.failed.borrow().clone()
    }

    /// Tells when a group has ended by itself: the node must end, and may start again.
    pub fn on_failure(&self) -> watch::Receiver<Option<Arc<GroupFailed>>> {
        self.inner.failed.subscribe()
    }
}
