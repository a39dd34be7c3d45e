//! Where the two planes meet: the eventual path's view of other nodes and of the catalog, made of
//! what the Raft node has. Neither crate knows the other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use quorate_eventual::quorum::Holders;
use quorate_eventual::{
    Decisions, EventualError, EventualNode, EventualOptions, KeysPage, PeerFailure, Peers, Place,
    Places, Proposal, WeakEventualNode,
};
use quorate_proto::internal::{
    Absorb, Command, EventualRequest, EventualResponse, Tentative, absorb, command,
    eventual_response,
};
use quorate_proto::v1::EventualStatus;
use quorate_raft::{CallError, CatalogView, EventualAnswer, EventualHandler, RaftNode};
use quorate_storage::engine::ScanRequest;
use quorate_types::causal::{Dots, KeyState};
use quorate_types::limits::CLOCK_OFFSET_MAX;
use quorate_types::{Mode, NodeId, RangeId, Revision, Ring, Timestamp};
use tokio::time::Instant;

/// Starts a node's eventual path beside its Raft groups: same log, same engine, same connections.
///
/// # Errors
/// [`EventualError`] where what is stored cannot be read.
pub async fn start_eventual(
    raft: &RaftNode,
    options: EventualOptions,
) -> Result<EventualNode, EventualError> {
    let storage = (raft.log().clone(), raft.engine().clone());
    let peers = Arc::new(RaftPeers(raft.clone()));
    let places = Arc::new(CatalogPlaces::new(raft.clone()));
    let logs = Arc::new(RaftDecisions(raft.clone()));
    let eventual =
        EventualNode::start(raft.node_id(), storage, (peers, places, logs), options).await?;
    raft.set_eventual_handler(Arc::new(Answers(eventual.downgrade())));
    Ok(eventual)
}

/// Peers by the connections of the Raft node.
struct RaftPeers(RaftNode);

#[tonic::async_trait]
impl Peers for RaftPeers {
    async fn ask(
        &self,
        to: NodeId,
        range: RangeId,
        request: EventualRequest,
        timeout: Duration,
    ) -> Result<EventualResponse, PeerFailure> {
        let answer = self.0.ask_eventual(to, range, request, timeout).await;
        answer.map_err(|error| match error {
            CallError::NotSent(_) => PeerFailure::NotSent(to),
            CallError::Lost | CallError::TimedOut => PeerFailure::NoAnswer(to),
            CallError::Refused(problem) => PeerFailure::Refused { node: to, problem },
        })
    }

    fn reachable(&self, node: NodeId) -> bool {
        self.0.peer_reachable(node)
    }

    fn steady(&self, node: NodeId) -> bool {
        self.0.peer_steady(node)
    }

    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn clock_is_sound(&self) -> bool {
        let catalog = self.0.catalog();
        let present = catalog.nodes().iter().filter(|node| !node.removed);
        let is_near = |node: &NodeId| {
            let offset = self.0.peer_clock_offset_ms(*node);
            let heard = self.0.peer_reachable(*node);
            *node == self.0.node_id()
                || heard
                    && offset.is_some_and(|offset| {
                        u128::from(offset.unsigned_abs()) <= CLOCK_OFFSET_MAX.as_millis()
                    })
        };
        let (near, all) = present.fold((0, 0), |(near, all), node| {
            (near + usize::from(is_near(&node.id)), all + 1)
        });
        near * 2 > all
    }
}

/// Before a replica that has no leader asks again.
const CATCH_UP_PAUSE: Duration = Duration::from_millis(5);

/// What logs have decided, by this node's replicas of them.
struct RaftDecisions(RaftNode);

#[tonic::async_trait]
impl Decisions for RaftDecisions {
    fn decided(
        &self,
        range: RangeId,
        key: &[u8],
    ) -> Result<Option<(KeyState, u64)>, EventualError> {
        if let Some(group) = self.0.group(range) {
            let decided = group.decided(key)?;
            return Ok(Some((decided.state, decided.index)));
        }
        let catalog = self.0.catalog();
        let is_replica = catalog
            .range(range)
            .is_some_and(|(_, range)| range.replicas.contains(&self.0.node_id()));
        match is_replica {
            true => Err(EventualError::Filling(range)),
            false => Ok(None),
        }
    }

    fn keys(
        &self,
        range: RangeId,
        request: &ScanRequest,
    ) -> Result<Option<KeysPage>, EventualError> {
        let Some(group) = self.0.group(range) else {
            return Err(EventualError::Filling(range));
        };
        let (keys, base, resume) = group.decided_keys(request)?;
        Ok(Some(KeysPage { keys, base, resume }))
    }

    fn taken_in(&self, range: RangeId) -> Option<(Dots, u64)> {
        Some(self.0.group(range)?.taken_in())
    }

    fn applied_and_durable(&self, range: RangeId) -> (u64, u64) {
        let group = self.0.group(range);
        group.map_or((0, 0), |group| group.applied_and_durable())
    }

    fn leader(&self, range: RangeId) -> Option<NodeId> {
        self.0.group(range)?.leader()
    }

    async fn flush(&self, range: RangeId) {
        if let Some(group) = self.0.group(range) {
            group.flush().await;
        }
    }

    async fn catch_up(&self, range: RangeId, deadline: Instant) -> bool {
        let Some(group) = self.0.group(range) else {
            return false;
        };
        // A replica that has not heard of a leader yet may do so in a moment.
        while group.read_barrier(deadline).await.is_err() {
            if Instant::now() + CATCH_UP_PAUSE >= deadline {
                return false;
            }
            tokio::time::sleep(CATCH_UP_PAUSE).await;
        }
        true
    }

