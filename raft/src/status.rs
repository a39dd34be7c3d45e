//! What a node tells of itself and of its replicas.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use quorate_proto::internal as wire;
use quorate_proto::internal::envelope::Body;
use quorate_proto::v1::{NodeStatus, PeerView, ReplicaStatus};
use quorate_types::NodeId;

use crate::group::Group;
use crate::node::{Inner, RaftNode};
use crate::peer::Class;

const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// With hashes the ranges are read whole.
const STATUS_HASH_TIMEOUT: Duration = Duration::from_secs(120);

impl RaftNode {
    /// This node and its replicas; with `hash`, a hash of each one's logical state.
    pub async fn local_report(&self, hash: bool, keyspace: &str) -> wire::StatusResponse {
        let request = wire::StatusRequest {
            hash,
            keyspace: keyspace.to_string(),
        };
        self.inner.report(&request).await
    }

    /// The same from all nodes of the catalog; `None` for those that do not answer.
    pub async fn reports(
        &self,
        hash: bool,
        keyspace: &str,
    ) -> Vec<(NodeId, Option<wire::StatusResponse>)> {
        let request = wire::StatusRequest {
            hash,
            keyspace: keyspace.to_string(),
        };
        let mut nodes = self.inner.peers();
        nodes.push(self.inner.node);
        nodes.sort_unstable();
        let asked = nodes.into_iter().map(|node| {
            let request = request.clone();
            async move { (node, self.inner.ask_report(node, request).await) }
        });
        futures::future::join_all(asked).await
    }

    /// How a peer's clock differs from this node's, as its last beat showed (delay included).
    pub fn peer_clock_offset_ms(&self, node: NodeId) -> Option<i64> {
        self.inner
            .inbound
            .peers
            .lock()
            .get(&node)
            .map(|p| p.clock_offset / 1_000)
    }
}

impl Inner {
    async fn ask_report(
        &self,
        node: NodeId,
        request: wire::StatusRequest,
    ) -> Option<wire::StatusResponse> {
        if node == self.node {
            return Some(self.report(&request).await);
        }
        let timeout = if request.hash {
            STATUS_HASH_TIMEOUT
        } else {
            STATUS_TIMEOUT
        };
        match self
            .calls
            .call(node, Class::Bulk, 0, Body::Status(request), timeout)
            .await
        {
            Ok(Body::StatusResponse(response)) => Some(*response),
            Ok(_) | Err(_) => None,
        }
    }

    pub(crate) async fn report(&self, request: &wire::StatusRequest) -> wire::StatusResponse {
        let view = self.catalog.borrow().clone();
        let mut replicas = Vec::new();
        let mut leaders = 0;
        let mut apply_lag = 0;
        for group in self.all_groups() {
            let keyspace = view.range(group.range).map_or("", |(k, _)| k.name.as_str());
            let mut report = replica_report(&group);
            leaders += u32::from(group.is_leader());
            if let Some(replica) = &report.replica {
                apply_lag = apply_lag.max(replica.committed.saturating_sub(replica.applied));
            }
            if !request.keyspace.is_empty() && request.keyspace != keyspace {
                continue;
            }
            if request.hash {
                add_hash(&group, &mut report).await;
                self.add_eventual(&group, &mut report).await;
            }
            replicas.push(report);
        }
        let engine = self.engine.stats();
        let log = self.log.stats();
        let trouble = self.trouble().unwrap_or_default();
        let plane = self.eventual.get();
        let (hints, hint_bytes) = plane.map_or((0, 0), |plane| plane.hints());
        let repair_lag = plane.map_or(Duration::ZERO, |plane| plane.repair_lag());
        let node = NodeStatus {
            id: self.node.0,
            endpoint: self.options.node.endpoint.clone(),
            http: self.options.node.http.clone(),
            etcd: self.etcd_endpoint.get().cloned().unwrap_or_default(),
            zone: self.options.node.zone.clone(),
            weight: self.options.node.weight,
            reachable: true,
            version: env!("CARGO_PKG_VERSION").to_string(),
            uptime_seconds: self.started_at.elapsed().as_secs(),
            ranges: u32::try_from(self.groups.read().len()).unwrap_or(u32::MAX),
            leaders,
            log_bytes: log.bytes_written,
            engine_bytes: engine.written_bytes,
            memory_bytes: engine.memory_bytes as u64,
            apply_lag,
            trouble,
            clock_offset_ms: 0,
            hints,
            hint_bytes,
            peers: self.peer_views(),
            repair_lag_ms: u64::try_from(repair_lag.as_millis()).unwrap_or(u64::MAX),
        };
        wire::StatusResponse {
            node: Some(node),
            replicas,
        }
    }

    fn peer_views(&self) -> Vec<PeerView> {
        let seen = |peer: NodeId| {
            let seen = self.inbound.look_at(peer);
            PeerView {
                node: peer.0,
                phi: seen.phi,
                reachable: seen.reachable,
                steady: seen.steady,
                returns: u32::try_from(seen.returns).unwrap_or(u32::MAX),
            }
        };
        self.peers().into_iter().map(seen).collect()
    }

    async fn add_eventual(&self, group: &Arc<Group>, report: &mut wire::ReplicaReport) {
        let Some(plane) = self.eventual.get().cloned() else {
            return;
        };
        let range = group.range;
        let told = tokio::task::spawn_blocking(move || plane.report(range)).await;
        if let (Ok(Some(status)), Some(replica)) = (told, &mut report.replica) {
            replica.eventual = Some(status);
        }
    }

    /// Why this node does not serve.
    pub(crate) fn trouble(&self) -> Option<String> {
        if let Some(error) = self.log.failed() {
            return Some(format!("the log has failed: {error}"));
        }
        if let Some(error) = self.engine.failed() {
            return Some(format!("the engine has failed: {error}"));
        }
        let view = self.catalog.borrow();
        let removed = view.node(self.node).is_some_and(|n| n.removed);
        removed.then(|| format!("node {} was replaced; it never serves again", self.node))
    }
}

impl RaftNode {
    /// Why this node does not serve; `None`: it does.
    pub fn trouble(&self) -> Option<String> {
        self.inner.trouble()
    }
}

fn replica_report(group: &Arc<Group>) -> wire::ReplicaReport {
    let metrics = group.raft.metrics();
    let metrics = metrics.borrow_watched();
    let role = match metrics.state {
        ServerState::Leader => "leader",
        ServerState::Follower => "follower",
        ServerState::Learner => "learner",
        ServerState::Candidate => "candidate",
        ServerState::Shutdown => "stopped",
    };
    let at = group.applied();
    let replica = ReplicaStatus {
        node: group.node.0,
        role: role.to_string(),
        term: metrics.current_term,
        applied: at.index,
        committed: metrics.local_committed.as_ref().map_or(0, |id| id.index),
        hash: String::new(),
        hash_applied: 0,
        durable: group.shared.table.durable().map_or(0, |p| p.index),
        quiet: group.is_quiet(),
        eventual: None,
    };
    wire::ReplicaReport {
        range: group.range.0,
        leader: metrics.current_leader.unwrap_or(0),
        replica: Some(replica),
        revision: at.revision.0,
        closed: at.closed.0,
        quotas: group.shared.machine.lock().prefix_uses(),
    }
}

async fn add_hash(group: &Arc<Group>, report: &mut wire::ReplicaReport) {
    let table = group.shared.table.clone();
    let hashed = tokio::task::spawn_blocking(move || table.hash()).await;
    if let (Ok(Ok((position, hash))), Some(replica)) = (hashed, &mut report.replica) {
        replica.hash = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        replica.hash_applied = position.index;
    }
}
