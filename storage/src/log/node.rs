//! The node's log as its owner sees it: opening, groups, counts, closing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use tokio::sync::watch;

use super::commit::Committer;
use super::group::{Group, GroupLog, GroupState};
use super::queue::Queue;
use super::recover::Replay;
use super::room::Room;
use super::scan::{End, Position, walk};
use super::segment::{Folder, Segment, Segments};
use super::usage::LiveRecords;
use super::{Done, LogError, LogIdentity, LogOptions};
use crate::disk::{Disk, Doorbell, FolderLock, OpenMode, WorkerHandle};

/// A node's log, open. Cloning gives another handle of the same; when the
/// last one is gone, group handles included, the log closes by itself.
#[derive(Clone, Debug)]
pub struct NodeLog {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    worker: WorkerHandle,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("NodeLog")
            .field("stats", &self.shared.counts)
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

/// What the log's handles and its commit worker share.
pub(super) struct Shared {
    pub(super) options: LogOptions,
    pub(super) queue: Queue,
    pub(super) groups: RwLock<BTreeMap<u64, Arc<Group>>>,
    pub(super) segments: Segments,
    pub(super) failure: watch::Sender<Option<Arc<LogError>>>,
    pub(super) counts: Counts,
}

/// What was done since the log was opened.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) bytes_written: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) records: AtomicU64,
    pub(super) moved_records: AtomicU64,
}

impl Counts {
    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// A log's numbers since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Bytes of batches and seals, padding included; zeros of future segments
    /// are not.
    pub bytes_written: u64,
    /// Syncs of batches.
    pub syncs: u64,
    /// Batches written.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Those of them that moved what was alive in old segments.
    pub moved_records: u64,
    /// Segments there are now.
    pub segments: u64,
    /// Bytes that wait for their sync.
    pub queued_bytes: u64,
}

impl NodeLog {
    /// Opens the log in `dir`, or begins a new one where there is none.
    ///
    /// What was acknowledged before is there again. Fails without having
    /// changed anything if the log is in use, another's, of an unknown
    /// version, or damaged below its last acknowledged batch.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        identity: LogIdentity,
        options: LogOptions,
    ) -> Result<Self, LogError> {
        let options = options.bounded();
        disk.create_dir_all(dir)
            .map_err(LogError::disk("create the log's folder"))?;
        let lock = lock(disk.as_ref(), dir)?;
        let folder = Folder {
            disk: Arc::clone(&disk),
            path: dir.to_owned(),
        };
        let found = Recovered::read(&folder, &identity, &options)?;
        let segments = Segments::default();
        *segments.write() = found.segments;
        let room = Room::new(
            folder,
            identity,
            options.clone(),
            Arc::clone(&segments),
            found.active,
            found.spares,
        );
        let groups = found
            .groups
            .into_iter()
            .map(|(id, state)| (id, Arc::new(Group::new(id, state))));
        let bell = Doorbell::new();
        let shared = Arc::new(Shared {
            queue: Queue::new(bell.clone(), options.queue_bytes_max),
            groups: RwLock::new(groups.collect()),
            segments,
            failure: watch::Sender::new(None),
            counts: Counts::default(),
            options,
        });
        let mut committer = Committer::new(
            Arc::clone(&shared),
            Arc::clone(&disk),
            lock,
            room,
            found.live,
        );
        committer.begin(&found.end)?;
        let worker = disk
            .spawn("log-commit", bell, Box::new(committer))
            .map_err(LogError::disk("start the commit worker"))?;
        Ok(Self {
            inner: Arc::new(Inner { shared, worker }),
        })
    }

    /// The log of a group; empty if nothing was ever written to it.
    pub fn group(&self, group: u64) -> GroupLog {
        let known = self.inner.shared.groups.read().get(&group).cloned();
        let group = known.unwrap_or_else(|| {
            let mut groups = self.inner.shared.groups.write();
            let new = || Arc::new(Group::new(group, GroupState::default()));
            Arc::clone(groups.entry(group).or_insert_with(new))
        });
        GroupLog::new(self.clone(), group)
    }

    /// The groups that have anything, ascending.
    pub fn groups(&self) -> Vec<u64> {
        let groups = self.inner.shared.groups.read();
        groups
            .values()
            .filter(|group| !group.lock().is_empty())
            .map(|group| group.id)
            .collect()
    }

    /// Removes everything of a group; its handles show an empty one.
    pub fn remove_group(&self, group: u64, done: Done) {
        self.group(group).remove(done);
    }

    /// Waits until the queue is within [`LogOptions::queue_bytes_max`].
    ///
    /// Nothing that appends is refused for the queue's length, since a
    /// consensus core takes a refusal for a broken disk: who feeds the log
    /// waits here first.
    pub async fn ready(&self) {
        self.inner.shared.queue.ready().await;
    }

    /// The log's numbers.
    pub fn stats(&self) -> LogStats {
        let shared = &self.inner.shared;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogStats {
            bytes_written: get(&shared.counts.bytes_written),
            syncs: get(&shared.counts.syncs),
            batches: get(&shared.counts.batches),
            records: get(&shared.counts.records),
            moved_records: get(&shared.counts.moved_records),
            segments: shared.segments.read().len() as u64,
            queued_bytes: shared.queue.bytes(),
        }
    }

    /// Why the log takes nothing more, if so. Reads still work.
    pub fn failed(&self) -> Option<Arc<LogError>> {
        self.inner.shared.failure.borrow().clone()
    }

    /// Tells when the log fails.
    pub fn on_failure(&self) -> watch::Receiver<Option<Arc<LogError>>> {
        self.inner.shared.failure.subscribe()
    }

    /// Takes nothing more, writes what is queued, and waits until the folder
    /// is free.
    pub async fn close(&self) {
        self.inner.shared.queue.close();
        self.inner.worker.ended().await;
    }

    pub(super) fn options(&self) -> &LogOptions {
        &self.inner.shared.options
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.inner.shared.queue
    }

    pub(super) fn read_segment(
        &self,
        number: u64,
        offset: u64,
        len: u64,
    ) -> Result<Vec<u8>, LogError> {
        read_segment(&self.inner.shared.segments, number, offset, len)
    }
}

