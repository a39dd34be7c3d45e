//! Concurrent values in a text editor, between conflict markers as version control writes
//! them, and back.
//!
//! What is done with the outcome is in `resolve`.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use quorate_client::Entry;
use quorate_types::limits::VALUE_MAX_BYTES_CAP;

use super::error::CliError;
use super::input;
use super::resolve::unresolved;

const BEGIN: &str = "<<<<<<<";
const BETWEEN: &str = "=======";
const END: &str = ">>>>>>>";
/// Where no editor is named.
const EDITOR_DEFAULT: &str = "vi";

/// The file under edit; gone when dropped.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        // Best effort: it lies among other temporary files.
        let _ = fs::remove_file(&self.0);
    }
}

/// What the user's editor makes of the values.
///
/// # Errors
///
/// The editor fails, or markers are left in the file.
pub(super) fn merged(siblings: &[&Entry]) -> Result<Bytes, CliError> {
    let path = std::env::temp_dir().join(format!("quorate-resolve-{}.txt", std::process::id()));
    let draft = write(path, &conflict(siblings))?;
    edit(&draft.0)?;
    // The markers come on top of the values.
    let edited = input::read_file(&draft.0, 2 * VALUE_MAX_BYTES_CAP as u64)?;
    outcome(siblings, &edited)
}

/// Readable by nobody else: values are not for everybody on this machine.
fn write(path: PathBuf, text: &[u8]) -> Result<Draft, CliError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(text))
        .map_err(|error| CliError::file("write", &path, error))?;
    Ok(Draft(path))
}

fn edit(path: &Path) -> Result<(), CliError> {
    let named = |name| std::env::var_os(name).filter(|it| !it.is_empty());
    let editor = named("VISUAL")
        .or_else(|| named("EDITOR"))
        .unwrap_or_else(|| OsString::from(EDITOR_DEFAULT));
    // Through a shell, as others do: the variable may hold arguments.
    let mut script = editor.clone();
    script.push(" \"$1\"");
    let status = Command::new("sh")
        .arg("-c")
        .arg(script)
        .arg("quorate")
        .arg(path)
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(unresolved(format!(
            "{} ended with {status}",
            editor.display()
        ))),
        Err(error) => Err(unresolved(format!("{}: {error}", editor.display()))),
    }
}

fn conflict(siblings: &[&Entry]) -> Vec<u8> {
    let mut text = Vec::new();
    for (index, sibling) in siblings.iter().enumerate() {
        let marker = if index == 0 { BEGIN } else { BETWEEN };
        let number = index + 1;
        text.extend(
            format!(
                "{marker} {number} of {}, dot {}\n",
                siblings.len(),
                sibling.dot
            )
            .bytes(),
        );
        text.extend_from_slice(&sibling.value);
        if !sibling.value.is_empty() && !sibling.value.ends_with(b"\n") {
            text.push(b'\n');
        }
    }
    text.extend(format!("{END}\n").bytes());
    text
}

/// The file as a value. Editors end the last line; if no value had one, it is no part of it.
fn outcome(siblings: &[&Entry], edited: &[u8]) -> Result<Bytes, CliError> {
    let is_marker = |line: &[u8]| {
        [BEGIN, END]
            .into_iter()
            .any(|it| line.starts_with(it.as_bytes()))
            || line.starts_with(format!("{BETWEEN} ").as_bytes())
    };
    let in_a_value = |line: &[u8]| {
        let mut lines = siblings
            .iter()
            .flat_map(|one| one.value.split(|it| *it == b'\n'));
        lines.any(|it| it == line)
    };
    let mut lines = edited.split(|byte| *byte == b'\n');
    if lines.any(|line| is_marker(line) && !in_a_value(line)) {
        return Err(unresolved("conflict markers are left in the file"));
    }
    let ended = siblings.iter().any(|one| one.value.ends_with(b"\n"));
    let value = match edited.strip_suffix(b"\n") {
        Some(shorter) if !ended => shorter,
        Some(_) | None => edited,
    };
    Ok(Bytes::copy_from_slice(value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use quorate_types::Revision;

    fn entry(value: &'static str, dot: &str) -> Entry {
        Entry {
            key: "k".into(),
            value: value.into(),
            revision: Revision(1),
            expires_at: None,
            dot: dot.to_owned(),
            siblings: 0,
        }
    }

    #[test]
    fn values_stand_between_markers() {
        let (a, b) = (entry("one", "1.1.1"), entry("two\n", "2.1.1"));
        let text = conflict(&[&a, &b]);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "<<<<<<< 1 of 2, dot 1.1.1\none\n======= 2 of 2, dot 2.1.1\ntwo\n>>>>>>>\n"
        );
    }

    #[test]
    fn a_newline_at_the_end_is_kept_if_a_value_had_one() {
        let (a, b) = (entry("one", "1.1.1"), entry("two", "2.1.1"));
        assert_eq!(outcome(&[&a, &b], b"both\n").unwrap(), "both");
        let b = entry("two\n", "2.1.1");
        assert_eq!(outcome(&[&a, &b], b"both\n").unwrap(), "both\n");
    }

    #[test]
    fn markers_that_are_left_are_refused_but_those_of_a_value_are_not() {
        let (a, b) = (entry("one\n>>>>>>> quoted", "1.1.1"), entry("two", "2.1.1"));
        let siblings = [&a, &b];
        let error = outcome(&siblings, &conflict(&siblings)).unwrap_err();
        assert!(error.to_string().contains("markers"), "{error}");
        assert!(outcome(&siblings, b"======= 2 of 2, dot 2.1.1\ntwo\n").is_err());
        assert!(outcome(&siblings, b">>>>>>> quoted\n").is_ok());
        assert!(
            outcome(&siblings, b"=======\n").is_ok(),
            "a heading's underline"
        );
    }
}
