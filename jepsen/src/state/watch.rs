//! Watches: each watcher is told each change of its keys once, in the order of the store, and
//! nothing else.
//!
//! Writers tell what they changed, and the revision that the store gave it; watchers what they were
//! told. A watcher that begins with *now* is owed what is asked for after it had begun, one from the
//! *beginning* is owed all. What one was told proves what another has missed: within a range,
//! whoever was told of something earlier and something later was owed what lies between, whether
//! its writer heard of it or not.

use std::collections::{BTreeMap, BTreeSet};

use crate::budget::Budget;
use crate::checker::{Checker, Misfit};
use crate::hash::QuickMap;
use crate::history::{Operation, Outcome};
use crate::report::{Finding, Place, Report};
use crate::value::Value;

/// What makes a change one of its own: the range, the revision there, and the key.
type Name = (i64, i64, Value);

/// The checker of watches.
#[derive(Default)]
pub struct Watch {
    writes: Vec<Write>,
    watchers: BTreeMap<i64, Watcher>,
    operations: u64,
}

/// A put, or a delete of what was there.
struct Write {
    key: Value,
    /// None: a delete.
    value: Option<Value>,
    outcome: Outcome,
    /// As it was acknowledged.
    revision: Option<i64>,
    invoked: u64,
    returned: u64,
    place: Place,
}

#[derive(Default)]
struct Watcher {
    begin: Option<Begin>,
    told: Vec<Told>,
    /// When it was asked for the last time, to tell all that had been acknowledged.
    end: Option<(u64, Place)>,
}

#[derive(Clone, Copy)]
struct Begin {
    invoked: u64,
    returned: u64,
    with_all: bool,
}

/// An event as a watcher was told it.
struct Told {
    name: Name,
    value: Option<Value>,
    position: u64,
    place: Place,
}

/// A change that somebody was told of.
struct Change {
    value: Option<Value>,
    /// The write that it is, if that can be told.
    write: Option<usize>,
}

impl Watch {
    fn write(&mut self, operation: &Operation, is_put: bool) -> Result<(), Misfit> {
        let key = operation.key.clone();
        let key = key.ok_or_else(|| Misfit::new(operation, "it has no `key`"))?;
        let answered = &operation.answered;
        let revision = match (operation.outcome, answered.field("revision")) {
            (Outcome::Ok, Some(Value::Int(revision))) => Some(*revision),
            // There was nothing to be deleted.
            (Outcome::Ok, Some(Value::Nil)) if !is_put => return Ok(()),
            (Outcome::Ok, _) => {
                let what = format!("wanted an answer {{revision}}, found `{answered}`");
                return Err(Misfit::new(operation, what));
            }
            (Outcome::Fail | Outcome::Unknown, _) => None,
        };
        self.writes.push(Write {
            key,
            value: is_put.then(|| operation.asked.clone()),
            outcome: operation.outcome,
            revision,
            invoked: operation.invoked.position,
            returned: operation.returned(),
            place: Place::of(operation),
        });
        Ok(())
    }

    fn watcher(&mut self, operation: &Operation) -> Result<&mut Watcher, Misfit> {
        let number = operation.asked.field("watcher").and_then(Value::as_int);
        let number = number.ok_or_else(|| Misfit::new(operation, "it names no `watcher`"))?;
        Ok(self.watchers.entry(number).or_default())
    }

    fn begin(&mut self, operation: &Operation) -> Result<(), Misfit> {
        let from = operation.asked.field("from").and_then(Value::as_text);
        let with_all = match from {
            Some("now") => false,
            Some("beginning") => true,
            _ => return Err(Misfit::new(operation, "`from` is now or beginning")),
        };
        let begin = Begin {
            invoked: operation.invoked.position,
            returned: operation.returned(),
            with_all,
        };
        let watcher = self.watcher(operation)?;
        if watcher.begin.replace(begin).is_some() {
            return Err(Misfit::new(operation, "this watcher has begun before"));
        }
        Ok(())
    }

    fn told(&mut self, operation: &Operation, is_last: bool) -> Result<(), Misfit> {
        let wrong = || {
            let what = "wanted an answer {events [[RANGE REVISION KEY VALUE] …]}";
            Misfit::new(operation, what)
        };
        let events = operation.answered.field("events").and_then(Value::as_list);
        let mut told = Vec::new();
        for event in events.ok_or_else(wrong)? {
            let Some([Value::Int(range), Value::Int(revision), key, value]) = event.as_list()
            else {
                return Err(wrong());
            };
            told.push(Told {
                name: (*range, *revision, key.clone()),
                value: (!value.is_nil()).then(|| value.clone()),
                position: operation.returned(),
                place: Place::of(operation),
            });
        }
        let watcher = self.watcher(operation)?;
        watcher.told.extend(told);
        if is_last {
            watcher.end = Some((operation.invoked.position, Place::of(operation)));
        }
        Ok(())
    }

