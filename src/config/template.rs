//! Templates filled with configuration: values of one snapshot by `get` and `keys`.
//!
//! Pure: text and values in, text out. What is missing is an error, never an empty string.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value, context};
use thiserror::Error;

/// Steps that one template may take: a loop over loops ends.
const FUEL: u64 = 100_000_000;

/// Why a template gave nothing.
#[derive(Debug, Error)]
#[error("{name}, line {line}: {problem}")]
pub struct TemplateError {
    name: String,
    line: usize,
    problem: String,
}

/// Fills a template. It sees `get(key)`, `get(key, default)`, `keys(prefix)` (a list of `key`,
/// `name` (what follows the prefix) and `value`), and the filter `fromjson`.
///
/// # Errors
///
/// [`TemplateError`]: it is no template, or names what is not there.
pub fn render(
    name: &str,
    template: &str,
    values: BTreeMap<Bytes, Bytes>,
) -> Result<String, TemplateError> {
    let mut environment = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    // What an editor puts at a file's end belongs to it.
    let syntax = syntax.keep_trailing_newline(true).build();
    environment.set_syntax(syntax.expect("the delimiters are the usual ones"));
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    let values = Arc::new(values);
    let of_get = Arc::clone(&values);
    environment.add_function("get", move |key: String, default: Option<Value>| {
        get(&of_get, &key, default)
    });
    environment.add_function("keys", move |prefix: String| keys(&values, &prefix));
    environment.add_filter("fromjson", from_json);
    environment
        .render_named_str(name, template, context! {})
        .map_err(|error| TemplateError {
            name: name.to_owned(),
            line: error.line().unwrap_or(1),
            problem: problem(&error),
        })
}

/// What went wrong, and what that came from, without places, which are told already.
fn problem(error: &Error) -> String {
    let mut text = match error.detail() {
        Some(detail) => detail.to_owned(),
        None => error.kind().to_string(),
    };
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text.push_str(&format!(": {inner}"));
        source = inner.source();
    }
    text
}

fn text_of(key: &str, value: &Bytes) -> Result<Value, Error> {
    match std::str::from_utf8(value) {
        Ok(text) => Ok(Value::from(text)),
        Err(_) => Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("the value of {key:?} is no UTF-8 text"),
        )),
    }
}

fn get(values: &BTreeMap<Bytes, Bytes>, key: &str, default: Option<Value>) -> Result<Value, Error> {
    match (values.get(key.as_bytes()), default) {
        (Some(value), _) => text_of(key, value),
        (None, Some(default)) => Ok(default),
        (None, None) => Err(Error::new(
            ErrorKind::UndefinedError,
            format!("no such key: {key:?}; `get(key, default)` takes a default"),
        )),
    }
}

fn keys(values: &BTreeMap<Bytes, Bytes>, prefix: &str) -> Result<Vec<Value>, Error> {
    let from = Bytes::copy_from_slice(prefix.as_bytes());
    let found = values.range(from..);
    let found = found.take_while(|(key, _)| key.starts_with(prefix.as_bytes()));
    found
        .map(|(key, value)| {
            let key = String::from_utf8_lossy(key);
            let value = text_of(&key, value)?;
            let name = key.strip_prefix(prefix).unwrap_or(&key);
            Ok(context! { key => &*key, name => name, value => value })
        })
        .collect()
}

fn from_json(text: String) -> Result<Value, Error> {
    let no_json = |error| Error::new(ErrorKind::InvalidOperation, format!("no JSON: {error}"));
    serde_json::from_str(&text).map_err(no_json)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn check(template: &str, expected: Result<&str, &str>) {
        let values = [
            ("app/db/host", "h"),
            ("app/db/list", "[1,2]"),
            ("app/db/port", "5432"),
            ("other", "<&>"),
        ];
        let values = values.map(|(key, value)| (key.into(), value.into()));
        let found = render("t.j2", template, BTreeMap::from(values));
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(error), Err(words)) => {
                assert!(error.to_string().contains(words), "{error}");
            }
            (found, expected) => panic!("{template}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn templates_see_values() {
        check(
            "{{ get('app/db/host') }}:{{ get('app/db/port') }}\n",
            Ok("h:5432\n"),
        );
        check("{{ get('none', 'd') }}", Ok("d"));
        check(
            "{% for k in keys('app/db/') %}{{ k.name }}={{ k.value }};{% endfor %}",
            Ok("host=h;list=[1,2];port=5432;"),
        );
        check(
            "{% for x in get('app/db/list')|fromjson %}{{ x + 1 }} {% endfor %}",
            Ok("2 3 "),
        );
        check("{{ get('other') }}", Ok("<&>"));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line() {
        check(
            "a\n{{ get('none') }}",
            Err("t.j2, line 2: no such key: \"none\""),
        );
        check("a\n\n{% for %}", Err("t.j2, line 3"));
        check("{{ nothing }}", Err("line 1: "));
        check("{{ get('app/db/host')|fromjson }}", Err("no JSON"));
    }

    #[test]
    fn a_template_that_never_ends_is_ended() {
        let nested = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9) %}\
                      {% endfor %}{% endfor %}{% endfor %}";
        check(nested, Err("fuel"));
    }
}
