//! One range's state: tables in memory, frozen ones, the view of its file.
//!
//! A frozen table stays readable until the view that contains it is installed,
//! in one step under the range's lock: no reader finds a write in neither, or a
//! state that never was. What is done with the state is in `table`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::watch;

use super::Position;
use super::memory::MemTable;
use super::record::RangeMeta;
use super::view::FileView;

/// Metadata staged by a freeze: None removes the key.
pub(super) type StagedMeta = BTreeMap<Bytes, Option<Bytes>>;

/// A range, as the engine's parts share it.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) id: u64,
    pub(super) interval: (Bytes, Bytes),
    pub(super) state: RwLock<State>,
    pub(super) durable: watch::Sender<Option<Position>>,
    /// Whether its writer should freeze.
    pub(super) due: watch::Sender<bool>,
    /// Tick at which the oldest unfrozen write came; 0: there is none.
    pub(super) touched: AtomicU64,
    /// Bytes in memory that are not frozen yet.
    pub(super) unfrozen_bytes: AtomicUsize,
    /// Runs of history up to this one have been removed.
    pub(super) collected: AtomicU64,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) active: MemTable,
    /// Immutable tables, oldest first.
    pub(super) layers: Vec<Layer>,
    pub(super) next_layer: u64,
    pub(super) seals: VecDeque<Seal>,
    pub(super) view: Arc<FileView>,
    pub(super) applied: Option<Position>,
    pub(super) last_revision: u64,
    pub(super) floor: u64,
    pub(super) keeps_history: bool,
    /// The range is no longer the engine's; writes go nowhere.
    pub(super) dropped: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Layer {
    number: u64,
    pub(super) table: Arc<MemTable>,
}

/// A freeze: all layers below `before` may be flushed, with this metadata.
#[derive(Clone, Debug)]
pub(super) struct Seal {
    pub(super) before: u64,
    pub(super) meta: RangeMeta,
    pub(super) staged: StagedMeta,
}

/// What the flusher takes: layers and the metadata of the newest freeze.
#[derive(Debug)]
pub(super) struct FlushJob {
    pub(super) range: Arc<Range>,
    /// Oldest first.
    pub(super) tables: Vec<Arc<MemTable>>,
    pub(super) meta: RangeMeta,
    pub(super) staged: StagedMeta,
    before: u64,
    seals: usize,
}

impl FlushJob {
    /// Tells those who wait that the flush is done.
    pub(super) fn announce(&self) {
        self.range.durable.send_replace(self.meta.position);
    }
}

impl State {
    /// Versions that ended at or below this cannot be read.
    pub(super) fn effective_floor(&self) -> u64 {
        if self.keeps_history {
            self.floor
        } else {
            self.floor.max(self.last_revision)
        }
    }

    /// Makes the active table immutable.
    pub(super) fn set_active_aside(&mut self) {
        if self.active.is_empty() {
            return;
        }
        let table = Arc::new(std::mem::take(&mut self.active));
        self.layers.push(Layer {
            number: self.next_layer,
            table,
        });
        self.next_layer += 1;
    }

    pub(super) fn tables_newest_first(&self) -> Vec<Arc<MemTable>> {
        self.layers
            .iter()
            .rev()
            .map(|layer| layer.table.clone())
            .collect()
    }

    fn memory_bytes(&self) -> usize {
        let layers = self.layers.iter().map(|layer| layer.table.bytes());
        self.active.bytes() + layers.sum::<usize>()
    }

    pub(super) fn range_meta(&self, interval: &(Bytes, Bytes)) -> RangeMeta {
        RangeMeta {
            position: self.applied,
            interval: interval.clone(),
            last_revision: self.last_revision,
            floor: self.effective_floor(),
            keeps_history: self.keeps_history,
        }
    }

