//! Merkle repair: pairs of primaries compare their hash trees from the root down, exchange the
//! keys that differ, and at the end take over each other's clocks.
//!
//! The clock that a side gives is the base of a copy from *before* it read the first sum of its
//! tree, so it never runs ahead of what was compared: a dot in it was live in a record that was
//! then equal or exchanged, or is dead. Bytes on the wire grow with the differences: 16 bytes a branch, 16 a
//! leaf of a branch that differs, a hash for each key of a leaf that differs, the keys that differ.
//!
//! Not here: what a record or a clock means (`quorate_types::causal`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::internal::{
    ClockMerge, Join, KeyState as WireState, RepairedNow, TreeKeyHashes, TreeKeys, TreeLeafSums,
    TreeLeaves, TreeRoot, TreeSums, eventual_request::Request, eventual_response::Response,
    tree_key_hashes,
};
use quorate_types::causal::Clock;
use quorate_types::{NodeId, RangeId};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::error::EventualError;
use crate::node::{EventualNode, Inner, settle_all};
use crate::replica::Replica;
use crate::step::Step;
use crate::tree::{FANOUT, LEAVES, SUM_BYTES, Sum, decode_sums, differing, encode_sums, hash_of};

/// Branches asked for in one message.
const BRANCHES_MAX: usize = 32;
/// Leaves asked for in one message.
const LEAVES_MAX: usize = 64;
/// Keys in one answer of hashes.
const KEYS_MAX: usize = 4_096;
/// Keys exchanged in one message.
const EXCHANGE_KEYS_MAX: usize = 256;
/// Bytes of their states; the key that crosses it is the last.
const EXCHANGE_BYTES_MAX: usize = 1 << 20;
/// The budget is kept in steps of this.
const PACE_BYTES: usize = 64 << 10;
/// A peer is given this long for one step.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// Replicas that were equal and have not changed are compared again after this.
const EQUAL_INTERVAL: Duration = Duration::from_secs(30);
/// A log beside a range is given this long to be on disk as far as a peer's was.
const LOG_TIMEOUT: Duration = Duration::from_secs(2);
/// And is looked at so often.
const LOG_PAUSE: Duration = Duration::from_millis(20);
/// What a log is to absorb is left to it this long; then it is compared as well.
const ABSORBED_WITHIN: Duration = Duration::from_secs(2);

/// What a repair of one range with one peer came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Nothing differed.
    pub equal: bool,
    /// Keys that differed and were exchanged.
    pub keys: u64,
    /// Bytes of questions and answers, both ways.
    pub bytes: u64,
}

/// Of a pair, the node with the lower id asks. Where that one has not for so long, though there
/// is something new here, the other one does.
const ASKED_IN_TURN: Duration = Duration::from_secs(3);

/// What is remembered of a pair.
pub(crate) struct Compared {
    at: Instant,
    /// When a comparison last came to its end, with whatever it found; or when this was noted
    /// first.
    ended: Instant,
    /// Our last entry when the replicas were equal, if they were.
    equal_at: Option<u64>,
}

/// When replicas were compared with those of others, whoever asked.
pub(crate) type AllCompared = BTreeMap<(RangeId, NodeId), Compared>;

/// Starts the work in the background: one comparison at a time.
pub(crate) fn start(inner: &Arc<Inner>) -> AbortHandle {
    let weak = Arc::downgrade(inner);
    let task = tokio::spawn(async move {
        let mut closed = Instant::now();
        loop {
            let Some(inner) = weak.upgrade() else { return };
            let pause = inner.options.repair_interval;
            inner.compare_all().await;
            if closed.elapsed() >= inner.options.close_interval {
                inner.close_all().await;
                closed = Instant::now();
            }
            drop(inner);
            tokio::time::sleep(pause).await;
        }
    });
    task.abort_handle()
}

impl Inner {
    async fn compare_all(&self) {
        for replica in self.all_replicas() {
            let Ok(place) = self.place(replica.range) else {
                continue;
            };
            let primaries = &place.holders.primaries;
            if place.holders.is_primary(self.node) {
                // A log brings all replicas what it absorbs: only what it does not is compared.
                let has_log = replica.has_log() && replica.is_filled();
                if has_log && !replica.lingers(ABSORBED_WITHIN) {
                    continue;
                }
                for node in primaries {
                    if *node != self.node && (has_log || self.is_due(&replica, *node)) {
                        self.compare(&replica, *node).await;
                    }
                }
            } else if replica.is_filled()
                && let Err(error) = self.leave(&replica, primaries).await
            {
                tracing::debug!(range = %replica.range, %error, "this node cannot leave yet");
            }
        }
    }

