//! The engine as a whole: its files, its workers, its end.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use redb::ReadableTableMetadata;
use tokio::sync::watch;

use super::error::EngineError;
use super::file::{self, EngineFile};
use super::flush::Flusher;
use super::range::Range;
use super::record::RangeMeta;
use super::table::RangeTable;
use super::tick::Ticker;
use super::view::MetaKind;
use super::{EngineOptions, collect};
use crate::disk::{Disk, Doorbell, WorkerHandle};

/// How the workers are to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Not = 0,
    /// Stop when all that is frozen is flushed.
    WhenFlushed = 1,
    Now = 2,
}

/// What all parts of one engine share.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) options: EngineOptions,
    /// Number of the current tick, see [`Ticker`].
    pub(super) tick: AtomicU64,
    /// Whether the ticker is ticking (or about to).
    pub(super) ticking: AtomicBool,
    /// Whether the ticker was asked for relief since memory became scarce.
    pub(super) relieving: AtomicBool,
    memory_bytes: AtomicUsize,
    flushes: AtomicU64,
    flushed_rows: AtomicU64,
    stop: AtomicU8,
    closed: AtomicBool,
    failed: watch::Sender<Option<Arc<EngineError>>>,
}

impl Common {
    fn new(options: EngineOptions) -> Self {
        Self {
            options,
            tick: AtomicU64::new(1),
            ticking: AtomicBool::new(false),
            relieving: AtomicBool::new(false),
            memory_bytes: AtomicUsize::new(0),
            flushes: AtomicU64::new(0),
            flushed_rows: AtomicU64::new(0),
            stop: AtomicU8::new(Stop::Not as u8),
            closed: AtomicBool::new(false),
            failed: watch::Sender::new(None),
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    /// Whether memory is used so far that flushes should begin; the other half
    /// is for what is written until they end.
    pub(super) fn is_scarce(&self) -> bool {
        self.memory_bytes() >= self.options.memory_bytes_max / 2
    }

    fn grow(&self, before: usize, after: usize) {
        if after >= before {
            self.memory_bytes
                .fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.memory_bytes
                .fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    /// Takes note that memory was given back.
    pub(super) fn free(&self, bytes: usize) {
        self.grow(bytes, 0);
        if !self.is_scarce() {
            self.relieving.store(false, Ordering::Relaxed);
        }
        metrics::gauge!("quorate_engine_memory_bytes").set(self.memory_bytes() as f64);
    }

    pub(super) fn flushed(&self, freed: usize, rows: usize) {
        self.free(freed);
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.flushed_rows.fetch_add(rows as u64, Ordering::Relaxed);
        metrics::counter!("quorate_engine_flushes_total").increment(1);
        metrics::counter!("quorate_engine_flushed_rows_total").increment(rows as u64);
    }

    pub(super) fn stop(&self) -> Stop {
        match self.stop.load(Ordering::Acquire) {
            0 => Stop::Not,
            1 => Stop::WhenFlushed,
            _ => Stop::Now,
        }
    }

    /// Whether the files are closed.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(super) fn failed(&self) -> Option<Arc<EngineError>> {
        self.failed.borrow().clone()
    }

    pub(super) fn on_failure(&self) -> watch::Receiver<Option<Arc<EngineError>>> {
        self.failed.subscribe()
    }

    /// Refuses if the engine has failed.
    pub(super) fn check(&self) -> Result<(), EngineError> {
        self.failed()
            .map_or(Ok(()), |error| Err(EngineError::clone(&error)))
    }

    /// The engine writes nothing from here on. The first reason stays.
    pub(super) fn fail(&self, error: EngineError) {
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert_with(|| Arc::new(error));
            first
        });
    }
}

/// Everything behind the handles.
pub(super) struct Inner {
    pub(super) common: Arc<Common>,
    files: Vec<Arc<EngineFile>>,
    ticker: Doorbell,
    workers: Mutex<Vec<WorkerHandle>>,
}

impl Inner {
    /// The file that holds a range.
    pub(super) fn file_of(&self, range: u64) -> &Arc<EngineFile> {
        let number = range % self.files.len() as u64;
        &self.files[number as usize]
    }

    /// Passes a result on; what makes the engine unusable is taken note of.
    pub(super) fn watched<T>(&self, result: Result<T, EngineError>) -> Result<T, EngineError> {
        if let Err(error) = &result
            && error.is_final()
        {
            self.common.fail(error.clone());
        }
        result
    }