/// Reads bytes of a segment that is open.
pub(super) fn read_segment(
    segments: &Segments,
    number: u64,
    offset: u64,
    len: u64,
) -> Result<Vec<u8>, LogError> {
    let segment = segments.read().get(&number).cloned();
    let detail = "the segment is gone";
    let segment = segment.ok_or(LogError::Damaged {
        segment: number,
        offset,
        detail,
    })?;
    let mut bytes = vec![0; len as usize];
    segment
        .file
        .read_at(&mut bytes, offset)
        .map_err(LogError::disk("read a segment"))?;
    Ok(bytes)
}

fn lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn FolderLock>, LogError> {
    disk.lock_folder(dir).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => LogError::InUse,
        _ => LogError::Disk {
            action: "lock the log's folder",
            source: error,
        },
    })
}

/// What a folder holds.
struct Recovered {
    segments: BTreeMap<u64, Segment>,
    active: Segment,
    spares: Vec<u64>,
    groups: BTreeMap<u64, GroupState>,
    live: LiveRecords,
    end: End,
}

impl Recovered {
    fn read(
        folder: &Folder,
        identity: &LogIdentity,
        options: &LogOptions,
    ) -> Result<Self, LogError> {
        let listing = folder
            .list()
            .map_err(LogError::disk("list the log's folder"))?;
        let mut segments = open_segments(folder, &listing.segments, identity)?;
        if segments.is_empty() {
            segments.push(Room::begin(folder, identity, options)?);
        }
        let (mut replay, mut end) = (Replay::default(), End::default());
        walk(&segments, &mut replay, &mut end)?;
        let offset = u32::try_from(end.offset).expect("segments are at most 1 GiB");
        let (groups, live) = replay.finish(Position {
            segment: end.segment,
            offset,
        })?;
        let segments: BTreeMap<_, _> = segments
            .into_iter()
            .map(|segment| (segment.number, segment))
            .collect();
        let active = segments[&end.segment].clone();
        let spares = keep_spares(folder, listing.spares, options)?;
        Ok(Self {
            segments,
            active,
            spares,
            groups,
            live,
            end,
        })
    }
}

fn open_segments(
    folder: &Folder,
    numbers: &[u64],
    identity: &LogIdentity,
) -> Result<Vec<Segment>, LogError> {
    let mut segments: Vec<Segment> = Vec::new();
    for number in numbers {
        if let Some(last) = segments.last().filter(|last| last.number + 1 != *number) {
            let (segment, detail) = (last.number + 1, "the file is missing");
            return Err(LogError::Damaged {
                segment,
                offset: 0,
                detail,
            });
        }
        segments.push(folder.open(*number, OpenMode::Existing, Some(identity))?.0);
    }
    Ok(segments)
}

/// Keeps as many spares as the options want.
fn keep_spares(
    folder: &Folder,
    mut spares: Vec<u64>,
    options: &LogOptions,
) -> Result<Vec<u64>, LogError> {
    for spare in spares.drain(options.spare_segments_max.min(spares.len())..) {
        folder.remove_spare(spare)?;
    }
    Ok(spares)
}
