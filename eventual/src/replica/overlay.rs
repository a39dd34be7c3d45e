//! A replica beside a log: the rows of a `mixed` range, which stay until the log's state on this
//! disk knows all that they know. The rules are `quorate_types::causal::overlay`'s; here are the
//! rows, what is to be absorbed, and when a row may go.

use std::time::Duration;

use bytes::Bytes;
use quorate_storage::engine::ScanRequest;
use quorate_storage::log::LogEntry;
use quorate_types::causal::{Dot, Dots, KeyState, Record, overlay};
use tokio::time::Instant;

use super::fresh::Fresh;
use super::{Replica, State, Synced, record_hash};
use crate::error::EventualError;
use crate::rows::Rows;
use crate::step::Step;
use crate::tree::Sum;

/// Bytes of the states that one entry absorbs; the key that crosses it is the last.
const ABSORB_BYTES_MAX: usize = 512 << 10;
/// Rows looked at in one pass that trims.
const TRIM_ROWS_MAX: usize = 8_192;
/// Rows beside which a peer's clock is taken over, in one go.
const MERGE_ROWS_MAX: usize = 16_384;
/// Passes that a mark is kept for though it lets no row go.
const MARK_PASSES_MAX: u32 = 10;

/// A key's row as a step finds it.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    /// What is stored, or what a new row begins with.
    pub(super) record: Record,
    pub(super) is_stored: bool,
}

impl Row {
    pub(super) fn stored(record: Record) -> Row {
        Row {
            record,
            is_stored: true,
        }
    }

    /// Whether a new row begins with what the log has decided.
    pub(super) fn is_seed(&self) -> bool {
        !self.is_stored && !self.record.is_gone()
    }

    /// What a step with news leaves of a new row whose record it did not change: the row is
    /// written, and tree and overlay are to know of it.
    pub(super) fn begun(&self) -> Option<Record> {
        self.is_seed().then(|| self.record.clone())
    }

    /// What the hash tree has of it.
    pub(super) fn hash(&self, key: &[u8]) -> Option<Sum> {
        self.is_stored.then(|| record_hash(key, &self.record))
    }

    /// What is stored.
    pub(super) fn known(self) -> Record {
        match self.is_stored {
            true => self.record,
            false => Record::default(),
        }
    }
}

/// The base of the clock at some moment, and the last entry then.
struct Mark {
    base: Dots,
    index: u64,
    passes: u32,
}

/// Rows that may go once the log's state as of an entry is on this disk.
struct Leaving {
    rows: Vec<(Bytes, u64)>,
    decided: u64,
}

/// What a replica beside a log remembers of its rows.
#[derive(Default)]
pub(super) struct Overlay {
    rows: usize,
    /// Keys whose rows changed since this node last took them to the log.
    fresh: Fresh,
    /// The base that this node last took to the log.
    told: Option<Dots>,
    mark: Option<Mark>,
    leaving: Option<Leaving>,
    /// Where the next pass that trims begins.
    next: Bytes,
    /// What was there a while ago.
    watched: Option<Watched>,
    /// How often rows have gone.
    trims: u32,
}

/// What a replica beside a log held at some moment.
struct Watched {
    since: Instant,
    index: u64,
    /// The clock's gaps.
    gaps: Dots,
}

impl Overlay {
    /// A row was written; `is_new`: there was none.
    pub(super) fn note(&mut self, key: &Bytes, is_new: bool) {
        self.rows += usize::from(is_new);
        self.fresh.insert(key.clone());
    }

    /// A row has gone.
    pub(super) fn forget(&mut self, key: &Bytes) {
        self.rows = self.rows.saturating_sub(1);
        self.fresh.remove(key);
    }

    /// Rows have gone.
    pub(super) fn trimmed(&mut self) {
        self.trims = self.trims.wrapping_add(1);
    }

    /// The clock took in dots without their records: what was marked before says nothing of them.
    pub(super) fn unmark(&mut self) {
        self.mark = None;
        self.leaving = None;
    }
}

