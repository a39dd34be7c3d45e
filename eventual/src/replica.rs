//! What this node holds of one range on the eventual plane: as a primary its records and clock,
//! as a stand-in its hints. Every change is an entry of the node log and a change of the engine's
//! table, in the same order; a start repeats the entries that the table does not have yet.
//!
//! Not here: who is asked, and when (`coordinator`, `hand_over`, `repair`).

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_storage::engine::{Change, Engine, Position, RangeTable, Version};
use quorate_storage::log::{Done, GroupLog, LogEntry, LogError, LogId, NodeLog};
use quorate_types::causal::{
    Actor, Clock, Delta, Dot, Dots, KeyState, Planned, Record, Unsettled, accept, join_key, settle,
};
use quorate_types::{NodeId, RangeId, Timestamp};
use tokio::sync::oneshot;

use crate::error::EventualError;
use crate::faults::Faults;
use crate::hints::Hints;
use crate::rows::{Rows, plane_id};
use crate::seam::Decisions;
use crate::step::{Hint, Step};
use crate::tree::{HashTree, Sum, hash_of};

mod broken;
mod closed;
mod fresh;
mod look;
mod overlay;
mod pages;
mod upkeep;
mod visible;

pub(crate) use self::overlay::Trimming;
use self::overlay::{Overlay, Row};
use self::visible::Visible;
pub use self::visible::{FoundVisible, VisibleFollower, VisiblePlace, VisibleWrite};

/// The clock, in the table's metadata.
const META_CLOCK: &[u8] = b"clock";
/// Whether the replica may answer (one byte, 1 or 0), in the table's metadata.
const META_FILLED: &[u8] = b"filled";
/// Records that one change of the clock sets free at once; the rest follows in the background.
const SETTLE_KEYS_MAX: usize = 256;
/// Entries read at once at a start.
const REPLAY_BYTES_MAX: u64 = 4 << 20;
/// Entries that may be in the log though the table has them, before they are purged.
const PURGE_ENTRIES: u64 = 4_096;

/// Waits until a change is on disk.
pub(crate) struct Synced(oneshot::Receiver<Result<(), Arc<LogError>>>);

impl Synced {
    /// What the log is to call, and what then returns.
    pub(crate) fn pair() -> (Done, Synced) {
        let (done, synced) = oneshot::channel();
        let done = Box::new(move |result| {
            // Whoever does not wait does not care.
            let _ = done.send(result);
        });
        (done, Synced(synced))
    }

    /// Returns once the change, and all before it, are on disk.
    pub(crate) async fn wait(self) -> Result<(), EventualError> {
        match self.0.await {
            Ok(result) => result.map_err(EventualError::Log),
            Err(_) => Err(EventualError::Log(Arc::new(LogError::Closed))),
        }
    }
}

/// Keys with what is known of them, the base of the clock, and where to go on.
pub(crate) type RecordsPage = (Vec<(Bytes, KeyState)>, Dots, Option<Bytes>);

/// A write that its coordinator has named and taken in.
pub(crate) struct Written {
    /// Its name; of several parts the first one's.
    pub(crate) dot: Dot,
    /// Encoded.
    pub(crate) deltas: Vec<Bytes>,
    /// It is synced before anything else, whatever the client asked for.
    pub(crate) folds: bool,
    /// What is known of the key now.
    pub(crate) state: KeyState,
    pub(crate) synced: Synced,
}

fn hints_of(key: &Bytes, deltas: &[(Dot, Bytes)], wanted: u8) -> Vec<(Dot, Hint)> {
    let hint = |(dot, delta): &(Dot, Bytes)| {
        let hint = Hint {
            key: key.clone(),
            delta: delta.clone(),
            wanted,
            holders: Vec::new(),
        };
        (*dot, hint)
    };
    deltas.iter().map(hint).collect()
}

