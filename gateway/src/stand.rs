//! What a replica must know of itself before it may serve a read at a level.
//!
//! Each level becomes a standing point: from then on the replica's state is new enough, and what
//! is read from its table is an answer at that level. What cannot be met says whether another
//! replica might. The rules are those of closed timestamps and ReadIndex (DESIGN, section 3).

use std::time::Duration;

use quorate_raft::{Group, ReadError};
use quorate_types::limits::CLOCK_OFFSET_MAX;
use quorate_types::{NodeId, ReadLevel, Revision, Timestamp};
use tokio::time::Instant;

use crate::errors::GatewayError;
use crate::gateway::Gateway;
use crate::receipt::Spent;
use crate::route::Tried;

/// How long one replica is given to confirm a read before another one is tried.
const CONFIRM_MAX: Duration = Duration::from_millis(1_000);
/// How long one replica is given to catch up with a session or to close a timestamp.
pub(crate) const CATCH_UP_MAX: Duration = Duration::from_millis(500);

/// What a read asks of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// The newest state that a level promises, and at least this revision, which a session has
    /// seen.
    Level(ReadLevel, Revision),
    /// The state as of one revision.
    At(Revision),
}

/// A replica may serve the read.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// Read the state as of it; none: the newest.
    pub(crate) at: Option<Revision>,
    /// The state has at least everything up to it.
    pub(crate) revision: Revision,
    /// Bound on its age; none: not known.
    pub(crate) staleness: Option<Duration>,
    /// The time it took.
    pub(crate) spent: Spent,
    /// What the session has seen and it lacks, in words; usually nothing.
    pub(crate) missing: String,
}

/// Why a replica may not serve the read. Without effect.
#[derive(Debug)]
pub(crate) enum Unmet {
    /// It would need a leader, who is not known, or may be this one.
    Elsewhere(Option<NodeId>),
    /// Another replica, or a later moment, may serve it.
    NotNow(GatewayError),
    /// No replica will.
    Never(GatewayError),
}

impl From<ReadError> for Unmet {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotLeader { hint } => Unmet::Elsewhere(hint),
            ReadError::NoMajority | ReadError::Stopped => Unmet::Elsewhere(None),
            ReadError::TimedOut => Unmet::NotNow(GatewayError::TimedOut),
        }
    }
}

impl<T> From<Unmet> for Tried<T> {
    fn from(unmet: Unmet) -> Self {
        match unmet {
            Unmet::Elsewhere(hint) => Tried::Elsewhere { hint },
            Unmet::NotNow(error) => Tried::NotNow(error),
            Unmet::Never(error) => Tried::Done(Err(error)),
        }
    }
}

impl Gateway {
    /// Brings a replica of this node to where it may serve a read.
    pub(crate) async fn stand(
        &self,
        group: &Group,
        want: Want,
        deadline: Instant,
    ) -> Result<Standing, Unmet> {
        let spent = Spent::begin();
        // Boxed, but for the confirmation: the futures of all reads would be as large as the
        // largest way.
        match want {
            Want::At(at) => Box::pin(self.stand_at(group, at, spent, deadline)).await,
            Want::Level(ReadLevel::Linearizable, _) => confirm(group, spent, deadline).await,
            Want::Level(ReadLevel::Bounded(age), wanted) => {
                close(group, wanted, deadline).await?;
                Box::pin(self.stand_within(group, age, spent, deadline)).await
            }
            Want::Level(ReadLevel::Session | ReadLevel::Stale, wanted) => {
                close(group, wanted, deadline).await?;
                Ok(self.newest(group, spent.confirmed()))
            }
            // Refused before anything is routed; a peer of another version may still ask.
            Want::Level(ReadLevel::Eventual(_), _) => {
                let mode = quorate_types::Mode::Mixed;
                Err(Unmet::Never(GatewayError::no_eventual_plane(
                    "an eventual read",
                    mode,
                )))
            }
        }
    }

