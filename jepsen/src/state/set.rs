//! A set that is read at the end: every acknowledged element is there, and nothing else.

use crate::budget::Budget;
use crate::checker::{Checker, Misfit};
use crate::history::{Operation, Outcome};
use crate::intern::Interner;
use crate::report::{Finding, Place, Report};

/// The checker of a set's last read.
#[derive(Default)]
pub struct Set {
    elements: Interner,
    adds: Vec<(u32, Outcome, Place)>,
    last_read: Option<(u64, Vec<u32>, Place)>,
    operations: u64,
}

impl Checker for Set {
    fn operation(&mut self, operation: &Operation) -> Result<(), Misfit> {
        self.operations += 1;
        match &*operation.f {
            "add" => {
                let element = self.elements.id(&operation.asked);
                let place = Place::of(operation);
                self.adds.push((element, operation.outcome, place));
            }
            "read" if operation.outcome == Outcome::Ok => {
                let Some(values) = operation.answered.as_list() else {
                    let what = format!("a read answers a list, not `{}`", operation.answered);
                    return Err(Misfit::new(operation, what));
                };
                let begin = operation.invoked.position;
                if self
                    .last_read
                    .as_ref()
                    .is_none_or(|(last, ..)| *last < begin)
                {
                    let read = values.iter().map(|value| self.elements.id(value)).collect();
                    self.last_read = Some((begin, read, Place::of(operation)));
                }
            }
            "read" => {}
            _ => return Err(Misfit::function(operation, "add, read")),
        }
        Ok(())
    }

    fn check(self: Box<Self>, _budget: &mut Budget<'_>) -> Report {
        let mut report = Report::valid(self.operations);
        let Some((_, read, read_place)) = &self.last_read else {
            return report.not_known("the set was never read");
        };
        let mut present = vec![false; self.elements.len()];
        for element in read {
            present[*element as usize] = true;
        }
        let mut attempted = vec![false; self.elements.len()];
        let mut refused: Vec<Option<Place>> = vec![None; self.elements.len()];
        for (element, outcome, place) in &self.adds {
            let value = self.elements.value(*element);
            let here = present[*element as usize];
            match outcome {
                Outcome::Ok if !here => report.invalid(Finding::new(
                    "lost",
                    format!(
                        "{value} was added ({place}) and is not in the last read ({read_place})"
                    ),
                )),
                Outcome::Ok | Outcome::Unknown => attempted[*element as usize] = true,
                Outcome::Fail => refused[*element as usize] = Some(*place),
            }
        }
        for (element, here) in present.iter().enumerate() {
            if !here || attempted[element] {
                continue;
            }
            let value = self.elements.value(element as u32);
            let summary = match refused[element] {
                Some(place) => format!("{value} is there, but adding it failed ({place})"),
                None => format!("{value} is there, and nobody added it"),
            };
            report.invalid(Finding::new("unexpected", summary));
        }
        report
    }
}
