//! What an owner decides about a log: its limits and whose it is.

use std::time::Duration;

use super::format::{BATCH_HEADER_BYTES, RECORD_HEADER_BYTES, SECTOR_BYTES, SEGMENT_HEADER_BYTES};

/// Whose log it is; stands in every segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// The cluster's id.
    pub cluster: [u8; 16],
    /// The node's id.
    pub node: u64,
}

/// Limits of a log. May differ from start to start.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Size of a segment's file. Small ones are soon free again: until then each byte of log costs
    /// another one of zeros.
    pub segment_bytes: u64,
    /// Size up to which a segment is made larger for one entry that needs it.
    pub large_segment_bytes: u64,
    /// Size of the first segment of a new log: small, since a start waits for
    /// its zeros.
    pub first_segment_bytes: u64,
    /// A batch takes no further request once it would pass this size.
    pub batch_bytes_max: u64,
    /// The youngest entries, over all groups, that stay in memory.
    pub cache_bytes_max: u64,
    /// Queued bytes past which [`NodeLog::ready`](super::NodeLog::ready)
    /// waits.
    pub queue_bytes_max: u64,
    /// Zeros written to a future segment in one step, between two commits.
    pub fill_step_bytes: u64,
    /// Live records that are moved out of an old segment in one batch.
    pub move_bytes_max: u64,
    /// Past so many segments, what is still alive in the oldest one is moved,
    /// provided that half of the log is dead.
    pub segments_kept_target: usize,
    /// Free segments that are kept for re-use.
    pub spare_segments_max: usize,
    /// How long what needs no sync of its own waits for company.
    pub lazy_delay: Duration,
    /// For a negative control of tests: requests are acknowledged this long before they are
    /// written. Never set elsewhere.
    #[doc(hidden)]
    pub acknowledged_early: Duration,
}

const MIB: u64 = 1 << 20;

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 8 * MIB,
            large_segment_bytes: 32 * MIB,
            first_segment_bytes: 4 * MIB,
            batch_bytes_max: 4 * MIB,
            cache_bytes_max: 64 * MIB,
            queue_bytes_max: 64 * MIB,
            fill_step_bytes: MIB / 2,
            move_bytes_max: MIB / 4,
            segments_kept_target: 4,
            spare_segments_max: 8,
            lazy_delay: Duration::from_millis(500),
            acknowledged_early: Duration::ZERO,
        }
    }
}

impl LogOptions {
    /// Options with small segments, for tests.
    pub fn small(segment_bytes: u64) -> Self {
        Self {
            segment_bytes,
            large_segment_bytes: segment_bytes,
            first_segment_bytes: segment_bytes / 2,
            batch_bytes_max: segment_bytes / 4,
            fill_step_bytes: segment_bytes / 8,
            move_bytes_max: segment_bytes / 16,
            ..Self::default()
        }
    }

    /// The largest payload of an entry, in bytes: a segment must hold it.
    pub fn entry_bytes_max(&self) -> u64 {
        let around = SEGMENT_HEADER_BYTES
            + (BATCH_HEADER_BYTES + RECORD_HEADER_BYTES) as u64
            // The padding of its batch, and the seal.
            + 2 * SECTOR_BYTES;
        self.large_segment_bytes
            .saturating_sub(around)
            .min(u64::from(u32::MAX / 4))
    }

    /// The same options with everything in its bounds.
    pub(super) fn bounded(mut self) -> Self {
        /// Offsets are 32 bits wide, and a segment must hold some batches.
        const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 16 << 10..=1 << 30;
        let round = |bytes: u64| {
            bytes.clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end()) / SECTOR_BYTES * SECTOR_BYTES
        };
        self.segment_bytes = round(self.segment_bytes);
        self.large_segment_bytes = round(self.large_segment_bytes).max(self.segment_bytes);
        self.first_segment_bytes = round(self.first_segment_bytes).min(self.segment_bytes);
        self.batch_bytes_max = self.batch_bytes_max.clamp(1, self.segment_bytes / 2);
        self.fill_step_bytes = self.fill_step_bytes.max(SECTOR_BYTES);
        self.move_bytes_max = self.move_bytes_max.clamp(1, self.segment_bytes / 4);
        self.segments_kept_target = self.segments_kept_target.max(2);
        self
    }
}
