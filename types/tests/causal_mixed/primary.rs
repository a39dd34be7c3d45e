//! A primary of a `mixed` range: the log's state, and the overlay beside it, by the rules of
//! `overlay` and by plain ones over explicit sets. Absorption, trimming and what a repair
//! brings are done here as a node does them.
//!
//! Not here: when any of it happens, and what is on its way (see `world`).

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use quorate_types::causal::{
    Clock, Dots, KeyState, Outcome, Reading, Record, Unsettled, accept, evaluate, join_key,
    overlay, settle,
};
use quorate_types::{Actor, ConflictPolicy, Dot, Revision, Timestamp};

use crate::course::{Course, Kind, Mistake};
use crate::exact::{DotSet, Exact, ExactState};
use crate::table::{Absorb, Disk, Entry, Item, KEYS, Message, Seen, Table, name};

/// Most keys of one absorption in a random schedule: so few that it takes several.
const ABSORB_KEYS: usize = 1;
const SETTLE_BATCH_KEYS: usize = 64;

/// The last counter that each actor gave out.
pub type Names = BTreeMap<Actor, u64>;

/// What an overlay remembers to know later which rows stayed as they were.
struct Memory {
    base: Dots,
    changed: BTreeSet<usize>,
}

struct Proposed {
    number: u64,
    keys: BTreeSet<usize>,
}

/// A row of the plain rules is its live values and `beyond` in `Exact`, if there is one.
pub struct ExactOverlay {
    pub rows: Exact,
    pub present: [bool; KEYS],
}

pub struct Primary {
    course: Course,
    /// Its identity: lost disks come back under another one.
    pub identity: u64,
    pub start: u32,
    pub counter: u64,
    pub table: Table,
    pub disk: Disk,
    pub clock: Clock,
    pub rows: BTreeMap<usize, Record>,
    unsettled: Unsettled<usize>,
    pub exact: Option<ExactOverlay>,
    /// Keys whose rows changed since they were last in an entry that was seen applied.
    fresh: BTreeSet<usize>,
    proposed: Option<Proposed>,
    proposals: u64,
    memory: Option<Memory>,
    /// Rows that the log's state has as of an index, unchanged.
    candidates: BTreeMap<usize, usize>,
    /// The how-manieth row to begin each row is.
    begun: BTreeMap<usize, u64>,
    pub beginnings: u64,
    /// Most keys of one absorption.
    pub absorb_keys: usize,
    /// Whether anything changed that it shows or claims; whoever looks sets it back.
    pub touched: Cell<bool>,
}

impl Primary {
    /// A primary with this on its disk, and no overlay.
    pub fn new(identity: u64, disk: Disk, course: Course) -> Self {
        let exact = disk.table().exact.as_ref().map(|_| ExactOverlay {
            rows: Exact::new(KEYS),
            present: [false; KEYS],
        });
        Self {
            course,
            identity,
            start: 1,
            counter: 0,
            table: disk.table().clone(),
            disk,
            clock: Clock::default(),
            rows: BTreeMap::new(),
            unsettled: Unsettled::default(),
            exact,
            fresh: BTreeSet::new(),
            proposed: None,
            proposals: 0,
            memory: None,
            candidates: BTreeMap::new(),
            begun: BTreeMap::new(),
            beginnings: 0,
            absorb_keys: ABSORB_KEYS,
            touched: Cell::new(true),
        }
    }

    pub const fn actor(&self) -> Actor {
        Actor {
            disk: self.identity,
            start: self.start,
        }
    }

    pub const fn next_dot(&mut self) -> Dot {
        self.counter += 1;
        Dot::new(self.actor(), self.counter)
    }

    pub fn view(&self, key: usize) -> KeyState {
        let row = self.rows.get(&key);
        let committed = self.table.state(key);
        if self.course.has(Mistake::AbsentClaims) {
            let row = row.cloned().unwrap_or_default();
            return overlay::view(&self.clock, Some(&row), committed);
        }
        overlay::view(&self.clock, row, committed)
    }