    /// Forgets what is in memory and takes over what the file says. Returns
    /// the bytes of memory that are free now.
    fn restart_from(&mut self, meta: Option<&RangeMeta>, view: Arc<FileView>) -> usize {
        let freed = self.memory_bytes();
        self.active = MemTable::default();
        self.layers.clear();
        self.seals.clear();
        self.view = view;
        self.applied = meta.and_then(|meta| meta.position);
        self.last_revision = meta.map_or(0, |meta| meta.last_revision);
        self.floor = meta.map_or(0, |meta| meta.floor);
        self.keeps_history = meta.is_none_or(|meta| meta.keeps_history);
        freed
    }
}

impl Range {
    pub(super) fn new(
        id: u64,
        interval: (Bytes, Bytes),
        meta: Option<&RangeMeta>,
        view: Arc<FileView>,
    ) -> Self {
        let mut state = State {
            active: MemTable::default(),
            layers: Vec::new(),
            next_layer: 0,
            seals: VecDeque::new(),
            view: view.clone(),
            applied: None,
            last_revision: 0,
            floor: 0,
            keeps_history: true,
            dropped: false,
        };
        state.restart_from(meta, view);
        Self {
            id,
            interval,
            durable: watch::Sender::new(state.applied),
            state: RwLock::new(state),
            due: watch::Sender::new(false),
            touched: AtomicU64::new(0),
            unfrozen_bytes: AtomicUsize::new(0),
            collected: AtomicU64::new(0),
        }
    }

    /// Whether `key` belongs to the range. The file holds other ranges too.
    pub(super) fn contains(&self, key: &[u8]) -> bool {
        let (start, end) = &self.interval;
        key >= start.as_ref() && (end.is_empty() || key < end.as_ref())
    }

    /// Asks the writer to freeze.
    pub(super) fn set_due(&self) {
        self.due
            .send_if_modified(|due| !std::mem::replace(due, true));
    }

    pub(super) fn is_due(&self) -> bool {
        *self.due.borrow()
    }

    /// What is frozen, if anything is.
    pub(super) fn flush_job(self: &Arc<Self>) -> Option<FlushJob> {
        let state = self.state.read();
        let newest = state.seals.back()?;
        let mut staged = StagedMeta::new();
        for seal in &state.seals {
            staged.extend(seal.staged.clone());
        }
        let tables = state
            .layers
            .iter()
            .filter(|layer| layer.number < newest.before);
        Some(FlushJob {
            range: self.clone(),
            tables: tables.map(|layer| layer.table.clone()).collect(),
            meta: newest.meta.clone(),
            staged,
            before: newest.before,
            seals: state.seals.len(),
        })
    }

    /// Switches to the view of a new commit, and drops from memory what `job`
    /// brought into it. Returns the bytes of memory that are free now.
    pub(super) fn install(&self, view: Arc<FileView>, job: Option<&FlushJob>) -> usize {
        let mut state = self.state.write();
        let old_view = std::mem::replace(&mut state.view, view);
        let before = state.memory_bytes();
        if let Some(job) = job {
            state.layers.retain(|layer| layer.number >= job.before);
            state.seals.drain(..job.seals);
        }
        let freed = before - state.memory_bytes();
        drop(state);
        // Behind the lock: its last holder frees pages in redb.
        drop(old_view);
        freed
    }

    /// Takes over a state that replaced the file's (None: nothing is left).
    /// Returns the bytes of memory that are free now.
    pub(super) fn replace(&self, meta: Option<&RangeMeta>, view: Arc<FileView>) -> usize {
        let freed = {
            let mut state = self.state.write();
            state.dropped = meta.is_none();
            state.restart_from(meta, view)
        };
        self.untouch();
        self.collected.store(0, Ordering::Relaxed);
        self.durable
            .send_replace(meta.and_then(|meta| meta.position));
        freed
    }

    pub(super) fn untouch(&self) {
        self.touched.store(0, Ordering::Relaxed);
        self.unfrozen_bytes.store(0, Ordering::Relaxed);
        self.due
            .send_if_modified(|due| std::mem::replace(due, false));
    }
}
