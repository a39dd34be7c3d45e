//! Where an import reads from: a folder's files, or a file's lines, one after the other, in
//! a thread of its own.
//!
//! Memory is bounded by bytes: nothing is read before its share of the budget is free.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use quorate_types::limits::VALUE_MAX_BYTES_CAP;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use walkdir::{DirEntry, WalkDir};

use super::error::TransferError;
use super::{jsonl, path};

/// Bytes of values that an import holds in memory.
const IMPORT_BUDGET_BYTES: usize = 64 << 20;
/// The budget is counted in this many bytes, so that a count fits the semaphore.
const BUDGET_UNIT_BYTES: usize = 1024;
/// Items read ahead of their being sent.
const ITEMS_AHEAD_MAX: usize = 256;

/// What to import.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// A folder or a `.jsonl` file.
    pub path: PathBuf,
    /// Goes in front of each key.
    pub prefix: Bytes,
    /// Import what symbolic links point to, instead of passing them over.
    pub follow_links: bool,
}

/// What is passed over, since it is no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SkipKind {
    /// A symbolic link.
    SymbolicLink,
    /// A socket, pipe or device.
    SpecialFile,
    /// A folder without anything in it: folders are no keys.
    EmptyFolder,
}

impl SkipKind {
    /// For people, one of them.
    pub const fn singular(self) -> &'static str {
        match self {
            Self::SymbolicLink => "symbolic link",
            Self::SpecialFile => "special file",
            Self::EmptyFolder => "empty folder",
        }
    }

    /// For people, as many of them.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::SymbolicLink => "symbolic links",
            Self::SpecialFile => "special files",
            Self::EmptyFolder => "empty folders",
        }
    }
}

/// One key to import, and its share of the memory budget.
#[derive(Debug)]
pub(super) struct Item {
    pub key: Bytes,
    pub value: Bytes,
    pub name: String,
    pub share: OwnedSemaphorePermit,
}

/// What the reading thread came across.
#[derive(Debug)]
pub(super) enum Found {
    Item(Item),
    Skipped { kind: SkipKind, name: String },
    Failed { name: String, problem: String },
}

/// How many files a folder has, or lines a file; none if it cannot be told.
pub fn count_items(options: &ImportOptions) -> Option<u64> {
    if options.path.is_dir() {
        let files = walk(options)
            .into_iter()
            .filter(|entry| entry.as_ref().is_ok_and(|it| it.file_type().is_file()));
        return Some(files.count() as u64);
    }
    let mut reader = BufReader::new(File::open(&options.path).ok()?);
    let mut lines = 0;
    while let Ok(Some(_)) = jsonl::read_line(&mut reader) {
        lines += 1;
    }
    Some(lines)
}

/// Starts reading.
///
/// # Errors
///
/// [`TransferError`] if the path is not there, or nothing that can be imported.
pub(super) fn open(options: ImportOptions) -> Result<mpsc::Receiver<Found>, TransferError> {
    let metadata = std::fs::metadata(&options.path)
        .map_err(|error| TransferError::file("import", &options.path, error))?;
    let is_lines = metadata.is_file() && options.path.extension().is_some_and(|it| it == "jsonl");
    if !metadata.is_dir() && !is_lines {
        return Err(TransferError::NotImportable { path: options.path });
    }
    let lines = match is_lines {
        true => Some(
            File::open(&options.path)
                .map_err(|error| TransferError::file("open", &options.path, error))?,
        ),
        false => None,
    };
    let (sender, receiver) = mpsc::channel(ITEMS_AHEAD_MAX);
    let reading = Reading {
        sender,
        budget: Arc::new(Semaphore::new(IMPORT_BUDGET_BYTES / BUDGET_UNIT_BYTES)),
        runtime: Handle::current(),
    };
    tokio::task::spawn_blocking(move || {
        // None: the import ended before the input did, which is no error here.
        let _ended_early = match lines {
            Some(file) => reading.lines(&options, file),
            None => reading.folder(&options),
        };
    });
    Ok(receiver)
}

fn walk(options: &ImportOptions) -> WalkDir {
    WalkDir::new(&options.path)
        .follow_links(options.follow_links)
        .sort_by_file_name()
}

struct Reading {
    sender: mpsc::Sender<Found>,
    budget: Arc<Semaphore>,
    runtime: Handle,
}

impl Reading {
    fn tell(&self, found: Found) -> Option<()> {
        self.sender.blocking_send(found).ok()
    }

    fn fail(&self, name: String, problem: impl ToString) -> Option<()> {
        let problem = problem.to_string();
        self.tell(Found::Failed { name, problem })
    }

    /// Waits until so many bytes may be held.
    fn share(&self, size_bytes: u64) -> Option<OwnedSemaphorePermit> {
        let size_bytes = usize::try_from(size_bytes).unwrap_or(usize::MAX);
        let units = size_bytes.min(VALUE_MAX_BYTES_CAP) / BUDGET_UNIT_BYTES + 1;
        let units = u32::try_from(units).expect("the largest value has fewer units than 32 bits");
        let budget = Arc::clone(&self.budget);
        self.runtime.block_on(async {
            tokio::select! {
                share = budget.acquire_many_owned(units) => share.ok(),
                () = self.sender.closed() => None,
            }
        })
    }

