//! The handle of one range: writing, flushing, reading, moving.
//!
//! Writes come from one writer, in log order, and stay in memory until the
//! writer freezes them. Reads come from anywhere.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLockReadGuard;

use super::error::EngineError;
use super::export::Export;
use super::hash::StateHash;
use super::range::{Range, Seal, State};
use super::scan::{Course, ScanPage, ScanRequest, Snapshot};
use super::store::Inner;
use super::{Change, HistoryEntry, Position, Version, import};

/// Handle of one range's table. Cloning gives another handle.
#[derive(Clone)]
pub struct RangeTable {
    pub(super) range: Arc<Range>,
    pub(super) engine: Arc<Inner>,
}

impl fmt::Debug for RangeTable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("RangeTable").field(&self.range.id).finish()
    }
}

/// Positions and metadata.
impl RangeTable {
    /// The range's id.
    pub fn id(&self) -> u64 {
        self.range.id
    }

    /// First key, and the key behind the last (empty: no end).
    pub fn interval(&self) -> (Bytes, Bytes) {
        self.range.interval.clone()
    }

    /// The last position whose effects are in the file.
    pub fn durable(&self) -> Option<Position> {
        *self.range.durable.borrow()
    }

    /// The last position that was applied.
    pub fn applied(&self) -> Option<Position> {
        self.range.state.read().applied
    }

    /// Highest revision that was applied; 0: none.
    pub fn last_revision(&self) -> u64 {
        self.range.state.read().last_revision
    }

    /// Oldest revision that can be read. Without history that is the newest.
    pub fn floor(&self) -> u64 {
        self.range.state.read().effective_floor()
    }

    /// A caller's metadata: what the last freeze staged, or else the file's.
    pub fn meta(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let state = self.range.state.read();
        let staged = state
            .seals
            .iter()
            .rev()
            .find_map(|seal| seal.staged.get(key));
        if let Some(staged) = staged {
            return Ok(staged.clone());
        }
        let view = state.view.clone();
        drop(state);
        self.engine.watched(view.caller_meta(self.range.id, key))
    }

    /// All of a caller's metadata whose keys start with `prefix`, sorted.
    pub fn meta_scan(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
        let state = self.range.state.read();
        let view = state.view.clone();
        let staged: Vec<_> = state.seals.iter().map(|seal| seal.staged.clone()).collect();
        drop(state);
        let stored = self
            .engine
            .watched(view.caller_meta_scan(self.range.id, prefix))?;
        let mut all: BTreeMap<Bytes, Bytes> = stored.into_iter().collect();
        for (key, value) in staged.into_iter().flatten() {
            if !key.starts_with(prefix) {
                continue;
            }
            match value {
                Some(value) => drop(all.insert(key, value)),
                None => drop(all.remove(&key)),
            }
        }
        Ok(all.into_iter().collect())
    }
}

/// Writing and flushing.
impl RangeTable {
    /// Applies a log entry's changes, in memory. Never blocks on the disk.
    ///
    /// For one writer, in log order; revisions never fall. An entry at or
    /// below [`RangeTable::applied`] changes nothing, so replay may start early.
    pub fn apply(&self, position: Position, changes: Vec<Change>) {
        let range = &self.range;
        let mut state = range.state.write();
        if state.dropped
            || state
                .applied
                .is_some_and(|applied| applied.index >= position.index)
        {
            return;
        }
        let floor = if state.keeps_history {
            state.floor
        } else {
            u64::MAX
        };
        let before = state.active.bytes();
        for change in changes {
            let (Change::Put {
                version: Version { revision, .. },
                ..
            }
            | Change::Delete { revision, .. }) = &change;
            state.last_revision = state.last_revision.max(*revision);
            state.active.push(change, floor);
        }
        state.applied = Some(position);
        let after = state.active.bytes();
        drop(state);
        self.engine.account(range, before, after);
    }

    /// Whether superseded versions are kept from now on. Part of the state
    /// that the log decides: call it at a log position. Turning it off, or on
    /// again, raises the floor to the last revision.
    pub fn set_history(&self, keep: bool) {
        let mut state = self.range.state.write();
        if state.keeps_history != keep {
            state.floor = state.floor.max(state.last_revision);
            state.keeps_history = keep;
        }
    }

    /// Gives up versions that were superseded at or below `revision`. Part of
    /// the state that the log decides. They cannot be read from now on; their
    /// space comes back in the background, in bounded steps, after flushes.
    pub fn set_floor(&self, revision: u64) {
        let mut state = self.range.state.write();
        state.floor = state.floor.max(revision);
    }

    /// Whether the writer should [`RangeTable::freeze`] now: memory has become
    /// scarce, or unflushed data old. Cheap.
    pub fn wants_flush(&self) -> bool {
        self.range.is_due()
    }

