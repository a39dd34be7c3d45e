//! Documents (YAML, TOML, JSON) as keys with values, and keys as a document.
//!
//! Nested maps become paths: `db: {host: x}` is `db/host`. A string is kept as it is, without
//! quotes; a number, `true`, `false` and `null` as JSON writes them; a list, and a map without
//! entries, as one line of JSON. Pure functions over text.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use thiserror::Error;

/// Deepest nesting of maps: deeper ones are mistakes.
const DEPTH_MAX: usize = 64;

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `.yaml`, `.yml`
    Yaml,
    /// `.toml`
    Toml,
    /// `.json`
    Json,
}

impl Form {
    const fn name(self) -> &'static str {
        match self {
            Self::Yaml => "YAML",
            Self::Toml => "TOML",
            Self::Json => "JSON",
        }
    }

    /// As the end of a file's name says; none: it says nothing.
    pub fn of(path: &Path) -> Option<Form> {
        match path.extension()?.to_str()? {
            "yaml" | "yml" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Why a text is no document, or a document no bundle.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DocumentError {
    /// It cannot be parsed.
    #[error("line {line}, column {column}: {problem}")]
    Syntax {
        /// From 1.
        line: u64,
        /// From 1.
        column: u64,
        /// What is wrong.
        problem: String,
    },
    /// It has no keys to give.
    #[error("it is {found}, and wanted is a map with keys")]
    NoMap {
        /// What it is instead.
        found: &'static str,
    },
    /// Two places give one key.
    #[error("two values for the key {key:?}")]
    Twice {
        /// Which one.
        key: String,
    },
    /// A name that cannot be part of a key.
    #[error("a name under {under:?} cannot be part of a key: {problem}")]
    Name {
        /// The map that it is in.
        under: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A form that cannot say it.
    #[error("it cannot be written as {form}: {problem}")]
    Unwritable {
        /// Which form.
        form: &'static str,
        /// What it cannot say.
        problem: String,
    },
    /// A key is a value and a map at once.
    #[error("the key {key:?} is a value, and other keys lie under it")]
    ValueAndMap {
        /// Which one.
        key: String,
    },
}

/// Parses one document.
///
/// # Errors
///
/// [`DocumentError::Syntax`]; two equal names in one map are such an error.
pub fn parse(text: &str, form: Form) -> Result<Value, DocumentError> {
    match form {
        Form::Json => parse_json(text),
        Form::Toml => parse_toml(text),
        Form::Yaml => serde_saphyr::from_str::<Strict>(text)
            .map(|strict| strict.0)
            .map_err(|error| yaml_error(&error)),
    }
}

/// Whether a file's text is what its name says; a YAML file may have several documents.
///
/// # Errors
///
/// [`DocumentError::Syntax`].
pub fn check(text: &str, form: Form) -> Result<(), DocumentError> {
    match form {
        Form::Json | Form::Toml => parse(text, form).map(drop),
        Form::Yaml => serde_saphyr::from_multiple::<Strict>(text)
            .map(drop)
            .map_err(|error| yaml_error(&error)),
    }
}

fn parse_json(text: &str) -> Result<Value, DocumentError> {
    let strict: Result<Strict, _> = serde_json::from_str(text);
    strict.map(|strict| strict.0).map_err(|error| {
        let problem = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        DocumentError::Syntax {
            line: error.line() as u64,
            column: error.column() as u64,
            problem: problem.strip_suffix(&place).unwrap_or(&problem).to_owned(),
        }
    })
}

fn parse_toml(text: &str) -> Result<Value, DocumentError> {
    let table: Result<toml::Table, _> = text.parse();
    let table = table.map_err(|error| {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let before = text.get(..at).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        DocumentError::Syntax {
            line: before.matches('\n').count() as u64 + 1,
            column: before[line_start..].chars().count() as u64 + 1,
            problem: error.message().to_owned(),
        }
    })?;
    Ok(from_toml(toml::Value::Table(table)))
}

fn from_toml(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => Value::Number(number.into()),
        toml::Value::Float(number) => {
            Number::from_f64(number).map_or_else(|| number.to_string().into(), Value::Number)
        }
        toml::Value::Boolean(truth) => Value::Bool(truth),
        toml::Value::Datetime(time) => Value::String(time.to_string()),
        toml::Value::Array(list) => list.into_iter().map(from_toml).collect(),
        toml::Value::Table(table) => {
            let entries = table.into_iter();
            Value::Object(
                entries
                    .map(|(key, value)| (key, from_toml(value)))
                    .collect(),
            )
        }
    }
}

fn yaml_error(error: &serde_saphyr::Error) -> DocumentError {
    let place = error.location();
    let text = error.without_snippet().to_string();
    DocumentError::Syntax {
        line: place.map_or(1, |place| place.line()),
        column: place.map_or(1, |place| place.column()),
        problem: text.lines().next().unwrap_or("cannot be read").to_owned(),
    }
}

/// The keys of a document.
///
/// # Errors
///
/// All but [`DocumentError::Syntax`].
pub fn flatten(document: &Value) -> Result<BTreeMap<String, Bytes>, DocumentError> {
    let Value::Object(map) = document else {
        return Err(DocumentError::NoMap {
            found: kind(document),
        });
    };
    let mut keys = BTreeMap::new();
    flatten_map(map, "", 0, &mut keys)?;
    // `a` and `a/b` could not be a file and a folder, nor a document again.
    for key in keys.keys() {
        let under = format!("{key}/");
        let mut after = keys.range::<String, _>(&under..);
        if after
            .next()
            .is_some_and(|(next, _)| next.starts_with(&under))
        {
            return Err(DocumentError::ValueAndMap { key: key.clone() });
        }
    }
    Ok(keys)
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

fn flatten_map(
    map: &Map<String, Value>,
    under: &str,
    depth: usize,
    keys: &mut BTreeMap<String, Bytes>,
) -> Result<(), DocumentError> {
    for (name, value) in map {
        let problem = if name.split('/').any(str::is_empty) {
            Some("it is empty, or has an empty part")
        } else if depth == DEPTH_MAX {
            Some("it lies too deep")
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(DocumentError::Name {
                under: under.to_owned(),
                problem,
            });
        }
        let key = format!("{under}{name}");
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                flatten_map(inner, &format!("{key}/"), depth + 1, keys)?;
            }
            value => {
                let text = match value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                if keys.insert(key.clone(), text.into()).is_some() {
                    return Err(DocumentError::Twice { key });
                }
            }
        }
    }
    Ok(())
}

/// A document of keys. What [`flatten`] has kept comes back, but for strings that read as JSON of
/// another kind: `"5"` comes back as `5`.
///
/// # Errors
///
/// [`DocumentError::ValueAndMap`]; [`DocumentError::Name`] where a key or value is no text.
pub fn nest<'a>(
    keys: impl IntoIterator<Item = (&'a Bytes, &'a Bytes)>,
) -> Result<Value, DocumentError> {
    let mut document = Map::new();
    for (key, value) in keys {
        let no_text = || DocumentError::Name {
            under: key.escape_ascii().to_string(),
            problem: "it or its value is no UTF-8 text",
        };
        let key = std::str::from_utf8(key).map_err(|_| no_text())?;
        let text = std::str::from_utf8(value).map_err(|_| no_text())?;
        let value_and_map = || DocumentError::ValueAndMap {
            key: key.to_owned(),
        };
        let mut map = &mut document;
        let mut parts = key.split('/').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                if map.insert(part.to_owned(), typed(text)).is_some() {
                    return Err(value_and_map());
                }
                break;
            }
            let inner = map.entry(part).or_insert_with(|| Map::new().into());
            map = inner.as_object_mut().ok_or_else(value_and_map)?;
        }
    }
    Ok(document.into())
}

