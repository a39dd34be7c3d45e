//! Which entries' payloads are in memory: those written last, over all
//! groups. The payloads themselves are in the groups' slots.

use std::collections::VecDeque;
use std::sync::Arc;

use super::LogEntry;
use super::group::Group;

/// What an entry is taken to cost in memory besides its payload.
const ENTRY_BYTES: u64 = 64;

/// Entries of one request.
struct Cached {
    group: Arc<Group>,
    first: u64,
    count: u64,
    bytes: u64,
}

/// The order in which payloads leave memory.
pub(super) struct Cache {
    oldest_first: VecDeque<Cached>,
    bytes: u64,
    bytes_max: u64,
}

impl Cache {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            oldest_first: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Takes note of entries that are synced.
    pub(super) fn add(&mut self, group: &Arc<Group>, entries: &[LogEntry]) {
        let Some(first) = entries.first().map(|entry| entry.index) else {
            return;
        };
        let payloads: u64 = entries.iter().map(|entry| entry.payload.len() as u64).sum();
        let count = entries.len() as u64;
        let bytes = payloads + count * ENTRY_BYTES;
        self.bytes += bytes;
        self.oldest_first.push_back(Cached {
            group: Arc::clone(group),
            first,
            count,
            bytes,
        });
    }

    /// Drops the oldest payloads until the others are within the limit. Where
    /// a younger entry has an old one's index, its payload may leave too
    /// early: it is read back like any other.
    pub(super) fn shrink(&mut self) {
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.oldest_first.pop_front() else {
                return;
            };
            self.bytes -= oldest.bytes;
            let mut state = oldest.group.lock();
            for index in oldest.first..oldest.first + oldest.count {
                // What is not synced can only be read from memory.
                if let Some(slot) = state.slot_mut(index).filter(|slot| slot.segment != 0) {
                    slot.payload = None;
                }
            }
        }
    }
}
