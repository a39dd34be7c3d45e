//! One replica of one range, as the gateway sees it: propose, read, and how far it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::Raft;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardReason, ForwardToLeader};
use parking_lot::Mutex;
use quorate_proto::internal as wire;
use quorate_proto::internal::envelope::Body;
use quorate_proto::internal::{Command, command};
use quorate_storage::engine::RangeTable;
use quorate_types::{LeaseId, NodeId, RangeId, Revision};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::apply::{AppliedAt, RangeMachine, Shared};
use crate::consensus::{CommandBytes, Consensus, LogId, Waiting};
use crate::feed::Follower;
use crate::hybrid::NodeClock;
use crate::leases::{Due, LeaseTimer};
use crate::machine::Applied;
use crate::machine::etcd::Revisions;
use crate::machine::leases::{Lease, LeaseName};
use crate::network::Acknowledged;
use crate::node::Faults;
use crate::peer::{Calls, Class};
use crate::read_index::Rounds;
use crate::renewals::Renewals;

pub(crate) type RangeRaft = Raft<Consensus, RangeMachine>;

/// Pause before a leader that has its quorum's ear, and yet refused twice, is asked again.
const LEASE_RETRY_PAUSE: Duration = Duration::from_millis(5);
/// How often it is looked whether a leader that hands over has done so.
const MOVE_POLL: Duration = Duration::from_millis(10);
/// Enough for a refusal, too little for a majority: see [`Faults`].
const FAULTY_PATIENCE: Duration = Duration::from_micros(50);

/// A command that was decided, and what it did.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposed {
    /// What apply answered.
    pub applied: Applied,
    /// Index of its entry.
    pub index: u64,
    /// The followers that had it on disk when it was applied here.
    pub followers: Vec<NodeId>,
    /// From proposing to the answer.
    pub consensus: Duration,
}

/// Why a command was not decided, or is not known to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This replica does not lead. No effect.
    #[error("this replica does not lead range")]
    NotLeader {
        /// Who is thought to.
        hint: Option<NodeId>,
    },
    /// It was handed to the log; whether it is decided is not known.
    #[error("the outcome is not known")]
    Unknown,
    /// The leader cannot reach a majority. No effect.
    #[error("no majority of the range answers")]
    NoMajority,
    /// The replica has stopped. No effect.
    #[error("the replica has stopped")]
    Stopped,
}

/// Why a read point cannot be had. Reads have no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// This replica does not lead, and whoever does could not be asked.
    #[error("no leader of the range can be reached from this replica")]
    NotLeader {
        /// Who is thought to lead.
        hint: Option<NodeId>,
    },
    /// The leader cannot reach a majority.
    #[error("no majority of the range answers")]
    NoMajority,
    /// It took too long.
    #[error("no read point in time")]
    TimedOut,
    /// The replica has stopped.
    #[error("the replica has stopped")]
    Stopped,
}

/// State that is at least as new as everything acknowledged before the read began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadPoint {
    /// Of the last command applied here.
    pub revision: Revision,
    /// Applied here at least up to it.
    pub index: u64,
}

/// A replica of a range on this node. Cheap to share behind an `Arc`.
pub struct Group {
    pub(crate) range: RangeId,
    pub(crate) node: NodeId,
    pub(crate) raft: RangeRaft,
    pub(crate) shared: Shared,
    pub(crate) calls: Arc<Calls>,
    pub(crate) clock: Arc<NodeClock>,
    pub(crate) rounds: Rounds,
    pub(crate) acknowledged: Arc<Acknowledged>,
    pub(crate) faults: Faults,
    /// Ticks are off: nothing has happened for a while, and all replicas are equally far.
    pub(crate) quiet: AtomicBool,
    /// When leases end, while this replica leads.
    pub(crate) lease_timer: Mutex<LeaseTimer>,
    pub(crate) renewals: Renewals,
    /// From when on the lease timer counts.
    pub(crate) opened: Instant,
    /// Counts uses; the node's upkeep compares it with what it saw last.
    pub(crate) uses: AtomicU64,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group")
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

impl Group {
    /// The range.
    pub fn range_id(&self) -> RangeId {
        self.range
    }

    /// Checks what must always hold of what the log has come to here.
    ///
    /// # Errors
    /// The rule that is broken, in words.
    #[doc(hidden)]
    pub fn validate(&self) -> Result<(), String> {
        self.shared.machine.lock().validate()
    }

