//! Events from before the window of recent ones, read from a range's history in the order of its
//! log.
//!
//! History is sorted by keys, so the earliest events behind a place are found by looking at all
//! that came behind it. Such a read goes in steps, so that others come in between, and few are
//! done at a time. What was found is kept for a while: others who watch the same keys, and the one
//! who asked when it comes for more, find it there.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_raft::{Event, Group, Place, Wanted};
use quorate_storage::engine::{EngineError, Written};
use quorate_types::{KeyInterval, RangeId, Revision};
use tokio::sync::Semaphore;

use super::earliest::Earliest;
use crate::errors::GatewayError;
use crate::write::stored;

/// Reads of history for watches at the same time on one node.
const READS_MAX: usize = 2;
/// Keys looked at in one step of such a read.
const STEP_KEYS_MAX: usize = 512;
/// The event that makes keys and values of one read reach this is the last one of it.
const STRETCH_BYTES_MAX: usize = 4 << 20;
/// Bytes of keys and values that are kept on one node.
const KEPT_BYTES_MAX: usize = 32 << 20;
/// Reads that are kept on one node.
const KEPT_MAX: usize = 64;

/// Reads of history, and what they have brought.
#[derive(Debug)]
pub(super) struct CatchUp {
    reads: Semaphore,
    /// The one that was used last stands last.
    kept: Mutex<VecDeque<Arc<Stretch>>>,
}

impl Default for CatchUp {
    fn default() -> Self {
        CatchUp {
            reads: Semaphore::new(READS_MAX),
            kept: Mutex::default(),
        }
    }
}

/// All events of an interval between two places.
#[derive(Debug)]
struct Stretch {
    range: RangeId,
    interval: KeyInterval,
    from: Place,
    to: Place,
    events: Vec<Event>,
    bytes: usize,
}

impl Stretch {
    /// Whether it knows what comes next behind a place.
    fn covers(&self, range: RangeId, interval: &KeyInterval, from: &Place) -> bool {
        let reaches = |place: &Place, other: &Place| match place.revision.cmp(&other.revision) {
            std::cmp::Ordering::Equal => match (&place.key, &other.key) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(key), Some(other)) => key >= other,
            },
            order => order.is_gt(),
        };
        self.range == range
            && self.interval == *interval
            && reaches(from, &self.from)
            && !reaches(from, &self.to)
    }

    /// What a watch wants of it.
    fn page(&self, from: &Place, wanted: Wanted<'_>) -> (Vec<Event>, Place) {
        let passed = |event: &Event| !from.is_before(event.revision, &event.key);
        let first = self.events.partition_point(passed);
        let (mut page, mut bytes) = (Vec::new(), 0);
        for (at, event) in self.events.iter().enumerate().skip(first) {
            if page.len() >= wanted.events_max || bytes >= wanted.bytes_max {
                return (page, self.events[at - 1].place());
            }
            if wanted.takes(&event.key, event.version.is_none()) {
                bytes += event.bytes();
                page.push(event.clone());
            }
        }
        (page, self.to.clone())
    }
}

impl CatchUp {
    /// The next events behind a place, of those up to `through`, and the place behind them. Reads
    /// `events_max` at a time.
    ///
    /// # Errors
    ///
    /// [`GatewayError::EventsCollected`]; or what the table could not do.
    pub(super) async fn read(
        &self,
        group: &Group,
        from: &Place,
        (through, events_max): (Revision, usize),
        wanted: Wanted<'_>,
    ) -> Result<(Vec<Event>, Place), GatewayError> {
        let (range, interval) = (group.range_id(), wanted.interval);
        if let Some(stretch) = self.kept(range, interval, from) {
            return Ok(stretch.page(from, wanted));
        }
        let turn = self.reads.acquire().await;
        let _turn = turn.map_err(|_| GatewayError::internal("reads of history are closed"))?;
        // Somebody may have read it meanwhile.
        if let Some(stretch) = self.kept(range, interval, from) {
            return Ok(stretch.page(from, wanted));
        }
        metrics::counter!("quorate_watch_history_reads_total").increment(1);
        let (events, to) = read_history(group, from, (through, events_max), interval).await?;
        let stretch = Arc::new(Stretch {
            range,
            interval: interval.clone(),
            from: from.clone(),
            to,
            bytes: events.iter().map(Event::bytes).sum(),
            events,
        });
        self.keep(stretch.clone());
        Ok(stretch.page(from, wanted))
    }

    fn kept(&self, range: RangeId, interval: &KeyInterval, from: &Place) -> Option<Arc<Stretch>> {
        let mut kept = self.kept.lock();
        let at = kept
            .iter()
            .position(|stretch| stretch.covers(range, interval, from))?;
        let stretch = kept.remove(at)?;
        kept.push_back(stretch.clone());
        Some(stretch)
    }

    fn keep(&self, stretch: Arc<Stretch>) {
        let mut kept = self.kept.lock();
        kept.push_back(stretch);
        let bytes = |kept: &VecDeque<Arc<Stretch>>| kept.iter().map(|s| s.bytes).sum::<usize>();
        while kept.len() > KEPT_MAX || (bytes(&kept) > KEPT_BYTES_MAX && kept.len() > 1) {
            kept.pop_front();
        }
    }
}

async fn read_history(
    group: &Group,
    from: &Place,
    (through, events_max): (Revision, usize),
    interval: &KeyInterval,
) -> Result<(Vec<Event>, Place), GatewayError> {
    let changes = group.table().changes(from.whole().0);
    let changes = changes.map_err(|error| match error {
        EngineError::BelowFloor { floor, .. } => GatewayError::EventsCollected {
            range: group.range_id(),
            from: Revision(from.whole().0.saturating_add(1)),
            first: Revision(floor.saturating_add(1)),
        },
        other => stored(other),
    })?;
    let mut earliest = Earliest::new(events_max, STRETCH_BYTES_MAX);
    let mut next = Some(interval.start.clone());
    while let Some(start) = next {
        let mut see = |written: &Written<'_>| {
            let revision = Revision(written.revision);
            if revision <= through
                && from.is_before(revision, written.key)
                && earliest.wants(revision, written.key)
            {
                earliest.hold(Event {
                    key: written.key.clone(),
                    revision,
                    version: written.version(),
                });
            }
        };
        let bounds = (&start, &interval.end);
        next = changes
            .walk(bounds, STEP_KEYS_MAX, &mut see)
            .map_err(stored)?;
        tokio::task::yield_now().await;
    }
    Ok(earliest.finish(through))
}
