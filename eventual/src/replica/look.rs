//! Looking at a replica: records, hints, pages, the tree and its leaves. Nothing here changes it.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_storage::engine::{ScanPage, ScanRequest, Version};
use quorate_types::Timestamp;
use quorate_types::causal::{Clock, Delta, Dot, Dots, KeyState, Record};

use super::{RecordsPage, Replica, State, record_hash};
use crate::error::EventualError;
use crate::hints::Hints;
use crate::rows::Rows;
use crate::step::Hint;
use crate::tree::{HashTree, Sum, hash_of};

/// Rows read at once, with writers waiting.
const PAGE_ROWS_MAX: usize = 512;
/// Bytes of them.
const PAGE_BYTES_MAX: usize = 1 << 20;
/// Keys whose values are removed in one step because they expired.
const EXPIRED_KEYS_MAX: usize = 256;

impl Replica {
    /// What this primary knows of a key.
    ///
    /// # Errors
    /// [`EventualError::Filling`] where it does not know all that it acknowledged.
    pub(crate) fn fetch(&self, key: &[u8]) -> Result<KeyState, EventualError> {
        Ok(self.fetch_with(key, &Dots::new())?.0)
    }

    /// What this primary knows of a key, and which of some dots of the range it does not know,
    /// whichever keys they are of.
    ///
    /// # Errors
    /// As [`Replica::fetch`].
    pub(crate) fn fetch_with(
        &self,
        key: &[u8],
        wanted: &Dots,
    ) -> Result<(KeyState, Dots), EventualError> {
        let state = self.state.lock();
        if !state.filled {
            return Err(EventualError::Filling(self.range));
        }
        let known = self.view(&state, key)?;
        let missing = wanted.without(known.context()).without(state.clock.dots());
        Ok((known, missing))
    }

    /// Whether it may speak for what it acknowledged.
    ///
    /// # Errors
    /// As [`Replica::fetch`].
    pub(crate) fn check_filled(&self) -> Result<(), EventualError> {
        match self.state.lock().filled {
            true => Ok(()),
            false => Err(EventualError::Filling(self.range)),
        }
    }

    /// Which of some dots this primary has not taken in.
    ///
    /// # Errors
    /// As [`Replica::fetch`].
    pub(crate) fn lacking(&self, wanted: &Dots) -> Result<Dots, EventualError> {
        let state = self.state.lock();
        if !state.filled {
            return Err(EventualError::Filling(self.range));
        }
        let missing = wanted.without(state.clock.dots());
        drop(state);
        // Beside a log, rows whose values it has are gone, and with them what they brought.
        let decided = self.decisions.as_ref();
        let decided = decided.and_then(|decisions| decisions.taken_in(self.range));
        Ok(match decided {
            Some((decided, _)) => missing.without(&decided),
            None => missing,
        })
    }

    /// What this replica holds of a key for repair, filled or not.
    pub(crate) fn held(&self, key: &[u8]) -> Result<KeyState, EventualError> {
        let state = self.state.lock();
        self.view(&state, key)
    }

    /// What this stand-in's hints say of a key; `None`: nothing.
    pub(crate) fn fetch_hinted(&self, key: &[u8]) -> Result<Option<KeyState>, EventualError> {
        self.hinted(&self.state.lock(), key)
    }

    pub(super) fn hinted(
        &self,
        state: &State,
        key: &[u8],
    ) -> Result<Option<KeyState>, EventualError> {
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
            .ok_or(EventualError::DamagedRow("hint"))
    }

    /// A page of rows of any kind.
    pub(super) fn page(&self, start: Bytes, end: Bytes) -> Result<ScanPage, EventualError> {
        Ok(self.table.scan(&ScanRequest {
            start,
            end,
            reverse: false,
            at: None,
            rows_max: PAGE_ROWS_MAX,
            bytes_max: PAGE_BYTES_MAX,
            keys_only: false,
        })?)
    }

    /// Looks at all rows of an interval, page by page.
    pub(super) fn each_row(
        &self,
        (mut start, end): (Bytes, Bytes),
        mut look: impl FnMut(Bytes, Version) -> Result<(), EventualError>,
    ) -> Result<(), EventualError> {
        loop {
            let page = self.page(start, end.clone())?;
            for (row, version) in page.rows {
                look(row, version)?;
            }
            match page.resume {
                Some(next) => start = next,
                None => return Ok(()),
            }
        }
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

    /// What the clock covers without a gap, encoded: what repair compares and hands over.
    pub(crate) fn base(&self) -> Bytes {
        Clock::of(self.state.lock().clock.base()).encode()
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
        // Beside a log, clocks differ by what the log alone has brought.
        let clock = match self.has_log() {
            true => 0,
            false => hash_of(&Clock::of(state.clock.base()).encode()),
        };
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
            bytes_max: PAGE_BYTES_MAX,
            keys_only: true,
        })?;
        let mut keys = BTreeMap::new();
        for (row, _) in page.rows {
            let key = Rows::key_of_leaf(&row);
            if let Some(hash) = self.row(&key)?.hash(&key) {
                keys.insert(key, hash);
            }
        }
        Ok((keys, page.resume.is_some()))
    }

    /// Some keys of which a value expired at `deadline` or earlier.
    pub(super) fn expired(&self, deadline: Timestamp) -> Result<Vec<Bytes>, EventualError> {
        let (start, end) = self.rows.expired(deadline);
        let page = self.table.scan(&ScanRequest {
            start,
            end,
            reverse: false,
            at: None,
            rows_max: EXPIRED_KEYS_MAX,
            bytes_max: PAGE_BYTES_MAX,
            keys_only: true,
        })?;
        let rows = page.rows.iter();
        Ok(rows.map(|(row, _)| Rows::key_of_expiry(row)).collect())
    }

    /// Logical bytes of records and hints; for tests and reports. Reads everything.
    pub(crate) fn stored_bytes(&self) -> Result<(u64, u64), EventualError> {
        let (mut records, mut hints) = (0, 0);
        self.each_row(self.rows.interval(), |row, version| {
            let bytes = (row.len() + version.value.len()) as u64;
            match Rows::dot_of(&row).filter(|dot| self.rows.hint(*dot) == row) {
                Some(_) => hints += bytes,
                None => records += bytes,
            }
            Ok(())
        })?;
        Ok((records, hints))
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
        let mut found = None;
        let looked = self.each_row(self.rows.records_from(&[]), |row, version| {
            let key = Rows::key_of(&row);
            let record = Record::decode(&version.value)?;
            if found.is_none() && state.is_warm(&key) && !due.contains(&key) {
                found =
                    broken(&state.clock, &record).map(|rule| format!("{rule}: {key:?} {record:?}"));
            }
            tree.change(&key, None, Some(record_hash(&key, &record)));
            Ok(())
        });
        looked.map_err(|error| error.to_string())?;
        if let Some(found) = found {
            return Err(found);
        }
        if state.warming.is_none() && tree.root() != state.tree.root() {
            return Err("the hash tree is not that of the records".to_owned());
        }
        Ok(())
    }
}