/// The step by which a stand-in keeps what others named.
pub(crate) fn hints_step(key: &Bytes, deltas: &[Bytes], wanted: u8) -> Result<Step, EventualError> {
    let named = deltas
        .iter()
        .map(|delta| Ok((Delta::decode(delta)?.dot, delta.clone())));
    let named = named.collect::<Result<Vec<_>, EventualError>>()?;
    Ok(Step::Keep {
        hints: hints_of(key, &named, wanted),
    })
}

/// One range's eventual state on this node.
pub(crate) struct Replica {
    pub(crate) range: RangeId,
    actor: Actor,
    table: RangeTable,
    log: GroupLog,
    rows: Rows,
    /// What the range's log has decided; none where it has no log.
    decisions: Option<Arc<dyn Decisions>>,
    faults: Faults,
    state: Mutex<State>,
}

/// What changes together.
struct State {
    clock: Clock,
    /// The last count that this start gave out as a dot.
    counter: u64,
    /// The last entry.
    index: u64,
    filled: bool,
    tree: HashTree,
    unsettled: Unsettled<Bytes>,
    /// How far the tree and `unsettled` have been built; `None`: wholly.
    warming: Option<Bytes>,
    hints: Hints,
    overlay: Overlay,
    visible: Visible,
    purged: u64,
}

impl State {
    /// Whether the tree speaks for a key yet.
    fn is_warm(&self, key: &[u8]) -> bool {
        self.warming.as_ref().is_none_or(|next| key < &next[..])
    }
}

/// The hash of a key's record: equal on replicas that hold the same of it.
fn record_hash(key: &[u8], record: &Record) -> Sum {
    let mut bytes = Vec::with_capacity(key.len() + 96);
    bytes.extend_from_slice(&(key.len() as u64).to_be_bytes());
    bytes.extend_from_slice(key);
    for (dot, value) in record.live() {
        bytes.extend_from_slice(&dot.actor.disk.to_be_bytes());
        bytes.extend_from_slice(&dot.actor.start.to_be_bytes());
        bytes.extend_from_slice(&dot.counter.to_be_bytes());
        bytes.extend_from_slice(&value.timestamp.0.to_be_bytes());
        bytes.extend_from_slice(&value.expiry.map_or(0, |at| at.0).to_be_bytes());
        bytes.extend_from_slice(&(value.payload.len() as u64).to_be_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&value.payload).to_be_bytes());
    }
    for (actor, counters) in record.beyond().actors() {
        bytes.extend_from_slice(&actor.disk.to_be_bytes());
        bytes.extend_from_slice(&actor.start.to_be_bytes());
        for (low, high) in counters.ranges() {
            bytes.extend_from_slice(&low.to_be_bytes());
            bytes.extend_from_slice(&high.to_be_bytes());
        }
    }
    for (disk, start) in record.beyond().closed() {
        bytes.extend_from_slice(&disk.to_be_bytes());
        bytes.extend_from_slice(&start.to_be_bytes());
    }
    hash_of(&bytes)
}

/// When the first value of a record expires.
fn first_expiry(record: &Record) -> Option<Timestamp> {
    record.live().filter_map(|(_, value)| value.expiry).min()
}

/// Opening.
impl Replica {
    /// Opens what this node holds of a range, and repeats what the table does not have yet.
    /// `founder`: the node was there from the range's first moment, so it needs no filling.
    /// `decisions`: of a range that has a log.
    pub(crate) fn open(
        range: RangeId,
        actor: Actor,
        (founder, decisions): (bool, Option<Arc<dyn Decisions>>),
        (log, engine): (&NodeLog, &Engine),
        faults: Faults,
    ) -> Result<Replica, EventualError> {
        let rows = Rows::of(range);
        let id = plane_id(range);
        let table = engine.open_range(id, rows.interval())?;
        table.set_history(false);
        let clock = match table.meta(META_CLOCK)? {
            Some(clock) => Clock::decode(&clock)?,
            None => Clock::default(),
        };
        let filled = match table.meta(META_FILLED)? {
            Some(filled) => filled[..] == [1],
            None => founder,
        };
        let replica = Replica {
            range,
            actor,
            log: log.group(id),
            rows,
            decisions,
            faults,
            state: Mutex::new(State {
                clock,
                counter: 0,
                index: table.durable().map_or(0, |position| position.index),
                filled,
                tree: HashTree::default(),
                unsettled: Unsettled::default(),
                warming: Some(Bytes::new()),
                hints: Hints::default(),
                overlay: Overlay::default(),
                visible: Visible::default(),
                purged: 0,
            }),
            table,
        };
        replica.load_hints()?;
        replica.replay()?;
        Ok(replica)
    }

