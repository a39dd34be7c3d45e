//! A reader of EDN, one value at a time: <https://github.com/edn-format/edn>.
//!
//! Ours, since it must name lines, must not hold a whole file, and needs no writing. Namespaces,
//! tags and metadata are read over: histories carry them in fields that no checker looks at.

use std::io::Read;

use super::cursor::{Cursor, text};
use super::error::{Problem, ReadError};
use crate::value::Value;

/// How deep collections may lie in each other.
pub(super) const NESTING_MAX_LEVELS: usize = 64;

/// Skips blanks, commas, comments and discarded values.
pub(super) fn blanks<R: Read>(cursor: &mut Cursor<R>) -> Result<(), ReadError> {
    while let Some(byte) = cursor.peek()? {
        match byte {
            b';' => while cursor.next()?.is_some_and(|byte| byte != b'\n') {},
            b' ' | b'\t' | b'\r' | b'\n' | b',' | 0x0c => cursor.skip(),
            _ => break,
        }
    }
    Ok(())
}

/// The next value; none at the end of the file.
pub(super) fn value<R: Read>(
    cursor: &mut Cursor<R>,
    levels: usize,
) -> Result<Option<Value>, ReadError> {
    loop {
        blanks(cursor)?;
        let line = cursor.line();
        let Some(byte) = cursor.peek()? else {
            return Ok(None);
        };
        if levels == 0 {
            return Err(ReadError::syntax(
                line,
                "collections lie too deep in each other",
            ));
        }
        let value = match byte {
            b'[' => collection(cursor, b']', levels)?,
            b'(' => collection(cursor, b')', levels)?,
            b'{' => map(cursor, levels)?,
            b'"' => Value::Text(string(cursor)?.into()),
            b'\\' => character(cursor)?,
            b'^' => {
                cursor.skip();
                inner(cursor, levels)?;
                continue;
            }
            b'#' => {
                cursor.skip();
                match dispatched(cursor, levels)? {
                    Some(value) => value,
                    None => continue,
                }
            }
            b']' | b')' | b'}' => {
                let close = char::from(byte);
                return Err(ReadError::syntax(line, format!("`{close}` closes nothing")));
            }
            _ => atom(cursor)?,
        };
        return Ok(Some(value));
    }
}

/// A value that must be there: inside of something.
fn inner<R: Read>(cursor: &mut Cursor<R>, levels: usize) -> Result<Value, ReadError> {
    let value = value(cursor, levels - 1)?;
    value.ok_or_else(|| ReadError::new(cursor.line(), Problem::Truncated("a collection")))
}

/// What stands behind `#`: a set, a discarded value (none), or a tag with its value.
fn dispatched<R: Read>(cursor: &mut Cursor<R>, levels: usize) -> Result<Option<Value>, ReadError> {
    match cursor.peek()? {
        Some(b'{') => collection(cursor, b'}', levels).map(Some),
        Some(b'_') => {
            cursor.skip();
            inner(cursor, levels)?;
            Ok(None)
        }
        _ => {
            token(cursor)?;
            inner(cursor, levels).map(Some)
        }
    }
}

fn collection<R: Read>(
    cursor: &mut Cursor<R>,
    close: u8,
    levels: usize,
) -> Result<Value, ReadError> {
    let mut values = Vec::new();
    cursor.skip();
    while !closed(cursor, close)? {
        values.push(inner(cursor, levels)?);
    }
    Ok(Value::List(values.into()))
}

fn map<R: Read>(cursor: &mut Cursor<R>, levels: usize) -> Result<Value, ReadError> {
    let mut entries = Vec::new();
    cursor.skip();
    while !closed(cursor, b'}')? {
        let key = inner(cursor, levels)?;
        if closed(cursor, b'}')? {
            let what = format!("the map ends behind the key `{key}`, without its value");
            return Err(ReadError::syntax(cursor.line(), what));
        }
        entries.push((key, inner(cursor, levels)?));
    }
    Ok(Value::Map(entries.into()))
}

