//! Checkers of what weaker reads and writes promise: ages, sessions, causality, and the strong plane
//! that takes eventual writes in.

mod bounded;
mod mixed;
mod sessions;
mod siblings;

pub use bounded::Bounded;
pub use mixed::Mixed;
pub use sessions::Sessions;
pub use siblings::Siblings;

use crate::checker::Misfit;
use crate::history::Operation;
use crate::value::Value;

/// The key of an operation, which must stand beside its value.
fn key(operation: &Operation) -> Result<Value, Misfit> {
    let key = operation.key.clone();
    key.ok_or_else(|| Misfit::new(operation, "it has no `key`"))
}

/// What a write puts, and the values that its writer had seen: `{value, context}`, or the bare
/// value of a writer that had seen nothing.
fn written(operation: &Operation) -> Result<(Value, Vec<Value>), Misfit> {
    let asked = &operation.asked;
    let Some(value) = asked.field("value") else {
        return match asked.as_map() {
            None => Ok((asked.clone(), Vec::new())),
            Some(_) => Err(Misfit::new(operation, format!("`{asked}` has no `value`"))),
        };
    };
    Ok((value.clone(), context(operation)?))
}

/// The values that a write's or delete's client had seen.
fn context(operation: &Operation) -> Result<Vec<Value>, Misfit> {
    match operation.asked.field("context") {
        None | Some(Value::Nil) => Ok(Vec::new()),
        Some(context) => match context.as_list() {
            Some(values) => Ok(values.to_vec()),
            None => Err(Misfit::new(
                operation,
                format!("`{context}` is no list of values"),
            )),
        },
    }
}

/// The values that a read shows: a list of siblings, nil for none.
fn shown(operation: &Operation) -> Result<&[Value], Misfit> {
    match &operation.answered {
        Value::Nil => Ok(&[]),
        answered => answered.as_list().ok_or_else(|| {
            Misfit::new(
                operation,
                format!("a read shows a list of values, not `{answered}`"),
            )
        }),
    }
}