    fn load_hints(&self) -> Result<(), EventualError> {
        let mut state = self.state.lock();
        self.each_row(self.rows.hints(), |row, version| {
            let damaged = EventualError::DamagedRow("name of a hint");
            let dot = Rows::dot_of(&row).ok_or(damaged)?;
            let hint = Hint::decode(version.value);
            let hint = hint.ok_or(EventualError::DamagedRow("hint"))?;
            state.hints.add(dot, &hint);
            Ok(())
        })
    }

    /// Repeats the entries behind the table's position. Where the table is ahead of the log (it
    /// was flushed before the log was synced, and the power went), the log goes on behind it.
    fn replay(&self) -> Result<(), EventualError> {
        let mut state = self.state.lock();
        let durable = state.index;
        let last = self.log.last().map_or(0, |last| last.index);
        if last < durable {
            let id = LogId {
                term: u64::from(self.actor.start),
                index: durable,
            };
            self.log.purge(id, Box::new(|_| {}));
            return Ok(());
        }
        let mut next = durable + 1;
        while next <= last {
            let entries = self.log.read(next..last + 1, REPLAY_BYTES_MAX);
            for entry in entries.map_err(|error| EventualError::Log(Arc::new(error)))? {
                let step = Step::decode(entry.payload).ok_or(EventualError::DamagedRow("entry"))?;
                let mut changes = Vec::new();
                self.take_in(&mut state, &step, None, entry.index, &mut changes)?;
                let position = Position {
                    term: entry.term,
                    index: entry.index,
                };
                self.table.apply(position, changes);
                next = entry.index + 1;
            }
            state.index = next - 1;
        }
        Ok(())
    }

    /// Builds a part of the tree. Returns whether there is more to do.
    pub(crate) fn warm(&self) -> Result<bool, EventualError> {
        let mut state = self.state.lock();
        let Some(from) = state.warming.clone() else {
            return Ok(false);
        };
        let (start, end) = self.rows.records_from(&from);
        let page = self.page(start, end)?;
        for (row, version) in page.rows {
            let key = Rows::key_of(&row);
            let record = Record::decode(&version.value)?;
            let hash = record_hash(&key, &record);
            state.tree.change(&key, None, Some(hash));
            state.unsettled.note(&key, &Record::default(), &record);
            if self.decisions.is_some() {
                state.overlay.note(&key, true);
            }
        }
        state.warming = page.resume.map(|row| Rows::key_of(&row));
        Ok(state.warming.is_some())
    }
}

/// Taking in.
impl Replica {
    /// A key's row as it is now.
    fn row(&self, key: &[u8]) -> Result<Row, EventualError> {
        match self.table.get(&self.rows.record(key))? {
            Some(version) => Ok(Row::stored(Record::decode(&version.value)?)),
            None => Ok(Row::default()),
        }
    }

