//! A folder or a file as a bundle: values by key, all of them checked before any is sent.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use quorate_client::config::{CONFIG_KEYS_MAX, CONFIG_READ_MAX_BYTES, RESERVED};
use quorate_types::limits::VALUE_MAX_BYTES_CAP;
use thiserror::Error;
use walkdir::WalkDir;

use super::document::{self, DocumentError, Form};

/// Why a path is no bundle. Nothing was sent.
#[derive(Debug, Error)]
pub enum SourceError {
    /// A file or folder of this machine.
    #[error("cannot read {}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file that is no document, or no bundle.
    #[error("{}", path.display())]
    Document {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: DocumentError,
    },
    /// Something in the folder that cannot be a key's value.
    #[error("{}: {problem}", path.display())]
    Refused {
        /// What.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// More than one step can hold.
    #[error("{}: more than {limit} {what}", path.display())]
    TooLarge {
        /// The folder.
        path: PathBuf,
        /// Of what.
        what: &'static str,
        /// How much is taken.
        limit: usize,
    },
}

impl SourceError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Document {
                source: DocumentError::Syntax { .. },
                ..
            } => Some("`--no-check` takes a folder's files as they are"),
            Self::TooLarge { .. } => Some("apply its parts under prefixes of their own"),
            Self::File { .. } | Self::Document { .. } | Self::Refused { .. } => None,
        }
    }
}

fn refused(path: &Path, problem: impl Into<String>) -> SourceError {
    SourceError::Refused {
        path: path.to_owned(),
        problem: problem.into(),
    }
}

/// Reads a bundle. In a folder each file is a key, its path the name; with `check`, files whose
/// names say that they are YAML, TOML or JSON must be that. A file is a document of nested keys.
///
/// # Errors
///
/// [`SourceError`].
pub fn read_bundle(path: &Path, check: bool) -> Result<BTreeMap<Bytes, Bytes>, SourceError> {
    let metadata = std::fs::metadata(path).map_err(|source| SourceError::File {
        path: path.to_owned(),
        source,
    })?;
    let bundle = if metadata.is_dir() {
        read_folder(path, check)?
    } else {
        read_document(path)?
    };
    if bundle.is_empty() {
        return Err(refused(path, "it is empty, and there is nothing to apply"));
    }
    let own = RESERVED.as_bytes();
    if let Some(key) = bundle.keys().find(|key| key.starts_with(own)) {
        let key = key.escape_ascii();
        return Err(refused(
            path,
            format!("{key} lies under {RESERVED}, which is Quorate's own"),
        ));
    }
    Ok(bundle)
}

fn read_document(path: &Path) -> Result<BTreeMap<Bytes, Bytes>, SourceError> {
    let form = Form::of(path).ok_or_else(|| {
        refused(
            path,
            "neither a folder nor a .yaml, .yml, .toml or .json file",
        )
    })?;
    let text = text_of(path, read_file(path)?)?;
    let keys = document::parse(&text, form).and_then(|document| document::flatten(&document));
    let keys = keys.map_err(|source| SourceError::Document {
        path: path.to_owned(),
        source,
    })?;
    Ok(keys
        .into_iter()
        .map(|(key, value)| (key.into(), value))
        .collect())
}

fn read_folder(folder: &Path, check: bool) -> Result<BTreeMap<Bytes, Bytes>, SourceError> {
    let file_error = |path: &Path, source| SourceError::File {
        path: path.to_owned(),
        source,
    };
    let real = folder
        .canonicalize()
        .map_err(|error| file_error(folder, error))?;
    let mut bundle = BTreeMap::new();
    let mut bytes = 0;
    for entry in WalkDir::new(folder).sort_by_file_name() {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(folder).to_owned();
            file_error(&path, error.into())
        })?;
        if entry.file_type().is_dir() {
            continue;
        }
        let path = entry.path();
        if entry.path_is_symlink() {
            stays_inside(path, &real)?;
        } else if !entry.file_type().is_file() {
            return Err(refused(path, "it is no file: a socket, pipe or device"));
        }
        let value = read_file(path)?;
        if let (true, Some(form)) = (check, Form::of(path)) {
            let text = text_of(path, value.clone())?;
            document::check(&text, form).map_err(|source| SourceError::Document {
                path: path.to_owned(),
                source,
            })?;
        }
        bytes += value.len();
        bundle.insert(key_of(folder, path)?, Bytes::from(value));
        let too_large = |what, limit| SourceError::TooLarge {
            path: folder.to_owned(),
            what,
            limit,
        };
        if bundle.len() > CONFIG_KEYS_MAX {
            return Err(too_large("files", CONFIG_KEYS_MAX));
        }
        if bytes > CONFIG_READ_MAX_BYTES {
            return Err(too_large("bytes", CONFIG_READ_MAX_BYTES));
        }
    }
    Ok(bundle)
}

