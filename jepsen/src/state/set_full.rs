//! A set that is read all the time: what became of each element, read after read.
//!
//! An element is *known* once its addition is acknowledged, or once a read that saw it has
//! returned. Of reads that begin after that, the last ones tell: still absent is lost; absent and
//! then present again is stale, which is wrong only where reads are to be linearizable.

use crate::budget::Budget;
use crate::checker::{Checker, Misfit};
use crate::history::{Operation, Outcome};
use crate::intern::Interner;
use crate::report::{Finding, Place, Report};

/// The checker of a set that is read all the time.
#[derive(Default)]
pub struct SetFull {
    linearizable: bool,
    elements: Interner,
    adds: Vec<Add>,
    reads: Vec<Read>,
    duplicates: Vec<Finding>,
    operations: u64,
}

struct Add {
    element: u32,
    outcome: Outcome,
    returned: u64,
    time: Option<i64>,
    place: Place,
}

struct Read {
    invoked: u64,
    returned: u64,
    time: Option<i64>,
    seen: Vec<u32>,
    place: Place,
}

/// What is known of one element, reads in the order of their invocations.
#[derive(Clone, Default)]
struct Life {
    /// Position from which on it is known, and the time of it.
    known: Option<(u64, Option<i64>)>,
    place: Option<Place>,
    attempted: bool,
    acknowledged: bool,
    refused: bool,
    /// Numbers of the reads that saw it, rising.
    seen: Vec<u32>,
}

impl SetFull {
    /// Stale reads are wrong, too, if reads are to be `linearizable`.
    pub fn new(linearizable: bool) -> Self {
        Self {
            linearizable,
            ..Self::default()
        }
    }

    fn read(&mut self, operation: &Operation) -> Result<(), Misfit> {
        let Some(values) = operation.answered.as_list() else {
            let what = format!("a read answers a list, not `{}`", operation.answered);
            return Err(Misfit::new(operation, what));
        };
        let mut seen: Vec<u32> = values.iter().map(|value| self.elements.id(value)).collect();
        seen.sort_unstable();
        for pair in seen.windows(2).filter(|pair| pair[0] == pair[1]) {
            let value = self.elements.value(pair[0]);
            let place = Place::of(operation);
            let summary = format!("a read ({place}) shows {value} more than once");
            self.duplicates.push(Finding::new("duplicated", summary));
        }
        seen.dedup();
        self.reads.push(Read {
            invoked: operation.invoked.position,
            returned: operation.returned(),
            time: operation.invoked.time_nanoseconds,
            seen,
            place: Place::of(operation),
        });
        Ok(())
    }

    fn lives(&self) -> Vec<Life> {
        let mut lives = vec![Life::default(); self.elements.len()];
        for add in &self.adds {
            let life = &mut lives[add.element as usize];
            life.place = Some(add.place);
            life.attempted |= add.outcome != Outcome::Fail;
            life.refused |= add.outcome == Outcome::Fail;
            if add.outcome == Outcome::Ok {
                life.acknowledged = true;
                life.know(add.returned, add.time);
            }
        }
        for (number, read) in self.reads.iter().enumerate() {
            for element in &read.seen {
                let life = &mut lives[*element as usize];
                life.know(read.returned, None);
                life.seen.push(number as u32);
            }
        }
        lives
    }

    fn judge(&self, element: u32, life: &Life, report: &mut Report) -> Fate {
        let value = self.elements.value(element);
        if !life.attempted && !life.seen.is_empty() {
            let why = if life.refused {
                "adding it failed"
            } else {
                "nobody added it"
            };
            let read = &self.reads[life.seen[0] as usize];
            let summary = format!("{value} was read ({}), but {why}", read.place);
            report.invalid(Finding::new("unexpected", summary));
        }
        let Some((known, _)) = life.known else {
            return Fate::Unread;
        };
        let mut seen = life.seen.iter().rev().peekable();
        let mut after = None;
        for (number, read) in self.reads.iter().enumerate().rev() {
            if seen.next_if(|last| **last == number as u32).is_some() {
                after = after.or(Some(read));
                continue;
            }
            if read.invoked < known {
                break;
            }
            let place = life
                .place
                .map(|place| format!(" ({place})"))
                .unwrap_or_default();
            let Some(after) = after else {
                let summary = format!(
                    "{value}, added{place}, is missing in the last read that could show it ({})",
                    read.place
                );
                report.invalid(Finding::new("lost", summary));
                return Fate::Lost;
            };
            let summary = format!(
                "{value}, added{place}, is missing in a read ({}), and back in a later one ({})",
                read.place, after.place
            );
            let finding = Finding::new("stale", summary);
            match self.linearizable {
                true => report.invalid(finding),
                false => report.mention(finding),
            }
            return Fate::Stale(read.time);
        }
        if life.seen.is_empty() {
            Fate::Unread
        } else {
            Fate::Stable
        }
    }
}

/// What became of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Unread,
    Lost,
    /// Missing at that time, and seen later.
    Stale(Option<i64>),
    Stable,
}

impl Life {
    fn know(&mut self, position: u64, time: Option<i64>) {
        if self.known.is_none_or(|(known, _)| position < known) {
            self.known = Some((position, time));
        }
    }
}

impl Checker for SetFull {
    fn operation(&mut self, operation: &Operation) -> Result<(), Misfit> {
        self.operations += 1;
        match &*operation.f {
            "add" => self.adds.push(Add {
                element: self.elements.id(&operation.asked),
                outcome: operation.outcome,
                returned: operation.returned(),
                time: operation.completed.and_then(|end| end.time_nanoseconds),
                place: Place::of(operation),
            }),
            "read" if operation.outcome == Outcome::Ok => self.read(operation)?,
            "read" => {}
            _ => return Err(Misfit::function(operation, "add, read")),
        }
        Ok(())
    }

    fn check(mut self: Box<Self>, _budget: &mut Budget<'_>) -> Report {
        let mut report = Report::valid(self.operations);
        self.reads.sort_by_key(|read| read.invoked);
        for finding in std::mem::take(&mut self.duplicates) {
            report.invalid(finding);
        }
        let (mut stable, mut unread, mut slowest) = (0u64, 0u64, 0);
        for (element, life) in self.lives().iter().enumerate() {
            match self.judge(element as u32, life, &mut report) {
                Fate::Stable => stable += 1,
                Fate::Unread => unread += u64::from(life.acknowledged),
                Fate::Stale(missing) => {
                    stable += 1;
                    let known = life.known.and_then(|(_, time)| time);
                    let late = missing
                        .zip(known)
                        .map_or(0, |(missing, known)| missing - known);
                    slowest = slowest.max(late);
                }
                Fate::Lost => {}
            }
        }
        let slowest_milliseconds = slowest / 1_000_000;
        report.remarks.push(format!(
            "{stable} elements stayed, {unread} acknowledged ones were never read; the last \
             stale read began {slowest_milliseconds} ms after its element was known"
        ));
        match stable {
            0 => report.not_known("no element was ever read"),
            _ => report,
        }
    }
}
