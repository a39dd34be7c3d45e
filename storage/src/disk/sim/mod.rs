//! A disk in memory that can fail in every way a real one does, by plan and
//! by seed: lose, tear and reorder what was not synced, return errors, flip
//! bits, lie about syncs, take its time.
//!
//! Always compiled, since the tests of other parts stand on it. It is no
//! place to keep anything.

mod content;
mod dice;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};

use self::content::{Content, Folder, SECTOR_BYTES};
pub use self::dice::Dice;
use super::worker::{spawn_task, spawn_thread};
use super::{Disk, DiskFile, Doorbell, FolderLock, OpenMode, Worker, WorkerHandle};

thread_local! {
    /// Time that the disk work on this thread should have taken, and that
    /// nobody has slept yet.
    static UNSLEPT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// An operation that a [`Fault`] can strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Opening or creating a file.
    Open,
    /// Reading from a file.
    Read,
    /// Writing to a file; of the data up to half is written, in whole sectors.
    Write,
    /// Changing a file's length.
    SetLen,
    /// Syncing a file; nothing becomes durable.
    Sync,
    /// Renaming or removing a file.
    Name,
    /// Syncing a folder.
    SyncDir,
}

/// What a struck operation returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultError {
    /// `EIO`.
    Broken,
    /// `ENOSPC`.
    Full,
}

impl FaultError {
    fn to_io(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::Broken => 5,
            Self::Full => 28,
        })
    }
}

/// A planned failure.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which operations it strikes.
    pub operation: Operation,
    /// Only on files and folders whose path contains this.
    pub path_contains: String,
    /// After so many of them went well.
    pub after: u64,
    /// So often; [`u64::MAX`] is for ever.
    pub times: u64,
    /// With this error.
    pub error: FaultError,
}

/// What the simulated disk has done so far, over all power cuts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimCounts {
    /// Bytes handed to writes.
    pub bytes_written: u64,
    /// Syncs of files that returned without error.
    pub syncs: u64,
    /// Operations that change anything, syncs included.
    pub operations: u64,
}

/// A disk in memory. Cloning gives another handle of the same disk; all
/// handles, and the files opened through them, are dead after a power cut.
#[derive(Clone, Debug)]
pub struct SimDisk {
    shared: Arc<Mutex<State>>,
    generation: u64,
}

#[derive(Debug, Default)]
struct State {
    generation: u64,
    powered_off: bool,
    operations_until_cut: Option<u64>,
    folders: BTreeMap<PathBuf, Folder>,
    files: BTreeMap<u64, Content>,
    last_file: u64,
    locks: BTreeSet<PathBuf>,
    faults: Vec<Fault>,
    lies_about_sync: bool,
    /// So many syncs of files say the truth until one lies.
    lie_after: Option<u64>,
    misdirection: Option<Misdirection>,
    /// A write has gone astray: the power fails before its file is synced.
    astray: Option<u64>,
    /// What a power cut leaves, whatever was synced since.
    held: Option<Held>,
    sync_latency: Duration,
    elapsed: Duration,
    counts: SimCounts,
    digest: u64,
}

/// A write that is to go to another place.
#[derive(Clone, Debug)]
struct Misdirection {
    path_contains: String,
    after: u64,
    sectors: u64,
}

