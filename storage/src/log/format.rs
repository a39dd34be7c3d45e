//! The log's bytes, but for records: segment headers and batch headers.
//! `docs/FORMAT-LOG.md` is the reference; numbers are little-endian.

use super::{LogError, LogIdentity};

/// Version of the format that this program writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;

/// What a disk writes as a whole or not at all. Batches start at its
/// multiples, so that no later write touches a sector that was synced.
pub(super) const SECTOR_BYTES: u64 = 512;
/// Where the first batch of a segment starts.
pub(super) const SEGMENT_HEADER_BYTES: u64 = 4096;
/// What of it is used.
const SEGMENT_HEADER_USED: usize = 64;
/// A batch's header.
pub(super) const BATCH_HEADER_BYTES: usize = 64;
/// A record's header.
pub(super) const RECORD_HEADER_BYTES: usize = 36;

const SEGMENT_MAGIC: [u8; 8] = *b"QUORALOG";
const BATCH_MAGIC: [u8; 4] = *b"QBAT";

/// The bytes of a segment's header up to its checksum and with it.
pub(super) fn encode_segment_header(
    identity: &LogIdentity,
    segment: u64,
    segment_bytes: u64,
) -> [u8; SEGMENT_HEADER_USED] {
    let mut bytes = [0; SEGMENT_HEADER_USED];
    bytes[0..8].copy_from_slice(&SEGMENT_MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&segment.to_le_bytes());
    bytes[24..40].copy_from_slice(&identity.cluster);
    bytes[40..48].copy_from_slice(&identity.node.to_le_bytes());
    bytes[48..56].copy_from_slice(&segment_bytes.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) identity: LogIdentity,
    pub(super) segment: u64,
    pub(super) segment_bytes: u64,
}

/// Reads the header of the segment that is called `segment`.
pub(super) fn decode_segment_header(bytes: &[u8], segment: u64) -> Result<SegmentHeader, LogError> {
    let damaged = |detail| LogError::Damaged {
        segment,
        offset: 0,
        detail,
    };
    if bytes.len() < SEGMENT_HEADER_USED {
        return Err(damaged("the file is shorter than its header"));
    }
    if bytes[0..8] != SEGMENT_MAGIC {
        return Err(damaged("the file is no segment of a log"));
    }
    if crc32fast::hash(&bytes[..60]) != u32_at(bytes, 60) {
        return Err(damaged("the header's checksum is wrong"));
    }
    let found = u32_at(bytes, 8);
    if found != FORMAT_VERSION {
        return Err(LogError::Version {
            found,
            supported: FORMAT_VERSION,
        });
    }
    let mut cluster = [0; 16];
    cluster.copy_from_slice(&bytes[24..40]);
    let header = SegmentHeader {
        identity: LogIdentity {
            cluster,
            node: u64_at(bytes, 40),
        },
        segment: u64_at(bytes, 16),
        segment_bytes: u64_at(bytes, 48),
    };
    if header.segment != segment {
        return Err(damaged("the file has another segment's name"));
    }
    Ok(header)
}

/// Fails if the header is another log's.
pub(super) fn check_identity(header: &SegmentHeader, own: &LogIdentity) -> Result<(), LogError> {
    if header.identity == *own {
        return Ok(());
    }
    Err(LogError::Identity {
        found_node: header.identity.node,
        found_cluster: hexadecimal(&header.identity.cluster),
        node: own.node,
        cluster: hexadecimal(&own.cluster),
    })
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a header starts a batch or stands in for the next one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BatchKind {
    /// Records follow.
    Batch,
    /// Nothing follows; proves that the batch before was synced. The next
    /// batch takes its place.
    Seal,
}

const KIND_BATCH: u8 = 1;
const KIND_SEAL: u8 = 2;

/// Where a batch ended and what it was: the link of the chain that the next
/// batch carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) sequence: u64,
    pub(super) segment: u64,
    pub(super) end: u32,
    pub(super) checksum: u32,
}

/// What a batch's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHeader {
    pub(super) kind: BatchKind,
    pub(super) segment: u64,
    /// Number of the batch in the log's whole life.
    pub(super) sequence: u64,
    /// The oldest segment that the log still needs: older ones are taken back
    /// once this batch is synced.
    pub(super) first_segment: u64,
    pub(super) previous_segment: u64,
    pub(super) previous_end: u32,
    pub(super) previous_checksum: u32,
    pub(super) body_bytes: u32,
    pub(super) records: u32,
    pub(super) body_checksum: u32,
    /// Of the header itself; filled in by [`BatchHeader::encode`].
    pub(super) checksum: u32,
}