    /// The term in which this replica believes to lead, if it does.
    #[doc(hidden)]
    pub fn leads_in(&self) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leads = metrics.current_leader == Some(self.node.0);
        leads.then_some(metrics.current_term)
    }

    /// Whether this replica believes to lead. It may be wrong: reads and writes find out.
    pub fn is_leader(&self) -> bool {
        self.leader() == Some(self.node)
    }

    /// Who is thought to lead.
    pub fn leader(&self) -> Option<NodeId> {
        self.raft
            .server_metrics()
            .borrow_watched()
            .current_leader
            .map(NodeId)
    }

    /// The replica's keys.
    pub fn table(&self) -> &RangeTable {
        &self.shared.table
    }

    /// How far this replica has applied.
    pub fn applied(&self) -> AppliedAt {
        *self.shared.applied.borrow()
    }

    /// The revision of the last command applied here.
    pub fn applied_revision(&self) -> Revision {
        self.applied().revision
    }

    /// No later command gets a revision at or below it: reads here at it are complete.
    pub fn closed(&self) -> Revision {
        self.applied().closed
    }

    /// Tells when the replica applies more.
    pub fn watch_applied(&self) -> watch::Receiver<AppliedAt> {
        self.shared.applied.subscribe()
    }

    /// Follows what the log decides: from now on events are kept for a while in memory.
    pub fn follow(&self) -> Follower {
        if let Some(follower) = self.shared.feed.follow_kept() {
            return follower;
        }
        // Under the lock, so that no batch is half told.
        let machine = self.shared.machine.lock();
        self.shared.feed.follow(machine.closed())
    }

    /// Whether somebody follows, or did until lately.
    pub(crate) fn is_followed(&self) -> bool {
        self.shared.feed.is_on()
    }