    fn folder(&self, options: &ImportOptions) -> Option<()> {
        let mut bare: Option<(String, usize)> = None;
        for entry in walk(options) {
            let depth = match &entry {
                Ok(entry) => entry.depth(),
                Err(error) => error.depth(),
            };
            // A folder with nothing deeper after it has nothing in it.
            if let Some((name, folder_depth)) = bare.take()
                && depth <= folder_depth
            {
                self.skip(SkipKind::EmptyFolder, name)?;
            }
            match entry {
                Err(error) => self.walk_error(options, &error)?,
                Ok(entry) if entry.file_type().is_dir() => {
                    bare = Some((relative_name(options, entry.path()), depth));
                }
                Ok(entry) => self.entry(options, &entry)?,
            }
        }
        match bare {
            Some((name, _)) => self.skip(SkipKind::EmptyFolder, name),
            None => Some(()),
        }
    }

    fn skip(&self, kind: SkipKind, name: String) -> Option<()> {
        self.tell(Found::Skipped { kind, name })
    }

    fn walk_error(&self, options: &ImportOptions, error: &walkdir::Error) -> Option<()> {
        let name = error.path().map_or_else(
            || options.path.display().to_string(),
            |path| relative_name(options, path),
        );
        match error.io_error() {
            Some(cause) => self.fail(name, cause),
            None => self.fail(name, "a symbolic link leads back to a folder above it"),
        }
    }

    fn entry(&self, options: &ImportOptions, entry: &DirEntry) -> Option<()> {
        let name = relative_name(options, entry.path());
        if entry.file_type().is_symlink() {
            return self.skip(SkipKind::SymbolicLink, name);
        }
        if !entry.file_type().is_file() {
            return self.skip(SkipKind::SpecialFile, name);
        }
        let relative = entry.path().strip_prefix(&options.path).ok();
        let Some(key) = relative.and_then(|it| path::key_of(&options.prefix, it)) else {
            return self.fail(name, "its path is no plain relative path");
        };
        let size_bytes = match entry.metadata() {
            Ok(metadata) => metadata.len(),
            Err(error) => return self.fail(name, error),
        };
        if size_bytes > VALUE_MAX_BYTES_CAP as u64 {
            return self.fail(name, too_long(size_bytes));
        }
        let share = self.share(size_bytes)?;
        match read_value(entry.path()) {
            Err(problem) => self.fail(name, problem),
            Ok(value) => self.tell(Found::Item(Item {
                key,
                value,
                name,
                share,
            })),
        }
    }

    fn lines(&self, options: &ImportOptions, file: File) -> Option<()> {
        let mut reader = BufReader::new(file);
        let mut seen: HashSet<Bytes> = HashSet::new();
        for number in 1u64.. {
            let name = format!("{} line {number}", options.path.display());
            let jsonl::Line { text, taken_bytes } = match jsonl::read_line(&mut reader) {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(error) => return self.fail(name, error),
            };
            let line = match text {
                Ok(line) if line.trim_ascii().is_empty() => continue,
                other => other,
            };
            let share = self.share(taken_bytes)?;
            match line.and_then(|line| jsonl::parse(&line)) {
                Err(error) => self.fail(name, error)?,
                Ok((key, value)) => {
                    let key = prefixed(&options.prefix, key);
                    // Puts are in flight together: of two values for a key either could win.
                    if !seen.insert(key.clone()) {
                        let key = path::shown(&key);
                        self.fail(name, format!("key {key:?} stands in an earlier line too"))?;
                        continue;
                    }
                    self.tell(Found::Item(Item {
                        key,
                        value,
                        name,
                        share,
                    }))?;
                }
            }
        }
        Some(())
    }
}

fn prefixed(prefix: &[u8], key: Bytes) -> Bytes {
    if prefix.is_empty() {
        return key;
    }
    Bytes::from([prefix, &key].concat())
}

fn relative_name(options: &ImportOptions, path: &Path) -> String {
    let relative = path.strip_prefix(&options.path).unwrap_or(path);
    if relative.as_os_str().is_empty() {
        return options.path.display().to_string();
    }
    relative.display().to_string()
}

fn too_long(size_bytes: u64) -> String {
    format!("it has {size_bytes} bytes, and a value has at most {VALUE_MAX_BYTES_CAP}")
}

fn read_value(path: &Path) -> Result<Bytes, String> {
    let mut value = Vec::new();
    let limit_bytes = VALUE_MAX_BYTES_CAP as u64;
    File::open(path)
        .and_then(|file| file.take(limit_bytes + 1).read_to_end(&mut value))
        .map_err(|error| error.to_string())?;
    if value.len() as u64 > limit_bytes {
        return Err(too_long(value.len() as u64));
    }
    Ok(Bytes::from(value))
}