    /// Waits until [`RangeTable::wants_flush`]. For ranges that nobody writes
    /// to any more.
    pub async fn flush_due(&self) {
        let mut due = self.range.due.subscribe();
        // The sender lives in the range, which this handle holds.
        drop(due.wait_for(|due| *due).await);
    }

    /// Hands all that is applied to the flusher, with metadata as of the same
    /// moment: a value replaces what the key had, None removes it. Does not
    /// wait.
    pub fn freeze(&self, meta: Vec<(Bytes, Option<Bytes>)>) {
        let range = &self.range;
        let mut state = range.state.write();
        if state.dropped {
            return;
        }
        state.set_active_aside();
        let seal = Seal {
            before: state.next_layer,
            meta: state.range_meta(&range.interval),
            staged: meta.into_iter().collect(),
        };
        state.seals.push_back(seal);
        range.untouch();
        drop(state);
        self.engine.file_of(range.id).wake(range.id);
    }

    /// Waits until [`RangeTable::durable`] has reached `position`.
    ///
    /// # Errors
    /// What stopped the engine.
    pub async fn flushed(&self, position: Position) -> Result<(), EngineError> {
        let mut durable = self.range.durable.subscribe();
        let mut failed = self.engine.common.on_failure();
        let is_dropped = || self.range.state.read().dropped;
        tokio::select! {
            biased;
            durable = durable.wait_for(|durable| *durable >= Some(position) || is_dropped()) => {
                match durable.map(|durable| *durable >= Some(position)) {
                    Ok(true) => Ok(()),
                    Ok(false) | Err(_) => Err(EngineError::Dropped { range: self.range.id }),
                }
            }
            failure = failed.wait_for(Option::is_some) => {
                let failure = failure.ok().and_then(|failure| failure.as_deref().cloned());
                Err(failure.unwrap_or(EngineError::Closed))
            }
        }
    }

    /// Freezes and waits for the flush. Returns the position that is durable.
    ///
    /// # Errors
    /// What stopped the engine.
    pub async fn flush_all(
        &self,
        meta: Vec<(Bytes, Option<Bytes>)>,
    ) -> Result<Option<Position>, EngineError> {
        let applied = self.applied();
        self.freeze(meta);
        if let Some(applied) = applied {
            self.flushed(applied).await?;
        }
        Ok(self.durable())
    }

    /// Memory that applied and not yet flushed data of all ranges takes, in
    /// bytes. Above [`super::EngineOptions::memory_bytes_max`] writers should
    /// be held back: applying itself never blocks.
    pub fn backlog_bytes(&self) -> usize {
        self.engine.common.memory_bytes()
    }
}

