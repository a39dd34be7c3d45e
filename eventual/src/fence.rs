//! Fences: what a majority of a range's primaries shows of a key is brought into the range's log,
//! so that a read of the log that starts afterwards sees every write that a majority of primaries
//! had acknowledged before.
//!
//! Fences of one range share rounds, as linearizable reads do: one that comes while a round is
//! under way waits for the next, since the round may have asked before a write that the fence must
//! not miss. A round asks each primary once for all its keys, and hears of those alone of which
//! there is something; what is news to the log goes there in one entry.
//!
//! Not here: the log (`seam::Decisions`), and who leads it (`decide`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use quorate_proto::internal::{
    Collect, Collected, KeyState as WireState, eventual_request::Request,
    eventual_response::Response,
};
use quorate_types::RangeId;
use quorate_types::causal::{Actor, Dots, KeyState};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::decide::{Unmet, differs};
use crate::error::EventualError;
use crate::node::{EventualNode, Inner};
use crate::replica::Replica;
use crate::seam::Proposal;

/// A primary that has not told a round what it shows after this is left out.
const COLLECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A round that is not done by then is given up: others wait behind it.
const ROUND_TIMEOUT: Duration = Duration::from_secs(2);
/// Fences in one round; the others wait for the next.
const FENCES_PER_ROUND_MAX: usize = 1_024;
/// Keys that a peer is told of at once, before anything else that it asks.
pub(crate) const COLLECT_AT_ONCE_KEYS_MAX: usize = 64;
/// Bytes of what one entry absorbs; the key that crosses it is the last.
const ENTRY_BYTES_MAX: usize = 512 << 10;

/// What a round came to, told to all of its fences.
type Outcome = Result<bool, EventualError>;

struct Fence {
    key: Bytes,
    deadline: Instant,
    told: oneshot::Sender<Outcome>,
}

/// Fences of one range that wait for a round.
#[derive(Default)]
struct Lane {
    waiting: Vec<Fence>,
    is_running: bool,
}

/// Fences that wait, by range. A lane is there while a round is under way.
#[derive(Default)]
pub(crate) struct Fences(Mutex<BTreeMap<RangeId, Lane>>);

impl Fences {
    /// Returns whether nobody runs rounds of the range yet: the caller is to.
    fn join(&self, range: RangeId, fence: Fence) -> bool {
        let mut lanes = self.0.lock();
        let lane = lanes.entry(range).or_default();
        lane.waiting.push(fence);
        !std::mem::replace(&mut lane.is_running, true)
    }

    /// Closes the lane if no fence waits, and says whether it is closed.
    fn close(&self, range: RangeId) -> bool {
        let mut lanes = self.0.lock();
        if lanes
            .get(&range)
            .is_some_and(|lane| lane.waiting.is_empty())
        {
            lanes.remove(&range);
        }
        !lanes.contains_key(&range)
    }

    /// The fences of the next round; `None`: none waits, and the lane is closed.
    fn next(&self, range: RangeId) -> Option<Vec<Fence>> {
        let mut lanes = self.0.lock();
        let lane = lanes.get_mut(&range)?;
        if lane.waiting.is_empty() {
            lanes.remove(&range);
            return None;
        }
        let taken = lane.waiting.len().min(FENCES_PER_ROUND_MAX);
        Some(lane.waiting.drain(..taken).collect())
    }
}

/// Rounds that are left to run when whoever ran the first one is done, or was dropped.
struct Rest {
    inner: Arc<Inner>,
    range: RangeId,
}

impl Drop for Rest {
    fn drop(&mut self) {
        if self.inner.fences.close(self.range) {
            return;
        }
        let (inner, range) = (self.inner.clone(), self.range);
        // Without a runtime nobody waits any more.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { while !inner.run_fences_once(range).await {} });
        }
    }
}

/// What primaries have told a round of its keys, joined.
type Shown = BTreeMap<Bytes, KeyState>;

