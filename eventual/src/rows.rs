//! Where a range's eventual state stands in the engine: the keys of its rows.
//!
//! The eventual plane of a range has a table of its own beside the committed one: same engine,
//! another id, another interval of keys. Its rows are records, an index from leaf to key, hints,
//! and an index of what expires; all change in one step with the clock, which is the table's metadata.
//!
//! Layout of a row's key: the byte `0xe0` (no encoded key of committed state starts so: those
//! start with a keyspace id, which is far smaller), the range id (`u64`, big-endian), the kind
//! (one byte), and then for a record the encoded key; for the index the leaf (`u16`, big-endian)
//! and the encoded key; for a hint the dot (disk `u64`, start `u32`, counter `u64`, big-endian);
//! for an expiry the time of the key's first one (`u64`, big-endian) and the encoded key.

use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::causal::{Actor, Dot};
use quorate_types::{RangeId, Timestamp, prefix_end};

use crate::tree::leaf_of;

/// First byte of all rows of the eventual plane.
const PLANE: u8 = 0xe0;
const RECORD: u8 = 0;
const LEAF: u8 = 1;
const HINT: u8 = 2;
const EXPIRY: u8 = 3;
/// Bytes before what distinguishes a row from others of its kind.
const PREFIX_BYTES: usize = 10;
/// Bytes of the time in the row of an expiry.
const EXPIRY_BYTES: usize = 8;
/// The bit that makes a table's or log group's id one of the eventual plane.
const PLANE_BIT: u64 = 1 << 62;
/// The log group that keeps the node's start number.
pub const STARTS_GROUP: u64 = 1 << 63;

/// The id of a range's eventual table, and of the group of its entries in the node log.
pub const fn plane_id(range: RangeId) -> u64 {
    range.0 | PLANE_BIT
}

/// The range of a table or group of the eventual plane; `None`: it is none.
pub const fn range_of_plane(id: u64) -> Option<RangeId> {
    if id & PLANE_BIT == 0 || id & STARTS_GROUP != 0 {
        return None;
    }
    Some(RangeId(id & !PLANE_BIT))
}

/// The row keys of one range.
#[derive(Clone, Copy, Debug)]
pub struct Rows(RangeId);

impl Rows {
    /// Of a range.
    pub const fn of(range: RangeId) -> Rows {
        Rows(range)
    }

    /// All rows.
    pub fn interval(&self) -> (Bytes, Bytes) {
        let mut start = BytesMut::with_capacity(PREFIX_BYTES);
        start.put_u8(PLANE);
        start.put_u64(self.0.0);
        let end = prefix_end(&start);
        (start.freeze(), end)
    }

    fn prefix(&self, kind: u8, rest: usize) -> BytesMut {
        let mut key = BytesMut::with_capacity(PREFIX_BYTES + rest);
        key.put_u8(PLANE);
        key.put_u64(self.0.0);
        key.put_u8(kind);
        key
    }

    /// The row of a key's record.
    pub fn record(&self, key: &[u8]) -> Bytes {
        let mut row = self.prefix(RECORD, key.len());
        row.put_slice(key);
        row.freeze()
    }

    /// All records from a key on: start and end of the scan.
    pub fn records_from(&self, key: &[u8]) -> (Bytes, Bytes) {
        (self.record(key), prefix_end(&self.record(&[])))
    }

    /// The key of a record's row.
    pub fn key_of(row: &Bytes) -> Bytes {
        row.slice(PREFIX_BYTES.min(row.len())..)
    }

    /// The row that says that a leaf has a key.
    pub fn leaf(&self, key: &[u8]) -> Bytes {
        let mut row = self.prefix(LEAF, 2 + key.len());
        row.put_u16(leaf_of(key));
        row.put_slice(key);
        row.freeze()
    }

    /// The rows of a leaf whose keys come after `after`.
    pub fn leaf_after(&self, leaf: u16, after: &[u8]) -> (Bytes, Bytes) {
        let mut start = self.prefix(LEAF, 2 + after.len() + 1);
        start.put_u16(leaf);
        let end = prefix_end(&start);
        if !after.is_empty() {
            start.put_slice(after);
            start.put_u8(0);
        }
        (start.freeze(), end)
    }

