//! The simulated transport: nodes of one process, seeded delays, cuts, and losses.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_proto::internal::{Envelope, envelope::Body};
use quorate_types::NodeId;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use super::{Class, PeerHandler, PeerTransport, SendError};

/// The queues, and the handles of processes, follow nodes and classes.
type Lane = (NodeId, NodeId, Class);

/// Bounds of the delay of one message.
const DELAY_MIN_MICROSECONDS: u64 = 50;
const DELAY_MAX_MICROSECONDS: u64 = 2_000;
/// What a process is sent in so long a beginning is kept for [`SimulatedNetwork::echo`].
const HEARD_TIME: Duration = Duration::from_millis(1_500);
/// Of a thousand of those messages, how many come once more.
const ECHOED_PER_MILLE: u64 = 300;

/// How bad the links are, beside what is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quality {
    /// Of a thousand messages, how many are lost.
    pub lost_per_mille: u64,
    /// Of a thousand messages, how many are held up; those behind them wait.
    pub slow_per_mille: u64,
    /// For how long at the most.
    pub slow_max_micros: u64,
    /// Of a thousand messages, how many come a second time, after such as were sent later. Here and
    /// below a client's request that was sent on comes once.
    pub doubled_per_mille: u64,
    /// Of a thousand messages, how many come a second time much later, whichever process there is
    /// then.
    pub late_per_mille: u64,
    /// How much later at the most.
    pub late_max: Duration,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// It is under way.
    Sent,
    /// It was lost, by a cut or by a bad link.
    Lost,
    /// It has come.
    Delivered,
    /// It has come once more, much later.
    Again,
}

type Sees = dyn Fn(NodeId, NodeId, Class, &Envelope, Passage) + Send + Sync;

/// Sees every message of a network: who sent it, to whom, as which class, what, and its passage.
#[derive(Clone, Default)]
struct Watcher(Option<Arc<Sees>>);

/// All links of a simulated cluster.
#[derive(Clone, Default)]
pub struct SimulatedNetwork {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    random: Option<SmallRng>,
    quality: Quality,
    handlers: HashMap<NodeId, Weak<dyn PeerHandler>>,
    cut: HashSet<(NodeId, NodeId)>,
    /// Messages under way. A timer delivers the first, so that order holds whatever timer fires.
    queues: HashMap<Lane, VecDeque<Sent>>,
    busy_until: HashMap<Lane, Instant>,
    /// Crashes of each node so far: what a dead process sends goes nowhere.
    crashes: HashMap<NodeId, u64>,
    /// How many more messages of a lane get through until one is lost.
    losses: HashMap<Lane, u64>,
    /// Nodes that neither send nor receive until then.
    paused_until: HashMap<NodeId, Instant>,
    /// Nodes that take up to so many microseconds more for each message that they send or get.
    slow: BTreeMap<NodeId, u64>,
    last_number: u64,
    delivered: u64,
    watcher: Watcher,
    keeps_beginnings: bool,
    /// What nodes were sent since their processes began.
    heard: BTreeMap<NodeId, Heard>,
    /// Copies of messages of an earlier age come no more.
    age: u64,
}

/// Whether a message may come a second time. A request of a client that was sent on may not: a write
/// of the eventual plane has a name with its coordinator alone, and the next process would make it
/// again; and that a request was refused is only true if it does not come again. It is the connection
/// that keeps both from happening.
fn may_come_twice(envelope: &Envelope) -> bool {
    !matches!(envelope.body, Some(Body::Forward(_) | Body::Etcd(_)))
}

/// What one process was sent in its beginning.
struct Heard {
    since: Instant,
    messages: Vec<(Duration, NodeId, Class, Envelope)>,
    /// The next process is sent it once more.
    comes_again: bool,
}

impl Heard {
    fn new() -> Heard {
        Heard {
            since: Instant::now(),
            messages: Vec::new(),
            comes_again: false,
        }
    }

    fn take(&mut self, (from, _, class): Lane, envelope: &Envelope) {
        let after = self.since.elapsed();
        if after < HEARD_TIME && may_come_twice(envelope) {
            self.messages.push((after, from, class, envelope.clone()));
        }
    }
}

