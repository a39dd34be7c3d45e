//! One committed state of a file: the tables, and reads within them.
//!
//! A view is an open redb read transaction, shared by all readers of a file
//! and replaced after every commit, so that a read does not begin one. It pins
//! pages only until the next commit: what that commit freed becomes reusable
//! when the old view is let go, right behind it. Whoever holds a view longer
//! (an export, a hash) keeps the pages freed meanwhile.

use bytes::Bytes;
use redb::{ReadOnlyTable, ReadTransaction, ReadableTableMetadata, TableDefinition};

use super::error::EngineError;
use super::history::{self, HISTORY, HistoryKey, RunReader};
use super::record::{self, RangeMeta};
use super::{HistoryEntry, Version};

/// The newest live version of every key.
pub(super) const CURRENT: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("current");
/// What is known about ranges, beside their data.
pub(super) const META: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("meta");

/// Name of a record in the table of metadata: range, kind, the rest.
pub(super) fn meta_name(range: u64, kind: MetaKind, rest: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(9 + rest.len());
    name.extend(range.to_be_bytes());
    name.push(kind as u8);
    name.extend_from_slice(rest);
    name
}

/// Kinds of records in the table of metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum MetaKind {
    /// The engine's own record of the range, a [`RangeMeta`].
    Range = 0,
    /// A caller's.
    Caller = 1,
    /// Instead of the others: the range is being removed; a [`RangeMeta`].
    Dropping = 2,
    /// The file's own record; stands under range 2^64-1, which no range has.
    File = 3,
}

/// The tables of a file as of one commit.
pub(super) struct FileView {
    pub(super) current: ReadOnlyTable<&'static [u8], &'static [u8]>,
    pub(super) history: ReadOnlyTable<HistoryKey, &'static [u8]>,
    pub(super) meta: ReadOnlyTable<&'static [u8], &'static [u8]>,
    /// Whether there is any history, which saves looking for it.
    has_history: bool,
}

impl std::fmt::Debug for FileView {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("FileView")
    }
}

impl FileView {
    pub(super) fn new(transaction: &ReadTransaction) -> Result<Self, EngineError> {
        let history = transaction.open_table(HISTORY)?;
        Ok(Self {
            current: transaction.open_table(CURRENT)?,
            has_history: !history.is_empty()?,
            history,
            meta: transaction.open_table(META)?,
        })
    }

