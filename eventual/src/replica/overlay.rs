//! A replica beside a log: the rows of a `mixed` range, which stay until the log's state on this
//! disk knows all that they know. The rules are `quorate_types::causal::overlay`'s; here are the
//! rows, what is to be absorbed, and when a row may go.

use std::time::Duration;

use bytes::Bytes;
use quorate_storage::engine::ScanRequest;
use quorate_storage::log::LogEntry;
use quorate_types::causal::{Dot, Dots, KeyState, Record, overlay};
use tokio::time::Instant;

use super::fresh::{Fresh, Turn};
use super::{Replica, State, Synced, record_hash};
use crate::error::EventualError;
use crate::rows::Rows;
use crate::step::Step;
use crate::tree::Sum;

/// Bytes of the states that one entry absorbs; the key that crosses it is the last.
const ABSORB_BYTES_MAX: usize = 512 << 10;
/// Rows looked at, or let go, before others have their turn.
const TRIM_ROWS_MAX: usize = 1_024;
/// Rows that wait together for the log's state to be brought to the disk.
const LEAVING_ROWS_MAX: usize = 65_536;
/// A range that has taken in nothing for this long rests: its rows go at once.
const REST_MILLISECONDS: u64 = 300;
/// Where it does not rest, a pass waits this long for each change since the last one, so that
/// bringing the log's state to the disk costs a few percent of what was written, ...
const TRIM_PER_CHANGE_MICROSECONDS: u64 = 1_000;
/// ... but not longer than this. The engine by itself waits as long.
const TRIM_WAIT_MAX_MILLISECONDS: u64 = 5_000;
/// When a flush that was asked for is asked for again.
const FLUSH_AGAIN: Duration = Duration::from_secs(2);
/// Rows beside which a peer's clock is taken over, in one go.
pub(super) const MERGE_ROWS_MAX: usize = 16_384;
/// Looks that a mark is kept for though the log has not been told of its base.
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

/// What is to be taken to the log: all keys that had changed at some moment, and then the base of
/// the clock as of that moment. Were the base told only when no key is fresh, a range that always
/// takes writes would never tell it, and its log's clock would keep an interval for each of them.
struct Round {
    until: Turn,
    base: Dots,
}

/// The base of the clock at some moment, and the last entry then.
struct Mark {
    base: Dots,
    index: u64,
    passes: u32,
}

/// Rows that may go once the log's state as of an entry is on this disk.
#[derive(Default)]
struct Leaving {
    rows: Vec<(Bytes, u64)>,
    decided: u64,
    /// When that was asked for.
    asked: Option<Instant>,
}

/// When rows are looked at.
struct Pace {
    changes: u64,
    /// The last of them.
    changed: Instant,
    /// The last pass that found some to go, and how many changes there had been.
    passed: (Instant, u64),
}

impl Default for Pace {
    fn default() -> Pace {
        let now = Instant::now();
        Pace {
            changes: 0,
            changed: now,
            passed: (now, 0),
        }
    }
}

impl Pace {
    fn changed(&mut self) {
        self.changes += 1;
        self.changed = Instant::now();
    }

    fn passed(&mut self) {
        self.passed = (Instant::now(), self.changes);
    }

    /// Whether it is time for a pass.
    fn is_due(&self) -> bool {
        let (at, changes) = self.passed;
        let costs = (self.changes - changes).saturating_mul(TRIM_PER_CHANGE_MICROSECONDS);
        let wait =
            Duration::from_micros(costs).min(Duration::from_millis(TRIM_WAIT_MAX_MILLISECONDS));
        let rests = self.changed.elapsed() >= Duration::from_millis(REST_MILLISECONDS);
        rests || at.elapsed() >= wait
    }
}

/// What is to follow on a step of trimming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trimming {
    /// Nothing, until the next round.
    Done,
    /// The next step, after others have had their turn.
    GoOn,
    /// The log's state is to be brought to the disk.
    Flush,
}

