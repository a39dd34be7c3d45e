//! What this node holds of one range on the eventual plane: as a primary its records and clock,
//! as a stand-in its hints. Every change is an entry of the node log and a change of the engine's
//! table, in the same order; a start repeats the entries that the table does not have yet.
//!
//! Not here: who is asked, and when (`coordinator`, `hand_over`, `repair`).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_storage::engine::{Change, Engine, Position, RangeTable, ScanRequest, Version};
use quorate_storage::log::{GroupLog, LogEntry, LogError, LogId, NodeLog};
use quorate_types::causal::{
    Actor, Clock, Delta, Dot, Dots, KeyState, Planned, Record, Unsettled, accept, join_key, settle,
};
use quorate_types::{NodeId, RangeId, Timestamp};
use tokio::sync::oneshot;

use crate::error::EventualError;
use crate::hints::Hints;
use crate::rows::{Rows, plane_id};
use crate::step::{Hint, Step};
use crate::tree::{HashTree, Sum, hash_of};

/// The clock, in the table's metadata.
const META_CLOCK: &[u8] = b"clock";
/// Whether the replica may answer, in the table's metadata.
const META_FILLED: &[u8] = b"filled";
/// Records that one change of the clock sets free at once; the rest follows in the background.
const SETTLE_KEYS_MAX: usize = 256;
/// Entries read at once at a start.
const REPLAY_BYTES_MAX: u64 = 4 << 20;
/// Records read at once while the tree is built, with writers waiting.
const WARM_ROWS_MAX: usize = 512;
/// Bytes of them.
const WARM_BYTES_MAX: usize = 1 << 20;
/// Entries that may be in the log though the table has them, before they are purged.
const PURGE_ENTRIES: u64 = 4_096;

/// Waits until a change is on disk.
pub(crate) struct Synced(oneshot::Receiver<Result<(), Arc<LogError>>>);

impl Synced {
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

/// One range's eventual state on this node.
pub(crate) struct Replica {
    pub(crate) range: RangeId,
    actor: Actor,
    table: RangeTable,
    log: GroupLog,
    rows: Rows,
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
    purged: u64,
}

impl State {
    /// Whether the tree speaks for a key yet.
    fn is_warm(&self, key: &[u8]) -> bool {
        self.warming.as_ref().is_none_or(|next| key < &next[..])
    }
}

/// What stands in a replica's way of reading its stored state.
fn damaged(what: &'static str) -> EventualError {
    EventualError::Peer(format!("stored {what}"))
}

/// The hash of a key's record: equal on replicas that hold the same of it.
fn record_hash(key: &[u8], record: &Record) -> Sum {
    let mut bytes = Vec::with_capacity(key.len() + 64);
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
    hash_of(bytes)
}

fn hash_if_any(key: &[u8], record: &Record) -> Option<Sum> {
    (!record.is_gone()).then(|| record_hash(key, record))
}

/// Opening.
impl Replica {
    /// Opens what this node holds of a range, and repeats what the table does not have yet.
    /// `founder`: the node was there from the range's first moment, so it needs no filling.
    pub(crate) fn open(
        range: RangeId,
        actor: Actor,
        founder: bool,
        log: &NodeLog,
        engine: &Engine,
    ) -> Result<Replica, EventualError> {
        let rows = Rows::of(range);
        let id = plane_id(range);
        let table = engine.open_range(id, rows.interval())?;
        table.set_history(false);
        let clock = match table.meta(META_CLOCK)? {
            Some(clock) => Clock::decode(&clock)?,
            None => Clock::default(),
        };
        let filled = founder || table.meta(META_FILLED)?.is_some();
        let replica = Replica {
            range,
            actor,
            log: log.group(id),
            rows,
            state: Mutex::new(State {
                clock,
                counter: 0,
                index: table.durable().map_or(0, |position| position.index),
                filled,
                tree: HashTree::default(),
                unsettled: Unsettled::default(),
                warming: Some(Bytes::new()),
                hints: Hints::default(),
                purged: 0,
            }),
            table,
        };
        replica.load_hints()?;
        replica.replay()?;
        Ok(replica)
    }