/// Folders and files as they were seen at one moment.
#[derive(Clone, Debug)]
struct Held {
    folders: BTreeMap<PathBuf, Folder>,
    files: BTreeMap<u64, Content>,
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self {
            shared: Arc::default(),
            generation: 0,
        }
    }

    /// Cuts the power and gives it back: unsynced bytes and names are lost,
    /// kept or mixed (torn at 512-byte borders, reordered) as `seed` decides.
    /// Only the returned handle works afterwards. Planned faults are gone.
    #[must_use = "the old handle is dead"]
    pub fn power_cut(&self, seed: u64) -> Self {
        let mut state = self.shared.lock();
        let mut dice = Dice::new(seed);
        if let Some(held) = state.held.take() {
            state.folders = held.folders;
            state.files = held.files;
        }
        for folder in state.folders.values_mut() {
            folder.cut(&mut dice);
        }
        let named: BTreeSet<u64> = state
            .folders
            .values()
            .flat_map(|folder| folder.names().values().copied())
            .collect();
        state.files.retain(|number, _| named.contains(number));
        for content in state.files.values_mut() {
            content.cut(&mut dice);
        }
        state.locks.clear();
        state.faults.clear();
        state.operations_until_cut = None;
        state.misdirection = None;
        state.astray = None;
        state.powered_off = false;
        state.generation += 1;
        Self {
            shared: Arc::clone(&self.shared),
            generation: state.generation,
        }
    }

    /// Kills the process that uses the disk: its handles and locks are gone,
    /// but what it wrote is there, and still not durable if it was not synced.
    /// Only the returned handle works afterwards. Planned faults are gone.
    #[must_use = "the old handle is dead"]
    pub fn process_kill(&self) -> Self {
        let mut state = self.shared.lock();
        state.locks.clear();
        state.faults.clear();
        state.operations_until_cut = None;
        state.generation += 1;
        Self {
            shared: Arc::clone(&self.shared),
            generation: state.generation,
        }
    }

    /// Lets the power fail in the midst of the operation that comes after
    /// `operations` more changing ones; from then on everything fails until
    /// [`SimDisk::power_cut`] gives the power back.
    pub fn fail_power_after(&self, operations: u64) {
        self.shared.lock().operations_until_cut = Some(operations);
    }

    /// Whether the power has failed by [`SimDisk::fail_power_after`].
    pub fn is_powered_off(&self) -> bool {
        self.shared.lock().powered_off
    }

    /// Plans a failure.
    pub fn inject(&self, fault: Fault) {
        self.shared.lock().faults.push(fault);
    }

    /// Whether failures are planned.
    pub fn has_faults(&self) -> bool {
        !self.shared.lock().faults.is_empty()
    }

    /// Forgets all planned failures, of the power too.
    pub fn clear_faults(&self) {
        let mut state = self.shared.lock();
        state.faults.clear();
        state.operations_until_cut = None;
        state.misdirection = None;
        state.astray = None;
    }

    /// From now on syncs succeed without making anything durable, or do their
    /// duty again. The negative control of every durability test.
    pub fn lie_about_sync(&self, lie: bool) {
        self.shared.lock().lies_about_sync = lie;
    }

    /// The sync of a file that comes after so many more succeeds and makes nothing durable; nor does
    /// any later one, as where a system takes pages for clean whose writing failed.
    pub fn lie_once_after(&self, syncs: u64) {
        self.shared.lock().lie_after = Some(syncs);
    }

    /// Up to now the disk keeps everything; what comes is in its cache alone, whatever its syncs
    /// say, and lost as a whole by the next power cut. As with a cache that ignores syncs but
    /// writes back in order, nothing in the files shows that there was more.
    pub fn hold_back_from_now(&self) {
        let mut state = self.shared.lock();
        let mut held = Held {
            folders: state.folders.clone(),
            files: state.files.clone(),
        };
        held.folders.values_mut().for_each(Folder::sync);
        held.files.values_mut().for_each(Content::sync);
        state.held = Some(held);
    }

    /// Of files whose path contains this, the write that comes after so many more goes so many
    /// sectors further on than it should, and the power fails before it is synced: the sync of
    /// that file is the operation that does not come to be.
    pub fn misdirect_after(&self, path_contains: &str, writes: u64, sectors: u64) {
        self.shared.lock().misdirection = Some(Misdirection {
            path_contains: path_contains.to_owned(),
            after: writes,
            sectors,
        });
    }

    /// How long a file's sync takes a worker, slept on tokio's clock.
    pub fn set_sync_latency(&self, latency: Duration) {
        self.shared.lock().sync_latency = latency;
    }

    /// Flips one bit of a file, durably.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        let mut state = self.shared.lock();
        let number = state.find(path)?;
        state.content(number)?.flip_bit(position(offset)?, bit);
        Ok(())
    }

    /// What was done so far.
    pub fn counts(&self) -> SimCounts {
        self.shared.lock().counts
    }

    /// A hash of all changes so far, in their order: of what was written where, and of syncs.
    pub fn digest(&self) -> u64 {
        self.shared.lock().digest
    }

    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.shared.lock();
        state.check_power(self.generation)?;
        Ok(state)
    }

    fn change(&self, operation: Operation, path: &Path) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state()?;
        state.strike(operation, path)?;
        state.spend_operation()?;
        Ok(state)
    }
}

impl State {
    fn check_power(&self, generation: u64) -> io::Result<()> {
        if self.powered_off || self.generation != generation {
            return Err(no_power());
        }
        Ok(())
    }