/// Takes the closing byte, if it comes next.
fn closed<R: Read>(cursor: &mut Cursor<R>, close: u8) -> Result<bool, ReadError> {
    blanks(cursor)?;
    match cursor.peek()? {
        Some(byte) if byte == close => {
            cursor.skip();
            Ok(true)
        }
        Some(_) => Ok(false),
        None => Err(ReadError::new(
            cursor.line(),
            Problem::Truncated("a collection"),
        )),
    }
}

fn string<R: Read>(cursor: &mut Cursor<R>) -> Result<String, ReadError> {
    let line = cursor.line();
    let mut bytes = Vec::new();
    cursor.skip();
    loop {
        match cursor.next()? {
            None => return Err(ReadError::new(line, Problem::Truncated("a string"))),
            Some(b'"') => return text(bytes, line),
            Some(b'\\') => match cursor.next()? {
                None => return Err(ReadError::new(line, Problem::Truncated("a string"))),
                Some(b'n') => bytes.push(b'\n'),
                Some(b't') => bytes.push(b'\t'),
                Some(b'r') => bytes.push(b'\r'),
                Some(b'u') => escape(cursor, &mut bytes)?,
                Some(other) => bytes.push(other),
            },
            Some(byte) => bytes.push(byte),
        }
    }
}

/// Four hexadecimal digits behind `\u`; half of a pair becomes the replacement character.
fn escape<R: Read>(cursor: &mut Cursor<R>, bytes: &mut Vec<u8>) -> Result<(), ReadError> {
    let mut code = 0;
    for _ in 0..4 {
        let digit = cursor
            .next()?
            .and_then(|byte| char::from(byte).to_digit(16));
        let digit = digit.ok_or_else(|| {
            ReadError::syntax(cursor.line(), "`\\u` without four hexadecimal digits")
        })?;
        code = code * 16 + digit;
    }
    let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    Ok(())
}

/// `\a`, `\newline`: its name is as good as itself.
fn character<R: Read>(cursor: &mut Cursor<R>) -> Result<Value, ReadError> {
    cursor.skip();
    let mut bytes: Vec<u8> = cursor.next()?.into_iter().collect();
    let line = cursor.line();
    rest_of_token(cursor, &mut bytes)?;
    Ok(Value::Text(text(bytes, line)?.into()))
}

fn token<R: Read>(cursor: &mut Cursor<R>) -> Result<String, ReadError> {
    let line = cursor.line();
    let mut bytes = Vec::new();
    rest_of_token(cursor, &mut bytes)?;
    text(bytes, line)
}

fn rest_of_token<R: Read>(cursor: &mut Cursor<R>, bytes: &mut Vec<u8>) -> Result<(), ReadError> {
    while let Some(byte) = cursor.peek()? {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' | b',' | b';' | b'"' | b'[' | b']' | b'(' | b')'
            | b'{' | b'}' | 0x0c => break,
            _ => bytes.push(byte),
        }
        cursor.skip();
    }
    Ok(())
}

/// A number, keyword, symbol, or one of the three names that are values.
fn atom<R: Read>(cursor: &mut Cursor<R>) -> Result<Value, ReadError> {
    let line = cursor.line();
    let token = token(cursor)?;
    Ok(match token.as_str() {
        "nil" => Value::Nil,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => match token.strip_prefix(':') {
            Some("") => return Err(ReadError::syntax(line, "`:` without a name")),
            Some(name) => Value::text(name),
            None => number(&token, line)?.unwrap_or_else(|| Value::text(&token)),
        },
    })
}

/// The number that a token is; none if it is a symbol.
fn number(token: &str, line: u64) -> Result<Option<Value>, ReadError> {
    let digits = token.trim_start_matches(['-', '+']);
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return Ok(None);
    }
    if let Ok(number) = token.trim_end_matches('N').parse::<i64>() {
        return Ok(Some(Value::Int(number)));
    }
    match token.trim_end_matches(['M', 'N']).parse::<f64>() {
        Ok(number) => Ok(Some(Value::Real(number.to_bits()))),
        // Ratios are the one other kind of number; they compare well enough as they are written.
        Err(_) if token.contains('/') => Ok(Some(Value::text(token))),
        Err(_) => Err(ReadError::syntax(line, format!("`{token}` is no number"))),
    }
}