/// Reading.
impl RangeTable {
    /// The state, unless the engine is closed, or the range dropped: then the
    /// file's data is no longer the range's.
    fn state(&self) -> Result<RwLockReadGuard<'_, State>, EngineError> {
        let state = self.range.state.read();
        self.check_served(&state)?;
        Ok(state)
    }

    pub(super) fn check_served(&self, state: &State) -> Result<(), EngineError> {
        if self.engine.common.is_closed() {
            return Err(EngineError::Closed);
        }
        let range = self.range.id;
        if state.dropped {
            Err(EngineError::Dropped { range })
        } else {
            Ok(())
        }
    }

    /// The newest version of `key`.
    ///
    /// # Errors
    /// Corrupt or damaged data, a failing disk; never wrong data.
    pub fn get(&self, key: &[u8]) -> Result<Option<Version>, EngineError> {
        self.look_up(key, None)
    }

    /// The version of `key` that was the newest one at `revision`.
    ///
    /// # Errors
    /// [`EngineError::BelowFloor`]; or as [`RangeTable::get`].
    pub fn get_at(&self, key: &[u8], revision: u64) -> Result<Option<Version>, EngineError> {
        self.look_up(key, Some(revision))
    }

    fn look_up(&self, key: &[u8], at: Option<u64>) -> Result<Option<Version>, EngineError> {
        let state = self.state()?;
        check_floor(&state, at)?;
        if !self.range.contains(key) {
            return Ok(None);
        }
        let layers = state.layers.iter().rev().map(|layer| layer.table.as_ref());
        for table in std::iter::once(&state.active).chain(layers) {
            if let Some(slot) = table.get(key).and_then(|slots| slots.visible(at)) {
                return Ok(slot.version());
            }
        }
        let view = state.view.clone();
        drop(state);
        self.engine.watched(match at {
            None => view.get(key),
            Some(at) => view.get_at(self.range.id, key, at),
        })
    }

    /// A page of rows, as of one applied position.
    ///
    /// # Errors
    /// As [`RangeTable::get_at`].
    pub fn scan(&self, request: &ScanRequest) -> Result<ScanPage, EngineError> {
        let course = Course::new(self.range.id, &self.range.interval, request);
        let state = self.state()?;
        check_floor(&state, request.at)?;
        let layers = state.tables_newest_first();
        let view = state.view.clone();
        let snapshot = Snapshot::take(&course, request.rows_max, &state.active, layers, view);
        drop(state);
        self.engine
            .watched(snapshot.page(&course, request.rows_max, request.bytes_max))
    }

    /// The last `limit` writes of `key` that can still be read, newest first.
    ///
    /// # Errors
    /// As [`RangeTable::get`].
    pub fn history(&self, key: &[u8], limit: usize) -> Result<Vec<HistoryEntry>, EngineError> {
        let state = self.state()?;
        if !self.range.contains(key) {
            return Ok(Vec::new());
        }
        let floor = state.effective_floor();
        let layers = state.layers.iter().rev().map(|layer| layer.table.as_ref());
        let mut entries = Vec::new();
        for table in std::iter::once(&state.active).chain(layers) {
            let slots = table
                .get(key)
                .map_or([].as_slice(), |slots| slots.as_slice());
            entries.extend(slots.iter().rev().map(|slot| HistoryEntry {
                revision: slot.revision,
                value: slot.version(),
            }));
        }
        let view = state.view.clone();
        drop(state);
        // Deletes of what was not there fall out below; they do not count.
        let wanted = limit.saturating_add(entries.len());
        self.engine
            .watched(view.history_of((self.range.id, key), floor, wanted, &mut entries))?;
        let mut readable = readable_history(entries, floor);
        readable.truncate(limit);
        Ok(readable)
    }

    /// Hash of all live rows (key, revision, expiry, value) at one applied
    /// position: equal on replicas of equal logical state, whatever each has
    /// flushed. Reads the whole range, and pins the file's pages meanwhile.
    ///
    /// # Errors
    /// As [`RangeTable::get`].
    pub fn hash(&self) -> Result<(Position, [u8; 16]), EngineError> {
        let course = Course::whole(self.range.id, &self.range.interval);
        let mut state = self.range.state.write();
        self.check_served(&state)?;
        state.set_active_aside();
        let layers = state.tables_newest_first();
        let view = state.view.clone();
        let snapshot = Snapshot::take(&course, 0, &state.active, layers, view);
        let position = state.applied.unwrap_or_default();
        drop(state);
        let (mut hash, mut rows) = (StateHash::new(), 0);
        self.engine
            .watched(snapshot.for_each(&course, |key, version| {
                hash.row(key, version);
                rows += 1;
            }))?;
        Ok((position, hash.finish(rows)))
    }
}

/// Moving a range to another node.
impl RangeTable {
    /// The range's durable state as a sequence of chunks. It is of one moment,
    /// whatever is written and flushed meanwhile; until the export is dropped,
    /// the file keeps the pages of that moment.
    ///
    /// # Errors
    /// As [`RangeTable::get`].
    pub fn export(&self) -> Result<Export, EngineError> {
        let view = self.state()?.view.clone();
        self.engine.watched(Export::new(
            self.range.id,
            self.range.interval.clone(),
            view,
        ))
    }

    /// Replaces the range's data, metadata and position by an export's, in one
    /// step: before a crash or error all is old, afterwards all is new. What
    /// was in memory is dropped. Nobody may write to the range meanwhile.
    ///
    /// Flushes of all ranges in the same file wait for it, so the chunks
    /// should be at hand, not still on their way.
    ///
    /// # Errors
    /// [`EngineError::Import`] leaves the range unchanged.
    pub fn import(
        &self,
        chunks: impl Iterator<Item = Result<Bytes, EngineError>>,
    ) -> Result<Option<Position>, EngineError> {
        self.engine.common.check()?;
        drop(self.state()?);
        let file = self.engine.file_of(self.range.id);
        let meta = import::run(file, &self.engine.common, &self.range, chunks);
        Ok(self.engine.watched(meta)?.position)
    }
}

fn check_floor(state: &State, at: Option<u64>) -> Result<(), EngineError> {
    let floor = state.effective_floor();
    match at {
        Some(asked) if asked < floor => Err(EngineError::BelowFloor { asked, floor }),
        _ => Ok(()),
    }
}

/// Keeps of raw history, newest first, what can be read: versions that ended
/// above the floor, and deletes of such versions.
fn readable_history(entries: Vec<HistoryEntry>, floor: u64) -> Vec<HistoryEntry> {
    let mut readable: Vec<HistoryEntry> = Vec::with_capacity(entries.len());
    // The write that ended the next entry, if there is one.
    let mut ended_by: Option<HistoryEntry> = None;
    for entry in entries {
        if entry.value.is_some() {
            match ended_by.take() {
                Some(end) if end.revision <= floor => break,
                Some(delete) if delete.value.is_none() => readable.push(delete),
                Some(_) | None => {}
            }
            readable.push(entry.clone());
        }
        ended_by = Some(entry);
    }
    readable
}
