//! The commit worker: takes all that is queued, writes once, syncs once, and
//! then fires every acknowledgement, in order.
//!
//! Each step of the worker is one part of that, so that a simulation can do
//! other things in between. Between commits it seals the log, prepares the
//! next segment, moves what pins an old one, and takes free ones back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::LogError;
use super::LogId;
use super::cache::Cache;
use super::format::{
    BATCH_HEADER_BYTES, BatchHeader, BatchKind, Link, SECTOR_BYTES, SEGMENT_HEADER_BYTES,
    whole_batch_bytes,
};
use super::moves::{Moves, Moving};
use super::node::{Counts, Shared};
use super::queue::{Action, Item, Taken};
use super::record::Record;
use super::room::Room;
use super::scan::End;
use super::usage::LiveRecords;
use crate::disk::{Disk, FolderLock, Next, Worker};

/// What a step does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Gather,
    Sync,
    Acknowledge,
}

/// What is in the batch that is being written.
pub(super) enum Written {
    /// A request.
    Item(Item),
    /// A group's single record that leaves an old segment.
    MovedSingle { group: u64, record: Record },
    /// An entry that leaves an old segment.
    MovedEntry(Moving),
}

/// The worker.
pub(super) struct Committer {
    shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
    room: Room,
    live: LiveRecords,
    moves: Moves,
    cache: Cache,
    phase: Phase,
    /// The last batch.
    link: Link,
    /// What the last batch said is the oldest segment that is needed.
    first_needed: u64,
    /// Where the next one goes in the active segment.
    offset: u64,
    taken: VecDeque<Item>,
    /// The batch as it goes to disk.
    buffer: Vec<u8>,
    /// What is in the batch, with its place: in the batch first, in the
    /// segment once it is written.
    written: Vec<(u32, Written)>,
    /// Whether the last batch lacks its seal on disk.
    unsealed: bool,
    /// Whether the lazy delay has passed since there was work.
    has_waited: bool,
    stopped: bool,
    /// For a negative control: since when that waits which was acknowledged early.
    early_since: Option<Duration>,
    /// Frees the folder when the worker is gone, not before.
    _lock: Box<dyn FolderLock>,
}

impl Committer {
    pub(super) fn new(
        shared: Arc<Shared>,
        disk: Arc<dyn Disk>,
        lock: Box<dyn FolderLock>,
        room: Room,
        live: LiveRecords,
    ) -> Self {
        Self {
            cache: Cache::new(shared.options.cache_bytes_max),
            shared,
            disk,
            room,
            live,
            moves: Moves::default(),
            phase: Phase::Gather,
            link: Link::default(),
            first_needed: 0,
            offset: 0,
            taken: VecDeque::new(),
            buffer: Vec::new(),
            written: Vec::new(),
            unsealed: false,
            has_waited: false,
            stopped: false,
            early_since: None,
            _lock: lock,
        }
    }

    /// Continues the log after `end`: makes sure that all that was read is
    /// durable, and writes over what a torn tail may have left.
    pub(super) fn begin(&mut self, end: &End) -> Result<(), LogError> {
        (self.link, self.offset) = (end.link, end.offset);
        // The last batch may have been read from the system's memory alone.
        self.sync()?;
        self.start_batch();
        Record::Opened {
            sequence: self.link.sequence + 1,
        }
        .encode(0, &[], &mut self.buffer);
        self.write_batch(1)?;
        self.sync()
    }

    fn try_step(&mut self) -> Result<Next, LogError> {
        match self.phase {
            Phase::Gather => self.gather(),
            Phase::Sync => {
                self.sync()?;
                self.phase = Phase::Acknowledge;
                Ok(Next::Again)
            }
            Phase::Acknowledge => {
                self.acknowledge();
                self.phase = Phase::Gather;
                self.make_room()?;
                Ok(Next::Again)
            }
        }
    }

    /// Writes the next batch if there is reason to.
    fn gather(&mut self) -> Result<Next, LogError> {
        let found = self.shared.queue.take(&mut self.taken);
        if let Some(left) = self.acknowledge_early(found.closing) {
            return Ok(Next::WaitAtMost(left));
        }
        self.has_waited &= !found.lazy_is_new;
        let lazy_is_due = found.has_lazy && (self.has_waited || found.closing);
        if !self.taken.is_empty() || !self.moves.is_empty() || lazy_is_due {
            self.has_waited = false;
            self.shared.queue.take_lazy(&mut self.taken);
            self.assemble()?;
            return Ok(Next::Again);
        }
        self.idle(&found)
    }

    /// For a negative control of tests: says of all that waits that it is synced, and how long it
    /// is to wait until it is.
    fn acknowledge_early(&mut self, closing: bool) -> Option<Duration> {
        let early = self.shared.options.acknowledged_early;
        if early.is_zero() || self.taken.is_empty() {
            return None;
        }
        for done in self.taken.iter_mut().filter_map(|item| item.done.take()) {
            done(Ok(()));
        }
        let now = self.disk.elapsed();
        let left = (*self.early_since.get_or_insert(now) + early).saturating_sub(now);
        if closing || left.is_zero() {
            self.early_since = None;
            return None;
        }
        Some(left)
    }

