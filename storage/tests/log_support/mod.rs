//! What the log's tests share: a plain model of the log, and how to ask
//! whether a log is what the model says.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use quorate_storage::disk::{Disk, SimDisk};
use quorate_storage::log::{
    Done, GroupLog, LogEntry, LogError, LogId, LogIdentity, LogOptions, NodeLog, Vote,
};

pub const IDENTITY: LogIdentity = LogIdentity {
    cluster: [7; 16],
    node: 3,
};

/// The log's folder on a simulated disk.
pub fn folder() -> &'static Path {
    Path::new("/node/log")
}

pub fn open(disk: &SimDisk, options: LogOptions) -> Result<NodeLog, LogError> {
    NodeLog::open(Arc::new(disk.clone()), folder(), IDENTITY, options)
}

pub fn shared(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

pub fn entry(term: u64, index: u64, payload: impl Into<Bytes>) -> LogEntry {
    LogEntry {
        term,
        index,
        payload: payload.into(),
    }
}

/// Waits for a request that `start` makes.
pub async fn finish(start: impl FnOnce(Done)) -> Result<(), Arc<LogError>> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    start(Box::new(move |result| drop(sender.send(result))));
    receiver.await.expect("an answer is owed")
}

pub async fn append(group: &GroupLog, entries: Vec<LogEntry>) -> Result<(), Arc<LogError>> {
    finish(|done| group.append(entries, done)).await
}

/// One change of a group; appends are taken apart into entries.
#[derive(Clone, Debug)]
pub enum Change {
    Entry(LogEntry),
    Vote(Vote),
    Truncate(Option<u64>),
    Purge(LogId),
    Remove,
}

/// A group, without any cleverness.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupModel {
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    pub entries: BTreeMap<u64, LogEntry>,
}

impl GroupModel {
    pub fn last(&self) -> Option<LogId> {
        let last = self.entries.values().next_back();
        last.map(|entry| LogId {
            term: entry.term,
            index: entry.index,
        })
        .or(self.purged)
    }
}

/// A log, without any cleverness.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub groups: BTreeMap<u64, GroupModel>,
}

impl Model {
    pub fn apply(&mut self, group: u64, change: &Change) {
        let state = self.groups.entry(group).or_default();
        match change {
            Change::Entry(entry) => {
                state.entries.insert(entry.index, entry.clone());
            }
            Change::Vote(vote) => state.vote = Some(*vote),
            Change::Truncate(None) => state.entries.clear(),
            Change::Truncate(Some(keep)) => {
                state.entries.retain(|index, _| index <= keep);
            }
            Change::Purge(id) => {
                if state.purged.is_none_or(|purged| purged.index < id.index) {
                    state.purged = Some(*id);
                    state.entries.retain(|index, _| *index > id.index);
                }
            }
            Change::Remove => *state = GroupModel::default(),
        }
        if *state == GroupModel::default() {
            self.groups.remove(&group);
        }
    }

    /// What a log holds, read through its public face.
    pub fn of(log: &NodeLog, groups: impl Iterator<Item = u64>) -> Result<Self, LogError> {
        let mut model = Self::default();
        for id in groups {
            let group = log.group(id);
            let mut state = GroupModel {
                vote: group.vote(),
                purged: group.purged(),
                ..GroupModel::default()
            };
            let end = group.last().map_or(0, |last| last.index + 1);
            let mut next = match (state.purged, end) {
                (Some(purged), _) => purged.index + 1,
                (None, end) => (0..end)
                    .find(|index| group.log_id(*index).is_some())
                    .unwrap_or(end),
            };
            while next < end {
                for entry in group.read(next..end, 1 << 12)? {
                    assert_eq!(entry.index, next, "entries come in order");
                    next += 1;
                    state.entries.insert(entry.index, entry);
                }
            }
            assert_eq!(state.last(), group.last());
            if state != GroupModel::default() {
                model.groups.insert(id, state);
            }
        }
        Ok(model)
    }
}

/// How many seeds a test tries: `default`, or what `QUORATE_SEEDS` says.
pub fn seeds(default: u64) -> u64 {
    let wanted = std::env::var("QUORATE_SEEDS").ok();
    wanted
        .and_then(|wanted| wanted.parse().ok())
        .unwrap_or(default)
}

/// The first seed, for a replay: 0, or what `QUORATE_SEED` says.
pub fn first_seed() -> u64 {
    let wanted = std::env::var("QUORATE_SEED").ok();
    wanted.and_then(|wanted| wanted.parse().ok()).unwrap_or(0)
}

/// Runs a simulation on a paused clock.
pub fn simulate<T>(simulation: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
        .block_on(simulation)
}