    /// Puts a command into the range's log and waits until it is applied here.
    ///
    /// The command's `proposed` is filled in. Only a leader can do it.
    pub fn propose(
        &self,
        mut command: Command,
        deadline: Instant,
    ) -> impl Future<Output = Result<Proposed, ProposeError>> + Send + '_ {
        let started = Instant::now();
        self.wake();
        command.proposed = self.clock.tick().0;
        // Here, so that whoever waits holds the bytes alone.
        let bytes = CommandBytes::encode(&command);
        drop(command);
        self.decide(bytes, started, deadline)
    }

    async fn decide(
        &self,
        bytes: CommandBytes,
        started: Instant,
        deadline: Instant,
    ) -> Result<Proposed, ProposeError> {
        let mut refusals = 0;
        loop {
            match self.submit(bytes.clone(), deadline).await {
                // Boxed: this is rare, and every write's future would be as large.
                Err(Refused::LeaseExpired) => {
                    Box::pin(self.renew(refusals, deadline)).await?;
                    refusals += 1;
                }
                Err(Refused::Final(error)) => return Err(error),
                Ok((applied, entry)) => {
                    return Ok(Proposed {
                        applied,
                        index: entry.map_or(0, |entry| entry.index),
                        followers: entry.map_or(Vec::new(), |id| self.acknowledged.of(&id)),
                        consensus: started.elapsed(),
                    });
                }
            }
        }
    }

    async fn submit(
        &self,
        bytes: CommandBytes,
        deadline: Instant,
    ) -> Result<(Applied, Option<LogId>), Refused> {
        let (sender, receiver) = oneshot::channel();
        let sent = self
            .raft
            .client_write_ff(bytes, Some(Waiting(sender)))
            .await;
        if sent.is_err() {
            return Err(Refused::Final(ProposeError::Stopped));
        }
        if self.faults.acknowledge_before_log && self.is_leader() {
            return Ok((Applied::nothing(Revision::ZERO), None));
        }
        let patience = self.patience(deadline);
        let result = match tokio::time::timeout_at(patience, receiver).await {
            Ok(Ok(result)) => result,
            Err(_) if self.faults.acknowledge_before_majority => {
                return Ok((Applied::nothing(Revision::ZERO), None));
            }
            Ok(Err(_)) | Err(_) => return Err(Refused::Final(ProposeError::Unknown)),
        };
        match result {
            Ok(response) => {
                let applied = response.data.applied.ok_or(ProposeError::Unknown)?;
                Ok((*applied, Some(response.log_id)))
            }
            Err(ClientWriteError::ForwardToLeader(forward)) => Err(refusal(&forward)),
            Err(
                ClientWriteError::LogEntryDiscarded(_)
                | ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_),
            ) => Err(Refused::Final(ProposeError::Unknown)),
        }
    }

    /// Until when an answer is waited for: the deadline, but in a negative control.
    fn patience(&self, deadline: Instant) -> Instant {
        if self.faults.acknowledge_before_majority {
            return deadline.min(Instant::now() + FAULTY_PATIENCE);
        }
        deadline
    }

    /// A leader that was quiet, or cut off, refuses writes until a majority has answered again.
    /// One round is enough, so only a leader that was refused before, after such a round, pauses.
    async fn renew(&self, refusals: u32, deadline: Instant) -> Result<(), ProposeError> {
        match tokio::time::timeout_at(deadline, self.rounds.join()).await {
            Ok(Ok(_)) if refusals == 0 => {}
            Ok(Ok(_)) => tokio::time::sleep(LEASE_RETRY_PAUSE).await,
            Ok(Err(ReadError::NotLeader { hint })) => {
                return Err(ProposeError::NotLeader { hint });
            }
            Ok(Err(ReadError::Stopped)) => return Err(ProposeError::Stopped),
            Ok(Err(ReadError::NoMajority | ReadError::TimedOut)) | Err(_) => {
                return Err(ProposeError::NoMajority);
            }
        }
        Ok(())
    }

    /// A point at which this replica may serve linearizable reads: everything acknowledged before
    /// the call is applied here when it returns. Calls that wait share a confirmation round, but
    /// only one that starts after they came (ReadIndex; Ongaro's dissertation, 6.4).
    pub async fn read_barrier(&self, deadline: Instant) -> Result<ReadPoint, ReadError> {
        self.wake();
        let index = match tokio::time::timeout_at(deadline, self.rounds.join()).await {
            Ok(result) => result?,
            Err(_) => return Err(ReadError::TimedOut),
        };
        let at = match self.faults.read_before_applied {
            true => self.applied(),
            false => self.await_applied(index, deadline).await?,
        };
        Ok(ReadPoint {
            revision: at.revision,
            index: at.index,
        })
    }

    async fn await_applied(&self, index: u64, deadline: Instant) -> Result<AppliedAt, ReadError> {
        let at = self.applied();
        if at.index >= index {
            return Ok(at);
        }
        let mut watch = self.watch_applied();
        match tokio::time::timeout_at(deadline, watch.wait_for(|at| at.index >= index)).await {
            Ok(Ok(at)) => Ok(*at),
            Ok(Err(_)) => Err(ReadError::Stopped),
            Err(_) => Err(ReadError::TimedOut),
        }
    }

    /// Makes reads at `revision` complete here: waits until it is closed, and has the leader close
    /// it where nothing else does.
    pub async fn close_at(&self, revision: Revision, deadline: Instant) -> Result<(), ReadError> {
        if self.closed() >= revision {
            return Ok(());
        }
        self.wake();
        match self.leader() {
            Some(leader) if leader == self.node => self.raise_ceiling(revision, deadline).await?,
            Some(leader) => {
                let body = Body::CloseAt(wire::CloseAt {
                    revision: revision.0,
                });
                let left = deadline.saturating_duration_since(Instant::now());
                let asked = self
                    .calls
                    .call(leader, Class::Consensus, self.range.0, body, left)
                    .await;
                match asked {
                    Ok(Body::ReadIndexResponse(answer)) if answer.ok => {}
                    Ok(_) | Err(_) => return Err(ReadError::NotLeader { hint: Some(leader) }),
                }
            }
            None => return Err(ReadError::NotLeader { hint: None }),
        }
        let mut watch = self.watch_applied();
        let closed = watch.wait_for(|at| at.closed >= revision);
        match tokio::time::timeout_at(deadline, closed).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReadError::Stopped),
            Err(_) => Err(ReadError::TimedOut),
        }
    }

    /// The leader's part of [`Group::close_at`].
    pub(crate) async fn raise_ceiling(
        &self,
        revision: Revision,
        deadline: Instant,
    ) -> Result<(), ReadError> {
        if self.closed() >= revision {
            return Ok(());
        }
        let operation = Some(command::Operation::Ceiling(revision.0));
        let command = Command {
            operation,
            ..Command::default()
        };
        match self.propose(command, deadline).await {
            Ok(_) => Ok(()),
            Err(ProposeError::NotLeader { hint }) => Err(ReadError::NotLeader { hint }),
            Err(ProposeError::NoMajority) => Err(ReadError::NoMajority),
            Err(ProposeError::Unknown) => Err(ReadError::TimedOut),
            Err(ProposeError::Stopped) => Err(ReadError::Stopped),
        }
    }

    /// A lease that this range keeps, as far as is applied here, and what the leader has left of
    /// it.
    pub fn lease(&self, id: LeaseId) -> Option<(Lease, Duration)> {
        let lease = *self.shared.machine.lock().leases().get(id)?;
        let now = self.opened.elapsed();
        let measured = self.lease_timer.lock().remaining(id, lease.renewed, now);
        // The timer looks a moment after the entry was applied.
        let left = measured.unwrap_or(Duration::from_micros(lease.remaining));
        Some((lease, left))
    }

    /// The keys of this range that are attached to a lease, as far as is applied here.
    pub fn lease_keys(&self, name: LeaseName) -> Vec<Bytes> {
        let machine = self.shared.machine.lock();
        machine.leases().keys_of(name).cloned().collect()
    }

    /// Looks at the counter of an etcd keyspace. What is visible in the table is counted by then.
    pub fn etcd<T>(&self, look: impl FnOnce(&Revisions) -> T) -> T {
        match self.shared.machine.lock().etcd() {
            Some(revisions) => look(revisions),
            None => look(&Revisions::default()),
        }
    }

    /// All leases that this range keeps, as far as is applied here.
    pub fn lease_ids(&self) -> Vec<LeaseId> {
        self.shared.machine.lock().leases().ids().collect()
    }

    /// Up to `limit` leases that other ranges keep and that keys of this one are attached to, from
    /// the first behind `after` on.
    pub fn foreign_leases(&self, after: Option<LeaseName>, limit: usize) -> Vec<LeaseName> {
        self.shared.machine.lock().leases().foreign(after, limit)
    }

    /// What the lease timer has to propose now.
    pub(crate) fn leases_due(&self) -> Due {
        // First what is cheap: most ranges keep no leases.
        if self.shared.machine.lock().leases().is_empty() || !self.is_leader() {
            self.lease_timer.lock().rest();
            return Due::default();
        }
        let term = self.raft.metrics().borrow_watched().current_term;
        let machine = self.shared.machine.lock();
        let now = self.opened.elapsed();
        self.lease_timer.lock().look(now, term, machine.leases())
    }

    /// Whether the replica's ticks are off, since nobody uses the range.
    pub fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Relaxed)
    }

    /// Has another voter lead, and waits until this replica does not any more.
    ///
    /// # Errors
    ///
    /// [`ProposeError::Unknown`]: it leads still.
    pub async fn move_leader(&self, to: NodeId, deadline: Instant) -> Result<(), ProposeError> {
        self.wake();
        let asked = self.raft.trigger().transfer_leader(to.0).await;
        asked.map_err(|_| ProposeError::Stopped)?;
        while self.is_leader() {
            if Instant::now() >= deadline {
                return Err(ProposeError::Unknown);
            }
            tokio::time::sleep(MOVE_POLL).await;
        }
        Ok(())
    }

    /// Marks the group as used. A leader's ticks start again if they had stopped; a follower's
    /// leader is woken by what the follower asks of it, and wakes the follower.
    pub(crate) fn wake(&self) {
        self.uses.fetch_add(1, Ordering::Relaxed);
        if self.is_quiet() && self.is_leader() {
            self.start_ticks();
        }
    }

    /// The leader, or a candidate, has spoken: the group is not quiet any more.
    pub(crate) fn wake_by_leader(&self) {
        if self.is_quiet() {
            self.start_ticks();
        }
    }

    pub(crate) fn start_ticks(&self) {
        self.uses.fetch_add(1, Ordering::Relaxed);
        self.quiet.store(false, Ordering::Release);
        self.raft.runtime_config().tick(true);
    }

    pub(crate) fn stop_ticks(&self) {
        self.quiet.store(true, Ordering::Release);
        self.raft.runtime_config().tick(false);
    }
}

/// Why one submission did not go through.
enum Refused {
    LeaseExpired,
    Final(ProposeError),
}

impl From<ProposeError> for Refused {
    fn from(error: ProposeError) -> Self {
        Refused::Final(error)
    }
}

fn refusal(forward: &ForwardToLeader<Consensus>) -> Refused {
    if matches!(forward.reason, ForwardReason::LeaseExpired) {
        return Refused::LeaseExpired;
    }
    Refused::Final(ProposeError::NotLeader {
        hint: forward.leader_id.map(NodeId),
    })
}