    /// There is nothing that anybody waits for.
    fn idle(&mut self, found: &Taken) -> Result<Next, LogError> {
        // Not at once: the next batch mostly comes soon, and proves the same.
        if self.unsealed && (found.closing || self.has_waited) {
            self.write_seal()?;
            self.sync()?;
            self.unsealed = false;
        }
        if found.closing {
            self.stopped = true;
            return Ok(Next::Stop);
        }
        if self.room.wants_preparing(self.offset) {
            self.room.prepare_step();
            return Ok(Next::Again);
        }
        if !found.has_lazy && !self.unsealed {
            return Ok(Next::Wait);
        }
        // The bell rings only for what is new: a step that finds nothing new
        // comes because the time is over.
        self.has_waited = true;
        Ok(Next::WaitAtMost(self.shared.options.lazy_delay))
    }

    /// Makes a batch of what is to be moved and of what fits, and writes it.
    fn assemble(&mut self) -> Result<(), LogError> {
        self.start_batch();
        let mut records = self.moves.encode(
            &self.live,
            &self.shared,
            &mut self.buffer,
            &mut self.written,
        )?;
        let bytes_max = self.shared.options.batch_bytes_max;
        while let Some(item) = self.taken.front() {
            if !self.written.is_empty() && self.buffer.len() as u64 + item.bytes() > bytes_max {
                break;
            }
            let item = self.taken.pop_front().expect("it was there a line before");
            let place = self.buffer.len() as u32;
            records += encode(&item, &mut self.buffer);
            self.written.push((place, Written::Item(item)));
        }
        self.phase = Phase::Acknowledge;
        // Barriers alone wait for nothing that is not synced.
        if records > 0 {
            self.write_batch(records)?;
            self.phase = Phase::Sync;
        }
        Ok(())
    }

    fn start_batch(&mut self) {
        self.written.clear();
        self.buffer.clear();
        self.buffer.resize(BATCH_HEADER_BYTES, 0);
    }

    /// Writes the records in the buffer as a batch, in the next segment if
    /// need be, and gives what was written its place.
    fn write_batch(&mut self, records: u32) -> Result<(), LogError> {
        let body_bytes = self.buffer.len() - BATCH_HEADER_BYTES;
        let bytes = whole_batch_bytes(body_bytes as u64);
        // Its seal must fit behind it.
        if self.offset + bytes + SECTOR_BYTES > self.room.active().bytes {
            self.room.advance(bytes + SECTOR_BYTES)?;
            self.offset = SEGMENT_HEADER_BYTES;
        }
        let mut header = self.header(BatchKind::Batch);
        header.records = records;
        header.body_bytes = body_bytes as u32;
        header.body_checksum = crc32fast::hash(&self.buffer[BATCH_HEADER_BYTES..]);
        header.encode(&mut self.buffer);
        self.buffer.resize(bytes as usize, 0);
        self.write_buffer()?;
        for (place, _) in &mut self.written {
            *place += self.offset as u32;
        }
        self.link = header.link(self.offset);
        self.first_needed = header.first_segment;
        self.offset += bytes;
        self.unsealed = true;
        Counts::add(&self.shared.counts.batches, 1);
        Counts::add(&self.shared.counts.records, u64::from(records));
        Ok(())
    }

    /// Writes, where the next batch will go, the proof that the last one was
    /// synced.
    fn write_seal(&mut self) -> Result<(), LogError> {
        self.start_batch();
        let mut header = self.header(BatchKind::Seal);
        header.encode(&mut self.buffer);
        self.buffer.resize(SECTOR_BYTES as usize, 0);
        self.write_buffer()
    }

    fn header(&self, kind: BatchKind) -> BatchHeader {
        let first_needed = self.room.first_needed(&self.live);
        BatchHeader::after(&self.link, kind, self.room.active().number, first_needed)
    }

    fn write_buffer(&mut self) -> Result<(), LogError> {
        let active = self.room.active();
        assert!(
            self.offset + self.buffer.len() as u64 <= active.bytes,
            "a batch must fit"
        );
        let written = active.file.write_at(&self.buffer, self.offset);
        written.map_err(LogError::disk("write to the log"))?;
        let bytes = self.buffer.len() as u64;
        Counts::add(&self.shared.counts.bytes_written, bytes);
        metrics::counter!("quorate_log_bytes_total").increment(bytes);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), LogError> {
        let before = self.disk.elapsed();
        let synced = self.room.active().file.sync_data();
        synced.map_err(LogError::disk("sync the log"))?;
        let spent = self.disk.elapsed().saturating_sub(before);
        Counts::add(&self.shared.counts.syncs, 1);
        metrics::histogram!("quorate_log_fsync_seconds").record(spent.as_secs_f64());
        Ok(())
    }

