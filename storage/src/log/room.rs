//! Gives batches their place: which segment is written, which comes next,
//! which old ones may go.

use super::format::SEGMENT_HEADER_BYTES;
use super::segment::{Filling, Folder, NEW_SPARE, Segment, Segments};
use super::usage::LiveRecords;
use super::{LogError, LogIdentity, LogOptions};

/// The segments, as the commit worker sees them.
pub(super) struct Room {
    folder: Folder,
    identity: LogIdentity,
    options: LogOptions,
    segments: Segments,
    active: Segment,
    filling: Option<Filling>,
    /// Names of files that may be filled again.
    spares: Vec<u64>,
    /// Preparing ahead failed: not tried again before it must succeed.
    ahead_failed: bool,
}

impl Room {
    /// Room in a folder whose `segments` are open; `active` is the one in
    /// which the next batch goes.
    pub(super) fn new(
        folder: Folder,
        identity: LogIdentity,
        options: LogOptions,
        segments: Segments,
        active: Segment,
        spares: Vec<u64>,
    ) -> Self {
        let (filling, ahead_failed) = (None, false);
        Self {
            folder,
            identity,
            options,
            segments,
            active,
            filling,
            spares,
            ahead_failed,
        }
    }

    /// Prepares the first segment of a new log.
    pub(super) fn begin(
        folder: &Folder,
        identity: &LogIdentity,
        options: &LogOptions,
    ) -> Result<Segment, LogError> {
        let mut filling = Filling::start(folder, NEW_SPARE, options.first_segment_bytes)?;
        filling.step(options.first_segment_bytes)?;
        filling.finish(folder, identity, 1)
    }

    /// The segment in which batches go.
    pub(super) fn active(&self) -> &Segment {
        &self.active
    }

    /// The oldest segment in which anything is alive, or the active one.
    pub(super) fn first_needed(&self, live: &LiveRecords) -> u64 {
        let segments = self.segments.read();
        let mut old = segments
            .range(..self.active.number)
            .map(|(number, _)| *number);
        old.find(|number| !live.is_free(*number))
            .unwrap_or(self.active.number)
    }

    /// How many segments there are.
    pub(super) fn count(&self) -> usize {
        self.segments.read().len()
    }

    /// Makes the next segment that has `bytes` behind its header the active
    /// one.
    pub(super) fn advance(&mut self, bytes: u64) -> Result<(), LogError> {
        loop {
            let next = self.segments.read().get(&(self.active.number + 1)).cloned();
            self.active = match next {
                Some(next) => next,
                None => self.prepare_next(bytes)?,
            };
            // One that was prepared by an earlier start may be too small.
            if SEGMENT_HEADER_BYTES + bytes <= self.active.bytes {
                return Ok(());
            }
        }
    }

    /// Prepares the next segment now, as large as it is filled already if
    /// that will do: a commit waits.
    fn prepare_next(&mut self, bytes: u64) -> Result<Segment, LogError> {
        let mut filling = match self.filling.take() {
            Some(filling) => filling,
            None => self.start_filling()?,
        };
        let least = self.options.first_segment_bytes;
        let needed = SEGMENT_HEADER_BYTES + bytes;
        let target = needed
            .max(least)
            .min(self.options.segment_bytes.max(needed));
        while filling.bytes() < target {
            filling.step(target)?;
        }
        self.finish(filling)
    }

    fn start_filling(&mut self) -> Result<Filling, LogError> {
        let spare = self.spares.pop().unwrap_or(NEW_SPARE);
        Filling::start(&self.folder, spare, self.options.fill_step_bytes)
    }

    fn finish(&mut self, filling: Filling) -> Result<Segment, LogError> {
        let segment = filling.finish(&self.folder, &self.identity, self.active.number + 1)?;
        self.segments
            .write()
            .insert(segment.number, segment.clone());
        self.ahead_failed = false;
        Ok(segment)
    }

    /// Whether the next segment should be prepared, now that the active one
    /// is used up to `offset`.
    pub(super) fn wants_preparing(&self, offset: u64) -> bool {
        /// The active segment is left alone until this part of it is used.
        const USED_DIVISOR: u64 = 4;
        !self.ahead_failed
            && offset >= self.active.bytes / USED_DIVISOR
            && !self.segments.read().contains_key(&(self.active.number + 1))
    }

    /// Does one step of preparing the next segment. A failure here concerns
    /// nothing that was promised; it counts when the segment is needed.
    pub(super) fn prepare_step(&mut self) {
        if let Err(error) = self.try_prepare_step() {
            tracing::warn!(%error, "cannot prepare the log's next segment ahead");
            self.filling = None;
            self.ahead_failed = true;
        }
    }

    fn try_prepare_step(&mut self) -> Result<(), LogError> {
        let mut filling = match self.filling.take() {
            Some(filling) => filling,
            None => self.start_filling()?,
        };
        if filling.bytes() < self.options.segment_bytes {
            filling.step(self.options.segment_bytes)?;
        }
        if filling.bytes() < self.options.segment_bytes {
            self.filling = Some(filling);
        } else {
            self.finish(filling)?;
        }
        Ok(())
    }

    /// Takes back the segments before `first_needed`, the oldest first. A
    /// synced batch must have said that they are not needed any more: so one
    /// that is needed and missing is noticed.
    pub(super) fn take_back(&mut self, first_needed: u64) -> Result<(), LogError> {
        let free: Vec<u64> = self
            .segments
            .read()
            .range(..first_needed)
            .map(|(number, _)| *number)
            .collect();
        for number in free {
            self.segments.write().remove(&number);
            let keep = self.spares.len() < self.options.spare_segments_max;
            self.folder.retire(number, keep)?;
            if keep {
                self.spares.push(number);
            }
        }
        Ok(())
    }

    /// The oldest segment, if what is alive in it should be moved: there are
    /// too many segments, and at least half of the log is dead, so that
    /// moving gains more than it costs.
    pub(super) fn wants_moving(&self, live: &LiveRecords) -> Option<u64> {
        let segments = self.segments.read();
        let old: u64 = segments
            .range(..self.active.number)
            .map(|(_, segment)| segment.bytes)
            .sum();
        let too_many = segments.len() > self.options.segments_kept_target;
        let first = *segments.keys().next()?;
        (too_many && first < self.active.number && live.bytes() <= old / 2).then_some(first)
    }
}
