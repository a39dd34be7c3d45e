//! A group's log: what is in it, as its readers and writers see it.
//!
//! Memory comes first: a request changes it at once, and then queues for the
//! disk. Entries know where they are on disk as soon as they are synced, and
//! may lose their copy in memory from then on.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use super::format::RECORD_HEADER_BYTES;
use super::node::NodeLog;
use super::queue::{Action, Item};
use super::record::{Record, decode};
use super::usage::Released;
use super::{Done, LogEntry, LogError, LogId, Vote};

/// An entry's place in its group.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) term: u64,
    /// Tells this entry from others that had, or will have, its index.
    pub(super) ticket: u64,
    /// Segment in which it is synced; 0 before.
    pub(super) segment: u64,
    pub(super) offset: u32,
    pub(super) payload_bytes: u32,
    pub(super) payload: Option<Bytes>,
}

impl Slot {
    /// Size of its record.
    pub(super) fn record_bytes(&self) -> u64 {
        RECORD_HEADER_BYTES as u64 + u64::from(self.payload_bytes)
    }

    fn is_at(&self, other: &Self) -> bool {
        (self.ticket, self.segment, self.offset) == (other.ticket, other.segment, other.offset)
    }
}

/// A group as the log knows it.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: u64,
    state: Mutex<GroupState>,
}

