//! The JSON that programs rely on: entries, receipts, and bytes that may not be UTF-8.
//!
//! Pure functions from answers to values. Names stay once given.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use quorate_client::{
    Entry, Got, HistoryEntry, OperationDone, Receipt, Role, WatchEvent, WatchKind, WatchState,
};
use quorate_types::Revision;
use serde_json::{Map, Value, json};

use super::typed;

/// Puts bytes into an object: as `name` where they are UTF-8, else as `name_base64`.
pub fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), Value::from(text)),
        Err(_) => object.insert(
            format!("{name}_base64"),
            Value::from(STANDARD.encode(bytes)),
        ),
    };
}

/// A key with its value, as `scan` and `history` write it.
pub fn entry(entry: &Entry, keys_only: bool) -> Map<String, Value> {
    let mut object = Map::new();
    put_bytes(&mut object, "key", &entry.key);
    if !keys_only {
        put_bytes(&mut object, "value", &entry.value);
    }
    object.insert("revision".to_owned(), json!(entry.revision.0));
    if !entry.dot.is_empty() {
        object.insert("dot".to_owned(), json!(entry.dot));
    }
    if entry.siblings > 0 {
        object.insert("siblings_count".to_owned(), json!(entry.siblings));
    }
    if let Some(expires_at) = entry.expires_at {
        object.insert("expires_at".to_owned(), json!(expires_at.0));
    }
    object
}

/// A key as `get` writes it: what `entry` has, and the eventual plane's part.
pub fn got(found: &Entry, got: &Got) -> Map<String, Value> {
    let mut object = match &got.typed {
        Some(value) => {
            let mut object = Map::new();
            put_bytes(&mut object, "key", &found.key);
            typed::put_typed(&mut object, value);
            object
        }
        None => entry(found, false),
    };
    object.insert("context".to_owned(), context_value(&got.receipt.context));
    object.insert("siblings".to_owned(), entries(&got.siblings));
    if got.partial {
        object.insert("partial".to_owned(), json!(true));
    }
    object
}

/// Puts in how a write is named: by its dot at eventual levels, else by its revision.
pub fn put_name(object: &mut Map<String, Value>, revision: Revision, dot: &str) {
    match dot {
        "" => object.insert("revision".to_owned(), json!(revision.0)),
        dot => object.insert("dot".to_owned(), json!(dot)),
    };
}

fn entries(list: &[Entry]) -> Value {
    list.iter()
        .map(|one| Value::Object(entry(one, false)))
        .collect()
}

fn context_value(context: &[u8]) -> Value {
    if context.is_empty() {
        return Value::Null;
    }
    Value::from(STANDARD.encode(context))
}

/// One version of a key.
pub fn version(version: &HistoryEntry) -> Map<String, Value> {
    let mut object = entry(&version.entry, version.deleted);
    object.insert("deleted".to_owned(), json!(version.deleted));
    object
}

/// An event of a watch. A delete has no value.
pub fn event(event: &WatchEvent) -> Map<String, Value> {
    let kind = match event.kind {
        WatchKind::Put => "put",
        WatchKind::Delete => "delete",
    };
    let state = match event.state {
        WatchState::Committed => "committed",
        WatchState::Tentative => "tentative",
    };
    let mut object = Map::new();
    object.insert("type".to_owned(), json!(kind));
    let deleted = event.kind == WatchKind::Delete;
    object.extend(entry(&event.entry, deleted || event.typed.is_some()));
    if let Some(value) = &event.typed {
        typed::put_typed(&mut object, value);
    }
    // Always there: null names a write of the log, which its revision names.
    object.entry("dot").or_insert(Value::Null);
    object.insert("state".to_owned(), json!(state));
    if event.state == WatchState::Tentative {
        object.remove("revision");
    }
    if !event.dots.is_empty() {
        object.insert("dots".to_owned(), json!(event.dots));
    }
    if !event.siblings.is_empty() {
        object.insert("siblings".to_owned(), entries(&event.siblings));
    }
    if let Some(previous) = &event.previous {
        object.insert("previous".to_owned(), entry(previous, false).into());
    }
    if event.previous_omitted {
        object.insert("previous_omitted".to_owned(), json!(true));
    }
    object
}

