//! When committed values expire: an index of (expiry, key), kept by every replica and used by the
//! leader, which proposes what is due. Nothing is removed here: the log decides.

use std::collections::BTreeSet;

use bytes::Bytes;

/// Keys with an expiry, soonest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpiryIndex {
    due: BTreeSet<(u64, Bytes)>,
    added: BTreeSet<(u64, Bytes)>,
    removed: BTreeSet<(u64, Bytes)>,
}

impl ExpiryIndex {
    /// Rebuilds the index from stored entries (see [`ExpiryIndex::meta_key`]).
    pub fn restore(stored: impl IntoIterator<Item = (u64, Bytes)>) -> ExpiryIndex {
        ExpiryIndex {
            due: stored.into_iter().collect(),
            ..ExpiryIndex::default()
        }
    }

    /// A value of `key` that expires at `at` (microseconds since the epoch) was written.
    ///
    /// An older entry of the key may stay: it is dropped when it comes due and does not match.
    pub fn insert(&mut self, at: u64, key: Bytes) {
        let entry = (at, key);
        self.removed.remove(&entry);
        if self.due.insert(entry.clone()) {
            self.added.insert(entry);
        }
    }

    /// Forgets an entry that came due.
    pub fn remove(&mut self, at: u64, key: &Bytes) {
        let entry = (at, key.clone());
        if self.due.remove(&entry) && !self.added.remove(&entry) {
            self.removed.insert(entry);
        }
    }

    /// Up to `limit` entries that are due at `now`, soonest first.
    pub fn due(&self, now: u64, limit: usize) -> Vec<(u64, Bytes)> {
        self.due
            .iter()
            .take_while(|(at, _)| *at <= now)
            .take(limit)
            .cloned()
            .collect()
    }

    /// The soonest expiry.
    pub fn next(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// What changed since the last call: entries to store (`true`) and to remove (`false`).
    pub fn take_changes(&mut self) -> Vec<(u64, Bytes, bool)> {
        let added = std::mem::take(&mut self.added)
            .into_iter()
            .map(|(at, key)| (at, key, true));
        let removed = std::mem::take(&mut self.removed).into_iter();
        added
            .chain(removed.map(|(at, key)| (at, key, false)))
            .collect()
    }

    /// The name of an entry in the range's metadata: `x`, expiry, key.
    pub fn meta_key(at: u64, key: &[u8]) -> Bytes {
        [b"x".as_slice(), &at.to_be_bytes(), key].concat().into()
    }

    /// The inverse of [`ExpiryIndex::meta_key`].
    pub fn parse_meta_key(name: &[u8]) -> Option<(u64, Bytes)> {
        let (at, key) = name.strip_prefix(b"x")?.split_first_chunk::<8>()?;
        Some((u64::from_be_bytes(*at), Bytes::copy_from_slice(key)))
    }
}
