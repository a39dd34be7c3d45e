//! Merging memory and file into sorted rows: pages of a scan, whole ranges.
//!
//! A [`Snapshot`] is taken under the range's lock and holds all that its state
//! is made of; the merge then runs without any lock, so a page that waits for
//! the disk keeps nobody from writing.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use redb::{Range, ReadOnlyTable};

use super::Version;
use super::error::EngineError;
use super::history::{self, HistoryKey, RunReader};
use super::memory::{MemTable, Slots};
use super::record;
use super::view::FileView;

/// How many keys more than it returns rows a page looks at: keys that were
/// deleted, or are not visible at the page's revision.
const EXAMINED_KEYS_EXTRA_MAX: usize = 4096;
/// How many keys more than it returns rows a page copies out of the active
/// table, which happens under the range's lock.
const COPIED_KEYS_EXTRA_MAX: usize = 64;

/// What a scan asks for.
#[derive(Clone, Debug)]
pub struct ScanRequest {
    /// First key of interest.
    pub start: Bytes,
    /// The key behind the last of interest; empty: no end. The range's own
    /// interval bounds every scan.
    pub end: Bytes,
    /// From the end towards the start.
    pub reverse: bool,
    /// The revision to read at; None: the newest applied state.
    pub at: Option<u64>,
    /// Most rows in a page (at least 1).
    pub rows_max: usize,
    /// A page ends with the row that makes its keys and values reach this.
    pub bytes_max: usize,
    /// Leave values empty.
    pub keys_only: bool,
}

impl Default for ScanRequest {
    fn default() -> Self {
        Self {
            start: Bytes::new(),
            end: Bytes::new(),
            reverse: false,
            at: None,
            rows_max: 1000,
            bytes_max: 1 << 20,
            keys_only: false,
        }
    }
}

/// A part of a scan, as of one applied position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanPage {
    /// Keys and their versions, in the scan's order.
    pub rows: Vec<(Bytes, Version)>,
    /// Where to go on: the next request's `start` (its `end` when reverse).
    /// None: there is no more. A page may be short, even empty, and have one.
    pub resume: Option<Bytes>,
}

/// What one source knows about a key.
#[derive(Clone, Debug)]
enum Seen {
    Value(Version),
    Deleted,
    /// Nothing that is visible at the scan's revision: ask the next source.
    Nothing,
}

type Row = (Bytes, Seen);
type CurrentRows = Range<'static, &'static [u8], &'static [u8]>;

/// Bounds and manner of a scan, clipped to its range.
#[derive(Clone, Debug)]
pub(super) struct Course {
    range: u64,
    start: Bytes,
    end: Option<Bytes>,
    reverse: bool,
    at: Option<u64>,
    keys_only: bool,
}

impl Course {
    /// Everything in `interval`.
    pub(super) fn whole(range: u64, interval: &(Bytes, Bytes)) -> Self {
        Self::new(range, interval, &ScanRequest::default())
    }

    pub(super) fn new(range: u64, interval: &(Bytes, Bytes), request: &ScanRequest) -> Self {
        let ends = [&interval.1, &request.end];
        let end = ends.into_iter().filter(|end| !end.is_empty()).min();
        Self {
            range,
            start: (&interval.0).max(&request.start).clone(),
            end: end.cloned(),
            reverse: request.reverse,
            at: request.at,
            keys_only: request.keys_only,
        }
    }

    fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    fn see(&self, slots: &Slots) -> Seen {
        let Some(slot) = slots.visible(self.at) else {
            return Seen::Nothing;
        };
        slot.version().map_or(Seen::Deleted, Seen::Value)
    }

    /// Whether the scan comes to `key` before it comes to `other`.
    fn is_before(&self, key: &[u8], other: &[u8]) -> bool {
        if self.reverse {
            key > other
        } else {
            key < other
        }
    }

    /// Where a scan that has dealt with `key` goes on.
    fn behind(&self, key: &[u8]) -> Bytes {
        if self.reverse {
            return Bytes::copy_from_slice(key);
        }
        successor(key)
    }

    fn rows_of<'a>(
        &self,
        table: &'a MemTable,
    ) -> Box<dyn Iterator<Item = (&'a Bytes, &'a Slots)> + 'a> {
        let rows = table.range(&self.start, self.end.as_deref());
        if self.reverse {
            Box::new(rows.rev())
        } else {
            Box::new(rows)
        }
    }
}

