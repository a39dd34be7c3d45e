//! Confirmation rounds for linearizable reads, shared by the reads that wait.
//!
//! A read joins only a round that starts after it came: a round that was under way may have been
//! confirmed before the last write that the read must see was acknowledged.

use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use parking_lot::Mutex;
use quorate_proto::internal as wire;
use quorate_proto::internal::envelope::Body;
use quorate_types::{NodeId, RangeId, Timestamp};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::group::{RangeRaft, ReadError};
use crate::hybrid::NodeClock;
use crate::node::Faults;
use crate::peer::{Calls, Class};

/// A round that has no answer by then has none.
const ROUND_TIMEOUT: Duration = Duration::from_millis(1_000);
/// Longer than any follower waits: see [`Faults`].
const FAULTY_LEASE: Duration = Duration::from_secs(5);
/// Far less than any follower waits, or takes to start again: see [`Faults`].
const WALL_CLOCK_LEASE_MICROSECONDS: u64 = 40_000;

type Waiter = oneshot::Sender<Result<u64, ReadError>>;

/// The rounds of one group.
#[derive(Debug)]
pub struct Rounds {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    raft: RangeRaft,
    calls: Arc<Calls>,
    range: RangeId,
    node: NodeId,
    faults: Faults,
    /// For a negative control: the node's clock.
    clock: Arc<NodeClock>,
    state: Mutex<State>,
    /// For a negative control: when a round was last confirmed here.
    confirmed: Mutex<Option<Instant>>,
    /// For a negative control: until when a confirmation is trusted, by the wall clock.
    lease: Mutex<Timestamp>,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Waiter>,
    running: bool,
}

impl Rounds {
    pub(crate) fn new(
        raft: RangeRaft,
        calls: Arc<Calls>,
        range: RangeId,
        node: NodeId,
        (faults, clock): (Faults, Arc<NodeClock>),
    ) -> Rounds {
        Rounds {
            inner: Arc::new(Inner {
                raft,
                calls,
                range,
                node,
                faults,
                clock,
                state: Mutex::default(),
                confirmed: Mutex::default(),
                lease: Mutex::default(),
            }),
        }
    }

    /// Waits for the next round. Answers the log index that a read must see applied.
    pub(crate) async fn join(&self) -> Result<u64, ReadError> {
        let (sender, receiver) = oneshot::channel();
        let start = {
            let mut state = self.inner.state.lock();
            state.waiting.push(sender);
            !std::mem::replace(&mut state.running, true)
        };
        if start {
            tokio::spawn(self.inner.clone().run());
        }
        receiver.await.unwrap_or(Err(ReadError::Stopped))
    }
}

impl Rounds {
    /// The same for a follower that asks this node as the leader: it is not asked on.
    pub(crate) async fn join_as_leader(&self) -> Result<u64, ReadError> {
        let leader = self
            .inner
            .raft
            .server_metrics()
            .borrow_watched()
            .current_leader;
        if leader != Some(self.inner.node.0) {
            return Err(ReadError::NotLeader {
                hint: leader.map(NodeId),
            });
        }
        self.join().await
    }
}

impl Inner {
    /// Rounds, one after the other, until nobody waits.
    async fn run(self: Arc<Self>) {
        loop {
            let mut waiting = {
                let mut state = self.state.lock();
                state.running = !state.waiting.is_empty();
                std::mem::take(&mut state.waiting)
            };
            if waiting.is_empty() {
                return;
            }
            let result = self.confirm().await;
            if self.faults.join_running_round {
                waiting.append(&mut self.state.lock().waiting);
            }
            for waiter in waiting {
                // Who ran out of time does not wait any more.
                let _ = waiter.send(result.clone());
            }
        }
    }

    async fn confirm(&self) -> Result<u64, ReadError> {
        let leader = self.raft.server_metrics().borrow_watched().current_leader;
        match leader {
            Some(leader) if leader != self.node.0 => self.ask(NodeId(leader)).await,
            Some(_) | None => self.confirm_here().await,
        }
    }

    /// For negative controls: where this node thinks that it need not ask.
    fn unasked(&self) -> Option<u64> {
        let trusts = self.faults.stale_lease && {
            let confirmed = *self.confirmed.lock();
            confirmed.is_some_and(|at| at.elapsed() < FAULTY_LEASE)
        };
        let trusts = trusts || self.faults.lease_by_wall_clock && self.holds_lease();
        if !self.faults.unconfirmed_reads && !trusts {
            return None;
        }
        let metrics = self.raft.server_metrics();
        let leads = metrics.borrow_watched().current_leader == Some(self.node.0);
        let applied = self.raft.metrics().borrow_watched().last_applied;
        leads.then(|| applied.map_or(0, |id| id.index))
    }

    /// For a negative control: whether the wall clock says that no follower has waited long enough.
    fn holds_lease(&self) -> bool {
        self.clock.now() < *self.lease.lock()
    }

    /// The leader's round: a majority confirms that nobody else has led since.
    async fn confirm_here(&self) -> Result<u64, ReadError> {
        if let Some(index) = self.unasked() {
            return Ok(index);
        }
        let policy = if self.faults.lease_reads {
            ReadPolicy::LeaseRead
        } else {
            ReadPolicy::ReadIndex
        };
        let asked = self.faults.lease_by_wall_clock.then(|| self.clock.now());
        let round = self.raft.get_read_log_id(policy);
        match tokio::time::timeout(ROUND_TIMEOUT, round).await {
            Ok(Ok((read, _applied))) => {
                if self.faults.stale_lease {
                    *self.confirmed.lock() = Some(Instant::now());
                }
                // What the round waited for is counted: it is over long before any follower votes.
                if let Some(asked) = asked {
                    *self.lease.lock() = Timestamp(asked.0 + WALL_CLOCK_LEASE_MICROSECONDS);
                }
                Ok(read.index())
            }
            Ok(Err(RaftError::APIError(error))) => Err(match error {
                LinearizableReadError::ForwardToLeader(forward) => ReadError::NotLeader {
                    hint: forward.leader_id.map(NodeId),
                },
                LinearizableReadError::QuorumNotEnough(_) => ReadError::NoMajority,
            }),
            Ok(Err(RaftError::Fatal(_))) => Err(ReadError::Stopped),
            Err(_) => Err(ReadError::NoMajority),
        }
    }

    /// A follower's round: the leader does one, and tells the index.
    async fn ask(&self, leader: NodeId) -> Result<u64, ReadError> {
        let body = Body::ReadIndex(wire::ReadIndexRequest {});
        let hint = Some(leader);
        match self
            .calls
            .call(leader, Class::Consensus, self.range.0, body, ROUND_TIMEOUT)
            .await
        {
            Ok(Body::ReadIndexResponse(answer)) if answer.ok => {
                Ok(answer.log_id.unwrap_or_default().index)
            }
            Ok(Body::ReadIndexResponse(answer)) => {
                let hint = (answer.leader_hint != 0).then_some(NodeId(answer.leader_hint));
                Err(ReadError::NotLeader { hint })
            }
            Ok(_) | Err(_) => Err(ReadError::NotLeader { hint }),
        }
    }
}
