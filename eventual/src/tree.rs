//! The hash tree of a range: what two replicas compare to find the keys in which they differ.
//!
//! Two levels of [`FANOUT`]: 65,536 leaves, each the sum of the hashes of its keys' records,
//! 256 branches, each the sum of its leaves, and a root, the sum of all. Since sums are changed by
//! subtracting the old hash and adding the new one, a write touches three numbers, and no scan is
//! ever needed to keep the tree up to date (an incremental multiset hash: Clarke et al. 2003,
//! MSet-Add-Hash). A branch without keys takes no memory.
//!
//! Not here: who compares when (`repair`), and where keys of a leaf are found (`rows`).

use quorate_types::{stable_hash, stable_hash_both};

/// Branches of the root, and leaves of a branch.
pub const FANOUT: usize = 256;
/// Leaves of a tree.
pub const LEAVES: usize = FANOUT * FANOUT;
/// Bytes of a hash or sum on the wire.
pub const SUM_BYTES: usize = 16;

/// A record's hash, or a sum of hashes modulo 2^128.
pub type Sum = u128;

/// Distinguishes the two halves of a hash.
const SECOND_HALF: u8 = 0x5a;

/// The leaf of a key.
pub fn leaf_of(key: &[u8]) -> u16 {
    let [first, second, ..] = stable_hash(key).to_be_bytes();
    u16::from_be_bytes([first, second])
}

/// A hash of 128 bits; equal inputs have equal hashes on all nodes.
pub fn hash_of(bytes: &[u8]) -> Sum {
    let (high, low) = stable_hash_both(bytes, SECOND_HALF);
    (u128::from(high) << 64) | u128::from(low)
}

/// One branch: the sum of its leaves, and they.
#[derive(Clone, Debug, Default)]
struct Branch {
    sum: Sum,
    leaves: Option<Box<[Sum; FANOUT]>>,
}

/// The hash tree of one replica of a range.
#[derive(Clone, Debug)]
pub struct HashTree {
    root: Sum,
    branches: Vec<Branch>,
    keys: u64,
}

impl Default for HashTree {
    fn default() -> Self {
        HashTree {
            root: 0,
            branches: vec![Branch::default(); FANOUT],
            keys: 0,
        }
    }
}

impl HashTree {
    /// Takes note that a key's record has another hash; `None`: there is no record.
    pub fn change(&mut self, key: &[u8], old: Option<Sum>, new: Option<Sum>) {
        if old == new {
            return;
        }
        self.keys = self.keys + u64::from(new.is_some()) - u64::from(old.is_some());
        let change = new.unwrap_or(0).wrapping_sub(old.unwrap_or(0));
        let leaf = usize::from(leaf_of(key));
        let branch = &mut self.branches[leaf / FANOUT];
        let leaves = branch.leaves.get_or_insert_with(|| Box::new([0; FANOUT]));
        leaves[leaf % FANOUT] = leaves[leaf % FANOUT].wrapping_add(change);
        branch.sum = branch.sum.wrapping_add(change);
        self.root = self.root.wrapping_add(change);
    }

    /// The sum of all records.
    pub fn root(&self) -> Sum {
        self.root
    }

    /// Keys with a record.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// The sums of all branches.
    pub fn branches(&self) -> Vec<Sum> {
        self.branches.iter().map(|branch| branch.sum).collect()
    }

    /// The sums of a branch's leaves; zeros where there is no such branch.
    pub fn leaves(&self, branch: usize) -> [Sum; FANOUT] {
        let branch = self.branches.get(branch);
        branch
            .and_then(|branch| branch.leaves.as_deref().copied())
            .unwrap_or([0; FANOUT])
    }
}

/// Sums as they travel.
pub fn encode_sums(sums: &[Sum]) -> Vec<u8> {
    sums.iter().flat_map(|sum| sum.to_be_bytes()).collect()
}

/// Sums as they came; `None`: not [`FANOUT`] of them.
pub fn decode_sums(bytes: &[u8]) -> Option<Vec<Sum>> {
    let (sums, rest) = bytes.as_chunks::<SUM_BYTES>();
    (rest.is_empty() && sums.len() == FANOUT)
        .then(|| sums.iter().map(|sum| Sum::from_be_bytes(*sum)).collect())
}

/// The places at which two lists differ.
pub fn differing(ours: &[Sum], theirs: &[Sum]) -> Vec<usize> {
    let pairs = ours.iter().zip(theirs).enumerate();
    pairs
        .filter(|(_, (our, their))| our != their)
        .map(|(at, _)| at)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn hash(value: u64) -> Sum {
        hash_of(&value.to_be_bytes())
    }

    proptest! {
        /// However it came about, the tree is a function of the records alone.
        #[test]
        fn the_tree_depends_on_the_records_alone(
            changes in prop::collection::vec((0_u8..20, prop::option::of(0_u64..5)), 0..200)
        ) {
            let mut tree = HashTree::default();
            let mut records = std::collections::BTreeMap::new();
            for (key, value) in changes {
                let new = value.map(hash);
                let old = match new {
                    Some(new) => records.insert(key, new),
                    None => records.remove(&key),
                };
                tree.change(&[key], old, new);
            }
            let mut fresh = HashTree::default();
            for (key, record) in &records {
                fresh.change(&[*key], None, Some(*record));
            }
            prop_assert_eq!(tree.root(), fresh.root());
            prop_assert_eq!(tree.keys(), records.len() as u64);
            prop_assert_eq!(tree.branches(), fresh.branches());
            for branch in 0..FANOUT {
                prop_assert_eq!(tree.leaves(branch), fresh.leaves(branch));
            }
        }
    }

    #[test]
    fn a_difference_is_found_from_the_root_down() {
        let (mut ours, mut theirs) = (HashTree::default(), HashTree::default());
        for key in 0..1_000_u32 {
            let record = Some(hash(u64::from(key)));
            ours.change(&key.to_be_bytes(), None, record);
            theirs.change(&key.to_be_bytes(), None, record);
        }
        assert_eq!(ours.root(), theirs.root());
        let key = 77_u32.to_be_bytes();
        theirs.change(&key, Some(hash(77)), Some(hash(78)));
        let leaf = usize::from(leaf_of(&key));
        let sums = decode_sums(&encode_sums(&theirs.branches())).unwrap();
        assert_eq!(differing(&ours.branches(), &sums), [leaf / FANOUT]);
        let (ours, theirs) = (ours.leaves(leaf / FANOUT), theirs.leaves(leaf / FANOUT));
        assert_eq!(differing(&ours, &theirs), [leaf % FANOUT]);
    }

    #[test]
    fn sums_of_another_number_are_refused() {
        assert_eq!(decode_sums(&[0; SUM_BYTES]), None);
        assert_eq!(decode_sums(&[0; SUM_BYTES * FANOUT + 1]), None);
        assert!(decode_sums(&[0; SUM_BYTES * FANOUT]).is_some());
    }
}
