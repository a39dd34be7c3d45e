//! openraft's log, on the node log of `quorate-storage`. No policy: what openraft asks is written
//! in the order it was asked, and acknowledged once it is synced.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use futures::Stream;
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use quorate_storage::log::{Done, GroupLog, LogEntry, LogError};
use tokio::sync::oneshot;

use crate::consensus::{
    self, Consensus, Entry, LogId, Vote, log_id_from_disk, log_id_to_disk, vote_from_disk,
    vote_to_disk,
};
use crate::node::Faults;

/// Bytes of entries that one read for replication or apply takes into memory.
const READ_BYTES_MAX: u64 = 4 << 20;

/// One group's log as openraft wants it.
#[derive(Clone, Debug)]
pub struct LogStore {
    log: GroupLog,
    faults: Faults,
    /// For a negative control: the first entry that was truncated last.
    truncated: Arc<Mutex<Option<Entry>>>,
}

impl LogStore {
    /// Wraps one group of a node log.
    pub fn new(log: GroupLog) -> LogStore {
        LogStore {
            log,
            faults: Faults::default(),
            truncated: Arc::default(),
        }
    }

    /// For the negative controls of tests.
    pub(crate) fn break_on_purpose(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// What a faulty log makes of entries that it is given.
    fn with_truncated(&self, entries: &mut [LogEntry]) {
        let mut truncated = self.truncated.lock();
        let Some(old) = truncated.as_ref() else {
            return;
        };
        let is_at = |entry: &&mut LogEntry| entry.index == old.log_id.index;
        if let Some(entry) = entries.iter_mut().find(is_at) {
            entry.payload = consensus::payload_of(old);
            *truncated = None;
        }
    }

    fn bounds(&self, range: impl RangeBounds<u64>) -> (u64, u64) {
        let start = match range.start_bound() {
            Bound::Included(i) => *i,
            Bound::Excluded(i) => i + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(i) => i + 1,
            Bound::Excluded(i) => *i,
            Bound::Unbounded => self.log.last().map_or(0, |l| l.index + 1),
        };
        // What is not there (any more) is left out, as openraft expects.
        (start.max(self.log.first_index().unwrap_or(end)), end)
    }

    /// Entries from `start`, before `end`, at least one if there is one, and no more than about
    /// [`READ_BYTES_MAX`] bytes.
    fn read_some(&self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let entries = self
            .log
            .read(start..end, READ_BYTES_MAX)
            .map_err(io::Error::other)?;
        entries
            .into_iter()
            .map(|e| consensus::entry_of(e.term, e.index, e.payload))
            .collect()
    }
}

/// A callback that hands the result of a sync to an awaiting task.
fn waiter() -> (Done, oneshot::Receiver<Result<(), Arc<LogError>>>) {
    let (sender, receiver) = oneshot::channel();
    let done: Done = Box::new(move |result| {
        // Nobody waits any more when the group is being stopped.
        let _ = sender.send(result);
    });
    (done, receiver)
}

async fn synced(receiver: oneshot::Receiver<Result<(), Arc<LogError>>>) -> Result<(), io::Error> {
    match receiver.await {
        Ok(result) => result.map_err(io::Error::other),
        Err(_) => Err(io::Error::other("the node log was closed")),
    }
}

impl RaftLogReader<Consensus> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (mut start, end) = self.bounds(range);
        let mut all = Vec::new();
        while start < end {
            let some = self.read_some(start, end)?;
            let Some(last) = some.last() else { break };
            start = last.log_id.index + 1;
            all.extend(some);
        }
        Ok(all)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read_some(start, end)
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = self.bounds(range);
        let chunks = Chunks {
            store: self.clone(),
            next: start,
            end,
            ready: Vec::new().into_iter(),
        };
        futures::stream::iter(chunks)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.log.vote().map(vote_from_disk))
    }
}

/// Entries of an interval, read a few megabytes at a time.
struct Chunks {
    store: LogStore,
    next: u64,
    end: u64,
    ready: std::vec::IntoIter<Entry>,
}

impl Iterator for Chunks {
    type Item = Result<Entry, io::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.len() == 0 && self.next < self.end {
            match self.store.read_some(self.next, self.end) {
                Ok(some) => self.ready = some.into_iter(),
                Err(error) => {
                    self.next = self.end;
                    return Some(Err(error));
                }
            }
        }
        let entry = self.ready.next()?;
        self.next = entry.log_id.index + 1;
        Some(Ok(entry))
    }
}

impl RaftLogStorage<Consensus> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<Consensus>, io::Error> {
        let last_purged_log_id = self.log.purged().map(log_id_from_disk);
        let last_log_id = self.log.last().map(log_id_from_disk);
        Ok(LogState {
            last_purged_log_id,
            last_log_id,
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        if self.faults.forget_votes {
            return Ok(());
        }
        let (done, receiver) = waiter();
        self.log.save_vote(vote_to_disk(vote), done);
        synced(receiver).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.log
            .save_committed(committed.as_ref().map(log_id_to_disk));
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.log.committed().map(log_id_from_disk))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<Consensus>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut entries: Vec<LogEntry> = entries
            .into_iter()
            .map(|entry| LogEntry {
                term: consensus::log_id_term(&entry.log_id),
                index: entry.log_id.index,
                payload: consensus::payload_of(&entry),
            })
            .collect();
        if self.faults.reuse_truncated {
            self.with_truncated(&mut entries);
        }
        let done: Done =
            Box::new(move |result| callback.io_completed(result.map_err(io::Error::other)));
        self.log.append(entries, done);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        if self.faults.reuse_truncated {
            let next = last.map_or(0, |id| id.index + 1);
            *self.truncated.lock() = self.read_some(next, next + 1)?.pop();
        }
        let (done, receiver) = waiter();
        self.log.truncate_after(last.map(|id| id.index), done);
        synced(receiver).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        // Not awaited: a purge that is lost is done again.
        self.log.purge(log_id_to_disk(&upto), Box::new(|_| {}));
        Ok(())
    }
}
