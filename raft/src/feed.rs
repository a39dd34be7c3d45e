//! What a range's log has decided lately, for those who follow it: one window in memory, shared by
//! all of them, however many they are.
//!
//! Apply adds to it, and never waits: what does not fit leaves at the old end. Who has fallen
//! behind the window reads the range's history, and comes back to it. The window is kept only
//! while somebody follows, and a little longer, so that who is on the way back finds it.
//!
//! Events of a range have one order: by revision, and those of one revision by key. A place in it
//! is therefore a revision and, within one, a key. Not here: waiting, and reading history.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as Memory};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_storage::engine::Version;
use quorate_types::{KeyInterval, Revision};
use tokio::time::Instant;

/// Most events in the window of one range, unless chosen otherwise.
pub(crate) const WINDOW_EVENTS_MAX_DEFAULT: usize = 8_192;
/// Most bytes of keys and values in the window of one range, but that one event always fits.
const WINDOW_BYTES_MAX: usize = 2 << 20;
/// The same where the windows of a node have become large together.
const WINDOW_BYTES_SCARCE: usize = 64 << 10;
/// Bytes of all windows of a node, from which on each is to be small.
const WINDOWS_BYTES_MAX: usize = 64 << 20;
/// What an event costs beside its bytes. An estimate.
const EVENT_OVERHEAD_BYTES: usize = 160;
/// Keys and values up to this size are copied, so that they do not keep the message alive that
/// they arrived in.
const COPY_BYTES_MAX: usize = 1024;
/// How long a window is kept that nobody follows.
const LINGER: Duration = Duration::from_secs(30);
/// Events looked at for one reader while apply may be waiting.
const LOOKED_AT_MAX: usize = 2_048;

/// A put or a delete of a key that the log has decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The encoded key.
    pub key: Bytes,
    /// Of the log entry that did it.
    pub revision: Revision,
    /// What was put; none: the key was deleted.
    pub version: Option<Version>,
}

impl Event {
    /// Bytes of key and value.
    pub fn bytes(&self) -> usize {
        let version = self.version.as_ref();
        let causal = version.and_then(|version| version.causal.as_ref());
        self.key.len() + version.map_or(0, |v| v.value.len()) + causal.map_or(0, Bytes::len)
    }

    /// Its own place.
    pub fn place(&self) -> Place {
        Place {
            revision: self.revision,
            key: Some(self.key.clone()),
        }
    }
}

/// A place in the order of a range's events: behind those of a revision up to a key, or behind all
/// of the revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The revision.
    pub revision: Revision,
    /// Up to which key of it; none: all.
    pub key: Option<Bytes>,
}

impl Place {
    /// Behind all events of a revision.
    pub const fn behind(revision: Revision) -> Place {
        Place {
            revision,
            key: None,
        }
    }

    /// Whether an event lies behind this place.
    pub fn is_before(&self, revision: Revision, key: &[u8]) -> bool {
        match revision.cmp(&self.revision) {
            Ordering::Less => false,
            Ordering::Greater => true,
            Ordering::Equal => self.key.as_ref().is_some_and(|last| key > last.as_ref()),
        }
    }

    /// All events up to this revision lie before this place.
    pub fn whole(&self) -> Revision {
        match self.key {
            None => self.revision,
            Some(_) => Revision(self.revision.0.saturating_sub(1)),
        }
    }
}

/// What a reader found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The window begins behind the reader's place: only history knows what lies between.
    Behind,
    /// The next events, and the place behind them.
    Events {
        /// In order.
        events: Vec<Event>,
        /// Where to go on.
        place: Place,
        /// Whether more is there already.
        more: bool,
    },
}

/// What a reader wants of the window.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Encoded keys.
    pub interval: &'a KeyInterval,
    /// Most events.
    pub events_max: usize,
    /// The event that makes keys and values reach this is the last one.
    pub bytes_max: usize,
    /// Leave out puts.
    pub no_puts: bool,
    /// Leave out deletes.
    pub no_deletes: bool,
}

impl Wanted<'_> {
    /// Whether it is of interest.
    pub fn takes(&self, key: &[u8], is_delete: bool) -> bool {
        let kind = if is_delete {
            self.no_deletes
        } else {
            self.no_puts
        };
        !kind && self.interval.contains(key)
    }
}

/// The window of one range. Plain code over values.
#[derive(Debug, Default)]
struct Window {
    is_on: bool,
    followers: usize,
    /// When the last follower left.
    left_at: Option<Instant>,
    /// All events above it, up to `end`, are here.
    start: Revision,
    end: Revision,
    events: VecDeque<Event>,
    bytes: usize,
}