    /// Does a step: state in memory at once, and the table's changes into `changes`. Returns
    /// whether anything is new; a late copy has nothing. `begun`: the row as the step finds it,
    /// where that was looked at already.
    fn take_in(
        &self,
        state: &mut State,
        step: &Step,
        begun: Option<Row>,
        index: u64,
        changes: &mut Vec<Change>,
    ) -> Result<bool, EventualError> {
        match step {
            Step::Accept { key, deltas } => {
                // All are read before the first changes the clock.
                let deltas = deltas.iter().map(Delta::decode);
                let deltas = deltas.collect::<Result<Vec<_>, _>>()?;
                let before = begun.map_or_else(|| self.row(key), Ok)?;
                let news = self.accept(state, (key, &before), &deltas, index, changes);
                Ok(news.is_some())
            }
            Step::Join { key, state: peer } => {
                let peer = KeyState::decode(peer)?;
                let before = begun.map_or_else(|| self.row(key), Ok)?;
                let dots = peer.live().map(|(dot, _)| *dot);
                let new = state.visible.unknown(&before.record, &state.clock, dots);
                let outcome = match self.faults.repair_overwrites {
                    true => join_key(&mut Clock::default(), &Record::default(), &peer),
                    false => join_key(&mut state.clock, &before.record, &peer),
                };
                // Without news nothing is settled either: other keys' changes would make an entry
                // of it, and beside a log a row of this key that tree and overlay never heard of.
                if !outcome.is_news() {
                    return Ok(false);
                }
                let after = outcome.record.or_else(|| before.begun());
                self.put_record(state, key, &before, after.as_ref(), index, changes);
                self.settle_due(state, Some(key), index, changes);
                self.tell(state, (key, &before.record), new, after.as_ref());
                Ok(true)
            }
            Step::Merge { clock } => {
                // Of what lies above a gap the comparison may have left records out.
                let grew = state.clock.merge_base(&Clock::decode(clock)?.base());
                if grew {
                    state.overlay.unmark();
                }
                self.settle_due(state, None, index, changes);
                Ok(grew || !changes.is_empty())
            }
            Step::Keep { hints } => {
                for (dot, hint) in hints {
                    if state.hints.add(*dot, hint) {
                        changes.push(self.put(self.rows.hint(*dot), hint.encode(), index));
                    } else if state.hints.want(*dot, hint.wanted) {
                        let hint = Hint {
                            holders: state.hints.holders(*dot),
                            ..hint.clone()
                        };
                        changes.push(self.put(self.rows.hint(*dot), hint.encode(), index));
                    }
                }
                Ok(!changes.is_empty())
            }
            Step::Held { node, dots } => self.note_held(state, *node, dots, index, changes),
            Step::Forget { dots } => {
                let known = dots.iter().filter(|dot| state.hints.remove(**dot));
                changes.extend(known.map(|dot| self.remove(self.rows.hint(*dot), index)));
                Ok(!changes.is_empty())
            }
            Step::Filled => Ok(!std::mem::replace(&mut state.filled, true)),
            Step::Seed { key, record } => {
                let record = Record::decode(record)?;
                let before = self.row(key)?;
                self.put_record(state, key, &before, Some(&record), index, changes);
                Ok(true)
            }
            Step::Trim { keys } => {
                state.overlay.trimmed();
                // All are read before the first leaves the tree: one that cannot be read fails the
                // step, and the tree must not have lost what stays.
                let rows = keys.iter().map(|key| Ok((key, self.row(key)?)));
                for (key, before) in rows.collect::<Result<Vec<_>, EventualError>>()? {
                    self.remove_record(state, key, &before, index, changes);
                }
                Ok(!changes.is_empty())
            }
            Step::Close { starts } => {
                let mut is_new = false;
                for (disk, start) in starts {
                    is_new |= state.clock.close(*disk, *start);
                }
                self.settle_due(state, None, index, changes);
                Ok(is_new || !changes.is_empty())
            }
            Step::Left => Ok(std::mem::replace(&mut state.filled, false)),
            Step::Expire { deadline, keys } => self.expire(state, *deadline, keys, index, changes),
        }
    }

