//! Where configuration lies: its prefix, its steps, its contents. Names of keys, nothing else.

use std::fmt;

use bytes::Bytes;
use quorate_types::{FieldError, RESERVED_PREFIX};
use sha2::{Digest, Sha256};

/// Keys that start with it are Quorate's own, in any keyspace that keeps configuration.
pub const RESERVED: &str = RESERVED_PREFIX;

/// Longest prefix. Its name in the keys of its steps takes up to three times as much.
const PREFIX_MAX_BYTES: usize = 1024;

/// Digits of a step's number in its key, so that steps sort.
const STEP_DIGITS: usize = 10;

/// A folder of keys: empty, or with a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigPrefix(String);

impl ConfigPrefix {
    /// A prefix from what a caller typed: `app` and `app/` are the same, and neither holds `apple`.
    ///
    /// # Errors
    ///
    /// It is too long, begins with a slash, or is Quorate's own.
    pub fn new(text: &str) -> Result<Self, FieldError> {
        let trimmed = text.trim_end_matches('/');
        let problem = if text.len() > PREFIX_MAX_BYTES {
            format!("{} bytes; at most {PREFIX_MAX_BYTES}", text.len())
        } else if text.starts_with('/') {
            "begins with `/`; keys are no paths from a root".to_owned()
        } else if text.chars().any(char::is_control) {
            "has a control character".to_owned()
        } else if trimmed.split('/').next() == Some(RESERVED.trim_end_matches('/')) {
            format!("{RESERVED} keeps the steps of all others")
        } else if trimmed.is_empty() {
            return Ok(Self(String::new()));
        } else {
            return Ok(Self(format!("{trimmed}/")));
        };
        Err(FieldError::new("prefix", problem))
    }

    /// With its slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The whole key of one below this prefix.
    pub fn key(&self, relative: &[u8]) -> Bytes {
        Bytes::from([self.0.as_bytes(), relative].concat())
    }

    /// What is left of a key after the prefix; none for keys that are Quorate's own.
    pub fn relative(&self, key: &Bytes) -> Option<Bytes> {
        if key.starts_with(RESERVED.as_bytes()) || !key.starts_with(self.0.as_bytes()) {
            return None;
        }
        let rest = key.slice(self.0.len()..);
        (!rest.is_empty()).then_some(rest)
    }

    /// The key that holds the number of the last step.
    pub(super) fn head_key(&self) -> Bytes {
        Bytes::from(format!("{}head", self.folder()))
    }

    /// The key of one step.
    pub(super) fn step_key(&self, number: u64) -> Bytes {
        Bytes::from(format!("{}{number:0STEP_DIGITS$}", self.steps_prefix()))
    }

    /// What the keys of all steps start with.
    pub(super) fn steps_prefix(&self) -> String {
        format!("{}step/", self.folder())
    }

    /// The key of a content.
    pub(super) fn content_key(&self, name: &str) -> Bytes {
        Bytes::from(format!("{}content/{name}", self.folder()))
    }

    fn folder(&self) -> String {
        // `%` alone is no encoding of anything, so it is free to stand for the empty prefix.
        let name = match self.0.as_str() {
            "" => "%".to_owned(),
            text => escape(text.trim_end_matches('/').as_bytes()),
        };
        format!("{RESERVED}config/prefix/{name}/")
    }
}

impl fmt::Display for ConfigPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a content: the step that stored it, and its hash.
pub(super) fn content_name(step: u64, hash: &str) -> String {
    format!("{step:0STEP_DIGITS$}/{hash}")
}

/// The hash in the name of a content.
pub(super) fn hash_in(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or_default()
}

/// The hash of a content: SHA-256, in hexadecimal digits.
pub(super) fn content_hash(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes as text in which a space, a line's end and a slash stand for nothing else.
pub(super) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => {
                text.push(char::from(*byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// The bytes of an escaped text; none if it is none.
pub(super) fn unescape(text: &str) -> Option<Bytes> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    Some(Bytes::from(bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_prefix_is_a_folder() {
        let prefix = ConfigPrefix::new("app").unwrap();
        assert_eq!(prefix, ConfigPrefix::new("app/").unwrap());
        assert_eq!(prefix.key(b"db/host"), "app/db/host");
        assert_eq!(prefix.relative(&"app/a".into()), Some("a".into()));
        assert_eq!(prefix.relative(&"apple".into()), None);
        assert_eq!(prefix.relative(&"app/".into()), None);
        let all = ConfigPrefix::new("").unwrap();
        assert_eq!(all.relative(&".quorate/config/x".into()), None);
        assert_eq!(all.relative(&".quorated".into()), Some(".quorated".into()));
    }

    #[test]
    fn prefixes_that_name_no_folder_are_refused() {
        for text in [
            "/etc",
            ".quorate",
            ".quorate/config",
            "a\nb",
            &"x".repeat(1025),
        ] {
            ConfigPrefix::new(text).unwrap_err();
        }
    }

    #[test]
    fn no_two_prefixes_share_steps() {
        let names = ["", "a", "a/b", "a%2Fb", "%", "head", "step", "a/step"];
        let folders: std::collections::BTreeSet<_> = names
            .iter()
            .map(|name| ConfigPrefix::new(name).unwrap().folder())
            .collect();
        assert_eq!(folders.len(), names.len());
        for one in &folders {
            let within = folders.iter().filter(|two| two.starts_with(one.as_str()));
            assert_eq!(within.count(), 1, "{one}");
        }
    }

    #[test]
    fn any_bytes_survive_their_escape() {
        let bytes: Vec<u8> = (0..=255).collect();
        let text = escape(&bytes);
        assert!(!text.contains([' ', '\n', '/']), "{text}");
        assert_eq!(unescape(&text).unwrap(), bytes);
        for broken in ["%", "%4", "%zz"] {
            assert_eq!(unescape(broken), None, "{broken}");
        }
    }
}
