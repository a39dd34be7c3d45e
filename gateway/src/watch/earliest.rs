//! The earliest events of many that come in any order: as many as fit. Plain code over values.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_raft::{Event, Place};
use quorate_types::Revision;

/// Holds the earliest events that were offered.
#[derive(Debug)]
pub(super) struct Earliest {
    events: BTreeMap<(Revision, Bytes), Event>,
    bytes: usize,
    events_max: usize,
    bytes_max: usize,
    /// Events behind the last one held were left out.
    is_cut: bool,
}

impl Earliest {
    /// Room for so many events, and bytes of their keys and values, but for one event always.
    pub(super) fn new(events_max: usize, bytes_max: usize) -> Earliest {
        Earliest {
            events: BTreeMap::new(),
            bytes: 0,
            events_max,
            bytes_max,
            is_cut: false,
        }
    }

    /// Whether an event would be held.
    pub(super) fn wants(&self, revision: Revision, key: &[u8]) -> bool {
        if !self.is_cut {
            return true;
        }
        let last = self.events.last_key_value();
        last.is_none_or(|((last, last_key), _)| (revision, key) < (*last, last_key.as_ref()))
    }

    /// Holds an event, in the place of later ones if need be.
    pub(super) fn hold(&mut self, event: Event) {
        self.bytes += event.bytes();
        let place = (event.revision, event.key.clone());
        if let Some(twice) = self.events.insert(place, event) {
            self.bytes -= twice.bytes();
        }
        while self.events.len() > 1
            && (self.events.len() > self.events_max || self.bytes > self.bytes_max)
        {
            let Some((_, last)) = self.events.pop_last() else {
                return;
            };
            self.bytes -= last.bytes();
            self.is_cut = true;
        }
    }

    /// The events in order, and the place behind them: behind `through`, up to which all were
    /// offered, if none was left out.
    pub(super) fn finish(self, through: Revision) -> (Vec<Event>, Place) {
        let last = self.events.last_key_value().map(|(_, event)| event.place());
        let place = match last.filter(|_| self.is_cut) {
            Some(last) => last,
            None => Place::behind(through),
        };
        (self.events.into_values().collect(), place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(revision: u64, key: &'static str) -> Event {
        Event {
            key: Bytes::from_static(key.as_bytes()),
            revision: Revision(revision),
            version: None,
        }
    }

    fn names(events: &[Event]) -> Vec<String> {
        let name = |e: &Event| format!("{}{}", e.revision, String::from_utf8_lossy(&e.key));
        events.iter().map(name).collect()
    }

    /// All events, read in pages of that many, each page from all events in another order.
    fn paged(all: &[Event], events_max: usize, bytes_max: usize) -> Vec<String> {
        let mut place = Place::default();
        let mut read = Vec::new();
        for turn in 0.. {
            let mut earliest = Earliest::new(events_max, bytes_max);
            for at in 0..all.len() {
                let event = &all[(at * 7 + turn) % all.len()];
                if place.is_before(event.revision, &event.key)
                    && earliest.wants(event.revision, &event.key)
                {
                    earliest.hold(event.clone());
                }
            }
            let (events, next) = earliest.finish(Revision(99));
            read.extend(names(&events));
            if next == Place::behind(Revision(99)) {
                return read;
            }
            assert!(!events.is_empty(), "no step forward");
            place = next;
        }
        read
    }

    #[test]
    fn pages_of_any_size_show_each_event_once_and_in_order() {
        let mut all = vec![event(1, "b"), event(1, "a"), event(1, "c")];
        all.extend((2..12).map(|revision| event(revision, "k")));
        all.extend([event(5, "a"), event(7, "zz")]);
        assert_eq!(all.len() % 7, 1, "the orders of offering are permutations");
        let mut wanted = all.clone();
        wanted.sort_by(|a, b| (a.revision, &a.key).cmp(&(b.revision, &b.key)));
        for size in 1..20 {
            assert_eq!(paged(&all, size, usize::MAX), names(&wanted), "{size}");
            assert_eq!(paged(&all, usize::MAX, size), names(&wanted), "{size} B");
        }
    }
}
