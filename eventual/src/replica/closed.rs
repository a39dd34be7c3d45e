//! A clock beside a log that grows by more than a row: at the end of a repair, and where the log has
//! closed starts. All rows first take in what the log has decided: one that has not heard of a value
//! which the grown clock covers would say that it is dead.
//!
//! Not here: when a clock may grow (`repair`, `closing`).

use bytes::Bytes;
use quorate_storage::log::LogEntry;
use quorate_types::causal::{Record, overlay};

use super::overlay::MERGE_ROWS_MAX;
use super::{Replica, State, Synced};
use crate::error::EventualError;
use crate::rows::Rows;
use crate::step::Step;

impl Replica {
    /// Has all rows take in what the log has decided, if they are to. Returns their keys, and the
    /// entries of the node's log that this makes.
    pub(super) fn join_decided(
        &self,
        state: &mut State,
        joins: bool,
    ) -> Result<(Vec<Bytes>, Vec<LogEntry>), EventualError> {
        let mut keys = Vec::with_capacity(state.overlay.rows);
        self.each_row(self.rows.records_from(&[]), |row, _| {
            keys.push(Rows::key_of(&row));
            Ok(())
        })?;
        let mut entries = Vec::new();
        for key in keys.iter().filter(|_| joins) {
            let (key, decided) = (key.clone(), self.decided(key)?.0.encode());
            let step = Step::Join {
                key,
                state: decided,
            };
            entries.extend(self.enter(state, &step)?.into_iter().flatten());
        }
        Ok((keys, entries))
    }

    /// The clock has grown beside these rows: they are to be absorbed again, for what they say to be
    /// dead has grown with it.
    pub(super) fn grown(
        &self,
        state: &mut State,
        keys: Vec<Bytes>,
        entries: Vec<LogEntry>,
    ) -> Synced {
        if !entries.is_empty() {
            state.overlay.told = None;
            keys.into_iter()
                .for_each(|key| state.overlay.fresh.insert(key));
        }
        let (done, synced) = Synced::pair();
        self.log.append(entries, done);
        synced
    }

    /// Closes starts that the log's state on this disk has closed.
    ///
    /// # Errors
    /// [`EventualError`] where there are too many rows for now, or one cannot be read.
    pub(crate) fn close_beside_log(
        &self,
        starts: Vec<(u64, u32)>,
    ) -> Result<Synced, EventualError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        self.has_few_rows(state)?;
        let (keys, mut entries) = self.join_decided(state, true)?;
        let closed = self.enter(state, &Step::Close { starts })?;
        entries.extend(closed.into_iter().flatten());
        state.overlay.unmark();
        Ok(self.grown(state, keys, entries))
    }

    /// Rows of which the log does not know all, as far as it is applied here: keys with what is
    /// known of them, encoded.
    ///
    /// # Errors
    /// As [`Replica::close_beside_log`].
    pub(crate) fn unabsorbed(&self) -> Result<Vec<(Bytes, Bytes)>, EventualError> {
        let state = self.state.lock();
        self.has_few_rows(&state)?;
        let base = state.clock.base();
        let mut rows = Vec::new();
        self.each_row(self.rows.records_from(&[]), |row, version| {
            let (key, record) = (Rows::key_of(&row), Record::decode(&version.value)?);
            let committed = self.decided(&key)?.0;
            if !overlay::is_absorbed(&record, &base, &committed) {
                rows.push((key, record.state(&state.clock).encode()));
            }
            Ok(())
        })?;
        Ok(rows)
    }

    /// Whether all rows may be looked at in one go, with writers waiting.
    fn has_few_rows(&self, state: &State) -> Result<(), EventualError> {
        match state.warming.is_none() && state.overlay.rows <= MERGE_ROWS_MAX {
            true => Ok(()),
            false => Err(EventualError::Filling(self.range)),
        }
    }
}
