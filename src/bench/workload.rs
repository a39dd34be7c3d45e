//! What is asked: the mix of requests, their keys and values, repeatable from a seed.
//!
//! Pure: no clock, no sockets.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use thiserror::Error;

use super::target::Operation;

/// Random bytes that values are cut from; they do not compress.
const VALUE_POOL_BYTES: usize = 1 << 20;

/// A mix of requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Workload {
    /// Puts only.
    Put,
    /// Gets only.
    Get,
    /// This share of gets, from 0 to 1, the rest puts.
    Mixed(f64),
    /// Scans only.
    Scan,
}

/// A text that is no workload.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no workload; allowed: put, get, scan, mixed:SHARE_OF_GETS as in mixed:0.9")]
pub struct WorkloadError(String);

impl Workload {
    /// Whether keys must be there before it can begin.
    pub const fn reads(&self) -> bool {
        !matches!(self, Self::Put)
    }
}

impl FromStr for Workload {
    type Err = WorkloadError;

    fn from_str(text: &str) -> Result<Self, WorkloadError> {
        let refused = || WorkloadError(text.chars().take(80).collect());
        match text.split_once(':') {
            None if text == "put" => Ok(Self::Put),
            None if text == "get" => Ok(Self::Get),
            None if text == "scan" => Ok(Self::Scan),
            Some(("mixed", share)) => share
                .parse()
                .ok()
                .filter(|share| (0.0..=1.0).contains(share))
                .map(Self::Mixed)
                .ok_or_else(refused),
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put => f.write_str("put"),
            Self::Get => f.write_str("get"),
            Self::Scan => f.write_str("scan"),
            Self::Mixed(share) => write!(f, "mixed:{share}"),
        }
    }
}

/// The name of a key by its number: all are of one length, and sort as the numbers do.
pub fn key(number: u64) -> Bytes {
    Bytes::from(format!("bench/{number:012}"))
}

/// A small seeded generator (splitmix64, Steele et al. 2014): the same seed, the same load.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator whose numbers follow from `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product: a bias of at most bound / 2^64.
        ((self.next() as u128 * bound as u128) >> 64) as u64
    }

    /// From 0 to below 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Draws requests.
#[derive(Clone, Debug)]
pub(super) struct Draw {
    workload: Workload,
    keys: u64,
    scan_rows: u32,
    value_bytes: usize,
    pool: Bytes,
}

impl Draw {
    pub(super) fn new(workload: Workload, keys: u64, value_bytes: usize, scan_rows: u32) -> Self {
        let mut random = Random::new(0);
        let words = (VALUE_POOL_BYTES + value_bytes).div_ceil(8);
        let pool: Vec<u8> = (0..words)
            .flat_map(|_| random.next().to_le_bytes())
            .collect();
        Self {
            workload,
            keys,
            scan_rows,
            value_bytes,
            pool: Bytes::from(pool),
        }
    }

    pub(super) fn value(&self, random: &mut Random) -> Bytes {
        let start = random.below(VALUE_POOL_BYTES as u64) as usize;
        self.pool.slice(start..start + self.value_bytes)
    }

    pub(super) fn operation(&self, random: &mut Random) -> Operation {
        let key = key(random.below(self.keys));
        let get = match self.workload {
            Workload::Put => false,
            Workload::Get => true,
            Workload::Mixed(share) => random.unit() < share,
            Workload::Scan => {
                return Operation::Scan {
                    start: key,
                    rows: self.scan_rows,
                };
            }
        };
        if get {
            return Operation::Get { key };
        }
        Operation::Put {
            key,
            value: self.value(random),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn workloads_round_trip_and_wrong_ones_say_what_is_allowed() {
        for text in ["put", "get", "scan", "mixed:0.9", "mixed:0", "mixed:1"] {
            assert_eq!(text.parse::<Workload>().unwrap().to_string(), text);
        }
        for text in ["", "puts", "mixed", "mixed:1.1", "mixed:-1", "mixed:NaN"] {
            let error = text.parse::<Workload>().unwrap_err().to_string();
            assert!(error.contains("allowed: put"), "{error}");
        }
    }

    #[test]
    fn a_mix_has_its_share_of_gets_and_keys_in_bounds() {
        let draw = Draw::new(Workload::Mixed(0.9), 10, 16, 0);
        let mut random = Random::new(7);
        let drawn: Vec<Operation> = (0..10_000).map(|_| draw.operation(&mut random)).collect();
        let gets = drawn
            .iter()
            .filter(|it| matches!(it, Operation::Get { .. }))
            .count();
        assert!((8_800..=9_200).contains(&gets), "{gets}");
        for operation in drawn {
            match operation {
                Operation::Get { key } => assert!(key < self::key(10)),
                Operation::Put { key, value } => {
                    assert!(key < self::key(10));
                    assert_eq!(value.len(), 16);
                }
                Operation::Scan { .. } => panic!("no scan in this mix"),
            }
        }
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let draw = Draw::new(Workload::Put, 1000, 8, 0);
        let (mut one, mut other) = (Random::new(3), Random::new(3));
        for _ in 0..100 {
            assert_eq!(draw.operation(&mut one), draw.operation(&mut other));
        }
    }
}
