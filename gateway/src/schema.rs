//! JSON Schemas of prefixes: whether a value may be written. Schemas are options of a keyspace, so
//! each gateway knows them from the catalog; compiled ones are kept.
//!
//! A value is taken as JSON, or, if it is none, as a text: so `5432` is a number, `web` a text. That of
//! a key that ends in `.yaml` or `.yml` must be a document of YAML.
//! Schemas that name others by address are refused: no gateway fetches anything.

use std::collections::HashMap;
use std::sync::Arc;

use jsonschema::Validator;
use parking_lot::Mutex;
use quorate_proto::v1;
use quorate_types::limits::ERROR_INPUT_MAX_CHARACTERS;
use quorate_types::{KeyspaceOptions, RESERVED_PREFIX, Reason};
use serde_json::Value;

use crate::errors::GatewayError;

/// Compiled schemas that are kept; beyond, all are compiled again.
const COMPILED_MAX: usize = 1024;
/// Places of one value that a refusal names.
const PLACES_NAMED_MAX: usize = 3;

/// The schemas that were compiled lately, by their text.
#[derive(Default)]
pub(crate) struct Schemas {
    compiled: Mutex<HashMap<String, Arc<Validator>>>,
}

impl Schemas {
    /// Whether all schemas of a keyspace are some.
    pub(crate) fn check_all(&self, options: &KeyspaceOptions) -> Result<(), GatewayError> {
        for (prefix, schema) in &options.schemas {
            self.compile(schema).map_err(|problem| {
                GatewayError::field("options.schemas", format!("that of `{prefix}`: {problem}"))
            })?;
        }
        Ok(())
    }

    /// Whether a value fits all schemas of its key.
    pub(crate) fn check(
        &self,
        field: &'static str,
        (key, value): (&[u8], &[u8]),
        options: &KeyspaceOptions,
    ) -> Result<(), GatewayError> {
        if key.starts_with(RESERVED_PREFIX.as_bytes()) {
            return Ok(());
        }
        let schemas = options.schemas.iter();
        let schemas = schemas.filter(|(prefix, _)| key.starts_with(prefix.as_bytes()));
        let mut parsed = None;
        for (prefix, schema) in schemas {
            let value = parsed.get_or_insert_with(|| typed(key, value));
            let problem = match (self.compile(schema), value) {
                (Ok(schema), Ok(value)) => misfit(&schema, value),
                (Ok(_), Err(problem)) => Some(problem.clone()),
                // It was checked before it became an option: another version's, then.
                (Err(problem), _) => Some(format!("the schema cannot be used: {problem}")),
            };
            if let Some(problem) = problem {
                return Err(GatewayError::Field {
                    field: field.into(),
                    problem: format!("does not fit the schema of `{prefix}`: {problem}"),
                    reason: Reason::SchemaViolated,
                });
            }
        }
        Ok(())
    }

    /// Whether the values that operations put fit.
    pub(crate) fn check_operations(
        &self,
        list: &'static str,
        operations: &[v1::Operation],
        options: &KeyspaceOptions,
    ) -> Result<(), GatewayError> {
        if options.schemas.is_empty() {
            return Ok(());
        }
        for (at, operation) in operations.iter().enumerate() {
            if let Some(v1::operation::Operation::Put(put)) = &operation.operation {
                let result = self.check("put.value", (&put.key, &put.value), options);
                crate::validate::within(list, at, result)?;
            }
        }
        Ok(())
    }

    fn compile(&self, text: &str) -> Result<Arc<Validator>, String> {
        if let Some(known) = self.compiled.lock().get(text) {
            return Ok(Arc::clone(known));
        }
        let schema: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let validator = jsonschema::validator_for(&schema).map_err(|error| {
            let place = error.instance_path().to_string();
            match place.as_str() {
                "" => error.to_string(),
                place => format!("at {place}: {error}"),
            }
        })?;
        let validator = Arc::new(validator);
        let mut compiled = self.compiled.lock();
        if compiled.len() >= COMPILED_MAX {
            compiled.clear();
        }
        compiled.insert(text.to_owned(), Arc::clone(&validator));
        Ok(validator)
    }
}

