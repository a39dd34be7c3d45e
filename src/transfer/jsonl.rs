//! One key and its value as a line of JSON: `{"key":…,"value":…}`, or `key_base64` and
//! `value_base64` where the bytes are not UTF-8.
//!
//! Other fields are passed over when reading, so what `scan --output json` writes can be read.

use std::io::{self, BufRead, Read, Write};

use base64::engine::general_purpose::STANDARD;
use base64::{DecodeError, Engine};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::cli::json::put_bytes;

/// Longest line that is read: the largest value, each byte of it as a six-character escape.
pub const LINE_MAX_BYTES: u64 = 100 << 20;

/// A text that is not padded standard base64 (RFC 4648, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Base64Error {
    /// The length is no multiple of four.
    #[error("not base64: {0} characters, and a multiple of 4 is wanted (pad with `=`)")]
    Length(usize),
    /// A character that does not belong there, by its place from 0.
    #[error("not base64: the character at {0} does not belong there")]
    Character(usize),
}

/// What is wrong with a line.
#[derive(Debug, Error)]
pub enum LineError {
    /// Longer than [`LINE_MAX_BYTES`].
    #[error("the line has more than {LINE_MAX_BYTES} bytes")]
    TooLong,
    /// Not JSON, or fields of other types.
    #[error("not a JSON object with a key and a value: {0}")]
    Json(String),
    /// A field that is needed.
    #[error("neither `{0}` nor `{0}_base64` is there")]
    Missing(&'static str),
    /// A field that is given in both ways.
    #[error("`{0}` and `{0}_base64` are both there")]
    Twice(&'static str),
    /// A field that is no base64.
    #[error("`{0}_base64`: {1}")]
    Base64(&'static str, Base64Error),
}

/// A line as it was read.
#[derive(Debug)]
pub struct Line {
    /// With its newline, if it has one.
    pub text: Result<Vec<u8>, LineError>,
    /// What was taken from the reader for it.
    pub taken_bytes: u64,
}

#[derive(Deserialize)]
struct Fields {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
}

/// Parses one line.
///
/// # Errors
///
/// [`LineError`], naming the field.
pub fn parse(line: &[u8]) -> Result<(Bytes, Bytes), LineError> {
    let line: Fields =
        serde_json::from_slice(line).map_err(|error| LineError::Json(error.to_string()))?;
    let key = field("key", line.key, line.key_base64)?;
    let value = field("value", line.value, line.value_base64)?;
    Ok((key, value))
}

/// The bytes of a field that stands as text or as base64.
pub fn field(
    name: &'static str,
    text: Option<String>,
    encoded: Option<String>,
) -> Result<Bytes, LineError> {
    match (text, encoded) {
        (Some(text), None) => Ok(Bytes::from(text)),
        (None, Some(encoded)) => decode(&encoded)
            .map(Bytes::from)
            .map_err(|error| LineError::Base64(name, error)),
        (None, None) => Err(LineError::Missing(name)),
        (Some(_), Some(_)) => Err(LineError::Twice(name)),
    }
}

fn decode(text: &str) -> Result<Vec<u8>, Base64Error> {
    if !text.len().is_multiple_of(4) {
        return Err(Base64Error::Length(text.len()));
    }
    STANDARD.decode(text).map_err(|error| match error {
        DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => {
            Base64Error::Character(at)
        }
        DecodeError::InvalidLength(_) => Base64Error::Length(text.len()),
        DecodeError::InvalidPadding => Base64Error::Character(text.trim_end_matches('=').len()),
    })
}

/// Writes one line.
///
/// # Errors
///
/// As the writer has them.
pub fn write(writer: &mut impl Write, key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut object = Map::new();
    put_bytes(&mut object, "key", key);
    put_bytes(&mut object, "value", value);
    writeln!(writer, "{}", Value::Object(object))
}

/// Reads the next line. None at the end. A line past the limit is passed over and told as an error.
///
/// # Errors
///
/// As the reader has them.
pub fn read_line(reader: &mut impl BufRead) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    let taken = reader
        .by_ref()
        .take(LINE_MAX_BYTES + 1)
        .read_until(b'\n', &mut line)? as u64;
    if taken == 0 {
        return Ok(None);
    }
    if taken > LINE_MAX_BYTES && line.last() != Some(&b'\n') {
        let rest = reader.skip_until(b'\n')? as u64;
        return Ok(Some(Line {
            text: Err(LineError::TooLong),
            taken_bytes: taken + rest,
        }));
    }
    Ok(Some(Line {
        text: Ok(line),
        taken_bytes: taken,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_parse_as_text_and_base64() {
        let (key, value) = parse(br#"{"key":"a","value":"1","revision":7}"#).unwrap();
        assert_eq!((&key[..], &value[..]), (&b"a"[..], &b"1"[..]));
        let (key, value) = parse(br#"{"key_base64":"/w==","value":""}"#).unwrap();
        assert_eq!((&key[..], &value[..]), (&b"\xff"[..], &b""[..]));
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        assert_eq!(decode("Zg="), Err(Base64Error::Length(3)));
        assert_eq!(decode("Zg==Zg=="), Err(Base64Error::Character(2)));
        assert_eq!(decode("Z g="), Err(Base64Error::Character(1)));
        assert_eq!(decode("Zh=="), Err(Base64Error::Character(1)));
        assert_eq!(decode("===="), Err(Base64Error::Character(0)));
    }

    #[test]
    fn wrong_lines_name_the_field() {
        for (line, expected) in [
            (r#"{"key":"a"}"#, "neither `value` nor `value_base64`"),
            (r#"{"key":"a","key_base64":"","value":""}"#, "both there"),
            (r#"{"key_base64":"!!!!","value":""}"#, "`key_base64`"),
            (r#"{"key":1,"value":""}"#, "expected a string"),
            ("garbage", "not a JSON object"),
        ] {
            let error = parse(line.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn lines_end_with_the_file_too() {
        let mut reader = io::Cursor::new(b"one\ntwo".to_vec());
        for (text, taken_bytes) in [(&b"one\n"[..], 4), (b"two", 3)] {
            let line = read_line(&mut reader).unwrap().unwrap();
            assert_eq!(line.text.unwrap(), text);
            assert_eq!(line.taken_bytes, taken_bytes);
        }
        assert!(read_line(&mut reader).unwrap().is_none());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            key in proptest::collection::vec(any::<u8>(), 0..40),
            value in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut line = Vec::new();
            write(&mut line, &key, &value).unwrap();
            let (key_back, value_back) = parse(&line).unwrap();
            prop_assert_eq!(&key_back[..], &key[..]);
            prop_assert_eq!(&value_back[..], &value[..]);
        }
    }
}