/// A link may point to another file of the folder; one that leaves it could carry any secret of
/// this machine into the cluster.
fn stays_inside(link: &Path, folder: &Path) -> Result<(), SourceError> {
    let target = link.canonicalize().map_err(|source| SourceError::File {
        path: link.to_owned(),
        source,
    })?;
    if !target.starts_with(folder) {
        let problem = format!("it is a link out of the folder, to {}", target.display());
        return Err(refused(link, problem));
    }
    if target.is_dir() {
        return Err(refused(link, "it is a link to a folder; link its files"));
    }
    Ok(())
}

fn key_of(folder: &Path, path: &Path) -> Result<Bytes, SourceError> {
    let relative = path.strip_prefix(folder).unwrap_or(path);
    match relative.to_str() {
        Some(key) => Ok(Bytes::copy_from_slice(key.as_bytes())),
        None => {
            let bytes = std::os::unix::ffi::OsStrExt::as_bytes(relative.as_os_str());
            let name = bytes.escape_ascii();
            Err(refused(
                folder,
                format!("the name {name} is no UTF-8 text; rename the file"),
            ))
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, SourceError> {
    let mut value = Vec::new();
    let limit = VALUE_MAX_BYTES_CAP as u64;
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut value))
        .map_err(|source| SourceError::File {
            path: path.to_owned(),
            source,
        })?;
    if value.len() as u64 > limit {
        return Err(refused(path, format!("it has more than {limit} bytes")));
    }
    Ok(value)
}

fn text_of(path: &Path, bytes: Vec<u8>) -> Result<String, SourceError> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        refused(path, format!("no UTF-8 text: byte {at}"))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use quorate_types::chain;
    use tempfile::TempDir;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    fn check(path: &Path, words: &[&str]) {
        let error = read_bundle(path, true).unwrap_err();
        let text = chain(&error);
        for word in words {
            assert!(text.contains(word), "`{text}` lacks `{word}`");
        }
    }

    #[test]
    fn a_folders_files_are_keys_byte_for_byte() {
        let folder = folder(&[
            ("a", "1\n"),
            ("d/e.yaml", "x: 1\n---\ny: 2\n"),
            (".hidden", ""),
        ]);
        symlink("a", folder.path().join("same")).unwrap();
        let bundle = read_bundle(folder.path(), true).unwrap();
        let keys: Vec<_> = bundle.keys().cloned().collect();
        assert_eq!(keys, [".hidden", "a", "d/e.yaml", "same"]);
        assert_eq!(bundle[&Bytes::from("same")], "1\n");
    }

    #[test]
    fn links_out_of_the_folder_are_refused() {
        let folder = folder(&[("a", "1")]);
        symlink("/etc/hostname", folder.path().join("out")).unwrap();
        check(folder.path(), &["out", "a link out of the folder"]);
    }

    #[test]
    fn a_link_to_nothing_and_one_to_a_folder_are_refused() {
        let one = folder(&[("d/a", "1")]);
        symlink("d", one.path().join("e")).unwrap();
        check(one.path(), &["a link to a folder"]);
        let two = folder(&[("a", "1")]);
        symlink("gone", two.path().join("e")).unwrap();
        check(two.path(), &["cannot read", "/e"]);
    }

    #[test]
    fn names_that_are_no_text_are_refused() {
        let folder = folder(&[("a", "1")]);
        std::fs::write(folder.path().join(OsStr::from_bytes(b"caf\xe9")), "").unwrap();
        check(folder.path(), &["caf\\xe9", "UTF-8"]);
    }

    #[test]
    fn invalid_documents_are_named_by_line_and_column() {
        let folder = folder(&[("d/bad.yaml", "a: 1\nb: [\n"), ("c.yaml", "a: 1\n b: 2\n")]);
        check(folder.path(), &["c.yaml", "line 2, column"]);
        check(&folder.path().join("d/bad.yaml"), &["bad.yaml", "line "]);
        assert_eq!(read_bundle(folder.path(), false).unwrap().len(), 2);
    }

    #[test]
    fn nothing_is_no_bundle() {
        check(folder(&[]).path(), &["empty"]);
        let one = folder(&[("a.json", "{}"), ("b.txt", "x"), (".quorate/x", "")]);
        check(&one.path().join("a.json"), &["empty"]);
        check(&one.path().join("b.txt"), &["neither"]);
        check(&one.path().join("none"), &["cannot read"]);
        check(one.path(), &[".quorate/"]);
    }
}
