//! Notices that unflushed data has become old, or memory scarce.
//!
//! Ages are counted in ticks of half a flush interval; nothing here reads a
//! clock. While nothing is unflushed nothing ticks.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::file::EngineFile;
use super::range::Range;
use super::store::{Common, Stop};
use crate::disk::{Next, Worker};

/// Data touched during one tick is old at the third one after it: after one
/// flush interval at least, one and a half at most.
const TICKS_UNTIL_DUE: u64 = 3;

/// Asks ranges to freeze.
pub(super) struct Ticker {
    pub(super) files: Vec<Arc<EngineFile>>,
    pub(super) common: Arc<Common>,
}

impl Worker for Ticker {
    fn step(&mut self) -> Next {
        if self.common.stop() != Stop::Not {
            return Next::Stop;
        }
        let now = self.common.tick.fetch_add(1, Ordering::Relaxed) + 1;
        let ranges: Vec<_> = self.files.iter().flat_map(|file| file.ranges()).collect();
        if self.common.is_scarce() {
            relieve(&ranges);
        }
        for range in &ranges {
            let touched = range.touched.load(Ordering::Relaxed);
            if touched != 0 && now.saturating_sub(touched) >= TICKS_UNTIL_DUE {
                range.set_due();
            }
        }
        if waits(&ranges) {
            return Next::WaitAtMost(self.common.options.flush_interval / 2);
        }
        // From here on the next write rings again; one that came just before
        // is seen by the second look.
        self.common.ticking.store(false, Ordering::SeqCst);
        if waits(&ranges) && !self.common.ticking.swap(true, Ordering::SeqCst) {
            return Next::WaitAtMost(self.common.options.flush_interval / 2);
        }
        Next::Wait
    }
}

/// Asks the ranges that hold most.
fn relieve(ranges: &[Arc<Range>]) {
    let bytes = |range: &Arc<Range>| range.unfrozen_bytes.load(Ordering::Relaxed);
    let mean = ranges.iter().map(bytes).sum::<usize>() / ranges.len().max(1);
    for range in ranges {
        if bytes(range) > 0 && bytes(range) >= mean {
            range.set_due();
        }
    }
}

/// Whether any range has data that will become due.
fn waits(ranges: &[Arc<Range>]) -> bool {
    let mut ranges = ranges.iter();
    ranges.any(|range| range.touched.load(Ordering::SeqCst) != 0 && !range.is_due())
}
