//! History in the file: superseded versions, in runs of blocks.
//!
//! A flush adds what it supersedes as one run per table in memory: records
//! sorted by key, newest first, many to a block. A row for each record would
//! cost more processor time and more bytes on disk than all the rest of a
//! flush. A run is named by a revision at or above all endings in it and above
//! the range's earlier runs: what was alive at t stands in a run above t, and
//! a run at or below the floor leaves as a whole. Byte by byte:
//! docs/FORMAT-ENGINE.md.

use std::ops::Bound;

use bytes::Bytes;
use redb::{ReadableTable, Table, TableDefinition};

use super::error::EngineError;
use super::record::{self, Ending, RECORD_VERSION, Record};

/// Name of a block: range, run, and the key and the complement of the revision
/// of its last record. So the first block at or behind a name holds the first
/// record at or behind it.
pub(super) type HistoryKey = (u64, u64, &'static [u8], u64);

/// Versions that were superseded.
pub(super) const HISTORY: TableDefinition<'_, HistoryKey, &[u8]> = TableDefinition::new("history");

/// A block ends before it has more bytes than this, unless one record alone
/// does. With its name it fits a 32 KiB page of redb's.
const BLOCK_BYTES_MAX: usize = (32 << 10) - 512;
/// Length of the key, length of the record.
const FRAME_BYTES: usize = 8;

/// A bound in the table of history.
type NameBound = Bound<(u64, u64, &'static [u8], u64)>;

/// Bounds of the blocks of `range` in all runs above `run`.
pub(super) fn runs_above(range: u64, run: u64) -> (NameBound, NameBound) {
    (behind_run(range, run), behind_range(range))
}

/// Bounds of the blocks of `range` in all runs up to `run`.
pub(super) fn runs_through(range: u64, run: u64) -> (NameBound, NameBound) {
    let first = Bound::Included((range, 0, [].as_slice(), 0));
    let end = match behind_run(range, run) {
        Bound::Included(name) => Bound::Excluded(name),
        other => other,
    };
    (first, end)
}

fn behind_run(range: u64, run: u64) -> NameBound {
    match run.checked_add(1) {
        Some(next) => Bound::Included((range, next, [].as_slice(), 0)),
        None => behind_range(range),
    }
}

fn behind_range(range: u64) -> NameBound {
    match range.checked_add(1) {
        Some(next) => Bound::Excluded((next, 0, [].as_slice(), 0)),
        None => Bound::Unbounded,
    }
}

/// The first run of `range` above `run`.
pub(super) fn next_run(
    history: &impl ReadableTable<HistoryKey, &'static [u8]>,
    range: u64,
    run: u64,
) -> Result<Option<u64>, EngineError> {
    let found = history.range(runs_above(range, run))?.next().transpose()?;
    Ok(found.map(|(name, _)| name.value().1))
}

/// Writes one run. Records come sorted by key, each key's newest first.
pub(super) struct RunWriter<'h, 't> {
    history: &'h mut Table<'t, HistoryKey, &'static [u8]>,
    range: u64,
    /// No ending is above it.
    through: u64,
    /// The run's name, once there is a record.
    run: Option<u64>,
    block: Vec<u8>,
    last: (Vec<u8>, u64),
    record: Vec<u8>,
}

impl<'h, 't> RunWriter<'h, 't> {
    /// A run of endings up to `through`.
    pub(super) fn new(
        history: &'h mut Table<'t, HistoryKey, &'static [u8]>,
        range: u64,
        through: u64,
    ) -> Self {
        Self {
            history,
            range,
            through,
            run: None,
            block: Vec::new(),
            last: (Vec::new(), 0),
            record: Vec::new(),
        }
    }

    /// Adds a version that ended.
    pub(super) fn add(
        &mut self,
        key: &[u8],
        record: Record<'_>,
        ending: Ending,
    ) -> Result<(), EngineError> {
        debug_assert!(ending.revision <= self.through);
        let revision = record.revision;
        let record = Record {
            ending: Some(ending),
            ..record
        };
        record.encode(key, &mut self.record);
        let bytes = FRAME_BYTES + key.len() + self.record.len();
        if !self.block.is_empty() && self.block.len() + bytes > BLOCK_BYTES_MAX {
            self.end_block()?;
        }
        if self.block.is_empty() {
            self.block.push(RECORD_VERSION);
        }
        for part in [key, &self.record] {
            let len = u32::try_from(part.len()).expect("keys and values are far below 4 GiB");
            self.block.extend(len.to_le_bytes());
        }
        self.block.extend_from_slice(key);
        self.block.extend_from_slice(&self.record);
        self.last.0.clear();
        self.last.0.extend_from_slice(key);
        self.last.1 = !revision;
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), EngineError> {
        let run = match self.run {
            Some(run) => run,
            None => self.name_run()?,
        };
        let (key, complement) = &self.last;
        let name = (self.range, run, key.as_slice(), *complement);
        self.history.insert(name, self.block.as_slice())?;
        self.block.clear();
        Ok(())
    }

    fn name_run(&mut self) -> Result<u64, EngineError> {
        let runs = runs_through(self.range, u64::MAX);
        let last = self.history.range(runs)?.next_back().transpose()?;
        let behind = last.map_or(0, |(name, _)| name.value().1.saturating_add(1));
        let run = behind.max(self.through);
        self.run = Some(run);
        Ok(run)
    }

    /// Writes what is left.
    pub(super) fn finish(mut self) -> Result<(), EngineError> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.end_block()
    }
}

/// A block, taken apart.
#[derive(Debug)]
pub(super) struct Block {
    bytes: Bytes,
    /// Where its records' frames begin.
    frames: Vec<u32>,
}

impl Block {
    /// Reads the frames of a block. Records are checked when they are used.
    pub(super) fn open(stored: &[u8]) -> Result<Self, EngineError> {
        let broken = || EngineError::corrupt(&[], "a block of history that is not whole");
        match stored.first() {
            Some(&RECORD_VERSION) => {}
            Some(&found) => {
                return Err(EngineError::Version {
                    what: "a block of history",
                    found: found.into(),
                    known: RECORD_VERSION.into(),
                });
            }
            None => return Err(broken()),
        }
        let mut frames = Vec::new();
        let mut at = 1;
        while at < stored.len() {
            let (key, record) = frame_lens(stored, at).ok_or_else(broken)?;
            frames.push(u32::try_from(at).map_err(|_| broken())?);
            at = at + FRAME_BYTES + key + record;
        }
        if frames.is_empty() || at != stored.len() {
            return Err(broken());
        }
        Ok(Self {
            bytes: Bytes::copy_from_slice(stored),
            frames,
        })
    }

    /// Key and stored record number `at`.
    fn entry(&self, at: usize) -> (Bytes, Bytes) {
        let (key, record) = self.places(at);
        (self.bytes.slice(key), self.bytes.slice(record))
    }

    fn places(&self, at: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let frame = self.frames[at] as usize;
        let (key, record) =
            frame_lens(&self.bytes, frame).expect("a block is opened with whole frames alone");
        let key = frame + FRAME_BYTES..frame + FRAME_BYTES + key;
        let record = key.end..key.end + record;
        (key, record)
    }

    /// Key, and complement of the revision that the record says.
    fn name(&self, at: usize) -> (&[u8], u64) {
        let (key, stored) = self.places(at);
        let revision = record::claimed_revision(&self.bytes[stored]);
        (&self.bytes[key], !revision)
    }

    /// Number of the first record at or behind a name.
    fn first_from(&self, name: (&[u8], u64)) -> usize {
        let (mut low, mut high) = (0, self.frames.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.name(middle) < name {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Whether the first record at or behind a name is certainly in here.
    fn covers(&self, name: (&[u8], u64)) -> bool {
        self.name(0) <= name && name <= self.name(self.frames.len() - 1)
    }

    /// All records, in order.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Bytes, Bytes)> + '_ {
        (0..self.frames.len()).map(|at| self.entry(at))
    }
}

/// Lengths of key and record in the frame at `at`, if they are within the block.
fn frame_lens(block: &[u8], at: usize) -> Option<(usize, usize)> {
    let frame = block.get(at..at.checked_add(FRAME_BYTES)?)?;
    let (key, record) = frame.split_at(4);
    let key = u32::from_le_bytes(key.try_into().ok()?) as usize;
    let record = u32::from_le_bytes(record.try_into().ok()?) as usize;
    (block.len() - at - FRAME_BYTES >= key.checked_add(record)?).then_some((key, record))
}

/// Reads one run. Keeps the block that it read last.
pub(super) struct RunReader<'h, History> {
    history: &'h History,
    range: u64,
    run: u64,
    block: Option<Block>,
}

impl<'h, History: ReadableTable<HistoryKey, &'static [u8]>> RunReader<'h, History> {
    pub(super) fn new(history: &'h History, range: u64, run: u64) -> Self {
        Self {
            history,
            range,
            run,
            block: None,
        }
    }

    /// The run's first record at or behind a key and a revision's complement.
    pub(super) fn first_from(
        &mut self,
        key: &[u8],
        complement: u64,
    ) -> Result<Option<(Bytes, Bytes)>, EngineError> {
        let name = (key, complement);
        if self.block.as_ref().is_none_or(|block| !block.covers(name)) {
            self.block = self.block_from(name)?;
        }
        let block = self.block.as_ref();
        Ok(block.map(|block| block.entry(block.first_from(name))))
    }

    /// The run's last record before all of `end` (None: the run's last).
    pub(super) fn last_before(
        &mut self,
        end: Option<&[u8]>,
    ) -> Result<Option<(Bytes, Bytes)>, EngineError> {
        if let Some(end) = end {
            let name = (end, 0);
            if self.block.as_ref().is_none_or(|block| !block.covers(name)) {
                self.block = self.block_from(name)?;
            }
            if let Some(block) = &self.block {
                let behind = block.first_from(name);
                if behind > 0 {
                    return Ok(Some(block.entry(behind - 1)));
                }
            }
        }
        let first = Bound::Included((self.range, self.run, [].as_slice(), 0));
        let behind = match end {
            Some(end) => Bound::Excluded((self.range, self.run, end, 0)),
            None => runs_through(self.range, self.run).1,
        };
        let found = self.history.range((first, behind))?.next_back();
        self.block = found
            .transpose()?
            .map(|(_, stored)| Block::open(stored.value()))
            .transpose()?;
        let block = self.block.as_ref();
        Ok(block.map(|block| block.entry(block.frames.len() - 1)))
    }

    fn block_from(&self, (key, complement): (&[u8], u64)) -> Result<Option<Block>, EngineError> {
        let first = Bound::Included((self.range, self.run, key, complement));
        let behind = runs_through(self.range, self.run).1;
        let found = self.history.range((first, behind))?.next().transpose()?;
        let Some((_, stored)) = found else {
            return Ok(None);
        };
        let block = Block::open(stored.value())?;
        if block.first_from((key, complement)) == block.frames.len() {
            return Err(EngineError::corrupt(key, "a block under another name"));
        }
        Ok(Some(block))
    }
}

/// Reads a record of history and checks that it is in a run of its time.
pub(super) fn decode<'a>(
    run: u64,
    key: &[u8],
    stored: &'a [u8],
) -> Result<(Record<'a>, Ending), EngineError> {
    let (record, ending) = record::decode_ended(key, stored)?;
    if ending.revision > run {
        return Err(EngineError::corrupt(key, "stored in a run before its time"));
    }
    Ok((record, ending))
}

