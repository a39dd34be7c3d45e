//! What the state machine sees of its range's keys.

use bytes::Bytes;
use quorate_storage::engine::{EngineError, Version};
use quorate_types::Revision;

/// The keys of one range, as of all changes made so far.
pub trait Store {
    /// The live version of a key.
    fn get(&mut self, key: &[u8]) -> Result<Option<Version>, EngineError>;
    /// The first `limit` live keys of `[start, end)`; an empty `end` is unbounded.
    fn keys(&mut self, start: &Bytes, end: &Bytes, limit: usize)
    -> Result<Vec<Bytes>, EngineError>;
    /// All live keys of `[start, end)` in their order, with their versions: as of now, or as they
    /// were at a revision that is not collected.
    fn scan(
        &mut self,
        start: &Bytes,
        end: &Bytes,
        at: Option<Revision>,
        see: &mut dyn FnMut(Bytes, Version),
    ) -> Result<(), EngineError>;
    /// Bytes of all live keys and values.
    fn stored_bytes(&mut self) -> Result<u64, EngineError>;
    /// Writes a key.
    fn put(&mut self, key: Bytes, version: Version);
    /// Removes a key.
    fn delete(&mut self, key: Bytes, revision: Revision);
    /// Versions superseded at or below it may go.
    fn collect_below(&mut self, floor: Revision);
    /// Whether superseded versions are kept from here on.
    fn keep_history(&mut self, keep: bool);
}