impl State {
    fn below(&mut self, bound: u64) -> u64 {
        let random = self.random.as_mut();
        random.map_or(0, |random| random.next_u64() % bound.max(1))
    }

    /// Draws no number where nothing can come of it: whole links stay as they are by their seed.
    fn chance(&mut self, per_mille: u64) -> bool {
        per_mille > 0 && self.below(1_000) < per_mille
    }
}

/// A message under way. A crash removes some, so a timer names the one that it is for.
struct Sent {
    number: u64,
    envelope: Envelope,
}

impl std::fmt::Debug for SimulatedNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimulatedNetwork").finish_non_exhaustive()
    }
}

impl SimulatedNetwork {
    /// A whole network; delays follow from the seed.
    pub fn new(seed: u64) -> SimulatedNetwork {
        let network = SimulatedNetwork::default();
        network.state.lock().random = Some(SmallRng::seed_from_u64(seed));
        network
    }

    /// The transport of one node.
    pub fn link(&self, node: NodeId) -> Arc<Link> {
        self.begin_hearing(node);
        Arc::new(Link {
            node,
            network: self.clone(),
            handler: OnceLock::new(),
            life: self.crashes(node),
        })
    }

    /// Ends a node's process as its peers see it: what is under way from and to it is lost, and
    /// its present link is dead. A new [`SimulatedNetwork::link`] is its next process's.
    pub fn crash(&self, node: NodeId) {
        let mut state = self.state.lock();
        *state.crashes.entry(node).or_default() += 1;
        state.handlers.remove(&node);
        state
            .queues
            .retain(|(from, to, _), _| *from != node && *to != node);
    }

    /// Keeps from now on what processes are sent in their beginnings, for
    /// [`SimulatedNetwork::echo`].
    pub fn keep_beginnings(&self) {
        self.state.lock().keeps_beginnings = true;
    }

    /// Much of what a node's process was sent in its beginning comes once more to its next one, as
    /// long after that one's start: late copies from the life before.
    pub fn echo(&self, node: NodeId) {
        if let Some(heard) = self.state.lock().heard.get_mut(&node) {
            heard.comes_again = true;
        }
    }

    /// Nothing that was sent before now comes once more.
    pub fn end_echoes(&self) {
        let mut state = self.state.lock();
        state.heard.clear();
        state.age += 1;
    }

    /// A node's process begins: what it is sent is kept, and what the one before was sent comes
    /// again if that is to be.
    fn begin_hearing(&self, node: NodeId) {
        let mut state = self.state.lock();
        if !state.keeps_beginnings {
            return;
        }
        let before = state.heard.insert(node, Heard::new());
        let heard = before.filter(|heard| heard.comes_again);
        let messages = heard.map_or(Vec::new(), |heard| heard.messages);
        let mut echoed = messages;
        echoed.retain(|_| state.chance(ECHOED_PER_MILLE));
        drop(state);
        for (after, from, class, envelope) in echoed {
            self.again((from, node, class), envelope, after);
        }
    }

    /// Has a message come once more, so much later.
    fn again(&self, lane: Lane, envelope: Envelope, later: Duration) {
        let network = self.clone();
        let age = self.state.lock().age;
        tokio::spawn(async move {
            tokio::time::sleep(later).await;
            let (from, to, _) = lane;
            let handler = {
                let mut state = network.state.lock();
                if state.age != age || state.cut.contains(&(from, to)) {
                    return;
                }
                state.delivered += 1;
                state.handlers.get(&to).and_then(Weak::upgrade)
            };
            network.show(lane, &envelope, Passage::Again);
            if let Some(handler) = handler {
                handler.receive(from, vec![envelope]);
            }
        });
    }

    /// How much later a message that is sent now comes once more, if it does.
    fn comes_again(&self) -> Option<Duration> {
        let mut state = self.state.lock();
        let Quality {
            late_per_mille,
            late_max,
            ..
        } = state.quality;
        let is_late = state.chance(late_per_mille);
        is_late.then(|| Duration::from_micros(state.below(late_max.as_micros() as u64)))
    }

