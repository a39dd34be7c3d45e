//! What commands read: files and standard input within limits, and the exact bytes of
//! arguments.
//!
//! What the bytes mean is the reader's business.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bytes::Bytes;

use super::error::CliError;

/// The bytes of an argument, exactly as they were given, UTF-8 or not.
pub fn argument(text: &OsStr) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Reads a file of at most `max_bytes`.
///
/// # Errors
///
/// [`CliError::File`] when it cannot be read, [`CliError::Refused`] when it is larger.
pub fn read_file(path: &Path, max_bytes: u64) -> Result<Vec<u8>, CliError> {
    let file = File::open(path).map_err(|error| CliError::file("open", path, error))?;
    read_to_limit(file, max_bytes, path)
}

/// Reads a file, or standard input where the path is `-`.
///
/// # Errors
///
/// As [`read_file`].
pub fn read_file_or_stdin(path: &Path, max_bytes: u64) -> Result<Vec<u8>, CliError> {
    if path == Path::new("-") {
        return read_to_limit(std::io::stdin().lock(), max_bytes, path);
    }
    read_file(path, max_bytes)
}

fn read_to_limit(source: impl Read, max_bytes: u64, path: &Path) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    source
        .take(max_bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| CliError::file("read", path, error))?;
    if bytes.len() as u64 > max_bytes {
        return Err(CliError::usage(
            format!("{} has more than {max_bytes} bytes", path.display()),
            format!("{max_bytes} bytes is the most that is taken here"),
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_file_at_the_limit_is_read_and_one_past_it_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("value");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(read_file(&path, 5).unwrap(), b"12345");
        let error = read_file(&path, 4).unwrap_err();
        assert_eq!(error.exit().code(), 2);
        assert!(error.to_string().contains("more than 4 bytes"), "{error}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read_file(Path::new("/no/such/file"), 5).unwrap_err();
        assert_eq!(error.exit().code(), 3);
        assert!(error.to_string().contains("/no/such/file"), "{error}");
    }
}
