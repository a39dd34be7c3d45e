//! The way from memory into a file.
//!
//! One worker per file. A round takes all that the file's ranges have frozen,
//! and writes it in one transaction with the positions and metadata that
//! belong to it; then, when there is nothing to flush, it removes what is no
//! longer wanted, in steps.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use redb::{Table, WriteTransaction};

use super::collect::{self, Collected};
use super::error::EngineError;
use super::file::EngineFile;
use super::history::{HISTORY, HistoryKey, RunWriter};
use super::memory::{MemTable, Slots};
use super::range::FlushJob;
use super::record::{self, Ending, Record};
use super::store::{Common, Stop};
use super::view::{CURRENT, META, MetaKind, meta_name};
use crate::disk::{Next, Worker};

/// Flushes one file.
pub(super) struct Flusher {
    pub(super) file: Arc<EngineFile>,
    pub(super) common: Arc<Common>,
}

impl Worker for Flusher {
    fn step(&mut self) -> Next {
        let stop = self.common.stop();
        if stop == Stop::Now {
            return Next::Stop;
        }
        let idle = if stop == Stop::WhenFlushed {
            Next::Stop
        } else {
            Next::Wait
        };
        if self.common.failed().is_some() {
            return idle;
        }
        let round = || round(&self.file, &self.common, stop == Stop::Not);
        match catch_unwind(AssertUnwindSafe(round)) {
            Ok(Ok(true)) => Next::Again,
            Ok(Ok(false)) => idle,
            Ok(Err(error)) => {
                self.common.fail(error);
                idle
            }
            Err(_) => {
                self.common.fail(EngineError::Panicked);
                idle
            }
        }
    }
}

/// Flushes what is frozen, or does one step of tidying. Says whether there may
/// be more to do.
fn round(file: &EngineFile, common: &Common, tidy: bool) -> Result<bool, EngineError> {
    if flush(file, common)? {
        return Ok(true);
    }
    Ok(tidy && collect::step(file, common)?)
}

/// Flushes all that the file's ranges have frozen. Says whether that was
/// anything.
fn flush(file: &EngineFile, common: &Common) -> Result<bool, EngineError> {
    let writer = file.writer()?;
    let frozen = file.take_frozen();
    let jobs: Vec<_> = frozen
        .iter()
        .filter_map(|range| range.flush_job())
        .collect();
    if jobs.is_empty() {
        return Ok(false);
    }
    let transaction = writer.begin()?;
    let mut collected = Vec::new();
    {
        let mut tables = Tables::open(&transaction)?;
        for job in &jobs {
            tables.flush(job)?;
            let next = collect::history_step(
                &mut tables.history,
                &job.range,
                job.meta.floor,
                common.options.history_blocks_max(),
            )?;
            collected.push(next);
        }
    }
    let freed = writer.commit(transaction, &jobs)?;
    collected.iter().for_each(Collected::settle);
    let rows = jobs
        .iter()
        .flat_map(|job| &job.tables)
        .map(|table| table.len());
    common.flushed(freed, rows.sum());
    jobs.iter().for_each(FlushJob::announce);
    Ok(true)
}

/// The tables of a file, open for writing.
pub(super) struct Tables<'a> {
    pub(super) current: Table<'a, &'static [u8], &'static [u8]>,
    pub(super) history: Table<'a, HistoryKey, &'static [u8]>,
    pub(super) meta: Table<'a, &'static [u8], &'static [u8]>,
}

impl<'a> Tables<'a> {
    pub(super) fn open(transaction: &'a WriteTransaction) -> Result<Self, EngineError> {
        Ok(Self {
            current: transaction.open_table(CURRENT)?,
            history: transaction.open_table(HISTORY)?,
            meta: transaction.open_table(META)?,
        })
    }

    fn flush(&mut self, job: &FlushJob) -> Result<(), EngineError> {
        for table in &job.tables {
            self.flush_table(job.range.id, table, job.meta.floor)?;
        }
        let range = job.range.id;
        for (key, value) in &job.staged {
            let name = meta_name(range, MetaKind::Caller, key);
            match value {
                Some(value) => {
                    let sealed = record::seal_bytes(&name, value);
                    self.meta.insert(name.as_slice(), sealed.as_slice())?;
                }
                None => drop(self.meta.remove(name.as_slice())?),
            }
        }
        let name = meta_name(range, MetaKind::Range, &[]);
        self.meta
            .insert(name.as_slice(), job.meta.encode(&name).as_slice())?;
        Ok(())
    }

    fn flush_table(&mut self, range: u64, table: &MemTable, floor: u64) -> Result<(), EngineError> {
        let mut rows = Rows {
            current: &mut self.current,
            run: RunWriter::new(&mut self.history, range, table.last_revision()),
            floor,
            buffer: Vec::new(),
        };
        for (key, slots) in table.iter() {
            rows.flush_key(key, slots)?;
        }
        rows.run.finish()
    }
}

/// Where the keys of one table in memory go.
struct Rows<'f, 't> {
    current: &'f mut Table<'t, &'static [u8], &'static [u8]>,
    run: RunWriter<'f, 't>,
    floor: u64,
    buffer: Vec<u8>,
}

impl Rows<'_, '_> {
    /// Makes the newest version current, and the ones before it history, as
    /// far as they ended above the floor.
    fn flush_key(&mut self, key: &[u8], slots: &Slots) -> Result<(), EngineError> {
        let old = match &slots.newest().version() {
            Some(version) => {
                record_of(version).encode(key, &mut self.buffer);
                self.current.insert(key, self.buffer.as_slice())?
            }
            None => self.current.remove(key)?,
        };
        let slots = slots.as_slice();
        let ending = |at: usize| Ending {
            revision: slots[at].revision,
            by_delete: slots[at].version().is_none(),
        };
        // Newest first, as a run has them.
        for (at, slot) in (1..slots.len()).zip(slots).rev() {
            if ending(at).revision <= self.floor {
                return Ok(());
            }
            if let Some(version) = slot.version() {
                self.run.add(key, record_of(&version), ending(at))?;
            }
        }
        if let Some(old) = old
            && ending(0).revision > self.floor
        {
            let record = record::decode(key, old.value())?;
            self.run.add(key, record, ending(0))?;
        }
        Ok(())
    }
}

fn record_of(version: &super::Version) -> Record<'_> {
    Record {
        revision: version.revision,
        expiry: version.expiry,
        causal: version.causal.as_deref(),
        ending: None,
        value: &version.value,
    }
}
