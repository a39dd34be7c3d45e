//! The simulated network between nodes: late, lost, repeated and reordered messages, and cuts in
//! either direction, by seed.
//!
//! Who is reachable follows the cuts with a delay, as a failure detector does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_eventual::{EventualNode, PeerFailure, Peers, WeakEventualNode};
use quorate_proto::internal::{EventualRequest, EventualResponse};
use quorate_storage::disk::sim::Dice;
use quorate_types::limits::CLOCK_OFFSET_MAX;
use quorate_types::{NodeId, RangeId, Timestamp};
use tokio::sync::oneshot;
use tokio::time::Instant;

const EPOCH_MICROSECONDS: u64 = 1_700_000_000_000_000;
/// After this a node knows that another cannot be reached, or can be again.
const DETECTION: Duration = Duration::from_millis(300);
/// Who has come, gone, and come back, is taken to flap for so long.
const FLAPPING: Duration = Duration::from_secs(2);
/// Changes of a belief before that: a node's first coming, and its first going.
const FIRST_CHANGES: u32 = 2;
/// Most messages take less.
const DELAY_MAX_MICROSECONDS: u64 = 4_000;
/// Some take up to this.
const LATE_MAX_MICROSECONDS: u64 = 3_000_000;

/// How bad the network is, in percent of messages.
#[derive(Clone, Copy, Debug)]
pub struct Quality {
    pub lost: u64,
    pub late: u64,
    pub repeated: u64,
}

impl Quality {
    pub const GOOD: Quality = Quality {
        lost: 0,
        late: 0,
        repeated: 0,
    };
    pub const BAD: Quality = Quality {
        lost: 3,
        late: 3,
        repeated: 5,
    };
}

struct State {
    dice: Dice,
    quality: Quality,
    nodes: BTreeMap<NodeId, WeakEventualNode>,
    /// Directions in which nothing goes.
    cuts: BTreeSet<(NodeId, NodeId)>,
    /// What each node believes of each other.
    beliefs: BTreeMap<(NodeId, NodeId), Belief>,
    started: Instant,
    /// Whoever waits for what was lost learns it by the time that passes, not at once.
    is_silent: bool,
}

/// Whether another node can be reached: as it was, as it is, and since when.
#[derive(Clone, Copy)]
struct Belief {
    was: bool,
    is: bool,
    since: Instant,
    changes: u32,
}

/// The network of one cluster. Cheap to clone.
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

enum Fate {
    Lost,
    After(Duration),
}

impl Network {
    pub fn new(seed: u64, quality: Quality) -> Network {
        Network(Arc::new(Mutex::new(State {
            dice: Dice::new(seed ^ 0x0ae7),
            quality,
            nodes: BTreeMap::new(),
            cuts: BTreeSet::new(),
            beliefs: BTreeMap::new(),
            started: Instant::now(),
            is_silent: false,
        })))
    }

    pub fn link(&self, from: NodeId, clock_offset_micros: u64) -> Arc<dyn Peers> {
        Arc::new(Link {
            network: self.clone(),
            from,
            clock_offset_micros,
        })
    }

    /// The time by a clock that is right.
    pub fn now(&self) -> Timestamp {
        let elapsed = self.0.lock().started.elapsed();
        let elapsed = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        Timestamp(EPOCH_MICROSECONDS + elapsed)
    }

    pub fn attach(&self, id: NodeId, node: &EventualNode) {
        self.change(|state| {
            state.nodes.insert(id, node.downgrade());
        });
    }

    pub fn detach(&self, id: NodeId) {
        self.change(|state| {
            state.nodes.remove(&id);
        });
    }

    /// From now on losses are noticed by the time that passes alone.
    pub fn lose_silently(&self) {
        self.0.lock().is_silent = true;
    }

    pub fn set_quality(&self, quality: Quality) {
        self.0.lock().quality = quality;
    }