    /// All changes that anybody was told of, and those that nobody made.
    fn changes(&self, report: &mut Report) -> BTreeMap<Name, Change> {
        let mut matching = Matching::of(&self.writes);
        let mut changes: BTreeMap<Name, Change> = BTreeMap::new();
        for (number, watcher) in &self.watchers {
            for told in &watcher.told {
                if let Some(change) = changes.get(&told.name) {
                    if change.value != told.value {
                        let summary = format!(
                            "{told} ({}, watcher {number}); another one was told {}",
                            told.place,
                            shown(change.value.as_ref())
                        );
                        report.invalid(Finding::new("disagreement", summary));
                    }
                    continue;
                }
                let write = matching.take(told).map_err(|(anomaly, why)| {
                    let summary = format!("{told} ({}, watcher {number}): {why}", told.place);
                    report.invalid(Finding::new(anomaly, summary));
                });
                let value = told.value.clone();
                let write = write.ok();
                changes.insert(told.name.clone(), Change { value, write });
            }
        }
        changes
    }

    /// Whether one watcher was told everything once and in order, and nothing from before it began.
    fn order(&self, number: i64, changes: &BTreeMap<Name, Change>, report: &mut Report) {
        let watcher = &self.watchers[&number];
        let mut seen = BTreeSet::new();
        let mut last: BTreeMap<i64, &Told> = BTreeMap::new();
        for told in &watcher.told {
            let mut found = |anomaly, why: String| {
                let summary = format!("{told} ({}, watcher {number}): {why}", told.place);
                report.invalid(Finding::new(anomaly, summary));
            };
            let (range, revision, _) = told.name;
            if !seen.insert(&told.name) {
                found("twice", "it had been told before".to_owned());
                continue;
            }
            match last.get(&range) {
                Some(before) if before.name.1 > revision => {
                    found(
                        "disorder",
                        format!("before it, {before} ({})", before.place),
                    );
                }
                _ => {
                    last.insert(range, told);
                }
            }
            let write = changes.get(&told.name).and_then(|change| change.write);
            let write = write.map(|write| &self.writes[write]);
            let begin = watcher.begin.filter(|begin| !begin.with_all);
            if let (Some(write), Some(begin)) = (write, begin)
                && write.returned < begin.invoked
            {
                let why = "it was acknowledged before the watch from now on was asked for";
                found("early", format!("{why} ({})", write.place));
            }
        }
    }

    /// What one watcher was owed and was not told.
    fn losses(&self, number: i64, changes: &BTreeMap<Name, Change>, report: &mut Report) {
        let watcher = &self.watchers[&number];
        let Some(begin) = watcher.begin else {
            return;
        };
        let seen: BTreeSet<&Name> = watcher.told.iter().map(|told| &told.name).collect();
        let mut spans: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        for (range, revision, _) in &seen {
            let span = spans.entry(*range).or_insert((*revision, *revision));
            span.1 = *revision;
        }
        for (name, change) in changes.iter().filter(|(name, _)| !seen.contains(name)) {
            let write = change.write.map(|write| &self.writes[write]);
            let span = spans.get(&name.0);
            let is_late = span.is_none_or(|(_, last)| name.1 > *last);
            let is_owed = begin.with_all
                || span.is_some_and(|(first, _)| name.1 > *first)
                || write.is_some_and(|write| write.invoked > begin.returned);
            let is_due = !is_late || write.is_some_and(|write| watcher.is_after(write));
            if is_owed && is_due {
                let what = described(&name.2, change.value.as_ref(), Some(name.1));
                let of = write.map(|write| format!(" ({})", write.place));
                let rest = "was told to others, and not to watcher";
                let summary = format!("{what}{} {rest} {number}", of.unwrap_or_default());
                report.invalid(Finding::new("lost", summary));
            }
        }
        self.unheard(number, changes, begin, report);
    }

    /// What was acknowledged, and told to nobody.
    fn unheard(
        &self,
        number: i64,
        changes: &BTreeMap<Name, Change>,
        begin: Begin,
        report: &mut Report,
    ) {
        let heard: BTreeSet<usize> = changes.values().filter_map(|change| change.write).collect();
        let watcher = &self.watchers[&number];
        for (at, write) in self.writes.iter().enumerate() {
            let is_owed = begin.with_all || write.invoked > begin.returned;
            let is_due = write.outcome == Outcome::Ok && watcher.is_after(write);
            if is_owed && is_due && !heard.contains(&at) {
                let what = described(&write.key, write.value.as_ref(), write.revision);
                let place = write.place;
                let summary =
                    format!("{what} ({place}) was told to nobody, nor to watcher {number}");
                report.invalid(Finding::new("lost", summary));
            }
        }
    }
}