    /// The newest version of `key`.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Version>, EngineError> {
        let Some(stored) = self.current.get(key)? else {
            return Ok(None);
        };
        Ok(Some(record::decode(key, stored.value())?.version()))
    }

    /// The version of `key` that was the newest one at revision `at`.
    pub(super) fn get_at(
        &self,
        range: u64,
        key: &[u8],
        at: u64,
    ) -> Result<Option<Version>, EngineError> {
        if let Some(stored) = self.current.get(key)? {
            let record = record::decode(key, stored.value())?;
            if record.revision <= at {
                return Ok(Some(record.version()));
            }
        }
        self.get_superseded(range, key, at)
    }

    /// Looks in history alone. What was alive at `at` was superseded later, so
    /// it stands in a run above `at`; in each, the newest version at or below
    /// `at` is the only candidate.
    fn get_superseded(
        &self,
        range: u64,
        key: &[u8],
        at: u64,
    ) -> Result<Option<Version>, EngineError> {
        let mut last = at;
        while let Some(run) = self.run_above(range, last)? {
            let found = RunReader::new(&self.history, range, run).first_from(key, !at)?;
            if let Some((found, stored)) = found
                && found == key
                && let Some(record) = history::alive_at(run, key, &stored, at)?
            {
                return Ok(Some(record.version()));
            }
            last = run;
        }
        Ok(None)
    }

    /// The range's first run of history above `run`.
    fn run_above(&self, range: u64, run: u64) -> Result<Option<u64>, EngineError> {
        if !self.has_history {
            return Ok(None);
        }
        history::next_run(&self.history, range, run)
    }

    /// The range's runs of history above `at`, in ascending order.
    pub(super) fn runs_above(&self, range: u64, at: u64) -> Result<Vec<u64>, EngineError> {
        let mut runs = Vec::new();
        let mut last = at;
        while let Some(run) = self.run_above(range, last)? {
            runs.push(run);
            last = run;
        }
        Ok(runs)
    }

    /// Appends what is stored of `key`, newest first: its current version,
    /// then those superseded above `floor`, and the deletes between them.
    pub(super) fn history_of(
        &self,
        (range, key): (u64, &[u8]),
        floor: u64,
        limit: usize,
        out: &mut Vec<HistoryEntry>,
    ) -> Result<(), EngineError> {
        if let Some(stored) = self.current.get(key)? {
            let version = record::decode(key, stored.value())?.version();
            out.push(HistoryEntry {
                revision: version.revision,
                value: Some(version),
            });
        }
        let mut runs = self.runs_above(range, floor)?;
        while let Some(run) = runs.pop()
            && out.len() < limit
        {
            let mut reader = RunReader::new(&self.history, range, run);
            let mut next = Some(0);
            while let Some(complement) = next
                && let Some((found, stored)) = reader.first_from(key, complement)?
                && found == key
            {
                let (record, ending) = history::decode(run, key, &stored)?;
                if ending.revision <= floor {
                    return Ok(());
                }
                if ending.by_delete {
                    out.push(HistoryEntry {
                        revision: ending.revision,
                        value: None,
                    });
                }
                let version = record.version();
                // Complements rise as revisions fall.
                next = (!version.revision).checked_add(1);
                out.push(HistoryEntry {
                    revision: version.revision,
                    value: Some(version),
                });
            }
        }
        Ok(())
    }

    /// A caller's metadata.
    pub(super) fn caller_meta(&self, range: u64, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let name = meta_name(range, MetaKind::Caller, key);
        let Some(stored) = self.meta.get(name.as_slice())? else {
            return Ok(None);
        };
        let bytes = record::open_bytes(&name, stored.value())?;
        Ok(Some(Bytes::copy_from_slice(bytes)))
    }

    /// All of a caller's metadata whose key starts with `prefix`.
    pub(super) fn caller_meta_scan(
        &self,
        range: u64,
        prefix: &[u8],
    ) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
        let start = meta_name(range, MetaKind::Caller, prefix);
        let mut found = Vec::new();
        for entry in self.meta.range(start.as_slice()..)? {
            let (name, stored) = entry?;
            if !name.value().starts_with(&start) {
                break;
            }
            let bytes = record::open_bytes(name.value(), stored.value())?;
            let key = Bytes::copy_from_slice(&name.value()[start.len() - prefix.len()..]);
            found.push((key, Bytes::copy_from_slice(bytes)));
        }
        Ok(found)
    }

    /// The engine's record of one range.
    pub(super) fn range_meta(
        &self,
        range: u64,
        kind: MetaKind,
    ) -> Result<Option<RangeMeta>, EngineError> {
        let name = meta_name(range, kind, &[]);
        let stored = self.meta.get(name.as_slice())?;
        let stored = stored.as_ref().map(redb::AccessGuard::value);
        stored
            .map(|stored| RangeMeta::decode(&name, stored))
            .transpose()
    }

    /// Ranges that have a record of this kind, in ascending order.
    pub(super) fn ranges(&self, kind: MetaKind) -> Result<Vec<(u64, RangeMeta)>, EngineError> {
        let mut ranges = Vec::new();
        let mut next = Some(0_u64);
        while let Some(from) = next {
            let start = meta_name(from, MetaKind::Range, &[]);
            let Some(found) = self.meta.range(start.as_slice()..)?.next() else {
                break;
            };
            let (name, _) = found?;
            let id = name.value().first_chunk().map(|id| u64::from_be_bytes(*id));
            let id = id.ok_or_else(|| EngineError::corrupt(name.value(), "nameless metadata"))?;
            if let Some(meta) = self.range_meta(id, kind)? {
                ranges.push((id, meta));
            }
            next = id.checked_add(1);
        }
        Ok(ranges)
    }
}