/// A document's text. What is read back is the same.
///
/// # Errors
///
/// [`DocumentError::Unwritable`]: TOML has no `null`, and no numbers above 63 bits.
pub fn write(document: &Value, form: Form) -> Result<String, DocumentError> {
    let unwritable = |problem: String| DocumentError::Unwritable {
        form: form.name(),
        problem,
    };
    let text = match form {
        Form::Json => format!("{document:#}\n"),
        Form::Toml => toml::to_string(document).map_err(|error| unwritable(error.to_string()))?,
        Form::Yaml => match document {
            Value::Object(map) if !map.is_empty() => {
                let mut text = String::new();
                write_yaml(map, 0, &mut text);
                text
            }
            other => format!("{other}\n"),
        },
    };
    // A writer's mistake must not become a file.
    match parse(&text, form) {
        Ok(same) if same == *document => Ok(text),
        Ok(_) => Err(unwritable("another document would be read".to_owned())),
        Err(error) => Err(unwritable(error.to_string())),
    }
}

/// Maps as blocks; lists and quoted texts as JSON writes them, which YAML takes as they are.
fn write_yaml(map: &Map<String, Value>, depth: usize, text: &mut String) {
    for (name, value) in map {
        text.push_str(&"  ".repeat(depth));
        text.push_str(&yaml_text(name));
        text.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                text.push('\n');
                write_yaml(inner, depth + 1, text);
                continue;
            }
            Value::String(plain) => text.push_str(&format!(" {}", yaml_text(plain))),
            other => text.push_str(&format!(" {other}")),
        }
        text.push('\n');
    }
}

