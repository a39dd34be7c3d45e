//! What can go wrong in the engine.
//!
//! No error here changes what a range holds: a failed flush or import leaves
//! the file as it was, and memory keeps what was applied. Retrying helps only
//! where a variant says so.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::pages::PageDamage;

/// Why the engine refused or failed. Cheap to clone, since one failure is told
/// to everybody who waits.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// The disk refused. Final when it happened in a flush.
    #[error("the engine's disk failed while it {action}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// What the disk said.
        #[source]
        source: Arc<io::Error>,
    },
    /// redb refused. Final when it happened in a flush.
    #[error("the engine's table file failed")]
    Database(#[source] Arc<redb::Error>),
    /// A block of a file does not match its checksum. Final: the file's data
    /// can no longer be trusted, the replicas in it have to be replaced.
    #[error("file {file} is damaged at block {block}")]
    Damaged {
        /// Name of the file.
        file: Arc<str>,
        /// Number of the 4096-byte block, counted from the file's start.
        block: u64,
    },
    /// A stored record does not match its checksum, or cannot be read. The
    /// record is never returned as data; other keys are served.
    #[error("the record of key {key:02x?} is corrupt: {what}")]
    Corrupt {
        /// The encoded key, or the name of the record of metadata.
        key: Bytes,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A read below the revision down to which history is kept.
    #[error("revision {asked} is below the floor {floor}: its history is gone")]
    BelowFloor {
        /// The revision asked for.
        asked: u64,
        /// The oldest revision that can be read.
        floor: u64,
    },
    /// A file, record or chunk of a format that this build does not know.
    #[error("{what} has format version {found}, this build reads {known}")]
    Version {
        /// What was read.
        what: &'static str,
        /// The version in it.
        found: u32,
        /// The newest version known.
        known: u32,
    },
    /// The folder's files do not belong together, or one is missing.
    #[error("the engine's folder is not whole: {what}")]
    Folder {
        /// What does not fit.
        what: String,
    },
    /// Another process has the folder open. Retry when it has ended.
    #[error("the engine's folder is in use by another process")]
    InUse,
    /// A range was opened with another interval than it has on disk.
    #[error("range {range} is stored with another interval")]
    IntervalDiffers {
        /// The range.
        range: u64,
    },
    /// A range was opened whose interval overlaps that of another one.
    #[error("range {range} overlaps range {other}")]
    Overlap {
        /// The range that was to be opened.
        range: u64,
        /// The range that has the keys already.
        other: u64,
    },
    /// Chunks to import are damaged, incomplete or of another interval. The
    /// range is unchanged; fetch them anew.
    #[error("the imported chunks are unusable: {what}")]
    Import {
        /// What is wrong with them.
        what: &'static str,
    },
    /// The range was dropped; this handle of it is of no more use.
    #[error("range {range} was dropped")]
    Dropped {
        /// The range.
        range: u64,
    },
    /// The engine was closed.
    #[error("the engine is closed")]
    Closed,
    /// A background worker stopped in the middle of its work. Final.
    #[error("the engine's flusher panicked")]
    Panicked,
}

impl EngineError {
    /// Whether the engine cannot go on writing after this.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Database(_) | Self::Damaged { .. } | Self::Panicked => true,
            Self::Corrupt { .. }
            | Self::BelowFloor { .. }
            | Self::Version { .. }
            | Self::Folder { .. }
            | Self::InUse
            | Self::IntervalDiffers { .. }
            | Self::Overlap { .. }
            | Self::Import { .. }
            | Self::Dropped { .. }
            | Self::Closed => false,
        }
    }

    pub(super) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match PageDamage::within(&source) {
            Some(damage) => damage.into(),
            None => Self::Io {
                action,
                source: Arc::new(source),
            },
        }
    }

    /// What is stored under `key` passes its checksum, and is not what it should be.
    pub fn corrupt(key: &[u8], what: &'static str) -> Self {
        Self::Corrupt {
            key: Bytes::copy_from_slice(key),
            what,
        }
    }
}

impl From<PageDamage> for EngineError {
    fn from(damage: PageDamage) -> Self {
        Self::Damaged {
            file: damage.file,
            block: damage.block,
        }
    }
}

impl From<redb::Error> for EngineError {
    fn from(error: redb::Error) -> Self {
        if let redb::Error::Io(source) = &error
            && let Some(damage) = PageDamage::within(source)
        {
            return damage.into();
        }
        Self::Database(Arc::new(error))
    }
}

macro_rules! through_redb {
    ($($error:ty),+) => {
        $(impl From<$error> for EngineError {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        })+
    };
}

through_redb!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError,
    redb::SetDurabilityError
);
