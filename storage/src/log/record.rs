//! The log's records: what a batch is made of.
//!
//! Every kind has the same header of [`RECORD_HEADER_BYTES`]; only entries
//! have a payload.

use super::format::{RECORD_HEADER_BYTES, u32_at, u64_at};
use super::{LogId, Vote};

const KIND_OPENED: u8 = 1;
const KIND_ENTRY: u8 = 2;
const KIND_MOVED_ENTRY: u8 = 3;
const KIND_VOTE: u8 = 4;
const KIND_COMMITTED_VOTE: u8 = 5;
const KIND_COMMITTED: u8 = 6;
const KIND_NOTHING_COMMITTED: u8 = 7;
const KIND_TRUNCATE_AFTER: u8 = 8;
const KIND_TRUNCATE_ALL: u8 = 9;
const KIND_PURGE: u8 = 10;
const KIND_REMOVE_GROUP: u8 = 11;
// 64 to 79 are reserved for tentative writes, 80 to 95 for hints.

/// A record, but for its group and its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// The log was opened; `sequence` is the batch's. Belongs to no group.
    Opened { sequence: u64 },
    /// An entry; replaces those of its index and after.
    Entry(LogId),
    /// An entry that was moved from an old segment; replaces nothing else.
    MovedEntry(LogId),
    /// The group's vote.
    Vote(Vote),
    /// What the group knew as committed.
    Committed(Option<LogId>),
    /// Entries after this index, or all, are gone.
    Truncate(Option<u64>),
    /// Entries up to this one are gone.
    Purge(LogId),
    /// The group has nothing any more.
    RemoveGroup,
}

impl Record {
    /// The three numbers that stand for it.
    fn to_parts(self) -> (u8, u64, u64) {
        match self {
            Self::Opened { sequence } => (KIND_OPENED, 0, sequence),
            Self::Entry(id) => (KIND_ENTRY, id.term, id.index),
            Self::MovedEntry(id) => (KIND_MOVED_ENTRY, id.term, id.index),
            Self::Vote(Vote {
                term,
                node,
                committed: false,
            }) => (KIND_VOTE, term, node),
            Self::Vote(Vote {
                term,
                node,
                committed: true,
            }) => (KIND_COMMITTED_VOTE, term, node),
            Self::Committed(Some(id)) => (KIND_COMMITTED, id.term, id.index),
            Self::Committed(None) => (KIND_NOTHING_COMMITTED, 0, 0),
            Self::Truncate(Some(index)) => (KIND_TRUNCATE_AFTER, 0, index),
            Self::Truncate(None) => (KIND_TRUNCATE_ALL, 0, 0),
            Self::Purge(id) => (KIND_PURGE, id.term, id.index),
            Self::RemoveGroup => (KIND_REMOVE_GROUP, 0, 0),
        }
    }

    fn from_parts(kind: u8, term: u64, index: u64) -> Option<Self> {
        let id = LogId { term, index };
        Some(match kind {
            KIND_OPENED => Self::Opened { sequence: index },
            KIND_ENTRY => Self::Entry(id),
            KIND_MOVED_ENTRY => Self::MovedEntry(id),
            KIND_VOTE => Self::Vote(Vote {
                term,
                node: index,
                committed: false,
            }),
            KIND_COMMITTED_VOTE => Self::Vote(Vote {
                term,
                node: index,
                committed: true,
            }),
            KIND_COMMITTED => Self::Committed(Some(id)),
            KIND_NOTHING_COMMITTED => Self::Committed(None),
            KIND_TRUNCATE_AFTER => Self::Truncate(Some(index)),
            KIND_TRUNCATE_ALL => Self::Truncate(None),
            KIND_PURGE => Self::Purge(id),
            KIND_REMOVE_GROUP => Self::RemoveGroup,
            _ => return None,
        })
    }

    /// Appends the record to `out`.
    pub(super) fn encode(self, group: u64, payload: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        let (kind, term, index) = self.to_parts();
        let len = u32::try_from(payload.len()).expect("payloads are limited to a segment");
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&[kind, 0, 0, 0]);
        out.extend_from_slice(&group.to_le_bytes());
        out.extend_from_slice(&term.to_le_bytes());
        out.extend_from_slice(&index.to_le_bytes());
        out.extend_from_slice(payload);
        let checksum = crc32fast::hash(&out[start + 4..]);
        out[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// A record as it was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decoded<'a> {
    pub(super) group: u64,
    pub(super) record: Record,
    pub(super) payload: &'a [u8],
}

impl Decoded<'_> {
    /// Size of the record in the log.
    pub(super) fn whole_bytes(&self) -> usize {
        RECORD_HEADER_BYTES + self.payload.len()
    }
}

/// Reads the record at the beginning of `bytes`.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded<'_>, &'static str> {
    if bytes.len() < RECORD_HEADER_BYTES {
        return Err("a record's header is cut off");
    }
    let end = RECORD_HEADER_BYTES + u32_at(bytes, 4) as usize;
    let Some(whole) = bytes.get(..end) else {
        return Err("a record's payload is cut off");
    };
    if crc32fast::hash(&whole[4..]) != u32_at(whole, 0) {
        return Err("a record's checksum is wrong");
    }
    let record = Record::from_parts(whole[8], u64_at(whole, 20), u64_at(whole, 28))
        .ok_or("a record is of a kind that this program does not know")?;
    Ok(Decoded {
        group: u64_at(whole, 12),
        record,
        payload: &whole[RECORD_HEADER_BYTES..],
    })
}