    /// Whether this node is to compare a range with another primary now.
    fn is_due(&self, replica: &Replica, node: NodeId) -> bool {
        if !self.peers.reachable(node) {
            return false;
        }
        let mut compared = self.compared.lock();
        let last = compared
            .entry((replica.range, node))
            .or_insert_with(|| Compared {
                at: Instant::now(),
                ended: self.began,
                equal_at: None,
            });
        let age = last.at.elapsed();
        let is_fresh = last.equal_at == Some(replica.index()) && age < EQUAL_INTERVAL;
        // Of two that are filled, one asks first. One that is not asks all, and learns that it is
        // from an answer to its own question alone.
        let is_asking_turn = node > self.node || age >= ASKED_IN_TURN;
        !replica.is_filled() || is_asking_turn && !is_fresh
    }

    /// See [`EventualNode::repair_lag`].
    pub(crate) fn repair_lag(&self) -> Duration {
        let mut lag = Duration::ZERO;
        for replica in self.all_replicas() {
            let place = match replica.has_log() {
                true => continue,
                false => self.place(replica.range),
            };
            let Ok(place) = place else { continue };
            if !place.holders.is_primary(self.node) {
                continue;
            }
            let others = place.holders.primaries.iter();
            for node in others.filter(|node| **node != self.node) {
                let behind = self.behind(&replica, *node);
                lag = lag.max(behind);
            }
        }
        lag
    }

    fn behind(&self, replica: &Replica, node: NodeId) -> Duration {
        let compared = self.compared.lock();
        match compared.get(&(replica.range, node)) {
            Some(last) if last.equal_at == Some(replica.index()) => Duration::ZERO,
            Some(last) => last.ended.elapsed(),
            None => self.began.elapsed(),
        }
    }

    async fn compare(&self, replica: &Arc<Replica>, node: NodeId) {
        if !self.peers.reachable(node) {
            return;
        }
        let index = replica.index();
        let repaired = self.repair_with(replica, node).await;
        let equal = repaired.as_ref().is_ok_and(|repaired| repaired.equal);
        let pair = (replica.range, node);
        self.note_compared(pair, equal.then_some(index));
        match repaired {
            Ok(_) => self.note_ended(pair),
            Err(error) => {
                tracing::debug!(range = %replica.range, peer = %node, %error, "not repaired");
            }
        }
    }

    /// Takes note that a pair was compared, and of our last entry if it was equal.
    pub(crate) fn note_compared(&self, pair: (RangeId, NodeId), equal_at: Option<u64>) {
        let at = Instant::now();
        let mut compared = self.compared.lock();
        let ended = match (equal_at, compared.get(&pair)) {
            (Some(_), _) => at,
            (None, Some(before)) => before.ended,
            (None, None) => self.began,
        };
        let now = Compared {
            at,
            ended,
            equal_at,
        };
        compared.insert(pair, now);
    }

    /// Takes note that a comparison of a pair came to its end.
    pub(crate) fn note_ended(&self, pair: (RangeId, NodeId)) {
        if let Some(compared) = self.compared.lock().get_mut(&pair) {
            compared.ended = Instant::now();
        }
    }

    /// A node that holds a range no more gives those who do what it holds, and forgets that it
    /// knew all: acknowledgements may rest on it alone.
    async fn leave(
        &self,
        replica: &Arc<Replica>,
        primaries: &[NodeId],
    ) -> Result<(), EventualError> {
        for node in primaries {
            self.repair_with(replica, *node).await?;
        }
        tracing::info!(range = %replica.range, "all that was held here is with its holders");
        replica.do_step(&Step::Left)?.wait().await
    }

    /// Compares a range with a peer, and brings both to the same state.
    pub(crate) async fn repair_with(
        &self,
        replica: &Arc<Replica>,
        peer: NodeId,
    ) -> Result<Repaired, EventualError> {
        if !replica.is_warm() {
            return Err(EventualError::Filling(replica.range));
        }
        let mut session = Session {
            inner: self,
            replica,
            peer,
            done: Repaired::default(),
            owed_bytes: 0,
        };
        session.run().await?;
        let done = session.done;
        metrics::counter!("quorate_repairs_total").increment(1);
        metrics::counter!("quorate_repair_keys_total").increment(done.keys);
        metrics::counter!("quorate_repair_bytes_total").increment(done.bytes);
        let counts = &self.counts;
        counts.keys_repaired.fetch_add(done.keys, Ordering::Relaxed);
        counts.repair_bytes.fetch_add(done.bytes, Ordering::Relaxed);
        Ok(done)
    }
}

