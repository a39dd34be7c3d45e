//! A node's part of the eventual path: its replicas, what it answers its peers, and its work in
//! the background.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use quorate_proto::internal::{
    EventualRequest, EventualResponse, Fetched, Joined, KeyState as WireState, Store, Stored,
    Stores, StoresTaken, eventual_request::Request, eventual_response::Response,
    stores_taken::Refused,
};
use quorate_storage::engine::Engine;
use quorate_storage::log::{LogError, NodeLog, Vote};
use quorate_types::causal::{Actor, Clock, Dots, KeyState};
use quorate_types::limits::CLOCK_OFFSET_MAX;
use quorate_types::{NodeId, RangeId, Timestamp};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::error::EventualError;
use crate::estimates::Estimates;
use crate::faults::{Faults, Witness};
use crate::fence::{COLLECT_AT_ONCE_KEYS_MAX, Fences};
use crate::lanes::Lanes;
use crate::latency::Latencies;
use crate::names::Names;
use crate::repair::AllCompared;
use crate::replica::{Replica, Synced, VisibleFollower, hints_step};
use crate::report::Counts;
use crate::rows::{STARTS_GROUP, range_of_plane};
use crate::seam::{Decisions, PeerFailure, Peers, Place, Places};
use crate::step::Step;

/// How often replicas are tended.
const TEND_INTERVAL: Duration = Duration::from_millis(200);
/// Steps of expired values that one round removes from a replica; the rest follows.
const EXPIRE_STEPS_MAX: usize = 16;

/// How a node's eventual path behaves.
#[derive(Clone, Debug)]
pub struct EventualOptions {
    /// Bytes of hints in all of this node's replicas; past it a stand-in declines.
    pub hints_max_bytes: u64,
    /// Bytes of hints of one range that no acknowledgement counted on.
    pub courtesy_max_bytes: usize,
    /// Whether hints are handed over.
    pub hand_over: bool,
    /// Whether hash trees are compared.
    pub repair: bool,
    /// How often they are, at the most.
    pub repair_interval: Duration,
    /// How often finished starts of nodes are closed, at the most.
    pub close_interval: Duration,
    /// Bytes of repair and hand-over that this node sends in a second.
    pub background_bytes_per_second: u64,
    /// Keys that one entry of a log absorbs at the most.
    pub absorb_keys_max: usize,
    /// What a test breaks on purpose. Never set elsewhere.
    #[doc(hidden)]
    pub faults: Faults,
    /// Who hears of every write. Never set but by tests.
    #[doc(hidden)]
    pub witness: Witness,
}

impl Default for EventualOptions {
    fn default() -> Self {
        EventualOptions {
            hints_max_bytes: 256 << 20,
            courtesy_max_bytes: 64 << 20,
            hand_over: true,
            repair: true,
            repair_interval: Duration::from_secs(1),
            close_interval: Duration::from_secs(60),
            background_bytes_per_second: 32 << 20,
            absorb_keys_max: 1_024,
            faults: Faults::default(),
            witness: Witness::default(),
        }
    }
}

/// A node's part of the eventual path. Cheap to clone.
#[derive(Clone)]
pub struct EventualNode {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) node: NodeId,
    pub(crate) actor: Actor,
    pub(crate) started: Timestamp,
    /// The same moment, for durations.
    pub(crate) began: Instant,
    pub(crate) options: EventualOptions,
    pub(crate) log: NodeLog,
    pub(crate) engine: Engine,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) places: Arc<dyn Places>,
    pub(crate) decisions: Arc<dyn Decisions>,
    pub(crate) replicas: RwLock<BTreeMap<RangeId, Arc<Replica>>>,
    opening: Mutex<()>,
    pub(crate) names: Mutex<Names>,
    pub(crate) latencies: Latencies,
    /// Of copies of writes, until they are acknowledged.
    pub(crate) copy_latencies: Latencies,
    pub(crate) estimates: Estimates,
    pub(crate) lanes: Lanes,
    pub(crate) fences: Fences,
    pub(crate) read_repairs: Mutex<HashSet<(RangeId, Bytes)>>,
    pub(crate) compared: Mutex<AllCompared>,
    pub(crate) counts: Counts,
    old_copy: AtomicBool,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
    }
}

/// A handle that does not keep its node's part alive.
#[derive(Clone)]
pub struct WeakEventualNode(Weak<Inner>);