/// What one operation of a transaction came to.
pub fn operation(done: &OperationDone) -> Value {
    let mut object = match &done.entry {
        Some(found) => entry(found, false),
        None => Map::new(),
    };
    object.insert("found".to_owned(), json!(done.found));
    if done.revision.0 > 0 {
        object.insert("revision".to_owned(), json!(done.revision.0));
    }
    Value::Object(object)
}

/// A role as text.
pub const fn role(role: Role) -> &'static str {
    match role {
        Role::Unspecified => "unknown",
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Primary => "primary",
        Role::StandIn => "stand_in",
    }
}

/// What was delivered.
pub fn receipt(receipt: &Receipt) -> Value {
    let mut value = json!({
        "level": level(receipt),
        "rung": receipt.rung,
        "node": receipt.node,
        "role": role(receipt.role),
        "replicas": receipt.replicas,
        "stand_ins": receipt.stand_ins,
        "revision": receipt.revision.0,
        "context": context_value(&receipt.context),
        "staleness_ms": receipt.staleness.map(|age| age.as_millis() as u64),
        "visible_after_us_estimate": receipt.visible_after.map(|after| after.as_micros() as u64),
        "tentative": receipt.tentative,
        "siblings": receipt.siblings,
        "replaced_unseen": receipt.replaced_unseen,
        "replayed": receipt.replayed,
        "failed": receipt.failed,
        "session_missing": receipt.session_missing,
        "range": receipt.range,
        "micros": {
            "queue": receipt.micros.queue,
            "consensus": receipt.micros.consensus,
            "disk": receipt.micros.disk,
            "total": receipt.micros.total,
        },
    });
    if let (Some(age), Some(object)) = (receipt.cached_age, value.as_object_mut()) {
        object.insert("cached_age_ms".to_owned(), json!(age.as_millis() as u64));
    }
    value
}

fn level(receipt: &Receipt) -> Option<String> {
    match (receipt.level, receipt.cached_age) {
        (None, Some(_)) => Some("cached".to_owned()),
        (level, _) => level.map(|level| level.to_string()),
    }
}