    async fn decide(
        &self,
        range: RangeId,
        proposal: Proposal,
        deadline: Instant,
    ) -> Result<Revision, EventualError> {
        let group = self.0.group(range).ok_or(EventualError::NoRange(range))?;
        let operation = match proposal {
            Proposal::Absorb { items, base } => command::Operation::Absorb(Absorb {
                items: items
                    .into_iter()
                    .map(|(key, state)| absorb::Item { key, state })
                    .collect(),
                base: base.unwrap_or_default(),
            }),
            Proposal::Tentative { key, deltas } => {
                command::Operation::Tentative(Tentative { key, deltas })
            }
        };
        let command = Command {
            operation: Some(operation),
            ..Command::default()
        };
        match group.propose(command, deadline).await {
            Ok(proposed) => Ok(proposed.applied.revision),
            Err(error) => Err(EventualError::NotDecided {
                range,
                why: error.to_string(),
            }),
        }
    }
}

/// What the catalog says, worked out once an epoch.
#[derive(Default)]
struct Known {
    epoch: u64,
    places: HashMap<RangeId, Arc<Place>>,
}

/// Places by the Raft node's cached catalog.
struct CatalogPlaces {
    raft: RaftNode,
    known: RwLock<Known>,
}

impl CatalogPlaces {
    fn new(raft: RaftNode) -> CatalogPlaces {
        CatalogPlaces {
            raft,
            known: RwLock::default(),
        }
    }

    fn with_known<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        let catalog = self.raft.catalog();
        {
            let known = self.known.read();
            if known.epoch == catalog.epoch() {
                return look(&known);
            }
        }
        let mut known = self.known.write();
        if known.epoch != catalog.epoch() {
            *known = known_of(&catalog, self.raft.node_id());
        }
        look(&known)
    }
}

impl Places for CatalogPlaces {
    fn place(&self, range: RangeId) -> Option<Arc<Place>> {
        self.with_known(|known| known.places.get(&range).cloned())
    }

    fn was_dropped(&self, range: RangeId) -> bool {
        let catalog = self.raft.catalog();
        catalog.epoch() > 0 && range.0 < catalog.wire().next_range && catalog.range(range).is_none()
    }
}

fn known_of(catalog: &CatalogView, me: NodeId) -> Known {
    let ring = catalog.ring();
    let zone_of = |node: NodeId| catalog.node(node).map(|node| node.zone.as_str());
    let mut known = Known {
        epoch: catalog.epoch(),
        ..Known::default()
    };
    for keyspace in catalog.keyspaces() {
        if keyspace.options.mode == Mode::Strong {
            continue;
        }
        for range in &keyspace.ranges {
            let local = range.replicas.iter();
            let local = local.filter(|node| zone_of(**node) == zone_of(me)).count();
            let holders = Holders {
                primaries: range.replicas.clone(),
                stand_ins: stand_ins(&ring, range.id, &range.replicas),
                local,
            };
            let place = Place {
                holders,
                founders: range.founders.clone(),
                policy: keyspace.options.conflict,
                has_log: keyspace.options.mode == Mode::Mixed,
            };
            known.places.insert(range.id, Arc::new(place));
        }
    }
    known
}

/// The walk's nodes that do not hold the range, in its order.
fn stand_ins(ring: &Ring, range: RangeId, primaries: &[NodeId]) -> Vec<NodeId> {
    let replication = u8::try_from(primaries.len()).unwrap_or(u8::MAX);
    let placement = ring.place(range, replication);
    let walk = placement.primaries.into_iter().chain(placement.stand_ins);
    walk.filter(|node| !primaries.contains(node)).collect()
}

/// Answers peers as long as the eventual path is there.
struct Answers(WeakEventualNode);

impl EventualHandler for Answers {
    fn handle(
        &self,
        from: NodeId,
        range: RangeId,
        request: EventualRequest,
        answer: EventualAnswer,
    ) {
        match self.0.upgrade() {
            Some(eventual) => eventual.answer_then(from, range, request, answer),
            None => answer(EventualResponse {
                response: Some(eventual_response::Response::Problem(
                    "this node is stopping".to_owned(),
                )),
            }),
        }
    }

    fn report(&self, range: RangeId) -> Option<EventualStatus> {
        let eventual = self.0.upgrade()?;
        if !eventual.has(range) {
            return None;
        }
        match eventual.report(range) {
            Ok(report) => Some(EventualStatus {
                hash: report
                    .hash
                    .map_or(String::new(), |hash| format!("{hash:032x}")),
                filled: report.filled,
                record_bytes: report.record_bytes,
                hints: report.hints,
                hint_bytes: report.hint_bytes,
                counted_hints: report.counted_hints,
                gaps: report.gaps,
                overlay_rows: report.overlay_rows,
                overlay_age_ms: report.overlay_age.as_millis() as u64,
            }),
            Err(error) => {
                tracing::warn!(%range, %error, "the eventual plane does not report");
                None
            }
        }
    }

    fn hints(&self) -> (u64, u64) {
        self.0.upgrade().map_or((0, 0), |eventual| eventual.hints())
    }

    fn repair_lag(&self) -> Duration {
        let eventual = self.0.upgrade();
        eventual.map_or(Duration::ZERO, |eventual| eventual.repair_lag())
    }
}