impl Watcher {
    /// Whether it was asked for the last time after a write was acknowledged.
    fn is_after(&self, write: &Write) -> bool {
        self.end.is_some_and(|(end, _)| write.returned < end)
    }
}

/// Which write an event is, each at most once.
struct Matching<'a> {
    writes: &'a [Write],
    puts: QuickMap<&'a Value, Vec<usize>>,
    deletes: QuickMap<&'a Value, Vec<usize>>,
    taken: BTreeSet<usize>,
}

impl<'a> Matching<'a> {
    fn of(writes: &'a [Write]) -> Self {
        let (mut puts, mut deletes) = (QuickMap::default(), QuickMap::default());
        for (at, write) in writes.iter().enumerate() {
            let found: &mut Vec<usize> = match &write.value {
                Some(value) => puts.entry(value).or_default(),
                None => deletes.entry(&write.key).or_default(),
            };
            found.push(at);
        }
        Self {
            writes,
            puts,
            deletes,
            taken: BTreeSet::new(),
        }
    }

    /// The write of an event, or the name of what is wrong, and why it is.
    fn take(&mut self, told: &Told) -> Result<usize, (&'static str, &'static str)> {
        let (_, revision, key) = &told.name;
        let candidates = match &told.value {
            Some(value) => self.puts.get(value),
            None => self.deletes.get(key),
        };
        let candidates = candidates.map(Vec::as_slice).unwrap_or_default();
        let is_possible = |at: &&usize| {
            let write = &self.writes[**at];
            write.key == *key && write.outcome != Outcome::Fail && write.invoked < told.position
        };
        let at_revision = |at: &&usize| self.writes[**at].revision == Some(*revision);
        let is_open = |at: &&usize| self.writes[**at].revision.is_none();
        let possible = || candidates.iter().filter(is_possible);
        if let Some(at) = possible().find(at_revision) {
            self.taken.insert(*at);
            return Ok(*at);
        }
        // Nobody knows at which revision a write without an answer took effect.
        let left = possible()
            .filter(is_open)
            .find(|at| !self.taken.contains(at));
        if let Some(at) = left {
            self.taken.insert(*at);
            return Ok(*at);
        }
        Err(match possible().next() {
            Some(_) => ("repeated", "its write took effect at another revision"),
            None if candidates.is_empty() => ("invented", "nobody wrote that"),
            None => (
                "invented",
                "no write that succeeded, of this key and by then, is that",
            ),
        })
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "its delete".to_owned(), ToString::to_string)
}

fn described(key: &Value, value: Option<&Value>, revision: Option<i64>) -> String {
    let at = revision.map(|revision| format!(" at revision {revision}"));
    let at = at.unwrap_or_default();
    match value {
        Some(value) => format!("the put of {value} to key {key}{at}"),
        None => format!("the delete of key {key}{at}"),
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (range, revision, key) = &self.name;
        f.write_str(&described(key, self.value.as_ref(), Some(*revision)))?;
        write!(f, " of range {range}")
    }
}

impl Checker for Watch {
    fn operation(&mut self, operation: &Operation) -> Result<(), Misfit> {
        self.operations += 1;
        let is_done = operation.outcome == Outcome::Ok;
        match &*operation.f {
            "put" => self.write(operation, true),
            "delete" => self.write(operation, false),
            "watch" if is_done => self.begin(operation),
            "events" if is_done => self.told(operation, false),
            "last-events" if is_done => self.told(operation, true),
            "watch" | "events" | "last-events" => Ok(()),
            _ => {
                let known = "put, delete, watch, events, last-events";
                Err(Misfit::function(operation, known))
            }
        }
    }

    fn check(self: Box<Self>, _budget: &mut Budget<'_>) -> Report {
        let mut report = Report::valid(self.operations);
        let changes = self.changes(&mut report);
        for number in self.watchers.keys() {
            self.order(*number, &changes, &mut report);
            self.losses(*number, &changes, &mut report);
        }
        let told: usize = self.watchers.values().map(|it| it.told.len()).sum();
        let watchers = self.watchers.values();
        let ended = watchers
            .filter(|it| it.begin.is_some() && it.end.is_some())
            .count();
        report.remarks.push(format!(
            "{} changes, told {told} times to {} watchers, {ended} of them followed to the end",
            changes.len(),
            self.watchers.len()
        ));
        match ended {
            0 => report.not_known("no watcher was followed to its end"),
            _ => report,
        }
    }
}
