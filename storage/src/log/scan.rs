//! Reads a log's bytes back in order, and tells the end from damage.
//!
//! A batch is written only after the one before it was synced, and carries
//! that one's end and checksum. So what does not read well is a torn tail,
//! never acknowledged, if nothing valid was written after it; otherwise it is
//! damage. Bytes of a re-used file's former life carry other segment numbers;
//! those of a cut tail, no later number than the batch that took its place.

use super::LogError;
use super::format::{
    BATCH_HEADER_BYTES, BatchHeader, BatchKind, Link, SECTOR_BYTES, SEGMENT_HEADER_BYTES,
    is_broken_header,
};
use super::record::{Decoded, decode};
use super::segment::Segment;

/// Bytes read from a segment at once, unless a batch is larger.
const WINDOW_BYTES: u64 = 1 << 20;

/// What lies at a place where a batch may start.
enum Found {
    /// A whole batch.
    Batch(BatchHeader),
    /// A seal.
    Seal(BatchHeader),
    /// Nothing that was ever acknowledged as far as this place shows.
    Nothing,
    /// What cannot come from a torn write.
    Broken(&'static str),
}

/// Reads one segment through a window.
struct Reader<'a> {
    segment: &'a Segment,
    window: Vec<u8>,
    start: u64,
}

impl<'a> Reader<'a> {
    fn new(segment: &'a Segment) -> Self {
        Self {
            segment,
            window: Vec::new(),
            start: 0,
        }
    }

    /// Up to `len` bytes from `offset`, fewer at the segment's end.
    fn bytes(&mut self, offset: u64, len: u64) -> Result<&[u8], LogError> {
        let len = len.min(self.segment.bytes.saturating_sub(offset));
        let end = self.start + self.window.len() as u64;
        if offset < self.start || offset + len > end {
            let wanted = len
                .max(WINDOW_BYTES)
                .min(self.segment.bytes.saturating_sub(offset));
            self.window.resize(wanted as usize, 0);
            self.start = offset;
            let read = self.segment.file.read_at(&mut self.window, offset);
            read.map_err(LogError::disk("read a segment"))?;
        }
        let from = (offset - self.start) as usize;
        Ok(&self.window[from..from + len as usize])
    }

    /// Looks at a place where the batch numbered `expected` may start.
    fn examine(&mut self, offset: u64, expected: Option<u64>) -> Result<Found, LogError> {
        let number = self.segment.number;
        let room = self.segment.bytes.saturating_sub(offset);
        let bytes = self.bytes(offset, BATCH_HEADER_BYTES as u64)?;
        let Some(header) = BatchHeader::decode(bytes) else {
            return Ok(match is_broken_header(bytes, number, expected) {
                true => Found::Broken("a batch's header is not what was written"),
                false => Found::Nothing,
            });
        };
        if header.segment != number {
            return Ok(Found::Nothing);
        }
        if header.kind == BatchKind::Seal {
            return Ok(Found::Seal(header));
        }
        if header.whole_bytes() > room {
            return Ok(Found::Broken("a batch is longer than its segment"));
        }
        let body = self.body(offset, &header)?;
        if crc32fast::hash(body) == header.body_checksum {
            return Ok(Found::Batch(header));
        }
        // One sector is written as a whole or not at all.
        Ok(
            match header.whole_bytes() <= SECTOR_BYTES && expected == Some(header.sequence) {
                true => Found::Broken("a batch's checksum is wrong"),
                false => Found::Nothing,
            },
        )
    }

    fn body(&mut self, offset: u64, header: &BatchHeader) -> Result<&[u8], LogError> {
        self.bytes(
            offset + BATCH_HEADER_BYTES as u64,
            u64::from(header.body_bytes),
        )
    }

    /// Whether anything after `offset` proves that the batch `sequence`, or
    /// the place where it would be, was passed by.
    fn is_proven(&mut self, offset: u64, sequence: u64) -> Result<bool, LogError> {
        let mut at = offset;
        while at + SECTOR_BYTES <= self.segment.bytes {
            let header = BatchHeader::decode(self.bytes(at, BATCH_HEADER_BYTES as u64)?);
            let number = self.segment.number;
            if header.is_some_and(|found| found.segment == number && found.sequence > sequence) {
                return Ok(true);
            }
            at += SECTOR_BYTES;
        }
        Ok(false)
    }
}

