//! Names for writes whose clients chose none, so that the gateway's own retries are applied once.
//!
//! A range remembers a bounded number of results for each client. The names are therefore dealt
//! over several clients in turn: together they hold far more than one gateway has in work at once.

use std::sync::atomic::{AtomicU64, Ordering};

use quorate_types::{ClientId, RequestId, Timestamp};

/// Clients that one gateway deals its names over; a power of two.
const NAME_CLIENTS: u64 = 16;

/// The name of one write, on all its attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteName {
    /// Client and sequence.
    pub id: RequestId,
    /// When it was first tried.
    pub first_tried: Timestamp,
    /// The gateway chose it: nobody else will ever retry it.
    pub ours: bool,
}

/// Gives out names that no other start of any gateway gives out.
#[derive(Debug)]
pub struct Namer {
    base: u64,
    count: AtomicU64,
}

impl Namer {
    /// Names under a client id that was drawn at random for this start.
    pub fn new(client: ClientId) -> Namer {
        // Zero names no client on the wire.
        let base = (client.0 & !(NAME_CLIENTS - 1)).max(NAME_CLIENTS);
        Namer {
            base,
            count: AtomicU64::new(0),
        }
    }

    /// The next name.
    pub fn next(&self, first_tried: Timestamp) -> WriteName {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let client = ClientId(self.base | (count % NAME_CLIENTS));
        let id = RequestId {
            client,
            sequence: count / NAME_CLIENTS + 1,
        };
        WriteName {
            id,
            first_tried,
            ours: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_distinct_and_sequences_grow_by_one_for_each_client() {
        let namer = Namer::new(ClientId(0));
        let mut seen = HashSet::new();
        for count in 0..1000 {
            let name = namer.next(Timestamp(1));
            assert_ne!(name.id.client, ClientId(0));
            assert_eq!(name.id.sequence, count / NAME_CLIENTS + 1);
            assert!(seen.insert(name.id));
        }
    }
}