impl Window {
    fn join(&mut self, closed: Revision) {
        self.followers += 1;
        self.left_at = None;
        if !self.is_on {
            self.restart(closed);
            self.is_on = true;
        }
    }

    fn leave(&mut self, now: Instant) {
        self.followers = self.followers.saturating_sub(1);
        if self.followers == 0 {
            self.left_at = Some(now);
        }
    }

    fn restart(&mut self, closed: Revision) {
        self.events.clear();
        self.bytes = 0;
        (self.start, self.end) = (closed, closed);
    }

    /// Ends a window that nobody has followed for long.
    fn tend(&mut self, now: Instant) {
        let lingered = |left: Instant| now.saturating_duration_since(left) >= LINGER;
        if self.is_on && self.left_at.is_some_and(lingered) {
            self.is_on = false;
            self.events = VecDeque::new();
            self.bytes = 0;
        }
    }

    fn push(&mut self, events: Vec<Event>, end: Revision, (events_max, bytes_max): (usize, usize)) {
        if !self.is_on {
            return;
        }
        for event in events {
            self.bytes += event.bytes() + EVENT_OVERHEAD_BYTES;
            self.events.push_back(event);
        }
        self.end = self.end.max(end);
        while self.events.len() > events_max || (self.bytes > bytes_max && self.events.len() > 1) {
            let Some(oldest) = self.events.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes() + EVENT_OVERHEAD_BYTES;
            self.start = self.start.max(oldest.revision);
        }
    }

    fn read(&self, from: &Place, wanted: Wanted<'_>) -> Found {
        if !self.is_on || from.whole() < self.start {
            return Found::Behind;
        }
        let first = self
            .events
            .partition_point(|event| !from.is_before(event.revision, &event.key));
        let mut found = Vec::new();
        let (mut place, mut bytes) = (from.clone(), 0);
        for (looked_at, event) in self.events.iter().skip(first).enumerate() {
            let is_full = found.len() >= wanted.events_max || bytes >= wanted.bytes_max;
            if is_full || looked_at >= LOOKED_AT_MAX {
                return Found::Events {
                    events: found,
                    place,
                    more: true,
                };
            }
            place = event.place();
            if wanted.takes(&event.key, event.version.is_none()) {
                bytes += event.bytes();
                found.push(event.clone());
            }
        }
        let end = Place::behind(self.end);
        Found::Events {
            events: found,
            place: if from.whole() < self.end {
                end
            } else {
                from.clone()
            },
            more: false,
        }
    }
}

/// The window of one range, as apply and its readers share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Feed {
    window: Arc<Mutex<Window>>,
    /// Of all windows of the node, together.
    room: Room,
}

/// What windows of a node may hold, and bytes that all of them hold now.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    events_max: usize,
    bytes: Arc<AtomicUsize>,
}

impl Default for Room {
    fn default() -> Self {
        Room::new(WINDOW_EVENTS_MAX_DEFAULT)
    }
}

impl Room {
    /// Room for so many events of each range.
    pub(crate) fn new(events_max: usize) -> Room {
        Room {
            events_max,
            bytes: Arc::default(),
        }
    }
}

impl Feed {
    /// Counts with the node's other windows.
    pub(crate) fn share(&mut self, room: &Room) {
        self.room = room.clone();
    }

    /// Whether events are wanted. Asked before a batch, under the machine's lock, like
    /// [`Feed::push`] after it: nobody begins to follow between the two.
    pub(crate) fn is_on(&self) -> bool {
        self.window.lock().is_on
    }

    /// Adds the events of a batch, in order. `end`: no later event has a revision at or below it.
    pub(crate) fn push(&self, mut events: Vec<Event>, end: Revision) {
        for event in &mut events {
            event.key = own(std::mem::take(&mut event.key));
            if let Some(version) = &mut event.version {
                version.value = own(std::mem::take(&mut version.value));
            }
        }
        self.counted(|window| {
            let scarce = self.room.bytes.load(Memory::Relaxed) > WINDOWS_BYTES_MAX;
            let bytes_max = if scarce {
                WINDOW_BYTES_SCARCE
            } else {
                WINDOW_BYTES_MAX
            };
            window.push(events, end, (self.room.events_max, bytes_max));
        });
    }

    /// Another state has taken the place of the range's: what led to it is not known.
    pub(crate) fn restart(&self, closed: Revision) {
        self.counted(|window| window.restart(closed));
    }

    /// Gives back the memory of a window that nobody follows.
    pub(crate) fn tend(&self, now: Instant) {
        self.counted(|window| window.tend(now));
    }

    /// Follows a window that is kept already: nothing has to be in step with apply then.
    pub(crate) fn follow_kept(&self) -> Option<Follower> {
        let mut window = self.window.lock();
        if !window.is_on {
            return None;
        }
        // Where it begins stays as it is.
        window.join(Revision::ZERO);
        drop(window);
        Some(Follower { feed: self.clone() })
    }