    /// The view by the plain rules.
    pub fn exact_view(&self, key: usize) -> ExactState {
        let (Some(overlay), Some(table)) = (&self.exact, &self.table.exact) else {
            return ExactState::default();
        };
        let committed = table.state(key);
        if !overlay.present[key] {
            return committed;
        }
        let row = overlay.rows.state(key);
        let mut live = crate::exact::Live::new();
        for (mine, other) in [(&row, &committed), (&committed, &row)] {
            let kept = mine
                .0
                .iter()
                .filter(|(dot, _)| other.0.contains_key(dot) || !other.1.contains(dot));
            live.extend(kept.map(|(dot, value)| (*dot, *value)));
        }
        (live, row.1.union(&committed.1).copied().collect())
    }

    /// What a reader of the view has seen.
    pub fn seen(&self, key: usize) -> Seen {
        Seen {
            exact: self.exact_view(key).1,
            real: self.view(key).context().clone(),
        }
    }

    /// The base, in both forms.
    pub fn base(&self) -> Seen {
        let exact = self.exact.as_ref();
        Seen {
            exact: exact.map_or_else(DotSet::new, |overlay| gapless(&overlay.rows.clock)),
            real: self.clock.base(),
        }
    }

    pub fn accept(&mut self, message: &Message) {
        let real = &message.real;
        self.take_in(
            message.key,
            |clock, record| accept(clock, record, real),
            |exact| exact.accept(message.key, &message.exact),
        );
    }

    /// Takes in what a peer's view shows of a key, or what the log's state does.
    pub fn join(&mut self, key: usize, (real, exact): &(KeyState, ExactState)) {
        self.take_in(
            key,
            |clock, record| join_key(clock, record, real),
            |plain| {
                plain.join(key, exact);
                plain.clock.retain(|dot| dot.actor != Actor::LOG);
            },
        );
    }

    fn take_in(
        &mut self,
        key: usize,
        real: impl FnOnce(&mut Clock, &Record) -> Outcome,
        plain: impl FnOnce(&mut Exact),
    ) {
        let committed = self.table.state(key);
        let seeds = committed.live().len() > 0 && !self.course.has(Mistake::NoSeed);
        let row = self.rows.get(&key);
        let before = match row {
            Some(row) => row.clone(),
            None if seeds => overlay::seed(&self.clock, &committed),
            None => Record::default(),
        };
        let is_new = row.is_none();
        let outcome = real(&mut self.clock, &before);
        if let Some(exact) = &mut self.exact {
            if is_new && seeds {
                let table = self.table.exact.as_ref().expect("as beside it");
                exact.rows.live[key] = table.live[key].clone();
                exact.rows.beyond[key] = table.context(key);
            }
            plain(&mut exact.rows);
            if is_new && !outcome.is_news() {
                exact.rows.live[key].clear();
                exact.rows.beyond[key].clear();
            }
            exact.present[key] |= outcome.is_news();
        }
        if !outcome.is_news() {
            return;
        }
        if is_new {
            self.beginnings += 1;
            self.begun.insert(key, self.beginnings);
        }
        self.put(key, outcome.record.unwrap_or(before));
        self.changed(key);
        if outcome.clock_grew {
            self.settle();
        }
    }

    fn changed(&mut self, key: usize) {
        self.fresh.insert(key);
        self.candidates.remove(&key);
        if let Some(memory) = &mut self.memory {
            memory.changed.insert(key);
        }
    }

    fn put(&mut self, key: usize, after: Record) {
        self.touched.set(true);
        let before = self.rows.get(&key).cloned().unwrap_or_default();
        self.unsettled.note(&key, &before, &after);
        self.rows.insert(key, after);
    }

    fn settle(&mut self) {
        loop {
            let due = self.unsettled.due(&self.clock, SETTLE_BATCH_KEYS);
            if due.is_empty() {
                return;
            }
            for key in due {
                if let Some(after) = settle(&self.clock, &self.rows[&key]) {
                    self.put(key, after);
                    self.settled(key);
                }
            }
        }
    }

    /// What the row knew itself, the base says by now, and the base that was remembered did
    /// not.
    fn settled(&mut self, key: usize) {
        if let Some(memory) = &mut self.memory
            && !self.course.has(Mistake::SettledUnsaid)
        {
            memory.changed.insert(key);
        }
    }

