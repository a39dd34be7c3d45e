//! Small numbers in the place of values: what checkers compare by the million.

use crate::hash::QuickMap;
use crate::value::Value;

/// Gives each distinct value a number, from 0 on.
#[derive(Debug, Default)]
pub struct Interner {
    numbers: QuickMap<i64, u32>,
    others: QuickMap<Value, u32>,
    values: Vec<Value>,
}

impl Interner {
    /// The number of a value, a new one if it was not seen before.
    pub fn id(&mut self, value: &Value) -> u32 {
        let next = u32::try_from(self.values.len()).expect("fewer values than operations' limit");
        let id = match value {
            Value::Int(number) => *self.numbers.entry(*number).or_insert(next),
            other => match self.others.get(other) {
                Some(id) => *id,
                None => *self.others.entry(other.clone()).or_insert(next),
            },
        };
        if id == next {
            self.values.push(value.clone());
        }
        id
    }

    /// The value of a number that [`Interner::id`] gave.
    pub fn value(&self, id: u32) -> &Value {
        &self.values[id as usize]
    }

    /// How many distinct values there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether nothing was seen yet.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}