impl WeakEventualNode {
    /// The node's part, if it is still there.
    pub fn upgrade(&self) -> Option<EventualNode> {
        self.0.upgrade().map(|inner| EventualNode { inner })
    }
}

impl std::fmt::Debug for EventualNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventualNode")
            .field("actor", &self.inner.actor)
            .finish_non_exhaustive()
    }
}

/// Takes the next start number, and returns once it is on disk: no name of a write is given
/// twice, whatever was lost.
async fn next_start(log: &NodeLog, faults: Faults) -> Result<u32, EventualError> {
    let starts = log.group(STARTS_GROUP);
    let vote = starts.vote().unwrap_or_default();
    let term = match faults.start_again {
        true => vote.term.max(1),
        false => vote.term + 1,
    };
    let (done, synced) = Synced::pair();
    starts.save_vote(Vote { term, ..vote }, done);
    synced.wait().await?;
    Ok(u32::try_from(term).unwrap_or(u32::MAX))
}

impl EventualNode {
    /// Opens what this node holds, and starts its work in the background.
    ///
    /// # Errors
    /// [`EventualError`] where log or engine cannot be read.
    pub async fn start(
        node: NodeId,
        (log, engine): (NodeLog, Engine),
        (peers, places, decisions): (Arc<dyn Peers>, Arc<dyn Places>, Arc<dyn Decisions>),
        options: EventualOptions,
    ) -> Result<EventualNode, EventualError> {
        let start = next_start(&log, options.faults).await?;
        let inner = Arc::new(Inner {
            node,
            actor: Actor {
                disk: node.0,
                start,
            },
            started: peers.now(),
            began: Instant::now(),
            options,
            log,
            engine,
            peers,
            places,
            decisions,
            replicas: RwLock::default(),
            opening: Mutex::default(),
            names: Mutex::default(),
            latencies: Latencies::default(),
            copy_latencies: Latencies::default(),
            estimates: Estimates::default(),
            lanes: Lanes::default(),
            fences: Fences::default(),
            read_repairs: Mutex::default(),
            compared: Mutex::default(),
            counts: Counts::default(),
            old_copy: AtomicBool::new(false),
            tasks: Mutex::default(),
        });
        inner.open_known()?;
        let weak = Arc::downgrade(&inner);
        let tend = tokio::spawn(async move {
            loop {
                tokio::time::sleep(TEND_INTERVAL).await;
                let Some(inner) = weak.upgrade() else { return };
                inner.tend().await;
            }
        });
        let mut tasks = inner.tasks.lock();
        tasks.push(tend.abort_handle());
        tasks.push(crate::absorb::start(&inner));
        if inner.options.hand_over {
            tasks.push(crate::hand_over::start(&inner));
        }
        if inner.options.repair {
            tasks.push(crate::repair::start(&inner));
        }
        drop(tasks);
        Ok(EventualNode { inner })
    }

    /// A handle that does not keep the node's part alive.
    pub fn downgrade(&self) -> WeakEventualNode {
        WeakEventualNode(Arc::downgrade(&self.inner))
    }

    /// Ends the work in the background. Log and engine are closed by their owner.
    pub fn stop(&self) {
        for task in self.inner.tasks.lock().drain(..) {
            task.abort();
        }
    }

    /// Whether this node has anything of a range.
    pub fn has(&self, range: RangeId) -> bool {
        self.inner.replicas.read().contains_key(&range)
    }

    /// How many hints this node keeps, and their bytes.
    pub fn hints(&self) -> (u64, u64) {
        let of = |replica: &Arc<Replica>| replica.with_hints(|hints| hints.len()) as u64;
        let count = self.inner.replicas.read().values().map(of).sum();
        (count, self.inner.hint_bytes())
    }

    /// Primaries that lack something of which a hint is kept here.
    pub fn hinted(&self) -> BTreeSet<NodeId> {
        let mut lack = BTreeSet::new();
        for replica in self.inner.all_replicas() {
            let Ok(place) = self.inner.place(replica.range) else {
                continue;
            };
            lack.extend(replica.with_hints(|hints| hints.targets(&place.holders.primaries)));
        }
        lack
    }

    /// Who names this start's writes.
    pub fn actor(&self) -> Actor {
        self.inner.actor
    }

