//! Snapshots of a range: an engine export on the way out, a spooled file on the way in.
//!
//! A snapshot is taken when a follower needs it, not kept: what makes log purges safe is the
//! engine's own durable position.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_storage::disk::{Disk, DiskFile, OpenMode};
use quorate_storage::engine::{EngineError, Export, Position};

/// Bytes of the length that stands before each spooled chunk.
const LENGTH_BYTES: u64 = 4;
/// A chunk larger than this is no chunk of ours.
const CHUNK_BYTES_MAX: usize = 8 << 20;

/// What openraft passes around as a snapshot.
#[derive(Clone, Debug)]
pub enum SnapshotData {
    /// To be sent: a consistent view of this node's engine.
    Outgoing(Arc<Outgoing>),
    /// Received, complete, not yet installed.
    Incoming(Arc<Spool>),
}

/// Why a snapshot cannot be sent or taken in.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The spool file failed.
    #[error("the spool file of a snapshot: {0}")]
    Spool(#[from] std::io::Error),
    /// A received snapshot cannot be sent on.
    #[error("this snapshot is on its way in")]
    NotOutgoing,
    /// A chunk that is not the next one.
    #[error("chunk {asked} was asked for after chunk {given}")]
    OutOfOrder {
        /// The number that was asked for.
        asked: u64,
        /// The next number that could be given.
        given: u64,
    },
}

impl SnapshotData {
    /// The export behind an outgoing snapshot.
    pub(crate) fn export(&self) -> Result<Arc<Outgoing>, SnapshotError> {
        match self {
            SnapshotData::Outgoing(outgoing) => Ok(outgoing.clone()),
            SnapshotData::Incoming(_) => Err(SnapshotError::NotOutgoing),
        }
    }
}

/// An export with its place in the sequence of chunks; the last chunk can be asked for again.
pub struct Outgoing {
    position: Position,
    id: String,
    state: Mutex<OutgoingState>,
}

struct OutgoingState {
    export: Export,
    next: u64,
    last: Option<Bytes>,
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Outgoing {
    pub(crate) fn new(position: Position, export: Export) -> Outgoing {
        let id = format!("{}-{}", position.term, position.index);
        Outgoing {
            position,
            id,
            state: Mutex::new(OutgoingState {
                export,
                next: 0,
                last: None,
            }),
        }
    }

    /// The log position that the snapshot covers.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// Names the snapshot among those of its range.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The chunk of that number, counted from 0; `None` after the last one.
    pub(crate) fn chunk(&self, number: u64) -> Result<Option<Bytes>, SnapshotError> {
        let mut state = self.state.lock();
        if number + 1 == state.next {
            return Ok(state.last.clone());
        }
        if number != state.next {
            return Err(SnapshotError::OutOfOrder {
                asked: number,
                given: state.next,
            });
        }
        let chunk = state.export.next().transpose()?;
        state.next += 1;
        state.last = chunk.clone();
        Ok(chunk)
    }
}

impl Outgoing {
    /// All chunks from the first on, for a state machine of the same process.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = Result<Bytes, EngineError>> + '_ {
        let mut number = 0;
        std::iter::from_fn(move || {
            let chunk = self.chunk(number);
            number += 1;
            match chunk {
                Ok(chunk) => chunk.map(Ok),
                Err(SnapshotError::Engine(error)) => Some(Err(error)),
                Err(error) => Some(Err(EngineError::Io {
                    action: "read an outgoing snapshot",
                    source: Arc::new(std::io::Error::other(error)),
                })),
            }
        })
    }
}

/// A file that collects the chunks of one incoming snapshot. Removed when dropped.
#[derive(Debug)]
pub struct Spool {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    state: Mutex<SpoolState>,
}

#[derive(Debug, Default)]
struct SpoolState {
    bytes: u64,
    chunks: u64,
}

impl Spool {
    /// Starts an empty spool file, replacing one of an earlier attempt.
    pub(crate) fn create(disk: Arc<dyn Disk>, path: PathBuf) -> Result<Spool, SnapshotError> {
        let file = disk.open(&path, OpenMode::OpenOrCreate)?;
        file.set_len(0)?;
        Ok(Spool {
            disk,
            path,
            file,
            state: Mutex::default(),
        })
    }

    /// Adds chunk `number` if it is the next one; answers which one is wanted next.
    pub(crate) fn add(&self, number: u64, data: &[u8]) -> Result<u64, SnapshotError> {
        let mut state = self.state.lock();
        if number != state.chunks {
            return Ok(state.chunks);
        }
        let length = u32::try_from(data.len()).map_err(std::io::Error::other)?;
        self.file.write_at(&length.to_le_bytes(), state.bytes)?;
        self.file.write_at(data, state.bytes + LENGTH_BYTES)?;
        state.bytes += LENGTH_BYTES + u64::from(length);
        state.chunks += 1;
        Ok(state.chunks)
    }

    /// Chunks kept so far.
    pub(crate) fn chunk_count(&self) -> u64 {
        self.state.lock().chunks
    }

    /// The chunks, in order. They are verified by the engine that imports them.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = Result<Bytes, EngineError>> + '_ {
        let total = self.state.lock().bytes;
        let mut offset = 0;
        std::iter::from_fn(move || {
            if offset >= total {
                return None;
            }
            let read = self.read(offset);
            offset = read
                .as_ref()
                .map_or(total, |data| offset + LENGTH_BYTES + data.len() as u64);
            Some(read.map_err(|source| EngineError::Io {
                action: "read a snapshot's spool file",
                source: Arc::new(source),
            }))
        })
    }

    fn read(&self, offset: u64) -> std::io::Result<Bytes> {
        let mut length = [0; LENGTH_BYTES as usize];
        self.file.read_at(&mut length, offset)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > CHUNK_BYTES_MAX {
            return Err(std::io::Error::other(format!("a chunk of {length} bytes")));
        }
        let mut data = vec![0; length];
        self.file.read_at(&mut data, offset + LENGTH_BYTES)?;
        Ok(data.into())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // A file that stays behind is replaced by the next transfer.
        let _ = self.disk.remove(&self.path);
    }
}
