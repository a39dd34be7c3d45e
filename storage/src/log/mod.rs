//! The node log: one ordered, segmented, checksummed log for all groups of a
//! node, with one commit worker that writes once and syncs once for everything
//! that is queued.
//!
//! The log keeps entries, votes, truncations and purges of many groups, and
//! gives entries back; payloads are opaque to it. It knows no consensus and
//! no state machine. `docs/FORMAT-LOG.md` describes its files byte by byte.
//!
//! - [`NodeLog`] opens a folder and hands out a [`GroupLog`] per group;
//! - `queue` is what waits for the worker, `commit` the worker itself;
//! - `format` and `record` are the bytes, `segment` the files;
//! - `scan` reads bytes back and tells torn from damaged, `recover` rebuilds
//!   the groups from it, `inspect` only reports;
//! - `room` gives batches their place, and takes old segments back;
//! - `usage` counts what keeps old segments alive, `moves` moves it;
//! - `cache` decides which payloads stay in memory.

mod cache;
mod commit;
mod error;
mod format;
mod group;
mod inspect;
mod moves;
mod node;
mod options;
mod queue;
mod record;
mod recover;
mod room;
mod scan;
mod segment;
mod usage;

pub use error::LogError;
pub use format::FORMAT_VERSION;
pub use group::GroupLog;
pub use inspect::{GroupReport, LogReport, SegmentReport, inspect};
pub use node::{LogStats, NodeLog};
pub use options::{LogIdentity, LogOptions};

use std::sync::Arc;

use bytes::Bytes;

/// One entry of a group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// The leader's term.
    pub term: u64,
    /// The position in the group's log; entries follow each other by one.
    pub index: u64,
    /// What the log keeps without looking at it. At most
    /// [`LogOptions::entry_bytes_max`].
    pub payload: Bytes,
}

/// A group's vote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vote {
    /// The term voted in.
    pub term: u64,
    /// The node voted for; 0 is none.
    pub node: u64,
    /// Whether a majority is known to have voted so.
    pub committed: bool,
}

/// Names an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogId {
    /// The entry's term.
    pub term: u64,
    /// The entry's index.
    pub index: u64,
}

/// Called once, from the commit worker, after the sync that covers the
/// request, or with the error that made it impossible. Must not block.
pub type Done = Box<dyn FnOnce(Result<(), Arc<LogError>>) + Send>;
