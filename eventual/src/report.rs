//! What a node can say of its part of a range: for status, for tests, and to force a repair.
//!
//! Not here: the state itself (`replica`), and the work that the counts count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorate_types::causal::{Clock, Record, settle};
use quorate_types::{NodeId, RangeId, Timestamp};

use crate::error::EventualError;
use crate::node::EventualNode;
use crate::repair::Repaired;
use crate::tree::Sum;

/// What a node holds of a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeReport {
    /// Equal on primaries that hold the same records and have taken in the same writes; `None`
    /// while the hash tree is being built.
    pub hash: Option<Sum>,
    /// Whether it answers as a primary.
    pub filled: bool,
    /// Bytes of records: keys, values, names of writes.
    pub record_bytes: u64,
    /// Bytes of hints.
    pub hint_bytes: u64,
    /// Hints.
    pub hints: u64,
    /// Hints that an acknowledgement still rests on.
    pub counted_hints: u64,
    /// Starts of nodes of whose writes some have not come: they cost a few bytes until they are
    /// closed.
    pub gaps: u64,
    /// In a range with a log: rows that its state on this disk may not know yet.
    pub overlay_rows: u64,
    /// How long the oldest change of them has waited for the log.
    pub overlay_age: Duration,
}

/// What a node has done in the background since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackgroundWork {
    /// Hints that a primary has taken over.
    pub hints_handed_over: u64,
    /// Keys that repair found to differ.
    pub keys_repaired: u64,
    /// Bytes of repair, both ways.
    pub repair_bytes: u64,
    /// Times that finished starts of a range were closed.
    pub starts_closed: u64,
}

/// [`BackgroundWork`] while it is being counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) hints_handed_over: AtomicU64,
    pub(crate) keys_repaired: AtomicU64,
    pub(crate) repair_bytes: AtomicU64,
    pub(crate) starts_closed: AtomicU64,
}

impl EventualNode {
    /// What this node holds of a range. Reads all of it.
    ///
    /// # Errors
    /// [`EventualError`] where the node does not serve, or its engine fails.
    pub fn report(&self, range: RangeId) -> Result<RangeReport, EventualError> {
        // First of all: what is not here is not opened to be looked at.
        let place = self.inner.place(range)?;
        let replica = self.inner.replica(range)?;
        let (record_bytes, hint_bytes) = replica.stored_bytes()?;
        let primaries = &place.holders.primaries;
        let (hints, counted) = replica.with_hints(|hints| (hints.len(), hints.counted(primaries)));
        Ok(RangeReport {
            hash: replica.hash(),
            filled: replica.is_filled(),
            record_bytes,
            hint_bytes,
            hints: hints as u64,
            counted_hints: counted as u64,
            gaps: replica.clock().gaps().count() as u64,
            overlay_rows: replica.overlay_rows() as u64,
            overlay_age: replica.overlay_age().unwrap_or_default(),
        })
    }

    /// The hash of what this node holds of a range, see [`RangeReport::hash`]; reads nothing.
    ///
    /// # Errors
    /// [`EventualError`] where the node does not serve.
    pub fn hash(&self, range: RangeId) -> Result<Option<Sum>, EventualError> {
        Ok(self.inner.replica(range)?.hash())
    }

    /// The names of all writes of a range that this node has taken in as a primary.
    ///
    /// # Errors
    /// [`EventualError`] where the node does not serve.
    pub fn clock(&self, range: RangeId) -> Result<Clock, EventualError> {
        Ok(self.inner.replica(range)?.clock())
    }

    /// This node's wall clock.
    pub fn now(&self) -> Timestamp {
        self.inner.peers.now()
    }

    /// For how long a replica here, at the most, has not been found equal with another primary's
    /// though it has changed. Ranges with a log are left out: that keeps them equal.
    pub fn repair_lag(&self) -> Duration {
        self.inner.repair_lag()
    }

    /// What this node has done in the background since its start.
    pub fn background_work(&self) -> BackgroundWork {
        let counts = &self.inner.counts;
        BackgroundWork {
            hints_handed_over: counts.hints_handed_over.load(Ordering::Relaxed),
            keys_repaired: counts.keys_repaired.load(Ordering::Relaxed),
            repair_bytes: counts.repair_bytes.load(Ordering::Relaxed),
            starts_closed: counts.starts_closed.load(Ordering::Relaxed),
        }
    }

    /// Compares a range with another primary's now, and brings both to the same state.
    ///
    /// # Errors
    /// [`EventualError`]; what was repaired until then stays.
    pub async fn repair(&self, range: RangeId, peer: NodeId) -> Result<Repaired, EventualError> {
        let replica = self.inner.replica(range)?;
        self.inner.repair_with(&replica, peer).await
    }

    /// Whether what this node holds of a range keeps its own rules: every record is settled or
    /// known to be due, says something, and is in the hash tree as it is. Reads all of it.
    ///
    /// # Errors
    /// The first rule that is broken, in words.
    #[doc(hidden)]
    pub fn validate(&self, range: RangeId) -> Result<(), String> {
        let replica: Arc<_> = self
            .inner
            .replica(range)
            .map_err(|error| error.to_string())?;
        replica.validate(|clock, record: &Record| {
            if record.is_gone() {
                return Some("a record says nothing");
            }
            if let Err(dot) = record.validate(clock) {
                tracing::error!(%dot, "a live value is not known");
                return Some("a live value is not known");
            }
            settle(clock, record).map(|_| "a record is not settled, and not due")
        })
    }
}
