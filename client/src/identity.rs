//! Who a client is to the exactly-once windows: an id, the sequence of its writes, and the
//! stamp of each first attempt.
//!
//! A range remembers the results of a client's newest writes, a bounded number of them. A
//! write that is still being tried must not fall out of that window, or nobody could tell
//! whether it was applied. So between the oldest write on its way and the newest one there
//! are never more than [`SEQUENCE_SPREAD_MAX`] numbers: before that, the client goes on under
//! a fresh id, and the old one names nothing new.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use quorate_proto::v1;
use quorate_types::{ClientId, RequestId, Revision};

use crate::environment;
use crate::limits::SEQUENCE_SPREAD_MAX;

/// The name of a client or of a pipeline, shared by all its clones.
#[derive(Debug)]
pub(crate) struct Identity {
    sequence: Mutex<Sequence>,
    /// The newest revision in any answer. A window's floor is a revision: a stamp that is no
    /// older than what was read is not below it for a slow local clock alone.
    newest_seen: AtomicU64,
}

/// The numbers given out under one id.
#[derive(Debug)]
struct Sequence {
    client: ClientId,
    /// The number of the first of `on_their_way`.
    oldest: u64,
    /// Writes from the oldest unfinished one up to the newest: whether each is still tried.
    on_their_way: VecDeque<bool>,
}

impl Sequence {
    fn new(client: ClientId, first: u64) -> Self {
        Self {
            client,
            oldest: first,
            on_their_way: VecDeque::new(),
        }
    }

    fn next(&mut self) -> (ClientId, u64) {
        if self.on_their_way.len() >= SEQUENCE_SPREAD_MAX {
            *self = Self::new(environment::draw_client_id(), 1);
        }
        let number = self.oldest + self.on_their_way.len() as u64;
        self.on_their_way.push_back(true);
        (self.client, number)
    }

    fn finish(&mut self, client: ClientId, number: u64) {
        if client != self.client {
            return; // an id that names nothing new any more
        }
        let place = usize::try_from(number - self.oldest)
            .expect("a number on its way is at most the spread above the oldest one");
        self.on_their_way[place] = false;
        while self.on_their_way.front() == Some(&false) {
            self.on_their_way.pop_front();
            self.oldest += 1;
        }
    }
}

/// A write's name while it is tried; when dropped, the write may fall out of the windows.
#[derive(Debug)]
pub(crate) struct Name {
    identity: Arc<Identity>,
    wire: v1::RequestId,
}

impl Name {
    /// As it travels.
    pub(crate) fn wire(&self) -> v1::RequestId {
        self.wire
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let client = ClientId(self.wire.client);
        self.identity
            .sequence
            .lock()
            .finish(client, self.wire.sequence);
    }
}

impl Identity {
    pub(crate) fn new(client: ClientId, first_sequence: u64) -> Self {
        Self {
            sequence: Mutex::new(Sequence::new(client, first_sequence)),
            newest_seen: AtomicU64::new(0),
        }
    }

    /// One more, under an id of its own, that knows what this one has seen.
    pub(crate) fn sibling(&self) -> Self {
        let sibling = Self::new(environment::draw_client_id(), 1);
        sibling.observe(Revision(self.newest_seen.load(Ordering::Relaxed)));
        sibling
    }

    /// The id that names writes now.
    pub(crate) fn client(&self) -> ClientId {
        self.sequence.lock().client
    }

    /// Names a write that was never tried before.
    pub(crate) fn name_write(self: &Arc<Self>) -> Name {
        let (client, sequence) = self.sequence.lock().next();
        Name {
            identity: Arc::clone(self),
            wire: v1::RequestId {
                client: client.0,
                sequence,
                first_tried: self.stamp(),
            },
        }
    }

    /// The time of a first attempt that is made now.
    pub(crate) fn stamp(&self) -> u64 {
        let seen = self.newest_seen.load(Ordering::Relaxed);
        environment::wall_clock().0.max(seen)
    }

    /// Takes note of a revision in an answer.
    pub(crate) fn observe(&self, revision: Revision) {
        // A plain load first: under load most answers bring nothing newer than a neighbour's.
        if self.newest_seen.load(Ordering::Relaxed) < revision.0 {
            self.newest_seen.fetch_max(revision.0, Ordering::Relaxed);
        }
    }
}

/// A name as the types say it.
pub(crate) fn request_id(name: &v1::RequestId) -> RequestId {
    RequestId {
        client: ClientId(name.client),
        sequence: name.sequence,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_up_and_stamps_follow_what_was_seen() {
        let identity = Arc::new(Identity::new(ClientId(7), 1));
        let first = identity.name_write().wire();
        assert_eq!((first.client, first.sequence), (7, 1));
        let ahead = Revision(first.first_tried + 60_000_000);
        identity.observe(ahead);
        identity.observe(Revision(5));
        let second = identity.name_write().wire();
        assert_eq!((second.client, second.sequence), (7, 2));
        assert_eq!(second.first_tried, ahead.0);
    }

    #[test]
    fn a_write_on_its_way_never_falls_behind_the_window() {
        let identity = Arc::new(Identity::new(ClientId(7), 1));
        let slow = identity.name_write();
        for _ in 1..SEQUENCE_SPREAD_MAX {
            assert_eq!(identity.name_write().wire().client, 7);
        }
        let fresh = identity.name_write();
        assert_ne!(fresh.wire().client, 7);
        assert_eq!(fresh.wire().sequence, 1);
        drop(slow);
        drop(fresh);
        assert_ne!(identity.client(), ClientId(7), "an old id never comes back");
    }

    #[test]
    fn finished_writes_make_room_in_any_order() {
        let identity = Arc::new(Identity::new(ClientId(7), 100));
        for _ in 0..10 {
            let mut names: Vec<_> = (0..SEQUENCE_SPREAD_MAX)
                .map(|_| identity.name_write())
                .collect();
            names.rotate_left(SEQUENCE_SPREAD_MAX / 3);
            drop(names);
        }
        let expected = 100 + 10 * SEQUENCE_SPREAD_MAX as u64;
        assert_eq!(identity.name_write().wire().sequence, expected);
        assert_eq!(identity.client(), ClientId(7));
    }
}
