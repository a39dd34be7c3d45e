//! One checker for each key: histories of many objects that have nothing to do with each other.
//!
//! Linearizability is local, so it may be checked key by key (Herlihy and Wing, 1990); the same
//! holds for each other model when its operations name one key.

use crate::budget::Budget;
use crate::checker::{Checker, Misfit};
use crate::hash::QuickMap;
use crate::history::{Operation, Outcome};
use crate::report::Report;
use crate::value::Value;

/// Checks each key by itself.
pub struct Independent {
    make: Box<dyn Fn() -> Box<dyn Checker>>,
    numbers: QuickMap<Value, usize>,
    keys: Vec<(Value, Box<dyn Checker>)>,
}

impl Independent {
    /// Checks each key by a checker that `make` makes.
    pub fn new(make: Box<dyn Fn() -> Box<dyn Checker>>) -> Self {
        Self {
            make,
            numbers: QuickMap::default(),
            keys: Vec::new(),
        }
    }
}

/// Takes `[key value]` apart.
fn split(value: &Value) -> Option<(&Value, &Value)> {
    match value.as_list()? {
        [key, value] => Some((key, value)),
        _ => None,
    }
}

/// The operation on one key that an operation on `[key value]` is.
fn inner(operation: &Operation) -> Result<(Value, Operation), Misfit> {
    let mut inner = operation.clone();
    if let Some(key) = inner.key.take() {
        return Ok((key, inner));
    }
    let Some((key, asked)) = split(&operation.asked) else {
        let what = format!("wanted [KEY VALUE], found `{}`", operation.asked);
        return Err(Misfit::new(operation, what));
    };
    inner.asked = asked.clone();
    inner.answered = match (split(&operation.answered), operation.outcome) {
        (Some((_, answered)), _) => answered.clone(),
        (None, Outcome::Fail | Outcome::Unknown) => Value::Nil,
        (None, Outcome::Ok) if operation.answered.is_nil() => Value::Nil,
        (None, Outcome::Ok) => {
            let what = format!("wanted [KEY VALUE], found `{}`", operation.answered);
            return Err(Misfit::new(operation, what));
        }
    };
    Ok((key.clone(), inner))
}

impl Checker for Independent {
    fn operation(&mut self, operation: &Operation) -> Result<(), Misfit> {
        let (key, inner) = inner(operation)?;
        let number = match self.numbers.get(&key) {
            Some(number) => *number,
            None => {
                self.numbers.insert(key.clone(), self.keys.len());
                self.keys.push((key, (self.make)()));
                self.keys.len() - 1
            }
        };
        self.keys[number].1.operation(&inner)
    }

    fn check(self: Box<Self>, budget: &mut Budget<'_>) -> Report {
        let mut report = Report::valid(0);
        for (key, checker) in self.keys {
            report.absorb(&key.to_string(), checker.check(budget));
        }
        report
    }
}