    /// Takes in deltas of one key. Returns its record as it is now; `None`: nothing was new.
    fn accept(
        &self,
        state: &mut State,
        (key, before): (&Bytes, &Row),
        deltas: &[Delta],
        index: u64,
        changes: &mut Vec<Change>,
    ) -> Option<Record> {
        let dots = deltas.iter().map(|delta| delta.dot);
        let new = state.visible.unknown(&before.record, &state.clock, dots);
        let (mut after, mut news) = (None, false);
        for delta in deltas {
            let now = after.as_ref().unwrap_or(&before.record);
            let is_collected = self.faults.revive_collected && !before.is_stored;
            let outcome = match self.faults.accept_the_dead || is_collected {
                true => self.accept_the_dead(&mut state.clock, now, delta),
                false => accept(&mut state.clock, now, delta),
            };
            news |= outcome.is_news();
            after = outcome.record.or(after);
        }
        if !news {
            return None;
        }
        let after = after.or_else(|| before.begun());
        if let (true, Some(after)) = (self.faults.replaced_leaves_clock, &after) {
            self.forget_replaced(&mut state.clock, &before.record, after);
        }
        self.put_record(state, key, before, after.as_ref(), index, changes);
        self.settle_due(state, Some(key), index, changes);
        let after = after.unwrap_or_else(|| before.record.clone());
        self.tell(state, (key, &before.record), new, Some(&after));
        Some(after)
    }

    fn put(&self, key: Bytes, value: Bytes, revision: u64) -> Change {
        Change::Put {
            key,
            version: Version {
                revision,
                expiry: None,
                value,
                causal: None,
            },
        }
    }

    fn remove(&self, key: Bytes, revision: u64) -> Change {
        Change::Delete { key, revision }
    }

    fn put_record(
        &self,
        state: &mut State,
        key: &Bytes,
        before: &Row,
        after: Option<&Record>,
        index: u64,
        changes: &mut Vec<Change>,
    ) {
        let Some(after) = after else { return };
        // Beside a log, a row that says nothing still says that this is newer than the log's
        // state: it stays until the log knows as much.
        if after.is_gone() && self.decisions.is_none() {
            self.remove_record(state, key, before, index, changes);
            return;
        }
        changes.push(self.put(self.rows.record(key), after.encode(), index));
        if !before.is_stored {
            changes.push(self.put(self.rows.leaf(key), Bytes::new(), index));
        }
        let known = before.clone().known();
        self.put_expiry(
            key,
            first_expiry(&known),
            first_expiry(after),
            index,
            changes,
        );
        if state.is_warm(key) {
            let new = Some(record_hash(key, after));
            state.tree.change(key, before.hash(key), new);
            state.unsettled.note(key, &known, after);
            if self.decisions.is_some() {
                state.overlay.note(key, !before.is_stored);
            }
        }
    }

    /// Keeps the index of expiries. Beside a log there is none: the log removes values.
    fn put_expiry(
        &self,
        key: &Bytes,
        before: Option<Timestamp>,
        after: Option<Timestamp>,
        index: u64,
        changes: &mut Vec<Change>,
    ) {
        if before == after || self.decisions.is_some() {
            return;
        }
        changes.extend(before.map(|at| self.remove(self.rows.expiry(at, key), index)));
        changes.extend(after.map(|at| self.put(self.rows.expiry(at, key), Bytes::new(), index)));
    }

    fn remove_record(
        &self,
        state: &mut State,
        key: &Bytes,
        before: &Row,
        index: u64,
        changes: &mut Vec<Change>,
    ) {
        if !before.is_stored {
            return;
        }
        changes.push(self.remove(self.rows.record(key), index));
        changes.push(self.remove(self.rows.leaf(key), index));
        let known = &before.record;
        self.put_expiry(key, first_expiry(known), None, index, changes);
        if state.is_warm(key) {
            if !self.faults.tree_keeps_trimmed {
                state.tree.change(key, before.hash(key), None);
            }
            state.unsettled.note(key, known, &Record::default());
            if self.decisions.is_some() {
                state.overlay.forget(key);
            }
        }
    }

    /// Trims records that the clock's growth has set free, but for the key that the step itself
    /// has just written. One that cannot be read now stays due, and fails no step.
    fn settle_due(
        &self,
        state: &mut State,
        but: Option<&Bytes>,
        index: u64,
        changes: &mut Vec<Change>,
    ) {
        for key in state.unsettled.due(&state.clock, SETTLE_KEYS_MAX) {
            if but == Some(&key) {
                continue;
            }
            // The clock has changed already: what happens to another key must not undo that.
            match self.row(&key) {
                Ok(before) => {
                    let after = settle(&state.clock, &before.record);
                    self.put_record(state, &key, &before, after.as_ref(), index, changes);
                }
                Err(error) => tracing::error!(range = %self.range, %error, "a record stays due"),
            }
        }
    }

