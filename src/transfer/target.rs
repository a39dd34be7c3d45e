//! Where an export writes to: a folder, or a file of lines, beside its final name until all of
//! it is there.
//!
//! Not here: reading the keys (see `export`).

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::error::TransferError;
use super::jsonl;
use super::path::{self, Unfit};

/// An export's destination. Dropped before [`Target::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct Target {
    wanted: PathBuf,
    partial: PathBuf,
    form: Form,
    finished: bool,
}

#[derive(Debug)]
enum Form {
    Folder { made: PathBuf, prefix_bytes: usize },
    Lines(BufWriter<File>),
}

impl Target {
    /// Prepares `wanted`: lines of JSON if its name ends in `.jsonl`, else a folder whose
    /// files are named by what follows `prefix` in their keys.
    ///
    /// # Errors
    ///
    /// [`TransferError::TargetExists`] for anything but an empty folder where one is made;
    /// [`TransferError::File`] where nothing can be made.
    pub fn create(wanted: &Path, prefix: &[u8]) -> Result<Self, TransferError> {
        let name = wanted.file_name().ok_or_else(|| {
            let source = io::Error::from(io::ErrorKind::InvalidInput);
            TransferError::file("export to", wanted, source)
        })?;
        let lines = wanted.extension().is_some_and(|it| it == "jsonl");
        check_free(wanted, lines)?;
        let mut partial_name = OsString::from(".");
        partial_name.push(name);
        partial_name.push(format!(".partial-{}", std::process::id()));
        let partial = wanted.with_file_name(partial_name);
        if let Some(parent) = wanted.parent() {
            fs::create_dir_all(parent)
                .map_err(|error| TransferError::file("create", parent, error))?;
        }
        let form = match lines {
            true => File::create(&partial).map(|file| Form::Lines(BufWriter::new(file))),
            false => fs::create_dir(&partial).map(|()| Form::Folder {
                made: partial.clone(),
                prefix_bytes: prefix.len(),
            }),
        }
        .map_err(|error| TransferError::file("create", &partial, error))?;
        Ok(Self {
            wanted: wanted.to_owned(),
            partial,
            form,
            finished: false,
        })
    }

    /// Writes one key. The inner error is about this key alone.
    ///
    /// # Errors
    ///
    /// [`TransferError::File`] where the disk refuses.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<Result<(), Unfit>, TransferError> {
        let (made, prefix_bytes) = match &mut self.form {
            Form::Lines(writer) => {
                return jsonl::write(writer, key, value)
                    .map(Ok)
                    .map_err(|error| TransferError::file("write", &self.partial, error));
            }
            Form::Folder { made, prefix_bytes } => (made, *prefix_bytes),
        };
        let relative = match path::path_of(key.get(prefix_bytes..).unwrap_or_default()) {
            Ok(relative) => relative,
            Err(unfit) => return Ok(Err(unfit)),
        };
        let file = self.partial.join(relative);
        match write_file(&file, value, made) {
            Ok(()) => Ok(Ok(())),
            Err(error) if is_conflict(&error) => Ok(Err(Unfit::FileAndFolder)),
            Err(error) => Err(TransferError::file("write", file, error)),
        }
    }

    /// Gives the export its name.
    ///
    /// # Errors
    ///
    /// [`TransferError::File`] where the disk refuses.
    pub fn finish(mut self) -> Result<(), TransferError> {
        if let Form::Lines(writer) = &mut self.form {
            writer
                .flush()
                .and_then(|()| writer.get_ref().sync_all())
                .map_err(|error| TransferError::file("write", &self.partial, error))?;
        }
        fs::rename(&self.partial, &self.wanted)
            .map_err(|error| TransferError::file("rename to", &self.wanted, error))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // Best effort: the name says that it is a part, and of which process.
        let _ = match self.form {
            Form::Folder { .. } => fs::remove_dir_all(&self.partial),
            Form::Lines(_) => fs::remove_file(&self.partial),
        };
    }
}

fn check_free(wanted: &Path, lines: bool) -> Result<(), TransferError> {
    let metadata = match fs::symlink_metadata(wanted) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(TransferError::file("look at", wanted, error)),
    };
    let is_empty = || fs::read_dir(wanted).is_ok_and(|mut held| held.next().is_none());
    if !lines && metadata.is_dir() && is_empty() {
        return Ok(());
    }
    Err(TransferError::TargetExists {
        path: wanted.to_owned(),
    })
}

/// Writes a new file. `made` is the folder that is known to exist: keys come in order, so the
/// next one mostly lies in the same.
fn write_file(file: &Path, value: &[u8], made: &mut PathBuf) -> io::Result<()> {
    let parent = file
        .parent()
        .expect("a file lies below the folder of the export");
    if parent != made {
        fs::create_dir_all(parent)?;
        parent.clone_into(made);
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(file)?
        .write_all(value)
}

/// Keys are unique, so what is in the way is a file where a folder should be, or the reverse.
fn is_conflict(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn nothing_has_the_final_name_before_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = folder.path().join("out");
        let mut target = Target::create(&wanted, b"p/").unwrap();
        target.put(b"p/a/b", b"1").unwrap().unwrap();
        assert!(!wanted.exists());
        target.finish().unwrap();
        assert_eq!(fs::read(wanted.join("a/b")).unwrap(), b"1");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_export_that_is_given_up_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["out", "out.jsonl"] {
            let mut target = Target::create(&folder.path().join(name), b"").unwrap();
            target.put(b"a", b"1").unwrap().unwrap();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_a_folder_too_is_refused_in_either_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut target = Target::create(&folder.path().join("out"), b"").unwrap();
        target.put(b"a", b"1").unwrap().unwrap();
        assert_eq!(target.put(b"a/b", b"2").unwrap(), Err(Unfit::FileAndFolder));
        target.put(b"c/d", b"1").unwrap().unwrap();
        assert_eq!(target.put(b"c", b"2").unwrap(), Err(Unfit::FileAndFolder));
        assert_eq!(target.put(b"../x", b"2").unwrap(), Err(Unfit::Dots));
    }

    #[test]
    fn what_is_there_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = folder.path().join("out");
        fs::create_dir(&wanted).unwrap();
        Target::create(&wanted, b"").unwrap().finish().unwrap();
        fs::write(wanted.join("mine"), b"").unwrap();
        let file = folder.path().join("out.jsonl");
        fs::write(&file, b"old").unwrap();
        for there in [&wanted, &file] {
            let error = Target::create(there, b"").unwrap_err();
            assert!(matches!(error, TransferError::TargetExists { .. }));
        }
        assert_eq!(fs::read(file).unwrap(), b"old");
    }

    #[test]
    fn lines_keep_whole_keys() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = folder.path().join("out.jsonl");
        let mut target = Target::create(&wanted, b"p/").unwrap();
        target.put(b"p/a", b"\xff").unwrap().unwrap();
        target.finish().unwrap();
        assert_eq!(
            fs::read_to_string(&wanted).unwrap(),
            "{\"key\":\"p/a\",\"value_base64\":\"/w==\"}\n"
        );
    }
}
