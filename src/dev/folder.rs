//! The folder of a local cluster: one user at a time, and a note of how many nodes it is for.
//!
//! What is inside the nodes' own folders is theirs.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::DevError;

const LOCK_NAME: &str = "dev.lock";
const DESCRIPTION_NAME: &str = "dev.json";
const DESCRIPTION_VERSION: u32 = 1;

/// What `dev.json` says. Ports are not in it: each start chooses them.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Description {
    version: u32,
    nodes: u16,
}

/// The folder, ours until dropped.
#[derive(Debug)]
pub(super) struct Folder {
    _lock: File,
}

impl Folder {
    /// Takes the folder for a cluster of `nodes`, and makes it if it is not there.
    pub(super) fn open(dir: &Path, nodes: u16) -> Result<Self, DevError> {
        fs::create_dir_all(dir).map_err(|error| DevError::file("create", dir, error))?;
        let lock_path = dir.join(LOCK_NAME);
        let lock = File::create(&lock_path)
            .map_err(|error| DevError::file("create", &lock_path, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DevError::FolderInUse {
                    dir: dir.to_owned(),
                });
            }
            Err(TryLockError::Error(error)) => {
                return Err(DevError::file("lock", lock_path, error));
            }
        }
        check_description(dir, nodes)?;
        Ok(Self { _lock: lock })
    }
}

fn check_description(dir: &Path, nodes: u16) -> Result<(), DevError> {
    let path = dir.join(DESCRIPTION_NAME);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let description = Description {
                version: DESCRIPTION_VERSION,
                nodes,
            };
            let text =
                serde_json::to_vec(&description).expect("two numbers are always written as JSON");
            return write_atomically(&path, &text);
        }
        Err(error) => return Err(DevError::file("read", path, error)),
    };
    let bad = |problem: String| DevError::BadDescription {
        path: path.clone(),
        problem,
    };
    let held: Description =
        serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
    if held.version != DESCRIPTION_VERSION {
        return Err(bad(format!(
            "its version is {}, this program knows {DESCRIPTION_VERSION}",
            held.version
        )));
    }
    if held.nodes != nodes {
        return Err(DevError::OtherNodeCount {
            dir: dir.to_owned(),
            held: held.nodes,
            wanted: nodes,
        });
    }
    Ok(())
}

/// Writes a file so that whoever sees its name sees all of it.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), DevError> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".partial-{}", std::process::id()));
    let partial = PathBuf::from(partial);
    File::create(&partial)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&partial, path))
        .map_err(|error| {
            // What is left has a name that nobody waits for.
            let _ = fs::remove_file(&partial);
            DevError::file("write", path, error)
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_folder_keeps_its_number_of_nodes() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("cluster");
        drop(Folder::open(&dir, 3).unwrap());
        drop(Folder::open(&dir, 3).unwrap());
        match Folder::open(&dir, 5) {
            Err(DevError::OtherNodeCount { held, wanted, .. }) => {
                assert_eq!((held, wanted), (3, 5));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_folder_has_one_user() {
        let folder = tempfile::tempdir().unwrap();
        let held = Folder::open(folder.path(), 3).unwrap();
        let refused = Folder::open(folder.path(), 3);
        assert!(matches!(refused, Err(DevError::FolderInUse { .. })));
        drop(held);
        Folder::open(folder.path(), 3).unwrap();
    }

    #[test]
    fn a_description_of_another_kind_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(DESCRIPTION_NAME), b"{}").unwrap();
        let refused = Folder::open(folder.path(), 3);
        assert!(matches!(refused, Err(DevError::BadDescription { .. })));
    }
}