/// A value as schemas see it, or why it is no document.
fn typed(key: &[u8], value: &[u8]) -> Result<Value, String> {
    if key.ends_with(b".yaml") || key.ends_with(b".yml") {
        return serde_saphyr::from_slice(value).map_err(|error| {
            let place = error.location();
            let (line, column) = place.map_or((1, 1), |it| (it.line(), it.column()));
            let problem = error.without_snippet().to_string();
            let problem = problem.lines().next().unwrap_or("cannot be read");
            format!("no YAML: line {line}, column {column}: {problem}")
        });
    }
    Ok(match serde_json::from_slice(value) {
        Ok(value) => value,
        Err(_) => Value::String(String::from_utf8_lossy(value).into_owned()),
    })
}

/// What does not fit, by its path in the value; none: it fits.
fn misfit(schema: &Validator, value: &Value) -> Option<String> {
    let mut places = Vec::new();
    for error in schema.iter_errors(value).take(PLACES_NAMED_MAX) {
        let path = error.instance_path().to_string();
        let path = if path.is_empty() { "/" } else { path.as_str() };
        let mut problem = error.to_string();
        // It may repeat the value, which may be long.
        if let Some((end, _)) = problem.char_indices().nth(4 * ERROR_INPUT_MAX_CHARACTERS) {
            problem.truncate(end);
            problem.push('…');
        }
        places.push(format!("{path}: {problem}"));
    }
    (!places.is_empty()).then(|| places.join("; "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn options(schemas: &[(&str, &str)]) -> KeyspaceOptions {
        let schemas = schemas.iter();
        KeyspaceOptions {
            schemas: schemas
                .map(|(prefix, schema)| ((*prefix).to_owned(), (*schema).to_owned()))
                .collect(),
            ..KeyspaceOptions::default()
        }
    }

    fn check(options: &KeyspaceOptions, key: &str, value: &str, expected: Result<(), &str>) {
        let found = Schemas::default().check("value", (key.as_bytes(), value.as_bytes()), options);
        match (found, expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(words)) => {
                assert_eq!(error.reason(), Some(Reason::SchemaViolated));
                assert!(
                    error.to_string().contains(words),
                    "`{error}` lacks `{words}`"
                );
            }
            (found, expected) => panic!("{key}={value}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn values_are_held_against_all_schemas_of_their_key() {
        let service = r#"{"type":"object","required":["port"],
            "properties":{"port":{"type":"integer","maximum":65535}}}"#;
        let with = options;
        let options = with(&[
            ("app/", service),
            ("app/short/", r#"{"maxProperties":1}"#),
            ("ports/", r#"{"type":"integer"}"#),
        ]);
        check(&options, "app/a", r#"{"port":80}"#, Ok(()));
        check(
            &options,
            "app/a",
            r#"{"port":70000}"#,
            Err("`app/`: /port: 70000"),
        );
        check(
            &options,
            "app/a",
            "{}",
            Err("\"port\" is a required property"),
        );
        check(
            &options,
            "app/a",
            "no json",
            Err("/: \"no json\" is not of type"),
        );
        let two = r#"{"port":80,"x":1}"#;
        check(&options, "app/short/a", two, Err("`app/short/`"));
        check(&options, "ports/web", "80", Ok(()));
        check(
            &options,
            "ports/web",
            "eighty",
            Err("is not of type \"integer\""),
        );
        check(&options, "other", "anything", Ok(()));
        check(&options, "app/a.yaml", "port: 80\n", Ok(()));
        check(
            &options,
            "app/a.yml",
            "port: x\n",
            Err("/port: \"x\" is not of type"),
        );
        check(
            &options,
            "app/a.yaml",
            "port: 1\nb: [\n",
            Err("no YAML: line "),
        );
        check(&options, "app/a.yaml", "a: 1\na: 2\n", Err("line 2"));
        check(&options, "app/a.yaml", "\u{0}", Err("no YAML"));
        let all = with(&[("", r#"{"type":"integer"}"#)]);
        check(&all, "a", "x", Err("integer"));
        check(&all, ".quorate/config/x", "x", Ok(()));
    }

    #[test]
    fn what_is_no_schema_is_refused_and_nothing_is_fetched() {
        for (schema, words) in [
            ("{", "EOF"),
            (r#"{"type":"colour"}"#, "at /type"),
            (r#"{"pattern":"("}"#, "at /pattern"),
            (r#"{"$ref":"http://127.0.0.1:1/x.json"}"#, "127.0.0.1"),
            (r#"{"$ref":"file:///etc/hostname"}"#, "hostname"),
        ] {
            let error = Schemas::default().check_all(&options(&[("app/", schema)]));
            let error = error.unwrap_err().to_string();
            assert!(error.contains("`app/`"), "{error}");
            assert!(error.contains(words), "`{error}` lacks `{words}`");
        }
    }
}