    /// Cuts one direction.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.change(|state| {
            state.cuts.insert((from, to));
        });
    }

    /// Cuts two sides off from each other.
    pub fn partition(&self, left: &[NodeId], right: &[NodeId]) {
        self.change(|state| {
            for one in left {
                for other in right {
                    state.cuts.insert((*one, *other));
                    state.cuts.insert((*other, *one));
                }
            }
        });
    }

    pub fn heal(&self) {
        self.change(|state| state.cuts.clear());
    }

    /// Changes the network, and notes what changes in what nodes will believe.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.lock();
        change(&mut state);
        let ids: Vec<NodeId> = state.nodes.keys().copied().collect();
        let known: BTreeSet<(NodeId, NodeId)> = state.beliefs.keys().copied().collect();
        let pairs = ids
            .iter()
            .flat_map(|one| ids.iter().map(move |other| (*one, *other)));
        let now = Instant::now();
        for pair in pairs.chain(known).collect::<BTreeSet<_>>() {
            // A node is heard where its messages arrive.
            let heard =
                state.nodes.contains_key(&pair.1) && !state.cuts.contains(&(pair.1, pair.0));
            let belief = state.beliefs.entry(pair).or_insert(Belief {
                was: false,
                is: false,
                since: now,
                changes: 0,
            });
            if belief.is != heard {
                *belief = Belief {
                    was: belief.is,
                    is: heard,
                    since: now,
                    changes: belief.changes + 1,
                };
            }
        }
    }

    fn believes(&self, from: NodeId, to: NodeId) -> bool {
        let state = self.0.lock();
        let belief = state.beliefs.get(&(from, to));
        belief.is_some_and(|belief| match belief.since.elapsed() < DETECTION {
            true => belief.was,
            false => belief.is,
        })
    }

    fn flaps(&self, from: NodeId, to: NodeId) -> bool {
        let state = self.0.lock();
        let belief = state.beliefs.get(&(from, to));
        belief.is_some_and(|belief| {
            belief.changes > FIRST_CHANGES && belief.since.elapsed() < FLAPPING
        })
    }

    fn fate(&self, from: NodeId, to: NodeId) -> Fate {
        let mut state = self.0.lock();
        let quality = state.quality;
        if state.cuts.contains(&(from, to)) || state.dice.percent(quality.lost) {
            return Fate::Lost;
        }
        let most = match state.dice.percent(quality.late) {
            true => LATE_MAX_MICROSECONDS,
            false => DELAY_MAX_MICROSECONDS,
        };
        Fate::After(Duration::from_micros(20 + state.dice.below(most)))
    }

    fn target(&self, to: NodeId) -> Option<EventualNode> {
        let node = self.0.lock().nodes.get(&to).cloned();
        node.and_then(|node| node.upgrade())
    }

    fn is_repeated(&self) -> bool {
        let mut state = self.0.lock();
        let percent = state.quality.repeated;
        state.dice.percent(percent)
    }

    /// Brings a message there, and its answer back.
    async fn carry(
        self,
        pair: (NodeId, NodeId),
        range: RangeId,
        request: EventualRequest,
    ) -> Option<EventualResponse> {
        let (from, to) = pair;
        let Fate::After(delay) = self.fate(from, to) else {
            return None;
        };
        tokio::time::sleep(delay).await;
        let node = self.target(to)?;
        let answer = node.answer(from, range, request).await;
        drop(node);
        let Fate::After(delay) = self.fate(to, from) else {
            return None;
        };
        tokio::time::sleep(delay).await;
        Some(answer)
    }
}

struct Link {
    network: Network,
    from: NodeId,
    clock_offset_micros: u64,
}

#[async_trait::async_trait]
impl Peers for Link {
    async fn ask(
        &self,
        to: NodeId,
        range: RangeId,
        request: EventualRequest,
        timeout: Duration,
    ) -> Result<EventualResponse, PeerFailure> {
        let pair = (self.from, to);
        if self.network.is_repeated() {
            tokio::spawn(self.network.clone().carry(pair, range, request.clone()));
        }
        // The message goes its way whatever becomes of who waits for its answer.
        let (answered, answer) = oneshot::channel();
        let carried = self.network.clone().carry(pair, range, request);
        let is_silent = self.network.0.lock().is_silent;
        tokio::spawn(async move {
            match carried.await {
                // Whoever waited may be gone.
                Some(answer) => drop(answered.send(answer)),
                None if is_silent => tokio::time::sleep(timeout).await,
                None => {}
            }
        });
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(PeerFailure::NoAnswer(to)),
        }
    }

    fn reachable(&self, node: NodeId) -> bool {
        self.network.believes(self.from, node)
    }

    fn steady(&self, node: NodeId) -> bool {
        self.reachable(node) && !self.network.flaps(self.from, node)
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.network.now().0 + self.clock_offset_micros)
    }

    fn clock_is_sound(&self) -> bool {
        Duration::from_micros(self.clock_offset_micros) <= CLOCK_OFFSET_MAX
    }
}