    /// Follows. `closed` is the machine's, which the caller has locked.
    pub(crate) fn follow(&self, closed: Revision) -> Follower {
        self.window.lock().join(closed);
        Follower { feed: self.clone() }
    }

    fn counted(&self, change: impl FnOnce(&mut Window)) {
        let mut window = self.window.lock();
        let before = window.bytes;
        change(&mut window);
        let after = window.bytes;
        drop(window);
        // Wraps round to the right sum.
        self.room
            .bytes
            .fetch_add(after.wrapping_sub(before), Memory::Relaxed);
    }
}

/// Somebody who follows a range: while it is there, the window is kept.
#[derive(Debug)]
pub struct Follower {
    feed: Feed,
}

impl Follower {
    /// The next events behind a place. Holds up apply for a bounded time.
    pub fn read(&self, from: &Place, wanted: Wanted<'_>) -> Found {
        self.feed.window.lock().read(from, wanted)
    }

    /// How many follow the range here, this one included.
    pub fn company(&self) -> usize {
        self.feed.window.lock().followers
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.feed.window.lock().leave(Instant::now());
    }
}

/// The same bytes, alone in their allocation where they are small.
fn own(bytes: Bytes) -> Bytes {
    if bytes.len() > COPY_BYTES_MAX {
        return bytes;
    }
    Bytes::copy_from_slice(&bytes)
}

