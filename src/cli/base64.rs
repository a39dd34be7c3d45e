//! Base64 (RFC 4648, section 4, padded): how bytes that are not UTF-8 stand in JSON.
//!
//! Only what JSON needs: whole values in memory, the standard alphabet, strict padding.

use thiserror::Error;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A text that is not padded standard base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Base64Error {
    /// The length is no multiple of four.
    #[error("not base64: {0} characters, and a multiple of 4 is wanted (pad with `=`)")]
    Length(usize),
    /// A character that does not belong there, by its place from 0.
    #[error("not base64: the character at {0} does not belong there")]
    Character(usize),
}

/// Encodes bytes.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let padded = [
            chunk[0],
            chunk.get(1).copied().unwrap_or(0),
            chunk.get(2).copied().unwrap_or(0),
        ];
        let bits = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
        for place in 0..4 {
            let index = (bits >> (18 - 6 * place)) & 0x3f;
            let used = place <= chunk.len();
            text.push(if used {
                char::from(ALPHABET[index as usize])
            } else {
                '='
            });
        }
    }
    text
}

/// Decodes a text.
///
/// # Errors
///
/// [`Base64Error`] where the text is not what [`encode`] writes: other characters, a wrong
/// length, or bits set that padding hides.
pub fn decode(text: &str) -> Result<Vec<u8>, Base64Error> {
    let text = text.as_bytes();
    if !text.len().is_multiple_of(4) {
        return Err(Base64Error::Length(text.len()));
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for (group, quad) in text.chunks_exact(4).enumerate() {
        let last = (group + 1) * 4 == text.len();
        decode_quad(quad, group * 4, last, &mut bytes)?;
    }
    Ok(bytes)
}

fn decode_quad(
    quad: &[u8],
    offset: usize,
    last: bool,
    bytes: &mut Vec<u8>,
) -> Result<(), Base64Error> {
    let padding = quad.iter().rev().take_while(|byte| **byte == b'=').count();
    if padding > 2 || (padding > 0 && !last) {
        return Err(Base64Error::Character(offset + 4 - padding));
    }
    let mut bits = 0u32;
    for (place, byte) in quad.iter().enumerate() {
        let value = match byte {
            _ if place >= 4 - padding => 0,
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(Base64Error::Character(offset + place)),
        };
        bits = (bits << 6) | u32::from(value);
    }
    let decoded = bits.to_be_bytes();
    let (kept, hidden) = decoded[1..].split_at(3 - padding);
    if hidden.iter().any(|byte| *byte != 0) {
        return Err(Base64Error::Character(offset + 3 - padding));
    }
    bytes.extend_from_slice(kept);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_vectors_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).unwrap(), bytes.as_bytes());
        }
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        assert_eq!(decode("Zg="), Err(Base64Error::Length(3)));
        assert_eq!(decode("Zg==Zg=="), Err(Base64Error::Character(2)));
        assert_eq!(decode("Z g="), Err(Base64Error::Character(1)));
        assert_eq!(decode("Zh=="), Err(Base64Error::Character(1)));
        assert_eq!(decode("===="), Err(Base64Error::Character(0)));
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode(&encode(&bytes)).unwrap(), bytes);
        }
    }
}