    fn crashes(&self, node: NodeId) -> u64 {
        self.state.lock().crashes.get(&node).copied().unwrap_or(0)
    }

    /// Cuts what `from` sends to `to`; messages under way are lost.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.state.lock().cut.insert((from, to));
    }

    /// Cuts both ways between two groups of nodes.
    pub fn partition(&self, left: &[NodeId], right: &[NodeId]) {
        for (a, b) in left
            .iter()
            .flat_map(|a| right.iter().map(move |b| (*a, *b)))
        {
            self.cut(a, b);
            self.cut(b, a);
        }
    }

    /// Undoes all cuts.
    pub fn heal(&self) {
        self.state.lock().cut.clear();
    }

    /// Pauses a node as its peers see it: what it sends and is sent arrives once it goes on.
    pub fn pause(&self, node: NodeId, time: Duration) {
        let until = Instant::now() + time;
        self.state.lock().paused_until.insert(node, until);
    }

    /// A node takes up to so much more for each message that it sends or gets; zero: it is quick
    /// again.
    pub fn slow_down(&self, node: NodeId, by: Duration) {
        let mut state = self.state.lock();
        match by.as_micros() as u64 {
            0 => state.slow.remove(&node),
            micros => state.slow.insert(node, micros),
        };
    }

    /// Has a node see its connections to another one break: whoever waits there for an answer hears
    /// that it is lost. What is under way arrives all the same.
    pub fn break_connections(&self, of: NodeId, to: NodeId) {
        let handler = self.state.lock().handlers.get(&of).cloned();
        if let Some(handler) = handler.and_then(|handler| handler.upgrade()) {
            for class in [Class::Consensus, Class::Bulk] {
                handler.lost(to, class);
            }
        }
    }

    /// Loses one message of a lane, after so many more that get through.
    pub fn lose_after(&self, passing: u64, from: NodeId, to: NodeId, class: Class) {
        let mut state = self.state.lock();
        state.losses.insert((from, to, class), passing);
    }

    /// Whether a message that is to be lost has not come yet.
    pub fn loss_is_due(&self) -> bool {
        !self.state.lock().losses.is_empty()
    }

    /// Makes all links so bad from now on.
    pub fn set_quality(&self, quality: Quality) {
        self.state.lock().quality = quality;
    }

    /// Has every message seen from now on.
    pub fn watch(
        &self,
        sees: impl Fn(NodeId, NodeId, Class, &Envelope, Passage) + Send + Sync + 'static,
    ) {
        self.state.lock().watcher = Watcher(Some(Arc::new(sees)));
    }

    fn show(&self, (from, to, class): Lane, envelope: &Envelope, passage: Passage) {
        let watcher = self.state.lock().watcher.clone();
        if let Some(sees) = watcher.0 {
            sees(from, to, class, envelope, passage);
        }
    }

    /// Messages delivered so far.
    pub fn delivered(&self) -> u64 {
        self.state.lock().delivered
    }

    /// When a message sent now arrives: delayed, but not before the one sent before it.
    fn schedule(
        &self,
        from: NodeId,
        to: NodeId,
        class: Class,
        envelope: Envelope,
    ) -> Option<(Instant, u64)> {
        let mut state = self.state.lock();
        if state.cut.contains(&(from, to)) || state.loses(&(from, to, class)) {
            return None;
        }
        let quality = state.quality;
        if state.chance(quality.lost_per_mille) {
            return None;
        }
        state.last_number += 1;
        let number = state.last_number;
        state
            .queues
            .entry((from, to, class))
            .or_default()
            .push_back(Sent { number, envelope });
        let span = DELAY_MAX_MICROSECONDS - DELAY_MIN_MICROSECONDS;
        let mut extra = state.random.as_mut().map_or(0, |r| r.next_u64() % span);
        if state.chance(quality.slow_per_mille) {
            extra += state.below(quality.slow_max_micros);
        }
        for node in [from, to] {
            if let Some(by) = state.slow.get(&node).copied() {
                extra += state.below(by);
            }
        }
        let paused = [from, to].map(|node| state.paused_until.get(&node).copied());
        let begin = paused
            .into_iter()
            .flatten()
            .fold(Instant::now(), Instant::max);
        let arrival = begin + Duration::from_micros(DELAY_MIN_MICROSECONDS + extra);
        let busy = state.busy_until.entry((from, to, class)).or_insert(arrival);
        *busy = (*busy).max(arrival);
        Some((*busy, number))
    }

    fn doubles(&self) -> bool {
        let mut state = self.state.lock();
        let per_mille = state.quality.doubled_per_mille;
        state.chance(per_mille)
    }

    fn dispatch(&self, lane: Lane, envelope: Envelope) {
        let watched = self.state.lock().watcher.0.is_some();
        let shown = watched.then(|| envelope.clone());
        let (from, to, class) = lane;
        let scheduled = self.schedule(from, to, class, envelope);
        if let Some(envelope) = shown {
            let passage = scheduled.map_or(Passage::Lost, |_| Passage::Sent);
            self.show(lane, &envelope, passage);
        }
        let Some((arrival, number)) = scheduled else {
            return;
        };
        let network = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(arrival).await;
            network.deliver_next(from, to, class, number);
        });
    }

    /// Delivers the oldest message of a lane, unless the one the timer was for was lost in a crash.
    fn deliver_next(&self, from: NodeId, to: NodeId, class: Class, number: u64) {
        let mut state = self.state.lock();
        let queue = state.queues.get_mut(&(from, to, class));
        let due = queue.and_then(|q| {
            let is_due = q.front().is_some_and(|sent| sent.number <= number);
            is_due.then(|| q.pop_front()).flatten()
        });
        let Some(Sent { envelope, .. }) = due else {
            return;
        };
        if state.cut.contains(&(from, to)) {
            return;
        }
        state.delivered += 1;
        let handler = state.handlers.get(&to).and_then(Weak::upgrade);
        // A copy is one of what has come: what was lost does not come after what was sent later.
        if let Some(heard) = state.heard.get_mut(&to).filter(|_| handler.is_some()) {
            heard.take((from, to, class), &envelope);
        }
        drop(state);
        self.show((from, to, class), &envelope, Passage::Delivered);
        let Some(handler) = handler else { return };
        if let Some(later) = self.comes_again()
            && may_come_twice(&envelope)
        {
            self.again((from, to, class), envelope.clone(), later);
        }
        handler.receive(from, vec![envelope]);
    }
}

