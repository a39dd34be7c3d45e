//! Changes of typed keys between the wire and the causal store's updates.
//!
//! Not here: what fits a keyspace (the store's rule), and what live writes come to together.

use bytes::Bytes;
use quorate_types::FieldError;
use quorate_types::causal::{MAP_DEPTH_MAX, Update};

use crate::v1::{self, change::Change, change::Elements, change::Field, change::Fields};

/// An update as it travels.
pub fn to_wire(update: Update) -> v1::Change {
    let change = match update {
        Update::Put(value) => Change::Put(value),
        Update::PutLatest(value) => Change::PutLatest(value),
        Update::Delete => Change::Delete(true),
        Update::Increment(amount) => Change::Increment(amount),
        Update::Add(elements) => Change::Add(Elements { elements }),
        Update::Remove(elements) => Change::Remove(Elements { elements }),
        Update::Fields(fields) => {
            let fields = fields.into_iter().map(|(name, update)| Field {
                name,
                change: Some(to_wire(update)),
            });
            Change::Fields(Fields {
                fields: fields.collect(),
            })
        }
    };
    v1::Change {
        change: Some(change),
    }
}

/// A change as the causal store has it.
///
/// # Errors
///
/// [`FieldError`] for one that says nothing, or maps in maps too deep.
pub fn from_wire(change: Option<&v1::Change>) -> Result<Update, FieldError> {
    update_at(change, 0)
}

fn update_at(change: Option<&v1::Change>, depth: usize) -> Result<Update, FieldError> {
    let Some(change) = change.and_then(|change| change.change.as_ref()) else {
        let wanted = "say one of put, put_latest, delete, increment, add, remove, fields";
        return Err(FieldError::new("change", wanted));
    };
    Ok(match change {
        Change::Put(value) => Update::Put(value.clone()),
        Change::PutLatest(value) => Update::PutLatest(value.clone()),
        Change::Delete(_) => Update::Delete,
        Change::Increment(amount) => Update::Increment(*amount),
        Change::Add(elements) => Update::Add(elements.elements.clone()),
        Change::Remove(elements) => Update::Remove(elements.elements.clone()),
        Change::Fields(fields) => {
            if depth >= MAP_DEPTH_MAX {
                let problem = format!("maps are nested deeper than {MAP_DEPTH_MAX}");
                return Err(FieldError::new("change.fields", problem));
            }
            let fields = fields.fields.iter().map(|field| {
                let update = update_at(field.change.as_ref(), depth + 1)?;
                Ok((field.name.clone(), update))
            });
            Update::Fields(fields.collect::<Result<_, FieldError>>()?)
        }
    })
}

/// Bytes that a change carries: values, elements, names of fields.
pub fn bytes_of(change: Option<&v1::Change>) -> usize {
    match change.and_then(|change| change.change.as_ref()) {
        Some(Change::Put(value) | Change::PutLatest(value)) => value.len(),
        Some(Change::Add(elements) | Change::Remove(elements)) => {
            elements.elements.iter().map(Bytes::len).sum()
        }
        Some(Change::Fields(fields)) => {
            let fields = fields.fields.iter();
            let bytes = fields.map(|field| field.name.len() + bytes_of(field.change.as_ref()));
            bytes.sum()
        }
        Some(Change::Delete(_) | Change::Increment(_)) | None => 0,
    }
}

/// Whether a counter is incremented anywhere in a change: doing it twice is then not the same as
/// doing it once.
pub fn increments(change: Option<&v1::Change>) -> bool {
    match change.and_then(|change| change.change.as_ref()) {
        Some(Change::Increment(_)) => true,
        Some(Change::Fields(fields)) => {
            let mut fields = fields.fields.iter();
            fields.any(|field| increments(field.change.as_ref()))
        }
        Some(
            Change::Put(_)
            | Change::PutLatest(_)
            | Change::Delete(_)
            | Change::Add(_)
            | Change::Remove(_),
        )
        | None => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn nested(update: Update, depth: usize) -> Update {
        (0..depth).fold(update, |inner, _| Update::Fields(vec![("f".into(), inner)]))
    }

    #[test]
    fn updates_come_back_as_they_went() {
        let elements = || vec!["a".into(), "bc".into()];
        let updates = [
            (Update::Put("value".into()), 5),
            (Update::PutLatest("v".into()), 1),
            (Update::Delete, 0),
            (Update::Increment(-7), 0),
            (Update::Add(elements()), 3),
            (Update::Remove(elements()), 3),
            (nested(Update::Add(elements()), 2), 5),
        ];
        for (update, bytes) in updates {
            let wire = to_wire(update.clone());
            assert_eq!(from_wire(Some(&wire)).unwrap(), update);
            assert_eq!(bytes_of(Some(&wire)), bytes, "{update:?}");
            assert_eq!(increments(Some(&wire)), !update.is_repeatable());
        }
        assert!(increments(Some(&to_wire(nested(Update::Increment(1), 2)))));
    }

    #[test]
    fn what_says_nothing_or_is_too_deep_is_refused_by_its_field() {
        assert_eq!(from_wire(None).unwrap_err().field, "change");
        let deep = to_wire(nested(Update::Delete, MAP_DEPTH_MAX + 1));
        assert_eq!(from_wire(Some(&deep)).unwrap_err().field, "change.fields");
        let fits = to_wire(nested(Update::Delete, MAP_DEPTH_MAX));
        assert!(from_wire(Some(&fits)).is_ok());
    }
}