    /// Follows what becomes visible in this node's replica of a range.
    ///
    /// # Errors
    /// [`EventualError`] where it cannot be opened.
    pub fn follow(&self, range: RangeId) -> Result<VisibleFollower, EventualError> {
        self.inner.replica(range).map(VisibleFollower::new)
    }

    /// Answers what another node asks; refusals are part of the answer. A write is taken in at
    /// once, and answered by the log's worker; everything else goes on by itself.
    pub fn answer_then(
        &self,
        from: NodeId,
        range: RangeId,
        request: EventualRequest,
        answer: Answer,
    ) {
        match request.request {
            Some(Request::Stores(stores)) => self.inner.store_then(range, stores, answer),
            // A reader waits for it, and it takes no time.
            Some(Request::Collect(collect)) if collect.keys.len() <= COLLECT_AT_ONCE_KEYS_MAX => {
                answer(response_of(self.inner.collect_here(range, &collect)));
            }
            _ => {
                let node = self.clone();
                tokio::spawn(async move { answer(node.answer(from, range, request).await) });
            }
        }
    }

    /// Answers what another node asks; refusals are part of the answer.
    pub async fn answer(
        &self,
        from: NodeId,
        range: RangeId,
        request: EventualRequest,
    ) -> EventualResponse {
        response_of(self.inner.serve(from, range, request).await)
    }
}

/// A refusal is an answer too.
fn response_of(served: Result<Response, EventualError>) -> EventualResponse {
    let response = served.unwrap_or_else(|error| {
        tracing::debug!(%error, "a peer's request was refused");
        Response::Problem(error.to_string())
    });
    EventualResponse {
        response: Some(response),
    }
}

impl Inner {
    /// Opens all that log and engine have.
    fn open_known(&self) -> Result<(), EventualError> {
        let stored = self.engine.ranges()?.into_iter().map(|(id, _)| id);
        let mut ids: Vec<u64> = stored.chain(self.log.groups()).collect();
        ids.sort_unstable();
        ids.dedup();
        for range in ids.into_iter().filter_map(range_of_plane) {
            self.replica(range)?;
        }
        Ok(())
    }

    /// Where a range lives.
    pub(crate) fn place(&self, range: RangeId) -> Result<Arc<Place>, EventualError> {
        self.places
            .place(range)
            .ok_or(EventualError::NoRange(range))
    }

    /// What this node holds of a range; opened at its first use.
    pub(crate) fn replica(&self, range: RangeId) -> Result<Arc<Replica>, EventualError> {
        if self.old_copy.load(Ordering::Relaxed) {
            return Err(EventualError::OldCopy);
        }
        if let Some(replica) = self.replicas.read().get(&range) {
            return Ok(replica.clone());
        }
        let _one_at_a_time = self.opening.lock();
        if let Some(replica) = self.replicas.read().get(&range) {
            return Ok(replica.clone());
        }
        let place = self.places.place(range);
        let founder = place
            .as_ref()
            .is_some_and(|place| place.founders.contains(&self.node));
        let decisions = place.filter(|place| place.has_log);
        let decisions = decisions.map(|_| self.decisions.clone());
        let storage = (&self.log, &self.engine);
        let faults = self.options.faults;
        let opened = Replica::open(range, self.actor, (founder, decisions), storage, faults)?;
        let replica = Arc::new(opened);
        self.replicas.write().insert(range, replica.clone());
        Ok(replica)
    }

    pub(crate) fn all_replicas(&self) -> Vec<Arc<Replica>> {
        self.replicas.read().values().cloned().collect()
    }

    /// Bytes of all hints here.
    pub(crate) fn hint_bytes(&self) -> u64 {
        let of = |replica: &Arc<Replica>| replica.with_hints(|hints| hints.bytes()) as u64;
        self.replicas.read().values().map(of).sum()
    }

    /// Declines new hints once their space is used up.
    pub(crate) fn check_hint_room(&self, replica: &Replica) -> Result<(), EventualError> {
        let limit_bytes = self.options.hints_max_bytes;
        // The sum over all replicas is only taken where one range alone is far enough.
        let here = replica.with_hints(|hints| hints.bytes()) as u64;
        if here * 2 > limit_bytes && self.hint_bytes() > limit_bytes {
            metrics::counter!("quorate_hints_declined_total").increment(1);
            return Err(EventualError::HintsFull { limit_bytes });
        }
        Ok(())
    }

