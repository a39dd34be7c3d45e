//! What was written to a range after a revision: every put and every delete that took effect, read
//! from memory and file together, key by key.
//!
//! Keys come in order, each one's writes newest first; whoever wants them in the order of the log
//! sorts. A walk reads one state of the range, taken when it begins, so it can be done in parts
//! while the range is written to. Not here: who follows a range, and what is recent enough to be
//! in memory anyway.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use redb::{Range, ReadOnlyTable};

use super::Version;
use super::error::EngineError;
use super::history::{self, HistoryKey, RunReader};
use super::memory::{MemTable, Slot, Slots};
use super::record::{self, Record};
use super::scan::successor;
use super::store::Inner;
use super::table::RangeTable;
use super::view::FileView;

/// A state of a range, to be read for what was written after a revision.
pub struct Changes {
    range: u64,
    interval: (Bytes, Bytes),
    above: u64,
    /// Newest first.
    layers: Vec<Arc<MemTable>>,
    view: Arc<FileView>,
    engine: Arc<Inner>,
}

impl fmt::Debug for Changes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Changes")
            .field("range", &self.range)
            .field("above", &self.above)
            .finish_non_exhaustive()
    }
}

/// A put or a delete of a key.
pub struct Written<'a> {
    /// The encoded key.
    pub key: &'a Bytes,
    /// Of the log entry that did it.
    pub revision: u64,
    what: What<'a>,
}

enum What<'a> {
    Deleted,
    Slot(&'a Slot),
    Record(Record<'a>),
}

impl Written<'_> {
    /// Whether the key was deleted.
    pub fn is_delete(&self) -> bool {
        matches!(self.what, What::Deleted)
    }

    /// What was put; none: the key was deleted. Copies what lies in the file.
    pub fn version(&self) -> Option<Version> {
        match &self.what {
            What::Deleted => None,
            What::Slot(slot) => slot.version(),
            What::Record(record) => Some(record.version()),
        }
    }
}

impl RangeTable {
    /// The present state of the range, to be read for what was written after revision `above`.
    ///
    /// Until it is dropped, the file keeps the pages of that state.
    ///
    /// # Errors
    /// [`EngineError::BelowFloor`]: not all of it can be read any more. Or as [`RangeTable::get`].
    pub fn changes(&self, above: u64) -> Result<Changes, EngineError> {
        let mut state = self.range.state.write();
        self.check_served(&state)?;
        let floor = state.effective_floor();
        if above < floor {
            return Err(EngineError::BelowFloor {
                asked: above,
                floor,
            });
        }
        // Copying the keys that are written to now would keep their writer waiting.
        state.set_active_aside();
        Ok(Changes {
            range: self.range.id,
            interval: self.range.interval.clone(),
            above,
            layers: state.tables_newest_first(),
            view: state.view.clone(),
            engine: self.engine.clone(),
        })
    }
}

