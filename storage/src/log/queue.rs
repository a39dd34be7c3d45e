//! What waits for the commit worker.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::format::RECORD_HEADER_BYTES;
use super::group::Group;
use super::usage::Released;
use super::{Done, LogEntry, LogError, LogId, Vote};
use crate::disk::Doorbell;

/// What a request asks of the log. What it changes for readers is done
/// already.
pub(super) enum Action {
    /// Write these entries; their tickets count up from `first_ticket`.
    Append {
        entries: Vec<LogEntry>,
        first_ticket: u64,
    },
    /// Write this vote.
    Vote(Vote),
    /// Write this committed position, some time.
    Committed(Option<LogId>),
    /// Write a truncation.
    Truncate {
        keep: Option<u64>,
        released: Released,
    },
    /// Write a purge.
    Purge { id: LogId, released: Released },
    /// Write a group's removal.
    Remove { released: Released },
    /// Write nothing; what came before is synced when this is done.
    Barrier,
}

/// A request.
pub(super) struct Item {
    pub(super) group: Arc<Group>,
    pub(super) action: Action,
    pub(super) done: Option<Done>,
}

impl Item {
    /// What it takes in a batch.
    pub(super) fn bytes(&self) -> u64 {
        let header = RECORD_HEADER_BYTES as u64;
        match &self.action {
            Action::Append { entries, .. } => entries.iter().map(Self::entry_bytes).sum(),
            Action::Barrier => 0,
            Action::Vote(_)
            | Action::Committed(_)
            | Action::Truncate { .. }
            | Action::Purge { .. }
            | Action::Remove { .. } => header,
        }
    }

    /// What an entry takes in a batch.
    pub(super) fn entry_bytes(entry: &LogEntry) -> u64 {
        (RECORD_HEADER_BYTES + entry.payload.len()) as u64
    }
}

/// The queue before the commit worker.
pub(super) struct Queue {
    inner: Mutex<Inner>,
    bell: Doorbell,
    room: Notify,
    bytes_max: u64,
}

#[derive(Default)]
struct Inner {
    items: VecDeque<Item>,
    /// Groups whose committed position is to be written some time: at most
    /// one each.
    lazy: BTreeMap<u64, (Arc<Group>, Option<LogId>)>,
    /// Whether `lazy` was empty when the worker looked last.
    lazy_is_new: bool,
    /// Of all items that are not synced, taken ones included.
    bytes: u64,
    closing: bool,
    failure: Option<Arc<LogError>>,
}

/// What [`Queue::take`] found besides items.
pub(super) struct Taken {
    /// Whether there is anything that can wait.
    pub(super) has_lazy: bool,
    /// Whether that began to wait only now.
    pub(super) lazy_is_new: bool,
    /// Whether the log is to be closed once all is written.
    pub(super) closing: bool,
}

impl Queue {
    pub(super) fn new(bell: Doorbell, bytes_max: u64) -> Self {
        Self {
            inner: Mutex::default(),
            bell,
            room: Notify::new(),
            bytes_max,
        }
    }

    /// Adds a request, or gives it back if it can no longer be served.
    pub(super) fn push(&self, item: Item) -> Result<(), (Item, Arc<LogError>)> {
        let mut inner = self.inner.lock();
        if let Some(failure) = &inner.failure {
            return Err((item, Arc::clone(failure)));
        }
        if inner.closing {
            return Err((item, Arc::new(LogError::Closed)));
        }
        if let Action::Remove { .. } = item.action {
            // It would be written behind the removal.
            inner.lazy.remove(&item.group.id);
        }
        inner.bytes += item.bytes();
        inner.items.push_back(item);
        drop(inner);
        self.bell.ring();
        Ok(())
    }

    /// Takes note of a group's committed position, to be written some time.
    pub(super) fn put_committed(&self, group: &Arc<Group>, committed: Option<LogId>) {
        let mut inner = self.inner.lock();
        if inner.closing || inner.failure.is_some() {
            // Nobody was promised anything.
            return;
        }
        let is_first = inner.lazy.is_empty();
        inner.lazy_is_new |= is_first;
        inner.lazy.insert(group.id, (Arc::clone(group), committed));
        drop(inner);
        if is_first {
            // So that the worker begins to count the delay.
            self.bell.ring();
        }
    }

    /// Moves all requests that somebody waits for to the end of `into`.
    pub(super) fn take(&self, into: &mut VecDeque<Item>) -> Taken {
        let mut inner = self.inner.lock();
        into.append(&mut inner.items);
        Taken {
            has_lazy: !inner.lazy.is_empty(),
            lazy_is_new: std::mem::take(&mut inner.lazy_is_new),
            closing: inner.closing,
        }
    }

    /// Moves what can wait to the end of `into`.
    pub(super) fn take_lazy(&self, into: &mut VecDeque<Item>) {
        let mut inner = self.inner.lock();
        for (group, committed) in std::mem::take(&mut inner.lazy).into_values() {
            let item = Item {
                group,
                action: Action::Committed(committed),
                done: None,
            };
            inner.bytes += item.bytes();
            into.push_back(item);
        }
    }

    /// Bytes that wait for their sync.
    pub(super) fn bytes(&self) -> u64 {
        self.inner.lock().bytes
    }

    /// Takes note that so many bytes were synced.
    pub(super) fn release(&self, bytes: u64) {
        let mut inner = self.inner.lock();
        inner.bytes = inner.bytes.saturating_sub(bytes);
        let has_room = inner.bytes <= self.bytes_max;
        drop(inner);
        if has_room {
            self.room.notify_waiters();
        }
    }

    /// Waits until the queue is within its limit, or will never be served.
    pub(super) async fn ready(&self) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            // From here on a notification is seen, even before the await.
            room.as_mut().enable();
            if self.has_room() {
                return;
            }
            room.await;
        }
    }

    fn has_room(&self) -> bool {
        let inner = self.inner.lock();
        inner.bytes <= self.bytes_max || inner.failure.is_some()
    }

    /// Refuses requests from now on; the worker ends when it has served those
    /// that are there.
    pub(super) fn close(&self) {
        self.inner.lock().closing = true;
        self.bell.ring();
    }

    /// Refuses requests from now on, and gives back those that are there.
    pub(super) fn fail(&self, failure: Arc<LogError>) -> VecDeque<Item> {
        let mut inner = self.inner.lock();
        inner.failure = Some(failure);
        inner.bytes = 0;
        inner.lazy.clear();
        let items = std::mem::take(&mut inner.items);
        drop(inner);
        self.room.notify_waiters();
        items
    }
}
