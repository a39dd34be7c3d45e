//! What the log has decided, as one primary has it: in memory, and on its disk as of an
//! earlier entry. The real state machine's rules beside the plain ones.
//!
//! Not here: what the log has not decided (see `primary`).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_types::causal::{Clock, Committed, Delta, Dots, KeyState, Stored, Value, log_dot};
use quorate_types::{Actor, Dot, Revision, Timestamp};

use crate::course::{Course, Mistake};
use crate::exact::{DotSet, Exact, ExactDelta, ExactState, explicit};

pub const KEYS: usize = 2;
/// Requests that are remembered, so that a retry is not applied again.
const REQUESTS_MAX: usize = 1_000;

pub type Live = Vec<(Dot, Value)>;

pub fn name(key: usize) -> Bytes {
    Bytes::from(format!("key-{key}"))
}

/// A write of a key, in both forms.
#[derive(Clone)]
pub struct Message {
    pub key: usize,
    pub exact: ExactDelta,
    pub real: Delta,
}

/// What a client has seen of a key, in both forms.
#[derive(Clone, Default)]
pub struct Seen {
    pub exact: DotSet,
    pub real: Dots,
}

#[derive(Clone)]
pub struct Put {
    pub key: usize,
    pub value: Option<u64>,
    pub seen: Seen,
    pub request: u64,
}

#[derive(Clone)]
pub struct Item {
    pub key: usize,
    pub real: KeyState,
    pub exact: ExactState,
}

#[derive(Clone)]
pub struct Absorb {
    /// Which proposal of whom.
    pub from: (u64, u64),
    pub items: Vec<Item>,
    pub base: Option<Seen>,
}

#[derive(Clone)]
pub enum Entry {
    Put(Put),
    Delta(Message),
    Absorb(Absorb),
    /// The starts that this clock has closed will write no more, and all that they wrote the
    /// log has.
    Close(Closed),
    /// Values of keys whose time is over at that moment, as their proposer sees it.
    Expire(Vec<(usize, Timestamp)>),
}

/// Starts that are closed, and all names that they gave out.
#[derive(Clone)]
pub struct Closed {
    pub real: Clock,
    pub exact: DotSet,
}

/// The log's state as of an entry.
#[derive(Clone)]
pub struct Table {
    /// How many entries were applied.
    pub index: usize,
    /// The revision of the last one.
    pub at: Revision,
    versions: BTreeMap<usize, (Revision, Stored)>,
    pub causal: Committed,
    requests: BTreeSet<u64>,
    /// The plain rules; none where a mistake is planted.
    pub exact: Option<Exact>,
    /// By the plain rules, the times by which live values are chosen among.
    pub times: BTreeMap<Dot, Timestamp>,
}

impl Table {
    pub fn new(with_exact: bool) -> Self {
        Self {
            index: 0,
            at: Revision::ZERO,
            versions: BTreeMap::new(),
            causal: Committed::default(),
            requests: BTreeSet::new(),
            exact: with_exact.then(|| Exact::new(KEYS)),
            times: BTreeMap::new(),
        }
    }

    pub fn live(&self, key: usize) -> Live {
        let version = self.versions.get(&key);
        version.map_or_else(Vec::new, |(revision, stored)| {
            stored.unpack(*revision).expect("it was packed")
        })
    }

    pub fn state(&self, key: usize) -> KeyState {
        self.causal.state(self.at, &name(key), self.live(key))
    }

    /// What two tables at one index have alike.
    pub fn is_like(&self, other: &Self) -> bool {
        self.at == other.at && self.versions == other.versions && self.causal == other.causal
    }

    /// What [`Table::is_like`] looks at.
    pub fn without_exact(&mut self) -> Self {
        let exact = self.exact.take();
        let copy = self.clone();
        self.exact = exact;
        copy
    }

    pub fn knows_request(&self, request: u64) -> bool {
        self.requests.contains(&request)
    }

