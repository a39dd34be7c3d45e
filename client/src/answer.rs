//! What requests are answered with, in the words of `quorate-types`.
//!
//! Not here: errors (see `error`).

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::v1;
use quorate_types::{Level, NodeId, RangeId, Revision, Timestamp};

use crate::level::level_from_wire;
use crate::typed::{TypedValue, typed_value};

pub use quorate_proto::v1::Role;

/// A key's value as of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// The value; empty if only keys were asked for.
    pub value: Bytes,
    /// Of the write that made it so.
    pub revision: Revision,
    /// After which the key may be gone; none: it stays.
    pub expires_at: Option<Timestamp>,
    /// Of a value of the eventual plane: the name of its write, `NODE.START:COUNT`; empty: a
    /// committed value.
    pub dot: String,
    /// Of a row of a scan at an eventual level: live values beside this one, which a get shows.
    pub siblings: u32,
}

/// Where the time went, as the serving node saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Micros {
    /// Waiting to be served.
    pub queue: u64,
    /// In consensus.
    pub consensus: u64,
    /// On the disk.
    pub disk: u64,
    /// In all.
    pub total: u64,
}

/// What was really delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The level that was met; none if this version does not know it.
    pub level: Option<Level>,
    /// Its place in the ladder, from 0.
    pub rung: u32,
    /// The node that served.
    pub node: NodeId,
    /// As what it served.
    pub role: Role,
    /// Primaries known to have taken part.
    pub replicas: Vec<NodeId>,
    /// Stand-ins that took part.
    pub stand_ins: Vec<NodeId>,
    /// Of the write, or of the state that was read.
    pub revision: Revision,
    /// Causal context of the key (eventual plane).
    pub context: Bytes,
    /// Upper bound on the age of what was read; none: no bound is known.
    pub staleness: Option<Duration>,
    /// An estimate, of reads at eventual levels: 999 of 1,000 such reads show what was
    /// acknowledged with one copy this long before; none: too little is known.
    pub visible_after: Option<Duration>,
    /// Values exist that the log has not decided on.
    pub tentative: bool,
    /// Concurrent values beside the first.
    pub siblings: u32,
    /// Committed values that a put replaced unseen.
    pub replaced_unseen: u32,
    /// The answer is that of an earlier attempt of the same request.
    pub replayed: bool,
    /// Where the time went.
    pub micros: Micros,
    /// The range that served.
    pub range: RangeId,
    /// The new session token; empty: none was given.
    pub session_token: Bytes,
    /// Of a ladder: why the rungs above the one that was met were not.
    pub failed: Vec<String>,
    /// What the session had seen and the answer may not show, where the best that is there was
    /// asked for; empty: nothing.
    pub session_missing: String,
    /// It came from this client's own copy (see [`cached`](crate::cached)), which was last known to
    /// be what servers have so long ago; none: a server answered.
    pub cached_age: Option<Duration>,
}

/// The answer to a get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// What is there; none: no such key.
    pub entry: Option<Entry>,
    /// More live values than one (eventual plane).
    pub siblings: Vec<Entry>,
    /// Of a counter, set or map: what the key's live writes come to; the entry's value is
    /// empty then.
    pub typed: Option<TypedValue>,
    /// No primary was among those asked: there may be more than is shown.
    pub partial: bool,
    /// What was delivered.
    pub receipt: Receipt,
}

/// The answer to a put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The key's new revision; zero at eventual levels.
    pub revision: Revision,
    /// Eventual levels: the name of the write, `NODE.START:COUNT`; empty: a committed write.
    pub dot: String,
    /// What was delivered.
    pub receipt: Receipt,
}

/// The answer to a delete, or to one step of a prefix delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// Keys that existed and are gone.
    pub deleted: u64,
    /// Of the delete; zero at eventual levels.
    pub revision: Revision,
    /// Eventual levels: the name of the delete; empty: a committed one.
    pub dot: String,
    /// Prefix deletes: where the next step begins; empty: done.
    pub next_page_token: Bytes,
    /// What was delivered.
    pub receipt: Receipt,
}

