//! One redb file: opening and creating it, its writer's lock, its view.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use redb::{Database, ReadableDatabase, WriteTransaction};

use super::EngineOptions;
use super::error::EngineError;
use super::history::HISTORY;
use super::pages::{self, PageCounts, Pages};
use super::range::{FlushJob, Range};
use super::record;
use super::view::{CURRENT, FileView, META, MetaKind, meta_name};
use crate::disk::{Disk, Doorbell, FolderLock, OpenMode};

/// The range number under which a file's own record stands.
const FILE_RECORD_RANGE: u64 = u64::MAX;

/// A file and the ranges in it.
pub(super) struct EngineFile {
    pub(super) name: Arc<str>,
    pub(super) counts: Arc<PageCounts>,
    pub(super) bell: Doorbell,
    /// Held for as long as a write transaction and the view it leads to are in
    /// the making. None once closed.
    open: Mutex<Option<Open>>,
    residents: Mutex<Residents>,
    /// Ranges that froze something.
    frozen: Mutex<BTreeSet<u64>>,
}

/// What an open file has.
struct Open {
    database: Database,
    /// The folder is taken until no file of it can be written to any more; a
    /// flusher may outlive the engine's last handle by a moment. Behind the
    /// database, so that it is dropped after it.
    _folder: Arc<dyn FolderLock>,
}

struct Residents {
    view: Arc<FileView>,
    ranges: BTreeMap<u64, Arc<Range>>,
    /// Set aside by a drop, until their data is removed.
    dropping: bool,
}

impl fmt::Debug for EngineFile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("EngineFile").field(&self.name).finish()
    }
}

impl EngineFile {
    fn new(
        name: Arc<str>,
        counts: Arc<PageCounts>,
        database: Database,
        folder: Arc<dyn FolderLock>,
    ) -> Result<Self, EngineError> {
        let view = Arc::new(FileView::new(&database.begin_read()?)?);
        let dropping = !view.ranges(MetaKind::Dropping)?.is_empty();
        Ok(Self {
            name,
            counts,
            bell: Doorbell::new(),
            open: Mutex::new(Some(Open {
                database,
                _folder: folder,
            })),
            residents: Mutex::new(Residents {
                view,
                ranges: BTreeMap::new(),
                dropping,
            }),
            frozen: Mutex::new(BTreeSet::new()),
        })
    }

    /// Tells the flusher that `range` froze something.
    pub(super) fn wake(&self, range: u64) {
        self.frozen.lock().insert(range);
        self.bell.ring();
    }

    /// The newest committed state.
    pub(super) fn view(&self) -> Arc<FileView> {
        self.residents.lock().view.clone()
    }

    pub(super) fn ranges(&self) -> Vec<Arc<Range>> {
        self.residents.lock().ranges.values().cloned().collect()
    }

    /// The range, which `make` builds from the open ranges and the newest view
    /// if it is not open yet.
    pub(super) fn range_or(
        &self,
        id: u64,
        make: impl FnOnce(&BTreeMap<u64, Arc<Range>>, Arc<FileView>) -> Result<Range, EngineError>,
    ) -> Result<Arc<Range>, EngineError> {
        let mut residents = self.residents.lock();
        if let Some(range) = residents.ranges.get(&id) {
            return Ok(range.clone());
        }
        let range = Arc::new(make(&residents.ranges, residents.view.clone())?);
        residents.ranges.insert(id, range.clone());
        Ok(range)
    }

    pub(super) fn remove_range(&self, id: u64) -> Option<Arc<Range>> {
        let mut residents = self.residents.lock();
        residents.dropping = true;
        residents.ranges.remove(&id)
    }

    pub(super) fn has_dropping(&self) -> bool {
        self.residents.lock().dropping
    }

    pub(super) fn set_none_dropping(&self) {
        self.residents.lock().dropping = false;
    }

    /// Takes the ranges that froze something since the last call.
    pub(super) fn take_frozen(&self) -> Vec<Arc<Range>> {
        let frozen = std::mem::take(&mut *self.frozen.lock());
        let residents = self.residents.lock();
        frozen
            .iter()
            .filter_map(|id| residents.ranges.get(id).cloned())
            .collect()
    }

    /// Waits for other writers and begins to write.
    pub(super) fn writer(&self) -> Result<Writer<'_>, EngineError> {
        let open = self.open.lock();
        if open.is_none() {
            return Err(EngineError::Closed);
        }
        Ok(Writer { file: self, open })
    }

    /// Closes the file cleanly; reads that go on get [`EngineError::Closed`].
    pub(super) fn close(&self) -> Result<(), EngineError> {
        let Some(open) = self.open.lock().take() else {
            return Ok(());
        };
        // It commits, which panics where a page is not what it should be.
        let closed = catch_unwind(AssertUnwindSafe(|| open.database.close()));
        Ok(closed.map_err(|_| EngineError::Panicked)??)
    }
}

