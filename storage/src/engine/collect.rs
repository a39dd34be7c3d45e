//! The way out of a file: old history, and ranges that were dropped.
//!
//! Everything here is removed in bounded steps, so that a flush never waits
//! long for its turn. What a floor has made unreadable leaves only after a
//! commit of that floor: a crash cannot bring the old floor back without the
//! data that it promises.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use redb::{ReadableTable, Table};

use super::error::EngineError;
use super::file::{EngineFile, Writer};
use super::flush::Tables;
use super::range::Range;
use super::scan::bucket_bounds;
use super::store::Common;
use super::view::{HistoryKey, MetaKind, bucket_of, meta_name};

/// How far a range's history has been removed; holds once committed.
pub(super) struct Collected {
    range: Arc<Range>,
    next_bucket: u32,
    records: usize,
}

impl Collected {
    /// Takes note, after the commit.
    pub(super) fn settle(&self) {
        self.range
            .collected
            .store(self.next_bucket, Ordering::Relaxed);
    }
}

/// Removes up to `limit` records of the range's history that ended in buckets
/// wholly below `floor`.
pub(super) fn history_step(
    history: &mut Table<'_, HistoryKey, &'static [u8]>,
    range: &Arc<Range>,
    floor: u64,
    limit: usize,
) -> Result<Collected, EngineError> {
    let until = bucket_of(floor);
    let mut bucket = range.collected.load(Ordering::Relaxed);
    let mut left = limit;
    while bucket < until && left > 0 {
        let removed = remove_from_bucket(history, bucket, &range.interval, left)?;
        left -= removed;
        if removed == 0 {
            bucket = next_bucket(history, bucket)?.map_or(until, |next| next.min(until));
        }
    }
    Ok(Collected {
        range: range.clone(),
        next_bucket: bucket,
        records: limit - left,
    })
}

fn next_bucket(
    history: &Table<'_, HistoryKey, &'static [u8]>,
    bucket: u32,
) -> Result<Option<u32>, EngineError> {
    let Some(next) = bucket.checked_add(1) else {
        return Ok(None);
    };
    let found = history
        .range((next, [].as_slice(), 0)..)?
        .next()
        .transpose()?;
    Ok(found.map(|(name, _)| name.value().0))
}

fn remove_from_bucket(
    history: &mut Table<'_, HistoryKey, &'static [u8]>,
    bucket: u32,
    (start, end): &(Bytes, Bytes),
    limit: usize,
) -> Result<usize, EngineError> {
    let end = (!end.is_empty()).then_some(end.as_ref());
    let mut doomed: Vec<(Bytes, u64)> = Vec::new();
    for found in history
        .range(bucket_bounds(bucket, start, end))?
        .take(limit)
    {
        let (name, _) = found?;
        let (_, key, complement) = name.value();
        doomed.push((Bytes::copy_from_slice(key), complement));
    }
    for (key, complement) in &doomed {
        history.remove((bucket, key.as_ref(), *complement))?;
    }
    Ok(doomed.len())
}

/// One step of removing: a piece of a dropped range, or old history. Says
/// whether there may be more.
pub(super) fn step(file: &EngineFile, common: &Common) -> Result<bool, EngineError> {
    if file.has_dropping() {
        return drop_step(file, common.options.collect_records_max, |_| true);
    }
    let view = file.view();
    for range in file.ranges() {
        // Only the committed floor counts, see above.
        let Some(meta) = view.range_meta(range.id, MetaKind::Range)? else {
            continue;
        };
        if range.collected.load(Ordering::Relaxed) < bucket_of(meta.floor) {
            collect_range(file, common, &range)?;
            return Ok(true);
        }
    }
    Ok(false)
}

fn collect_range(
    file: &EngineFile,
    common: &Common,
    range: &Arc<Range>,
) -> Result<(), EngineError> {
    let writer = file.writer()?;
    // Anew, now that nobody else writes: an import may have come between.
    let meta = file.view().range_meta(range.id, MetaKind::Range)?;
    let Some(meta) = meta else {
        return Ok(());
    };
    let transaction = writer.begin()?;
    let limit = common.options.collect_records_max;
    let collected = history_step(
        &mut Tables::open(&transaction)?.history,
        range,
        meta.floor,
        limit,
    )?;
    if collected.records == 0 {
        transaction.abort()?;
    } else {
        writer.commit(transaction, &[])?;
    }
    collected.settle();
    Ok(())
}

