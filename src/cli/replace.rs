//! Files that are replaced as a whole: whoever opens one finds the old text or the new one.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use super::error::CliError;

/// Puts `bytes` in the place of a file, which keeps its permissions; what there is stays until all
/// of it is on the disk.
///
/// # Errors
///
/// [`CliError::File`] where the disk refuses; the old file is there as it was.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".partial-{}", std::process::id()));
    let partial = path.with_file_name(name);
    let done = write(&partial, path, bytes);
    if done.is_err() {
        // Best effort: the error is told in any case.
        let _ = fs::remove_file(&partial);
    }
    done.map_err(|error| CliError::file("write", path, error))
}

fn write(partial: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(partial)?;
    if let Ok(old) = fs::metadata(path) {
        file.set_permissions(old.permissions())?;
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(partial, path)?;
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_keeps_its_permissions_and_nothing_is_left_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        replace_file(&path, b"1").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        replace_file(&path, b"22").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"22");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        replace_file(&folder.path().join("none/out"), b"").unwrap_err();
    }
}