    /// A clock that names a later start of this node's identity, or a write that this start never
    /// made, was made by another life of this disk: this one is an old copy, and must not serve.
    pub(crate) fn check_clock(
        &self,
        replica: &Replica,
        clock: &Clock,
    ) -> Result<(), EventualError> {
        // Names are given out before they travel, so this is never behind a true clock.
        let last = replica.counter();
        let is_other_life = clock.dots().actors().any(|(actor, counters)| {
            actor.disk == self.actor.disk
                && (actor.start > self.actor.start || actor == self.actor && counters.top() > last)
        });
        let mut closed = clock.dots().closed();
        let is_other_life = is_other_life
            || closed.any(|(disk, start)| disk == self.actor.disk && start > self.actor.start);
        if is_other_life {
            tracing::error!("{}", EventualError::OldCopy);
            self.old_copy.store(true, Ordering::Relaxed);
            return Err(EventualError::OldCopy);
        }
        Ok(())
    }

    /// Asks another node. That it refuses is a failure too.
    pub(crate) async fn ask(
        &self,
        to: NodeId,
        range: RangeId,
        request: Request,
        timeout: Duration,
    ) -> Result<Response, PeerFailure> {
        let request = EventualRequest {
            request: Some(request),
        };
        match self.peers.ask(to, range, request, timeout).await?.response {
            Some(Response::Problem(problem)) => Err(PeerFailure::Refused { node: to, problem }),
            Some(response) => Ok(response),
            None => Err(PeerFailure::NoAnswer(to)),
        }
    }

    async fn serve(
        &self,
        from: NodeId,
        range: RangeId,
        request: EventualRequest,
    ) -> Result<Response, EventualError> {
        let place = self.place(range)?;
        let replica = self.replica(range)?;
        let primary = place.holders.is_primary(self.node);
        let request = request
            .request
            .ok_or_else(|| EventualError::Peer("a request of a kind unknown here".to_owned()))?;
        match request {
            Request::Stores(stores) => self.take_stores(range, stores).await,
            Request::Fetch(fetch) => {
                let wanted = dots_from_wire(&fetch.wanted)?;
                let (state, missing) = if primary {
                    let (state, missing) = replica.fetch_with(&fetch.key, &wanted)?;
                    (Some(state), missing)
                } else {
                    let state = replica.fetch_hinted(&fetch.key)?;
                    let missing = missing_of_hints(state.as_ref(), &wanted);
                    (state, missing)
                };
                let state = state.map(|state| state.encode()).unwrap_or_default();
                let tentative = primary && replica.has_row(&fetch.key)?;
                Ok(Response::Fetched(Fetched {
                    primary,
                    state,
                    tentative,
                    missing: Some(dots_to_wire(&missing)),
                }))
            }
            Request::HandOver(hand_over) => self.take_hand_over(&replica, primary, hand_over).await,
            Request::Join(join) => {
                if !primary {
                    return Err(EventualError::NoRange(range));
                }
                take_join(&replica, join).await
            }
            Request::Page(page) if primary => {
                Ok(Response::PageOf(crate::scan::page_of(&replica, &page)?))
            }
            Request::RepairNow(_) => {
                let repaired = self.repair_now(range).await?;
                Ok(Response::RepairedNow(repaired))
            }
            Request::StartsAsked(_) => {
                Ok(Response::StartsHeld(self.starts_held(&replica, primary)))
            }
            Request::Page(_) => Err(EventualError::NoRange(range)),
            Request::Decide(decide) => self.serve_decide(range, decide).await,
            Request::Collect(collect) => self.collect_here(range, &collect),
            Request::TreeRoot(root) => {
                let index = replica.index();
                let response = crate::repair::serve_root(&replica, &root)?;
                let equal = matches!(&response, Response::TreeSums(sums) if sums.equal);
                self.note_compared((range, from), equal.then_some(index));
                told(&replica, response).await
            }
            Request::TreeLeaves(leaves) => {
                told(&replica, crate::repair::serve_leaves(&replica, &leaves)?).await
            }
            Request::TreeKeys(keys) => {
                told(&replica, crate::repair::serve_keys(&replica, &keys)?).await
            }
            Request::ClockMerge(merge) => {
                let clock = Clock::decode(&merge.clock)?;
                self.check_clock(&replica, &clock)?;
                tracing::trace!(%from, %range, "a repair has ended");
                let peer = (merge.decided, merge.epoch, merge.filled);
                self.merge_clock(&replica, Some(merge.clock), peer).await?;
                self.note_ended((range, from));
                let (_, decided) = self.decisions.applied_and_durable(range);
                Ok(Response::Joined(Joined {
                    primary: true,
                    states: Vec::new(),
                    decided,
                }))
            }
        }
    }