    /// `held`: what the overlay beside it shows of each key, for a mistake.
    pub fn apply(&mut self, at: Revision, entry: &Entry, course: &Course, held: &[Dots]) {
        let before = self.at;
        self.index += 1;
        self.at = at;
        if let Some(exact) = &mut self.exact {
            let passed = before.0 + 1..=at.0;
            exact.merge_clock(&passed.map(|number| log_dot(Revision(number))).collect());
        }
        match entry {
            Entry::Put(put) => self.put(put, course, held.get(put.key)),
            Entry::Delta(message) => self.accept(message),
            Entry::Absorb(absorb) => self.absorb(absorb),
            Entry::Close(closed) => self.close(closed),
            Entry::Expire(due) => self.expire(due, course),
        }
        if course.has(Mistake::LatestAlone) {
            self.keep_latest();
        }
        if course.has(Mistake::Forget) {
            self.forget();
        }
        self.note_times(course);
    }

    fn close(&mut self, closed: &Closed) {
        self.causal.merge(self.at, closed.real.dots());
        if let Some(exact) = &mut self.exact {
            exact.merge_clock(&closed.exact);
        }
    }

    /// Each value's own moment is named, and the entry's revision judges.
    fn expire(&mut self, due: &[(usize, Timestamp)], course: &Course) {
        for (key, at) in due {
            if at.0 > self.at.0 && !course.has(Mistake::ExpireEarly) {
                continue;
            }
            let mut live = self.live(*key);
            let before = live.len();
            live.retain(|(_, value)| value.expiry != Some(*at));
            if live.len() == before {
                continue;
            }
            if course.has(Mistake::ExpireAll) {
                live.clear();
            }
            self.store(*key, &live);
            if let Some(exact) = &mut self.exact {
                let kind = course.kind;
                exact.live[*key].retain(|_, value| kind.expiry_of(*value) != Some(*at));
            }
            if course.has(Mistake::ExpireForgets) {
                self.forget();
            }
        }
    }

    /// A value's time is cut to the revision of the entry that made it live; a strong write's is
    /// its revision.
    fn note_times(&mut self, course: &Course) {
        let Some(exact) = &self.exact else { return };
        let live: BTreeMap<Dot, u64> = exact.live.iter().flatten().map(|(d, v)| (*d, *v)).collect();
        self.times.retain(|dot, _| live.contains_key(dot));
        for (dot, value) in live {
            let said = match dot.actor == Actor::LOG {
                true => Timestamp(dot.counter),
                false => course.kind.timestamp_of(value),
            };
            let time = said.min(Timestamp(self.at.0));
            self.times.entry(dot).or_insert(time);
        }
    }

    /// The mistake: the others die of their times.
    fn keep_latest(&mut self) {
        for key in 0..KEYS {
            let live = self.live(key);
            let latest = live
                .iter()
                .max_by_key(|(dot, value)| (value.timestamp, *dot));
            if let (Some(latest), true) = (latest.cloned(), live.len() > 1) {
                self.store(key, &vec![latest]);
            }
        }
    }

    fn put(&mut self, put: &Put, course: &Course, held: Option<&Dots>) {
        if !self.requests.insert(put.request) && !course.has(Mistake::Repeat) {
            return;
        }
        if self.requests.len() > REQUESTS_MAX {
            self.requests.pop_first();
        }
        let mut seen = put.seen.real.clone();
        if let Some(held) = held {
            seen.union(held);
        }
        let value = put.value.map(|value| Value {
            payload: course.kind.payload(value),
            timestamp: Timestamp(self.at.0),
            expiry: course.kind.expiry_of(value),
        });
        let live: Live = value
            .into_iter()
            .map(|value| (log_dot(self.at), value))
            .collect();
        self.store(put.key, &live);
        if !seen.is_empty() {
            self.causal.replaced(self.at, &name(put.key), &seen);
        }
        let (dot, key) = (log_dot(self.at), put.key);
        if let Some(exact) = &mut self.exact {
            // The clock has the dot already: the log counts for its writes.
            exact.live[key].clear();
            exact.live[key].extend(put.value.map(|value| (dot, value)));
            exact.beyond[key].extend(&put.seen.exact);
            exact.merge_clock(&DotSet::new());
        }
    }

    fn accept(&mut self, message: &Message) {
        let (at, key) = (self.at, message.key);
        let live = self.live(key);
        let changed = self.causal.accept(at, &name(key), live, &message.real);
        if let Some(live) = changed {
            self.store(key, &live);
        }
        if let Some(exact) = &mut self.exact {
            exact.accept(key, &message.exact);
        }
    }

