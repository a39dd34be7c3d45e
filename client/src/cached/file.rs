//! The copy's file: taken up at the start, replaced as a whole.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use quorate_types::stable_hash;

use super::CachedError;
use super::copy::Copy;

fn failed(doing: &'static str, path: &Path, source: io::Error) -> CachedError {
    CachedError::File {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// The file's place, and the copy in it. What is damaged, or of another prefix, is none.
pub(super) async fn open(
    folder: PathBuf,
    keyspace: String,
    prefix: Bytes,
) -> Result<(Option<PathBuf>, Option<Copy>), CachedError> {
    let name = format!("{keyspace}-{:016x}.copy", stable_hash(&prefix));
    let path = folder.join(name);
    tokio::fs::create_dir_all(&folder)
        .await
        .map_err(|error| failed("make", &folder, error))?;
    let copy = match tokio::fs::read(&path).await {
        Ok(bytes) => Copy::decode(&bytes.into()).ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("read", &path, error)),
    };
    let copy = copy.filter(|copy| copy.keyspace == keyspace && copy.prefix == prefix);
    Ok((Some(path), copy))
}

/// Replaces the file; it is on the disk when this returns. Readable by its owner alone: it may hold
/// secrets.
pub(super) async fn write(path: PathBuf, copy: Arc<Copy>) -> Result<(), CachedError> {
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    let done = tokio::task::spawn_blocking({
        let (path, partial) = (path.clone(), partial.clone());
        move || replace(&path, &partial, &copy.encode())
    });
    let done = done
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)));
    done.map_err(|error| failed("write", &path, error))
}

fn replace(path: &Path, partial: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(partial, path)
}