    /// Takes writes as a primary, or keeps hints of them as a stand-in, and answers when they are
    /// as safe as they are to be.
    fn store_then(&self, range: RangeId, stores: Stores, answer: Answer) {
        let respond = |response| EventualResponse {
            response: Some(response),
        };
        let memory = stores.memory || self.options.faults.acknowledge_before_sync;
        let (replica, primary) = match self.storing(range) {
            Ok(storing) => storing,
            Err(error) => return answer(respond(Response::Problem(error.to_string()))),
        };
        let steps = stores.stores.into_iter().map(|store| {
            let Store { key, deltas, .. } = store;
            if primary {
                return Ok(Step::Accept { key, deltas });
            }
            if self.options.faults.hints_unkept {
                return Ok(Step::Keep { hints: Vec::new() });
            }
            let wanted = u8::try_from(store.holders_wanted).unwrap_or(u8::MAX);
            hints_step(&key, &deltas, wanted)
        });
        replica.do_each(steps, |refused| {
            let refused = refused.into_iter().map(|(place, error)| Refused {
                place: u32::try_from(place).unwrap_or(u32::MAX),
                problem: error.to_string(),
            });
            let refused = refused.collect();
            let taken = Response::StoresTaken(StoresTaken { primary, refused });
            if memory {
                answer(respond(taken));
                return Box::new(|_| {});
            }
            Box::new(move |result| {
                answer(respond(match result {
                    Ok(()) => taken,
                    Err(error) => Response::Problem(EventualError::Log(error).to_string()),
                }));
            })
        });
    }

    /// Where this node stores writes of a range, and whether it holds it.
    fn storing(&self, range: RangeId) -> Result<(Arc<Replica>, bool), EventualError> {
        let primary = self.place(range)?.holders.is_primary(self.node);
        let replica = self.replica(range)?;
        if !primary {
            self.check_hint_room(&replica)?;
        }
        Ok((replica, primary))
    }

    /// As `store_then`, for those who wait.
    async fn take_stores(&self, range: RangeId, stores: Stores) -> Result<Response, EventualError> {
        let (sender, receiver) = oneshot::channel();
        let answer = Box::new(move |response: EventualResponse| {
            // The receiver waits below.
            let _ = sender.send(response);
        });
        self.store_then(range, stores, answer);
        let answered = receiver.await.ok().and_then(|answer| answer.response);
        answered.ok_or_else(|| EventualError::Log(Arc::new(LogError::Closed)))
    }

    async fn take_hand_over(
        &self,
        replica: &Replica,
        primary: bool,
        hand_over: quorate_proto::internal::HandOver,
    ) -> Result<Response, EventualError> {
        if !primary {
            return Err(EventualError::NoRange(replica.range));
        }
        let steps = hand_over.items.into_iter().map(|item| Step::Accept {
            key: item.key,
            deltas: vec![item.delta],
        });
        replica.do_steps(steps).await?;
        Ok(Response::Stored(Stored { primary }))
    }

    /// What is due from time to time.
    async fn tend(&self) {
        for replica in self.all_replicas() {
            if self.places.was_dropped(replica.range) {
                self.drop_replica(&replica);
                continue;
            }
            let settled = settle_all(&replica).await;
            if let Err(error) = settled.and_then(|()| replica.tend()) {
                tracing::error!(range = %replica.range, %error, "a replica cannot be tended");
            }
            self.warm(&replica).await;
            if let Err(error) = self.expire(&replica).await {
                tracing::error!(range = %replica.range, %error, "expired values stay");
            }
            if let Ok(place) = self.place(replica.range) {
                self.sweep_hints(&replica, &place);
            }
        }
        metrics::gauge!("quorate_hint_bytes").set(self.hint_bytes() as f64);
        metrics::gauge!("quorate_repair_lag_seconds").set(self.repair_lag().as_secs_f64());
    }