    /// Takes in a peer's base at the end of a repair. `beginnings` is as of its start: a row
    /// that began later knows less than the log's state may know by now, and the peer's
    /// clock covers what that state has.
    pub fn merge(&mut self, peer: &Seen, beginnings: u64) {
        if !self.course.has(Mistake::BegunInRepair) {
            let late = self.begun.iter().filter(|(_, begun)| **begun > beginnings);
            let late: Vec<usize> = late.map(|(key, _)| *key).collect();
            for key in late {
                self.join(key, &self.committed(key));
            }
        }
        if !self.clock.merge_base(&peer.real) {
            return;
        }
        if let Some(exact) = &mut self.exact {
            exact.rows.merge_clock(&peer.exact);
        }
        self.touched.set(true);
        self.memory = None;
        self.candidates.clear();
        if !self.course.has(Mistake::MergedUnsaid) {
            self.fresh.extend(self.rows.keys());
        }
        self.settle();
    }

    fn committed(&self, key: usize) -> (KeyState, ExactState) {
        let exact = self.table.exact.as_ref();
        let exact = exact.map_or_else(ExactState::default, |table| table.state(key));
        (self.table.state(key), exact)
    }

    /// Closes beside the rows what the log's state on this disk has closed: after a crash, rows
    /// begin with that state. In the same moment all rows take in the log's state: it has all writes
    /// of those starts, and a row that began before that may not.
    pub fn close_rows(&mut self) {
        let table = match self.course.has(Mistake::CloseAtOnce) {
            true => &self.table,
            false => self.durable(),
        };
        let decided = table.causal.absorbed().clone();
        let mut closed = decided.closed();
        if closed.all(|(disk, start)| self.clock.has_closed(disk, start)) {
            return;
        }
        let keys: Vec<usize> = self.rows.keys().copied().collect();
        for key in keys {
            if !self.course.has(Mistake::CloseBesideOldRows) {
                self.join(key, &self.committed(key));
            }
        }
        self.close(&decided);
    }

    pub fn close(&mut self, decided: &Dots) {
        let mut is_new = false;
        for (disk, start) in decided.closed() {
            is_new |= self.clock.close(disk, start);
        }
        if is_new {
            self.touched.set(true);
            self.memory = None;
            self.candidates.clear();
            self.settle();
        }
        if let (Some(exact), Some(table)) = (&mut self.exact, &self.table.exact) {
            let names = table.clock.iter().copied();
            exact
                .rows
                .merge_clock(&names.filter(|dot| decided.is_closed(dot.actor)).collect());
        }
    }

    /// What the log lacks, at most a few keys of it at a time; with the base once no key is
    /// left out.
    pub fn propose(&mut self) -> Option<Absorb> {
        if self.proposed.is_some() {
            return None;
        }
        let keys: BTreeSet<usize> = self.fresh.iter().take(self.absorb_keys).copied().collect();
        let all = keys.len() == self.fresh.len() || self.course.has(Mistake::BaseTooEarly);
        let base = all.then(|| self.base());
        let committed = self.table.causal.clock(self.table.at);
        let news = |base: &Seen| !base.real.is_within(committed.dots());
        if keys.is_empty() && !base.as_ref().is_some_and(news) {
            return None;
        }
        self.fresh.retain(|key| !keys.contains(key));
        let items = keys.iter().map(|key| self.item(*key)).collect();
        self.proposals += 1;
        self.proposed = Some(Proposed {
            number: self.proposals,
            keys,
        });
        let from = (self.identity, self.proposals);
        let absorb = Absorb { from, items, base };
        if self.course.has(Mistake::Trim) {
            self.fresh.clear();
            let rows: Vec<usize> = self.rows.keys().copied().collect();
            rows.into_iter().for_each(|key| self.drop_row(key));
        }
        Some(absorb)
    }

    fn item(&self, key: usize) -> Item {
        let exact = self.exact.as_ref();
        Item {
            key,
            real: self.rows[&key].state(&self.clock),
            exact: exact.map_or_else(ExactState::default, |overlay| overlay.rows.state(key)),
        }
    }

    /// It no longer waits for what it proposed: its term is over.
    pub fn give_up(&mut self) {
        if let Some(proposed) = self.proposed.take() {
            let left = proposed.keys.into_iter();
            self.fresh
                .extend(left.filter(|key| self.rows.contains_key(key)));
        }
    }

