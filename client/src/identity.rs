//! Who this client is to the exactly-once windows: its id, the sequence of its writes, and
//! the stamp of each first attempt.

use std::sync::atomic::{AtomicU64, Ordering};

use quorate_proto::v1;
use quorate_types::{ClientId, RequestId, Revision};

use crate::environment;

/// A client's name, shared by all its clones and pipelines.
#[derive(Debug)]
pub(crate) struct Identity {
    client: ClientId,
    next_sequence: AtomicU64,
    /// The newest revision in any answer. A window's floor is a revision: a stamp that is no
    /// older than what was read is not below it for a slow local clock alone.
    newest_seen: AtomicU64,
}

impl Identity {
    pub(crate) fn new(client: ClientId, first_sequence: u64) -> Self {
        Self {
            client,
            next_sequence: AtomicU64::new(first_sequence),
            newest_seen: AtomicU64::new(0),
        }
    }

    pub(crate) fn client(&self) -> ClientId {
        self.client
    }

    /// Names a write that was never tried before.
    pub(crate) fn name_write(&self) -> v1::RequestId {
        v1::RequestId {
            client: self.client.0,
            sequence: self.next_sequence.fetch_add(1, Ordering::Relaxed),
            first_tried: self.stamp(),
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
        let identity = Identity::new(ClientId(7), 1);
        let first = identity.name_write();
        assert_eq!((first.client, first.sequence), (7, 1));
        let ahead = Revision(first.first_tried + 60_000_000);
        identity.observe(ahead);
        identity.observe(Revision(5));
        let second = identity.name_write();
        assert_eq!(second.sequence, 2);
        assert_eq!(second.first_tried, ahead.0);
    }
}
