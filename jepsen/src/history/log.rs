//! Lines as Jepsen's console showed them: `INFO  jepsen.util - 3 :invoke :write 4`.

use super::cursor::Cursor;
use super::edn;
use super::error::ReadError;
use crate::value::Value;

/// The four words of an event's line, and what follows them: process, kind, function, value.
pub(super) struct Line {
    pub(super) process: Value,
    pub(super) kind: String,
    pub(super) f: String,
    pub(super) value: Value,
}

/// Takes a line apart; none if it is blank.
pub(super) fn line(text: &str, number: u64) -> Result<Option<Line>, ReadError> {
    const WANTED: &str = "wanted: INFO jepsen.util - PROCESS :KIND :F VALUE";
    if text.trim().is_empty() {
        return Ok(None);
    }
    let mut cursor = Cursor::new(text.as_bytes(), number);
    let mut next = || edn::value(&mut cursor, edn::NESTING_MAX_LEVELS);
    for word in ["INFO", "jepsen.util", "-"] {
        if next()?.as_ref().and_then(Value::as_text) != Some(word) {
            return Err(ReadError::syntax(number, WANTED));
        }
    }
    let (Some(process), Some(Value::Text(kind)), Some(Value::Text(f))) =
        (next()?, next()?, next()?)
    else {
        return Err(ReadError::syntax(number, WANTED));
    };
    let value = next()?.ok_or_else(|| ReadError::syntax(number, WANTED))?;
    // Longer messages follow some values; they say nothing that a checker needs.
    Ok(Some(Line {
        process,
        kind: kind.into(),
        f: f.into(),
        value,
    }))
}
