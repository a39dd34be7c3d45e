//! Siblings: no write is lost, nothing that was replaced comes back, and at last all show the
//! same.
//!
//! A write names the values that its client had seen, and replaces them and whatever they had
//! replaced. Values are unique per key. Reads may be as stale as they like, but no read shows a
//! value beside one that replaced it. `final-read`s are made once everything is healed and has
//! settled: they show exactly what was written and not replaced.

use super::{context, key, shown, written};
use crate::budget::Budget;
use crate::checker::{Checker, Misfit};
use crate::hash::{QuickMap, QuickSet};
use crate::history::{Operation, Outcome};
use crate::intern::Interner;
use crate::report::{Finding, Place, Report};
use crate::value::Value;

/// Nobody.
const NONE: u32 = u32::MAX;

/// The checker of siblings. Keys are checked apart.
#[derive(Default)]
pub struct Siblings {
    keys: QuickMap<Value, Key>,
    names: Vec<Value>,
    operations: u64,
}

/// What happened to a key.
#[derive(Default)]
struct Key {
    values: Interner,
    writes: Vec<Write>,
    /// Per value, the number of its write.
    writers: Vec<u32>,
    reads: Vec<(Vec<u32>, Place)>,
    last: Vec<(Vec<u32>, Place)>,
}

/// A write, or a delete, which writes nothing.
struct Write {
    value: Option<u32>,
    replaces: Vec<u32>,
    outcome: Outcome,
    place: Place,
}

impl Checker for Siblings {
    fn operation(&mut self, operation: &Operation) -> Result<(), Misfit> {
        self.operations += 1;
        let name = key(operation)?;
        if !self.keys.contains_key(&name) {
            self.names.push(name.clone());
        }
        let key = self.keys.entry(name).or_default();
        match (&*operation.f, operation.outcome) {
            ("write", _) => {
                let (value, context) = written(operation)?;
                key.write(operation, Some(&value), &context)
            }
            ("delete", _) => key.write(operation, None, &context(operation)?),
            ("read" | "final-read", Outcome::Ok) => {
                let ids = shown(operation)?.iter().map(|value| key.values.id(value));
                let mut ids: Vec<u32> = ids.collect();
                ids.sort_unstable();
                ids.dedup();
                let read = (ids, Place::of(operation));
                match &*operation.f {
                    "read" => key.reads.push(read),
                    _ => key.last.push(read),
                }
                Ok(())
            }
            ("read" | "final-read", Outcome::Fail | Outcome::Unknown) => Ok(()),
            _ => Err(Misfit::function(
                operation,
                "read, write, delete, final-read",
            )),
        }
    }

    fn check(mut self: Box<Self>, budget: &mut Budget<'_>) -> Report {
        let mut report = Report::valid(self.operations);
        for name in &self.names {
            if let Err(spent) = budget.look() {
                report.unknown(spent);
                break;
            }
            if let Some(key) = self.keys.get_mut(name) {
                report.absorb(&name.to_string(), key.check());
            }
        }
        report
    }
}

impl Key {
    fn write(
        &mut self,
        operation: &Operation,
        value: Option<&Value>,
        context: &[Value],
    ) -> Result<(), Misfit> {
        let id = value.map(|value| self.values.id(value));
        let replaces = context.iter().map(|value| self.values.id(value)).collect();
        if let (Some(id), Some(value)) = (id, value) {
            let at = id as usize;
            self.writers.resize(self.writers.len().max(at + 1), NONE);
            if self.writers[at] != NONE {
                let what = format!("{value} is written twice: values of a key are unique");
                return Err(Misfit::new(operation, what));
            }
            self.writers[at] = self.writes.len() as u32;
        }
        self.writes.push(Write {
            value: id,
            replaces,
            outcome: operation.outcome,
            place: Place::of(operation),
        });
        Ok(())
    }

    fn writer(&self, value: u32) -> Option<&Write> {
        let number = *self.writers.get(value as usize)?;
        self.writes.get(number as usize)
    }

