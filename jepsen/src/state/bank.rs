//! Money that only moves: every read of all accounts shows the same sum, and no account below
//! zero unless that is allowed.
//!
//! The sum is that of the first read. A store that loses money before anyone looks is not caught.

use crate::budget::Budget;
use crate::checker::{Checker, Misfit};
use crate::history::{Operation, Outcome};
use crate::report::{Finding, Place, Report};
use crate::value::Value;

/// The checker of a bank.
pub struct Bank {
    negative_balances: bool,
    reads: Vec<(u64, Place, Balances)>,
    operations: u64,
}

/// Accounts by name, sorted, with what is on them; nil is nothing known.
type Balances = Vec<(String, Option<i64>)>;

impl Bank {
    /// Accounts may go below zero if `negative_balances`.
    pub fn new(negative_balances: bool) -> Self {
        Self {
            negative_balances,
            reads: Vec::new(),
            operations: 0,
        }
    }
}

fn balances(operation: &Operation) -> Result<Balances, Misfit> {
    let wrong = || {
        let what = format!(
            "a read answers a map of balances, not `{}`",
            operation.answered
        );
        Misfit::new(operation, what)
    };
    let entries = operation.answered.as_map().ok_or_else(wrong)?;
    let mut balances = Balances::new();
    for (account, balance) in entries {
        let balance = match balance {
            Value::Nil => None,
            other => Some(other.as_int().ok_or_else(wrong)?),
        };
        balances.push((account.to_string(), balance));
    }
    balances.sort();
    Ok(balances)
}

/// What is wrong with a read, measured by the first one.
fn wrong(first: &Balances, read: &Balances, negative: bool) -> Option<(&'static str, String)> {
    let names = |balances: &Balances| -> Vec<String> {
        balances.iter().map(|(name, _)| name.clone()).collect()
    };
    let sum = |balances: &Balances| -> i128 {
        let known = balances.iter().filter_map(|(_, balance)| *balance);
        known.map(i128::from).sum()
    };
    if names(first) != names(read) {
        let (first, read) = (names(first).join(" "), names(read).join(" "));
        return Some(("other-accounts", format!("accounts {read}, not {first}")));
    }
    if let Some((name, _)) = read.iter().find(|(_, balance)| balance.is_none()) {
        return Some(("no-balance", format!("account {name} without a balance")));
    }
    let (wanted, found) = (sum(first), sum(read));
    if wanted != found {
        return Some(("wrong-total", format!("a total of {found}, not {wanted}")));
    }
    let below = |(_, balance): &&(String, Option<i64>)| balance.is_some_and(|balance| balance < 0);
    let (name, balance) = read.iter().find(below).filter(|_| !negative)?;
    let balance = balance.unwrap_or_default();
    Some(("negative-balance", format!("{balance} on account {name}")))
}

impl Checker for Bank {
    fn operation(&mut self, operation: &Operation) -> Result<(), Misfit> {
        self.operations += 1;
        match (&*operation.f, operation.outcome) {
            ("read", Outcome::Ok) => {
                let place = Place::of(operation);
                let position = operation.invoked.position;
                self.reads.push((position, place, balances(operation)?));
            }
            ("read" | "transfer", _) => {}
            _ => return Err(Misfit::function(operation, "read, transfer")),
        }
        Ok(())
    }

    fn check(mut self: Box<Self>, _budget: &mut Budget<'_>) -> Report {
        let mut report = Report::valid(self.operations);
        self.reads.sort_by_key(|(position, ..)| *position);
        let Some((_, _, first)) = self.reads.first() else {
            return report.not_known("no balance was ever read");
        };
        for (_, place, read) in &self.reads {
            if let Some((anomaly, what)) = wrong(first, read, self.negative_balances) {
                let summary = format!("a read ({place}) shows {what}");
                report.invalid(Finding::new(anomaly, summary));
            }
        }
        report
    }
}