impl EventualNode {
    /// Compares a range with all other primaries in reach, and brings all to the same state. For
    /// a node that holds the range.
    ///
    /// # Errors
    /// [`EventualError`] where this node does not hold the range, or cannot compare yet.
    pub async fn repair_now(&self, range: RangeId) -> Result<RepairedNow, EventualError> {
        self.inner.repair_now(range).await
    }
}

impl Inner {
    pub(crate) async fn repair_now(&self, range: RangeId) -> Result<RepairedNow, EventualError> {
        let place = self.place(range)?;
        if !place.holders.is_primary(self.node) {
            return Err(EventualError::NoRange(range));
        }
        let replica = self.replica(range)?;
        let mut done = RepairedNow::default();
        // What the first learned too late, it learns in a second round.
        for round in 0..2 {
            let before = done.keys;
            let peers = place.holders.primaries.iter();
            for peer in peers.filter(|node| **node != self.node) {
                match self.repair_with(&replica, *peer).await {
                    Ok(repaired) => {
                        done.keys += repaired.keys;
                        done.bytes += repaired.bytes;
                    }
                    Err(error) if round == 0 => {
                        tracing::debug!(%range, %peer, %error, "not repaired");
                        done.missing.push(peer.0);
                    }
                    Err(_) => {}
                }
            }
            if done.keys == before {
                break;
            }
        }
        Ok(done)
    }
}

impl Inner {
    /// Takes over a peer's clock, and with it, where this replica was new, that it is filled.
    /// `decided`: of the peer's log, the last entry on the peer's disk when all was compared.
    /// `epoch`: this replica's when the comparison began.
    pub(crate) async fn merge_clock(
        &self,
        replica: &Replica,
        clock: Option<Bytes>,
        (decided, epoch, filled): (u64, u64, bool),
    ) -> Result<(), EventualError> {
        if let Some(clock) = clock {
            if !self.knows_on_disk(replica, decided).await {
                tracing::debug!(range = %replica.range, "a peer's clock waits for the log");
                return Ok(());
            }
            let merged = match replica.has_log() {
                true => replica.merge_beside_log(clock, epoch)?,
                false => Some(replica.do_step(&Step::Merge { clock })?),
            };
            let Some(merged) = merged else {
                tracing::debug!(range = %replica.range, "rows went while they were compared");
                return Ok(());
            };
            merged.wait().await?;
            settle_all(replica).await?;
        }
        if filled && !replica.is_filled() {
            replica.do_step(&Step::Filled)?.wait().await?;
        }
        Ok(())
    }

    /// Whether the log's state on this disk knows what the peer's knew, and what this node's knew
    /// when keys were compared: a key that one side had no row of was not compared, and a clock
    /// speaks for it only beside that state.
    pub(crate) async fn knows_on_disk(&self, replica: &Replica, peer_decided: u64) -> bool {
        if !replica.has_log() || self.options.faults.clock_without_log {
            return true;
        }
        let range = replica.range;
        let (applied, _) = self.decisions.applied_and_durable(range);
        let needed = applied.max(peer_decided);
        let until = Instant::now() + LOG_TIMEOUT;
        loop {
            let (_, durable) = self.decisions.applied_and_durable(range);
            if durable >= needed {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            self.decisions.flush(range).await;
            tokio::time::sleep(LOG_PAUSE).await;
        }
    }
}

/// One comparison.
struct Session<'a> {
    inner: &'a Inner,
    replica: &'a Arc<Replica>,
    peer: NodeId,
    done: Repaired,
    /// Bytes that were not waited for yet.
    owed_bytes: usize,
}

fn unexpected() -> EventualError {
    EventualError::Peer("an answer of another kind".to_owned())
}