/// What was delivered, in one line for people.
pub fn receipt_line(receipt: &Receipt) -> String {
    if let Some(age) = receipt.cached_age {
        return format!(
            "receipt: cached (rung {}), this client's copy, {} ms old, revision {}; servers: {}",
            receipt.rung,
            age.as_millis(),
            receipt.revision.0,
            receipt.failed.join("; "),
        );
    }
    let level = level(receipt).unwrap_or_else(|| "unknown level".to_owned());
    let mut line = format!(
        "receipt: {level} (rung {}) by node {} as {}, range {}, replicas {:?}, revision {}",
        receipt.rung,
        receipt.node,
        role(receipt.role),
        receipt.range,
        receipt
            .replicas
            .iter()
            .map(|node| node.0)
            .collect::<Vec<_>>(),
        receipt.revision.0,
    );
    if let Some(age) = receipt.staleness {
        line.push_str(&format!(", at most {} ms old", age.as_millis()));
    }
    if let Some(after) = receipt.visible_after {
        let after = after.as_secs_f64() * 1e3;
        line.push_str(&format!(", writes visible after {after:.1} ms (estimate)"));
    }
    if !receipt.session_missing.is_empty() {
        line.push_str(&format!(
            ", behind the session: {}",
            receipt.session_missing
        ));
    }
    if receipt.replayed {
        line.push_str(", answer of an earlier attempt");
    }
    let micros = receipt.micros;
    line.push_str(&format!(
        ", {} us (queue {}, consensus {}, disk {})",
        micros.total, micros.queue, micros.consensus, micros.disk
    ));
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use quorate_client::{Micros, TypedValue};
    use quorate_types::{Level, NodeId, RangeId};
    use std::time::Duration;

    fn sample(key: &'static [u8], value: &'static [u8]) -> Entry {
        Entry {
            key: Bytes::from_static(key),
            value: Bytes::from_static(value),
            revision: Revision(1_762_000_000_000_000),
            expires_at: None,
            dot: String::new(),
            siblings: 0,
        }
    }

    fn found(siblings: Vec<Entry>, context: &'static [u8], typed: Option<TypedValue>) -> Got {
        Got {
            entry: None,
            partial: !siblings.is_empty(),
            siblings,
            typed,
            receipt: Receipt {
                context: Bytes::from_static(context),
                ..linearizable()
            },
        }
    }

    #[test]
    fn get_has_the_fields_that_scripts_read() {
        let object = got(&sample(b"a", b"1"), &found(vec![], b"", None));
        assert_eq!(
            Value::Object(object),
            json!({"key":"a","value":"1","revision":1_762_000_000_000_000u64,
                   "context":null,"siblings":[]})
        );
    }

    #[test]
    fn siblings_have_dots_and_typed_keys_no_value() {
        let mut first = sample(b"a", b"1");
        first.dot = "1.1.7".to_owned();
        let all = found(vec![sample(b"a", b"2")], b"\x00", None);
        assert_eq!(
            Value::Object(got(&first, &all)),
            json!({"key":"a","value":"1","revision":1_762_000_000_000_000u64,"dot":"1.1.7",
                   "context":"AA==","partial":true,
                   "siblings":[{"key":"a","value":"2","revision":1_762_000_000_000_000u64}]})
        );
        let counter = found(vec![], b"", Some(TypedValue::Counter(7)));
        assert_eq!(
            Value::Object(got(&sample(b"a", b""), &counter)),
            json!({"key":"a","counter":7,"context":null,"siblings":[]})
        );
    }

    #[test]
    fn bytes_that_are_not_text_stand_in_base64() {
        let object = entry(&sample(b"\xff", b"\x00\x80"), false);
        assert_eq!(
            Value::Object(object),
            json!({"key_base64":"/w==","value_base64":"AIA=","revision":1_762_000_000_000_000u64})
        );
    }

    #[test]
    fn keys_only_leaves_the_value_away() {
        let object = entry(&sample(b"a", b""), true);
        assert!(!object.contains_key("value"));
    }

    fn linearizable() -> Receipt {
        Receipt {
            level: Some(Level::Linearizable),
            rung: 0,
            node: NodeId(2),
            role: Role::Leader,
            replicas: vec![NodeId(1), NodeId(2)],
            stand_ins: vec![],
            revision: Revision(7),
            context: Bytes::new(),
            staleness: Some(Duration::from_millis(3)),
            visible_after: Some(Duration::from_micros(700)),
            tentative: false,
            siblings: 0,
            replaced_unseen: 0,
            replayed: false,
            micros: Micros {
                queue: 1,
                consensus: 2,
                disk: 3,
                total: 6,
            },
            range: RangeId(4),
            session_token: Bytes::new(),
            failed: Vec::new(),
            session_missing: String::new(),
            cached_age: None,
        }
    }

    #[test]
    fn the_receipt_has_the_fields_of_the_interface() {
        let receipt = receipt(&linearizable());
        assert_eq!(
            receipt,
            json!({"level":"linearizable","rung":0,"node":2,"role":"leader","replicas":[1,2],
                   "stand_ins":[],"revision":7,"context":null,"staleness_ms":3,
                   "visible_after_us_estimate":700,"tentative":false,"siblings":0,"replaced_unseen":0,"replayed":false,"failed":[],
                   "session_missing":"","range":4,"micros":{"queue":1,"consensus":2,"disk":3,"total":6}})
        );
    }
}