    pub fn apply(&mut self, at: Revision, entry: &Entry) {
        self.touched.set(true);
        let held = match self.course.has(Mistake::Unseen) {
            true => self.held(),
            false => Vec::new(),
        };
        self.table.apply(at, entry, &self.course, &held);
        match entry {
            Entry::Absorb(absorb) => {
                let mine = self.proposed.as_ref();
                if mine.is_some_and(|mine| absorb.from == (self.identity, mine.number)) {
                    self.proposed = None;
                }
            }
            Entry::Put(_) | Entry::Delta(_) | Entry::Close(_) | Entry::Expire(_) => {}
        }
    }

    /// What its rows show of each key, which is no part of the log's state.
    fn held(&self) -> Vec<Dots> {
        let rows = (0..KEYS).map(|key| self.rows.get(&key));
        let live = rows.map(|row| row.map(|row| row.live().map(|(dot, _)| *dot)));
        live.map(|dots| dots.into_iter().flatten().collect())
            .collect()
    }

    pub fn flush(&mut self) {
        self.disk.flush(&mut self.table, &self.course);
    }

    pub fn durable(&self) -> &Table {
        self.disk.table()
    }

    /// Looks which rows the log's state has by now, and remembers the others anew.
    pub fn remember(&mut self) {
        let memory = self.memory.replace(Memory {
            base: self.clock.base(),
            changed: BTreeSet::new(),
        });
        let Some(memory) = memory else { return };
        for (key, row) in &self.rows {
            let committed = self.table.state(*key);
            if memory.changed.contains(key) || self.candidates.contains_key(key) {
                continue;
            }
            if overlay::is_absorbed(row, &memory.base, &committed) {
                self.candidates.insert(*key, self.table.index);
            }
        }
    }

    /// Drops the rows that the log's state on disk has. Says which key would show something
    /// else after that, now or after a crash.
    pub fn trim(&mut self) -> Result<(), String> {
        let durable = match self.course.has(Mistake::TrimAtOnce) {
            true => self.table.index,
            false => self.durable().index,
        };
        let due = self
            .candidates
            .iter()
            .filter(|(_, index)| **index <= durable);
        let due: Vec<usize> = due.map(|(key, _)| *key).collect();
        for key in due {
            let durable = self.durable().state(key);
            if !self.course.has(Mistake::TrimAtOnce) {
                let before = overlay::view(&self.clock, self.rows.get(&key), durable.clone());
                let dots =
                    |state: &KeyState| -> Vec<Dot> { state.live().map(|(dot, _)| *dot).collect() };
                if dots(&before) != dots(&durable) {
                    return Err(format!("key {key} shows more without its row"));
                }
            }
            self.drop_row(key);
        }
        Ok(())
    }

    fn drop_row(&mut self, key: usize) {
        self.touched.set(true);
        self.candidates.remove(&key);
        self.fresh.remove(&key);
        self.begun.remove(&key);
        if let Some(row) = self.rows.remove(&key) {
            self.unsettled.note(&key, &row, &Record::default());
        }
        if let Some(exact) = &mut self.exact {
            exact.present[key] = false;
            exact.rows.live[key].clear();
            exact.rows.beyond[key].clear();
        }
    }

    /// A crash and a start: memory is lost, the overlay is on disk.
    pub fn restart(&mut self) {
        self.touched.set(true);
        self.start += 1;
        self.counter = 0;
        self.table = self.durable().clone();
        self.proposed = None;
        self.memory = None;
        self.candidates.clear();
        if self.course.has(Mistake::FreshForgotten) {
            self.fresh.clear();
        } else {
            self.fresh = self.rows.keys().copied().collect();
        }
    }

    /// A peer's snapshot replaces the log's state. The overlay stays.
    pub fn install(&mut self, peer: &Disk) {
        self.touched.set(true);
        self.disk = peer.clone();
        if self.course.has(Mistake::SnapshotWithoutClock) {
            self.disk.lose_the_clock();
        }
        self.table = self.durable().clone();
        if self.course.has(Mistake::Wipe) {
            self.clock = Clock::default();
            let rows: Vec<usize> = self.rows.keys().copied().collect();
            rows.into_iter().for_each(|key| self.drop_row(key));
        }
    }