impl Session<'_> {
    async fn ask(&mut self, request: Request) -> Result<Response, EventualError> {
        let asked = request.encoded_len();
        let range = self.replica.range;
        let answer = self
            .inner
            .ask(self.peer, range, request, STEP_TIMEOUT)
            .await?;
        let bytes = asked + answer.encoded_len();
        self.done.bytes += bytes as u64;
        self.owed_bytes += bytes;
        if self.owed_bytes >= PACE_BYTES {
            let owed = std::mem::take(&mut self.owed_bytes);
            self.inner.pace(owed).await;
        }
        Ok(answer)
    }

    async fn run(&mut self) -> Result<(), EventualError> {
        let filled = self.replica.is_filled();
        let epoch = self.replica.epoch();
        // Before the first sum is read: the clock must not run ahead of what is compared.
        let clock = self.replica.base();
        let question = TreeRoot {
            root: sum_bytes(self.replica.with_tree(|tree| tree.root())),
            clock_hash: sum_bytes(hash_of(&clock)),
        };
        let Response::TreeSums(sums) = self.ask(Request::TreeRoot(question)).await? else {
            return Err(unexpected());
        };
        if sums.equal {
            self.done.equal = true;
            let peer = (0, epoch, sums.filled);
            return self.inner.merge_clock(self.replica, None, peer).await;
        }
        let peer_clock = sums.clock.clone();
        self.inner
            .check_clock(self.replica, &Clock::decode(&peer_clock)?)?;
        if self.inner.options.faults.clock_first {
            let clock = Some(peer_clock.clone());
            self.inner
                .merge_clock(self.replica, clock, (0, epoch, false))
                .await?;
        }
        let theirs = decode_sums(&sums.branches).ok_or_else(unexpected)?;
        let branches = differing(&self.replica.with_tree(|tree| tree.branches()), &theirs);
        for some in branches.chunks(BRANCHES_MAX) {
            let leaves = self.leaves(some).await?;
            for some in leaves.chunks(LEAVES_MAX) {
                let keys = self.keys(some).await?;
                self.exchange(keys).await?;
            }
        }
        let clock = match self.inner.options.faults.clock_newer {
            true => self.replica.base(),
            false => clock,
        };
        let (_, decided) = self.inner.decisions.applied_and_durable(self.replica.range);
        let merge = ClockMerge {
            clock,
            filled,
            decided,
            epoch: sums.epoch,
        };
        let Response::Joined(merged) = self.ask(Request::ClockMerge(merge)).await? else {
            return Err(unexpected());
        };
        let peer = (merged.decided, epoch, sums.filled);
        self.inner
            .merge_clock(self.replica, Some(peer_clock), peer)
            .await
    }

    /// The leaves of some branches in which the trees differ.
    async fn leaves(&mut self, branches: &[usize]) -> Result<Vec<u16>, EventualError> {
        let asked = branches.iter().filter_map(|at| u32::try_from(*at).ok());
        let question = TreeLeaves {
            branches: asked.collect(),
        };
        let Response::TreeLeafSums(sums) = self.ask(Request::TreeLeaves(question)).await? else {
            return Err(unexpected());
        };
        let mut leaves = Vec::new();
        for (branch, theirs) in branches.iter().zip(&sums.branches) {
            let theirs = decode_sums(theirs).ok_or_else(unexpected)?;
            let ours = self.replica.with_tree(|tree| tree.leaves(*branch));
            let differ = differing(&ours, &theirs).into_iter();
            leaves.extend(differ.filter_map(|at| u16::try_from(branch * FANOUT + at).ok()));
        }
        if sums.branches.len() != branches.len() {
            return Err(unexpected());
        }
        Ok(leaves)
    }

    /// The keys of some leaves whose records differ, or that one side alone has.
    async fn keys(&mut self, leaves: &[u16]) -> Result<Vec<Bytes>, EventualError> {
        let mut theirs: BTreeMap<Bytes, Sum> = BTreeMap::new();
        let mut rest = leaves;
        let mut after = Bytes::new();
        while !rest.is_empty() {
            let question = TreeKeys {
                leaves: rest.iter().map(|leaf| u32::from(*leaf)).collect(),
                after: std::mem::take(&mut after),
            };
            let Response::TreeKeyHashes(hashes) = self.ask(Request::TreeKeys(question)).await?
            else {
                return Err(unexpected());
            };
            let done = usize::try_from(hashes.leaves_done).map_err(|_| unexpected())?;
            if done == 0 && !hashes.begun {
                return Err(unexpected());
            }
            for key in hashes.keys {
                let hash: [u8; SUM_BYTES] =
                    key.hash.as_ref().try_into().map_err(|_| unexpected())?;
                after.clone_from(&key.key);
                theirs.insert(key.key, Sum::from_be_bytes(hash));
            }
            if !hashes.begun {
                after.clear();
            }
            rest = rest.get(done..).ok_or_else(unexpected)?;
        }
        let mut differing = Vec::new();
        for leaf in leaves {
            let mut after = Bytes::new();
            loop {
                let (ours, more) = self.replica.leaf_keys(*leaf, &after, KEYS_MAX)?;
                if let Some((last, _)) = ours.last_key_value() {
                    after.clone_from(last);
                }
                for (key, hash) in ours {
                    if theirs.remove(&key) != Some(hash) {
                        differing.push(key);
                    }
                }
                if !more {
                    break;
                }
            }
        }
        differing.extend(theirs.into_keys());
        Ok(differing)
    }

    /// Gives the peer what is known here of some keys, and takes in what it then knows.
    async fn exchange(&mut self, keys: Vec<Bytes>) -> Result<(), EventualError> {
        let mut states = Vec::new();
        let mut bytes = 0;
        let mut keys = keys.into_iter().peekable();
        while let Some(key) = keys.next() {
            let state = self.replica.held(&key)?.encode();
            bytes += key.len() + state.len();
            states.push(WireState { key, state });
            let full = states.len() >= EXCHANGE_KEYS_MAX || bytes >= EXCHANGE_BYTES_MAX;
            if !full && keys.peek().is_some() {
                continue;
            }
            bytes = 0;
            self.done.keys += states.len() as u64;
            let question = Join {
                states: std::mem::take(&mut states),
                answer_states: true,
            };
            let Response::Joined(joined) = self.ask(Request::Join(question)).await? else {
                return Err(unexpected());
            };
            let steps = joined.states.into_iter();
            let steps = steps.map(|WireState { key, state }| Step::Join { key, state });
            self.replica.do_steps(steps).await?;
        }
        Ok(())
    }
}

