//! Where the log of a `mixed` range is asked to decide something, whoever leads it; the strong
//! attempts of ladders; and whether the log knows what is shown.
//!
//! A strong attempt proposes the very deltas that the next rung may spread, so that a late attempt
//! is a late copy.
//!
//! Not here: the log, which is behind `seam::Decisions`, and fences (`fence`).

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::internal as wire;
use quorate_proto::internal::{
    Decide, Decided, eventual_request::Request, eventual_response::Response,
};
use quorate_types::causal::{Actor, KeyState};
use quorate_types::{NodeId, RangeId, Revision};
use tokio::time::Instant;

use crate::coordinator::WriteRequest;
use crate::error::EventualError;
use crate::node::{EventualNode, Inner};
use crate::seam::{Place, Proposal};

/// Pause before a log that did not decide is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// Bytes of values that a strong attempt brings to the log beside its own; what is more is
/// absorbed soon.
const BESIDE_BYTES_MAX: usize = 512 << 10;

/// Why a rung of the log was not met.
pub(crate) enum Unmet {
    /// No majority of primaries is in reach: it was not tried.
    NoMajority,
    /// It was tried; it may be decided yet.
    NotInTime,
}

impl Inner {
    /// Has the log of a range decide something, whoever leads it, until `deadline`.
    pub(crate) async fn decide(
        &self,
        range: RangeId,
        proposal: &Proposal,
        deadline: Instant,
    ) -> Result<Revision, Unmet> {
        let Ok(place) = self.place(range) else {
            return Err(Unmet::NoMajority);
        };
        if self.primaries_in_reach(&place) * 2 <= place.holders.primaries.len() {
            return Err(Unmet::NoMajority);
        }
        let attempts = async {
            let mut turn = 0;
            loop {
                let to = self.next_to_decide(range, &place, turn);
                turn += 1;
                match self.decide_at(to, range, proposal, deadline).await {
                    Ok(revision) => return revision,
                    Err(error) => tracing::debug!(%range, %error, "not decided"),
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        };
        let decided = tokio::time::timeout_at(deadline, attempts).await;
        decided.map_err(|_| Unmet::NotInTime)
    }

    fn primaries_in_reach(&self, place: &Place) -> usize {
        let in_reach = |node: &&NodeId| **node == self.node || self.peers.reachable(**node);
        place.holders.primaries.iter().filter(in_reach).count()
    }

    /// The leader where it is known, else one primary after the other.
    fn next_to_decide(&self, range: RangeId, place: &Place, turn: usize) -> NodeId {
        let primaries = &place.holders.primaries;
        let guessed = primaries.get(turn % primaries.len().max(1)).copied();
        let leader = self.decisions.leader(range);
        // A leader that did not decide may have been deposed unheard.
        let leader = leader.filter(|_| turn.is_multiple_of(2));
        leader.or(guessed).unwrap_or(self.node)
    }

    async fn decide_at(
        &self,
        to: NodeId,
        range: RangeId,
        proposal: &Proposal,
        deadline: Instant,
    ) -> Result<Revision, EventualError> {
        if to == self.node {
            let decided = self.decisions.decide(range, proposal.clone(), deadline);
            return decided.await;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
        let request = Request::Decide(proposal.to_wire(timeout_ms));
        match self.ask(to, range, request, left).await? {
            Response::Decided(decided) => Ok(Revision(decided.revision)),
            _ => Err(EventualError::Peer("an answer of another kind".to_owned())),
        }
    }

    /// Proposes what a peer asks for, if this node leads.
    pub(crate) async fn serve_decide(
        &self,
        range: RangeId,
        decide: Decide,
    ) -> Result<Response, EventualError> {
        let deadline = Instant::now() + Duration::from_millis(u64::from(decide.timeout_ms));
        let proposal = Proposal::from_wire(decide);
        let revision = self.decisions.decide(range, proposal, deadline).await?;
        let revision = revision.0;
        Ok(Response::Decided(Decided { revision }))
    }
}

impl EventualNode {
    /// Whether this node shows of a key what the log has not decided. Cheap where no key of the
    /// range waits for the log.
    ///
    /// # Errors
    /// [`EventualError`] where what is stored cannot be read.
    pub fn is_tentative(&self, range: RangeId, key: &Bytes) -> Result<bool, EventualError> {
        let replica = self.inner.replicas.read().get(&range).cloned();
        let Some(replica) = replica.filter(|replica| replica.may_have_rows()) else {
            return Ok(false);
        };
        let shown = replica.held(key)?;
        let decided = self.inner.decisions.decided(range, key)?;
        Ok(decided.is_some_and(|(decided, _)| differs(&shown, &decided)))
    }

    /// Whether what was read of a key differs from what the log has decided, as far as this node
    /// has applied it; `None`: it is no replica of the log.
    ///
    /// # Errors
    /// [`EventualError`] where what is stored cannot be read.
    pub fn differs_from_log(
        &self,
        range: RangeId,
        key: &Bytes,
        state: &KeyState,
    ) -> Result<Option<bool>, EventualError> {
        let decided = self.inner.decisions.decided(range, key)?;
        Ok(decided.map(|(decided, _)| differs(state, &decided)))
    }
}

/// Whether a view shows a value that the log does not know, or lacks one that it knows and the
/// log shows.
pub(crate) fn differs(view: &KeyState, decided: &KeyState) -> bool {
    let is_live = |state: &KeyState, dot| state.live().any(|(live, _)| *live == dot);
    // What the log has named is decided, known here or not.
    let undecided = view
        .live()
        .any(|(dot, _)| dot.actor != Actor::LOG && !decided.context().contains(*dot));
    let replaced = decided
        .live()
        .any(|(dot, _)| view.context().contains(*dot) && !is_live(view, *dot));
    undecided || replaced
}

/// What the log is asked for, on the wire.
impl Proposal {
    fn to_wire(&self, timeout_ms: u32) -> Decide {
        match self.clone() {
            Proposal::Tentative { key, deltas } => Decide {
                key,
                deltas,
                timeout_ms,
                states: Vec::new(),
            },
            // A base is told by the leader alone, of itself.
            Proposal::Absorb { items, .. } => Decide {
                states: items
                    .into_iter()
                    .map(|(key, state)| wire::KeyState { key, state })
                    .collect(),
                timeout_ms,
                ..Decide::default()
            },
        }
    }

    fn from_wire(decide: Decide) -> Proposal {
        if decide.states.is_empty() {
            return Proposal::Tentative {
                key: decide.key,
                deltas: decide.deltas,
            };
        }
        let items = decide.states.into_iter();
        Proposal::Absorb {
            items: items.map(|known| (known.key, known.state)).collect(),
            base: None,
        }
    }
}

/// What the strong rungs of a ladder came to.
#[derive(Default)]
pub(crate) struct Strong {
    /// The rung that was met, and the revision.
    pub(crate) met: Option<(usize, Revision)>,
    /// Why those above it were not.
    pub(crate) failed: Vec<&'static str>,
}

impl EventualNode {
    /// Before a ladder's write is planned from what this node sees: brings that up to date with
    /// the log, where it can be had in half the time of the first rung. Else a put that follows
    /// another one would stand beside it wherever the coordinator lags.
    pub(crate) async fn look_up(&self, request: &WriteRequest) {
        let Some(first) = request.strong.first().filter(|_| request.seen.is_none()) else {
            return;
        };
        let inner = &self.inner;
        let Ok(place) = inner.place(request.range) else {
            return;
        };
        if inner.primaries_in_reach(&place) * 2 <= place.holders.primaries.len() {
            return;
        }
        let now = Instant::now();
        let half = now + first.saturating_duration_since(now) / 2;
        if !inner.decisions.catch_up(request.range, half).await {
            tracing::debug!(range = %request.range, "a ladder begins with what is seen here");
        }
    }

    /// Tries the strong rungs of a ladder, each until its deadline. The log takes in `beside`
    /// first, in the same entry.
    pub(crate) async fn strong_rungs(
        &self,
        request: &WriteRequest,
        (beside, deltas): (&[Bytes], &[Bytes]),
    ) -> Strong {
        let mut strong = Strong::default();
        if request.strong.is_empty() {
            return strong;
        }
        if beside.iter().map(Bytes::len).sum::<usize>() > BESIDE_BYTES_MAX {
            let too_much = "more of the key waits for the log than one entry takes";
            strong.failed = vec![too_much; request.strong.len()];
            return strong;
        }
        let proposal = Proposal::Tentative {
            key: request.key.clone(),
            deltas: [beside, deltas].concat(),
        };
        for (at, deadline) in request.strong.iter().enumerate() {
            match self.inner.decide(request.range, &proposal, *deadline).await {
                Ok(revision) => {
                    strong.met = Some((at, revision));
                    return strong;
                }
                Err(Unmet::NoMajority) => strong.failed.push("no majority in reach"),
                Err(Unmet::NotInTime) => strong.failed.push("not decided in time"),
            }
        }
        strong
    }
}
