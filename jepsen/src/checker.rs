//! What every checker is: something that takes a history's operations one by one, and then says
//! what is wrong with them.

use thiserror::Error;

use crate::budget::Budget;
use crate::history::Operation;
use crate::report::Report;

/// Operations that one check takes. Their numbers fit 32 bits, with room.
pub const OPERATIONS_MAX: u32 = 1 << 30;

/// An operation that a model has no place for.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("line {line}: the operation does not fit the model: {what}")]
pub struct Misfit {
    /// The line of its invocation.
    pub line: u64,
    /// What is wrong.
    pub what: String,
}

impl Misfit {
    /// An operation that does not fit.
    pub fn new(operation: &Operation, what: impl Into<String>) -> Self {
        Self {
            line: operation.invoked.line,
            what: what.into(),
        }
    }

    /// A function that the model does not have.
    pub fn function(operation: &Operation, known: &str) -> Self {
        let f = &operation.f;
        Self::new(
            operation,
            format!("its function is `{f}`, known are {known}"),
        )
    }
}

/// A checker of one model.
pub trait Checker {
    /// Takes the next operation. Operations come in the order of their completions; those that
    /// were never completed come last.
    ///
    /// # Errors
    ///
    /// The operation does not fit the model.
    fn operation(&mut self, operation: &Operation) -> Result<(), Misfit>;

    /// Says what is wrong with all that it took.
    fn check(self: Box<Self>, budget: &mut Budget<'_>) -> Report;
}