    /// Builds what is not built yet of a replica's hash tree.
    async fn warm(&self, replica: &Replica) {
        if self.options.faults.leave_trees_cold {
            return;
        }
        loop {
            match replica.warm() {
                Ok(false) => break,
                Ok(true) => tokio::task::yield_now().await,
                Err(error) => {
                    tracing::error!(range = %replica.range, %error, "a tree cannot be built");
                    break;
                }
            }
        }
    }

    /// Removes values whose time is over by any clock that is within bounds: reads hide them
    /// already.
    async fn expire(&self, replica: &Replica) -> Result<(), EventualError> {
        if !self.peers.clock_is_sound() && !self.options.faults.trust_any_clock {
            return Ok(());
        }
        let offset = u64::try_from(CLOCK_OFFSET_MAX.as_micros()).unwrap_or(u64::MAX);
        let deadline = Timestamp(self.peers.now().0.saturating_sub(offset));
        for _ in 0..EXPIRE_STEPS_MAX {
            if !replica.expire_some(deadline)? {
                break;
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// The keyspace is gone, and what is left of it here.
    fn drop_replica(&self, replica: &Replica) {
        self.replicas.write().remove(&replica.range);
        let id = crate::rows::plane_id(replica.range);
        if let Err(error) = self.engine.drop_range(id) {
            tracing::error!(range = %replica.range, %error, "a dropped range stays in the engine");
        }
        self.log.remove_group(id, Box::new(|_| {}));
    }

    /// Forgets hints that all have, and courtesies that take too much room.
    fn sweep_hints(&self, replica: &Replica, place: &Place) {
        let primaries = &place.holders.primaries;
        let needed = match self.options.faults.any_primary {
            true => 1,
            false => primaries.len(),
        };
        let (done, surplus) = replica.with_hints(|hints| {
            (
                hints.done(primaries, needed, crate::hand_over::BATCH_HINTS_MAX),
                hints.surplus(primaries, self.options.courtesy_max_bytes),
            )
        });
        metrics::counter!("quorate_hints_dropped_total").increment(surplus.len() as u64);
        for dots in [done, surplus] {
            if !dots.is_empty()
                && let Err(error) = replica.do_step(&Step::Forget { dots })
            {
                tracing::error!(range = %replica.range, %error, "hints cannot be forgotten");
            }
        }
    }
}

/// Sends an answer to a peer. Does not block.
pub type Answer = Box<dyn FnOnce(EventualResponse) + Send>;

/// Trims all that is due: a record that is not settled differs from a peer's that is.
pub(crate) async fn settle_all(replica: &Replica) -> Result<(), EventualError> {
    while replica.settle_some()? {
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Dots on the wire; none: no bytes.
pub(crate) fn dots_to_wire(dots: &Dots) -> Bytes {
    match dots.is_empty() {
        true => Bytes::new(),
        false => dots.to_bytes(),
    }
}

/// Reads what [`dots_to_wire`] wrote.
pub(crate) fn dots_from_wire(bytes: &Bytes) -> Result<Dots, EventualError> {
    match bytes.is_empty() {
        true => Ok(Dots::new()),
        false => Ok(Dots::from_bytes(bytes)?),
    }
}

/// Which of some dots a stand-in's hints of a key do not tell of.
pub(crate) fn missing_of_hints(hinted: Option<&KeyState>, wanted: &Dots) -> Dots {
    match hinted {
        Some(state) => wanted.without(state.context()),
        None => wanted.clone(),
    }
}

/// Answers a comparison once what was compared is on disk. Else a clock could outlive it: where
/// the power fails after the comparison, the peer's clock would come to know, and so kill, what
/// only this node's memory held.
async fn told(replica: &Replica, response: Response) -> Result<Response, EventualError> {
    replica.all_synced().wait().await?;
    Ok(response)
}

fn joined(states: Vec<WireState>) -> Response {
    Response::Joined(Joined {
        primary: true,
        states,
        decided: 0,
    })
}

/// Joins what a peer knows of some keys, and says what is known here then.
async fn take_join(
    replica: &Replica,
    join: quorate_proto::internal::Join,
) -> Result<Response, EventualError> {
    let mut states = Vec::new();
    for WireState { key, state } in join.states {
        if !state.is_empty() {
            let key = key.clone();
            replica.do_step(&Step::Join { key, state })?;
        }
        if join.answer_states {
            let state = replica.held(&key)?.encode();
            states.push(WireState { key, state });
        }
    }
    told(replica, joined(states)).await
}