impl EventualNode {
    /// Brings into a range's log what a majority of primaries shows of a key. Returns whether the
    /// round that did so found anything for the log, of this key or of another one.
    ///
    /// # Errors
    /// [`EventualError`] where no majority answers, or the log does not decide in time; what it
    /// absorbs late is no harm.
    pub async fn fence(
        &self,
        range: RangeId,
        key: &Bytes,
        deadline: Instant,
    ) -> Result<bool, EventualError> {
        loop {
            match self.inner.join_fences(range, key, deadline).await {
                // The round was given up for those behind it.
                Err(EventualError::NotDecided { .. }) if Instant::now() < deadline => {}
                outcome => return outcome,
            }
        }
    }
}

impl Inner {
    /// Waits for the next round.
    async fn join_fences(
        self: &Arc<Self>,
        range: RangeId,
        key: &Bytes,
        deadline: Instant,
    ) -> Outcome {
        let (told, outcome) = oneshot::channel();
        let fence = Fence {
            key: key.clone(),
            deadline,
            told,
        };
        if self.fences.join(range, fence) {
            // The first round here: a task would only have to be waked. If this is dropped
            // meanwhile, and for what came since, the guard sees to it.
            let rest = Rest {
                inner: self.clone(),
                range,
            };
            let _ = tokio::time::timeout_at(deadline, self.run_fences_once(range)).await;
            drop(rest);
        }
        match tokio::time::timeout_at(deadline, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(EventualError::NotDecided {
                range,
                why: "a fence was not done in time".to_owned(),
            }),
        }
    }

    /// The next round, if any fence waits. Returns whether the lane is closed.
    async fn run_fences_once(&self, range: RangeId) -> bool {
        let Some(mut fences) = self.fences.next(range) else {
            return true;
        };
        // Who ran out of time does not wait any more.
        fences.retain(|fence| !fence.told.is_closed());
        let Some(deadline) = fences.iter().map(|fence| fence.deadline).max() else {
            return false;
        };
        let deadline = deadline.min(Instant::now() + ROUND_TIMEOUT);
        let keys: BTreeSet<Bytes> = fences.iter().map(|fence| fence.key.clone()).collect();
        let outcome = self.fence_round(range, &keys, deadline).await;
        for fence in fences {
            let _ = fence.told.send(outcome.clone());
        }
        false
    }

    /// Brings what a majority shows of some keys to the log. Returns whether there was anything.
    async fn fence_round(
        &self,
        range: RangeId,
        keys: &BTreeSet<Bytes>,
        deadline: Instant,
    ) -> Result<bool, EventualError> {
        let shown = self.collect(range, keys, deadline).await?;
        let mut items = Vec::new();
        for (key, state) in shown {
            let decided = self.decisions.decided(range, &key)?;
            if decided.is_none_or(|(decided, _)| is_news(&state, &decided)) {
                items.push((key, state.encode()));
            }
        }
        let found = !items.is_empty();
        metrics::counter!("quorate_fences_absorbed_total").increment(items.len() as u64);
        while !items.is_empty() {
            let left = items.split_off(fitting(&items));
            let proposal = Proposal::Absorb { items, base: None };
            match self.decide(range, &proposal, deadline).await {
                Ok(_) => items = left,
                Err(Unmet::NoMajority | Unmet::NotInTime) => {
                    return Err(EventualError::NotDecided {
                        range,
                        why: "no majority decided on a fence in time".to_owned(),
                    });
                }
            }
        }
        Ok(found)
    }