    pub fn is_settled(&self) -> bool {
        self.rows.is_empty() && self.unsettled.is_empty()
    }

    /// Whether both rules hold the same.
    pub fn compare(&self, names: &Names) -> Result<(), String> {
        let (Some(exact), Some(table)) = (&self.exact, &self.table.exact) else {
            return Ok(());
        };
        if explicit_among(self.clock.dots(), names) != exact.rows.clock {
            return Err("another clock".to_owned());
        }
        for key in 0..KEYS {
            let row = self.rows.get(&key);
            if row.is_some() != exact.present[key] {
                return Err(format!("a row of key {key}"));
            }
            if let Some(row) = row {
                row.validate(&self.clock)
                    .map_err(|dot| format!("{dot} is not known"))?;
                self.same(&row.state(&self.clock), &exact.rows.state(key), names)
                    .map_err(|what| format!("the row of key {key} has other {what}"))?;
            }
            self.same(&self.table.state(key), &table.state(key), names)
                .map_err(|what| format!("the log's key {key} has other {what}"))?;
            self.same(&self.view(key), &self.exact_view(key), names)
                .map_err(|what| format!("the view of key {key} has other {what}"))?;
            if self
                .table
                .causal
                .beyond(&name(key))
                .is_some_and(Dots::is_empty)
            {
                return Err(format!("key {key} stores no dots"));
            }
            self.compare_latest(key)?;
        }
        Ok(())
    }

    /// Whether both choose the same of concurrent values.
    fn compare_latest(&self, key: usize) -> Result<(), String> {
        if self.course.kind != Kind::Timed {
            return Ok(());
        }
        let now = Timestamp(self.table.at.0);
        let kind = self.course.kind;
        let state = self.table.state(key);
        let visible = state.live().filter_map(|(dot, value)| {
            let expiry = kind.expiry_of(kind.value_of(&value.payload));
            let time = self.table.times.get(dot)?;
            expiry
                .is_none_or(|expiry| now < expiry)
                .then_some((*time, *dot))
        });
        let latest = visible.max().map(|(_, dot)| dot);
        let shown = match evaluate(ConflictPolicy::LastWriteWins, &state, now) {
            Ok(Reading::Absent) => None,
            Ok(Reading::Latest { shown, .. }) => Some(shown.dot),
            other => return Err(format!("key {key} reads as {other:?}")),
        };
        match shown == latest {
            true => Ok(()),
            false => Err(format!("of key {key} another value is the latest")),
        }
    }

    /// Whether both forms show the same values and know the same dots.
    fn same(&self, real: &KeyState, exact: &ExactState, names: &Names) -> Result<(), &'static str> {
        let kind = self.course.kind;
        let shown = real
            .live()
            .map(|(dot, value)| (*dot, kind.value_of(&value.payload)));
        if !shown.eq(exact.0.iter().map(|(dot, value)| (*dot, *value))) {
            return Err("live values");
        }
        if explicit_among(real.context(), names) != exact.1 {
            return Err("dots in its context");
        }
        Ok(())
    }
}

/// The dots of a set that were ever named, one by one: those of closed starts too. `names`: the
/// last counter that each actor gave out. The log's own are taken as they stand.
pub fn explicit_among(dots: &Dots, names: &Names) -> DotSet {
    let named = names
        .iter()
        .flat_map(|(actor, last)| (1..=*last).map(|counter| Dot::new(*actor, counter)));
    let mut all: DotSet = named.filter(|dot| dots.contains(*dot)).collect();
    let of_log = dots.counters(Actor::LOG).into_iter();
    let of_log = of_log.flat_map(|counters| counters.ranges());
    let of_log = of_log.flat_map(|(first, last)| first..=last);
    all.extend(of_log.map(|counter| Dot::new(Actor::LOG, counter)));
    all
}

/// The dots up to which nothing is missing.
fn gapless(clock: &DotSet) -> DotSet {
    let mut base = DotSet::new();
    for dot in clock {
        let below = Dot::new(dot.actor, dot.counter - 1);
        if dot.counter == 1 || base.contains(&below) {
            base.insert(*dot);
        }
    }
    base
}
