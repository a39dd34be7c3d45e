//! Counters, sets and maps: what callers change in them, and what they read.
//!
//! Not here: sending changes (see `updates`), and what concurrent ones come to (the server).

use bytes::Bytes;
use quorate_proto::v1::{self, change, typed_value};

/// A change of a counter, set or map, or of a map's field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Fields only: a value in place of those that were seen.
    Put(Bytes),
    /// Fields only: the same, but reads show the latest of concurrent values first.
    PutLatest(Bytes),
    /// Fields only: the field without what was seen. Keys are deleted by
    /// [`Client::delete`](crate::Client::delete).
    Delete,
    /// Counters: adds it; below zero: subtracts.
    Increment(i64),
    /// Sets: adds these elements.
    Add(Vec<Bytes>),
    /// Sets: removes these elements, as far as they were seen.
    Remove(Vec<Bytes>),
    /// Maps: changes of fields, each on its own; no field twice.
    Fields(Vec<(Bytes, Change)>),
}

impl Change {
    /// Whether doing it twice comes to the same as doing it once, as long as nobody else
    /// changes the key meanwhile. False wherever a counter is incremented.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Self::Increment(_) => false,
            Self::Fields(fields) => fields.iter().all(|(_, change)| change.is_repeatable()),
            Self::Put(_) | Self::PutLatest(_) | Self::Delete | Self::Add(_) | Self::Remove(_) => {
                true
            }
        }
    }

    pub(crate) fn into_wire(self) -> v1::Change {
        let elements = |elements| change::Elements { elements };
        let change = match self {
            Self::Put(value) => change::Change::Put(value),
            Self::PutLatest(value) => change::Change::PutLatest(value),
            Self::Delete => change::Change::Delete(true),
            Self::Increment(amount) => change::Change::Increment(amount),
            Self::Add(added) => change::Change::Add(elements(added)),
            Self::Remove(removed) => change::Change::Remove(elements(removed)),
            Self::Fields(fields) => change::Change::Fields(change::Fields {
                fields: fields
                    .into_iter()
                    .map(|(name, change)| change::Field {
                        name,
                        change: Some(change.into_wire()),
                    })
                    .collect(),
            }),
        };
        v1::Change {
            change: Some(change),
        }
    }
}

/// What the live writes of a key come to together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypedValue {
    /// The sum of all increments.
    Counter(i64),
    /// The elements, in byte order.
    Set(Vec<Bytes>),
    /// The fields, in byte order of their names.
    Map(Vec<(Bytes, FieldValue)>),
}

/// What a field of a map holds: of each kind that was written to it, all of that kind together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldValue {
    /// Values; several: concurrent ones.
    pub values: Vec<Bytes>,
    /// The sum of its increments; none: it was never incremented.
    pub counter: Option<i64>,
    /// Elements of a set, in byte order.
    pub elements: Vec<Bytes>,
    /// Fields of a map within the map, in byte order of their names.
    pub fields: Vec<(Bytes, FieldValue)>,
}

/// None where the server's version knows a kind that this one does not.
pub(crate) fn typed_value(wire: v1::TypedValue) -> Option<TypedValue> {
    Some(match wire.value? {
        typed_value::Value::Counter(sum) => TypedValue::Counter(sum),
        typed_value::Value::Set(set) => TypedValue::Set(set.elements),
        typed_value::Value::Map(map) => {
            TypedValue::Map(map.fields.into_iter().map(field).collect())
        }
    })
}

fn field(wire: typed_value::Field) -> (Bytes, FieldValue) {
    let value = FieldValue {
        values: wire.values,
        counter: wire.counter,
        elements: wire.elements,
        fields: wire.fields.into_iter().map(field).collect(),
    };
    (wire.name, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_increment_anywhere_makes_a_change_unrepeatable() {
        let field = |change| Change::Fields(vec![("a".into(), change)]);
        for change in [
            Change::Increment(1),
            field(Change::Increment(0)),
            field(field(Change::Increment(-1))),
        ] {
            assert!(!change.is_repeatable(), "{change:?}");
        }
        for change in [
            Change::Add(vec!["a".into()]),
            field(Change::Put("v".into())),
            field(Change::Delete),
        ] {
            assert!(change.is_repeatable(), "{change:?}");
        }
    }
}