    async fn stand_at(
        &self,
        group: &Group,
        at: Revision,
        spent: Spent,
        deadline: Instant,
    ) -> Result<Standing, Unmet> {
        self.not_in_future(at).map_err(Unmet::Never)?;
        let limit = deadline.min(Instant::now() + CONFIRM_MAX);
        group.close_at(at, limit).await?;
        let staleness = Some(age_bound(self.node().now(), at));
        Ok(Standing {
            at: Some(at),
            revision: at,
            staleness,
            spent: spent.confirmed(),
            missing: String::new(),
        })
    }

    /// Refuses a revision that no clock within bounds has reached.
    pub(crate) fn not_in_future(&self, at: Revision) -> Result<(), GatewayError> {
        let now = self.node().now();
        if at.0 <= now.saturating_add(CLOCK_OFFSET_MAX).0 {
            return Ok(());
        }
        Err(GatewayError::RevisionFuture {
            at,
            now: Revision(now.0),
        })
    }

    /// `bounded`: served while own clock - closed <= age - clock offset. A closed timestamp that is
    /// too old, as on an idle range, is raised on demand.
    async fn stand_within(
        &self,
        group: &Group,
        age: Duration,
        spent: Spent,
        deadline: Instant,
    ) -> Result<Standing, Unmet> {
        let Some(allowed) = age
            .checked_sub(CLOCK_OFFSET_MAX)
            .filter(|left| !left.is_zero())
        else {
            // Closer than clocks are: only a confirmed read is known to be as fresh.
            return confirm(group, spent, deadline).await;
        };
        let now = self.node().now();
        if age_of(now, group.closed()) <= allowed || self.faults().serve_past_bound {
            return Ok(self.newest(group, spent));
        }
        // Half-way, so that the reads that follow need not ask again.
        let target = Revision(now.saturating_sub(allowed / 2).0);
        let limit = deadline.min(Instant::now() + CATCH_UP_MAX);
        let closed = group.close_at(target, limit).await;
        let now = self.node().now();
        if age_of(now, group.closed()) <= allowed {
            return Ok(self.newest(group, spent.confirmed()));
        }
        if let Err(ReadError::NotLeader { hint: Some(leader) }) = closed
            && leader != self.node_id()
        {
            return Err(Unmet::Elsewhere(Some(leader)));
        }
        let best = Some(age_bound(now, group.closed()));
        let range = group.range_id();
        Err(Unmet::NotNow(GatewayError::StalenessExceeded {
            range,
            wanted: age,
            best,
        }))
    }

    /// The newest state here: a prefix of the log that has at least all that is closed.
    pub(crate) fn newest(&self, group: &Group, spent: Spent) -> Standing {
        let staleness = Some(age_bound(self.node().now(), group.closed()));
        Standing {
            at: None,
            revision: group.applied_revision(),
            staleness,
            spent,
            missing: String::new(),
        }
    }
}

/// Waits until the replica has all up to a revision.
async fn close(group: &Group, wanted: Revision, deadline: Instant) -> Result<(), Unmet> {
    let limit = deadline.min(Instant::now() + CATCH_UP_MAX);
    if group.closed() < wanted && Box::pin(group.close_at(wanted, limit)).await.is_err() {
        let range = group.range_id();
        return Err(Unmet::NotNow(GatewayError::NotCaughtUp { range, wanted }));
    }
    Ok(())
}

async fn confirm(group: &Group, spent: Spent, deadline: Instant) -> Result<Standing, Unmet> {
    let limit = deadline.min(Instant::now() + CONFIRM_MAX);
    let point = group.read_barrier(limit).await?;
    Ok(Standing {
        at: None,
        revision: point.revision,
        staleness: Some(Duration::ZERO),
        spent: spent.confirmed(),
        missing: String::new(),
    })
}

fn age_of(now: Timestamp, closed: Revision) -> Duration {
    now.saturating_duration_since(Timestamp(closed.0))
}

/// How old the state at `closed` is at the most, on anybody's clock.
fn age_bound(now: Timestamp, closed: Revision) -> Duration {
    age_of(now, closed) + CLOCK_OFFSET_MAX
}
