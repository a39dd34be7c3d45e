//! Pages of a replica beside a log: what the log shows and the rows beside it, key by key.
//!
//! Rows are read first: one that goes meanwhile is in the log's state, which is read afterwards. A
//! key that is in neither page is judged by what the log knew before both: beside a log the clock
//! of the rows claims nothing of keys without one.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_storage::engine::ScanRequest;
use quorate_types::causal::{Dots, KeyState};

use super::Replica;
use crate::error::EventualError;
use crate::rows::Rows;

/// Some keys with what the view shows of them.
pub(crate) struct ViewPage {
    pub(crate) states: Vec<(Bytes, KeyState)>,
    /// What is known of every key that is not among them.
    pub(crate) base: Dots,
    pub(crate) resume: Option<Bytes>,
    /// Whether there was a row among them.
    pub(crate) tentative: bool,
}

impl Replica {
    /// A page of the view, in the order of the keys or against it.
    pub(crate) fn scan_view(
        &self,
        (start, end, reverse): (&Bytes, &Bytes, bool),
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<ViewPage, EventualError> {
        let Some(decisions) = self.decisions.as_ref() else {
            return Err(EventualError::NoRange(self.range));
        };
        if !self.is_filled() {
            return Err(EventualError::Filling(self.range));
        }
        let request = |start, end| ScanRequest {
            start,
            end,
            reverse,
            at: None,
            rows_max,
            bytes_max,
            keys_only: false,
        };
        // Before both pages: what is known then is no more than what they show.
        let nothing = request(start.clone(), start.clone());
        let before = decisions.keys(self.range, &nothing)?.unwrap_or_default();
        let (first, all) = self.rows.records_from(start);
        let last = match end.is_empty() {
            true => all,
            false => self.rows.record(end),
        };
        let rows = self.table.scan(&request(first, last))?;
        let decided = request(start.clone(), end.clone());
        let decided = decisions.keys(self.range, &decided)?.unwrap_or_default();
        let row_keys: BTreeSet<Bytes> =
            rows.rows.iter().map(|(row, _)| Rows::key_of(row)).collect();
        let resumes = [decided.resume, rows.resume.map(|row| Rows::key_of(&row))];
        let resumes = resumes.into_iter().flatten();
        let resume = if reverse {
            resumes.max()
        } else {
            resumes.min()
        };
        let within = |key: &Bytes| {
            let bound = resume.as_ref();
            bound.is_none_or(|bound| if reverse { key >= bound } else { key < bound })
        };
        let tentative = row_keys.iter().any(&within);
        let mut keys = row_keys;
        keys.extend(decided.keys);
        keys.retain(|key| within(key));
        let states = keys.into_iter().map(|key| {
            let state = self.held(&key)?;
            Ok((key, state))
        });
        let mut states = states.collect::<Result<Vec<_>, EventualError>>()?;
        if reverse {
            states.reverse();
        }
        Ok(ViewPage {
            states,
            base: before.base,
            resume,
            tentative,
        })
    }
}
