//! Keys as paths and paths as keys, byte for byte.
//!
//! Pure functions. A path that came from a key never leaves the folder it is meant for.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use thiserror::Error;

/// Longest name of one file or folder that common file systems take.
pub const NAME_MAX_BYTES: usize = 255;

/// Why a key cannot be the path of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unfit {
    /// Nothing is left after the prefix.
    #[error("nothing is left of it after the prefix")]
    Empty,
    /// It begins with a slash.
    #[error("it begins with `/`, and would leave the folder")]
    Absolute,
    /// It has a part `..` or `.`.
    #[error("it has a part `..` or `.`, and could leave the folder")]
    Dots,
    /// Two slashes side by side, or one at the end.
    #[error("it has an empty part (`//`, or `/` at the end)")]
    EmptyPart,
    /// A byte that no file system takes.
    #[error("it has a zero byte")]
    ZeroByte,
    /// A part longer than [`NAME_MAX_BYTES`].
    #[error("a part of it is longer than 255 bytes")]
    PartTooLong,
    /// The key is a file, and another key lies under it as if it were a folder.
    #[error("it is a file and a folder at once: another key lies under it, or it under another")]
    FileAndFolder,
}

/// The key of a file at `relative` below the imported folder. None for what is no plain
/// relative path.
pub fn key_of(prefix: &[u8], relative: &Path) -> Option<Bytes> {
    let mut key = prefix.to_vec();
    let mut first = true;
    for component in relative.components() {
        let Component::Normal(name) = component else {
            return None;
        };
        if !first {
            key.push(b'/');
        }
        key.extend_from_slice(name.as_bytes());
        first = false;
    }
    Some(Bytes::from(key))
}

/// The path, below the exported folder, of a key whose prefix has been taken off.
///
/// # Errors
///
/// [`Unfit`] for keys that are no plain relative path.
pub fn path_of(rest: &[u8]) -> Result<PathBuf, Unfit> {
    if rest.is_empty() {
        return Err(Unfit::Empty);
    }
    if rest.starts_with(b"/") {
        return Err(Unfit::Absolute);
    }
    let mut path = PathBuf::new();
    for part in rest.split(|byte| *byte == b'/') {
        match part {
            b"" => return Err(Unfit::EmptyPart),
            b"." | b".." => return Err(Unfit::Dots),
            _ if part.contains(&0) => return Err(Unfit::ZeroByte),
            _ if part.len() > NAME_MAX_BYTES => return Err(Unfit::PartTooLong),
            _ => path.push(OsStr::from_bytes(part)),
        }
    }
    Ok(path)
}

/// A key as an error shows it: text where it is text, escapes where it is not.
pub fn shown(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => key.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_that_leave_the_folder_are_refused_by_their_reason() {
        for (key, reason) in [
            (&b""[..], Unfit::Empty),
            (b"/etc/passwd", Unfit::Absolute),
            (b"../up", Unfit::Dots),
            (b"a/../../up", Unfit::Dots),
            (b"a/./b", Unfit::Dots),
            (b"a//b", Unfit::EmptyPart),
            (b"a/", Unfit::EmptyPart),
            (b"a\0b", Unfit::ZeroByte),
        ] {
            assert_eq!(path_of(key), Err(reason), "{}", shown(key));
        }
        let long = [b'x'; NAME_MAX_BYTES + 1];
        assert_eq!(path_of(&long), Err(Unfit::PartTooLong));
        path_of(&long[1..]).unwrap();
    }

    #[test]
    fn names_keep_their_bytes() {
        let name = OsStr::from_bytes(b"caf\xe9 au lait");
        let key = key_of(b"menu/", &Path::new("drinks").join(name)).unwrap();
        assert_eq!(&key[..], b"menu/drinks/caf\xe9 au lait");
        let back = path_of(&key[b"menu/".len()..]).unwrap();
        assert_eq!(back, Path::new("drinks").join(name));
    }

    #[test]
    fn shown_is_text_or_escapes() {
        assert_eq!(shown("straße".as_bytes()), "straße");
        assert_eq!(shown(b"\xff\n"), "\\xff\\n");
    }

    proptest! {
        #[test]
        fn any_key_that_fits_comes_back_and_stays_inside(
            key in proptest::collection::vec(any::<u8>(), 0..64)
        ) {
            if let Ok(path) = path_of(&key) {
                prop_assert!(path.components().all(|part| matches!(part, Component::Normal(_))));
                prop_assert_eq!(&key_of(b"", &path).unwrap()[..], &key[..]);
            }
        }
    }
}