/// All that a scan reads, as of one applied position.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Copied from the active table, in the scan's order.
    copied: Vec<Row>,
    /// The last copied key, if the active table has more behind it.
    copied_through: Option<Bytes>,
    /// Newest first.
    layers: Vec<Arc<MemTable>>,
    view: Arc<FileView>,
}

impl Snapshot {
    /// Called under the range's lock: no disk, bounded work.
    pub(super) fn take(
        course: &Course,
        rows_max: usize,
        active: &MemTable,
        layers: Vec<Arc<MemTable>>,
        view: Arc<FileView>,
    ) -> Self {
        let limit = rows_max
            .saturating_mul(2)
            .saturating_add(COPIED_KEYS_EXTRA_MAX);
        let mut copied = Vec::new();
        let mut rows = course.rows_of(active);
        while copied.len() < limit
            && let Some((key, slots)) = rows.next()
        {
            copied.push((key.clone(), course.see(slots)));
        }
        let last = copied.last().map(|(key, _)| key.clone());
        let copied_through = last.filter(|_| rows.next().is_some());
        Self {
            copied,
            copied_through,
            layers,
            view,
        }
    }

    /// The rows of one page.
    pub(super) fn page(
        self,
        course: &Course,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<ScanPage, EngineError> {
        let copied_through = self.copied_through.clone();
        let mut page = ScanPage::default();
        let mut merge = Merge::new(course, &self.view, &self.layers, self.copied)?;
        let examined_max = rows_max.saturating_add(EXAMINED_KEYS_EXTRA_MAX);
        let (mut bytes, mut examined, mut last) = (0, 0, None);
        while let Some(key) = merge.peek().cloned() {
            let out_of_reach = copied_through
                .as_ref()
                .is_some_and(|end| course.is_before(end, &key));
            if out_of_reach {
                break;
            }
            if page.rows.len() >= rows_max.max(1) || bytes >= bytes_max || examined >= examined_max
            {
                page.resume = last;
                return Ok(page);
            }
            examined += 1;
            last = Some(course.behind(&key));
            if let Some(version) = merge.take(&key)? {
                bytes += key.len() + version.value.len();
                page.rows.push((key, version));
            }
        }
        page.resume = copied_through.map(|key| course.behind(&key));
        Ok(page)
    }

    /// Every live row, without bound.
    pub(super) fn for_each(
        self,
        course: &Course,
        mut row: impl FnMut(&Bytes, &Version),
    ) -> Result<(), EngineError> {
        debug_assert!(
            self.copied_through.is_none(),
            "the active table was set aside"
        );
        let mut merge = Merge::new(course, &self.view, &self.layers, self.copied)?;
        while let Some(key) = merge.peek().cloned() {
            if let Some(version) = merge.take(&key)? {
                row(&key, &version);
            }
        }
        Ok(())
    }
}

/// Sorted rows of several sources, the newer source winning.
struct Merge<'a> {
    course: &'a Course,
    heads: Vec<(Source<'a>, Option<Row>)>,
}

impl<'a> Merge<'a> {
    fn new(
        course: &'a Course,
        view: &'a FileView,
        layers: &'a [Arc<MemTable>],
        copied: Vec<Row>,
    ) -> Result<Self, EngineError> {
        let mut sources = Vec::new();
        if !course.is_empty() {
            sources.push(Source::Copied(copied.into_iter()));
            sources.extend(
                layers
                    .iter()
                    .map(|layer| Source::Layer(course.rows_of(layer))),
            );
            let end = course.end.as_deref();
            let current = view.current.range::<&[u8]>((
                Bound::Included(course.start.as_ref()),
                end.map_or(Bound::Unbounded, Bound::Excluded),
            ))?;
            sources.push(Source::Current(Box::new(current)));
            for run in course
                .at
                .map_or(Ok(Vec::new()), |at| view.runs_above(course.range, at))?
            {
                sources.push(Source::Run(RunRows::new(view, run, course)));
            }
        }
        let heads = sources.into_iter().map(|mut source| {
            let row = source.next(course)?;
            Ok((source, row))
        });
        let heads = heads.collect::<Result<_, EngineError>>()?;
        Ok(Self { course, heads })
    }