impl Changes {
    /// Shows all writes of keys from `start` up to, not including, `end` (empty: no end), and
    /// returns where to go on after some `keys_max` keys were looked at; none: at the end.
    ///
    /// # Errors
    /// As [`RangeTable::get`].
    pub fn walk(
        &self,
        (start, end): (&Bytes, &Bytes),
        keys_max: usize,
        see: &mut dyn FnMut(&Written<'_>),
    ) -> Result<Option<Bytes>, EngineError> {
        self.engine
            .watched(self.walk_within(start, end, keys_max, see))
    }

    fn walk_within(
        &self,
        start: &Bytes,
        end: &Bytes,
        keys_max: usize,
        see: &mut dyn FnMut(&Written<'_>),
    ) -> Result<Option<Bytes>, EngineError> {
        let start = start.max(&self.interval.0);
        let ends = [&self.interval.1, end];
        let end = ends.into_iter().filter(|end| !end.is_empty()).min();
        if end.is_some_and(|end| end <= start) {
            return Ok(None);
        }
        let runs = self.view.runs_above(self.range, self.above)?;
        let mut heads = self.sources(start, end.map(AsRef::as_ref), &runs)?;
        let mut looked_at = 0;
        while let Some(key) = heads.iter().filter_map(Head::key).min().cloned() {
            if looked_at >= keys_max {
                return Ok(Some(key));
            }
            looked_at += 1;
            let mut was_written = false;
            for head in &mut heads {
                was_written |= head.step_past(&key, self.above)?;
            }
            if was_written {
                self.tell(&key, &runs, see)?;
            }
        }
        Ok(None)
    }

    /// Where keys come from that may have been written to.
    fn sources<'a>(
        &'a self,
        start: &Bytes,
        end: Option<&[u8]>,
        runs: &[u64],
    ) -> Result<Vec<Head<'a>>, EngineError> {
        let mut sources = Vec::with_capacity(self.layers.len() + runs.len() + 1);
        for layer in &self.layers {
            if layer.last_revision() > self.above {
                sources.push(Source::Layer(Box::new(layer.range(start, end))));
            }
        }
        let bounds = (
            Bound::Included(start.as_ref()),
            end.map_or(Bound::Unbounded, Bound::Excluded),
        );
        let current = self.view.current.range::<&[u8]>(bounds)?;
        sources.push(Source::Current(Box::new(current)));
        for run in runs {
            sources.push(Source::Run {
                reader: RunReader::new(&self.view.history, self.range, *run),
                start: start.clone(),
                end: end.map(Bytes::copy_from_slice),
            });
        }
        let head = |mut source: Source<'a>| {
            let next = source.next(self.above)?;
            Ok(Head { source, next })
        };
        sources.into_iter().map(head).collect()
    }

    /// Shows the writes of one key.
    fn tell(
        &self,
        key: &Bytes,
        runs: &[u64],
        see: &mut dyn FnMut(&Written<'_>),
    ) -> Result<(), EngineError> {
        let mut telling = Telling {
            key,
            above: self.above,
            newer: None,
            see,
        };
        for slots in self.layers.iter().filter_map(|layer| layer.get(key)) {
            for slot in slots.as_slice().iter().rev() {
                let what = match slot.version() {
                    Some(_) => What::Slot(slot),
                    None => What::Deleted,
                };
                if !telling.take(slot.revision, what) {
                    return Ok(());
                }
            }
        }
        if let Some(stored) = self.view.current.get(key.as_ref())? {
            let record = record::decode(key, stored.value())?;
            if !telling.take(record.revision, What::Record(record)) {
                return Ok(());
            }
        }
        for run in runs.iter().rev() {
            let mut reader = RunReader::new(&self.view.history, self.range, *run);
            let mut next = Some(0);
            while let Some(complement) = next
                && let Some((found, stored)) = reader.first_from(key, complement)?
                && found == key
            {
                let (record, ending) = history::decode(*run, key, &stored)?;
                let goes_on = !ending.by_delete || telling.take(ending.revision, What::Deleted);
                if !goes_on || !telling.take(record.revision, What::Record(record)) {
                    return Ok(());
                }
                // Complements rise as revisions fall.
                next = (!record.revision).checked_add(1);
            }
        }
        Ok(())
    }
}

/// The writes of one key on their way out, newest first.
struct Telling<'a, 's> {
    key: &'a Bytes,
    above: u64,
    /// The write that came next after those to come, and whether it was a delete.
    newer: Option<(u64, bool)>,
    see: &'s mut dyn FnMut(&Written<'_>),
}

impl Telling<'_, '_> {
    /// Takes the next older write, and says whether older ones are wanted.
    fn take(&mut self, revision: u64, what: What<'_>) -> bool {
        // Of several writes of one entry the last alone was ever visible.
        if self.newer.is_some_and(|(newer, _)| newer == revision) {
            return true;
        }
        let is_delete = matches!(what, What::Deleted);
        if !is_delete {
            match self.newer {
                Some((ended, _)) if ended <= self.above => return false,
                // A delete took effect where there was something to delete.
                Some((ended, true)) => self.show(ended, What::Deleted),
                Some((_, false)) | None => {}
            }
            if revision > self.above {
                self.show(revision, what);
            }
        }
        self.newer = Some((revision, is_delete));
        revision > self.above
    }

    fn show(&mut self, revision: u64, what: What<'_>) {
        (self.see)(&Written {
            key: self.key,
            revision,
            what,
        });
    }
}

/// A source, and the key that it has come to.
struct Head<'a> {
    source: Source<'a>,
    next: Option<(Bytes, bool)>,
}

impl Head<'_> {
    fn key(&self) -> Option<&Bytes> {
        self.next.as_ref().map(|(key, _)| key)
    }

    /// Goes on if it has come to `key`, and says whether it knows a write of it.
    fn step_past(&mut self, key: &Bytes, above: u64) -> Result<bool, EngineError> {
        match self.next.take_if(|(at, _)| at == key) {
            Some((_, was_written)) => {
                self.next = self.source.next(above)?;
                Ok(was_written)
            }
            None => Ok(false),
        }
    }
}

type LayerRows<'a> = Box<dyn Iterator<Item = (&'a Bytes, &'a Slots)> + Send + 'a>;

