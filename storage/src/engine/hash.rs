//! A hash of a range's logical state, for comparing replicas.
//!
//! FNV-1a with a 128-bit state, over words of eight bytes, folded after each
//! word so that high bits reach low ones (G. Fowler, L. C. Noll, K.-P. Vo,
//! "The FNV Non-Cryptographic Hash Algorithm"). It finds mistakes, not
//! attackers. Equal input gives equal output on every machine and in every
//! version of this program.

use super::Version;

const OFFSET_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = (1 << 88) + 0x13b;

/// Hash of the rows given so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct StateHash {
    state: u128,
}

impl StateHash {
    pub(super) fn new() -> Self {
        Self {
            state: OFFSET_BASIS,
        }
    }

    /// Takes a row; rows come in the order of their keys.
    pub(super) fn row(&mut self, key: &[u8], version: &Version) {
        self.bytes(key);
        self.word(version.revision);
        let has_causal = u64::from(version.causal.is_some());
        self.word(u64::from(version.expiry.is_some()) | has_causal << 1);
        self.word(version.expiry.unwrap_or(0));
        self.bytes(&version.value);
        if let Some(causal) = &version.causal {
            self.bytes(causal);
        }
    }

    pub(super) fn finish(mut self, rows: u64) -> [u8; 16] {
        self.word(rows);
        self.state.to_be_bytes()
    }

    /// Bytes with their length, so that no two inputs run together.
    fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            let word = word.try_into().expect("chunks of eight bytes");
            self.word(u64::from_le_bytes(word));
        }
        let mut last = [0; 8];
        last[..words.remainder().len()].copy_from_slice(words.remainder());
        self.word(u64::from_le_bytes(last));
    }

    fn word(&mut self, word: u64) {
        self.state = (self.state ^ u128::from(word)).wrapping_mul(PRIME);
        self.state ^= self.state >> 64;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn hash(rows: &[(&'static str, u64, Option<u64>, &'static str)]) -> [u8; 16] {
        let mut hash = StateHash::new();
        for (key, revision, expiry, value) in rows {
            let value = Bytes::from_static(value.as_bytes());
            let version = Version {
                revision: *revision,
                expiry: *expiry,
                value,
                causal: None,
            };
            hash.row(key.as_bytes(), &version);
        }
        hash.finish(rows.len() as u64)
    }

    #[test]
    fn every_part_counts() {
        let base = hash(&[("a", 1, None, "value")]);
        let others = [
            hash(&[]),
            hash(&[("b", 1, None, "value")]),
            hash(&[("a", 2, None, "value")]),
            hash(&[("a", 1, Some(0), "value")]),
            hash(&[("a", 1, None, "valuf")]),
            hash(&[("a", 1, None, "value"), ("b", 1, None, "")]),
        ];
        for (at, other) in others.iter().enumerate() {
            assert_ne!(base, *other, "{at}");
            assert!(!others[..at].contains(other), "{at}");
        }
        assert_eq!(base, hash(&[("a", 1, None, "value")]));
    }
}