/// What a replica beside a log remembers of its rows.
#[derive(Default)]
pub(super) struct Overlay {
    pub(super) rows: usize,
    /// Keys whose rows changed since this node last took them to the log.
    pub(super) fresh: Fresh,
    /// The base that this node last took to the log.
    pub(super) told: Option<Dots>,
    round: Option<Round>,
    mark: Option<Mark>,
    /// What the pass that is under way has found.
    found: Leaving,
    leaving: Option<Leaving>,
    /// Where it goes on.
    next: Bytes,
    pace: Pace,
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
        self.pace.changed();
        self.fresh.insert(key.clone());
    }

    /// A row has gone.
    pub(super) fn forget(&mut self, key: &Bytes) {
        self.rows = self.rows.saturating_sub(1);
        self.fresh.remove(key);
    }

    /// Keys that were to be absorbed may not have been. With them a new round begins: the base
    /// is not to be told before them.
    fn tell_again(&mut self, items: Vec<(Bytes, Bytes)>, since: Vec<Instant>) {
        (self.told, self.round) = (None, None);
        for ((key, _), since) in items.into_iter().zip(since) {
            self.fresh.insert_since(key, since);
        }
    }

    /// Rows have gone.
    pub(super) fn trimmed(&mut self) {
        self.trims = self.trims.wrapping_add(1);
    }

    /// The clock took in dots without their records: what was marked before says nothing of them.
    pub(super) fn unmark(&mut self) {
        (self.mark, self.leaving) = (None, None);
        (self.found, self.next) = (Leaving::default(), Bytes::new());
    }

    /// The pass that is under way ends, and the next one begins with a new mark.
    fn end_pass(&mut self) {
        (self.mark, self.next) = (None, Bytes::new());
        let found = std::mem::take(&mut self.found);
        if !found.rows.is_empty() {
            self.pace.passed();
            self.leaving = Some(found);
        }
    }
}

/// What one entry is to absorb.
pub(crate) struct Absorption {
    /// Keys with what is known of them, encoded.
    pub(crate) items: Vec<(Bytes, Bytes)>,
    /// Since when each of them waited.
    pub(crate) since: Vec<Instant>,
    /// The base of the clock as the round began, if with these keys the log knows all of then.
    pub(crate) base: Option<Dots>,
    /// Nothing else of this round is left.
    pub(crate) is_last: bool,
}

