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

use super::EngineOptions;
use super::error::EngineError;
use super::file::{EngineFile, Writer};
use super::flush::Tables;
use super::history::{HistoryKey, next_run, runs_through};
use super::range::Range;
use super::store::Common;
use super::view::{MetaKind, meta_name};

/// How far a range's history has been removed; holds once committed.
pub(super) struct Collected {
    range: Arc<Range>,
    through: u64,
    blocks: usize,
}

impl Collected {
    /// Takes note, after the commit.
    pub(super) fn settle(&self) {
        self.range
            .collected
            .fetch_max(self.through, Ordering::Relaxed);
    }
}

/// Removes up to `limit` blocks of the range's runs that ended at or below
/// `floor`.
pub(super) fn history_step(
    history: &mut Table<'_, HistoryKey, &'static [u8]>,
    range: &Arc<Range>,
    floor: u64,
    limit: usize,
) -> Result<Collected, EngineError> {
    let collected = range.collected.load(Ordering::Relaxed);
    let blocks = if collected < floor {
        remove_history(history, range.id, floor, limit)?
    } else {
        0
    };
    Ok(Collected {
        range: range.clone(),
        through: if blocks < limit { floor } else { collected },
        blocks,
    })
}

/// Removes up to `limit` blocks of the range's runs up to `through`. Says how
/// many.
fn remove_history(
    history: &mut Table<'_, HistoryKey, &'static [u8]>,
    range: u64,
    through: u64,
    limit: usize,
) -> Result<usize, EngineError> {
    let mut doomed: Vec<(u64, Bytes, u64)> = Vec::new();
    for found in history.range(runs_through(range, through))?.take(limit) {
        let (name, _) = found?;
        let (_, run, key, complement) = name.value();
        doomed.push((run, Bytes::copy_from_slice(key), complement));
    }
    for (run, key, complement) in &doomed {
        history.remove((range, *run, key.as_ref(), *complement))?;
    }
    Ok(doomed.len())
}

/// One step of removing: a piece of a dropped range, or old history. Says
/// whether there may be more.
pub(super) fn step(file: &EngineFile, common: &Common) -> Result<bool, EngineError> {
    if file.has_dropping() {
        return drop_step(file, &common.options, |_, _| true);
    }
    let view = file.view();
    for range in file.ranges() {
        // Only the committed floor counts, see above.
        let Some(meta) = view.range_meta(range.id, MetaKind::Range)? else {
            continue;
        };
        let collected = range.collected.load(Ordering::Relaxed);
        let next = next_run(&view.history, range.id, collected)?;
        if next.is_some_and(|run| run <= meta.floor) {
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
    let limit = common.options.history_blocks_max();
    let collected = history_step(
        &mut Tables::open(&transaction)?.history,
        range,
        meta.floor,
        limit,
    )?;
    if collected.blocks == 0 {
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
    options: &EngineOptions,
    wanted: impl Fn(u64, &(Bytes, Bytes)) -> bool,
) -> Result<bool, EngineError> {
    let writer = file.writer()?;
    let dropping = file.view().ranges(MetaKind::Dropping)?;
    if dropping.is_empty() {
        file.set_none_dropping();
    }
    let Some((id, meta)) = dropping
        .into_iter()
        .find(|(id, meta)| wanted(*id, &meta.interval))
    else {
        return Ok(false);
    };
    drop_piece(&writer, id, &meta.interval, options)?;
    Ok(true)
}

fn drop_piece(
    writer: &Writer<'_>,
    id: u64,
    interval: &(Bytes, Bytes),
    options: &EngineOptions,
) -> Result<(), EngineError> {
    let transaction = writer.begin()?;
    {
        let mut tables = Tables::open(&transaction)?;
        let limit = options.collect_records_max;
        let mut done = remove_current(&mut tables, interval, limit)? < limit;
        if done {
            let limit = options.history_blocks_max();
            done = remove_history(&mut tables.history, id, u64::MAX, limit)? < limit;
        }
        if done {
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

/// Removes all data of a range, within the caller's transaction.
pub(super) fn remove_all(
    tables: &mut Tables<'_>,
    id: u64,
    (start, end): &(Bytes, Bytes),
) -> Result<(), EngineError> {
    let behind = (!end.is_empty()).then_some(end.as_ref());
    match behind {
        Some(end) => tables
            .current
            .retain_in(start.as_ref()..end, |_, _| false)?,
        None => tables.current.retain_in(start.as_ref().., |_, _| false)?,
    }
    let all = runs_through(id, u64::MAX);
    tables.history.retain_in(all, |_, _| false)?;
    Ok(())
}
