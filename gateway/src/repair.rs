//! `quorate repair`: has a primary of each range compare it with the others now.

use std::time::Duration;

use quorate_proto::internal::{
    EventualRequest, RepairNow, RepairedNow, eventual_request, eventual_response::Response,
};
use quorate_proto::v1;
use quorate_types::{Mode, NodeId, RangeId};

use crate::errors::GatewayError;
use crate::gateway::{Gateway, keyspace};

/// A range is given this long.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(600);

/// The ranges of a repair, and how many are done.
pub(crate) struct Repair {
    ranges: Vec<(RangeId, Vec<NodeId>)>,
    done: usize,
}

impl Gateway {
    /// The ranges of a keyspace, or of all that have an eventual plane.
    ///
    /// # Errors
    /// `KEYSPACE_NOT_FOUND`, or that the keyspace has none.
    pub(crate) fn ranges_to_repair(&self, name: &str) -> Result<Repair, GatewayError> {
        let catalog = self.node().catalog();
        if !name.is_empty() && keyspace(&catalog, name)?.options.mode == Mode::Strong {
            let problem = "a keyspace of mode strong has no eventual plane: its log repairs it";
            return Err(GatewayError::field("keyspace", problem));
        }
        let asked = catalog.keyspaces().iter().filter(|one| {
            one.options.mode != Mode::Strong && (name.is_empty() || one.name == name)
        });
        let ranges = asked.flat_map(|one| &one.ranges);
        Ok(Repair {
            ranges: ranges
                .map(|range| (range.id, range.replicas.clone()))
                .collect(),
            done: 0,
        })
    }

    /// Repairs the next range; `None`: all are done.
    pub(crate) async fn repair_next(&self, repair: &mut Repair) -> Option<v1::RepairProgress> {
        let (range, replicas) = repair.ranges.get(repair.done)?;
        let repaired = self.repair_range(*range, replicas).await;
        repair.done += 1;
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let (repaired, problem) = match repaired {
            Ok(repaired) if repaired.missing.is_empty() => (repaired, String::new()),
            Ok(repaired) => {
                let problem = format!("not compared with nodes {:?}", repaired.missing);
                (repaired, problem)
            }
            Err(problem) => (RepairedNow::default(), problem),
        };
        Some(v1::RepairProgress {
            ranges_total: count(repair.ranges.len()),
            ranges_done: count(repair.done),
            range: range.0,
            keys: repaired.keys,
            bytes: repaired.bytes,
            problem,
        })
    }

    async fn repair_range(
        &self,
        range: RangeId,
        replicas: &[NodeId],
    ) -> Result<RepairedNow, String> {
        let here = self.node_id();
        if replicas.contains(&here) {
            let repaired = self.eventual().repair_now(range).await;
            return repaired.map_err(|error| error.to_string());
        }
        let mut reachable = replicas.iter();
        let asked = reachable.find(|node| self.node().peer_reachable(**node));
        let asked = *asked.ok_or("no replica can be reached")?;
        let request = EventualRequest {
            request: Some(eventual_request::Request::RepairNow(RepairNow {})),
        };
        let answer = self
            .node()
            .ask_eventual(asked, range, request, REPAIR_TIMEOUT)
            .await
            .map_err(|error| error.to_string())?;
        match answer.response {
            Some(Response::RepairedNow(repaired)) => Ok(repaired),
            Some(Response::Problem(problem)) => Err(problem),
            _ => Err(format!("node {asked} answered with something else")),
        }
    }
}