    /// Takes note of what an apply put into memory.
    pub(super) fn account(&self, range: &Range, before: usize, after: usize) {
        let common = &self.common;
        common.grow(before, after);
        // One writer per range: nobody adds to this at the same time.
        let unfrozen = range.unfrozen_bytes.load(Ordering::Relaxed);
        let unfrozen = (unfrozen + after).saturating_sub(before);
        range.unfrozen_bytes.store(unfrozen, Ordering::Relaxed);
        if range.touched.load(Ordering::Relaxed) == 0 {
            let tick = common.tick.load(Ordering::Relaxed);
            range.touched.store(tick, Ordering::SeqCst);
            if !common.ticking.swap(true, Ordering::SeqCst) {
                self.ticker.ring();
            }
        }
        // A quarter for one range, so that one flush is not all of memory.
        if unfrozen >= common.options.memory_bytes_max / 4 {
            range.set_due();
        }
        // Once for each time that memory becomes scarce; the ticks see to it
        // as long as it stays so.
        if common.is_scarce() && !common.relieving.swap(true, Ordering::Relaxed) {
            self.ticker.ring();
        }
    }

    fn stop(&self, how: Stop) {
        self.common.stop.fetch_max(how as u8, Ordering::AcqRel);
        self.ticker.ring();
        self.files.iter().for_each(|file| file.bell.ring());
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop(Stop::Now);
    }
}

/// The node's engine. Cloning gives another handle; the workers stop when
/// [`Engine::close`] is called, or the last handle and range table is gone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Engine")
            .field("files", &self.inner.files)
            .finish()
    }
}

/// Counts since the engine was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Memory that unflushed data takes, in bytes.
    pub memory_bytes: usize,
    /// Transactions that flushed something.
    pub flushes: u64,
    /// Keys that they wrote.
    pub flushed_rows: u64,
    /// Bytes written to the files.
    pub written_bytes: u64,
    /// Syncs of the files.
    pub syncs: u64,
    /// Ranges that are open.
    pub ranges: usize,
}

/// Superseded versions in the engine's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoredHistory {
    /// Blocks of versions.
    pub blocks: u64,
    /// What they take, with their names, in bytes.
    pub bytes: u64,
}

