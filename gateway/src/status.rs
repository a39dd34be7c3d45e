//! What operators see: nodes, ranges and their replicas, shares of the ring, gathered from the
//! reports of all nodes. A node that does not answer is shown as unreachable, never left out.

use std::collections::HashMap;

use bytes::Bytes;
use quorate_proto::internal::{ReplicaReport, StatusResponse};
use quorate_proto::v1;
use quorate_raft::{KeyspaceView, NodeView, RangeView};
use quorate_types::{NodeId, Partitioning, RangeId};

use crate::errors::GatewayError;
use crate::gateway::{Gateway, any_keyspace};

/// What the meta range is called where a keyspace's name stands.
const META_NAME: &str = "(meta)";

type Reports = Vec<(NodeId, Option<StatusResponse>)>;

impl Gateway {
    /// All nodes, as this one sees them.
    pub async fn status(&self) -> v1::StatusResponse {
        let catalog = self.node().catalog();
        let reports = self.node().reports(false, META_NAME).await;
        let mut told: HashMap<NodeId, v1::NodeStatus> = reports
            .into_iter()
            .filter_map(|(node, report)| Some((node, report?.node?)))
            .collect();
        let present = catalog.nodes().iter().filter(|node| !node.removed);
        let nodes = present.map(|node| {
            let mut status = told.remove(&node.id).unwrap_or_else(|| silent(node));
            status.clock_offset_ms = self.node().peer_clock_offset_ms(node.id).unwrap_or(0);
            status
        });
        v1::StatusResponse {
            nodes: nodes.collect(),
            cluster: self.node().cluster().to_owned(),
            catalog_epoch: catalog.epoch(),
            answered_by: self.node_id().0,
        }
    }

    /// All ranges, or those of one keyspace, with their replicas.
    ///
    /// # Errors
    ///
    /// `KEYSPACE_NOT_FOUND`.
    pub async fn ranges(
        &self,
        request: &v1::RangesRequest,
    ) -> Result<v1::RangesResponse, GatewayError> {
        let catalog = self.node().catalog();
        let all = request.keyspace.is_empty();
        if !all {
            any_keyspace(&catalog, &request.keyspace)?;
        }
        let reports = self.node().reports(request.hash, &request.keyspace).await;
        let mut by_range = by_range(reports);
        let mut ranges = Vec::new();
        if all {
            let meta = by_range.remove(&RangeId::META).unwrap_or_default();
            let status = v1::RangeStatus {
                id: RangeId::META.0,
                keyspace: META_NAME.to_owned(),
                ..v1::RangeStatus::default()
            };
            ranges.push(with_replicas(status, &catalog.meta_voters(), meta));
        }
        let asked = catalog
            .keyspaces()
            .iter()
            .filter(|one| all || one.name == request.keyspace);
        for keyspace in asked {
            for range in &keyspace.ranges {
                let reports = by_range.remove(&range.id).unwrap_or_default();
                let status = bounds_shown(keyspace, range);
                ranges.push(with_replicas(status, &range.replicas, reports));
            }
        }
        Ok(v1::RangesResponse { ranges })
    }

    /// Each node's share of the ring, and what it holds of it.
    pub fn ring(&self) -> v1::RingResponse {
        let catalog = self.node().catalog();
        let mut replicas: HashMap<NodeId, u32> = HashMap::new();
        for range in catalog
            .keyspaces()
            .iter()
            .flat_map(|keyspace| &keyspace.ranges)
        {
            for node in &range.replicas {
                *replicas.entry(*node).or_default() += 1;
            }
        }
        let shares = catalog.ring().shares().into_iter().map(|(id, share)| {
            let node = catalog.node(id);
            v1::RingShare {
                node: id.0,
                zone: node.map(|node| node.zone.clone()).unwrap_or_default(),
                weight: node.map_or(0, |node| node.weight),
                share,
                replicas: replicas.get(&id).copied().unwrap_or(0),
            }
        });
        v1::RingResponse {
            shares: shares.collect(),
        }
    }

    /// Whether this node serves; otherwise why not, in words.
    ///
    /// # Errors
    ///
    /// The reason.
    pub fn ready(&self) -> Result<(), String> {
        if self.is_stopping() {
            return Err("the node is stopping".to_owned());
        }
        if let Some(trouble) = self.node().trouble() {
            return Err(trouble);
        }
        if self.node().catalog().epoch() == 0 {
            return Err("the catalog is not known yet".to_owned());
        }
        let groups = self.node().groups();
        if !groups.is_empty() && groups.iter().all(|group| group.leader().is_none()) {
            return Err("none of the ranges here has a leader".to_owned());
        }
        Ok(())
    }
}

