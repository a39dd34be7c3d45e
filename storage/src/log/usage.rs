//! Counts what keeps old segments alive.
//!
//! A record is alive until the record that replaces it is synced; a segment
//! may go once nothing in it is alive, the oldest first. Because the oldest
//! goes first, records that only cancel older ones (truncations, removals)
//! keep nothing alive.

use std::collections::{BTreeMap, HashMap};

use super::record::Record;
use super::{LogId, Vote};
use crate::log::format::RECORD_HEADER_BYTES;

/// Records and bytes in one segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

/// Live records that lose their reason, by segment. Neighbours mostly share a
/// segment, so the list stays short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Released {
    parts: Vec<(u64, Usage)>,
}

impl Released {
    /// Adds a record of `bytes` bytes in `segment`.
    pub(super) fn add(&mut self, segment: u64, bytes: u64) {
        match self.parts.last_mut() {
            Some((last, usage)) if *last == segment => {
                usage.records += 1;
                usage.bytes += bytes;
            }
            _ => self.parts.push((segment, Usage { records: 1, bytes })),
        }
    }
}

/// A group's latest single records, as the log has them, with their segments.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Singles {
    pub(super) vote: Option<(Vote, u64)>,
    pub(super) committed: Option<(Option<LogId>, u64)>,
    pub(super) purged: Option<(LogId, u64)>,
}

impl Singles {
    /// Takes note of a single record in `segment`; gives the segment of the
    /// one that it replaces. Other records change nothing.
    fn replace(&mut self, record: Record, segment: u64) -> Option<u64> {
        match record {
            Record::Vote(vote) => self.vote.replace((vote, segment)).map(|old| old.1),
            Record::Committed(id) => self.committed.replace((id, segment)).map(|old| old.1),
            Record::Purge(id) => self.purged.replace((id, segment)).map(|old| old.1),
            Record::Opened { .. }
            | Record::Entry(_)
            | Record::MovedEntry(_)
            | Record::Truncate(_)
            | Record::RemoveGroup => None,
        }
    }

    /// The records, with their segments.
    fn records(&self) -> impl Iterator<Item = (Record, u64)> {
        let vote = self
            .vote
            .map(|(vote, segment)| (Record::Vote(vote), segment));
        let committed = self
            .committed
            .map(|(id, segment)| (Record::Committed(id), segment));
        let purged = self
            .purged
            .map(|(id, segment)| (Record::Purge(id), segment));
        [vote, committed, purged].into_iter().flatten()
    }
}

const SINGLE_BYTES: u64 = RECORD_HEADER_BYTES as u64;

/// What is alive in all segments. Owned by the commit worker, and changed
/// only for what is synced.
#[derive(Debug, Default)]
pub(super) struct LiveRecords {
    segments: BTreeMap<u64, Usage>,
    singles: HashMap<u64, Singles>,
    /// Entries that were cancelled in memory before they were written; they
    /// stay until the record that cancels them, which follows, is synced.
    cancelled: HashMap<u64, Released>,
}

impl LiveRecords {
    /// Adds a live entry of `bytes` bytes, header included.
    pub(super) fn add_entry(&mut self, segment: u64, bytes: u64) {
        let usage = self.segments.entry(segment).or_default();
        usage.records += 1;
        usage.bytes += bytes;
    }

    /// Adds an entry of `group` that the group's memory has dropped already.
    pub(super) fn add_cancelled_entry(&mut self, group: u64, segment: u64, bytes: u64) {
        self.add_entry(segment, bytes);
        self.cancelled.entry(group).or_default().add(segment, bytes);
    }

    /// Takes an entry away.
    pub(super) fn remove_entry(&mut self, segment: u64, bytes: u64) {
        self.subtract(segment, Usage { records: 1, bytes });
    }

    /// Takes entries of `group` away whose cancelling record is synced.
    pub(super) fn release(&mut self, group: u64, released: &Released) {
        let cancelled = self.cancelled.remove(&group).unwrap_or_default();
        for (segment, usage) in released.parts.iter().chain(&cancelled.parts) {
            self.subtract(*segment, *usage);
        }
    }

    /// Takes note of a vote, a committed position or a purge.
    pub(super) fn put_single(&mut self, group: u64, record: Record, segment: u64) {
        let replaced = self
            .singles
            .entry(group)
            .or_default()
            .replace(record, segment);
        self.add_entry(segment, SINGLE_BYTES);
        if let Some(old) = replaced {
            self.remove_entry(old, SINGLE_BYTES);
        }
    }

    /// Forgets a group's single records.
    pub(super) fn remove_singles(&mut self, group: u64) {
        for (_, segment) in self.singles.remove(&group).unwrap_or_default().records() {
            self.remove_entry(segment, SINGLE_BYTES);
        }
    }

    /// All groups' single records that are in `segment`.
    pub(super) fn singles_in(&self, segment: u64) -> Vec<(u64, Record)> {
        let mut found: Vec<_> = self
            .singles
            .iter()
            .flat_map(|(group, singles)| singles.records().map(|(record, at)| (*group, record, at)))
            .filter(|(_, _, at)| *at == segment)
            .map(|(group, record, _)| (group, record))
            .collect();
        // The map's order is chance; the log's must not be.
        found.sort_by_key(|(group, _)| *group);
        found
    }

    /// Whether nothing in `segment` is alive.
    pub(super) fn is_free(&self, segment: u64) -> bool {
        !self.segments.contains_key(&segment)
    }

    /// Live bytes in all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.values().map(|usage| usage.bytes).sum()
    }

    fn subtract(&mut self, segment: u64, gone: Usage) {
        let usage = self.segments.entry(segment).or_default();
        assert!(
            usage.records >= gone.records,
            "released more than was alive"
        );
        usage.records -= gone.records;
        usage.bytes -= gone.bytes;
        if usage.records == 0 {
            self.segments.remove(&segment);
        }
    }
}