/// The record, if its version was the newest one at `at`.
pub(super) fn alive_at<'a>(
    run: u64,
    key: &[u8],
    stored: &'a [u8],
    at: u64,
) -> Result<Option<Record<'a>>, EngineError> {
    let (record, ending) = decode(run, key, stored)?;
    Ok((record.revision <= at && ending.revision > at).then_some(record))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use redb::{Database, ReadableDatabase, backends::InMemoryBackend};

    use super::*;

    const RANGE: u64 = 7;
    const RUN: u64 = 1_000_000;
    const KEYS: u64 = 40;

    fn key(number: u64) -> Vec<u8> {
        format!("key{number:04}").into_bytes()
    }

    /// Versions of key number `number`: every third key has enough for several
    /// blocks, and there are gaps between keys and between revisions.
    fn revisions(number: u64) -> impl Iterator<Item = u64> {
        let count = if number.is_multiple_of(3) { 300 } else { 2 };
        (0..count).rev().map(|at| 10 + at * 10)
    }

    fn names() -> Vec<(Vec<u8>, u64)> {
        let numbers = (0..KEYS).map(|number| number * 2);
        numbers
            .flat_map(|number| revisions(number).map(move |revision| (key(number), !revision)))
            .collect()
    }

    fn filled() -> Database {
        let database = Database::builder()
            .create_with_backend(InMemoryBackend::new())
            .unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let mut table = transaction.open_table(HISTORY).unwrap();
            // Neighbours that must not show.
            for (range, run) in [(RANGE - 1, RUN), (RANGE, RUN - 9), (RANGE + 1, 99)] {
                write(&mut table, range, run, &[(key(9), !3)]);
            }
            write(&mut table, RANGE, RUN, &names());
            write(&mut table, RANGE, RUN, &[(key(9), !3)]);
        }
        transaction.commit().unwrap();
        database
    }

    fn write(
        table: &mut Table<'_, HistoryKey, &'static [u8]>,
        range: u64,
        through: u64,
        names: &[(Vec<u8>, u64)],
    ) {
        let mut run = RunWriter::new(table, range, through);
        for (key, complement) in names {
            let record = Record {
                revision: !complement,
                expiry: None,
                causal: None,
                ending: None,
                value: &[1; 100],
            };
            let ending = Ending {
                revision: !complement + 10,
                by_delete: false,
            };
            run.add(key, record, ending).unwrap();
        }
        run.finish().unwrap();
    }

    #[test]
    fn records_are_found_across_blocks() {
        let database = filled();
        let table = database.begin_read().unwrap().open_table(HISTORY).unwrap();
        assert!(table.range(runs_above(RANGE, RUN - 1)).unwrap().count() > 15);
        let mut reader = RunReader::new(&table, RANGE, RUN);
        let names = names();
        let found = |entry: Option<(Bytes, Bytes)>| {
            entry.map(|(key, stored)| {
                let (record, _) = decode(RUN, &key, &stored).unwrap();
                (key.to_vec(), !record.revision)
            })
        };
        for number in 0..=KEYS * 2 + 1 {
            let key = key(number);
            for complement in [0, !3001, !3000, !1205, !1200, !20, !15, !10, !5, u64::MAX] {
                let wanted = names
                    .iter()
                    .find(|name| **name >= (key.clone(), complement));
                let got = found(reader.first_from(&key, complement).unwrap());
                assert_eq!(got.as_ref(), wanted, "{number} {complement}");
            }
            let wanted = names.iter().rfind(|name| name.0 < key);
            assert_eq!(
                found(reader.last_before(Some(&key)).unwrap()).as_ref(),
                wanted
            );
        }
        assert_eq!(
            found(reader.last_before(None).unwrap()).as_ref(),
            names.last()
        );
    }

    #[test]
    fn runs_have_names_of_their_own() {
        let database = filled();
        let table = database.begin_read().unwrap().open_table(HISTORY).unwrap();
        let runs = |above| next_run(&table, RANGE, above).unwrap();
        assert_eq!(runs(0), Some(RUN - 9));
        assert_eq!(runs(RUN - 9), Some(RUN));
        // Written through the same revision, so it is named behind the other.
        assert_eq!((runs(RUN), runs(RUN + 1)), (Some(RUN + 1), None));
        let through = |run| table.range(runs_through(RANGE, run)).unwrap().count();
        assert_eq!((through(RUN - 10), through(RUN - 9)), (0, 1));
    }

    #[test]
    fn a_block_that_is_not_whole_is_refused() {
        let database = filled();
        let table = database.begin_read().unwrap().open_table(HISTORY).unwrap();
        let (_, stored) = table
            .range(runs_above(RANGE, RUN))
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        let block = stored.value();
        assert_eq!(Block::open(block).unwrap().entries().count(), 1);
        for len in 0..block.len() {
            assert!(Block::open(&block[..len]).is_err(), "{len}");
        }
    }
}
