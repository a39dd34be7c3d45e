//! One run of one store: every cell, then the memory that many keys take.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use quorate::bench::{LoadOptions, Report, Workload};
use tokio::time::sleep;

use crate::cell::{Cell, Way, Work};
use crate::error::CompareError;
use crate::process::{Usage, resident_bytes};
use crate::range_memory::{Reading, measure_range};
use crate::store::{Counter, Store};

/// Size of the values that are put and read.
const VALUE_BYTES: usize = 256;
/// Size of the values whose memory is measured.
const MEMORY_VALUE_BYTES: usize = 100;
/// Different keys of the loads.
const KEYS: u64 = 10_000;
/// The load runs so long before it counts.
const WARMUP: Duration = Duration::from_secs(1);
/// After so long, what writes in the background has written.
const SETTLE: Duration = Duration::from_secs(8);

/// How long and how much.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// What is measured of each cell.
    pub duration: Duration,
    /// How long each cell runs before the first is measured: compilers that work while their
    /// program runs need it. Zero: not at all.
    pub heating: Duration,
    /// Keys in the store when memory is read.
    pub memory_keys: u64,
    /// Whether the cost of a read of all those keys by etcd's API is measured too.
    pub reads_all: bool,
}

/// What one cell showed.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Counts and latencies of the load.
    pub report: Report,
    /// Bytes to disk a request, over all nodes; only where the store had time to settle.
    pub bytes_per_request: Option<f64>,
    /// Processor time a request, over all nodes.
    pub cpu_per_request: Duration,
}

/// What one run of one store showed.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// By cell.
    pub samples: BTreeMap<Cell, Sample>,
    /// Of the node with the most, when the keys were stored; none: not measured.
    pub resident_bytes: Option<u64>,
    /// By how much a read of all keys let the memory of a node grow, by the way of reading.
    pub range_bytes: BTreeMap<Reading, u64>,
}

impl Run {
    /// Takes in what another cluster of the same store showed: other cells; of memory the less.
    pub fn add(&mut self, other: Self) {
        self.samples.extend(other.samples);
        self.range_bytes.extend(other.range_bytes);
        self.resident_bytes = match (self.resident_bytes, other.resident_bytes) {
            (Some(own), Some(other)) => Some(own.min(other)),
            (own, other) => own.or(other),
        };
    }
}

/// Measures all cells on a running cluster, and stops it.
///
/// # Errors
///
/// A load that fails altogether, a node that ends.
pub async fn measure_cells<S: Store>(
    store: S,
    cells: &[Cell],
    extent: Extent,
) -> Result<BTreeMap<Cell, Sample>, CompareError> {
    let failed = |cell: String| move |source| CompareError::Load { cell, source };
    let filling = options(Cell::unary(Work::Put, 1), extent);
    let filled = store.fill(&filling).await;
    filled.map_err(failed(format!("{}: the keys", S::NAME)))?;
    if !extent.heating.is_zero() {
        for &cell in cells {
            let heating = LoadOptions {
                duration: extent.heating,
                ..options(cell, extent)
            };
            let heated = store.load(cell, heating, Counter::default()).await;
            heated.map_err(failed(format!("{}: {cell}", S::NAME)))?;
        }
    }
    let mut samples = BTreeMap::new();
    for &cell in cells {
        let before = read_usage(&store)?;
        let counter = Counter::default();
        let load = store.load(cell, options(cell, extent), counter.clone());
        let report = load.await.map_err(failed(format!("{}: {cell}", S::NAME)))?;
        let cpu = read_usage(&store)?.since(before).cpu;
        let requests = counter.count().max(1) as f64;
        let bytes_per_request = match writes_are_counted(cell) {
            true => {
                sleep(SETTLE).await;
                let used = read_usage(&store)?.since(before);
                Some(used.write_bytes as f64 / requests)
            }
            false => None,
        };
        let sample = Sample {
            report,
            bytes_per_request,
            cpu_per_request: cpu.div_f64(requests),
        };
        crate::table::progress(S::NAME, cell, &sample);
        samples.insert(cell, sample);
    }
    store.stop().await?;
    Ok(samples)
}

/// Stores many keys on a running cluster, reads its memory, and stops it. By etcd's API: also what
/// a read of all of them costs.
///
/// # Errors
///
/// A put that fails, a node that ends.
pub async fn measure_memory<S: Store>(store: S, extent: Extent) -> Result<Run, CompareError> {
    let mut options = options(Cell::unary(Work::Put, 1), extent);
    options.keys = extent.memory_keys;
    options.value_bytes = MEMORY_VALUE_BYTES;
    store.fill(&options).await.map_err(|source| {
        let cell = format!("{}: the keys whose memory is measured", S::NAME);
        CompareError::Load { cell, source }
    })?;
    sleep(SETTLE).await;
    let mut most = 0;
    for pid in store.pids() {
        let bytes = resident_bytes(*pid).map_err(CompareError::io("read a node's memory"))?;
        most = most.max(bytes);
    }
    let range_bytes = match extent.reads_all {
        true => measure_range(&store, extent.memory_keys).await?,
        false => BTreeMap::new(),
    };
    store.stop().await?;
    Ok(Run {
        resident_bytes: Some(most),
        range_bytes,
        ..Run::default()
    })
}

/// An empty folder below `parent`.
///
/// # Errors
///
/// It cannot be made.
pub fn fresh_folder(parent: &Path, name: &str) -> Result<std::path::PathBuf, CompareError> {
    let folder = parent.join(name);
    std::fs::create_dir(&folder).map_err(CompareError::io("make a folder for a store"))?;
    Ok(folder)
}

fn read_usage<S: Store>(store: &S) -> Result<Usage, CompareError> {
    Usage::read(store.pids()).map_err(CompareError::io("read a node's counters"))
}

/// The two loads whose bytes the table shows; waiting for all would double the time.
fn writes_are_counted(cell: Cell) -> bool {
    cell.work == Work::Put
        && cell.ranges == 1
        && match cell.way {
            Way::Unary => matches!(cell.in_flight, 64 | 256),
            Way::Streams => cell.in_flight == 256,
        }
}

fn options(cell: Cell, extent: Extent) -> LoadOptions {
    let (clients, depth) = cell.clients_and_depth();
    LoadOptions {
        workload: match cell.work.is_put() {
            true => Workload::Put,
            false => Workload::Get,
        },
        clients,
        depth,
        value_bytes: VALUE_BYTES,
        keys: KEYS,
        scan_rows: 1,
        duration: extent.duration,
        warmup: WARMUP,
        rate: None,
        seed: 1,
    }
}