    fn absorb(&mut self, absorb: &Absorb) {
        for item in &absorb.items {
            let (at, key) = (self.at, item.key);
            let live = self.live(key);
            if let Some(live) = self.causal.join(at, &name(key), live, &item.real) {
                self.store(key, &live);
            }
            if let Some(exact) = &mut self.exact {
                exact.join(key, &item.exact);
            }
        }
        if let Some(base) = &absorb.base {
            self.causal.merge(self.at, &base.real);
            if let Some(exact) = &mut self.exact {
                exact.merge_clock(&base.exact);
            }
        }
    }

    /// The bytes that a key takes here beside its values and its plain version.
    pub fn stored_beside(&self, key: usize) -> usize {
        let causal =
            |(_, stored): &(Revision, Stored)| stored.causal.as_ref().map_or(0, Bytes::len);
        let beyond = self
            .causal
            .beyond(&name(key))
            .map_or(0, |dots| Clock::of(dots.clone()).encode().len());
        self.versions.get(&key).map_or(0, causal) + beyond
    }

    fn store(&mut self, key: usize, live: &Live) {
        match Stored::pack(live, self.at) {
            Some(stored) => {
                assert_eq!(stored.unpack(self.at).as_ref(), Ok(live));
                self.versions.insert(key, (self.at, stored));
            }
            None => {
                self.versions.remove(&key);
            }
        }
    }

    /// The mistake: dead dots leave the clock.
    fn forget(&mut self) {
        let live: DotSet = (0..KEYS)
            .flat_map(|key| self.live(key))
            .map(|(dot, _)| dot)
            .collect();
        let mut taken_in = self.causal.clock(self.at).dots().clone();
        let of_log: Dots = explicit(&taken_in)
            .into_iter()
            .filter(|dot| dot.actor == Actor::LOG)
            .collect();
        taken_in = taken_in.without(&of_log);
        let left = explicit(&taken_in).into_iter();
        let left: Dots = left.filter(|dot| live.contains(dot)).collect();
        let beyond = (0..KEYS).filter_map(|key| {
            let dots = explicit(self.causal.beyond(&name(key))?).into_iter();
            let dots: Dots = dots.filter(|dot| live.contains(dot)).collect();
            Some((name(key), dots))
        });
        self.causal = Committed::restore(Clock::of(left), beyond.collect::<Vec<_>>());
    }
}

/// A table on disk, as the changes of each entry left it.
#[derive(Clone)]
pub struct Disk {
    table: Table,
    clock: Clock,
    beyond: BTreeMap<Bytes, Bytes>,
}

impl Disk {
    pub fn new(with_exact: bool) -> Self {
        Self {
            table: Table::new(with_exact),
            clock: Clock::default(),
            beyond: BTreeMap::new(),
        }
    }

    /// The table as a start finds it.
    pub const fn table(&self) -> &Table {
        &self.table
    }

    /// Takes all that changed since the last time.
    pub fn flush(&mut self, memory: &mut Table, course: &Course) {
        let (clock, keys) = memory.causal.take_changes();
        if let Some(clock) = clock {
            self.clock = Clock::decode(&clock.encode()).expect("it was encoded");
        }
        for (key, dots) in keys {
            match dots {
                Some(dots) => self.beyond.insert(key, dots),
                None => self.beyond.remove(&key),
            };
        }
        self.table = memory.clone();
        let beyond = self.beyond.iter().map(|(key, dots)| {
            let dots = Dots::from_bytes(dots).expect("it was encoded");
            (key.clone(), dots)
        });
        self.table.causal = Committed::restore(self.clock.clone(), beyond.collect::<Vec<_>>());
        if course.has(Mistake::Forget) || course.has(Mistake::ExpireForgets) {
            // It does not say what it changes.
            self.table.causal = memory.causal.clone();
        }
        assert!(self.table.is_like(memory), "what is stored is what was");
    }

    /// The mistake: what a snapshot may not do without.
    pub fn lose_the_clock(&mut self) {
        self.clock = Clock::default();
        self.beyond.clear();
        self.table.causal = Committed::default();
    }
}
