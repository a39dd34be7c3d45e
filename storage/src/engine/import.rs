//! A range on its way in: an export's chunks replace what the range was.
//!
//! All happens in one transaction, which ends with the export's trailer or
//! not at all.

use bytes::Bytes;

use super::collect;
use super::error::EngineError;
use super::export::{
    CHUNK_BYTES_MAX, CHUNK_HEAD_BYTES, CHUNK_IS_LAST, CHUNK_MAGIC, EXPORT_VERSION, HEADER_NAME,
    ITEM_HEAD_BYTES, ItemCounts, ItemKind,
};
use super::file::EngineFile;
use super::flush::Tables;
use super::history::{self, Block};
use super::range::Range;
use super::record::{self, RangeMeta};
use super::store::Common;
use super::view::{MetaKind, meta_name};

/// Most bytes of one item. Far above any record, far below what would hurt.
const ITEM_BYTES_MAX: usize = 256 << 20;

/// Replaces the range by what the chunks hold.
pub(super) fn run(
    file: &EngineFile,
    common: &Common,
    range: &Range,
    chunks: impl Iterator<Item = Result<Bytes, EngineError>>,
) -> Result<RangeMeta, EngineError> {
    let mut items = Items::new(chunks);
    // Before anything is locked: chunks of another range end here.
    let meta = header(&mut items)?;
    if meta.interval != range.interval {
        return Err(refused("they are of another interval"));
    }
    let writer = file.writer()?;
    let transaction = writer.begin()?;
    {
        let mut tables = Tables::open(&transaction)?;
        collect::remove_all(&mut tables, range.id, &range.interval)?;
        collect::remove_meta(&mut tables, range.id)?;
        let mut intake = Intake {
            range,
            meta: &meta,
            counts: ItemCounts::default(),
        };
        while !intake.take(&mut tables, &mut items)? {}
        let name = meta_name(range.id, MetaKind::Range, &[]);
        tables
            .meta
            .insert(name.as_slice(), meta.encode(&name).as_slice())?;
    }
    let view = writer.commit_apart(transaction)?;
    let freed = writer.show(&view, &[], Some(range.id));
    common.free(freed + range.replace(Some(&meta), view));
    Ok(meta)
}

fn header(
    items: &mut Items<impl Iterator<Item = Result<Bytes, EngineError>>>,
) -> Result<RangeMeta, EngineError> {
    let item = items.next()?;
    if item.kind != ItemKind::Header as u8 {
        return Err(refused("they do not begin with a header"));
    }
    RangeMeta::decode(HEADER_NAME, &item.value)
}

/// Puts items into the tables.
struct Intake<'a> {
    range: &'a Range,
    meta: &'a RangeMeta,
    counts: ItemCounts,
}

impl Intake<'_> {
    /// Takes one item. True: it was the trailer, and all is there.
    fn take(
        &mut self,
        tables: &mut Tables<'_>,
        items: &mut Items<impl Iterator<Item = Result<Bytes, EngineError>>>,
    ) -> Result<bool, EngineError> {
        let sum = items.sum.clone().finalize();
        let item = items.next()?;
        let (key, value) = (item.key.as_ref(), item.value.as_ref());
        match item.kind {
            kind if kind == ItemKind::Meta as u8 => {
                let name = meta_name(self.range.id, MetaKind::Caller, key);
                let sealed = record::seal_bytes(&name, value);
                tables.meta.insert(name.as_slice(), sealed.as_slice())?;
                self.counts.meta += 1;
            }
            kind if kind == ItemKind::Current as u8 => {
                self.check_key(key)?;
                record::decode(key, value)?;
                tables.current.insert(key, value)?;
                self.counts.current += 1;
            }
            kind if kind == ItemKind::History as u8 => {
                self.take_block(tables, key, value)?;
                self.counts.history += 1;
            }
            kind if kind == ItemKind::Trailer as u8 => {
                if value != self.counts.encode(sum) || !items.is_at_end() {
                    return Err(refused("they do not add up to their trailer"));
                }
                return Ok(true);
            }
            _ => return Err(refused("they have an item of unknown kind")),
        }
        Ok(false)
    }

    /// Takes a block of history; `key` is its run.
    fn take_block(
        &self,
        tables: &mut Tables<'_>,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), EngineError> {
        let run = key.try_into().map(u64::from_le_bytes);
        let run = run.map_err(|_| refused("they have a block of no run"))?;
        let mut last: Option<(Bytes, u64)> = None;
        for (key, stored) in Block::open(value)?.entries() {
            self.check_key(&key)?;
            let (record, _) = history::decode(run, &key, &stored)?;
            let name = (key, !record.revision);
            if last.as_ref().is_some_and(|last| *last >= name) {
                return Err(refused("they have a block that is not sorted"));
            }
            last = Some(name);
        }
        if let Some((key, complement)) = last {
            let name = (self.range.id, run, key.as_ref(), complement);
            tables.history.insert(name, value)?;
        }
        Ok(())
    }

    fn check_key(&self, key: &[u8]) -> Result<(), EngineError> {
        let (start, end) = &self.meta.interval;
        if key < start.as_ref() || (!end.is_empty() && key >= end.as_ref()) {
            return Err(refused("they have a key outside of their interval"));
        }
        Ok(())
    }
}

