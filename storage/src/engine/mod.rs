//! The engine: the committed state of many ranges, in many versions.
//!
//! Applied writes go to memory and are acknowledged from there, since the log
//! makes them durable; background flushes move them into redb files together
//! with the log position they cover. Reads see memory, then the file. What the
//! keys and values mean, who applies what and when, is decided elsewhere.
//!
//! The rooms: `table` is what is done with a range, `range` its state, `memory` the tables
//! in memory, `view` one committed state of a file, `history` the
//! superseded versions in it, `scan` the merge of all of them, `changes` what was written after a
//! revision, `flush` the way from memory to file, `collect` the way out,
//! `export` and `import` the way to another node, `pages` the checksummed
//! blocks under redb.

mod changes;
mod collect;
mod error;
mod export;
mod file;
mod flush;
mod hash;
mod history;
mod import;
mod memory;
mod pages;
mod range;
mod record;
mod scan;
mod store;
mod table;
mod tick;
mod view;

use std::time::Duration;

use bytes::Bytes;

pub use changes::{Changes, Written};
pub use error::EngineError;
pub use export::Export;
pub use record::RangeMeta;
pub use scan::{ScanPage, ScanRequest};
pub use store::{Engine, EngineStats, StoredHistory};
pub use table::RangeTable;

/// A place in a range's log: the entry's term and index. Positions of one log
/// sort as the log does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Term of the leader that proposed the entry.
    pub term: u64,
    /// Number of the entry.
    pub index: u64,
}

/// A value as one write left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Revision of the write.
    pub revision: u64,
    /// When the value is to be hidden, in microseconds since the Unix epoch.
    /// The engine stores it and does nothing about it.
    pub expiry: Option<u64>,
    /// The bytes.
    pub value: Bytes,
    /// Names of the writes that it shows, where they are not this one alone. The engine stores
    /// them and does nothing about them.
    pub causal: Option<Bytes>,
}

/// What a log entry does to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key has a new value.
    Put {
        /// The encoded key.
        key: Bytes,
        /// Its new newest version.
        version: Version,
    },
    /// The key is gone. Without effect where it is not there.
    Delete {
        /// The encoded key.
        key: Bytes,
        /// Revision of the delete.
        revision: u64,
    },
}

/// One line of a key's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Revision of the write.
    pub revision: u64,
    /// What it wrote; None: it deleted the key.
    pub value: Option<Version>,
}

/// Settings of an [`Engine`].
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Number of redb files. Fixed when a folder is first used; later another
    /// number is ignored.
    pub files: u32,
    /// redb's page cache over all files, in bytes.
    pub cache_bytes: usize,
    /// What all tables in memory may take before writers should be held back,
    /// in bytes. Flushes are asked for from a half of it on.
    pub memory_bytes_max: usize,
    /// A range asks for a flush when it has unflushed data older than this
    /// (and at most a half more).
    pub flush_interval: Duration,
    /// Most records that are removed in one write transaction. Of history,
    /// which leaves by blocks of many records, a sixteenth as many blocks.
    pub collect_records_max: usize,
}

/// So many records count as one block of history where a step is bounded.
const RECORDS_PER_BLOCK: usize = 16;

impl EngineOptions {
    /// Most blocks of history that are removed in one write transaction.
    fn history_blocks_max(&self) -> usize {
        (self.collect_records_max / RECORDS_PER_BLOCK).max(1)
    }
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            files: 2,
            cache_bytes: 64 << 20,
            memory_bytes_max: 128 << 20,
            flush_interval: Duration::from_secs(5),
            collect_records_max: 4096,
        }
    }
}