    /// Takes a number into the hash of all changes (the multiplier is that of FNV-1a, 64 bits).
    fn digest(&mut self, number: u64) {
        let mixed = (self.digest ^ number).wrapping_mul(0x0000_0100_0000_01b3);
        self.digest = mixed.rotate_left(29);
    }

    /// Counts an operation; fails if the power fails with it.
    fn spend_operation(&mut self) -> io::Result<()> {
        self.counts.operations += 1;
        self.digest(self.counts.operations);
        match &mut self.operations_until_cut {
            Some(0) => {
                self.powered_off = true;
                Err(no_power())
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Fails if a planned fault strikes.
    fn strike(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        let path = path.to_string_lossy();
        for fault in &mut self.faults {
            if fault.operation != operation || !path.contains(&fault.path_contains) {
                continue;
            }
            if fault.after > 0 {
                fault.after -= 1;
            } else if fault.times > 0 {
                fault.times = if fault.times == u64::MAX {
                    u64::MAX
                } else {
                    fault.times - 1
                };
                return Err(fault.error.to_io());
            }
        }
        Ok(())
    }

    /// Fails if a planned fault strikes an open file, by the name that it has
    /// now; one that has none any more keeps its last.
    fn strike_file(&mut self, operation: Operation, file: &SimFile) -> io::Result<()> {
        if self.faults.is_empty() {
            return Ok(());
        }
        let (dir, _) = split(&file.path)?;
        let names = self.folder(dir)?.names();
        let name = names.iter().find(|(_, number)| **number == file.number);
        let path = name.map_or_else(|| file.path.clone(), |(name, _)| dir.join(name));
        self.strike(operation, &path)
    }

    /// Counts a sync of a file; answers whether it is the one that lies.
    fn loses_a_sync(&mut self) -> bool {
        match self.lie_after {
            Some(0) => self.lie_after.take().is_some(),
            Some(left) => {
                self.lie_after = Some(left - 1);
                false
            }
            None => false,
        }
    }

    /// Where a write goes that should go to `start` of a file.
    fn place_of(&mut self, path: &Path, file: u64, start: usize) -> usize {
        let is_there = |m: &&mut Misdirection| path.to_string_lossy().contains(&m.path_contains);
        match self.misdirection.as_mut().filter(is_there) {
            Some(Misdirection {
                after: 0, sectors, ..
            }) => {
                let further = usize::try_from(*sectors).unwrap_or(1) * SECTOR_BYTES;
                self.misdirection = None;
                self.astray = Some(file);
                start + further
            }
            Some(misdirection) => {
                misdirection.after -= 1;
                start
            }
            None => start,
        }
    }

    fn folder(&mut self, dir: &Path) -> io::Result<&mut Folder> {
        self.folders.get_mut(dir).ok_or_else(not_found)
    }

    fn content(&mut self, file: u64) -> io::Result<&mut Content> {
        self.files.get_mut(&file).ok_or_else(no_power)
    }

    fn find(&mut self, path: &Path) -> io::Result<u64> {
        let (dir, name) = split(path)?;
        self.folder(dir)?
            .names()
            .get(name)
            .copied()
            .ok_or_else(not_found)
    }

    fn create(&mut self, dir: &Path, name: &str) -> io::Result<u64> {
        self.spend_operation()?;
        self.last_file += 1;
        let number = self.last_file;
        self.folder(dir)?.link(name, number);
        self.files.insert(number, Content::default());
        Ok(number)
    }
}

impl Disk for SimDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state()?;
        for ancestor in dir.ancestors() {
            state.folders.entry(ancestor.to_owned()).or_default();
        }
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state()?;
        state.strike(Operation::Open, path)?;
        let (dir, name) = split(path)?;
        let found = state.folder(dir)?.names().get(name).copied();
        let number = match (found, mode) {
            (Some(_), OpenMode::CreateNew) => {
                return Err(io::Error::from(io::ErrorKind::AlreadyExists));
            }
            (Some(number), _) => number,
            (None, OpenMode::CreateNew | OpenMode::OpenOrCreate) => state.create(dir, name)?,
            (None, OpenMode::Existing | OpenMode::ReadOnly) => return Err(not_found()),
        };
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            path: path.to_owned(),
            number,
            read_only: mode == OpenMode::ReadOnly,
        }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        Ok(self.state()?.folder(dir)?.names().keys().cloned().collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.change(Operation::Name, from)?;
        let (dir, from_name) = split(from)?;
        let (to_dir, to_name) = split(to)?;
        if dir != to_dir {
            return Err(io::Error::from(io::ErrorKind::CrossesDevices));
        }
        state.find(from)?;
        state.folder(dir)?.rename(from_name, to_name);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.change(Operation::Name, path)?;
        let (dir, name) = split(path)?;
        state.find(path)?;
        state.folder(dir)?.unlink(name);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.change(Operation::SyncDir, dir)?;
        let lies = state.lies_about_sync;
        let folder = state.folder(dir)?;
        if !lies {
            folder.sync();
        }
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let mut state = self.state()?;
        Ok(state.folders.contains_key(path) || state.find(path).is_ok())
    }

    fn lock_folder(&self, dir: &Path) -> io::Result<Box<dyn FolderLock>> {
        let mut state = self.state()?;
        state.folder(dir)?;
        if !state.locks.insert(dir.to_owned()) {
            return Err(io::Error::from(io::ErrorKind::WouldBlock));
        }
        Ok(Box::new(SimLock {
            disk: self.clone(),
            dir: dir.to_owned(),
        }))
    }

    fn spawn(
        &self,
        name: &str,
        bell: Doorbell,
        worker: Box<dyn Worker>,
    ) -> io::Result<WorkerHandle> {
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => Ok(spawn_task(&runtime, bell, worker, || UNSLEPT.take())),
            Err(_) => spawn_thread(name, bell, worker),
        }
    }