    /// The key that comes next.
    fn peek(&self) -> Option<&Bytes> {
        let keys = self
            .heads
            .iter()
            .filter_map(|(_, row)| Some(&row.as_ref()?.0));
        if self.course.reverse {
            keys.max()
        } else {
            keys.min()
        }
    }

    /// The version of `key`, which [`Merge::peek`] named; steps behind it.
    fn take(&mut self, key: &Bytes) -> Result<Option<Version>, EngineError> {
        let mut result = Seen::Nothing;
        for (source, row) in &mut self.heads {
            if let Some((_, seen)) = row.take_if(|(at, _)| at == key) {
                *row = source.next(self.course)?;
                if matches!(result, Seen::Nothing) {
                    result = seen;
                }
            }
        }
        match result {
            Seen::Value(version) if self.course.keys_only => Ok(Some(Version {
                value: Bytes::new(),
                ..version
            })),
            Seen::Value(version) => Ok(Some(version)),
            Seen::Deleted | Seen::Nothing => Ok(None),
        }
    }
}

/// One sorted source of rows.
enum Source<'a> {
    Copied(std::vec::IntoIter<Row>),
    Layer(Box<dyn Iterator<Item = (&'a Bytes, &'a Slots)> + 'a>),
    Current(Box<CurrentRows>),
    Run(RunRows<'a>),
}

impl Source<'_> {
    fn next(&mut self, course: &Course) -> Result<Option<Row>, EngineError> {
        match self {
            Self::Copied(rows) => Ok(rows.next()),
            Self::Layer(rows) => Ok(rows
                .next()
                .map(|(key, slots)| (key.clone(), course.see(slots)))),
            Self::Current(rows) => next_current(rows, course),
            Self::Run(rows) => rows.next(),
        }
    }
}

fn next_current(rows: &mut CurrentRows, course: &Course) -> Result<Option<Row>, EngineError> {
    let next = if course.reverse {
        rows.next_back()
    } else {
        rows.next()
    };
    let Some(next) = next else {
        return Ok(None);
    };
    let (key, stored) = next?;
    let key = Bytes::copy_from_slice(key.value());
    let record = record::decode(&key, stored.value())?;
    let seen = match course.at {
        Some(at) if record.revision > at => Seen::Nothing,
        _ if course.keys_only => Seen::Value(record.bare_version()),
        _ => Seen::Value(record.version()),
    };
    Ok(Some((key, seen)))
}

/// The keys of one run of history, each with its version alive at the scan's
/// revision. It seeks from key to key, so that a key with many versions costs
/// little more than one with few.
struct RunRows<'a> {
    reader: RunReader<'a, ReadOnlyTable<HistoryKey, &'static [u8]>>,
    run: u64,
    start: Bytes,
    end: Option<Bytes>,
    reverse: bool,
    at: u64,
}

impl<'a> RunRows<'a> {
    fn new(view: &'a FileView, run: u64, course: &Course) -> Self {
        Self {
            reader: RunReader::new(&view.history, course.range, run),
            run,
            start: course.start.clone(),
            end: course.end.clone(),
            reverse: course.reverse,
            at: course.at.expect("only scans at a revision read history"),
        }
    }

    fn next(&mut self) -> Result<Option<Row>, EngineError> {
        let Some(key) = self.next_key()? else {
            return Ok(None);
        };
        if self.reverse {
            self.end = Some(key.clone());
        } else {
            self.start = successor(&key);
        }
        let mut seen = Seen::Nothing;
        if let Some((found, stored)) = self.reader.first_from(&key, !self.at)?
            && found == key
            && let Some(record) = history::alive_at(self.run, &key, &stored, self.at)?
        {
            seen = Seen::Value(record.version());
        }
        // Alone, so that it does not keep its block in memory.
        Ok(Some((Bytes::copy_from_slice(&key), seen)))
    }

    fn next_key(&mut self) -> Result<Option<Bytes>, EngineError> {
        let found = if self.reverse {
            self.reader.last_before(self.end.as_deref())?
        } else {
            self.reader.first_from(&self.start, 0)?
        };
        let within =
            |key: &Bytes| *key >= self.start && self.end.as_ref().is_none_or(|end| key < end);
        Ok(found.map(|(key, _)| key).filter(within))
    }
}

/// The smallest key that is greater than `key`.
pub(super) fn successor(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}