    fn check(&mut self) -> Report {
        let mut report = Report::valid(0);
        self.writers.resize(self.values.len(), NONE);
        for (read, place) in self.reads.iter().chain(&self.last) {
            self.unwritten(read, *place, &mut report);
            self.beside(read, *place, &mut report);
        }
        let mut ends = self.last.iter();
        let Some((end, place)) = ends.next() else {
            report
                .remarks
                .push("no final-read: what was lost cannot be told".to_owned());
            return report;
        };
        for (other, other_place) in ends.filter(|(other, _)| other != end) {
            let (one, other) = (self.told(end), self.told(other));
            let summary =
                format!("at last one read ({place}) shows {one}, another ({other_place}) {other}");
            report.invalid(Finding::new("diverged", summary));
        }
        self.end(end, *place, &mut report);
        report
    }

    fn told(&self, values: &[u32]) -> String {
        let values = values.iter().map(|id| self.values.value(*id).to_string());
        format!("[{}]", values.collect::<Vec<_>>().join(" "))
    }

    fn unwritten(&self, read: &[u32], place: Place, report: &mut Report) {
        for value in read {
            let why = match self
                .writer(*value)
                .map(|write| (write.outcome, write.place))
            {
                None => "nobody wrote".to_owned(),
                Some((Outcome::Fail, place)) => format!("a write that failed ({place}) wrote"),
                Some((Outcome::Ok | Outcome::Unknown, _)) => continue,
            };
            let value = self.values.value(*value);
            let summary = format!("a read ({place}) shows {value}, which {why}");
            report.invalid(Finding::new("unwritten", summary));
        }
    }

    /// All that a value's write replaced, directly or by what it replaced.
    fn replaced(&self, value: u32) -> QuickSet<u32> {
        let mut replaced = QuickSet::default();
        let mut open = vec![value];
        while let Some(value) = open.pop() {
            for before in self.writer(value).map_or(&[][..], |write| &write.replaces) {
                if replaced.insert(*before) {
                    open.push(*before);
                }
            }
        }
        replaced
    }

    /// No value stands beside one that replaced it.
    fn beside(&self, read: &[u32], place: Place, report: &mut Report) {
        if read.len() < 2 {
            return;
        }
        for value in read {
            let replaced = self.replaced(*value);
            for other in read.iter().filter(|other| replaced.contains(other)) {
                let (value, other) = (self.values.value(*value), self.values.value(*other));
                let summary = format!(
                    "a read ({place}) shows {other} beside {value}, whose writer had seen and replaced it"
                );
                report.invalid(Finding::new("resurrected", summary));
            }
        }
    }

    /// In the end there is what was acknowledged and not replaced, and nothing that was replaced.
    fn end(&self, end: &[u32], place: Place, report: &mut Report) {
        let mut maybe: QuickMap<u32, Place> = QuickMap::default();
        let mut surely: QuickMap<u32, Place> = QuickMap::default();
        for write in self
            .writes
            .iter()
            .filter(|write| write.outcome != Outcome::Fail)
        {
            let seen = write.value.is_some_and(|value| end.contains(&value));
            for before in &write.replaces {
                for value in self.replaced(*before).into_iter().chain([*before]) {
                    maybe.insert(value, write.place);
                    if write.outcome == Outcome::Ok || seen {
                        surely.insert(value, write.place);
                    }
                }
            }
        }
        for write in self
            .writes
            .iter()
            .filter(|write| write.outcome == Outcome::Ok)
        {
            let lost = write
                .value
                .filter(|value| !end.contains(value) && !maybe.contains_key(value));
            if let Some(value) = lost {
                let value = self.values.value(value);
                let summary = format!(
                    "{value} was acknowledged ({}), nobody replaced it, and at last it is gone ({place})",
                    write.place
                );
                report.invalid(Finding::new("lost-update", summary));
            }
        }
        for value in end {
            if let Some(by) = surely.get(value) {
                let value = self.values.value(*value);
                let summary = format!(
                    "{value} was seen and replaced ({by}), and at last it is there ({place})"
                );
                report.invalid(Finding::new("resurrected", summary));
            }
        }
    }
}