/// What one entry is to absorb.
pub(crate) struct Absorption {
    /// Keys with what is known of them, encoded.
    pub(crate) items: Vec<(Bytes, Bytes)>,
    /// Since when each of them waited.
    pub(crate) since: Vec<Instant>,
    /// The base of the clock, if with these keys the log knows all.
    pub(crate) base: Option<Dots>,
}

/// Reading beside a log.
impl Replica {
    /// A key's row as a step begins, and what the log has decided of the key.
    pub(super) fn begin(
        &self,
        state: &State,
        key: &[u8],
    ) -> Result<(Row, KeyState), EventualError> {
        let mut row = self.row(key)?;
        let committed = self.decided(key)?.0;
        if !row.is_stored && committed.live().len() > 0 && !self.faults.row_without_seed {
            row.record = overlay::seed(&state.clock, &committed);
        }
        Ok((row, committed))
    }

    /// As `begin`, for a step that changes one key beside a log.
    #[expect(clippy::type_complexity, reason = "a pair of two options")]
    pub(super) fn begin_step(
        &self,
        state: &State,
        step: &Step,
    ) -> Result<(Option<(Bytes, Record)>, Option<Row>), EventualError> {
        let (Step::Accept { key, .. } | Step::Join { key, .. }) = step else {
            return Ok((None, None));
        };
        if self.decisions.is_none() {
            return Ok((None, None));
        }
        let (row, _) = self.begin(state, key)?;
        let seed = row.is_seed().then(|| (key.clone(), row.record.clone()));
        Ok((seed, Some(row)))
    }

    /// What the log has decided of a key, and the entry as of which that is so at the least.
    fn decided(&self, key: &[u8]) -> Result<(KeyState, u64), EventualError> {
        let Some(decisions) = &self.decisions else {
            return Ok(Default::default());
        };
        let decided = decisions.decided(self.range, key)?;
        Ok(decided.unwrap_or_default())
    }

    /// What the view shows of a key with this row.
    pub(super) fn view_of(&self, state: &State, row: &Row, committed: KeyState) -> KeyState {
        if self.decisions.is_none() {
            return row.record.state(&state.clock);
        }
        overlay::view(
            &state.clock,
            row.is_stored.then_some(&row.record),
            committed,
        )
    }

    /// What the view shows of a key.
    pub(super) fn view(&self, state: &State, key: &[u8]) -> Result<KeyState, EventualError> {
        // The row first: where it goes meanwhile, the log's state knows what it knew.
        let row = self.row(key)?;
        let committed = self.decided(key)?.0;
        Ok(self.view_of(state, &row, committed))
    }

    /// Whether it is a replica of a range that has a log.
    pub(crate) fn has_log(&self) -> bool {
        self.decisions.is_some()
    }

    /// Whether there are rows, or gaps in the clock, that have not changed for as long as
    /// `within`: the log does not absorb them by itself. Looks once in that time.
    pub(crate) fn lingers(&self, within: Duration) -> bool {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.warming.is_some() {
            return false;
        }
        let gaps: Dots = state
            .clock
            .gaps()
            .map(|(actor, counters)| Dot::new(actor, counters.gapless() + 1))
            .collect();
        let watched = &mut state.overlay.watched;
        match watched {
            Some(watched) if watched.since.elapsed() < within => return false,
            Some(_) | None => {}
        }
        let now = Watched {
            since: Instant::now(),
            index: state.index,
            gaps: gaps.clone(),
        };
        let Some(before) = watched.replace(now) else {
            return false;
        };
        let mut stuck = !gaps.common(&before.gaps).is_empty();
        if !stuck && state.overlay.rows > 0 {
            let looked = self.each_row(self.rows.records_from(&[]), |_, version| {
                stuck |= version.revision <= before.index;
                Ok(())
            });
            stuck |= looked.is_err();
        }
        stuck
    }

    /// Whether the log's state on this disk may not know all of a key.
    pub(crate) fn has_row(&self, key: &[u8]) -> Result<bool, EventualError> {
        Ok(self.may_have_rows() && self.row(key)?.is_stored)
    }

    /// Whether it may have any rows. They are counted while the tree is built.
    pub(crate) fn may_have_rows(&self) -> bool {
        let state = self.state.lock();
        state.warming.is_some() || state.overlay.rows > 0
    }