impl Group {
    pub(super) fn new(id: u64, state: GroupState) -> Self {
        Self {
            id,
            state: Mutex::new(state),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, GroupState> {
        self.state.lock()
    }
}

/// What is in a group's log.
#[derive(Debug, Default)]
pub(super) struct GroupState {
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
    /// Index of the first slot; without meaning where there is none.
    pub(super) first: u64,
    pub(super) slots: VecDeque<Slot>,
    pub(super) last_ticket: u64,
}

impl GroupState {
    pub(super) fn is_empty(&self) -> bool {
        self.vote.is_none()
            && self.committed.is_none()
            && self.purged.is_none()
            && self.slots.is_empty()
    }

    pub(super) fn last(&self) -> Option<LogId> {
        match self.slots.back() {
            Some(slot) => Some(LogId {
                term: slot.term,
                index: self.first + self.slots.len() as u64 - 1,
            }),
            None => self.purged,
        }
    }

    pub(super) fn slot(&self, index: u64) -> Option<&Slot> {
        let at = index.checked_sub(self.first)?;
        self.slots.get(usize::try_from(at).ok()?)
    }

    pub(super) fn slot_mut(&mut self, index: u64) -> Option<&mut Slot> {
        let at = index.checked_sub(self.first)?;
        self.slots.get_mut(usize::try_from(at).ok()?)
    }

    /// Fails unless `entries` follow each other and the last one.
    fn check_consecutive(&self, group: u64, entries: &[LogEntry]) -> Result<(), LogError> {
        let mut last = self.last().map(|last| last.index);
        for entry in entries {
            if last.is_some_and(|last| entry.index != last + 1) {
                return Err(LogError::NotConsecutive {
                    group,
                    index: entry.index,
                    last,
                });
            }
            last = Some(entry.index);
        }
        Ok(())
    }

    /// Adds an entry that follows; gives its ticket.
    fn push(&mut self, entry: &LogEntry) -> u64 {
        if self.slots.is_empty() {
            self.first = entry.index;
        }
        self.last_ticket += 1;
        self.slots.push_back(Slot {
            term: entry.term,
            ticket: self.last_ticket,
            segment: 0,
            offset: 0,
            payload_bytes: entry.payload.len() as u32,
            payload: Some(entry.payload.clone()),
        });
        self.last_ticket
    }

    fn truncate_after(&mut self, keep: Option<u64>) -> Released {
        let kept = match keep {
            Some(index) => index.saturating_add(1).saturating_sub(self.first),
            None => 0,
        };
        let kept = usize::try_from(kept)
            .unwrap_or(usize::MAX)
            .min(self.slots.len());
        release(self.slots.drain(kept..))
    }

    fn purge(&mut self, id: LogId) -> Released {
        self.purged = Some(id);
        let gone = id.index.saturating_add(1).saturating_sub(self.first);
        let gone = usize::try_from(gone)
            .unwrap_or(usize::MAX)
            .min(self.slots.len());
        self.first += gone as u64;
        release(self.slots.drain(..gone))
    }

    fn clear(&mut self) -> Released {
        let released = release(self.slots.drain(..));
        (self.vote, self.committed, self.purged) = (None, None, None);
        released
    }
}

/// Those that are not synced yet are the commit worker's to release.
fn release(slots: impl Iterator<Item = Slot>) -> Released {
    let mut released = Released::default();
    for slot in slots.filter(|slot| slot.segment != 0) {
        released.add(slot.segment, slot.record_bytes());
    }
    released
}

/// One group's log. Cloning gives another handle of the same.
#[derive(Clone, Debug)]
pub struct GroupLog {
    node: NodeLog,
    group: Arc<Group>,
}

impl GroupLog {
    pub(super) fn new(node: NodeLog, group: Arc<Group>) -> Self {
        Self { node, group }
    }

    /// The group's id.
    pub fn id(&self) -> u64 {
        self.group.id
    }

    /// The node's log, of which this is a part.
    pub fn node(&self) -> &NodeLog {
        &self.node
    }

    /// The last vote that was given to [`GroupLog::save_vote`].
    pub fn vote(&self) -> Option<Vote> {
        self.group.lock().vote
    }

    /// The last position that was given to [`GroupLog::save_committed`];
    /// after a restart possibly an earlier one.
    pub fn committed(&self) -> Option<LogId> {
        self.group.lock().committed
    }

    /// The last purged entry.
    pub fn purged(&self) -> Option<LogId> {
        self.group.lock().purged
    }

    /// The last entry; the last purged one if no other is left.
    pub fn last(&self) -> Option<LogId> {
        self.group.lock().last()
    }

    /// The id of an entry that is there, or of the last purged one.
    pub fn log_id(&self, index: u64) -> Option<LogId> {
        let state = self.group.lock();
        match state.slot(index) {
            Some(slot) => Some(LogId {
                term: slot.term,
                index,
            }),
            None => state.purged.filter(|purged| purged.index == index),
        }
    }

    /// Index of the first entry that can be read.
    pub fn first_index(&self) -> Option<u64> {
        let state = self.group.lock();
        (!state.slots.is_empty()).then_some(state.first)
    }

    /// Adds entries that follow the last one (any index starts an empty
    /// group). They can be read when this returns.
    pub fn append(&self, entries: Vec<LogEntry>, done: Done) {
        let bytes_max = self.node.options().entry_bytes_max();
        let large = entries.iter().map(|entry| entry.payload.len() as u64).max();
        if let Some(bytes) = large.filter(|bytes| *bytes > bytes_max) {
            return done(Err(Arc::new(LogError::EntryTooLarge { bytes, bytes_max })));
        }
        if let Some(failure) = self.node.failed() {
            return done(Err(failure));
        }
        let mut state = self.group.lock();
        if let Err(error) = state.check_consecutive(self.group.id, &entries) {
            drop(state);
            return done(Err(Arc::new(error)));
        }
        let mut done = Some(done);
        let mut parts = split(entries, self.node.options().batch_bytes_max).peekable();
        let mut refused = None;
        while let Some(entries) = parts.next() {
            let tickets = entries.iter().map(|entry| state.push(entry)).min();
            let action = match tickets {
                Some(first_ticket) => Action::Append {
                    entries,
                    first_ticket,
                },
                None => Action::Barrier,
            };
            let done = if parts.peek().is_none() {
                done.take()
            } else {
                None
            };
            refused = self.push(action, done);
        }
        drop(state);
        refuse(refused);
    }

    /// Replaces the vote.
    pub fn save_vote(&self, vote: Vote, done: Done) {
        let mut state = self.group.lock();
        state.vote = Some(vote);
        let refused = self.push(Action::Vote(vote), Some(done));
        drop(state);
        refuse(refused);
    }

    /// Replaces the committed position. Nobody waits for it: it goes to disk
    /// with the next batch, or after [`LogOptions::lazy_delay`], and a crash
    /// may bring an older one back.
    ///
    /// [`LogOptions::lazy_delay`]: super::LogOptions::lazy_delay
    pub fn save_committed(&self, committed: Option<LogId>) {
        let mut state = self.group.lock();
        state.committed = committed;
        self.node.queue().put_committed(&self.group, committed);
    }

    /// Removes the entries after `index`, or all.
    pub fn truncate_after(&self, index: Option<u64>, done: Done) {
        let mut state = self.group.lock();
        let released = state.truncate_after(index);
        let refused = self.push(
            Action::Truncate {
                keep: index,
                released,
            },
            Some(done),
        );
        drop(state);
        refuse(refused);
    }

    /// Removes the entries up to `id`, whether they were ever here or not.
    /// Without effect if they are purged already.
    pub fn purge(&self, id: LogId, done: Done) {
        let mut state = self.group.lock();
        let action = match state.purged {
            Some(purged) if purged.index >= id.index => Action::Barrier,
            _ => Action::Purge {
                id,
                released: state.purge(id),
            },
        };
        let refused = self.push(action, Some(done));
        drop(state);
        refuse(refused);
    }

    /// Removes everything of the group.
    pub(super) fn remove(&self, done: Done) {
        let mut state = self.group.lock();
        let released = state.clear();
        let refused = self.push(Action::Remove { released }, Some(done));
        drop(state);
        refuse(refused);
    }

    /// Queues a request. Under the group's lock, so that the queue's order is
    /// that of the changes in memory; a refused request is told to its owner
    /// only after the lock is gone, since it may come back to the group.
    fn push(&self, action: Action, done: Option<Done>) -> Option<(Item, Arc<LogError>)> {
        let item = Item {
            group: Arc::clone(&self.group),
            action,
            done,
        };
        self.node.queue().push(item).err()
    }

    /// Entries of these indexes, from the first on, as long as their payloads
    /// together stay within `bytes_max`; at least one, if it is there. Ends
    /// early at the last entry. Fails if the first one is purged or, on disk,
    /// is not what was written.
    pub fn read(&self, indexes: Range<u64>, bytes_max: u64) -> Result<Vec<LogEntry>, LogError> {
        loop {
            let slots = self.slots(indexes.clone(), bytes_max)?;
            match self.load(indexes.start, &slots) {
                Ok(entries) => return Ok(entries),
                // Meanwhile entries may have been moved, or removed and their
                // segment re-used: then it was no error.
                Err(_) if self.have_moved(indexes.start, &slots) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn slots(&self, indexes: Range<u64>, bytes_max: u64) -> Result<Vec<Slot>, LogError> {
        let state = self.group.lock();
        if state
            .purged
            .is_some_and(|purged| indexes.start <= purged.index)
        {
            return Err(LogError::Purged {
                group: self.group.id,
                index: indexes.start,
            });
        }
        let mut slots: Vec<Slot> = Vec::new();
        let mut bytes = 0;
        for slot in indexes.map_while(|index| state.slot(index)) {
            bytes += u64::from(slot.payload_bytes);
            if bytes > bytes_max && !slots.is_empty() {
                break;
            }
            slots.push(slot.clone());
        }
        Ok(slots)
    }

    fn have_moved(&self, first: u64, slots: &[Slot]) -> bool {
        let state = self.group.lock();
        let same = |(index, slot): (u64, &Slot)| {
            state.slot(index).is_some_and(|current| current.is_at(slot))
        };
        !(first..).zip(slots).all(same)
    }

    fn load(&self, first: u64, slots: &[Slot]) -> Result<Vec<LogEntry>, LogError> {
        let mut entries = Vec::with_capacity(slots.len());
        while entries.len() < slots.len() {
            let index = first + entries.len() as u64;
            let rest = &slots[entries.len()..];
            match &rest[0].payload {
                Some(payload) => {
                    entries.push(LogEntry {
                        term: rest[0].term,
                        index,
                        payload: payload.clone(),
                    });
                }
                None => self.load_run(index, &rest[..run_length(rest)], &mut entries)?,
            }
        }
        Ok(entries)
    }

    /// Loads entries that lie close together by one read.
    fn load_run(
        &self,
        first: u64,
        slots: &[Slot],
        entries: &mut Vec<LogEntry>,
    ) -> Result<(), LogError> {
        let (segment, start) = (slots[0].segment, slots[0].offset);
        let end = slots
            .iter()
            .map(|slot| u64::from(slot.offset) + slot.record_bytes())
            .max();
        let len = end.unwrap_or_default() - u64::from(start);
        let bytes = Bytes::from(self.node.read_segment(segment, u64::from(start), len)?);
        for (index, slot) in (first..).zip(slots) {
            let damaged = |detail| LogError::Damaged {
                segment,
                offset: u64::from(slot.offset),
                detail,
            };
            let found = decode(&bytes[(slot.offset - start) as usize..]).map_err(damaged)?;
            let id = LogId {
                term: slot.term,
                index,
            };
            let is_entry =
                found.record == Record::Entry(id) || found.record == Record::MovedEntry(id);
            if found.group != self.group.id || !is_entry {
                return Err(damaged("another record is where an entry was"));
            }
            entries.push(LogEntry {
                term: slot.term,
                index,
                payload: bytes.slice_ref(found.payload),
            });
        }
        Ok(())
    }
}

/// Bytes between two records for which one read is still better than two.
const GAP_BYTES_MAX: u64 = 16 << 10;
/// Bytes that one read takes.
const RUN_BYTES_MAX: u64 = 1 << 20;

/// How many of the first slots one read should load.
fn run_length(slots: &[Slot]) -> usize {
    let first = &slots[0];
    let mut end = u64::from(first.offset) + first.record_bytes();
    for (number, slot) in slots.iter().enumerate().skip(1) {
        let start = u64::from(slot.offset);
        let next_end = start + slot.record_bytes();
        let near = (end..=end + GAP_BYTES_MAX).contains(&start)
            && next_end - u64::from(first.offset) <= RUN_BYTES_MAX;
        if slot.payload.is_some() || slot.segment != first.segment || !near {
            return number;
        }
        end = next_end;
    }
    slots.len()
}

/// Splits entries, so that each part fits into a batch if it can; no entries
/// are one part.
fn split(entries: Vec<LogEntry>, bytes_max: u64) -> impl Iterator<Item = Vec<LogEntry>> {
    let mut rest = Some(entries);
    std::iter::from_fn(move || {
        let mut part = rest.take()?;
        let mut bytes = 0;
        let fitting = part.iter().take_while(|entry| {
            bytes += (RECORD_HEADER_BYTES + entry.payload.len()) as u64;
            bytes <= bytes_max
        });
        let len = fitting.count().max(1);
        if len < part.len() {
            rest = Some(part.split_off(len));
        }
        Some(part)
    })
}

fn refuse(refused: Option<(Item, Arc<LogError>)>) {
    if let Some((
        Item {
            done: Some(done), ..
        },
        failure,
    )) = refused
    {
        done(Err(failure));
    }
}