/// Where a record was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    pub(super) segment: u64,
    pub(super) offset: u32,
}

/// What a walk through a log has come to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct End {
    /// The last batch; nothing of the log's own where there is none.
    pub(super) link: Link,
    /// The segment in which the next batch goes, and where.
    pub(super) segment: u64,
    pub(super) offset: u64,
    /// The oldest segment that is needed, as the last batch says.
    pub(super) first_segment: u64,
    pub(super) batches: u64,
}

/// Told of each batch and record, in order.
pub(super) trait Visitor {
    fn batch(&mut self, segment: u64, records: u32);
    fn record(&mut self, at: Position, found: Decoded<'_>) -> Result<(), LogError>;
}

/// Walks through `segments`, the oldest first. `end` is up to date even when
/// the walk fails.
pub(super) fn walk(
    segments: &[Segment],
    visitor: &mut dyn Visitor,
    end: &mut End,
) -> Result<(), LogError> {
    if let Some(first) = segments.first() {
        (end.segment, end.offset) = (first.number, SEGMENT_HEADER_BYTES);
    }
    for segment in segments {
        walk_segment(segment, visitor, end)?;
    }
    match segments.first() {
        Some(first) if end.batches > 0 && first.number > end.first_segment => {
            let detail = "the file is missing";
            Err(LogError::Damaged {
                segment: end.first_segment,
                offset: 0,
                detail,
            })
        }
        _ => Ok(()),
    }
}

fn walk_segment(
    segment: &Segment,
    visitor: &mut dyn Visitor,
    end: &mut End,
) -> Result<(), LogError> {
    let mut reader = Reader::new(segment);
    let mut offset = SEGMENT_HEADER_BYTES;
    loop {
        let expected = (end.batches > 0).then_some(end.link.sequence + 1);
        let damaged = |segment, offset, detail| {
            Err(LogError::Damaged {
                segment,
                offset,
                detail,
            })
        };
        let skipped = "a batch that was synced here is gone";
        match reader.examine(offset, expected)? {
            Found::Batch(header) if expected.is_none() || header.follows(&end.link) => {
                visit(&mut reader, offset, &header, visitor)?;
                offset += header.whole_bytes();
                end.link = header.link(offset - header.whole_bytes());
                (end.segment, end.offset) = (segment.number, offset);
                end.first_segment = header.first_segment;
                end.batches += 1;
            }
            Found::Seal(header) if expected.is_some() && header.follows(&end.link) => return Ok(()),
            Found::Batch(header) | Found::Seal(header)
                if expected.is_none_or(|expected| header.sequence >= expected) =>
            {
                return damaged(end.segment, end.offset, skipped);
            }
            Found::Broken(detail) => return damaged(segment.number, offset, detail),
            Found::Batch(_) | Found::Seal(_) | Found::Nothing => {
                if reader.is_proven(offset, expected.unwrap_or_default())? {
                    return damaged(end.segment, end.offset, skipped);
                }
                return Ok(());
            }
        }
    }
}

fn visit(
    reader: &mut Reader<'_>,
    offset: u64,
    header: &BatchHeader,
    visitor: &mut dyn Visitor,
) -> Result<(), LogError> {
    let segment = reader.segment.number;
    visitor.batch(segment, header.records);
    let body = reader.body(offset, header)?;
    let mut at = 0;
    for _ in 0..header.records {
        let place = offset + (BATCH_HEADER_BYTES + at) as u64;
        let found = decode(&body[at..]).map_err(|detail| LogError::Damaged {
            segment,
            offset: place,
            detail,
        })?;
        at += found.whole_bytes();
        let place = u32::try_from(place).expect("segments are at most 1 GiB");
        visitor.record(
            Position {
                segment,
                offset: place,
            },
            found,
        )?;
    }
    Ok(())
}