/// The right to write to a file.
pub(super) struct Writer<'a> {
    file: &'a EngineFile,
    open: MutexGuard<'a, Option<Open>>,
}

impl Writer<'_> {
    fn database(&self) -> &Database {
        let open = self.open.as_ref();
        &open
            .expect("a writer is only made of an open file")
            .database
    }

    /// A transaction that is durable once committed, and needs no repair
    /// after a crash (which would read the whole file).
    pub(super) fn begin(&self) -> Result<WriteTransaction, EngineError> {
        begin_durable(self.database())
    }

    /// Commits, and shows the new state to all ranges of the file: to those
    /// with a job in one step with the end of their frozen tables. Returns the
    /// bytes of memory that are free now.
    pub(super) fn commit(
        &self,
        transaction: WriteTransaction,
        jobs: &[FlushJob],
    ) -> Result<usize, EngineError> {
        let view = self.commit_apart(transaction)?;
        Ok(self.show(&view, jobs, None))
    }

    /// Commits without showing the new state to anybody yet.
    pub(super) fn commit_apart(
        &self,
        transaction: WriteTransaction,
    ) -> Result<Arc<FileView>, EngineError> {
        transaction.commit()?;
        Ok(Arc::new(FileView::new(&self.database().begin_read()?)?))
    }

    /// Shows a new state to all ranges of the file, but `except`.
    pub(super) fn show(
        &self,
        view: &Arc<FileView>,
        jobs: &[FlushJob],
        except: Option<u64>,
    ) -> usize {
        let mut residents = self.file.residents.lock();
        let old_view = std::mem::replace(&mut residents.view, view.clone());
        let mut freed = 0;
        for (id, range) in &residents.ranges {
            if Some(*id) != except {
                let job = jobs.iter().find(|job| job.range.id == *id);
                freed += range.install(view.clone(), job);
            }
        }
        drop(residents);
        drop(old_view);
        freed
    }
}

fn begin_durable(database: &Database) -> Result<WriteTransaction, EngineError> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(redb::Durability::Immediate)?;
    transaction.set_quick_repair(true);
    Ok(transaction)
}

/// Name of file `number`.
fn file_name(number: u32) -> String {
    format!("engine-{number}.redb")
}

/// Opens all files of a folder, creating them where the folder is new.
/// Their number is taken from `options` only then; afterwards the first file
/// tells.
pub(super) fn open_all(
    disk: &dyn Disk,
    dir: &Path,
    options: &EngineOptions,
    folder: &Arc<dyn FolderLock>,
) -> Result<Vec<Arc<EngineFile>>, EngineError> {
    let first = dir.join(file_name(0));
    let is_new = !disk
        .exists(&first)
        .map_err(EngineError::io("looked for its files"))?;
    let mut opener = Opener {
        disk,
        dir,
        folder,
        files: options.files.max(1),
        cache_bytes: 0,
    };
    if !is_new {
        opener.files = opener.stored_file_count(&first)?;
    }
    let files = opener.files;
    opener.cache_bytes = options.cache_bytes / files as usize;
    // The first file comes last: as long as it is missing, the folder is new.
    let mut opened: Vec<_> = (0..files)
        .rev()
        .map(|number| opener.open(number, is_new))
        .collect::<Result<_, _>>()?;
    opened.reverse();
    Ok(opened)
}

struct Opener<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    folder: &'a Arc<dyn FolderLock>,
    files: u32,
    cache_bytes: usize,
}

