//! What became visible in a replica lately, for those who follow it: one window in memory, shared by
//! all of them. Taking in never waits for a follower: what does not fit leaves at the old end, and
//! who stood before it is told how much it missed. Nothing of it outlives the process.
//!
//! Not here: whether the log has decided a write, and what clients are told of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_types::KeyInterval;
use quorate_types::causal::{Actor, Clock, Dot, Dots, KeyState, Record};
use tokio::sync::watch;
use tokio::time::Instant;

use super::overlay::Row;
use super::{Replica, State};

/// Most writes in the window of one replica.
const WINDOW_WRITES_MAX: usize = 4_096;
/// Most bytes of keys and values in it, but that one write always fits.
const WINDOW_BYTES_MAX: usize = 1 << 20;
/// What a write costs beside its bytes. An estimate.
const WRITE_OVERHEAD_BYTES: usize = 200;
/// How long a window is kept that nobody follows.
const LINGER: Duration = Duration::from_secs(30);
/// Writes looked at for one reader while others may be waiting.
const LOOKED_AT_MAX: usize = 1_024;

/// A write of one key that became visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VisibleWrite {
    /// The encoded key.
    pub key: Bytes,
    /// The names of what is new; none where a repair brought a delete, of which it has no name.
    pub dots: Vec<Dot>,
    /// The key's live values then, without a context.
    pub state: KeyState,
}

impl VisibleWrite {
    fn bytes(&self) -> usize {
        let values = self.state.live().map(|(_, value)| value.payload.len());
        self.key.len() + values.sum::<usize>() + WRITE_OVERHEAD_BYTES
    }
}

/// A place in what becomes visible at one start of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VisiblePlace {
    /// The start.
    pub actor: Actor,
    /// Behind so many writes.
    pub number: u64,
}

/// What a follower found.
#[derive(Debug, PartialEq, Eq)]
pub struct FoundVisible {
    /// In the order in which they became visible.
    pub writes: Vec<VisibleWrite>,
    /// Where to go on.
    pub place: VisiblePlace,
    /// Writes of the replica, of whichever keys, that had left the window.
    pub missed: u64,
}

/// The window of one replica. Plain code over values, but for who waits.
pub(super) struct Visible {
    is_on: bool,
    followers: usize,
    left_at: Instant,
    writes: VecDeque<VisibleWrite>,
    bytes: usize,
    /// Writes counted so far, those before the window included.
    end: u64,
    changed: watch::Sender<u64>,
}

impl Default for Visible {
    fn default() -> Visible {
        Visible {
            is_on: false,
            followers: 0,
            left_at: Instant::now(),
            writes: VecDeque::new(),
            bytes: 0,
            end: 0,
            changed: watch::Sender::default(),
        }
    }
}

impl Visible {
    /// Those of the names of a step that are new to a record, without the log's own, if anybody
    /// wants to be told; else the step is counted.
    pub(super) fn unknown(
        &mut self,
        record: &Record,
        clock: &Clock,
        dots: impl Iterator<Item = Dot>,
    ) -> Option<Vec<Dot>> {
        let is_new = |dot: &Dot| dot.actor != Actor::LOG && !record.knows(clock, *dot);
        self.wants().then(|| dots.filter(is_new).collect())
    }

    fn wants(&mut self) -> bool {
        if self.is_on && self.followers == 0 && self.left_at.elapsed() >= LINGER {
            self.is_on = false;
            (self.writes, self.bytes) = (VecDeque::new(), 0);
        }
        if !self.is_on {
            self.end += 1;
        }
        self.is_on
    }

    fn push(&mut self, write: VisibleWrite) {
        self.end += 1;
        self.bytes += write.bytes();
        self.writes.push_back(write);
        while self.writes.len() > WINDOW_WRITES_MAX
            || (self.bytes > WINDOW_BYTES_MAX && self.writes.len() > 1)
        {
            let Some(oldest) = self.writes.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes();
        }
        self.changed.send_replace(self.end);
    }

    fn read(
        &self,
        from: u64,
        interval: &KeyInterval,
        (writes_max, bytes_max): (usize, usize),
    ) -> (Vec<VisibleWrite>, u64, u64) {
        let start = self.end - self.writes.len() as u64;
        let missed = start.saturating_sub(from);
        let mut at = from.max(start);
        let skip = usize::try_from(at - start).unwrap_or(usize::MAX);
        let (mut found, mut bytes) = (Vec::new(), 0);
        for write in self.writes.iter().skip(skip).take(LOOKED_AT_MAX) {
            if found.len() >= writes_max || bytes >= bytes_max {
                break;
            }
            at += 1;
            if interval.contains(&write.key) {
                bytes += write.bytes();
                found.push(write.clone());
            }
        }
        (found, at, missed)
    }
}

/// Somebody who follows what becomes visible in a replica of this node: while it is there, the
/// window is kept.
pub struct VisibleFollower {
    replica: Arc<Replica>,
    changed: watch::Receiver<u64>,
}

impl std::fmt::Debug for VisibleFollower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VisibleFollower").finish_non_exhaustive()
    }
}