/// The answer to a change of a counter, set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updated {
    /// What the key has come to at the node that took the change; none: nothing is left.
    pub typed: Option<TypedValue>,
    /// The name of the write, `NODE.START:COUNT`.
    pub dot: String,
    /// What was delivered.
    pub receipt: Receipt,
}

/// The answer to a compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CasOutcome {
    /// The key was as expected, and is written.
    Done(Written),
    /// It was not; nothing was changed.
    Refused {
        /// What is there; none: no such key. In the answer of an earlier attempt
        /// ([`Receipt::replayed`]) always none, for that is not remembered.
        current: Option<Entry>,
        /// What was delivered.
        receipt: Receipt,
    },
}

/// The answer to one operation of a batch or transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationDone {
    /// The key exists (get), or had existed (delete).
    pub found: bool,
    /// What a get found.
    pub entry: Option<Entry>,
    /// Of a write.
    pub revision: Revision,
}

/// The answer to a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnOutcome {
    /// Whether all compares held, so `then` ran; if not, `otherwise` did.
    pub succeeded: bool,
    /// One for each operation that ran.
    pub results: Vec<OperationDone>,
    /// Of the transaction.
    pub revision: Revision,
    /// What was delivered.
    pub receipt: Receipt,
}

/// The answer to a batch: each operation succeeds or fails by itself.
#[derive(Clone, Debug)]
pub struct BatchDone {
    /// One for each operation, in their order.
    pub results: Vec<Result<OperationDone, crate::ClientError>>,
    /// What was delivered.
    pub receipt: Receipt,
}

/// One page of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanPage {
    /// In the order that was asked for.
    pub entries: Vec<Entry>,
    /// For the next page; empty: this was the last one.
    pub next_page_token: Bytes,
    /// The snapshot that was read.
    pub at: Revision,
    /// What was delivered.
    pub receipt: Receipt,
}

/// One version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The version; without a value if `deleted`.
    pub entry: Entry,
    /// The key was removed at this revision.
    pub deleted: bool,
}

/// The versions of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Newest first.
    pub entries: Vec<HistoryEntry>,
    /// Versions superseded at or below it are collected; zero: none yet.
    pub floor: Revision,
    /// What was delivered.
    pub receipt: Receipt,
}

/// What became of a write whose answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeState {
    /// It took effect.
    Applied {
        /// At this revision.
        revision: Revision,
        /// For compare-and-set and transactions: whether the condition held.
        succeeded: bool,
    },
    /// It did not, and will not: its id has been closed.
    NotApplied,
    /// Its id is below what the range remembers.
    TooOld,
}

/// The answer to a question for an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What became of it.
    pub state: OutcomeState,
    /// What was delivered.
    pub receipt: Receipt,
}

impl From<v1::KeyValue> for Entry {
    fn from(wire: v1::KeyValue) -> Self {
        Self {
            key: wire.key,
            value: wire.value,
            revision: Revision(wire.revision),
            expires_at: Some(wire.expires_at)
                .filter(|micros| *micros > 0)
                .map(Timestamp),
            dot: wire.dot,
            siblings: wire.siblings,
        }
    }
}

/// A missing receipt reads as one that promises nothing.
pub(crate) fn receipt(wire: Option<v1::Receipt>) -> Receipt {
    let wire = wire.unwrap_or_default();
    let nodes = |ids: Vec<u64>| ids.into_iter().map(NodeId).collect();
    let micros = wire.micros.unwrap_or_default();
    Receipt {
        role: wire.role(),
        level: wire.level.as_ref().and_then(level_from_wire),
        rung: wire.rung,
        node: NodeId(wire.node),
        replicas: nodes(wire.replicas),
        stand_ins: nodes(wire.stand_ins),
        revision: Revision(wire.revision),
        context: wire.context,
        staleness: wire.staleness_ms.map(Duration::from_millis),
        visible_after: wire.visible_after_us.map(Duration::from_micros),
        tentative: wire.tentative,
        siblings: wire.siblings,
        replaced_unseen: wire.replaced_unseen,
        replayed: wire.replayed,
        micros: Micros {
            queue: micros.queue,
            consensus: micros.consensus,
            disk: micros.disk,
            total: micros.total,
        },
        range: RangeId(wire.range),
        session_token: wire.session_token,
        failed: wire.failed,
        session_missing: wire.session_missing,
        cached_age: None,
    }
}

