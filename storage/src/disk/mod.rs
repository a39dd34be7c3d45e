//! The disk seam: the one way storage reaches files, folders and threads.
//!
//! [`Disk`] and [`DiskFile`] are what the log and the engine see; [`RealDisk`]
//! is the operating system, [`SimDisk`] a memory-only disk that can lose what
//! was not synced, and [`FaultDisk`] a real one that does the same to a process
//! that is killed. The seam also starts the background workers ([`Worker`]),
//! since who waits for a disk decides how the waiting is done: a thread for a
//! real one, a task for a simulated one. No file format lives here.

pub mod fault;
mod real;
pub mod sim;
mod worker;

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use fault::FaultDisk;
pub use real::RealDisk;
pub use sim::SimDisk;
pub use worker::{Doorbell, Next, Worker, WorkerHandle};

/// How [`Disk::open`] treats a file that exists already, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// The file must not exist; it is created empty.
    CreateNew,
    /// The file is created empty where it does not exist.
    OpenOrCreate,
    /// The file must exist; it is opened for reading and writing.
    Existing,
    /// The file must exist; it is opened for reading alone.
    ReadOnly,
}

/// Proof of having a folder to oneself; the folder is free again when it is
/// dropped (or the process ends, however it ends).
pub trait FolderLock: Send + Sync + Debug {}

/// A disk: folders, names, files, and the workers that wait for it.
///
/// A name that was created, renamed or removed survives a power cut only after
/// [`Disk::sync_dir`] of its folder; bytes only after [`DiskFile::sync_data`].
pub trait Disk: Send + Sync + Debug {
    /// Creates a folder and its parents where they are missing, durably.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;

    /// Names of the files (not the folders) in `dir`, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Renames a file within its folder, replacing what has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Whether a file or folder of this name exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Takes a folder for this process alone (an advisory lock on a file named
    /// `LOCK` in it). Fails with [`io::ErrorKind::WouldBlock`] if it is taken.
    fn lock_folder(&self, dir: &Path) -> io::Result<Box<dyn FolderLock>>;

    /// Starts a background worker that is woken by `bell`.
    ///
    /// A real disk gives it a thread called `name`, a simulated one a task of
    /// the current tokio runtime (a thread where there is none).
    fn spawn(
        &self,
        name: &str,
        bell: Doorbell,
        worker: Box<dyn Worker>,
    ) -> io::Result<WorkerHandle>;

    /// Time since some fixed moment, for measuring how long the disk takes.
    fn elapsed(&self) -> Duration;

    /// Replaces a small file as a whole: after a power cut it has either its
    /// old content or all of `data`. Durable when this returns.
    fn write_atomically(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        let (dir, temporary) = temporary_beside(path)?;
        let file = self.open(&temporary, OpenMode::OpenOrCreate)?;
        file.set_len(0)?;
        file.write_at(data, 0)?;
        file.sync_data()?;
        self.rename(&temporary, path)?;
        self.sync_dir(dir)
    }

    /// Reads a small file whole.
    fn read_whole(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path, OpenMode::ReadOnly)?;
        let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
        let mut data = vec![0; len];
        file.read_at(&mut data, 0)?;
        Ok(data)
    }
}

/// An open file. Positions and lengths are in bytes.
pub trait DiskFile: Send + Sync + Debug {
    /// The file's length.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buffer` from `offset`; [`io::ErrorKind::UnexpectedEof`] if the
    /// file ends before.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `data` at `offset`, lengthening the file where needed.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;

    /// Writes zeros for real, ahead of data that is to come in small pieces.
    fn fill(&self, zeros: &[u8], offset: u64) -> io::Result<()> {
        self.write_at(zeros, offset)
    }

    /// Cuts the file, or lengthens it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes bytes and length durable. A failure is final: what was written
    /// since the last success may be lost, and no retry can tell.
    fn sync_data(&self) -> io::Result<()>;
}

/// The name under which [`Disk::write_atomically`] prepares a file.
fn temporary_beside(path: &Path) -> io::Result<(&Path, std::path::PathBuf)> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let mut temporary = name.to_os_string();
    temporary.push(".tmp");
    Ok((dir, dir.join(temporary)))
}