    fn note_held(
        &self,
        state: &mut State,
        node: NodeId,
        dots: &[Dot],
        index: u64,
        changes: &mut Vec<Change>,
    ) -> Result<bool, EventualError> {
        for dot in dots {
            if !state.hints.held(*dot, node) {
                continue;
            }
            let Some(mut hint) = self.hint(*dot)? else {
                continue;
            };
            hint.holders.push(node);
            changes.push(self.put(self.rows.hint(*dot), hint.encode(), index));
        }
        Ok(!changes.is_empty())
    }

    /// Does a step, and puts it into log and table. The answer waits for the log; without it the
    /// change is in memory, and on its way to the disk.
    fn commit(&self, state: &mut State, step: &Step) -> Result<Synced, EventualError> {
        let (done, synced) = Synced::pair();
        // Without an entry (a late copy): on disk once all that is queued is.
        let entries = self.enter(state, step)?.into_iter().flatten().collect();
        self.log.append(entries, done);
        Ok(synced)
    }

    /// Does a step, and puts it into the table. Returns its entries of the log, which are to be
    /// appended before the lock is given back: a late copy has none, one that begins a row beside
    /// a log has two.
    fn enter(
        &self,
        state: &mut State,
        step: &Step,
    ) -> Result<[Option<LogEntry>; 2], EventualError> {
        let (seed, begun) = self.begin_step(state, step)?;
        let index = state.index + 1 + u64::from(seed.is_some());
        let mut changes = Vec::new();
        if !self.take_in(state, step, begun, index, &mut changes)? {
            return Ok([None, None]);
        }
        let seed = seed.map(|(key, record)| self.seeded(state, key, &record));
        Ok([seed, Some(self.entered(state, step, changes))])
    }

    /// Puts a step that was done in memory into the table, and makes its entry of the log.
    fn entered(&self, state: &mut State, step: &Step, changes: Vec<Change>) -> LogEntry {
        let (index, term) = (state.index + 1, u64::from(self.actor.start));
        state.index = index;
        self.table.apply(Position { term, index }, changes);
        LogEntry {
            term,
            index,
            payload: step.encode(),
        }
    }

    /// Takes several things in as one request to the log. `then` is told what was refused, by its
    /// place, and makes what the log's worker calls once all else is on disk; neither may block.
    pub(crate) fn do_each(
        &self,
        steps: impl Iterator<Item = Result<Step, EventualError>>,
        then: impl FnOnce(Vec<(usize, EventualError)>) -> Done,
    ) {
        let (mut entries, mut refused) = (Vec::with_capacity(steps.size_hint().0), Vec::new());
        let mut state = self.state.lock();
        for (place, step) in steps.enumerate() {
            match step.and_then(|step| self.enter(&mut state, &step)) {
                Ok(entered) => entries.extend(entered.into_iter().flatten()),
                Err(error) => refused.push((place, error)),
            }
        }
        // Without entries (late copies alone): on disk once all that is queued is.
        self.log.append(entries, then(refused));
    }

    /// Takes something in.
    pub(crate) fn do_step(&self, step: &Step) -> Result<Synced, EventualError> {
        self.commit(&mut self.state.lock(), step)
    }

    /// Takes several things in, and returns once they are on disk.
    pub(crate) async fn do_steps(
        &self,
        steps: impl IntoIterator<Item = Step>,
    ) -> Result<(), EventualError> {
        let mut last = None;
        for step in steps {
            last = Some(self.do_step(&step)?);
        }
        match last {
            Some(last) => last.wait().await,
            None => Ok(()),
        }
    }