impl VisibleFollower {
    pub(crate) fn new(replica: Arc<Replica>) -> VisibleFollower {
        let changed = {
            let visible = &mut replica.state.lock().visible;
            visible.followers += 1;
            visible.is_on = true;
            visible.changed.subscribe()
        };
        VisibleFollower { replica, changed }
    }

    /// Behind all that is visible now.
    pub fn now(&self) -> VisiblePlace {
        VisiblePlace {
            actor: self.replica.actor,
            number: self.replica.state.lock().visible.end,
        }
    }

    /// The next writes behind a place, so many at most; the one that makes their bytes reach the
    /// other number is the last. Behind a place of another start of a node: all that are kept.
    pub fn read(
        &mut self,
        from: VisiblePlace,
        interval: &KeyInterval,
        most: (usize, usize),
    ) -> FoundVisible {
        self.changed.mark_unchanged();
        let is_ours = from.actor == self.replica.actor;
        let state = self.replica.state.lock();
        let (writes, number, missed) =
            state
                .visible
                .read(if is_ours { from.number } else { 0 }, interval, most);
        let place = VisiblePlace {
            actor: self.replica.actor,
            number,
        };
        if number < state.visible.end {
            self.changed.mark_changed();
        }
        FoundVisible {
            writes,
            place,
            missed: if is_ours { missed } else { 0 },
        }
    }

    /// Returns once there is more than the last read has looked at.
    pub async fn changed(&mut self) {
        if self.changed.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for VisibleFollower {
    fn drop(&mut self) {
        let visible = &mut self.replica.state.lock().visible;
        visible.followers = visible.followers.saturating_sub(1);
        visible.left_at = Instant::now();
    }
}

impl Replica {
    /// Tells followers what a step has made visible of a key. `dots`: what was new; none: nobody
    /// follows.
    pub(super) fn tell(
        &self,
        state: &mut State,
        (key, before): (&Bytes, &Record),
        dots: Option<Vec<Dot>>,
        after: Option<&Record>,
    ) {
        let (Some(dots), Some(after)) = (dots, after) else {
            return;
        };
        // What a repair removes beside a log, the log tells of.
        let is_removed = !self.has_log() && before.live().len() > after.live().len();
        if dots.is_empty() && !is_removed {
            return;
        }
        let Ok((committed, _)) = self.decided(key) else {
            return;
        };
        let view = self.view_of(state, &Row::stored(after.clone()), committed);
        state.visible.push(VisibleWrite {
            key: key.clone(),
            dots,
            // Without what was seen: no more memory than the values take.
            state: KeyState::of(view.live().cloned(), Dots::new()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(counter: u64, key: &'static str) -> VisibleWrite {
        let actor = Actor { disk: 1, start: 1 };
        VisibleWrite {
            key: Bytes::from_static(key.as_bytes()),
            dots: vec![Dot::new(actor, counter)],
            state: KeyState::default(),
        }
    }

    fn window(count: u64) -> Visible {
        let mut visible = Visible {
            is_on: true,
            followers: 1,
            ..Visible::default()
        };
        for counter in 1..=count {
            assert!(visible.wants());
            visible.push(write(
                counter,
                if counter % 2 == 0 { "even" } else { "odd" },
            ));
        }
        visible
    }

    #[test]
    fn pages_of_any_size_show_each_write_once_and_in_order() {
        let visible = window(7);
        let interval = KeyInterval::with_prefix(b"odd");
        for size in 1..5 {
            let (mut at, mut counters) = (0, Vec::new());
            while at < visible.end {
                let (found, next, missed) = visible.read(at, &interval, (size, usize::MAX));
                assert!(next > at && missed == 0);
                counters.extend(found.iter().map(|write| write.dots[0].counter));
                at = next;
            }
            assert_eq!(counters, [1, 3, 5, 7], "{size}");
        }
    }

    #[test]
    fn what_does_not_fit_is_missed_and_counted() {
        let extra = 10;
        let mut visible = window(WINDOW_WRITES_MAX as u64 + extra);
        let (found, at, missed) = visible.read(3, &KeyInterval::all(), (9, 1));
        assert_eq!((missed, found[0].dots[0].counter), (extra - 3, extra + 1));
        assert_eq!(at, extra + 1);
        // What nobody followed is counted too.
        visible.is_on = false;
        let end = visible.end;
        (visible.writes, visible.bytes) = (VecDeque::new(), 0);
        assert!(!visible.wants());
        let (found, at, missed) = visible.read(end, &KeyInterval::all(), (9, usize::MAX));
        assert_eq!((found.len(), at, missed), (0, end + 1, 1));
    }

    #[test]
    fn a_large_write_fits_alone() {
        let mut visible = window(3);
        let mut large = write(4, "even");
        large.key = vec![b'k'; WINDOW_BYTES_MAX].into();
        visible.push(large);
        assert_eq!(visible.writes.len(), 1);
        assert_eq!(visible.read(0, &KeyInterval::all(), (9, usize::MAX)).2, 3);
    }
}