impl State {
    /// The round that is under way, or the next one, if there is anything to tell.
    fn next_round(&mut self) -> Option<Round> {
        if let Some(round) = self.overlay.round.take() {
            return Some(round);
        }
        let base = self.clock.base();
        if self.overlay.fresh.is_empty() && self.overlay.told.as_ref() == Some(&base) {
            return None;
        }
        let until = self.overlay.fresh.turn();
        Some(Round { until, base })
    }
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
        self.begin_with(state, &mut row, &committed);
        Ok((row, committed))
    }

    /// A row that is not there yet begins with what the log has decided.
    fn begin_with(&self, state: &State, row: &mut Row, committed: &KeyState) {
        if !row.is_stored && committed.live().len() > 0 && !self.faults.row_without_seed {
            row.record = overlay::seed(&state.clock, committed);
        }
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
        let mut row = self.row(key)?;
        if !row.is_stored {
            let committed = self.decided(key)?.0;
            self.begin_with(state, &mut row, &committed);
        }
        let seed = row.is_seed().then(|| (key.clone(), row.record.clone()));
        Ok((seed, Some(row)))
    }

    /// What the log has decided of a key, and the entry as of which that is so at the least.
    pub(super) fn decided(&self, key: &[u8]) -> Result<(KeyState, u64), EventualError> {
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
        let (keys, mut entries) = self.join_decided(state, !self.faults.merge_beside_old_rows)?;
        let merged = self.enter(state, &Step::Merge { clock })?;
        entries.extend(merged.into_iter().flatten());
        Ok(Some(self.grown(state, keys, entries)))
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
        let Some(Round { until, base }) = state.next_round() else {
            return Ok(None);
        };
        let (mut items, mut since) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        while items.len() < keys_max && bytes < ABSORB_BYTES_MAX {
            let Some((key, waited)) = state.overlay.fresh.take_before(until) else {
                break;
            };
            let row = match self.row(&key) {
                Ok(row) => row,
                Err(error) => {
                    items.push((key, Bytes::new()));
                    since.push(waited);
                    state.overlay.tell_again(items, since);
                    return Err(error);
                }
            };
            if row.is_stored {
                let known = row.record.state(&state.clock).encode();
                bytes += key.len() + known.len();
                items.push((key, known));
                since.push(waited);
            }
        }
        let is_last = state.overlay.fresh.is_empty_before(until);
        if is_last {
            let told = state.overlay.told.replace(base.clone());
            if items.is_empty() && told.as_ref() == Some(&base) {
                return Ok(None);
            }
        } else {
            let base = base.clone();
            state.overlay.round = Some(Round { until, base });
        }
        let base = (is_last || self.faults.base_while_fresh).then_some(base);
        Ok(Some(Absorption {
            items,
            since,
            base,
            is_last,
        }))
    }

    /// For a negative control of tests: rows go before the log has them.
    pub(crate) fn trim_at_once(&self, items: &[(Bytes, Bytes)]) -> Result<(), EventualError> {
        let mut state = self.state.lock();
        let keys = items.iter().map(|(key, _)| key.clone()).collect();
        self.commit(&mut state, &Step::Trim { keys }).map(drop)
    }

    /// The entry may not be decided: its keys are to be absorbed again.
    pub(crate) fn absorb_again(&self, items: Vec<(Bytes, Bytes)>, since: Vec<Instant>) {
        self.state.lock().overlay.tell_again(items, since);
    }

    /// One step of letting rows go of which the log's state on this disk knows all.
    ///
    /// A pass looks at rows that have not changed since a mark; those that may go wait until the
    /// log's state as it was then is on this disk.
    pub(crate) fn trim(&self) -> Result<Trimming, EventualError> {
        let Some(decisions) = &self.decisions else {
            return Ok(Trimming::Done);
        };
        let (_, durable) = decisions.applied_and_durable(self.range);
        {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            if state.warming.is_some() || state.overlay.rows == 0 {
                return Ok(Trimming::Done);
            }
            if let Some(leaving) = &mut state.overlay.leaving {
                if leaving.decided > durable {
                    let asked = leaving.asked.is_some_and(|at| at.elapsed() < FLUSH_AGAIN);
                    leaving.asked.get_or_insert_with(Instant::now);
                    return Ok(if asked {
                        Trimming::Done
                    } else {
                        Trimming::Flush
                    });
                }
                let left = leaving.rows.len().saturating_sub(TRIM_ROWS_MAX);
                let rows = leaving.rows.split_off(left);
                if left == 0 {
                    state.overlay.leaving = None;
                }
                self.let_go(state, rows)?;
                return Ok(Trimming::GoOn);
            }
            if state.overlay.mark.is_none() {
                if !state.overlay.pace.is_due() {
                    return Ok(Trimming::Done);
                }
                let (base, index, passes) = (state.clock.base(), state.index, 0);
                state.overlay.mark = Some(Mark {
                    base,
                    index,
                    passes,
                });
            }
        }
        self.find_leaving()
    }

    /// Looks at the next rows that have not changed since the mark.
    fn find_leaving(&self) -> Result<Trimming, EventualError> {
        let (base, index, start) = {
            let state = self.state.lock();
            let Some(mark) = &state.overlay.mark else {
                return Ok(Trimming::Done);
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
        let (mut rows, mut decided, mut behind) = (Vec::new(), 0, false);
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
            } else if !base.is_within(committed.context()) {
                // The log has yet to be told of the mark's base: then no row may go.
                behind = true;
                break;
            }
        }
        let mut guard = self.state.lock();
        let overlay = &mut guard.overlay;
        let Some(mark) = &mut overlay.mark else {
            // A peer's clock was taken over meanwhile.
            return Ok(Trimming::Done);
        };
        if behind {
            // This page is looked at again.
            mark.passes += 1;
            if mark.passes >= MARK_PASSES_MAX {
                overlay.end_pass();
            }
            return Ok(Trimming::Done);
        }
        overlay.found.rows.append(&mut rows);
        overlay.found.decided = overlay.found.decided.max(decided);
        let is_full = overlay.found.rows.len() >= LEAVING_ROWS_MAX;
        match page.resume.filter(|_| !is_full) {
            Some(row) => overlay.next = Rows::key_of(&row),
            None => overlay.end_pass(),
        }
        match overlay.mark.is_some() || overlay.leaving.is_some() {
            true => Ok(Trimming::GoOn),
            false => Ok(Trimming::Done),
        }
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