/// A node of the catalog that did not answer.
fn silent(node: &NodeView) -> v1::NodeStatus {
    v1::NodeStatus {
        id: node.id.0,
        endpoint: node.endpoint.clone(),
        http: node.http.clone(),
        zone: node.zone.clone(),
        weight: node.weight,
        reachable: false,
        trouble: "does not answer".to_owned(),
        ..v1::NodeStatus::default()
    }
}

fn by_range(reports: Reports) -> HashMap<RangeId, Vec<ReplicaReport>> {
    let mut by_range: HashMap<RangeId, Vec<ReplicaReport>> = HashMap::new();
    for report in reports.into_iter().filter_map(|(_, report)| report) {
        for replica in report.replicas {
            by_range
                .entry(RangeId(replica.range))
                .or_default()
                .push(replica);
        }
    }
    by_range
}

/// A range with what its replicas say; those that say nothing are unreachable.
fn with_replicas(
    mut status: v1::RangeStatus,
    expected: &[NodeId],
    reports: Vec<ReplicaReport>,
) -> v1::RangeStatus {
    // Of two that claim to know the leader, the later term is right.
    let term = |report: &&ReplicaReport| report.replica.as_ref().map_or(0, |replica| replica.term);
    let newest = reports
        .iter()
        .filter(|report| report.leader > 0)
        .max_by_key(term);
    status.leader = newest.map_or(0, |report| report.leader);
    let of_leader = |report: &&ReplicaReport| {
        let replica = report.replica.as_ref();
        replica.is_some_and(|replica| replica.node == status.leader)
    };
    let counted = reports.iter().find(of_leader);
    status.quotas = counted.map_or(Vec::new(), |report| report.quotas.clone());
    status.revision = reports
        .iter()
        .map(|report| report.revision)
        .max()
        .unwrap_or(0);
    status.closed = reports
        .iter()
        .map(|report| report.closed)
        .max()
        .unwrap_or(0);
    status.replicas = reports
        .into_iter()
        .filter_map(|report| report.replica)
        .collect();
    for node in expected {
        if status.replicas.iter().all(|replica| replica.node != node.0) {
            status.replicas.push(v1::ReplicaStatus {
                node: node.0,
                role: "unreachable".to_owned(),
                ..v1::ReplicaStatus::default()
            });
        }
    }
    status.replicas.sort_by_key(|replica| replica.node);
    status
}

/// A range's keys as users know them.
fn bounds_shown(keyspace: &KeyspaceView, range: &RangeView) -> v1::RangeStatus {
    let partitioning = keyspace.options.partitioning;
    let user_key =
        |encoded: &Bytes| encoded.slice(partitioning.prefix_bytes().min(encoded.len())..);
    // The end of the last range is the next keyspace's (or bucket's) start: no key of this one.
    let ends_inside = matches!(partitioning, Partitioning::Ordered)
        && range.interval.end.starts_with(&keyspace.id.0.to_be_bytes());
    v1::RangeStatus {
        id: range.id.0,
        keyspace: keyspace.name.clone(),
        start: user_key(&range.interval.start),
        end: if ends_inside {
            user_key(&range.interval.end)
        } else {
            Bytes::new()
        },
        bucket: range.bucket,
        ..v1::RangeStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(node: u64, term: u64, leader: u64) -> ReplicaReport {
        let replica = v1::ReplicaStatus {
            node,
            term,
            ..v1::ReplicaStatus::default()
        };
        ReplicaReport {
            leader,
            replica: Some(replica),
            ..ReplicaReport::default()
        }
    }

    #[test]
    fn the_newest_term_names_the_leader_and_silent_replicas_are_shown() {
        let expected = [NodeId(1), NodeId(2), NodeId(3)];
        let reports = vec![report(3, 5, 3), report(1, 4, 1)];
        let status = with_replicas(v1::RangeStatus::default(), &expected, reports);
        assert_eq!(status.leader, 3);
        let roles: Vec<_> = status
            .replicas
            .iter()
            .map(|r| (r.node, r.role.as_str()))
            .collect();
        assert_eq!(roles, [(1, ""), (2, "unreachable"), (3, "")]);
    }
}
