//! What the live writes of a key come to, as it travels: values, counters, sets and maps.
//!
//! Not here: changes of them (`quorate_proto::changes`).

use bytes::Bytes;
use quorate_proto::v1::{self, typed_value};
use quorate_types::causal::{Field, Reading, Shown};

/// The plain values of a key, the one that reads show first.
pub fn values(key: &Bytes, reading: &Reading) -> Vec<v1::KeyValue> {
    match reading {
        Reading::Siblings(shown) => shown.iter().map(|one| entry(key, one)).collect(),
        // The losers stay live until a write that saw them; receipts count them.
        Reading::Latest { shown, .. } => vec![entry(key, shown)],
        Reading::Absent | Reading::Counter(_) | Reading::Set(_) | Reading::Map(_) => Vec::new(),
    }
}

fn entry(key: &Bytes, shown: &Shown) -> v1::KeyValue {
    v1::KeyValue {
        key: key.clone(),
        value: shown.value.clone(),
        revision: shown.timestamp.0,
        expires_at: shown.expiry.map_or(0, |expiry| expiry.0),
        dot: shown.dot.to_string(),
        siblings: 0,
    }
}

/// What a typed key comes to; `None`: it is no typed key, or absent.
pub fn value(reading: &Reading) -> Option<v1::TypedValue> {
    let value = match reading {
        Reading::Absent | Reading::Siblings(_) | Reading::Latest { .. } => return None,
        Reading::Counter(sum) => typed_value::Value::Counter(*sum),
        Reading::Set(elements) => typed_value::Value::Set(typed_value::Set {
            elements: elements.iter().cloned().collect(),
        }),
        Reading::Map(fields) => typed_value::Value::Map(typed_value::Map {
            fields: fields.iter().map(field).collect(),
        }),
    };
    Some(v1::TypedValue { value: Some(value) })
}

fn field((name, field_value): (&Bytes, &Field)) -> typed_value::Field {
    let shown = field_value.registers.iter().chain(&field_value.latest);
    typed_value::Field {
        name: name.clone(),
        values: shown.map(|one| one.value.clone()).collect(),
        counter: field_value.counter,
        elements: field_value.set.iter().cloned().collect(),
        fields: field_value.map.iter().map(field).collect(),
    }
}