/// Sorted keys, each with whether the source knows a write of it.
enum Source<'a> {
    Layer(LayerRows<'a>),
    Current(Box<Range<'static, &'static [u8], &'static [u8]>>),
    Run {
        reader: RunReader<'a, ReadOnlyTable<HistoryKey, &'static [u8]>>,
        start: Bytes,
        end: Option<Bytes>,
    },
}

impl Source<'_> {
    fn next(&mut self, above: u64) -> Result<Option<(Bytes, bool)>, EngineError> {
        match self {
            Self::Layer(rows) => Ok(rows
                .next()
                .map(|(key, slots)| (key.clone(), slots.newest().revision > above))),
            Self::Current(rows) => {
                let Some((key, stored)) = rows.next().transpose()? else {
                    return Ok(None);
                };
                let was_written = record::claimed_revision(stored.value()) > above;
                Ok(Some((Bytes::copy_from_slice(key.value()), was_written)))
            }
            Self::Run { reader, start, end } => {
                let found = reader.first_from(start, 0)?.map(|(key, _)| key);
                let Some(key) = found.filter(|key| end.as_ref().is_none_or(|end| key < end)) else {
                    return Ok(None);
                };
                *start = successor(&key);
                // Alone, so that it does not keep its block in memory.
                Ok(Some((Bytes::copy_from_slice(&key), true)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::disk::SimDisk;
    use crate::engine::{Change, Engine, EngineOptions, Position};

    fn open() -> (Engine, RangeTable) {
        let options = EngineOptions::default();
        let engine = Engine::open(Arc::new(SimDisk::new()), Path::new("/e"), options).unwrap();
        let table = engine.open_range(1, (Bytes::new(), Bytes::new())).unwrap();
        (engine, table)
    }

    fn put(key: &str, revision: u64) -> Change {
        let version = Version {
            revision,
            expiry: None,
            value: format!("{key}@{revision}").into(),
            causal: None,
        };
        let key = Bytes::copy_from_slice(key.as_bytes());
        Change::Put { key, version }
    }

    fn delete(key: &str, revision: u64) -> Change {
        let key = Bytes::copy_from_slice(key.as_bytes());
        Change::Delete { key, revision }
    }

    /// All that was written after `above`, by revision and key, in steps of `keys_max` keys.
    fn told(table: &RangeTable, above: u64, keys_max: usize) -> Vec<String> {
        let changes = table.changes(above).unwrap();
        let mut told = BTreeMap::new();
        let mut next = Some(Bytes::new());
        while let Some(start) = next {
            let mut see = |written: &Written<'_>| {
                let what = match written.version() {
                    Some(version) => String::from_utf8(version.value.to_vec()).unwrap(),
                    None => format!("-{}", String::from_utf8_lossy(written.key)),
                };
                let place = (written.revision, written.key.clone());
                assert!(told.insert(place, what).is_none(), "twice");
            };
            let bounds = (&start, &Bytes::new());
            next = changes.walk(bounds, keys_max, &mut see).unwrap();
        }
        told.into_iter()
            .map(|((revision, _), what)| format!("{revision}:{what}"))
            .collect()
    }

    #[tokio::test]
    async fn writes_are_told_wherever_they_lie() {
        let (_engine, table) = open();
        let entries = [
            vec![put("a", 1), put("b", 1)],
            vec![put("a", 2)],
            vec![delete("b", 3)],
            // Put and deleted by one entry: nothing that was ever visible.
            vec![put("c", 4), delete("c", 4)],
            vec![put("a", 5), put("a", 5)],
            vec![delete("a", 6), put("b", 6)],
            // Deletes of what is not there have no effect.
            vec![delete("a", 7), delete("z", 7)],
        ];
        let wanted = ["1:a@1", "1:b@1", "2:a@2", "3:-b", "5:a@5", "6:-a", "6:b@6"];
        for flushed in 0..=entries.len() {
            let (_engine, table) = match flushed {
                0 => (_engine.clone(), table.clone()),
                _ => open(),
            };
            for (at, entry) in entries.iter().enumerate() {
                let index = at as u64 + 1;
                table.apply(Position { term: 1, index }, entry.clone());
                if at + 1 == flushed || at + 3 == flushed {
                    table.flush_all(Vec::new()).await.unwrap();
                }
            }
            for above in 0..8 {
                let later = |text: &&str| text[..1].parse::<u64>().unwrap() > above;
                let later: Vec<_> = wanted.iter().copied().filter(later).collect();
                for keys_max in [1, 2, 100] {
                    assert_eq!(told(&table, above, keys_max), later, "{flushed} {above}");
                }
            }
        }
    }

    #[tokio::test]
    async fn what_is_collected_is_refused_and_the_rest_is_whole() {
        let (_engine, table) = open();
        for index in 1..=6 {
            table.apply(Position { term: 1, index }, vec![put("a", index)]);
        }
        table.set_floor(3);
        table.flush_all(Vec::new()).await.unwrap();
        let refused = table.changes(2).unwrap_err();
        assert!(matches!(
            refused,
            EngineError::BelowFloor { asked: 2, floor: 3 }
        ));
        assert_eq!(told(&table, 3, 9), ["4:a@4", "5:a@5", "6:a@6"]);
    }
}
