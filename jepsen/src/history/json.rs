//! A reader of JSON, one value at a time: RFC 8259. The sibling of `edn`, for the same reasons.

use std::io::Read;

use super::cursor::{Cursor, text};
use super::error::{Problem, ReadError};
use crate::value::Value;

/// Skips blanks.
pub(super) fn blanks<R: Read>(cursor: &mut Cursor<R>) -> Result<(), ReadError> {
    while let Some(b' ' | b'\t' | b'\r' | b'\n') = cursor.peek()? {
        cursor.skip();
    }
    Ok(())
}

/// The next value; none at the end of the file.
pub(super) fn value<R: Read>(
    cursor: &mut Cursor<R>,
    levels: usize,
) -> Result<Option<Value>, ReadError> {
    blanks(cursor)?;
    let line = cursor.line();
    let Some(byte) = cursor.peek()? else {
        return Ok(None);
    };
    if levels == 0 {
        return Err(ReadError::syntax(line, "values lie too deep in each other"));
    }
    let value = match byte {
        b'[' => array(cursor, levels)?,
        b'{' => object(cursor, levels)?,
        b'"' => Value::Text(string(cursor)?.into()),
        b'-' | b'0'..=b'9' | b'a'..=b'z' => word(cursor)?,
        _ => return Err(unexpected(cursor)?),
    };
    Ok(Some(value))
}

fn inner<R: Read>(cursor: &mut Cursor<R>, levels: usize) -> Result<Value, ReadError> {
    let value = value(cursor, levels - 1)?;
    value.ok_or_else(|| ReadError::new(cursor.line(), Problem::Truncated("a value")))
}

/// The error of a byte that does not belong here, or of the end of the file.
pub(super) fn unexpected<R: Read>(cursor: &mut Cursor<R>) -> Result<ReadError, ReadError> {
    let line = cursor.line();
    Ok(match cursor.peek()? {
        None => ReadError::new(line, Problem::Truncated("a value")),
        Some(byte) if byte.is_ascii_graphic() => {
            ReadError::syntax(line, format!("`{}` is not expected here", char::from(byte)))
        }
        Some(byte) => ReadError::syntax(line, format!("byte {byte:#04x} is not expected here")),
    })
}

/// Takes a byte that comes next, blanks aside.
pub(super) fn take<R: Read>(cursor: &mut Cursor<R>, wanted: u8) -> Result<bool, ReadError> {
    blanks(cursor)?;
    let there = cursor.peek()? == Some(wanted);
    if there {
        cursor.skip();
    }
    Ok(there)
}

fn array<R: Read>(cursor: &mut Cursor<R>, levels: usize) -> Result<Value, ReadError> {
    let mut values = Vec::new();
    cursor.skip();
    if take(cursor, b']')? {
        return Ok(Value::List([].into()));
    }
    loop {
        values.push(inner(cursor, levels)?);
        if take(cursor, b']')? {
            return Ok(Value::List(values.into()));
        }
        if !take(cursor, b',')? {
            return Err(unexpected(cursor)?);
        }
    }
}

fn object<R: Read>(cursor: &mut Cursor<R>, levels: usize) -> Result<Value, ReadError> {
    let mut entries = Vec::new();
    cursor.skip();
    if take(cursor, b'}')? {
        return Ok(Value::Map([].into()));
    }
    loop {
        blanks(cursor)?;
        if cursor.peek()? != Some(b'"') {
            return Err(unexpected(cursor)?);
        }
        let key = Value::Text(string(cursor)?.into());
        if !take(cursor, b':')? {
            return Err(unexpected(cursor)?);
        }
        entries.push((key, inner(cursor, levels)?));
        if take(cursor, b'}')? {
            return Ok(Value::Map(entries.into()));
        }
        if !take(cursor, b',')? {
            return Err(unexpected(cursor)?);
        }
    }
}

fn string<R: Read>(cursor: &mut Cursor<R>) -> Result<String, ReadError> {
    let line = cursor.line();
    let cut_off = || ReadError::new(line, Problem::Truncated("a string"));
    let mut bytes = Vec::new();
    cursor.skip();
    loop {
        match cursor.next()?.ok_or_else(cut_off)? {
            b'"' => return text(bytes, line),
            b'\\' => escape(cursor, &mut bytes, line)?,
            b'\n' => return Err(ReadError::syntax(line, "a string runs past its line's end")),
            byte => bytes.push(byte),
        }
    }
}

fn escape<R: Read>(
    cursor: &mut Cursor<R>,
    bytes: &mut Vec<u8>,
    line: u64,
) -> Result<(), ReadError> {
    let escaped = cursor.next()?;
    match escaped.ok_or_else(|| ReadError::new(line, Problem::Truncated("a string")))? {
        b'n' => bytes.push(b'\n'),
        b't' => bytes.push(b'\t'),
        b'r' => bytes.push(b'\r'),
        b'b' => bytes.push(0x08),
        b'f' => bytes.push(0x0c),
        byte @ (b'"' | b'\\' | b'/') => bytes.push(byte),
        b'u' => {
            let character = unicode(cursor, line)?;
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        other => {
            let what = format!("`\\{}` is no escape of JSON", char::from(other));
            return Err(ReadError::syntax(line, what));
        }
    }
    Ok(())
}

/// What `\uXXXX` means, a pair of surrogates included.
fn unicode<R: Read>(cursor: &mut Cursor<R>, line: u64) -> Result<char, ReadError> {
    let high = hexadecimal(cursor, line)?;
    if !(0xd800..0xdc00).contains(&high) {
        return Ok(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    if cursor.next()? != Some(b'\\') || cursor.next()? != Some(b'u') {
        return Err(ReadError::syntax(line, "half of a surrogate pair"));
    }
    let low = hexadecimal(cursor, line)?.wrapping_sub(0xdc00) & 0x3ff;
    let code = 0x1_0000 + ((high - 0xd800) << 10) + low;
    Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
}

fn hexadecimal<R: Read>(cursor: &mut Cursor<R>, line: u64) -> Result<u32, ReadError> {
    let mut code = 0;
    for _ in 0..4 {
        let digit = cursor
            .next()?
            .and_then(|byte| char::from(byte).to_digit(16));
        let digit = digit
            .ok_or_else(|| ReadError::syntax(line, "`\\u` without four hexadecimal digits"))?;
        code = code * 16 + digit;
    }
    Ok(code)
}

/// A number, or one of the three names.
fn word<R: Read>(cursor: &mut Cursor<R>) -> Result<Value, ReadError> {
    let line = cursor.line();
    let mut bytes = Vec::new();
    while let Some(byte) = cursor.peek()? {
        if !byte.is_ascii_alphanumeric() && !b"+-.".contains(&byte) {
            break;
        }
        bytes.push(byte);
        cursor.skip();
    }
    let token = text(bytes, line)?;
    Ok(match token.as_str() {
        "null" => Value::Nil,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => match (token.parse::<i64>(), token.parse::<f64>()) {
            (Ok(number), _) => Value::Int(number),
            (Err(_), Ok(number)) if number.is_finite() => Value::Real(number.to_bits()),
            _ => return Err(ReadError::syntax(line, format!("`{token}` is no JSON"))),
        },
    })
}
