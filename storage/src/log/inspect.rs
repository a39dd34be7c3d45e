//! Reports what is in a log's folder, without changing anything.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::format::FORMAT_VERSION;
use super::record::Decoded;
use super::recover::Replay;
use super::scan::{End, Position, Visitor, walk};
use super::segment::{Folder, Segment};
use super::{LogError, LogId, LogIdentity, Vote};
use crate::disk::{Disk, OpenMode};

/// What a log's folder holds.
#[derive(Debug)]
pub struct LogReport {
    /// Version of its format.
    pub version: u32,
    /// Whose it is, as the oldest segment says; none if there is no segment
    /// with a good header.
    pub identity: Option<LogIdentity>,
    /// Segments, the oldest first.
    pub segments: Vec<SegmentReport>,
    /// Groups by id, as of the last batch that reads well.
    pub groups: BTreeMap<u64, GroupReport>,
    /// Number of the last batch that reads well, in the log's whole life.
    pub last_batch: u64,
    /// Segment and byte at which the next batch would go.
    pub end: (u64, u64),
    /// Why the log cannot be opened, if so.
    pub damage: Option<LogError>,
}

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentReport {
    /// Its number.
    pub number: u64,
    /// Size of its file.
    pub bytes: u64,
    /// Batches that read well.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
}

/// What a group has in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupReport {
    /// Its vote.
    pub vote: Option<Vote>,
    /// What it last wrote as committed.
    pub committed: Option<LogId>,
    /// Its last purged entry.
    pub purged: Option<LogId>,
    /// Index of its first entry.
    pub first: Option<u64>,
    /// Its last entry, the last purged one if there is no other.
    pub last: Option<LogId>,
    /// Payload bytes of its entries.
    pub payload_bytes: u64,
}

/// Counts, and replays.
#[derive(Default)]
struct Inspection {
    replay: Replay,
    segments: BTreeMap<u64, (u64, u64)>,
}

impl Visitor for Inspection {
    fn batch(&mut self, segment: u64, records: u32) {
        let counts = self.segments.entry(segment).or_default();
        counts.0 += 1;
        counts.1 += u64::from(records);
    }

    fn record(&mut self, at: Position, found: Decoded<'_>) -> Result<(), LogError> {
        self.replay.record(at, found)
    }
}

/// Reads the log in `dir` as far as it can be read. The log should not be
/// open: the report of one that is being written may show damage that is
/// none. Fails only if the folder cannot be listed.
pub fn inspect(disk: &Arc<dyn Disk>, dir: &Path) -> Result<LogReport, LogError> {
    let folder = Folder {
        disk: Arc::clone(disk),
        path: dir.to_owned(),
    };
    let listing = folder
        .list()
        .map_err(LogError::disk("list the log's folder"))?;
    let (segments, identity, mut damage) = open_all(&folder, &listing.segments);
    let (mut inspection, mut end) = (Inspection::default(), End::default());
    if let Err(error) = walk(&segments, &mut inspection, &mut end) {
        damage.get_or_insert(error);
    }
    let counts = inspection.segments;
    let segments = segments.iter().map(|segment| {
        let (batches, records) = counts.get(&segment.number).copied().unwrap_or_default();
        SegmentReport {
            number: segment.number,
            bytes: segment.bytes,
            batches,
            records,
        }
    });
    let segments = segments.collect();
    let at = Position {
        segment: end.segment,
        offset: end.offset as u32,
    };
    let groups = match inspection.replay.finish(at) {
        Ok((groups, _)) => groups
            .into_iter()
            .map(|(id, state)| (id, report(&state)))
            .collect(),
        Err(error) => {
            damage.get_or_insert(error);
            BTreeMap::new()
        }
    };
    Ok(LogReport {
        version: FORMAT_VERSION,
        identity,
        segments,
        groups,
        last_batch: end.link.sequence,
        end: (end.segment, end.offset),
        damage,
    })
}

/// Opens segments up to the first that is missing or has a bad header.
fn open_all(
    folder: &Folder,
    numbers: &[u64],
) -> (Vec<Segment>, Option<LogIdentity>, Option<LogError>) {
    let (mut segments, mut identity) = (Vec::<Segment>::new(), None);
    for number in numbers {
        if let Some(last) = segments.last().filter(|last| last.number + 1 != *number) {
            let (segment, detail) = (last.number + 1, "the file is missing");
            let damage = LogError::Damaged {
                segment,
                offset: 0,
                detail,
            };
            return (segments, identity, Some(damage));
        }
        match folder.open(*number, OpenMode::ReadOnly, identity.as_ref()) {
            Ok((segment, owner)) => {
                identity.get_or_insert(owner);
                segments.push(segment);
            }
            Err(error) => return (segments, identity, Some(error)),
        }
    }
    (segments, identity, None)
}

fn report(state: &super::group::GroupState) -> GroupReport {
    GroupReport {
        vote: state.vote,
        committed: state.committed,
        purged: state.purged,
        first: (!state.slots.is_empty()).then_some(state.first),
        last: state.last(),
        payload_bytes: state
            .slots
            .iter()
            .map(|slot| u64::from(slot.payload_bytes))
            .sum(),
    }
}
