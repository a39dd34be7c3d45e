//! Rebuilds the groups from the log's records.

use std::collections::{BTreeMap, VecDeque};

use super::LogError;
use super::group::{GroupState, Slot};
use super::record::{Decoded, Record};
use super::scan::{Position, Visitor};
use super::usage::LiveRecords;
use super::{LogId, Vote};

/// Entries between two neighbours that may still be missing while records
/// are read, because they were moved to where the reading has not come yet.
const GAP_ENTRIES_MAX: u64 = 1 << 24;

/// All groups, as far as the log was read.
#[derive(Debug, Default)]
pub(super) struct Replay {
    groups: BTreeMap<u64, ReplayedGroup>,
}

#[derive(Debug, Default)]
pub(super) struct ReplayedGroup {
    vote: Option<(Vote, u64)>,
    committed: Option<(Option<LogId>, u64)>,
    purged: Option<(LogId, u64)>,
    first: u64,
    slots: VecDeque<Option<Slot>>,
}

impl Visitor for Replay {
    fn batch(&mut self, _segment: u64, _records: u32) {}

    fn record(&mut self, at: Position, found: Decoded<'_>) -> Result<(), LogError> {
        if let Record::Opened { .. } = found.record {
            return Ok(());
        }
        let group = self.groups.entry(found.group).or_default();
        match found.record {
            Record::Opened { .. } => {}
            Record::Entry(id) => {
                group.truncate(id.index);
                group.put(id, at, found.payload.len())?;
            }
            Record::MovedEntry(id) => group.put(id, at, found.payload.len())?,
            Record::Vote(vote) => group.vote = Some((vote, at.segment)),
            Record::Committed(id) => group.committed = Some((id, at.segment)),
            Record::Truncate(Some(keep)) => group.truncate(keep.saturating_add(1)),
            Record::Truncate(None) => group.slots.clear(),
            Record::Purge(id) => group.purge(id, at.segment),
            Record::RemoveGroup => *group = ReplayedGroup::default(),
        }
        Ok(())
    }
}

impl ReplayedGroup {
    /// Drops entries from `index` on.
    fn truncate(&mut self, index: u64) {
        let kept = index.saturating_sub(self.first);
        self.slots
            .truncate(usize::try_from(kept).unwrap_or(usize::MAX));
    }

    fn purge(&mut self, id: LogId, segment: u64) {
        // Written purges never go back.
        self.purged = Some((id, segment));
        let gone = id.index.saturating_add(1).saturating_sub(self.first);
        let gone = usize::try_from(gone)
            .unwrap_or(usize::MAX)
            .min(self.slots.len());
        self.slots.drain(..gone);
        self.first += gone as u64;
    }

    fn put(&mut self, id: LogId, at: Position, payload_bytes: usize) -> Result<(), LogError> {
        if self.slots.is_empty() {
            self.first = id.index;
        }
        let end = self.first + self.slots.len() as u64;
        let gap = id
            .index
            .saturating_sub(end)
            .max(self.first.saturating_sub(id.index));
        if gap > GAP_ENTRIES_MAX {
            let detail = "an entry is far from its group's others";
            return Err(LogError::Damaged {
                segment: at.segment,
                offset: u64::from(at.offset),
                detail,
            });
        }
        while self.first > id.index {
            self.slots.push_front(None);
            self.first -= 1;
        }
        let place = (id.index - self.first) as usize;
        if self.slots.len() <= place {
            self.slots.resize(place + 1, None);
        }
        self.slots[place] = Some(Slot {
            term: id.term,
            ticket: 0,
            segment: at.segment,
            offset: at.offset,
            payload_bytes: payload_bytes as u32,
            payload: None,
        });
        Ok(())
    }

    /// The group, if its entries are all there.
    fn finish(self) -> Option<GroupState> {
        let mut state = GroupState {
            vote: self.vote.map(|(vote, _)| vote),
            committed: self.committed.and_then(|(id, _)| id),
            purged: self.purged.map(|(id, _)| id),
            first: self.first,
            ..GroupState::default()
        };
        for slot in self.slots {
            let mut slot = slot?;
            state.last_ticket += 1;
            slot.ticket = state.last_ticket;
            state.slots.push_back(slot);
        }
        let follows = state
            .purged
            .is_none_or(|purged| purged.index + 1 == state.first);
        (follows || state.slots.is_empty()).then_some(state)
    }

    fn count(&self, group: u64, live: &mut LiveRecords) {
        if let Some((vote, segment)) = self.vote {
            live.put_single(group, Record::Vote(vote), segment);
        }
        if let Some((id, segment)) = self.committed {
            live.put_single(group, Record::Committed(id), segment);
        }
        if let Some((id, segment)) = self.purged {
            live.put_single(group, Record::Purge(id), segment);
        }
        for slot in self.slots.iter().flatten() {
            live.add_entry(slot.segment, slot.record_bytes());
        }
    }
}

impl Replay {
    /// The groups, and what they keep alive. `end` is where the log ends, for
    /// the error of a group whose entries are not all there.
    pub(super) fn finish(
        self,
        end: Position,
    ) -> Result<(BTreeMap<u64, GroupState>, LiveRecords), LogError> {
        let mut live = LiveRecords::default();
        let mut groups = BTreeMap::new();
        for (id, group) in self.groups {
            group.count(id, &mut live);
            let state = group.finish().ok_or(LogError::Damaged {
                segment: end.segment,
                offset: u64::from(end.offset),
                detail: "a group's entries are not all there",
            })?;
            if !state.is_empty() {
                groups.insert(id, state);
            }
        }
        Ok((groups, live))
    }
}