/// A text without quotes where YAML takes it for one, in all its versions.
fn yaml_text(text: &str) -> String {
    const NO_TEXTS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let is_plain = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text
            .chars()
            .all(|one| one.is_ascii_alphanumeric() || "_-./".contains(one))
        && !NO_TEXTS.contains(&text.to_ascii_lowercase().as_str());
    match is_plain {
        true => text.to_owned(),
        false => Value::from(text).to_string(),
    }
}

/// A value as a document has it: what reads as a number, a truth, a list or a map is that.
pub fn typed(text: &str) -> Value {
    let parsed: Option<Value> = serde_json::from_str(text).ok();
    // Only if nothing is lost on the way back: `1.10` is a version, not a number.
    let same = parsed.filter(|value| !value.is_string() && value.to_string().as_str() == text);
    same.unwrap_or_else(|| Value::String(text.to_owned()))
}

/// A value in whose maps no name stands twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
        inner.deserialize_any(self)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Number::from_f64(number).map_or_else(|| number.to_string().into(), Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            let Strict(value) = entries.next_value()?;
            if map.insert(name.clone(), value).is_some() {
                return Err(A::Error::custom(format!("two values for {name:?}")));
            }
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn keys(text: &str, form: Form) -> String {
        let keys = parse(text, form).and_then(|document| flatten(&document));
        match keys {
            Ok(keys) => {
                let shown = keys
                    .iter()
                    .map(|(key, value)| format!("{key}={}", std::str::from_utf8(value).unwrap()));
                shown.collect::<Vec<_>>().join(";")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_three_forms_give_the_same_keys() {
        let expected = r#"db/host=h;db/port=5432;list=[1,"a"];none={};on=true;v=1.10"#;
        let yaml = "db:\n  host: h\n  port: 5432\nlist: [1, a]\non: true\nnone: {}\nv: '1.10'\n";
        let toml = "list=[1,\"a\"]\non=true\nv='1.10'\n[db]\nhost='h'\nport=5432\n[none]\n";
        let json =
            r#"{"db":{"host":"h","port":5432},"list":[1,"a"],"on":true,"none":{},"v":"1.10"}"#;
        assert_eq!(keys(yaml, Form::Yaml), expected);
        assert_eq!(keys(toml, Form::Toml), expected);
        assert_eq!(keys(json, Form::Json), expected);
    }

    #[test]
    fn mistakes_are_named_by_line_and_column() {
        for (text, form, expected) in [
            ("a: 1\nb: [1,\n", Form::Yaml, "line "),
            ("a: 1\n  b: : x\n", Form::Yaml, "line 2, column"),
            ("a: 1\na: 2\n", Form::Yaml, "line 2, column 1"),
            ("a = 1\nb = = 2\n", Form::Toml, "line 2, column 5"),
            ("{\"a\": 1,\n \"a\": 2}", Form::Json, "line 2, column"),
            ("{\"a\": 1,\n", Form::Json, "line 2, column 0"),
        ] {
            let found = keys(text, form);
            assert!(found.starts_with(expected), "{text:?}: {found}");
        }
    }

    #[test]
    fn documents_that_are_no_bundles_are_refused() {
        for (text, expected) in [
            ("[1]", "it is a list"),
            ("5", "it is a number"),
            (
                r#"{"a/b": 1, "a": {"b": 2}}"#,
                "two values for the key \"a/b\"",
            ),
            (r#"{"": 1}"#, "a name under \"\""),
            (r#"{"a": {"/b": 1}}"#, "a name under \"a/\""),
            (r#"{"a": 1, "a/b": 2}"#, "the key \"a\" is a value"),
            (r#"{"a": 1, "a-": 2, "a/b": 2}"#, "the key \"a\" is a value"),
        ] {
            let found = keys(text, Form::Json);
            assert!(found.starts_with(expected), "{text}: {found}");
        }
    }

    #[test]
    fn a_yaml_bomb_is_refused() {
        let mut text = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (name, of) in ["b", "c", "d", "e", "f", "g", "h", "i"]
            .iter()
            .zip("abcdefgh".chars())
        {
            let uses = vec![format!("*{of}"); 9].join(",");
            text.push_str(&format!("{name}: &{name} [{uses}]\n"));
        }
        parse(&text, Form::Yaml).unwrap_err();
    }

    #[test]
    fn documents_come_back() {
        let document = parse(
            r#"{"a":{"b":"x","c":[1,{"d":null}]},"e":1.5,"f":"1.10","g":{}}"#,
            Form::Json,
        )
        .unwrap();
        let keys: BTreeMap<Bytes, Bytes> = flatten(&document)
            .unwrap()
            .into_iter()
            .map(|(key, value)| (key.into(), value))
            .collect();
        let back = nest(&keys).unwrap();
        // The one that does not: `1.10` is not how JSON would write that number, so it stays text.
        assert_eq!(back, document);
    }

    #[test]
    fn a_document_is_written_as_it_is_read() {
        let document = serde_json::json!({
            "db": {"host": "h", "port": 5432, "on": "no", "empty": {}, "deep": {"x": "- a: b"}},
            "tags": ["a", 1, {"b": true}],
            "text": "two\nlines \"quoted\" \u{e4} # no remark",
            "1": "1", "~": "", "é": " x ", "ratio": 0.5,
        });
        for form in [Form::Yaml, Form::Toml, Form::Json] {
            let text = write(&document, form).unwrap();
            assert_eq!(parse(&text, form).unwrap(), document, "{text}");
        }
        let yaml = write(&serde_json::json!({"a": {"b": "x", "c": "on"}}), Form::Yaml);
        assert_eq!(yaml.unwrap(), "a:\n  b: x\n  c: \"on\"\n");
        let none = serde_json::json!({"a": null});
        let refused = write(&none, Form::Toml).unwrap_err().to_string();
        assert!(
            refused.starts_with("it cannot be written as TOML"),
            "{refused}"
        );
        assert_eq!(write(&none, Form::Yaml).unwrap(), "a: null\n");
    }
}