    /// The time that all syncs so far have taken together.
    fn elapsed(&self) -> Duration {
        self.shared.lock().elapsed
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    dir: PathBuf,
}

impl FolderLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        // After a power cut the lock is gone already, and may be another's.
        if let Ok(mut state) = self.disk.state() {
            state.locks.remove(&self.dir);
        }
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    number: u64,
    read_only: bool,
}

impl SimFile {
    fn content(&self) -> io::Result<MappedMutexGuard<'_, Content>> {
        let state = self.disk.state()?;
        MutexGuard::try_map(state, |state| state.files.get_mut(&self.number))
            .map_err(|_| no_power())
    }

    fn check_writable(&self) -> io::Result<()> {
        match self.read_only {
            true => Err(io::Error::from(io::ErrorKind::PermissionDenied)),
            false => Ok(()),
        }
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content()?.live().len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.state()?.strike_file(Operation::Read, self)?;
        let start = position(offset)?;
        let content = self.content()?;
        let end = start.checked_add(buffer.len());
        let found = end.and_then(|end| content.live().get(start..end));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.disk.state()?;
        let start = position(offset)?;
        if let Err(error) = state.strike_file(Operation::Write, self) {
            // As much as a sector (512 bytes) is written whole or not at all.
            let end = (start + data.len() / 2) / SECTOR_BYTES * SECTOR_BYTES;
            let written = &data[..end.saturating_sub(start)];
            state.content(self.number)?.write(start, written);
            return Err(error);
        }
        // A write in whose midst the power fails may have reached the disk.
        let spent = state.spend_operation();
        state.counts.bytes_written += data.len() as u64;
        let (place, sum) = (self.number << 40 ^ offset, crc32fast::hash(data));
        state.digest(place);
        state.digest(u64::from(sum));
        let start = state.place_of(&self.path, self.number, start);
        state.content(self.number)?.write(start, data);
        spent
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.disk.state()?;
        state.strike_file(Operation::SetLen, self)?;
        state.spend_operation()?;
        state.content(self.number)?.set_len(position(len)?);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state()?;
        state.strike_file(Operation::Sync, self)?;
        state.spend_operation()?;
        if state.astray == Some(self.number) {
            state.powered_off = true;
            return Err(no_power());
        }
        let lies = state.lies_about_sync;
        let loses = state.loses_a_sync();
        let content = state.content(self.number)?;
        match (loses, lies) {
            (true, _) => content.lose_unsynced(),
            (false, true) => {}
            (false, false) => content.sync(),
        }
        state.counts.syncs += 1;
        let latency = state.sync_latency;
        state.elapsed += latency;
        UNSLEPT.set(UNSLEPT.get() + latency);
        Ok(())
    }
}

fn split(path: &Path) -> io::Result<(&Path, &str)> {
    let name = path.file_name().and_then(|name| name.to_str());
    path.parent()
        .zip(name)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

fn position(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))
}

fn not_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

fn no_power() -> io::Error {
    io::Error::other("the simulated disk has no power")
}