    /// The batch is synced: entries learn their places, waiters the news.
    fn acknowledge(&mut self) {
        let segment = self.link.segment;
        let mut waiters = Vec::new();
        let mut bytes = 0;
        for (place, written) in std::mem::take(&mut self.written) {
            match written {
                Written::MovedSingle { group, record } => {
                    self.live.put_single(group, record, segment);
                    Counts::add(&self.shared.counts.moved_records, 1);
                }
                Written::MovedEntry(moving) => {
                    moving.arrive(segment, place, &mut self.live);
                    Counts::add(&self.shared.counts.moved_records, 1);
                }
                Written::Item(item) => {
                    bytes += item.bytes();
                    self.settle(segment, place, &item);
                    waiters.extend(item.done);
                }
            }
        }
        self.shared.queue.release(bytes);
        for done in waiters {
            done(Ok(()));
        }
        self.cache.shrink();
    }

    /// Takes note of what a synced request has done to the log.
    fn settle(&mut self, segment: u64, place: u32, item: &Item) {
        let group = item.group.id;
        match &item.action {
            Action::Append {
                entries,
                first_ticket,
            } => {
                let mut state = item.group.lock();
                let mut offset = place;
                for (entry, ticket) in entries.iter().zip(*first_ticket..) {
                    let bytes = Item::entry_bytes(entry);
                    match state
                        .slot_mut(entry.index)
                        .filter(|slot| slot.ticket == ticket)
                    {
                        Some(slot) => {
                            (slot.segment, slot.offset) = (segment, offset);
                            self.live.add_entry(segment, bytes);
                        }
                        None => self.live.add_cancelled_entry(group, segment, bytes),
                    }
                    offset += bytes as u32;
                }
                self.cache.add(&item.group, entries);
            }
            Action::Vote(vote) => self.live.put_single(group, Record::Vote(*vote), segment),
            Action::Committed(id) => self.live.put_single(group, Record::Committed(*id), segment),
            Action::Purge { id, released } => {
                self.live.put_single(group, Record::Purge(*id), segment);
                self.live.release(group, released);
            }
            Action::Truncate { released, .. } => self.live.release(group, released),
            Action::Remove { released } => {
                self.live.release(group, released);
                self.live.remove_singles(group);
            }
            Action::Barrier => {}
        }
    }

    /// Looks after the segments between two batches.
    fn make_room(&mut self) -> Result<(), LogError> {
        self.room.take_back(self.first_needed)?;
        if self.moves.is_empty()
            && let Some(oldest) = self.room.wants_moving(&self.live)
        {
            self.moves.plan(oldest, &self.live, &self.shared);
        }
        if self.room.wants_preparing(self.offset) {
            self.room.prepare_step();
        }
        metrics::gauge!("quorate_log_segments").set(self.room.count() as f64);
        metrics::gauge!("quorate_log_queue_bytes").set(self.shared.queue.bytes() as f64);
        Ok(())
    }

    /// Ends the log's service: nothing is written any more, and everybody who
    /// waits or comes learns why.
    fn fail(&mut self, error: LogError) {
        self.stopped = true;
        let error = Arc::new(error);
        let queued = self.shared.queue.fail(Arc::clone(&error));
        self.shared.failure.send_replace(Some(Arc::clone(&error)));
        let written = std::mem::take(&mut self.written)
            .into_iter()
            .filter_map(|(_, written)| match written {
                Written::Item(item) => Some(item),
                Written::MovedSingle { .. } | Written::MovedEntry(_) => None,
            });
        let taken = std::mem::take(&mut self.taken);
        for done in written
            .chain(taken)
            .chain(queued)
            .filter_map(|item| item.done)
        {
            done(Err(Arc::clone(&error)));
        }
    }
}

impl Worker for Committer {
    fn step(&mut self) -> Next {
        if self.stopped {
            return Next::Stop;
        }
        self.try_step().unwrap_or_else(|error| {
            self.fail(error);
            Next::Stop
        })
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        // A worker that was torn from its work owes its waiters an answer.
        if !self.stopped {
            self.fail(LogError::Closed);
        }
    }
}

/// Appends a request's records to `buffer`; gives their number.
fn encode(item: &Item, buffer: &mut Vec<u8>) -> u32 {
    let group = item.group.id;
    let record = match &item.action {
        Action::Append { entries, .. } => {
            for entry in entries {
                let id = LogId {
                    term: entry.term,
                    index: entry.index,
                };
                Record::Entry(id).encode(group, &entry.payload, buffer);
            }
            return entries.len() as u32;
        }
        Action::Barrier => return 0,
        Action::Vote(vote) => Record::Vote(*vote),
        Action::Committed(id) => Record::Committed(*id),
        Action::Truncate { keep, .. } => Record::Truncate(*keep),
        Action::Purge { id, .. } => Record::Purge(*id),
        Action::Remove { .. } => Record::RemoveGroup,
    };
    record.encode(group, &[], buffer);
    1
}