/// The events of one entry, in order, from its changes in theirs: of several changes of a key the
/// last. `existed` says whether a key was there before the entry; it is asked only of keys that
/// were put and deleted by it.
pub(crate) fn of_entry<E>(
    changes: impl IntoIterator<Item = Event>,
    mut existed: impl FnMut(&Bytes) -> Result<bool, E>,
    events: &mut Vec<Event>,
) -> Result<(), E> {
    let first = events.len();
    events.extend(changes);
    if events.len() - first < 2 {
        return Ok(());
    }
    events[first..].sort_by(|left, right| left.key.cmp(&right.key));
    let entry = events.split_off(first);
    let mut entry = entry.into_iter().peekable();
    let mut was_put = false;
    while let Some(event) = entry.next() {
        was_put |= event.version.is_some();
        if entry.peek().is_some_and(|next| next.key == event.key) {
            continue;
        }
        let has_effect = event.version.is_some() || !was_put || existed(&event.key)?;
        if has_effect {
            events.push(event);
        }
        was_put = false;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn event(revision: u64, key: &'static str) -> Event {
        let version = Version {
            revision,
            expiry: None,
            value: Bytes::from_static(b"v"),
            causal: None,
        };
        Event {
            key: Bytes::from_static(key.as_bytes()),
            revision: Revision(revision),
            version: Some(version),
        }
    }

    fn delete(revision: u64, key: &'static str) -> Event {
        Event {
            version: None,
            ..event(revision, key)
        }
    }

    fn window(events: Vec<Event>, end: u64) -> Window {
        let mut window = Window::default();
        window.join(Revision(10));
        window.push(events, Revision(end), MAX);
        window
    }

    fn at(revision: u64, key: Option<&'static str>) -> Place {
        Place {
            revision: Revision(revision),
            key: key.map(|key| Bytes::from_static(key.as_bytes())),
        }
    }

    const MAX: (usize, usize) = (WINDOW_EVENTS_MAX_DEFAULT, WINDOW_BYTES_MAX);
    const ALL: KeyInterval = KeyInterval::all();

    fn wanted(events_max: usize) -> Wanted<'static> {
        static ALL_KEYS: std::sync::OnceLock<KeyInterval> = std::sync::OnceLock::new();
        Wanted {
            interval: ALL_KEYS.get_or_init(|| ALL),
            events_max,
            bytes_max: usize::MAX,
            no_puts: false,
            no_deletes: false,
        }
    }

    /// Reads on, page by page, to the end.
    fn all(window: &Window, mut from: Place, wanted: Wanted<'_>) -> Option<(Vec<String>, Place)> {
        let mut names = Vec::new();
        loop {
            let Found::Events {
                events,
                place,
                more,
            } = window.read(&from, wanted)
            else {
                return None;
            };
            let name = |e: &Event| format!("{}{}", e.revision, String::from_utf8_lossy(&e.key));
            names.extend(events.iter().map(name));
            from = place;
            if !more {
                return Some((names, from));
            }
        }
    }

    #[test]
    fn every_place_goes_on_where_it_stands_whatever_the_size_of_pages() {
        let events = [event(11, "a"), event(11, "c"), event(13, "b")];
        let window = window(events.to_vec(), 15);
        for page in [1, 2, 9] {
            let from = |place| all(&window, place, wanted(page)).unwrap();
            assert_eq!(from(at(10, None)).0, ["11a", "11c", "13b"]);
            assert_eq!(from(at(11, Some("a"))).0, ["11c", "13b"]);
            assert_eq!(from(at(11, Some("b"))).0, ["11c", "13b"]);
            assert_eq!(from(at(11, None)).0, ["13b"]);
            assert_eq!(from(at(13, Some("b"))), (vec![], at(15, None)));
            // Ahead of the window: nothing yet, and the place stays.
            assert_eq!(from(at(99, None)), (vec![], at(99, None)));
        }
        assert_eq!(all(&window, at(9, None), wanted(9)), None);
        assert_eq!(all(&window, at(10, Some("a")), wanted(9)), None);
    }

    #[test]
    fn what_is_not_wanted_is_passed_over() {
        let window = window(vec![event(11, "a"), delete(12, "a"), event(13, "b")], 13);
        let interval = KeyInterval::with_prefix(b"b");
        let only = |wanted| all(&window, at(10, None), wanted).unwrap().0;
        let puts = Wanted {
            no_deletes: true,
            ..wanted(9)
        };
        let deletes = Wanted {
            no_puts: true,
            ..wanted(9)
        };
        let prefix = Wanted {
            interval: &interval,
            ..wanted(9)
        };
        assert_eq!(only(puts), ["11a", "13b"]);
        assert_eq!(only(deletes), ["12a"]);
        assert_eq!(only(prefix), ["13b"]);
    }

    #[test]
    fn what_does_not_fit_leaves_at_the_old_end_and_is_known_to_be_gone() {
        let mut window = window(vec![event(11, "a"), event(11, "b"), event(12, "a")], 12);
        let one = event(1, "a").bytes() + EVENT_OVERHEAD_BYTES;
        window.push(vec![event(13, "a")], Revision(13), (9, 3 * one));
        // One event of revision 11 is left, and its place is not served: the other is gone.
        assert_eq!(all(&window, at(10, None), wanted(9)), None);
        assert_eq!(all(&window, at(11, Some("a")), wanted(9)), None);
        let (names, _) = all(&window, at(11, None), wanted(9)).unwrap();
        assert_eq!(names, ["12a", "13a"]);
        // One always fits, however large.
        window.push(vec![event(14, "a")], Revision(14), (9, 0));
        let (names, _) = all(&window, at(13, None), wanted(9)).unwrap();
        assert_eq!(names, ["14a"]);
        assert_eq!(window.bytes, one);
    }

    #[test]
    fn a_window_lasts_as_long_as_it_is_followed_and_a_little_longer() {
        let mut window = window(vec![event(11, "a")], 11);
        let start = Instant::now();
        window.tend(start + 10 * LINGER);
        assert!(window.is_on);
        window.leave(start);
        window.tend(start + LINGER / 2);
        assert!(all(&window, at(10, None), wanted(9)).is_some());
        window.join(Revision(11));
        window.leave(start + LINGER);
        window.tend(start + LINGER + LINGER / 2);
        assert!(window.is_on);
        window.tend(start + 2 * LINGER);
        assert_eq!((window.is_on, window.bytes), (false, 0));
        window.push(vec![event(12, "a")], Revision(12), MAX);
        // Begun anew, it knows nothing of before.
        window.join(Revision(12));
        assert_eq!(all(&window, at(11, None), wanted(9)), None);
        assert_eq!(
            all(&window, at(12, None), wanted(9)),
            Some((vec![], at(12, None)))
        );
    }

    #[test]
    fn an_entry_tells_each_key_once_and_in_order() {
        let told = |changes: Vec<Event>, there: bool| {
            let mut events = vec![event(1, "z")];
            let existed = |_: &Bytes| Ok::<bool, ()>(there);
            of_entry(changes, existed, &mut events).unwrap();
            let name = |e: &Event| {
                let sign = if e.version.is_some() { "+" } else { "-" };
                format!("{sign}{}", String::from_utf8_lossy(&e.key))
            };
            events[1..].iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(told(vec![event(2, "b"), event(2, "a")], true), ["+a", "+b"]);
        let twice = vec![event(2, "a"), event(2, "b"), event(2, "a")];
        assert_eq!(told(twice, true), ["+a", "+b"]);
        let gone = vec![event(2, "a"), delete(2, "a"), delete(2, "b")];
        assert_eq!(told(gone.clone(), true), ["-a", "-b"]);
        assert_eq!(told(gone, false), ["-b"]);
        assert_eq!(told(vec![delete(2, "a")], false), ["-a"]);
    }
}