    /// Makes a new write of a key, from what this replica holds of it, and takes it in as one
    /// step.
    pub(crate) fn write(
        &self,
        key: &Bytes,
        make: impl FnOnce(&KeyState, Actor, u64) -> Result<Vec<Planned>, EventualError>,
        times: (Timestamp, Option<Timestamp>),
    ) -> Result<Written, EventualError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (before, committed) = self.begin(state, key)?;
        let view = self.view_of(state, &before, committed.clone());
        let planned = make(&view, self.actor, state.counter)?;
        let folds = planned.iter().any(|planned| planned.folds);
        let deltas = self.named(state, planned, times);
        let begins = before.is_seed() && !deltas.is_empty();
        let seed = begins.then(|| self.seeded(state, key.clone(), &before.record));
        let (index, mut changes) = (state.index + 1, Vec::new());
        let after = self.accept(state, (key, &before), &deltas, index, &mut changes);
        let encoded: Vec<Bytes> = deltas.iter().map(Delta::encode).collect();
        let step = Step::Accept {
            key: key.clone(),
            deltas: encoded.clone(),
        };
        let (done, synced) = Synced::pair();
        let entry = self.entered(state, &step, changes);
        let entries = seed.into_iter().chain([entry]);
        self.log.append(entries.collect(), done);
        Ok(Written {
            dot: self.first_of(&deltas, state),
            deltas: encoded,
            folds,
            state: self.view_of(
                state,
                &Row::stored(after.unwrap_or(before.record)),
                committed,
            ),
            synced,
        })
    }

    /// As `write`, at a stand-in: from what its hints say of the key, and kept as hints that
    /// `wanted` primaries shall have.
    pub(crate) fn write_hints(
        &self,
        key: &Bytes,
        wanted: u8,
        make: impl FnOnce(&KeyState, Actor, u64) -> Result<Vec<Planned>, EventualError>,
        times: (Timestamp, Option<Timestamp>),
    ) -> Result<Written, EventualError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let mut held = self.hinted(state, key)?.unwrap_or_default();
        let planned = make(&held, self.actor, state.counter)?;
        let folds = planned.iter().any(|planned| planned.folds);
        let deltas = self.named(state, planned, times);
        let encoded: Vec<(Dot, Bytes)> = deltas
            .iter()
            .map(|delta| (delta.dot, delta.encode()))
            .collect();
        let mut hints = hints_of(key, &encoded, wanted);
        if self.faults.hints_unkept {
            hints.clear();
        }
        let synced = self.commit(state, &Step::Keep { hints })?;
        for delta in &deltas {
            held.join(&delta.state());
        }
        Ok(Written {
            dot: self.first_of(&deltas, state),
            deltas: encoded.into_iter().map(|(_, delta)| delta).collect(),
            folds,
            state: held,
            synced,
        })
    }

    /// Gives planned deltas their names and times.
    fn named(
        &self,
        state: &mut State,
        planned: Vec<Planned>,
        (timestamp, expiry): (Timestamp, Option<Timestamp>),
    ) -> Vec<Delta> {
        let named = planned.into_iter().map(|planned| {
            state.counter += 1;
            planned.delta(Dot::new(self.actor, state.counter), timestamp, expiry)
        });
        named.collect()
    }

    /// The name of a write; one that changes nothing has its last one's.
    fn first_of(&self, deltas: &[Delta], state: &State) -> Dot {
        let first = deltas.first().map(|delta| delta.dot);
        first.unwrap_or(Dot::new(self.actor, state.counter))
    }

    /// Waits until all that was taken in so far is on disk.
    pub(crate) fn all_synced(&self) -> Synced {
        let (done, synced) = Synced::pair();
        self.log.append(Vec::new(), done);
        synced
    }

    /// The last count that this start has given out as a dot.
    pub(crate) fn counter(&self) -> u64 {
        self.state.lock().counter
    }

    /// Keeps hints of writes that others named.
    pub(crate) fn keep(
        &self,
        key: &Bytes,
        deltas: &[Bytes],
        wanted: u8,
    ) -> Result<Synced, EventualError> {
        self.do_step(&hints_step(key, deltas, wanted)?)
    }
}