    /// What a majority of primaries shows of these keys that the logs on their disks may not know.
    /// What those know that do not speak of a key, the log has decided.
    async fn collect(
        &self,
        range: RangeId,
        keys: &BTreeSet<Bytes>,
        deadline: Instant,
    ) -> Result<Shown, EventualError> {
        let place = self.place(range)?;
        let primaries = &place.holders.primaries;
        let wanted = match self.options.faults.fence_of_one {
            true => 1,
            false => primaries.len() / 2 + 1,
        };
        let (mut shown, mut told) = (Shown::new(), 0);
        let mut asked = FuturesUnordered::new();
        for node in primaries.iter().filter(|node| **node != self.node) {
            let keys = keys.iter().cloned().collect();
            let request = Request::Collect(Collect { keys });
            let answer = self.ask(*node, range, request, COLLECT_TIMEOUT);
            asked.push(async move { (*node, answer.await) });
        }
        if primaries.contains(&self.node) {
            let replica = self.replica(range)?;
            match shown_of(&replica, keys) {
                Ok(states) => {
                    states.into_iter().for_each(|state| join(&mut shown, state));
                    told += 1;
                }
                Err(error) => tracing::debug!(%range, %error, "a fence goes on without this node"),
            }
        }
        while told < wanted {
            let next = tokio::time::timeout_at(deadline, asked.next()).await;
            let Ok(Some((node, answer))) = next else {
                break;
            };
            match answer.map_err(EventualError::from).and_then(states_of) {
                Ok(states) => {
                    states.into_iter().for_each(|state| join(&mut shown, state));
                    told += 1;
                }
                Err(error) => tracing::debug!(%range, %node, %error, "a fence goes on without"),
            }
        }
        if told < wanted {
            return Err(EventualError::TooFewAnswers {
                range,
                wanted,
                answered: told,
            });
        }
        Ok(shown)
    }

    /// Tells a fence of another node what is shown here.
    pub(crate) fn collect_here(
        &self,
        range: RangeId,
        collect: &Collect,
    ) -> Result<Response, EventualError> {
        let primary = self.place(range)?.holders.is_primary(self.node);
        let states = match primary {
            true => shown_of(&*self.replica(range)?, &collect.keys)?,
            false => Vec::new(),
        };
        let states = states.into_iter().map(|(key, state)| WireState {
            key,
            state: state.encode(),
        });
        Ok(Response::Collected(Collected {
            primary,
            states: states.collect(),
        }))
    }
}

/// What a primary shows of those keys that its log's state on the disk may not know.
fn shown_of<'a>(
    replica: &Replica,
    keys: impl IntoIterator<Item = &'a Bytes>,
) -> Result<Vec<(Bytes, KeyState)>, EventualError> {
    replica.check_filled()?;
    if !replica.may_have_rows() {
        return Ok(Vec::new());
    }
    let mut shown = Vec::new();
    for key in keys {
        if replica.has_row(key)? {
            shown.push((key.clone(), replica.fetch(key)?));
        }
    }
    Ok(shown)
}

fn states_of(answer: Response) -> Result<Vec<(Bytes, KeyState)>, EventualError> {
    let Response::Collected(collected) = answer else {
        return Err(EventualError::Peer("an answer of another kind".to_owned()));
    };
    if !collected.primary {
        return Err(EventualError::Peer("no primary any more".to_owned()));
    }
    let states = collected.states.into_iter();
    states
        .map(|known| Ok((known.key, KeyState::decode(&known.state)?)))
        .collect()
}

fn join(shown: &mut Shown, (key, state): (Bytes, KeyState)) {
    shown.entry(key).or_default().join(&state);
}

/// How many of these go into one entry.
fn fitting(items: &[(Bytes, Bytes)]) -> usize {
    let mut bytes = 0;
    let fits = items.iter().take_while(|(key, state)| {
        let is_room = bytes < ENTRY_BYTES_MAX;
        bytes += key.len() + state.len();
        is_room
    });
    fits.count()
}

/// Whether a view knows anything of the key's tentative writes that the log does not.
fn is_news(view: &KeyState, decided: &KeyState) -> bool {
    let tentative = view.context().actors();
    let tentative: Dots = tentative.filter(|(actor, _)| *actor != Actor::LOG).fold(
        Dots::new(),
        |mut all, (actor, counters)| {
            all.insert_all(actor, counters);
            all
        },
    );
    differs(view, decided) || !tentative.is_within(decided.context())
}
