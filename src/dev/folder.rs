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

/// What `dev.json` says.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Description {
    version: u32,
    nodes: u16,
    /// Of the last run, to be taken again where any free ones will do.
    ports: Vec<u16>,
}

/// The folder, ours until dropped.
#[derive(Debug)]
pub(super) struct Folder {
    _lock: File,
}

impl Folder {
    /// Takes the folder for a cluster with so many ports, and makes it if it is not there.
    pub(super) fn open(dir: &Path, nodes: u16, ports: Vec<u16>) -> Result<Self, DevError> {
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
        check_nodes(dir, nodes)?;
        let description = Description {
            version: DESCRIPTION_VERSION,
            nodes,
            ports,
        };
        let text = serde_json::to_vec(&description).expect("numbers are always written as JSON");
        write_atomically(&dir.join(DESCRIPTION_NAME), &text)?;
        Ok(Self { _lock: lock })
    }
}

/// Ports of the last run in a folder; none if there was none.
pub(super) fn last_ports(dir: &Path) -> Vec<u16> {
    match read_description(dir) {
        Ok(Some(description)) => description.ports,
        // What is wrong with it is told when the folder is taken.
        Ok(None) | Err(_) => Vec::new(),
    }
}

fn read_description(dir: &Path) -> Result<Option<Description>, DevError> {
    let path = dir.join(DESCRIPTION_NAME);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
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
    Ok(Some(held))
}

fn check_nodes(dir: &Path, nodes: u16) -> Result<(), DevError> {
    match read_description(dir)? {
        Some(held) if held.nodes != nodes => Err(DevError::OtherNodeCount {
            dir: dir.to_owned(),
            held: held.nodes,
            wanted: nodes,
        }),
        Some(_) | None => Ok(()),
    }
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
        drop(Folder::open(&dir, 3, vec![]).unwrap());
        drop(Folder::open(&dir, 3, vec![1, 2]).unwrap());
        assert_eq!(last_ports(&dir), [1, 2]);
        match Folder::open(&dir, 5, vec![]) {
            Err(DevError::OtherNodeCount { held, wanted, .. }) => {
                assert_eq!((held, wanted), (3, 5));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_folder_has_one_user() {
        let folder = tempfile::tempdir().unwrap();
        let held = Folder::open(folder.path(), 3, vec![]).unwrap();
        let refused = Folder::open(folder.path(), 3, vec![]);
        assert!(matches!(refused, Err(DevError::FolderInUse { .. })));
        drop(held);
        Folder::open(folder.path(), 3, vec![]).unwrap();
    }

    #[test]
    fn a_description_of_another_kind_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(DESCRIPTION_NAME), b"{}").unwrap();
        let refused = Folder::open(folder.path(), 3, vec![]);
        assert!(matches!(refused, Err(DevError::BadDescription { .. })));
    }
}
