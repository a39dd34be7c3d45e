//! Counters, sets and maps: what callers change in them, and what they read.
//!
//! Not here: sending changes (see `updates`), and what concurrent ones come to (the server).

use bytes::Bytes;
use quorate_proto::v1::{self, typed_value};

/// A change of a counter, set or map, or of a map's field. Whole keys are put and deleted by
/// [`Client::put`](crate::Client::put) and [`Client::delete`](crate::Client::delete).
pub use quorate_types::causal::Update as Change;

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