    /// Rows that the log's state on this disk may not know yet.
    pub(crate) fn overlay_rows(&self) -> usize {
        self.state.lock().overlay.rows
    }

    /// How long the oldest change has waited that this node has not taken to the log, or seen
    /// there: where another leads, until the row goes.
    pub(crate) fn overlay_age(&self) -> Option<Duration> {
        let since = self.state.lock().overlay.fresh.oldest()?;
        Some(since.elapsed())
    }

    /// Puts a new row into the table, of a key that the step behind it changes: that one tells
    /// tree and overlay of it. Returns its entry of the log.
    pub(super) fn seeded(&self, state: &mut State, key: Bytes, record: &Record) -> LogEntry {
        let index = state.index + 1;
        let record = record.encode();
        let changes = vec![
            self.put(self.rows.record(&key), record.clone(), index),
            self.put(self.rows.leaf(&key), Bytes::new(), index),
        ];
        self.entered(state, &Step::Seed { key, record }, changes)
    }
}

/// Absorption and trimming.
impl Replica {
    /// Changes with each start, and whenever rows go.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch_of(&self.state.lock())
    }

    fn epoch_of(&self, state: &State) -> u64 {
        u64::from(self.actor.start) << 32 | u64::from(state.overlay.trims)
    }

    /// Takes over a peer's clock at the end of a comparison that began at `epoch`. Returns none
    /// where rows went meanwhile: a row that is gone was not compared, and a later row of its key
    /// would lean on the peer's clock.
    ///
    /// First all rows take in what the log has decided: one that was begun during the comparison
    /// may lack a value that the peer's clock covers, and would claim it dead. Afterwards all rows
    /// are to be absorbed again, for what they say to be dead has grown with the clock.
    pub(crate) fn merge_beside_log(
        &self,
        clock: Bytes,
        epoch: u64,
    ) -> Result<Option<Synced>, EventualError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if self.epoch_of(state) != epoch || state.overlay.rows > MERGE_ROWS_MAX {
            return Ok(None);
        }
        let mut keys = Vec::with_capacity(state.overlay.rows);
        self.each_row(self.rows.records_from(&[]), |row, _| {
            keys.push(Rows::key_of(&row));
            Ok(())
        })?;
        let mut entries = Vec::new();
        let joined = keys.iter().filter(|_| !self.faults.merge_beside_old_rows);
        for key in joined {
            let (key, decided) = (key.clone(), self.decided(key)?.0.encode());
            let step = Step::Join {
                key,
                state: decided,
            };
            entries.extend(self.enter(state, &step)?.into_iter().flatten());
        }
        let merged = self.enter(state, &Step::Merge { clock })?;
        entries.extend(merged.into_iter().flatten());
        if !entries.is_empty() {
            state.overlay.told = None;
            keys.into_iter()
                .for_each(|key| state.overlay.fresh.insert(key));
        }
        let (done, synced) = Synced::pair();
        self.log.append(entries, done);
        Ok(Some(synced))
    }

    /// What the next entry is to absorb, of at most `keys_max` keys; `None`: the log has been told
    /// all.
    pub(crate) fn next_absorption(
        &self,
        keys_max: usize,
    ) -> Result<Option<Absorption>, EventualError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.warming.is_some() {
            return Ok(None);
        }
        let (mut items, mut since) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        while items.len() < keys_max && bytes < ABSORB_BYTES_MAX {
            let Some((key, waited)) = state.overlay.fresh.take() else {
                break;
            };
            let row = self.row(&key).inspect_err(|_| {
                state.overlay.fresh.insert_since(key.clone(), waited);
            })?;
            if row.is_stored {
                let known = row.record.state(&state.clock).encode();
                bytes += key.len() + known.len();
                items.push((key, known));
                since.push(waited);
            }
        }
        let base = state.clock.base();
        let all = state.overlay.fresh.is_empty();
        if items.is_empty() && (!all || state.overlay.told.as_ref() == Some(&base)) {
            return Ok(None);
        }
        if all {
            state.overlay.told = Some(base.clone());
        }
        let base = (all || self.faults.base_while_fresh).then_some(base);
        Ok(Some(Absorption { items, since, base }))
    }

    /// For a negative control of tests: rows go before the log has them.
    pub(crate) fn trim_at_once(&self, items: &[(Bytes, Bytes)]) -> Result<(), EventualError> {
        let mut state = self.state.lock();
        let keys = items.iter().map(|(key, _)| key.clone()).collect();
        self.commit(&mut state, &Step::Trim { keys }).map(drop)
    }

    /// The entry may not be decided: its keys are to be absorbed again.
    pub(crate) fn absorb_again(&self, items: Vec<(Bytes, Bytes)>, since: Vec<Instant>) {
        let mut state = self.state.lock();
        state.overlay.told = None;
        for ((key, _), since) in items.into_iter().zip(since) {
            state.overlay.fresh.insert_since(key, since);
        }
    }

    /// Lets rows go of which the log's state on this disk knows all. Returns whether that state
    /// is to be brought to the disk first.
    pub(crate) fn trim(&self) -> Result<bool, EventualError> {
        let Some(decisions) = &self.decisions else {
            return Ok(false);
        };
        let (_, durable) = decisions.applied_and_durable(self.range);
        {
            let mut state = self.state.lock();
            if state.warming.is_some() || state.overlay.rows == 0 {
                return Ok(false);
            }
            match state.overlay.leaving.take() {
                Some(leaving) if leaving.decided <= durable => {
                    self.let_go(&mut state, leaving.rows)?;
                }
                Some(leaving) => {
                    state.overlay.leaving = Some(leaving);
                    return Ok(true);
                }
                None => {}
            }
            let (base, index) = (state.clock.base(), state.index);
            state.overlay.mark.get_or_insert(Mark {
                base,
                index,
                passes: 0,
            });
        }
        self.find_leaving(durable)
    }

    /// Looks at rows that have not changed since the mark.
    fn find_leaving(&self, durable: u64) -> Result<bool, EventualError> {
        let (base, index, start) = {
            let state = self.state.lock();
            let Some(mark) = &state.overlay.mark else {
                return Ok(false);
            };
            (mark.base.clone(), mark.index, state.overlay.next.clone())
        };
        let (first, end) = self.rows.records_from(&start);
        let page = self.table.scan(&ScanRequest {
            start: first,
            end,
            reverse: false,
            at: None,
            rows_max: TRIM_ROWS_MAX,
            bytes_max: usize::MAX,
            keys_only: false,
        })?;
        let (mut rows, mut decided) = (Vec::new(), 0);
        for (row, version) in page.rows {
            if version.revision > index {
                continue;
            }
            let key = Rows::key_of(&row);
            let record = Record::decode(&version.value)?;
            let (committed, at) = self.decided(&key)?;
            if overlay::is_absorbed(&record, &base, &committed) {
                rows.push((key, version.revision));
                decided = decided.max(at);
            }
        }
        let mut state = self.state.lock();
        let whole = page.resume.is_none();
        state.overlay.next = page
            .resume
            .map_or_else(Bytes::new, |row| Rows::key_of(&row));
        let Some(mark) = &mut state.overlay.mark else {
            // A peer's clock was taken over meanwhile.
            return Ok(false);
        };
        mark.passes += 1;
        if whole && (!rows.is_empty() || mark.passes >= MARK_PASSES_MAX) {
            state.overlay.mark = None;
        }
        if rows.is_empty() {
            return Ok(false);
        }
        state.overlay.leaving = Some(Leaving { rows, decided });
        Ok(decided > durable)
    }

    fn let_go(&self, state: &mut State, rows: Vec<(Bytes, u64)>) -> Result<(), EventualError> {
        let mut keys = Vec::new();
        for (key, revision) in rows {
            let now = self.table.get(&self.rows.record(&key))?;
            if now.is_some_and(|now| now.revision == revision) {
                keys.push(key);
            }
        }
        if !keys.is_empty() {
            // Nobody waits: a row that comes back after a crash is let go again.
            drop(self.commit(state, &Step::Trim { keys })?);
        }
        Ok(())
    }
}