impl Engine {
    /// Opens the engine in `dir`, creating it where there is none. Cheap also
    /// after a crash: nothing is rescanned.
    ///
    /// # Errors
    /// A folder in use, not whole, damaged, of another version; a failing disk.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: EngineOptions,
    ) -> Result<Self, EngineError> {
        disk.create_dir_all(dir)
            .map_err(EngineError::io("created its folder"))?;
        let lock = disk.lock_folder(dir).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => EngineError::InUse,
            _ => EngineError::io("locked its folder")(error),
        })?;
        let files = file::open_all(disk.as_ref(), dir, &options, &Arc::from(lock))?;
        let inner = Inner {
            common: Arc::new(Common::new(options)),
            files,
            ticker: Doorbell::new(),
            workers: Mutex::new(Vec::new()),
        };
        let engine = Self {
            inner: Arc::new(inner),
        };
        engine
            .start(disk.as_ref())
            .map_err(EngineError::io("started its workers"))?;
        Ok(engine)
    }

    fn start(&self, disk: &dyn Disk) -> std::io::Result<()> {
        let Inner {
            common,
            files,
            ticker,
            workers,
            ..
        } = self.inner.as_ref();
        let mut handles = workers.lock();
        for (number, file) in files.iter().enumerate() {
            let flusher = Flusher {
                file: file.clone(),
                common: common.clone(),
            };
            let name = format!("engine-{number}");
            handles.push(disk.spawn(&name, file.bell.clone(), Box::new(flusher))?);
        }
        let worker = Ticker {
            files: files.clone(),
            common: common.clone(),
        };
        handles.push(disk.spawn("engine-tick", ticker.clone(), Box::new(worker))?);
        Ok(())
    }

    /// The ranges on disk, by id, with what is durable of them.
    ///
    /// # Errors
    /// Corrupt or damaged data, a failing disk.
    pub fn ranges(&self) -> Result<Vec<(u64, RangeMeta)>, EngineError> {
        let mut ranges = Vec::new();
        for file in &self.inner.files {
            ranges.extend(self.inner.watched(file.view().ranges(MetaKind::Range))?);
        }
        ranges.sort_by_key(|(id, _)| *id);
        Ok(ranges)
    }

    /// Opens a range, or gives another handle of it. A new one is on disk from
    /// its first [`RangeTable::freeze`] on.
    ///
    /// `interval` is the first key, and the key behind the last (empty: no
    /// end). A dropped range in the way is removed first, which takes time.
    ///
    /// # Errors
    /// [`EngineError::IntervalDiffers`], [`EngineError::Overlap`]; corrupt or
    /// damaged data, a failing disk.
    pub fn open_range(
        &self,
        range: u64,
        interval: (Bytes, Bytes),
    ) -> Result<RangeTable, EngineError> {
        self.inner.common.check()?;
        let file = self.inner.file_of(range);
        let options = &self.inner.common.options;
        let in_the_way = |id: u64, other: &(Bytes, Bytes)| id == range || overlap(&interval, other);
        while file.has_dropping()
            && self
                .inner
                .watched(collect::drop_step(file, options, in_the_way))?
        {}
        let opened = file.range_or(range, |ranges, view| {
            let meta = view.range_meta(range, MetaKind::Range)?;
            if meta.as_ref().is_some_and(|meta| meta.interval != interval) {
                return Err(EngineError::IntervalDiffers { range });
            }
            let open = ranges
                .values()
                .map(|other| (other.id, other.interval.clone()));
            let stored = view.ranges(MetaKind::Range)?;
            let stored = stored.into_iter().map(|(id, meta)| (id, meta.interval));
            for (other, other_interval) in open.chain(stored) {
                if other != range && overlap(&interval, &other_interval) {
                    return Err(EngineError::Overlap { range, other });
                }
            }
            Ok(Range::new(range, interval.clone(), meta.as_ref(), view))
        });
        let opened = self.inner.watched(opened)?;
        if opened.interval != interval {
            return Err(EngineError::IntervalDiffers { range });
        }
        Ok(RangeTable {
            range: opened,
            engine: self.inner.clone(),
        })
    }

    /// Forgets a range. It is gone when this returns, also after a crash; its
    /// space comes back in the background. Reads of old handles get
    /// [`EngineError::Dropped`], what is applied to them goes nowhere.
    ///
    /// # Errors
    /// Corrupt or damaged data, a failing disk.
    pub fn drop_range(&self, range: u64) -> Result<(), EngineError> {
        self.inner.common.check()?;
        let file = self.inner.file_of(range);
        if let Some(range) = self.inner.watched(collect::mark_dropped(file, range))? {
            self.inner.common.free(range.replace(None, file.view()));
        }
        file.bell.ring();
        Ok(())
    }

    /// Flushes all that is frozen, stops the workers and closes the files.
    /// What was applied and not frozen is left to the log. The folder is free
    /// then; reads get [`EngineError::Closed`].
    ///
    /// # Errors
    /// What stopped the engine before, or a failing disk.
    pub async fn close(&self) -> Result<(), EngineError> {
        self.inner.stop(Stop::WhenFlushed);
        let workers = self.inner.workers.lock().clone();
        for worker in workers {
            worker.ended().await;
        }
        self.inner.common.check()?;
        self.inner.common.closed.store(true, Ordering::Relaxed);
        self.inner.files.iter().try_for_each(|file| file.close())
    }

    /// Counts since the engine was opened.
    pub fn stats(&self) -> EngineStats {
        let Inner { common, files, .. } = self.inner.as_ref();
        let counts = || files.iter().map(|file| &file.counts);
        EngineStats {
            memory_bytes: common.memory_bytes(),
            flushes: common.flushes.load(Ordering::Relaxed),
            flushed_rows: common.flushed_rows.load(Ordering::Relaxed),
            written_bytes: counts()
                .map(|counts| counts.bytes_written.load(Ordering::Relaxed))
                .sum(),
            syncs: counts()
                .map(|counts| counts.syncs.load(Ordering::Relaxed))
                .sum(),
            ranges: files.iter().map(|file| file.ranges().len()).sum(),
        }
    }

    /// Superseded versions that the files hold as of their last flushes. Walks the tables: for
    /// tests and inspection, not for metrics.
    ///
    /// # Errors
    /// A failing or damaged disk.
    pub fn stored_history(&self) -> Result<StoredHistory, EngineError> {
        let mut stored = StoredHistory::default();
        for file in &self.inner.files {
            let view = file.view();
            stored.blocks += view.history.len()?;
            stored.bytes += view.history.stats()?.stored_bytes();
        }
        Ok(stored)
    }

    /// Memory that applied and not yet flushed data takes, in bytes.
    pub fn backlog_bytes(&self) -> usize {
        self.inner.common.memory_bytes()
    }

    /// What stopped the engine from writing, if anything did. The node should
    /// stop; until then, what is in memory can be read.
    pub fn failed(&self) -> Option<Arc<EngineError>> {
        self.inner.common.failed()
    }

    /// Tells when [`Engine::failed`] changes.
    pub fn on_failure(&self) -> watch::Receiver<Option<Arc<EngineError>>> {
        self.inner.common.on_failure()
    }
}

/// Whether two intervals share a key.
fn overlap(one: &(Bytes, Bytes), other: &(Bytes, Bytes)) -> bool {
    let ends_behind = |end: &Bytes, start: &Bytes| end.is_empty() || end > start;
    ends_behind(&one.1, &other.0) && ends_behind(&other.1, &one.0)
}