    fn load_hints(&self) -> Result<(), EventualError> {
        let (mut start, end) = self.rows.hints();
        let mut state = self.state.lock();
        loop {
            let page = self.page(start, end.clone())?;
            for (row, version) in page.0 {
                let dot = Rows::dot_of(&row).ok_or_else(|| damaged("name of a hint"))?;
                let hint = Hint::decode(version.value).ok_or_else(|| damaged("hint"))?;
                state.hints.add(dot, &hint);
            }
            match page.1 {
                Some(next) => start = next,
                None => return Ok(()),
            }
        }
    }

    #[allow(clippy::type_complexity)]
    fn page(
        &self,
        start: Bytes,
        end: Bytes,
    ) -> Result<(Vec<(Bytes, Version)>, Option<Bytes>), EventualError> {
        let page = self.table.scan(&ScanRequest {
            start,
            end,
            reverse: false,
            at: None,
            rows_max: WARM_ROWS_MAX,
            bytes_max: WARM_BYTES_MAX,
            keys_only: false,
        })?;
        Ok((page.rows, page.resume))
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
                let step = Step::decode(entry.payload).ok_or_else(|| damaged("entry"))?;
                let mut changes = Vec::new();
                self.take_in(&mut state, &step, entry.index, &mut changes)?;
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
        let (rows, resume) = self.page(start, end)?;
        for (row, version) in rows {
            let key = Rows::key_of(&row);
            let record = Record::decode(&version.value)?;
            let hash = hash_if_any(&key, &record);
            state.tree.change(&key, None, hash);
            state.unsettled.note(&key, &Record::default(), &record);
        }
        state.warming = resume.map(|row| Rows::key_of(&row));
        Ok(state.warming.is_some())
    }
}

/// Taking in.
impl Replica {
    /// What a key's record is now.
    fn record(&self, key: &[u8]) -> Result<Record, EventualError> {
        match self.table.get(&self.rows.record(key))? {
            Some(version) => Ok(Record::decode(&version.value)?),
            None => Ok(Record::default()),
        }
    }

