//! A range on its way out: its durable state as checksummed chunks.
//!
//! The chunks carry a stream of items, cut without regard to their borders, so
//! that a large value needs no large chunk. Byte by byte:
//! docs/FORMAT-ENGINE.md. How chunks travel is decided elsewhere.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use redb::Range;

use super::error::EngineError;
use super::history::{self, Block, HistoryKey, runs_above};
use super::record::{self, RangeMeta};
use super::view::{FileView, MetaKind};

/// Version of chunks and items.
pub(super) const EXPORT_VERSION: u8 = 1;
pub(super) const CHUNK_MAGIC: [u8; 2] = *b"QX";
/// Flag of the last chunk.
pub(super) const CHUNK_IS_LAST: u8 = 1;
/// Magic, version, flags, number (8), length of the body (4).
pub(super) const CHUNK_HEAD_BYTES: usize = 16;
/// Most bytes of a chunk, with head and checksum.
pub(super) const CHUNK_BYTES_MAX: usize = 256 << 10;
const BODY_BYTES_MAX: usize = CHUNK_BYTES_MAX - CHUNK_HEAD_BYTES - 4;
/// Kind, length of the key (4), length of the value (4).
pub(super) const ITEM_HEAD_BYTES: usize = 9;
/// Stands for a record's key where an item has none.
pub(super) const HEADER_NAME: &[u8] = b"export";

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum ItemKind {
    /// The first one: the range's own record.
    Header = 0,
    /// A caller's metadata.
    Meta = 1,
    /// A record of the current table.
    Current = 2,
    /// A block of the history table.
    History = 3,
    /// The last one: numbers of the other items, checksum of the stream.
    Trailer = 4,
}

/// How many items there were of each kind that is data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ItemCounts {
    pub(super) meta: u64,
    pub(super) current: u64,
    pub(super) history: u64,
}

impl ItemCounts {
    /// The trailer's value: counts, then the checksum of all before it.
    pub(super) fn encode(&self, sum: u32) -> Vec<u8> {
        let counts = [self.meta, self.current, self.history];
        let mut out: Vec<u8> = counts.into_iter().flat_map(u64::to_le_bytes).collect();
        out.extend(sum.to_le_bytes());
        out
    }
}

enum Stage {
    Current(Range<'static, &'static [u8], &'static [u8]>),
    History(Range<'static, HistoryKey, &'static [u8]>),
    End,
}

/// An export in the making: an iterator of chunks of at most 256 KiB.
///
/// Equal state gives equal chunks as long as the export lives in one process;
/// to resume one, skip the chunks that are there already.
pub struct Export {
    range: u64,
    view: Arc<FileView>,
    meta: RangeMeta,
    stage: Stage,
    counts: ItemCounts,
    sum: crc32fast::Hasher,
    pending: Vec<u8>,
    next_chunk: u64,
    ended: bool,
}

impl fmt::Debug for Export {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Export")
            .field("meta", &self.meta)
            .finish_non_exhaustive()
    }
}

impl Export {
    pub(super) fn new(
        range: u64,
        interval: (Bytes, Bytes),
        view: Arc<FileView>,
    ) -> Result<Self, EngineError> {
        let meta = view
            .range_meta(range, MetaKind::Range)?
            .unwrap_or(RangeMeta {
                position: None,
                interval,
                last_revision: 0,
                floor: 0,
                keeps_history: true,
            });
        let (start, end) = &meta.interval;
        let end = if end.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Excluded(end.as_ref())
        };
        let rows = view
            .current
            .range::<&[u8]>((Bound::Included(start.as_ref()), end))?;
        let mut export = Self {
            range,
            stage: Stage::Current(rows),
            counts: ItemCounts::default(),
            sum: crc32fast::Hasher::new(),
            pending: Vec::new(),
            next_chunk: 0,
            ended: false,
            meta,
            view,
        };
        let header = export.meta.encode(HEADER_NAME);
        export.item(ItemKind::Header, &[], &header);
        for (key, value) in export.view.clone().caller_meta_scan(range, &[])? {
            export.item(ItemKind::Meta, &key, &value);
            export.counts.meta += 1;
        }
        Ok(export)
    }

    /// The position whose state this is.
    pub fn position(&self) -> Option<super::Position> {
        self.meta.position
    }

    fn item(&mut self, kind: ItemKind, key: &[u8], value: &[u8]) {
        let before = self.pending.len();
        self.pending.push(kind as u8);
        for part in [key, value] {
            let len = u32::try_from(part.len()).expect("keys and values are far below 4 GiB");
            self.pending.extend(len.to_le_bytes());
        }
        self.pending.extend_from_slice(key);
        self.pending.extend_from_slice(value);
        self.sum.update(&self.pending[before..]);
    }

    /// Adds the next item; false: that was the last.
    fn advance(&mut self) -> Result<bool, EngineError> {
        match &mut self.stage {
            Stage::Current(rows) => match rows.next() {
                Some(row) => {
                    let (key, stored) = row?;
                    // Damage must not travel.
                    record::decode(key.value(), stored.value())?;
                    self.item(ItemKind::Current, key.value(), stored.value());
                    self.counts.current += 1;
                }
                None => {
                    let blocks = runs_above(self.range, self.meta.floor);
                    self.stage = Stage::History(self.view.history.range(blocks)?);
                }
            },
            Stage::History(rows) => match rows.next() {
                Some(row) => {
                    let (name, stored) = row?;
                    let (_, run, _, _) = name.value();
                    for (key, stored) in Block::open(stored.value())?.entries() {
                        history::decode(run, &key, &stored)?;
                    }
                    self.item(ItemKind::History, &run.to_le_bytes(), stored.value());
                    self.counts.history += 1;
                }
                None => {
                    let trailer = self.counts.encode(self.sum.clone().finalize());
                    self.item(ItemKind::Trailer, &[], &trailer);
                    self.stage = Stage::End;
                }
            },
            Stage::End => return Ok(false),
        }
        Ok(true)
    }

    fn fill(&mut self) -> Result<(), EngineError> {
        while self.pending.len() < BODY_BYTES_MAX && self.advance()? {}
        Ok(())
    }

    fn cut_chunk(&mut self) -> Bytes {
        let len = self.pending.len().min(BODY_BYTES_MAX);
        let is_last = matches!(self.stage, Stage::End) && len == self.pending.len();
        let mut chunk = Vec::with_capacity(CHUNK_HEAD_BYTES + len + 4);
        chunk.extend(CHUNK_MAGIC);
        chunk.push(EXPORT_VERSION);
        chunk.push(if is_last { CHUNK_IS_LAST } else { 0 });
        chunk.extend(self.next_chunk.to_le_bytes());
        chunk.extend((len as u32).to_le_bytes());
        chunk.extend(self.pending.drain(..len));
        let sum = crc32fast::hash(&chunk);
        chunk.extend(sum.to_le_bytes());
        self.next_chunk += 1;
        self.ended = is_last;
        chunk.into()
    }
}

impl Iterator for Export {
    type Item = Result<Bytes, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.fill() {
            Ok(()) => Some(Ok(self.cut_chunk())),
            Err(error) => {
                self.ended = true;
                Some(Err(error))
            }
        }
    }
}
