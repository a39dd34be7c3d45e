//! The hash that placement and partitioning rest on. Stored keys depend on its values, so
//! it never changes; a test holds golden values. Not for hash maps, and not against
//! adversaries.
//!
//! FNV-1a with 64 bits (Fowler, Noll, Vo) over the bytes, finished by the mixer of
//! splitmix64 (Steele, Lea, Flood 2014), because the high bits of FNV-1a alone hardly move
//! on short inputs.

const FNV_OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The step between states of splitmix64: 2^64 divided by the golden ratio.
pub(crate) const GOLDEN_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A hash of `bytes` that is the same on every machine and in every version.
pub fn stable_hash(bytes: &[u8]) -> u64 {
    mix(bytes.iter().fold(FNV_OFFSET_BASIS, fnv_step))
}

/// The hashes of `bytes`, and of `bytes` with `last` behind them, in one pass.
pub fn stable_hash_both(bytes: &[u8], last: u8) -> (u64, u64) {
    let fnv = bytes.iter().fold(FNV_OFFSET_BASIS, fnv_step);
    (mix(fnv), mix(fnv_step(fnv, &last)))
}

fn fnv_step(hash: u64, byte: &u8) -> u64 {
    (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME)
}

/// The output function of splitmix64: a bijection whose every output bit depends on every
/// input bit.
pub(crate) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