/// Puts a range aside: its metadata is replaced by the mark that its data is
/// to be removed. Returns whether there was anything.
pub(super) fn mark_dropped(file: &EngineFile, id: u64) -> Result<Option<Arc<Range>>, EngineError> {
    let writer = file.writer()?;
    let view = file.view();
    let meta = view.range_meta(id, MetaKind::Range)?;
    if let Some(meta) = meta {
        let transaction = writer.begin()?;
        {
            let mut tables = Tables::open(&transaction)?;
            remove_meta(&mut tables, id)?;
            let name = meta_name(id, MetaKind::Dropping, &[]);
            tables
                .meta
                .insert(name.as_slice(), meta.encode(&name).as_slice())?;
        }
        writer.commit(transaction, &[])?;
    }
    Ok(file.remove_range(id))
}

/// Removes all metadata of a range.
pub(super) fn remove_meta(tables: &mut Tables<'_>, id: u64) -> Result<(), EngineError> {
    let start = meta_name(id, MetaKind::Range, &[]);
    let end = meta_name(id, MetaKind::Dropping, &[]);
    tables
        .meta
        .retain_in(start.as_slice()..end.as_slice(), |_, _| false)?;
    Ok(())
}

/// Removes a piece of a dropped range, chosen by its interval. Says whether
/// there was one.
pub(super) fn drop_step(
    file: &EngineFile,
    limit: usize,
    wanted: impl Fn(&(Bytes, Bytes)) -> bool,
) -> Result<bool, EngineError> {
    let writer = file.writer()?;
    let dropping = file.view().ranges(MetaKind::Dropping)?;
    if dropping.is_empty() {
        file.set_none_dropping();
    }
    let Some((id, meta)) = dropping
        .into_iter()
        .find(|(_, meta)| wanted(&meta.interval))
    else {
        return Ok(false);
    };
    drop_piece(&writer, id, &meta.interval, limit)?;
    Ok(true)
}

fn drop_piece(
    writer: &Writer<'_>,
    id: u64,
    interval: &(Bytes, Bytes),
    limit: usize,
) -> Result<(), EngineError> {
    let transaction = writer.begin()?;
    {
        let mut tables = Tables::open(&transaction)?;
        let mut left = limit - remove_current(&mut tables, interval, limit)?;
        let mut bucket = Some(0);
        while let Some(number) = bucket
            && left > 0
        {
            let removed = remove_from_bucket(&mut tables.history, number, interval, left)?;
            left -= removed;
            if removed == 0 {
                bucket = next_bucket(&tables.history, number)?;
            }
        }
        if left > 0 {
            let name = meta_name(id, MetaKind::Dropping, &[]);
            tables.meta.remove(name.as_slice())?;
        }
    }
    writer.commit(transaction, &[])?;
    Ok(())
}

fn remove_current(
    tables: &mut Tables<'_>,
    (start, end): &(Bytes, Bytes),
    limit: usize,
) -> Result<usize, EngineError> {
    let mut doomed = Vec::new();
    for found in tables.current.range(start.as_ref()..)?.take(limit) {
        let (key, _) = found?;
        if !end.is_empty() && key.value() >= end.as_ref() {
            break;
        }
        doomed.push(Bytes::copy_from_slice(key.value()));
    }
    for key in &doomed {
        tables.current.remove(key.as_ref())?;
    }
    Ok(doomed.len())
}

/// Removes all data of an interval, within the caller's transaction.
pub(super) fn remove_all(
    tables: &mut Tables<'_>,
    interval: &(Bytes, Bytes),
) -> Result<(), EngineError> {
    let (start, end) = interval;
    let behind = (!end.is_empty()).then_some(end.as_ref());
    match behind {
        Some(end) => tables
            .current
            .retain_in(start.as_ref()..end, |_, _| false)?,
        None => tables.current.retain_in(start.as_ref().., |_, _| false)?,
    }
    let mut bucket = Some(0);
    while let Some(number) = bucket {
        let bounds = bucket_bounds(number, start, behind);
        tables.history.retain_in(bounds, |_, _| false)?;
        bucket = next_bucket(&tables.history, number)?;
    }
    Ok(())
}
