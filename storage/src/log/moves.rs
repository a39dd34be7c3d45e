//! Moves what is alive out of the oldest segment, so that no idle group can
//! keep it for ever.
//!
//! What is moved goes to the front of a batch, and only what is alive at that
//! moment: everything that may cancel it is queued, and so comes later in the
//! log.

use std::collections::VecDeque;
use std::sync::Arc;

use super::LogError;
use super::LogId;
use super::commit::Written;
use super::format::RECORD_HEADER_BYTES;
use super::group::{Group, Slot};
use super::node::{Shared, read_segment};
use super::record::{Record, decode};
use super::usage::LiveRecords;

/// An entry on its way out of an old segment.
pub(super) struct Moving {
    pub(super) group: Arc<Group>,
    pub(super) index: u64,
    ticket: u64,
    /// The segment that it leaves.
    from: u64,
}

/// What is to be moved.
#[derive(Default)]
pub(super) struct Moves {
    /// The segment that is emptied, while there is something left in it.
    segment: Option<u64>,
    entries: VecDeque<Moving>,
}

impl Moving {
    /// The entry's slot, if it is still what it was when it was found.
    fn is_alive<'a>(&self, slot: Option<&'a Slot>) -> Option<&'a Slot> {
        slot.filter(|slot| slot.ticket == self.ticket && slot.segment == self.from)
    }

    /// Takes note that the entry is synced at its new place.
    pub(super) fn arrive(&self, segment: u64, offset: u32, live: &mut LiveRecords) {
        let mut state = self.group.lock();
        let bytes = state
            .slot(self.index)
            .map(Slot::record_bytes)
            .unwrap_or_default();
        if self.is_alive(state.slot(self.index)).is_none() {
            // Cancelled since; the record that says so is not synced yet.
            live.add_cancelled_entry(self.group.id, segment, 0);
            return;
        }
        if let Some(slot) = state.slot_mut(self.index) {
            (slot.segment, slot.offset) = (segment, offset);
        }
        live.remove_entry(self.from, bytes);
        live.add_entry(segment, bytes);
    }
}

impl Moves {
    /// Whether there is anything to move.
    pub(super) fn is_empty(&self) -> bool {
        self.segment.is_none()
    }

    /// Finds what is alive in `segment`.
    pub(super) fn plan(&mut self, segment: u64, live: &LiveRecords, shared: &Shared) {
        self.entries.clear();
        for group in shared.groups.read().values() {
            let state = group.lock();
            for (index, slot) in (state.first..).zip(&state.slots) {
                if slot.segment == segment {
                    let (group, ticket) = (Arc::clone(group), slot.ticket);
                    self.entries.push_back(Moving {
                        group,
                        index,
                        ticket,
                        from: segment,
                    });
                }
            }
        }
        let any = !self.entries.is_empty() || !live.singles_in(segment).is_empty();
        self.segment = any.then_some(segment);
    }

    /// Writes the next records to the empty batch in `buffer`; gives their
    /// number.
    pub(super) fn encode(
        &mut self,
        live: &LiveRecords,
        shared: &Shared,
        buffer: &mut Vec<u8>,
        written: &mut Vec<(u32, Written)>,
    ) -> Result<u32, LogError> {
        let Some(segment) = self.segment else {
            return Ok(0);
        };
        let end = buffer.len() + shared.options.move_bytes_max as usize;
        for (group, record) in live.singles_in(segment) {
            if buffer.len() + RECORD_HEADER_BYTES > end {
                return Ok(written.len() as u32);
            }
            written.push((buffer.len() as u32, Written::MovedSingle { group, record }));
            record.encode(group, &[], buffer);
        }
        while let Some(moving) = self.entries.front() {
            if buffer.len() > end {
                return Ok(written.len() as u32);
            }
            let place = buffer.len() as u32;
            let alive = encode_entry(moving, shared, buffer)?;
            let moving = self
                .entries
                .pop_front()
                .expect("it was there a line before");
            if alive {
                written.push((place, Written::MovedEntry(moving)));
            }
        }
        self.segment = None;
        Ok(written.len() as u32)
    }
}

/// Writes the entry to `buffer`, if it is still alive.
fn encode_entry(moving: &Moving, shared: &Shared, buffer: &mut Vec<u8>) -> Result<bool, LogError> {
    let state = moving.group.lock();
    let Some(slot) = moving.is_alive(state.slot(moving.index)).cloned() else {
        return Ok(false);
    };
    drop(state);
    let id = LogId {
        term: slot.term,
        index: moving.index,
    };
    let group = moving.group.id;
    if let Some(payload) = &slot.payload {
        Record::MovedEntry(id).encode(group, payload, buffer);
        return Ok(true);
    }
    // Only this worker takes segments back: the place stays what it is.
    let offset = u64::from(slot.offset);
    let bytes = read_segment(&shared.segments, slot.segment, offset, slot.record_bytes())?;
    let damaged = |detail| LogError::Damaged {
        segment: slot.segment,
        offset,
        detail,
    };
    let found = decode(&bytes).map_err(damaged)?;
    if found.group != group || ![Record::Entry(id), Record::MovedEntry(id)].contains(&found.record)
    {
        return Err(damaged("another record is where an entry was"));
    }
    Record::MovedEntry(id).encode(group, found.payload, buffer);
    Ok(true)
}
