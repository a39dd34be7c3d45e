//! Typed keys between the wire and the causal store: changes of counters, sets and maps, and what
//! they come to. Plain conversions; what fits a keyspace is the store's rule.

use bytes::Bytes;
use quorate_proto::v1::{self, change, typed_value};
use quorate_types::causal::{Field, MAP_DEPTH_MAX, Reading, Shown, Update};

use crate::errors::GatewayError;

/// A change as the causal store has it.
///
/// # Errors
/// A field that is missing, or maps in maps too deep.
pub fn update(change: Option<&v1::Change>) -> Result<Update, GatewayError> {
    update_at(change, 0)
}

fn update_at(change: Option<&v1::Change>, depth: usize) -> Result<Update, GatewayError> {
    let Some(change) = change.and_then(|change| change.change.as_ref()) else {
        let wanted = "say one of put, put_latest, delete, increment, add, remove, fields";
        return Err(GatewayError::field("change", wanted));
    };
    Ok(match change {
        change::Change::Put(value) => Update::Put(value.clone()),
        change::Change::PutLatest(value) => Update::PutLatest(value.clone()),
        change::Change::Delete(_) => Update::Delete,
        change::Change::Increment(amount) => Update::Increment(*amount),
        change::Change::Add(elements) => Update::Add(elements.elements.clone()),
        change::Change::Remove(elements) => Update::Remove(elements.elements.clone()),
        change::Change::Fields(fields) => {
            if depth >= MAP_DEPTH_MAX {
                let problem = format!("maps are nested deeper than {MAP_DEPTH_MAX}");
                return Err(GatewayError::field("change.fields", problem));
            }
            let fields = fields.fields.iter().map(|field| {
                let update = update_at(field.change.as_ref(), depth + 1)?;
                Ok((field.name.clone(), update))
            });
            Update::Fields(fields.collect::<Result<_, GatewayError>>()?)
        }
    })
}

/// Bytes that a change carries.
pub fn change_bytes(change: Option<&v1::Change>) -> usize {
    match change.and_then(|change| change.change.as_ref()) {
        Some(change::Change::Put(value) | change::Change::PutLatest(value)) => value.len(),
        Some(change::Change::Add(elements) | change::Change::Remove(elements)) => {
            elements.elements.iter().map(Bytes::len).sum()
        }
        Some(change::Change::Fields(fields)) => fields
            .fields
            .iter()
            .map(|field| field.name.len() + change_bytes(field.change.as_ref()))
            .sum(),
        Some(change::Change::Delete(_) | change::Change::Increment(_)) | None => 0,
    }
}

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
