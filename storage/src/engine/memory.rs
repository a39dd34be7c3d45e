//! Versions in memory: what was applied and is not in a file yet.
//!
//! One table is the active one of its range and takes writes; all others are
//! immutable and wait for their flush. Plain code over values: no locks here.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::{Change, Version};

/// What a key costs beside its bytes: tree node, handles, allocations. An
/// estimate, on the high side.
const ROW_OVERHEAD_BYTES: usize = 160;
/// What one more version of a key costs beside its bytes.
const SLOT_OVERHEAD_BYTES: usize = 96;
/// Keys and values up to this size are copied, so that they do not keep the
/// (much larger) message alive that they arrived in.
const COPY_BYTES_MAX: usize = 1024;

/// One version of a key, or the mark of its deletion.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) revision: u64,
    expiry: Option<u64>,
    /// Boxed, since few versions have one.
    causal: Option<Box<Bytes>>,
    /// None: deleted.
    value: Option<Bytes>,
}

impl Slot {
    pub(super) fn version(&self) -> Option<Version> {
        self.value.as_ref().map(|value| Version {
            revision: self.revision,
            expiry: self.expiry,
            value: value.clone(),
            causal: self.causal.as_deref().cloned(),
        })
    }

    fn bytes(&self) -> usize {
        let causal = self.causal.as_ref().map_or(0, |causal| causal.len());
        SLOT_OVERHEAD_BYTES + causal + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// Versions of one key, oldest first; never empty. Most keys have one, which
/// costs no allocation.
#[derive(Clone, Debug)]
pub(super) enum Slots {
    One(Slot),
    Many(Vec<Slot>),
}

impl Slots {
    pub(super) fn as_slice(&self) -> &[Slot] {
        match self {
            Self::One(slot) => std::slice::from_ref(slot),
            Self::Many(slots) => slots,
        }
    }

    pub(super) fn newest(&self) -> &Slot {
        self.as_slice()
            .last()
            .expect("a key in memory has a version")
    }

    /// The newest version at or below `at`.
    pub(super) fn visible(&self, at: Option<u64>) -> Option<&Slot> {
        match at {
            None => Some(self.newest()),
            Some(at) => self
                .as_slice()
                .iter()
                .rev()
                .find(|slot| slot.revision <= at),
        }
    }

    /// Adds a version, drops those that ended at or below `floor`, and says by
    /// how many bytes the key grew or shrank.
    fn push(&mut self, slot: Slot, floor: u64) -> isize {
        let added = slot.bytes() as isize;
        match self {
            Self::One(old) if slot.revision <= floor => {
                let gone = old.bytes() as isize;
                *old = slot;
                added - gone
            }
            Self::One(old) => {
                *self = Self::Many(vec![old.clone(), slot]);
                added
            }
            Self::Many(slots) => {
                slots.push(slot);
                // A version ends where the next begins.
                let ended = slots[1..].iter().take_while(|next| next.revision <= floor);
                let ended = ended.count();
                let gone: usize = slots.drain(..ended).map(|slot| slot.bytes()).sum();
                added - gone as isize
            }
        }
    }
}

/// Sorted versions of many keys.
#[derive(Debug, Default)]
pub(super) struct MemTable {
    rows: BTreeMap<Bytes, Slots>,
    bytes: usize,
    last_revision: u64,
}

impl MemTable {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Memory that the table takes, estimated.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Highest revision of its versions; 0: there is none.
    pub(super) fn last_revision(&self) -> u64 {
        self.last_revision
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Slots> {
        self.rows.get(key)
    }

    /// Takes a change. What ended at or below `floor` is dropped at once.
    pub(super) fn push(&mut self, change: Change, floor: u64) {
        let (key, slot) = match change {
            Change::Put { key, version } => {
                let slot = Slot {
                    revision: version.revision,
                    expiry: version.expiry,
                    causal: version.causal.map(|causal| Box::new(own(causal))),
                    value: Some(own(version.value)),
                };
                (key, slot)
            }
            Change::Delete { key, revision } => {
                let slot = Slot {
                    revision,
                    expiry: None,
                    causal: None,
                    value: None,
                };
                (key, slot)
            }
        };
        self.last_revision = self.last_revision.max(slot.revision);
        // Most writes are of keys that are here: those need no copy of the key.
        if let Some(row) = self.rows.get_mut(key.as_ref()) {
            let grown = row.push(slot, floor);
            self.bytes = self.bytes.saturating_add_signed(grown);
            return;
        }
        let key = own(key);
        self.bytes += ROW_OVERHEAD_BYTES + key.len() + slot.bytes();
        self.rows.insert(key, Slots::One(slot));
    }

    /// Keys from `start` up to, not including, `end` (None: no end).
    pub(super) fn range<'a>(
        &'a self,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&'a Bytes, &'a Slots)> + use<'a> {
        let end = match end {
            // BTreeMap panics on a range that ends before it starts.
            Some(end) => Bound::Excluded(end.max(start)),
            None => Bound::Unbounded,
        };
        self.rows.range::<[u8], _>((Bound::Included(start), end))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Bytes, &Slots)> {
        self.rows.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}

/// The same bytes, alone in their allocation where they are small.
fn own(bytes: Bytes) -> Bytes {
    if bytes.len() > COPY_BYTES_MAX {
        return bytes;
    }
    Bytes::copy_from_slice(&bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn put(table: &mut MemTable, revision: u64, floor: u64) {
        let version = Version {
            revision,
            expiry: None,
            value: Bytes::from_static(b"v"),
            causal: None,
        };
        let key = Bytes::from_static(b"k");
        table.push(Change::Put { key, version }, floor);
    }

    fn revisions(table: &MemTable) -> Vec<u64> {
        let slots = table.get(b"k").unwrap();
        slots.as_slice().iter().map(|slot| slot.revision).collect()
    }

    #[test]
    fn versions_below_the_floor_leave_and_give_their_bytes_back() {
        let mut table = MemTable::default();
        put(&mut table, 1, 0);
        let one = table.bytes();
        put(&mut table, 2, 0);
        put(&mut table, 3, 0);
        assert_eq!(revisions(&table), [1, 2, 3]);
        put(&mut table, 4, 2);
        assert_eq!(revisions(&table), [2, 3, 4]);
        put(&mut table, 5, 5);
        assert_eq!(revisions(&table), [5]);
        assert_eq!(table.bytes(), one);
        let at = |at| {
            table
                .get(b"k")
                .unwrap()
                .visible(Some(at))
                .map(|slot| slot.revision)
        };
        assert_eq!((at(4), at(5), at(9)), (None, Some(5), Some(5)));
    }
}