impl From<v1::GetResponse> for Got {
    fn from(wire: v1::GetResponse) -> Self {
        Self {
            entry: wire.entry.filter(|_| wire.found).map(Entry::from),
            siblings: wire.siblings.into_iter().map(Entry::from).collect(),
            typed: wire.typed.and_then(typed_value),
            partial: wire.partial,
            receipt: receipt(wire.receipt),
        }
    }
}

impl From<v1::PutResponse> for Written {
    fn from(wire: v1::PutResponse) -> Self {
        Self {
            revision: Revision(wire.revision),
            dot: wire.dot,
            receipt: receipt(wire.receipt),
        }
    }
}

impl From<v1::UpdateResponse> for Updated {
    fn from(wire: v1::UpdateResponse) -> Self {
        Self {
            typed: wire.typed.and_then(typed_value),
            dot: wire.dot,
            receipt: receipt(wire.receipt),
        }
    }
}

impl From<v1::DeleteResponse> for Deleted {
    fn from(wire: v1::DeleteResponse) -> Self {
        Self {
            deleted: wire.deleted,
            revision: Revision(wire.revision),
            dot: wire.dot,
            next_page_token: wire.next_page_token,
            receipt: receipt(wire.receipt),
        }
    }
}

impl From<v1::CompareAndSetResponse> for CasOutcome {
    fn from(wire: v1::CompareAndSetResponse) -> Self {
        let receipt = receipt(wire.receipt);
        if wire.succeeded {
            return Self::Done(Written {
                revision: Revision(wire.revision),
                dot: String::new(),
                receipt,
            });
        }
        Self::Refused {
            current: wire.current.map(Entry::from),
            receipt,
        }
    }
}

impl From<v1::OperationResult> for OperationDone {
    fn from(wire: v1::OperationResult) -> Self {
        Self {
            found: wire.found,
            entry: wire.entry.map(Entry::from),
            revision: Revision(wire.revision),
        }
    }
}

impl From<v1::TxnResponse> for TxnOutcome {
    fn from(wire: v1::TxnResponse) -> Self {
        Self {
            succeeded: wire.succeeded,
            results: wire.results.into_iter().map(OperationDone::from).collect(),
            revision: Revision(wire.revision),
            receipt: receipt(wire.receipt),
        }
    }
}

impl From<v1::ScanResponse> for ScanPage {
    fn from(wire: v1::ScanResponse) -> Self {
        Self {
            entries: wire.entries.into_iter().map(Entry::from).collect(),
            next_page_token: wire.next_page_token,
            at: Revision(wire.at_revision),
            receipt: receipt(wire.receipt),
        }
    }
}

impl From<v1::HistoryResponse> for History {
    fn from(wire: v1::HistoryResponse) -> Self {
        let entries = wire
            .entries
            .into_iter()
            .filter_map(|entry| {
                Some(HistoryEntry {
                    entry: entry.version?.into(),
                    deleted: entry.deleted,
                })
            })
            .collect();
        Self {
            entries,
            floor: Revision(wire.floor),
            receipt: receipt(wire.receipt),
        }
    }
}

/// None if the state is not one that this version knows.
pub(crate) fn outcome(wire: v1::OutcomeResponse) -> Option<Outcome> {
    use v1::outcome_response::State;
    let state = match wire.state() {
        State::Unspecified => return None,
        State::Applied => OutcomeState::Applied {
            revision: Revision(wire.revision),
            succeeded: wire.succeeded,
        },
        State::NotApplied => OutcomeState::NotApplied,
        State::TooOld => OutcomeState::TooOld,
    };
    Some(Outcome {
        state,
        receipt: receipt(wire.receipt),
    })
}
