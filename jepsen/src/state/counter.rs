//! A counter with `add` and `read`: each read lies between what was surely added before it began
//! and what may have been added before it returned. (Bounds, not an order of all operations.)

use crate::budget::Budget;
use crate::checker::{Checker, Misfit};
use crate::history::{Operation, Outcome};
use crate::report::{Finding, Place, Report};
use crate::value::Value;

/// The checker of a counter.
#[derive(Default)]
pub struct Counter {
    adds: Vec<Add>,
    reads: Vec<Read>,
    operations: u64,
}

struct Add {
    amount: i64,
    invoked: u64,
    returned: u64,
}

struct Read {
    invoked: u64,
    returned: u64,
    value: i64,
    place: Place,
}

impl Checker for Counter {
    fn operation(&mut self, operation: &Operation) -> Result<(), Misfit> {
        self.operations += 1;
        let whole = |value: &Value| {
            let what = || format!("wanted a whole number, found `{value}`");
            value.as_int().ok_or_else(|| Misfit::new(operation, what()))
        };
        match (&*operation.f, operation.outcome) {
            ("add" | "read", Outcome::Fail) | ("read", Outcome::Unknown) => {}
            ("add", Outcome::Ok | Outcome::Unknown) => self.adds.push(Add {
                amount: whole(&operation.asked)?,
                invoked: operation.invoked.position,
                returned: operation.returned(),
            }),
            ("read", Outcome::Ok) => self.reads.push(Read {
                invoked: operation.invoked.position,
                returned: operation.returned(),
                value: whole(&operation.answered)?,
                place: Place::of(operation),
            }),
            _ => return Err(Misfit::function(operation, "add, read")),
        }
        Ok(())
    }

    fn check(self: Box<Self>, _budget: &mut Budget<'_>) -> Report {
        let mut report = Report::valid(self.operations);
        let up = || self.adds.iter().filter(|add| add.amount > 0);
        let down = || self.adds.iter().filter(|add| add.amount < 0);
        let up_begun = Sums::new(up().map(|add| (add.invoked, add.amount)));
        let up_done = Sums::new(up().map(|add| (add.returned, add.amount)));
        let down_begun = Sums::new(down().map(|add| (add.invoked, add.amount)));
        let down_done = Sums::new(down().map(|add| (add.returned, add.amount)));
        for read in &self.reads {
            let least = up_done.before(read.invoked) + down_begun.before(read.returned);
            let most = up_begun.before(read.returned) + down_done.before(read.invoked);
            let value = i128::from(read.value);
            if value < least || value > most {
                let summary = format!(
                    "a read ({}) shows {value}, but {least} to {most} was possible",
                    read.place
                );
                report.invalid(Finding::new("out-of-bounds", summary));
            }
        }
        report
    }
}

/// Sums of amounts up to a position.
struct Sums(Vec<(u64, i128)>);

impl Sums {
    fn new(amounts: impl Iterator<Item = (u64, i64)>) -> Self {
        let mut sums: Vec<(u64, i128)> = amounts
            .map(|(position, amount)| (position, i128::from(amount)))
            .collect();
        sums.sort_unstable();
        let mut sum = 0;
        for (_, amount) in &mut sums {
            sum += *amount;
            *amount = sum;
        }
        Self(sums)
    }

    fn before(&self, position: u64) -> i128 {
        let count = self.0.partition_point(|(at, _)| *at < position);
        count.checked_sub(1).map_or(0, |last| self.0[last].1)
    }
}