    /// The key of a leaf's row.
    pub fn key_of_leaf(row: &Bytes) -> Bytes {
        row.slice((PREFIX_BYTES + 2).min(row.len())..)
    }

    /// The row that says when the first value of a key expires.
    pub fn expiry(&self, at: Timestamp, key: &[u8]) -> Bytes {
        let mut row = self.prefix(EXPIRY, EXPIRY_BYTES + key.len());
        row.put_u64(at.0);
        row.put_slice(key);
        row.freeze()
    }

    /// The rows of keys of which a value expires at `deadline` or earlier.
    pub fn expired(&self, deadline: Timestamp) -> (Bytes, Bytes) {
        let behind = Timestamp(deadline.0.saturating_add(1));
        let start = self.prefix(EXPIRY, 0).freeze();
        (start, self.expiry(behind, &[]))
    }

    /// The key of such a row.
    pub fn key_of_expiry(row: &Bytes) -> Bytes {
        row.slice((PREFIX_BYTES + EXPIRY_BYTES).min(row.len())..)
    }

    /// The row of a hint.
    pub fn hint(&self, dot: Dot) -> Bytes {
        let mut row = self.prefix(HINT, 20);
        row.put_u64(dot.actor.disk);
        row.put_u32(dot.actor.start);
        row.put_u64(dot.counter);
        row.freeze()
    }

    /// All hints.
    pub fn hints(&self) -> (Bytes, Bytes) {
        let start = self.prefix(HINT, 0).freeze();
        let end = prefix_end(&start);
        (start, end)
    }

    /// The dot of a hint's row.
    pub fn dot_of(row: &[u8]) -> Option<Dot> {
        let rest = row.get(PREFIX_BYTES..)?;
        let (disk, rest) = rest.split_first_chunk::<8>()?;
        let (start, rest) = rest.split_first_chunk::<4>()?;
        let counter: &[u8; 8] = rest.try_into().ok()?;
        let actor = Actor {
            disk: u64::from_be_bytes(*disk),
            start: u32::from_be_bytes(*start),
        };
        Some(Dot::new(actor, u64::from_be_bytes(*counter)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_range_lie_in_its_interval_and_name_their_parts() {
        let rows = Rows::of(RangeId(7));
        let (start, end) = rows.interval();
        let dot = Dot::new(Actor { disk: 3, start: 2 }, 9);
        let expiry = rows.expiry(Timestamp(5), b"k");
        for row in [rows.record(b"k"), rows.leaf(b"k"), rows.hint(dot), expiry] {
            assert!(start <= row && row < end);
        }
        assert_eq!(Rows::key_of(&rows.record(b"k")), "k");
        assert_eq!(Rows::key_of_leaf(&rows.leaf(b"k")), "k");
        assert_eq!(Rows::dot_of(&rows.hint(dot)), Some(dot));
        assert_eq!(Rows::dot_of(b"short"), None);
        assert!(Rows::of(RangeId(8)).interval().0 >= end);
    }

    #[test]
    fn a_leafs_rows_go_on_after_a_key() {
        let rows = Rows::of(RangeId(7));
        let (start, end) = rows.leaf_after(leaf_of(b"k"), b"");
        assert!(start <= rows.leaf(b"k") && rows.leaf(b"k") < end);
        assert!(rows.leaf_after(leaf_of(b"k"), b"k").0 > rows.leaf(b"k"));
    }

    #[test]
    fn what_has_expired_lies_before_what_has_not() {
        let rows = Rows::of(RangeId(7));
        let (start, end) = rows.expired(Timestamp(5));
        let has_expired = |at| {
            let row = rows.expiry(Timestamp(at), b"k");
            assert_eq!(Rows::key_of_expiry(&row), "k");
            start <= row && row < end
        };
        assert_eq!([4, 5, 6].map(has_expired), [true, true, false]);
    }

    #[test]
    fn ids_of_the_plane_are_no_range_ids() {
        assert_eq!(range_of_plane(plane_id(RangeId(5))), Some(RangeId(5)));
        assert_eq!(range_of_plane(5), None);
        assert_eq!(range_of_plane(STARTS_GROUP), None);
    }
}