fn sum_bytes(sum: Sum) -> Bytes {
    Bytes::copy_from_slice(&sum.to_be_bytes())
}

fn warm(replica: &Replica) -> Result<(), EventualError> {
    if replica.is_warm() {
        return Ok(());
    }
    Err(EventualError::Filling(replica.range))
}

/// Answers whether all is equal, and else with the sums of the branches.
pub(crate) fn serve_root(replica: &Replica, root: &TreeRoot) -> Result<Response, EventualError> {
    warm(replica)?;
    let filled = replica.is_filled();
    // Before the clock and the sums.
    let epoch = replica.epoch();
    let clock = replica.base();
    let (ours, branches) = replica.with_tree(|tree| (tree.root(), tree.branches()));
    let clock_hash = sum_bytes(hash_of(&clock));
    let equal = root.root == sum_bytes(ours) && root.clock_hash == clock_hash;
    let sums = if equal {
        TreeSums {
            equal,
            filled,
            ..TreeSums::default()
        }
    } else {
        TreeSums {
            equal,
            filled,
            branches: encode_sums(&branches).into(),
            clock,
            epoch,
        }
    };
    Ok(Response::TreeSums(sums))
}

/// Answers with the sums of the leaves of some branches.
pub(crate) fn serve_leaves(
    replica: &Replica,
    leaves: &TreeLeaves,
) -> Result<Response, EventualError> {
    warm(replica)?;
    let asked = leaves.branches.iter().take(BRANCHES_MAX);
    let sums = asked.map(|branch| {
        let branch = usize::try_from(*branch).unwrap_or(LEAVES);
        encode_sums(&replica.with_tree(|tree| tree.leaves(branch))).into()
    });
    Ok(Response::TreeLeafSums(TreeLeafSums {
        branches: sums.collect(),
    }))
}

/// Answers with the hashes of the keys of some leaves.
pub(crate) fn serve_keys(replica: &Replica, asked: &TreeKeys) -> Result<Response, EventualError> {
    let mut answer = TreeKeyHashes::default();
    let mut after = &asked.after[..];
    for leaf in asked.leaves.iter().take(LEAVES_MAX) {
        let leaf = u16::try_from(*leaf).map_err(|_| unexpected())?;
        let room = KEYS_MAX.saturating_sub(answer.keys.len());
        if room == 0 {
            break;
        }
        let (keys, more) = replica.leaf_keys(leaf, after, room)?;
        let had = answer.keys.len();
        answer
            .keys
            .extend(keys.into_iter().map(|(key, hash)| tree_key_hashes::Key {
                key,
                hash: sum_bytes(hash),
            }));
        if more {
            if answer.keys.len() == had {
                // All keys of the page went meanwhile: there is no place to go on from.
                return Err(EventualError::Peer("a leaf changes too fast".to_owned()));
            }
            answer.begun = true;
            break;
        }
        answer.leaves_done += 1;
        after = &[];
    }
    Ok(Response::TreeKeyHashes(answer))
}