struct Item {
    kind: u8,
    key: Bytes,
    value: Bytes,
}

/// The stream of items in a sequence of chunks.
struct Items<I> {
    chunks: I,
    next_chunk: u64,
    saw_last: bool,
    buffer: Vec<u8>,
    /// What of the buffer was taken already.
    taken: usize,
    sum: crc32fast::Hasher,
}

impl<I: Iterator<Item = Result<Bytes, EngineError>>> Items<I> {
    fn new(chunks: I) -> Self {
        Self {
            chunks,
            next_chunk: 0,
            saw_last: false,
            buffer: Vec::new(),
            taken: 0,
            sum: crc32fast::Hasher::new(),
        }
    }

    fn is_at_end(&self) -> bool {
        self.saw_last && self.taken == self.buffer.len()
    }

    fn next(&mut self) -> Result<Item, EngineError> {
        let head = self.take(ITEM_HEAD_BYTES)?;
        let length = |at: usize| {
            let bytes = head[at..at + 4].try_into().expect("four bytes of the head");
            u32::from_le_bytes(bytes) as usize
        };
        let (key_len, value_len) = (length(1), length(5));
        if key_len.saturating_add(value_len) > ITEM_BYTES_MAX {
            return Err(refused("they have an item that is too large"));
        }
        let key = self.take(key_len)?;
        let value = self.take(value_len)?;
        Ok(Item {
            kind: head[0],
            key,
            value,
        })
    }

    fn take(&mut self, len: usize) -> Result<Bytes, EngineError> {
        while self.buffer.len() - self.taken < len {
            self.buffer.drain(..self.taken);
            self.taken = 0;
            self.pull()?;
        }
        let taken = Bytes::copy_from_slice(&self.buffer[self.taken..self.taken + len]);
        self.taken += len;
        self.sum.update(&taken);
        Ok(taken)
    }

    /// Takes the next chunk's body.
    fn pull(&mut self) -> Result<(), EngineError> {
        if self.saw_last {
            return Err(refused("they end within an item"));
        }
        let chunk = self
            .chunks
            .next()
            .ok_or_else(|| refused("the last ones are missing"))??;
        let body = chunk_body(&chunk, self.next_chunk)?;
        self.saw_last = chunk[3] == CHUNK_IS_LAST;
        self.next_chunk += 1;
        self.buffer.extend_from_slice(body);
        Ok(())
    }
}

/// The body of a chunk that is intact and in its place.
fn chunk_body(chunk: &[u8], number: u64) -> Result<&[u8], EngineError> {
    if chunk.len() > CHUNK_BYTES_MAX || chunk.len() < CHUNK_HEAD_BYTES + 4 {
        return Err(refused("one has an impossible size"));
    }
    let (body, sum) = chunk.split_at(chunk.len() - 4);
    if sum != crc32fast::hash(body).to_le_bytes() || chunk[..2] != CHUNK_MAGIC {
        return Err(refused("one is damaged"));
    }
    if chunk[2] != EXPORT_VERSION {
        return Err(EngineError::Version {
            what: "a chunk of an export",
            found: chunk[2].into(),
            known: EXPORT_VERSION.into(),
        });
    }
    let (head, body) = body.split_at(CHUNK_HEAD_BYTES);
    if head[4..12] != number.to_le_bytes() {
        return Err(refused("they are not in order"));
    }
    if head[12..16] != (body.len() as u32).to_le_bytes() {
        return Err(refused("one has another length than it says"));
    }
    Ok(body)
}

fn refused(what: &'static str) -> EngineError {
    EngineError::Import { what }
}