    /// Does a step: state in memory at once, and the table's changes into `changes`. Returns
    /// whether anything is new; a late copy has nothing.
    fn take_in(
        &self,
        state: &mut State,
        step: &Step,
        index: u64,
        changes: &mut Vec<Change>,
    ) -> Result<bool, EventualError> {
        match step {
            Step::Accept { key, deltas } => {
                // Whatever can fail comes before the clock changes: it never runs ahead of records.
                let deltas = deltas.iter().map(Delta::decode);
                let deltas = deltas.collect::<Result<Vec<_>, _>>()?;
                let before = self.record(key)?;
                let (mut after, mut news) = (None, false);
                for delta in deltas {
                    let now = after.as_ref().unwrap_or(&before);
                    let outcome = accept(&mut state.clock, now, &delta);
                    news |= outcome.is_news();
                    after = outcome.record.or(after);
                }
                self.put_record(state, key, &before, after.as_ref(), index, changes);
                self.settle_due(state, Some(key), index, changes);
                Ok(news || !changes.is_empty())
            }
            Step::Join { key, state: peer } => {
                let peer = KeyState::decode(peer)?;
                let before = self.record(key)?;
                let outcome = join_key(&mut state.clock, &before, &peer);
                self.put_record(state, key, &before, outcome.record.as_ref(), index, changes);
                self.settle_due(state, Some(key), index, changes);
                Ok(outcome.is_news() || !changes.is_empty())
            }
            Step::Merge { clock } => {
                let grew = state.clock.merge(&Clock::decode(clock)?);
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
        }
    }

    fn put(&self, key: Bytes, value: Bytes, revision: u64) -> Change {
        Change::Put {
            key,
            version: Version {
                revision,
                expiry: None,
                value,
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
        before: &Record,
        after: Option<&Record>,
        index: u64,
        changes: &mut Vec<Change>,
    ) {
        let Some(after) = after else { return };
        let row = self.rows.record(key);
        if after.is_gone() {
            changes.push(self.remove(row, index));
            changes.push(self.remove(self.rows.leaf(key), index));
        } else {
            changes.push(self.put(row, after.encode(), index));
            if before.is_gone() {
                changes.push(self.put(self.rows.leaf(key), Bytes::new(), index));
            }
        }
        if state.is_warm(key) {
            let (old, new) = (hash_if_any(key, before), hash_if_any(key, after));
            state.tree.change(key, old, new);
            state.unsettled.note(key, before, after);
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
            match self.record(&key) {
                Ok(before) => {
                    let after = settle(&state.clock, &before);
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
            let row = self.rows.hint(*dot);
            let Some(stored) = self.table.get(&row)? else {
                continue;
            };
            let mut hint = Hint::decode(stored.value).ok_or_else(|| damaged("hint"))?;
            hint.holders.push(node);
            changes.push(self.put(row, hint.encode(), index));
        }
        Ok(!changes.is_empty())
    }

    /// Does a step, and puts it into log and table. The answer waits for the log; without it the
    /// change is in memory, and on its way to the disk.
    fn commit(&self, state: &mut State, step: &Step) -> Result<Synced, EventualError> {
        let (done, synced) = oneshot::channel();
        let done = Box::new(move |result| {
            // Whoever does not wait does not care.
            let _ = done.send(result);
        });
        let (index, term) = (state.index + 1, u64::from(self.actor.start));
        let mut changes = Vec::new();
        if !self.take_in(state, step, index, &mut changes)? {
            // A late copy: on disk once all that is queued is.
            self.log.append(Vec::new(), done);
            return Ok(Synced(synced));
        }
        state.index = index;
        let payload = step.encode();
        let entry = LogEntry {
            term,
            index,
            payload,
        };
        self.log.append(vec![entry], done);
        self.table.apply(Position { term, index }, changes);
        Ok(Synced(synced))
    }

    /// Takes something in.
    pub(crate) fn do_step(&self, step: &Step) -> Result<Synced, EventualError> {
        self.commit(&mut self.state.lock(), step)
    }

    /// Makes a new write of a key, from what this replica holds of it, and takes it in as one
    /// step. As a stand-in it is kept as hints that `wanted` primaries shall have.
    pub(crate) fn write(
        &self,
        key: &Bytes,
        stand_in: Option<u8>,
        make: impl FnOnce(&KeyState, Actor, u64) -> Result<Vec<Planned>, EventualError>,
        (timestamp, expiry): (Timestamp, Option<Timestamp>),
    ) -> Result<Written, EventualError> {
        let mut state = self.state.lock();
        let held = match stand_in {
            Some(_) => self.hinted(&state, key)?.unwrap_or_default(),
            None => self.record(key)?.state(&state.clock),
        };
        let planned = make(&held, self.actor, state.counter)?;
        let folds = planned.iter().any(|planned| planned.folds);
        let mut written = Vec::with_capacity(planned.len());
        for planned in planned {
            state.counter += 1;
            let dot = Dot::new(self.actor, state.counter);
            let delta = planned.delta(dot, timestamp, expiry).encode();
            written.push((dot, delta));
        }
        let deltas: Vec<Bytes> = written.iter().map(|(_, delta)| delta.clone()).collect();
        let step = match stand_in {
            None => Step::Accept {
                key: key.clone(),
                deltas: deltas.clone(),
            },
            Some(wanted) => Step::Keep {
                hints: hints_of(key, &written, wanted),
            },
        };
        let synced = self.commit(&mut state, &step)?;
        let dot = written.first().map(|(dot, _)| *dot);
        Ok(Written {
            dot: dot.unwrap_or(Dot::new(self.actor, state.counter)),
            deltas,
            folds,
            synced,
        })
    }

    /// Waits until all that was taken in so far is on disk.
    pub(crate) fn all_synced(&self) -> Synced {
        let (done, synced) = oneshot::channel();
        let done = Box::new(move |result| {
            // Whoever does not wait does not care.
            let _ = done.send(result);
        });
        self.log.append(Vec::new(), done);
        Synced(synced)
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
        let named = deltas
            .iter()
            .map(|delta| Ok((Delta::decode(delta)?.dot, delta.clone())));
        let named = named.collect::<Result<Vec<_>, EventualError>>()?;
        self.do_step(&Step::Keep {
            hints: hints_of(key, &named, wanted),
        })
    }

    /// Trims some of what is due. Returns whether there was any.
    pub(crate) fn settle_some(&self) -> Result<bool, EventualError> {
        let mut state = self.state.lock();
        let index = state.index;
        if !state.unsettled.due(&state.clock, 1).is_empty() {
            let clock = Clock::default().encode();
            drop(self.commit(&mut state, &Step::Merge { clock })?);
        }
        Ok(state.index > index)
    }

    /// Lets log and table forget what they may.
    pub(crate) fn tend(&self) -> Result<(), EventualError> {
        let state = self.state.lock();
        if self.table.wants_flush() {
            let mut meta = vec![(Bytes::from_static(META_CLOCK), Some(state.clock.encode()))];
            if state.filled {
                meta.push((
                    Bytes::from_static(META_FILLED),
                    Some(Bytes::from_static(&[1])),
                ));
            }
            self.table.freeze(meta);
        }
        let durable = self.table.durable().map_or(0, |position| position.index);
        if durable >= state.purged + PURGE_ENTRIES
            && let Some(id) = self.log.log_id(durable)
        {
            let mut state = state;
            state.purged = durable;
            self.log.purge(id, Box::new(|_| {}));
        }
        Ok(())
    }
}

/// Looking.
impl Replica {
    /// What this primary knows of a key.
    ///
    /// # Errors
    /// [`EventualError::Filling`] where it does not know all that it acknowledged.
    pub(crate) fn fetch(&self, key: &[u8]) -> Result<KeyState, EventualError> {
        let state = self.state.lock();
        if !state.filled {
            return Err(EventualError::Filling(self.range));
        }
        Ok(self.record(key)?.state(&state.clock))
    }

    /// What this replica holds of a key for repair, filled or not.
    pub(crate) fn held(&self, key: &[u8]) -> Result<KeyState, EventualError> {
        let state = self.state.lock();
        Ok(self.record(key)?.state(&state.clock))
    }

    /// What this stand-in's hints say of a key; `None`: nothing.
    pub(crate) fn fetch_hinted(&self, key: &[u8]) -> Result<Option<KeyState>, EventualError> {
        self.hinted(&self.state.lock(), key)
    }

    fn hinted(&self, state: &State, key: &[u8]) -> Result<Option<KeyState>, EventualError> {
        let mut known: Option<KeyState> = None;
        for dot in state.hints.of_key(key) {
            let delta = self.hint(dot)?.map(|hint| Delta::decode(&hint.delta));
            if let Some(delta) = delta.transpose()? {
                known
                    .get_or_insert_with(KeyState::default)
                    .join(&delta.state());
            }
        }
        Ok(known)
    }

    /// A stored hint.
    pub(crate) fn hint(&self, dot: Dot) -> Result<Option<Hint>, EventualError> {
        let Some(stored) = self.table.get(&self.rows.hint(dot))? else {
            return Ok(None);
        };
        Hint::decode(stored.value)
            .map(Some)
            .ok_or_else(|| damaged("hint"))
    }

    /// Looks at the hints, under the replica's lock: briefly.
    pub(crate) fn with_hints<T>(&self, look: impl FnOnce(&Hints) -> T) -> T {
        look(&self.state.lock().hints)
    }

    /// A page of records in the order of their keys (or against it): what is known of each, the
    /// base of the clock, which was copied before, and where to go on.
    pub(crate) fn scan(
        &self,
        (start, end, reverse): (&[u8], &[u8], bool),
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<RecordsPage, EventualError> {
        let (clock, index) = {
            let state = self.state.lock();
            if !state.filled {
                return Err(EventualError::Filling(self.range));
            }
            (state.clock.clone(), state.index)
        };
        let (first, last) = self.rows.records_from(start);
        let last = if end.is_empty() {
            last
        } else {
            self.rows.record(end)
        };
        let page = self.table.scan(&ScanRequest {
            start: first,
            end: last,
            reverse,
            at: None,
            rows_max,
            bytes_max,
            keys_only: false,
        })?;
        let states = page.rows.into_iter().map(|(row, version)| {
            let key = Rows::key_of(&row);
            if version.revision > index {
                // Written after the clock was copied, which so cannot speak for it.
                let state = self.held(&key)?;
                return Ok((key, state));
            }
            Ok((key, Record::decode(&version.value)?.state(&clock)))
        });
        let states = states.collect::<Result<_, EventualError>>()?;
        let resume = page.resume.map(|row| Rows::key_of(&row));
        Ok((states, clock.base(), resume))
    }

    /// Whether it may answer as a primary.
    pub(crate) fn is_filled(&self) -> bool {
        self.state.lock().filled
    }

    /// The clock as of now.
    pub(crate) fn clock(&self) -> Clock {
        self.state.lock().clock.clone()
    }

    /// Whether the tree is built.
    pub(crate) fn is_warm(&self) -> bool {
        self.state.lock().warming.is_none()
    }

    /// Looks at the tree, under the replica's lock: briefly.
    pub(crate) fn with_tree<T>(&self, look: impl FnOnce(&HashTree) -> T) -> T {
        look(&self.state.lock().tree)
    }

    /// The last entry: changes with every change.
    pub(crate) fn index(&self) -> u64 {
        self.state.lock().index
    }

    /// The hash of all that the replica holds: its records and its clock.
    pub(crate) fn hash(&self) -> Option<Sum> {
        let state = self.state.lock();
        let clock = hash_of(state.clock.encode().to_vec());
        state
            .warming
            .is_none()
            .then(|| state.tree.root().wrapping_add(clock))
    }

    /// The hashes of a leaf's keys after `after`, at most `keys_max`, and whether there are more.
    pub(crate) fn leaf_keys(
        &self,
        leaf: u16,
        after: &[u8],
        keys_max: usize,
    ) -> Result<(BTreeMap<Bytes, Sum>, bool), EventualError> {
        let (start, end) = self.rows.leaf_after(leaf, after);
        let page = self.table.scan(&ScanRequest {
            start,
            end,
            reverse: false,
            at: None,
            rows_max: keys_max,
            bytes_max: WARM_BYTES_MAX,
            keys_only: true,
        })?;
        let mut keys = BTreeMap::new();
        for (row, _) in page.rows {
            let key = Rows::key_of_leaf(&row);
            if let Some(hash) = hash_if_any(&key, &self.record(&key)?) {
                keys.insert(key, hash);
            }
        }
        Ok((keys, page.resume.is_some()))
    }

    /// Logical bytes of records and hints; for tests and reports. Reads everything.
    pub(crate) fn stored_bytes(&self) -> Result<(u64, u64), EventualError> {
        let (mut records, mut hints) = (0, 0);
        let (first, _) = self.rows.records_from(&[]);
        let (_, last) = self.rows.hints();
        let mut from = first;
        loop {
            let (rows, resume) = self.page(from, last.clone())?;
            for (row, version) in rows {
                let bytes = (row.len() + version.value.len()) as u64;
                match Rows::dot_of(&row).filter(|dot| self.rows.hint(*dot) == row) {
                    Some(_) => hints += bytes,
                    None => records += bytes,
                }
            }
            match resume {
                Some(next) => from = next,
                None => return Ok((records, hints)),
            }
        }
    }

    /// Whether all records and the tree keep their rules: `broken` names the rule of records that
    /// one breaks.
    pub(crate) fn validate(
        &self,
        broken: impl Fn(&Clock, &Record) -> Option<&'static str>,
    ) -> Result<(), String> {
        let state = self.state.lock();
        let due = state.unsettled.due(&state.clock, usize::MAX);
        let mut tree = HashTree::default();
        let (mut start, end) = self.rows.records_from(&[]);
        loop {
            let (rows, resume) = self
                .page(start, end.clone())
                .map_err(|error| error.to_string())?;
            for (row, version) in rows {
                let key = Rows::key_of(&row);
                let record = Record::decode(&version.value).map_err(|error| error.to_string())?;
                if state.is_warm(&key)
                    && !due.contains(&key)
                    && let Some(rule) = broken(&state.clock, &record)
                {
                    return Err(format!("{rule}: {key:?} {record:?}"));
                }
                tree.change(&key, None, hash_if_any(&key, &record));
            }
            match resume {
                Some(next) => start = next,
                None => break,
            }
        }
        if state.warming.is_none() && tree.root() != state.tree.root() {
            return Err("the hash tree is not that of the records".to_owned());
        }
        Ok(())
    }
}
