//! Keys as variables of an environment. Pure.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use bytes::Bytes;
use thiserror::Error;

/// Why keys cannot be variables.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VariableError {
    /// Two keys have one name.
    #[error("the keys {first:?} and {second:?} are both the variable {name}")]
    Twice {
        /// One key.
        first: String,
        /// The other.
        second: String,
        /// The variable.
        name: String,
    },
    /// A value that no environment takes.
    #[error("the value of {key:?} has a zero byte")]
    ZeroByte {
        /// Whose.
        key: String,
    },
}

/// The variables that keys stand for, given by what follows the prefix: each byte that is no
/// letter, digit or `_` becomes `_`, and a digit does not come first; with `upcase`, letters are
/// capital ones.
///
/// # Errors
///
/// [`VariableError`].
pub fn variables<'a>(
    keys: impl IntoIterator<Item = (&'a [u8], &'a Bytes)>,
    upcase: bool,
) -> Result<BTreeMap<String, OsString>, VariableError> {
    let mut named: BTreeMap<String, &[u8]> = BTreeMap::new();
    let mut variables = BTreeMap::new();
    for (key, value) in keys {
        let name = name_of(key, upcase);
        let shown = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
        if let Some(first) = named.insert(name.clone(), key) {
            return Err(VariableError::Twice {
                first: shown(first),
                second: shown(key),
                name,
            });
        }
        if value.contains(&0) {
            return Err(VariableError::ZeroByte { key: shown(key) });
        }
        variables.insert(name, OsString::from_vec(value.to_vec()));
    }
    Ok(variables)
}

fn name_of(key: &[u8], upcase: bool) -> String {
    let letter = |byte: &u8| match byte {
        byte if byte.is_ascii_alphanumeric() && upcase => char::from(byte.to_ascii_uppercase()),
        byte if byte.is_ascii_alphanumeric() => char::from(*byte),
        _ => '_',
    };
    let name: String = key.iter().map(letter).collect();
    match name.starts_with(|first: char| first.is_ascii_digit()) {
        true => format!("_{name}"),
        false => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(keys: &[&'static str], upcase: bool, expected: Result<&str, &str>) {
        let value = Bytes::from_static(b"v");
        let keys = keys.iter().map(|key| (key.as_bytes(), &value));
        let found = variables(keys, upcase);
        let names = found.map(|it| it.into_keys().collect::<Vec<_>>().join(" "));
        let names = names.map_err(|error| error.to_string());
        assert_eq!(names.as_deref().map_err(String::as_str), expected);
    }

    #[test]
    fn keys_are_names() {
        check(
            &["db/host", "db/port-1", "9"],
            true,
            Ok("DB_HOST DB_PORT_1 _9"),
        );
        check(&["db/host", "DB/HOST"], false, Ok("DB_HOST db_host"));
        let twice = "the keys \"a-b\" and \"a/b\" are both the variable A_B";
        check(&["a-b", "a/b"], true, Err(twice));
    }

    #[test]
    fn values_with_a_zero_byte_are_refused() {
        let value = Bytes::from_static(b"a\0b");
        let refused = variables([(&b"k"[..], &value)], true);
        assert_eq!(
            refused,
            Err(VariableError::ZeroByte {
                key: "k".to_owned()
            })
        );
    }
}
