//! Counters, sets and maps as commands show them: text for people, JSON for programs.
//!
//! How they are changed is in `update`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use quorate_client::{FieldValue, TypedValue};
use serde_json::{Map, Value, json};

use super::json::put_bytes;

/// What a field within a map is set in by, in text.
const INDENT: &[u8] = b"  ";

/// Puts what a key has come to into an object, as `counter`, `set` or `map`. Elements and
/// fields that are not UTF-8 stand in `set_base64` and `map_base64`.
pub(super) fn put_typed(object: &mut Map<String, Value>, typed: &TypedValue) {
    match typed {
        TypedValue::Counter(sum) => {
            object.insert("counter".to_owned(), json!(sum));
        }
        TypedValue::Set(elements) => put_set(object, elements),
        TypedValue::Map(fields) => put_map(object, fields),
    }
}

fn put_set(object: &mut Map<String, Value>, elements: &[Bytes]) {
    let (texts, others): (Vec<_>, Vec<_>) = elements
        .iter()
        .map(|element| std::str::from_utf8(element).map_err(|_| STANDARD.encode(element)))
        .partition(Result::is_ok);
    let texts: Vec<&str> = texts.into_iter().filter_map(Result::ok).collect();
    let others: Vec<String> = others.into_iter().filter_map(Result::err).collect();
    object.insert("set".to_owned(), json!(texts));
    if !others.is_empty() {
        object.insert("set_base64".to_owned(), json!(others));
    }
}

fn put_map(object: &mut Map<String, Value>, fields: &[(Bytes, FieldValue)]) {
    let mut texts = Map::new();
    let mut others = Map::new();
    for (name, value) in fields {
        let value = Value::Object(field(value));
        match std::str::from_utf8(name) {
            Ok(name) => texts.insert(name.to_owned(), value),
            Err(_) => others.insert(STANDARD.encode(name), value),
        };
    }
    object.insert("map".to_owned(), Value::Object(texts));
    if !others.is_empty() {
        object.insert("map_base64".to_owned(), Value::Object(others));
    }
}

fn field(field: &FieldValue) -> Map<String, Value> {
    let mut object = Map::new();
    let mut values = field.values.iter();
    if let Some(first) = values.next() {
        put_bytes(&mut object, "value", first);
    }
    let siblings: Vec<Value> = values
        .map(|value| {
            let mut sibling = Map::new();
            put_bytes(&mut sibling, "value", value);
            Value::Object(sibling)
        })
        .collect();
    if !siblings.is_empty() {
        object.insert("siblings".to_owned(), Value::Array(siblings));
    }
    if let Some(sum) = field.counter {
        object.insert("counter".to_owned(), json!(sum));
    }
    if !field.elements.is_empty() {
        put_set(&mut object, &field.elements);
    }
    if !field.fields.is_empty() {
        put_map(&mut object, &field.fields);
    }
    object
}

/// A counter as its number, a set one element a line, a map as an indented tree: the bytes as
/// they are, each line with its newline.
pub(super) fn text(typed: &TypedValue) -> Vec<u8> {
    let mut text = Vec::new();
    match typed {
        TypedValue::Counter(sum) => line(&mut text, 0, &[sum.to_string().as_bytes()]),
        TypedValue::Set(elements) => {
            for element in elements {
                line(&mut text, 0, &[element]);
            }
        }
        TypedValue::Map(fields) => tree(&mut text, 0, fields),
    }
    text
}

fn tree(text: &mut Vec<u8>, depth: usize, fields: &[(Bytes, FieldValue)]) {
    for (name, field) in fields {
        for value in &field.values {
            line(text, depth, &[name, b": ", value]);
        }
        if let Some(sum) = field.counter {
            line(text, depth, &[name, b": ", sum.to_string().as_bytes()]);
        }
        if !(field.elements.is_empty() && field.fields.is_empty()) {
            line(text, depth, &[name, b":"]);
        }
        for element in &field.elements {
            line(text, depth + 1, &[b"- ", element]);
        }
        tree(text, depth + 1, &field.fields);
    }
}

fn line(text: &mut Vec<u8>, depth: usize, parts: &[&[u8]]) {
    text.extend(std::iter::repeat_n(INDENT, depth).flatten());
    for part in parts {
        text.extend_from_slice(part);
    }
    text.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(typed: &TypedValue, wanted_text: &[u8], wanted_json: Value) {
        assert_eq!(text(typed), wanted_text);
        let mut object = Map::new();
        put_typed(&mut object, typed);
        assert_eq!(Value::Object(object), wanted_json);
    }

    #[test]
    fn counters_and_sets_read_well() {
        check(&TypedValue::Counter(-3), b"-3\n", json!({"counter": -3}));
        check(&TypedValue::Set(vec![]), b"", json!({"set": []}));
        check(
            &TypedValue::Set(vec!["a".into(), Bytes::from_static(b"\xff")]),
            b"a\n\xff\n",
            json!({"set": ["a"], "set_base64": ["/w=="]}),
        );
    }

    #[test]
    fn maps_are_trees() {
        let inner = FieldValue {
            elements: vec!["x".into()],
            fields: vec![(
                "deep".into(),
                FieldValue {
                    counter: Some(2),
                    ..FieldValue::default()
                },
            )],
            ..FieldValue::default()
        };
        let title = FieldValue {
            values: vec!["one".into(), "two".into()],
            ..FieldValue::default()
        };
        check(
            &TypedValue::Map(vec![("inner".into(), inner), ("title".into(), title)]),
            b"inner:\n  - x\n  deep: 2\ntitle: one\ntitle: two\n",
            json!({"map": {
                "inner": {"set": ["x"], "map": {"deep": {"counter": 2}}},
                "title": {"value": "one", "siblings": [{"value": "two"}]},
            }}),
        );
    }
}
