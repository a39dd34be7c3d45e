//! The operating system's disk with faults on demand, for processes that are tested from outside.
//!
//! What is written and not synced stays in this process's memory, so that killing it is a power
//! cut: exactly what no sync has covered is lost, but for sectors that reached the disk early.
//! A file beside the data says how the disk is slow, full or failing now. Names are another
//! matter: creations, renames and removals take effect at once, as on a disk whose journal is
//! always first. What it means when names are lost, too, is the simulated disk's part.

mod held;
mod orders;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use self::held::Held;
use self::orders::Desk;
use super::{Disk, DiskFile, Doorbell, FolderLock, OpenMode, RealDisk, Worker, WorkerHandle};

/// What a disk that is broken answers a sync.
const IO_ERROR: i32 = 5;

/// Where a faulty disk with this file of orders tells what it holds and what it has done.
pub fn tally_path(orders: &Path) -> PathBuf {
    let mut name = OsString::from(orders);
    name.push(".tally");
    PathBuf::from(name)
}

/// A real disk that holds back what is not synced, and fails on demand.
///
/// Orders are words, each on a line of its own: `sync-ms N` (each sync takes so much longer),
/// `full` (nothing can be written, created or lengthened), `sync-error` (each sync fails, and what
/// it was to write is never written), `write-back N` (so many percent of the sectors reach the
/// disk before any sync).
#[derive(Clone, Debug)]
pub struct FaultDisk {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    real: RealDisk,
    desk: Desk,
    files: Mutex<HashMap<PathBuf, Arc<Contents>>>,
}

/// One file, whoever has it open.
#[derive(Debug)]
struct Contents {
    real: Arc<dyn DiskFile>,
    held: Mutex<Held>,
    /// It has a name; what is held of a file without one is nobody's loss. Changed under `held`.
    is_named: AtomicBool,
}

impl FaultDisk {
    /// A disk that takes its orders from a file. Which sectors reach the disk early follows from
    /// the seed and from what is written.
    ///
    /// # Errors
    ///
    /// The tally beside the file cannot be written.
    pub fn new(orders: &Path, seed: u64) -> io::Result<Self> {
        let shared = Shared {
            real: RealDisk,
            desk: Desk::open(orders, seed)?,
            files: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    fn refuse(&self) -> io::Error {
        self.shared.desk.count(&self.shared.desk.refused);
        io::Error::from(io::ErrorKind::StorageFull)
    }

    /// A file leaves: nothing of it is held any more.
    fn forget(&self, gone: Option<Arc<Contents>>) {
        if let Some(gone) = gone {
            let held = gone.held.lock();
            gone.is_named.store(false, Ordering::Relaxed);
            self.shared.desk.holds(held.bytes(), 0);
        }
    }
}

impl Disk for FaultDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.shared.real.create_dir_all(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let creates = match mode {
            OpenMode::CreateNew => true,
            OpenMode::OpenOrCreate => !self.shared.real.exists(path)?,
            OpenMode::Existing | OpenMode::ReadOnly => false,
        };
        if creates && self.shared.desk.orders().full {
            return Err(self.refuse());
        }
        let mut files = self.shared.files.lock();
        let known = files.get(path).filter(|_| !creates).cloned();
        let contents = match known {
            Some(contents) => contents,
            None => {
                // Others may write to what is opened for reading here.
                let real = self.shared.real.open(
                    path,
                    match mode {
                        OpenMode::ReadOnly => OpenMode::Existing,
                        OpenMode::CreateNew | OpenMode::OpenOrCreate | OpenMode::Existing => mode,
                    },
                )?;
                let held = Mutex::new(Held::new(real.len()?));
                let is_named = AtomicBool::new(true);
                let contents = Arc::new(Contents {
                    real,
                    held,
                    is_named,
                });
                files.insert(path.to_owned(), contents.clone());
                contents
            }
        };
        Ok(Arc::new(FaultFile {
            disk: self.clone(),
            contents,
            read_only: mode == OpenMode::ReadOnly,
        }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.shared.real.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.shared.files.lock();
        self.shared.real.rename(from, to)?;
        let replaced = files.remove(to);
        if let Some(contents) = files.remove(from) {
            files.insert(to.to_owned(), contents);
        }
        drop(files);
        self.forget(replaced);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut files = self.shared.files.lock();
        self.shared.real.remove(path)?;
        let gone = files.remove(path);
        drop(files);
        self.forget(gone);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.before_sync()?;
        self.shared.real.sync_dir(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.shared.real.exists(path)
    }

    fn lock_folder(&self, dir: &Path) -> io::Result<Box<dyn FolderLock>> {
        self.shared.real.lock_folder(dir)
    }

    fn spawn(
        &self,
        name: &str,
        bell: Doorbell,
        worker: Box<dyn Worker>,
    ) -> io::Result<WorkerHandle> {
        self.shared.real.spawn(name, bell, worker)
    }

    fn elapsed(&self) -> Duration {
        self.shared.real.elapsed()
    }
}

impl FaultDisk {
    /// What comes before each sync: slowness, or failure.
    fn before_sync(&self) -> io::Result<()> {
        let desk = &self.shared.desk;
        let orders = desk.orders();
        if !orders.sync_slower.is_zero() {
            std::thread::sleep(orders.sync_slower);
            desk.count(&desk.slowed);
        }
        if orders.sync_error {
            desk.count(&desk.failed);
            return Err(io::Error::from_raw_os_error(IO_ERROR));
        }
        Ok(())
    }
}

#[derive(Debug)]
struct FaultFile {
    disk: FaultDisk,
    contents: Arc<Contents>,
    read_only: bool,
}

impl FaultFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.read_only {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        match self.disk.shared.desk.orders().full {
            true => Err(self.disk.refuse()),
            false => Ok(()),
        }
    }

    /// Does something with what is held, and has it counted.
    fn change<T>(
        &self,
        work: impl FnOnce(&mut Held, &dyn DiskFile) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut held = self.contents.held.lock();
        let before = held.bytes();
        let done = work(&mut held, &*self.contents.real);
        if self.contents.is_named.load(Ordering::Relaxed) {
            self.disk.shared.desk.holds(before, held.bytes());
        }
        done
    }
}

impl DiskFile for FaultFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.contents.held.lock().len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let held = self.contents.held.lock();
        held.read(&*self.contents.real, buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        // A plain file does not grow by it either, however far behind its end.
        if data.is_empty() {
            return Ok(());
        }
        let desk = &self.disk.shared.desk;
        let early_percent = desk.orders().write_back_percent;
        self.change(|held, real| {
            for number in held.write(real, data, offset)? {
                if desk.percent(early_percent) {
                    held.write_back(real, number)?;
                }
            }
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        self.change(|held, _| {
            held.set_len(len);
            Ok(())
        })
    }

    /// Slowness comes first, while writes and reads go on and a power cut still drops it all.
    fn sync_data(&self) -> io::Result<()> {
        let before = self.disk.before_sync();
        self.change(|held, real| match before {
            Ok(()) => held.sync(real),
            Err(error) => {
                held.doom();
                Err(error)
            }
        })
    }
}