impl BatchHeader {
    /// A header that continues the chain after `link`, of no records yet.
    pub(super) fn after(link: &Link, kind: BatchKind, segment: u64, first_segment: u64) -> Self {
        Self {
            kind,
            segment,
            sequence: link.sequence + 1,
            first_segment,
            previous_segment: link.segment,
            previous_end: link.end,
            previous_checksum: link.checksum,
            body_bytes: 0,
            records: 0,
            body_checksum: 0,
            checksum: 0,
        }
    }

    /// Whether this continues the chain after `link`.
    pub(super) fn follows(&self, link: &Link) -> bool {
        self.sequence == link.sequence + 1
            && self.previous_segment == link.segment
            && self.previous_end == link.end
            && self.previous_checksum == link.checksum
    }

    /// The link for the next batch, if this one starts at `offset`.
    pub(super) fn link(&self, offset: u64) -> Link {
        let end = offset + self.whole_bytes();
        Link {
            sequence: self.sequence,
            segment: self.segment,
            end: u32::try_from(end).expect("segments are at most 1 GiB"),
            checksum: self.checksum,
        }
    }

    /// Header, records and padding.
    pub(super) fn whole_bytes(&self) -> u64 {
        whole_batch_bytes(u64::from(self.body_bytes))
    }

    /// Writes the header to the first bytes of `out`, and its checksum here.
    pub(super) fn encode(&mut self, out: &mut [u8]) {
        out[0..4].copy_from_slice(&BATCH_MAGIC);
        out[4] = match self.kind {
            BatchKind::Batch => KIND_BATCH,
            BatchKind::Seal => KIND_SEAL,
        };
        out[5..8].fill(0);
        out[8..16].copy_from_slice(&self.segment.to_le_bytes());
        out[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        out[24..32].copy_from_slice(&self.first_segment.to_le_bytes());
        out[32..40].copy_from_slice(&self.previous_segment.to_le_bytes());
        out[40..44].copy_from_slice(&self.previous_end.to_le_bytes());
        out[44..48].copy_from_slice(&self.previous_checksum.to_le_bytes());
        out[48..52].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[52..56].copy_from_slice(&self.records.to_le_bytes());
        out[56..60].copy_from_slice(&self.body_checksum.to_le_bytes());
        self.checksum = crc32fast::hash(&out[..60]);
        out[60..64].copy_from_slice(&self.checksum.to_le_bytes());
    }

    /// Reads a header whose checksum is right; `None` for anything else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < BATCH_HEADER_BYTES || bytes[0..4] != BATCH_MAGIC {
            return None;
        }
        let kind = match bytes[4] {
            KIND_BATCH => BatchKind::Batch,
            KIND_SEAL => BatchKind::Seal,
            _ => return None,
        };
        let checksum = u32_at(bytes, 60);
        if crc32fast::hash(&bytes[..60]) != checksum {
            return None;
        }
        Some(Self {
            kind,
            segment: u64_at(bytes, 8),
            sequence: u64_at(bytes, 16),
            first_segment: u64_at(bytes, 24),
            previous_segment: u64_at(bytes, 32),
            previous_end: u32_at(bytes, 40),
            previous_checksum: u32_at(bytes, 44),
            body_bytes: u32_at(bytes, 48),
            records: u32_at(bytes, 52),
            body_checksum: u32_at(bytes, 56),
            checksum,
        })
    }
}

/// Whether bytes that are no valid header were one once. A header lies in one
/// sector, which is written as a whole or not at all: so it cannot be torn,
/// and two of its three marks without a right checksum mean damage. A seal is
/// excepted: nothing is lost with it.
pub(super) fn is_broken_header(bytes: &[u8], segment: u64, sequence: Option<u64>) -> bool {
    if bytes.len() < BATCH_HEADER_BYTES {
        return false;
    }
    let marks = [
        bytes[0..4] == BATCH_MAGIC,
        u64_at(bytes, 8) == segment,
        sequence.is_some_and(|sequence| u64_at(bytes, 16) == sequence),
    ];
    let was_seal = bytes[4] == KIND_SEAL && bytes[48..60].iter().all(|byte| *byte == 0);
    marks.into_iter().filter(|mark| *mark).count() >= 2 && !was_seal
}

/// Size on disk of a batch with so many bytes of records.
pub(super) fn whole_batch_bytes(body_bytes: u64) -> u64 {
    (BATCH_HEADER_BYTES as u64 + body_bytes).next_multiple_of(SECTOR_BYTES)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