impl Opener<'_> {
    fn open(&self, number: u32, may_create: bool) -> Result<Arc<EngineFile>, EngineError> {
        let path = self.dir.join(file_name(number));
        let exists = self
            .disk
            .exists(&path)
            .map_err(EngineError::io("looked for its files"))?;
        if !exists {
            if !may_create {
                let what = format!("{} is missing", file_name(number));
                return Err(EngineError::Folder { what });
            }
            self.create(number, &path)?;
        }
        let (file, record) = self.open_file(&path)?;
        if record
            != (FileRecord {
                files: self.files,
                number,
            })
        {
            let what = format!("{} belongs to another folder", file_name(number));
            return Err(EngineError::Folder { what });
        }
        if exists && may_create && !file.view().ranges(MetaKind::Range)?.is_empty() {
            let what = format!("{} is missing", file_name(0));
            return Err(EngineError::Folder { what });
        }
        Ok(Arc::new(file))
    }

    /// Creates a file under another name, so that it is whole when it gets its
    /// own: redb does not open a file whose creation a power cut interrupted.
    fn create(&self, number: u32, path: &Path) -> Result<(), EngineError> {
        let unfinished = PathBuf::from(format!("{}.new", path.display()));
        let disk = self.disk;
        let file = disk
            .open(&unfinished, OpenMode::OpenOrCreate)
            .and_then(|file| file.set_len(0).map(|()| file))
            .map_err(EngineError::io("created a file"))?;
        let pages = Pages::new(file, file_name(number).into(), Arc::default());
        let database = redb::Builder::new()
            .set_cache_size(self.cache_bytes)
            .create_with_backend(pages)?;
        let transaction = begin_durable(&database)?;
        transaction.open_table(CURRENT)?;
        transaction.open_table(HISTORY)?;
        let record = FileRecord {
            files: self.files,
            number,
        };
        transaction
            .open_table(META)?
            .insert(file_record_name().as_slice(), record.encode().as_slice())?;
        transaction.commit()?;
        database.close()?;
        disk.rename(&unfinished, path)
            .and_then(|()| disk.sync_dir(self.dir))
            .map_err(EngineError::io("named a new file"))
    }

    /// How many files the folder of this one has.
    fn stored_file_count(&self, path: &Path) -> Result<u32, EngineError> {
        let (file, record) = self.open_file(path)?;
        match file.close() {
            Ok(()) => Ok(record.files.max(1)),
            // Nothing has been asked of it yet: it is as it was found.
            Err(EngineError::Panicked) => Err(damaged(&file.name)),
            Err(error) => Err(error),
        }
    }

    /// Checksums keep flipped bits away from redb; a file that was cut short, or of whose blocks
    /// some are older than others, still makes it panic.
    fn open_file(&self, path: &Path) -> Result<(EngineFile, FileRecord), EngineError> {
        let name: Arc<str> = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into();
        let opened = catch_unwind(AssertUnwindSafe(|| self.try_open_file(path, &name)));
        opened.unwrap_or_else(|_| Err(damaged(&name)))
    }

    fn try_open_file(
        &self,
        path: &Path,
        name: &Arc<str>,
    ) -> Result<(EngineFile, FileRecord), EngineError> {
        let file = self
            .disk
            .open(path, OpenMode::Existing)
            .map_err(EngineError::io("opened a file"))?;
        let version =
            pages::layout_version(file.as_ref()).map_err(EngineError::io("opened a file"))?;
        match version {
            Some(pages::LAYOUT_VERSION) => {}
            Some(found) => {
                let known = pages::LAYOUT_VERSION;
                return Err(EngineError::Version {
                    what: "an engine file",
                    found,
                    known,
                });
            }
            None => return Err(damaged(name)),
        }
        let counts = Arc::new(PageCounts::default());
        let pages = Pages::new(file, name.clone(), counts.clone());
        let database = redb::Builder::new()
            .set_cache_size(self.cache_bytes)
            .create_with_backend(pages)?;
        let file = EngineFile::new(name.clone(), counts, database, self.folder.clone())?;
        let stored = file.view().meta.get(file_record_name().as_slice())?;
        let record = stored
            .as_ref()
            .map(|stored| FileRecord::decode(stored.value()));
        let record = record.ok_or_else(|| damaged(name))??;
        Ok((file, record))
    }
}

/// A file in which no block can be named that is wrong.
fn damaged(name: &Arc<str>) -> EngineError {
    EngineError::Damaged {
        file: name.clone(),
        block: 0,
    }
}

/// A file's own record: which file it is, of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileRecord {
    files: u32,
    number: u32,
}

impl FileRecord {
    fn encode(self) -> Vec<u8> {
        let numbers = [self.files.to_le_bytes(), self.number.to_le_bytes()];
        record::seal_bytes(&file_record_name(), numbers.as_flattened())
    }

    fn decode(stored: &[u8]) -> Result<Self, EngineError> {
        let name = file_record_name();
        let bytes = record::open_bytes(&name, stored)?;
        let (files, rest) = bytes
            .split_first_chunk()
            .ok_or_else(|| EngineError::corrupt(&name, "too short"))?;
        let number = rest
            .first_chunk()
            .ok_or_else(|| EngineError::corrupt(&name, "too short"))?;
        Ok(Self {
            files: u32::from_le_bytes(*files),
            number: u32::from_le_bytes(*number),
        })
    }
}

fn file_record_name() -> Vec<u8> {
    meta_name(FILE_RECORD_RANGE, MetaKind::File, &[])
}
