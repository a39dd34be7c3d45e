//! How long a gateway waits for a peer: as long as that is there.

use std::time::Duration;

use quorate_raft::CallError;
use quorate_types::NodeId;

use crate::gateway::Gateway;

/// How often a peer that a request waits for is looked at: is it still there?
const PEER_CHECK_INTERVAL: Duration = Duration::from_millis(100);

impl Gateway {
    /// Waits for a peer's answer, and gives up on one that has fallen silent: the time of a request
    /// is not spent on a node that is gone.
    ///
    /// # Errors
    ///
    /// As the call's; [`CallError::Lost`] where the peer cannot be reached any more.
    pub(crate) async fn while_reachable<T>(
        &self,
        node: NodeId,
        asking: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        tokio::pin!(asking);
        loop {
            match tokio::time::timeout(PEER_CHECK_INTERVAL, &mut asking).await {
                Ok(result) => return result,
                Err(_) if !self.node().peer_reachable(node) => return Err(CallError::Lost),
                Err(_) => {}
            }
        }
    }
}