impl State {
    /// Counts a message of a lane; answers whether it is the one to be lost.
    fn loses(&mut self, lane: &Lane) -> bool {
        match self.losses.get_mut(lane) {
            Some(0) => self.losses.remove(lane).is_some(),
            Some(passing) => {
                *passing -= 1;
                false
            }
            None => false,
        }
    }
}

/// One node's transport on a simulated network.
pub struct Link {
    node: NodeId,
    network: SimulatedNetwork,
    handler: OnceLock<Weak<dyn PeerHandler>>,
    life: u64,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl PeerTransport for Link {
    fn start(&self, handler: Weak<dyn PeerHandler>) {
        self.network
            .state
            .lock()
            .handlers
            .insert(self.node, handler.clone());
        // A second start keeps the first handler.
        let _ = self.handler.set(handler);
    }

    fn set_peer(&self, _id: NodeId, _address: &str) {}

    fn send(&self, to: NodeId, class: Class, envelope: Envelope) -> Result<(), SendError> {
        // A cut cable is silent: the sender learns nothing.
        let from = self.node;
        if self.life != self.network.crashes(from) {
            return Ok(());
        }
        let doubles = self.network.doubles() && may_come_twice(&envelope);
        let again = doubles.then(|| envelope.clone());
        for envelope in std::iter::once(envelope).chain(again) {
            self.network.dispatch((from, to, class), envelope);
        }
        Ok(())
    }

    fn connected(&self, to: NodeId) -> bool {
        !self.network.state.lock().cut.contains(&(self.node, to))
    }
}
