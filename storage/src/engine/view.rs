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
use super::record::{self, RangeMeta, Record};
use super::{HistoryEntry, Version};

/// Key of the table of history: bucket, encoded key, complement of the
/// version's revision (so that a key's newest version comes first).
pub(super) type HistoryKey = (u32, &'static [u8], u64);

/// The newest live version of every key.
pub(super) const CURRENT: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("current");
/// Versions that were superseded, by the time when they were.
pub(super) const HISTORY: TableDefinition<'_, HistoryKey, &[u8]> = TableDefinition::new("history");
/// What is known about ranges, beside their data.
pub(super) const META: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("meta");

/// A bucket of history holds what was superseded within 2^21 microseconds
/// (some 2 seconds): old history leaves by whole buckets, and a flush mostly
/// adds behind what is there, where longer buckets would have it rewrite the
/// leaves of earlier flushes.
const BUCKET_REVISION_BITS: u32 = 21;
/// Revisions that share a bucket of history. What was superseded at a revision has left the files
/// once the floor is so much above it.
pub const HISTORY_BUCKET_REVISIONS: u64 = 1 << BUCKET_REVISION_BITS;

/// The bucket of versions that were superseded at `revision`. (Revisions are
/// microseconds: 32 bits of buckets last until the year 2255.)
pub(super) fn bucket_of(revision: u64) -> u32 {
    u32::try_from(revision >> BUCKET_REVISION_BITS).unwrap_or(u32::MAX)
}

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
    pub(super) fn get_at(&self, key: &[u8], at: u64) -> Result<Option<Version>, EngineError> {
        if let Some(stored) = self.current.get(key)? {
            let record = record::decode(key, stored.value())?;
            if record.revision <= at {
                return Ok(Some(record.version()));
            }
        }
        self.get_superseded(key, at)
    }

    /// Looks in history alone. What was alive at `at` was superseded later, so
    /// it stands in the bucket of `at` or a later one; in each, the newest
    /// version at or below `at` is the only candidate.
    fn get_superseded(&self, key: &[u8], at: u64) -> Result<Option<Version>, EngineError> {
        let mut next = self.has_history.then(|| bucket_of(at));
        while let Some(bucket) = next {
            let Some(found) = self.history.range((bucket, key, !at)..)?.next() else {
                return Ok(None);
            };
            let (name, stored) = found?;
            let (found_bucket, found_key, _) = name.value();
            if found_bucket == bucket {
                if found_key == key
                    && let Some(record) = alive_at(name.value(), stored.value(), at)?
                {
                    return Ok(Some(record.version()));
                }
                next = bucket.checked_add(1);
            } else {
                next = Some(found_bucket);
            }
        }
        Ok(None)
    }

    /// The version of `key` in one bucket that was alive at `at`.
    pub(super) fn in_bucket(
        &self,
        bucket: u32,
        key: &[u8],
        at: u64,
    ) -> Result<Option<Version>, EngineError> {
        let range = (bucket, key, !at)..=(bucket, key, u64::MAX);
        let Some(found) = self.history.range(range)?.next() else {
            return Ok(None);
        };
        let (name, stored) = found?;
        let record = alive_at(name.value(), stored.value(), at)?;
        Ok(record.map(|record| record.version()))
    }

    /// Buckets from that of `at` on that have any record.
    pub(super) fn buckets_from(&self, at: u64) -> Result<Vec<u32>, EngineError> {
        let mut buckets = Vec::new();
        let mut next = self.has_history.then(|| bucket_of(at));
        while let Some(bucket) = next {
            let Some(found) = self.history.range((bucket, [].as_slice(), 0)..)?.next() else {
                break;
            };
            let (name, _) = found?;
            let (found, _, _) = name.value();
            buckets.push(found);
            next = found.checked_add(1);
        }
        Ok(buckets)
    }

    /// Appends what is stored of `key`, newest first: its current version,
    /// then those superseded above `floor`, and the deletes between them.
    pub(super) fn history_of(
        &self,
        key: &[u8],
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
        let mut buckets = self.buckets_from(floor)?;
        while let Some(bucket) = buckets.pop()
            && out.len() < limit
        {
            let range = (bucket, key, 0)..=(bucket, key, u64::MAX);
            for found in self.history.range(range)? {
                let (name, stored) = found?;
                let (record, ending) = decode_history(name.value(), stored.value())?;
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

/// Reads a record of history and checks that it stands where it belongs.
pub(super) fn decode_history<'a>(
    (bucket, key, complement): (u32, &[u8], u64),
    stored: &'a [u8],
) -> Result<(Record<'a>, record::Ending), EngineError> {
    let (record, ending) = record::decode_ended(key, stored)?;
    if record.revision != !complement || bucket_of(ending.revision) != bucket {
        return Err(EngineError::corrupt(key, "stored under another revision"));
    }
    Ok((record, ending))
}

/// The record, if its version was the newest one at `at`.
fn alive_at<'a>(
    name: (u32, &[u8], u64),
    stored: &'a [u8],
    at: u64,
) -> Result<Option<Record<'a>>, EngineError> {
    let (record, ending) = decode_history(name, stored)?;
    Ok((record.revision <= at && ending.revision > at).then_some(record))
}
