//! Replacement of a voter: a new identity in the place of a node that is lost.
//!
//! For each range that the lost node held: the catalog names the new node, which opens an empty
//! replica; the range's leader adds it as a learner, waits until it has caught up, and then
//! changes the voters in one step. One range at a time, from one place: the node that was asked.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::impls::EmptyNode;
use quorate_proto::internal as wire;
use quorate_proto::internal::envelope::Body;
use quorate_types::{NodeId, RangeId};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::catalog;
use crate::controller::UpdateError;
use crate::group::Group;
use crate::node::{Inner, RaftNode};
use crate::peer::Class;

const CATALOG_TIMEOUT: Duration = Duration::from_secs(10);
/// One range must have changed its voters by then; a large one is filled first.
const RANGE_TIMEOUT: Duration = Duration::from_secs(600);
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Progress of a replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplaceStep {
    /// The node that takes the place.
    pub with: NodeId,
    /// Ranges to do.
    pub total: usize,
    /// Ranges done.
    pub done: usize,
    /// What is being done.
    pub step: String,
}

/// Why a replacement stopped. It can be started again, and goes on where it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplaceError {
    /// The node is not in the catalog.
    #[error("node {0} is not in the catalog")]
    Unknown(NodeId),
    /// No node to take its place.
    #[error(
        "no registered node is without ranges; start one with a new --id and --join, then repeat"
    )]
    NoSpare,
    /// The lost node is not lost.
    #[error("node {0} is alive: stop it first")]
    Alive(NodeId),
    /// The catalog could not be changed.
    #[error(transparent)]
    Catalog(#[from] UpdateError),
    /// A range did not change its voters.
    #[error("range {range}: {problem}")]
    Range {
        /// Which.
        range: RangeId,
        /// Why.
        problem: String,
    },
}

impl RaftNode {
    /// Puts `with` (or the one registered node without ranges) in the place of `old`, telling
    /// each step to `progress`.
    pub async fn replace_node(
        &self,
        old: NodeId,
        with: Option<NodeId>,
        progress: mpsc::Sender<ReplaceStep>,
    ) -> Result<NodeId, ReplaceError> {
        let view = self.catalog();
        view.node(old).ok_or(ReplaceError::Unknown(old))?;
        if self.peer_reachable(old) {
            return Err(ReplaceError::Alive(old));
        }
        let with = match with {
            Some(with) => view
                .node(with)
                .map(|n| n.id)
                .ok_or(ReplaceError::Unknown(with))?,
            None => spare(&view, old).ok_or(ReplaceError::NoSpare)?,
        };
        let mut ranges = Vec::new();
        if view.meta_voters().iter().any(|n| *n == old || *n == with) {
            ranges.push(RangeId::META);
        }
        let held = |r: &&crate::RangeView| r.replicas.iter().any(|n| *n == old || *n == with);
        ranges.extend(
            view.keyspaces()
                .iter()
                .flat_map(|k| k.ranges.iter().filter(held))
                .map(|r| r.id),
        );
        for (done, range) in ranges.iter().enumerate() {
            let step = format!("range {range}: filling node {with}");
            let step = ReplaceStep {
                with,
                total: ranges.len(),
                done,
                step,
            };
            // Nobody need listen.
            let _ = progress.send(step).await;
            self.inner.replace_in(*range, old, with).await?;
        }
        let deadline = Instant::now() + CATALOG_TIMEOUT;
        self.update_catalog(deadline, |base| Ok(catalog::with_node_removed(base, old)))
            .await?;
        let step = format!("node {old} is closed for ever");
        let (total, done) = (ranges.len(), ranges.len());
        let _ = progress
            .send(ReplaceStep {
                with,
                total,
                done,
                step,
            })
            .await;
        Ok(with)
    }
}

/// The one live, registered node that holds no range.
fn spare(view: &crate::CatalogView, old: NodeId) -> Option<NodeId> {
    let holds = |id: NodeId| {
        let mut ranges = view.keyspaces().iter().flat_map(|k| k.ranges.iter());
        ranges.any(|r| r.replicas.contains(&id))
    };
    let mut spares = view
        .nodes()
        .iter()
        .filter(|n| !n.removed && n.id != old && !holds(n.id))
        .map(|n| n.id);
    spares.next()
}

impl Inner {
    async fn replace_in(
        &self,
        range: RangeId,
        old: NodeId,
        with: NodeId,
    ) -> Result<(), ReplaceError> {
        let deadline = Instant::now() + CATALOG_TIMEOUT;
        let change =
            |base: &wire::Catalog| Ok(catalog::with_replica_replaced(base, range, old, with));
        self.update_catalog(deadline, change).await?;
        let deadline = Instant::now() + RANGE_TIMEOUT;
        let mut problem = "no replica of it answers".to_string();
        let mut turn = 0;
        let mut hint = None;
        while Instant::now() < deadline {
            let members = self.members(range, old);
            let Some(to) = hint
                .take()
                .or_else(|| members.get(turn % members.len().max(1)).copied())
            else {
                break;
            };
            turn += 1;
            let request = wire::ReplaceVoter {
                old: old.0,
                with: with.0,
            };
            match self.ask_replace(range, to, request).await {
                Ok(answer) if answer.done => return Ok(()),
                Ok(answer) => {
                    hint = (answer.leader_hint != 0).then_some(NodeId(answer.leader_hint));
                    problem = answer.problem;
                }
                Err(error) => problem = error,
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        Err(ReplaceError::Range { range, problem })
    }

    fn members(&self, range: RangeId, old: NodeId) -> Vec<NodeId> {
        let view = self.catalog.borrow().clone();
        let mut members = match view.range(range) {
            Some((_, range)) => range.replicas.clone(),
            None => view.meta_voters(),
        };
        members.retain(|m| *m != old);
        members
    }

    async fn ask_replace(
        &self,
        range: RangeId,
        to: NodeId,
        request: wire::ReplaceVoter,
    ) -> Result<wire::ReplaceVoterResponse, String> {
        if to == self.node {
            let group = self.group(range).ok_or("no replica here yet")?;
            return Ok(group.serve_replace(&request).await);
        }
        let body = Body::ReplaceVoter(request);
        match self
            .calls
            .call(to, Class::Consensus, range.0, body, RANGE_TIMEOUT)
            .await
        {
            Ok(Body::ReplaceVoterResponse(answer)) => Ok(answer),
            Ok(_) => Err("an answer of another kind".to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Group {
    /// The leader's part: learner, catch-up, promotion. Does nothing that is done already.
    pub(crate) async fn serve_replace(
        &self,
        request: &wire::ReplaceVoter,
    ) -> wire::ReplaceVoterResponse {
        if !self.is_leader() {
            let leader_hint = self.leader().map_or(0, |l| l.0);
            let problem = "no leader".to_string();
            return wire::ReplaceVoterResponse {
                leader_hint,
                problem,
                done: false,
            };
        }
        self.wake();
        let voters: BTreeSet<u64> = self.raft.voter_ids().collect();
        let mut wanted = voters.clone();
        wanted.remove(&request.old);
        wanted.insert(request.with);
        let mut problem = String::new();
        if wanted != voters {
            let added = self
                .raft
                .add_learner(request.with, EmptyNode::new(), true)
                .await;
            let changed = match added {
                Ok(_) => self.raft.change_membership(wanted, false).await,
                Err(error) => Err(error),
            };
            problem = changed.map_or_else(|error| error.to_string(), |_| String::new());
        }
        wire::ReplaceVoterResponse {
            done: problem.is_empty(),
            problem,
            leader_hint: 0,
        }
    }
}
