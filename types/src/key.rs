//! Encoded keys: keyspace, partition and user key in one byte string that sorts as its
//! parts do; and intervals over them.
//!
//! Layout: keyspace id (`u32`, big-endian), then for `hash(n)` the bucket (`u16`,
//! big-endian) and for `ordered` nothing, then the user key's bytes as they are. The user
//! key comes last, so it needs no escaping and no length.

use std::fmt;
use std::str::FromStr;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::error::ParseError;
use crate::hex;
use crate::ids::KeyspaceId;
use crate::limits::PARTITIONS_MAX;
use crate::stable_hash::stable_hash;

/// User keys that start with it are Quorate's own: the steps of configuration, their contents.
pub const RESERVED_PREFIX: &str = ".quorate/";

const KEYSPACE_BYTES: usize = size_of::<u32>();
const BUCKET_BYTES: usize = size_of::<u16>();

/// How a keyspace's keys are laid out over ranges. Fixed at its creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Partitioning {
    /// In key order: scans and prefixes stay in few ranges.
    #[default]
    Ordered,
    /// By hash over that many buckets, each a range from the start, each ordered within.
    Hash(u16),
}

impl Partitioning {
    /// How many ranges a new keyspace starts with.
    pub const fn buckets(&self) -> u16 {
        match self {
            Self::Ordered | Self::Hash(0) => 1,
            Self::Hash(buckets) => *buckets,
        }
    }

    /// The bucket of a user key; `None` where there are no buckets.
    pub fn bucket_of(&self, key: &[u8]) -> Option<u16> {
        match self {
            Self::Ordered => None,
            Self::Hash(_) => {
                let bucket = stable_hash(key) % u64::from(self.buckets());
                Some(u16::try_from(bucket).expect("a remainder is below its u16 divisor"))
            }
        }
    }

    /// Bytes before the user key in an encoded key.
    pub const fn prefix_bytes(&self) -> usize {
        match self {
            Self::Ordered => KEYSPACE_BYTES,
            Self::Hash(_) => KEYSPACE_BYTES + BUCKET_BYTES,
        }
    }

    /// The intervals of a new keyspace's ranges, in key order: each begins where the one
    /// before it ends, the first begins and the last ends with the keyspace.
    pub fn intervals(&self, keyspace: KeyspaceId) -> Vec<KeyInterval> {
        let whole = keyspace_interval(keyspace);
        let mut intervals: Vec<KeyInterval> = (0..self.buckets())
            .map(|bucket| partition_interval(keyspace, bucket))
            .collect();
        if let Some(first) = intervals.first_mut() {
            first.start = whole.start;
        }
        if let Some(last) = intervals.last_mut() {
            last.end = whole.end;
        }
        intervals
    }
}

impl fmt::Display for Partitioning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ordered => f.write_str("ordered"),
            Self::Hash(buckets) => write!(f, "hash({buckets})"),
        }
    }
}

impl FromStr for Partitioning {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text == "ordered" {
            return Ok(Self::Ordered);
        }
        text.strip_prefix("hash(")
            .and_then(|rest| rest.strip_suffix(')'))
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .filter(|buckets| (1..=PARTITIONS_MAX).contains(buckets))
            .map(Self::Hash)
            .ok_or_else(|| {
                let allowed = format!("ordered, hash(n) with n from 1 to {PARTITIONS_MAX}");
                ParseError::new("partitioning", text, allowed)
            })
    }
}

impl From<Partitioning> for String {
    fn from(partitioning: Partitioning) -> Self {
        partitioning.to_string()
    }
}

impl TryFrom<String> for Partitioning {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

/// The encoded key of a user key.
pub fn encode_key(keyspace: KeyspaceId, partitioning: &Partitioning, key: &[u8]) -> Bytes {
    encode_parts(keyspace, partitioning.bucket_of(key), key)
}

/// Keyspace, bucket where there is one, and the rest, in one byte string.
fn encode_parts(keyspace: KeyspaceId, bucket: Option<u16>, rest: &[u8]) -> Bytes {
    let mut encoded = BytesMut::with_capacity(KEYSPACE_BYTES + BUCKET_BYTES + rest.len());
    encoded.put_u32(keyspace.0);
    if let Some(bucket) = bucket {
        encoded.put_u16(bucket);
    }
    encoded.put_slice(rest);
    encoded.freeze()
}

/// Keyspace and user key of an encoded key; `None` if it is too short, or its bucket is not
/// the one that its user key hashes to.
pub fn decode_key(partitioning: &Partitioning, encoded: &[u8]) -> Option<(KeyspaceId, Bytes)> {
    let (keyspace, rest) = encoded.split_first_chunk::<KEYSPACE_BYTES>()?;
    let keyspace = KeyspaceId(u32::from_be_bytes(*keyspace));
    let key = match partitioning {
        Partitioning::Ordered => rest,
        Partitioning::Hash(_) => {
            let (bucket, key) = rest.split_first_chunk::<BUCKET_BYTES>()?;
            if partitioning.bucket_of(key) != Some(u16::from_be_bytes(*bucket)) {
                return None;
            }
            key
        }
    };
    Some((keyspace, Bytes::copy_from_slice(key)))
}

/// All encoded keys from `start` up to but without `end`; an empty `end` means no end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyInterval {
    /// The first key.
    #[serde(with = "crate::hex")]
    pub start: Bytes,
    /// The first key after the interval; empty: there is none.
    #[serde(with = "crate::hex")]
    pub end: Bytes,
}

impl KeyInterval {
    /// The keys from `start` up to but without `end`; an empty `end` means no end.
    pub const fn new(start: Bytes, end: Bytes) -> Self {
        Self { start, end }
    }

    /// All keys.
    pub const fn all() -> Self {
        Self::new(Bytes::new(), Bytes::new())
    }

    /// All keys that begin with `prefix`.
    pub fn with_prefix(prefix: &[u8]) -> Self {
        Self::new(Bytes::copy_from_slice(prefix), prefix_end(prefix))
    }

    /// Whether `key` lies inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && self.ends_after(key)
    }

    /// Whether every key of `other` lies inside.
    pub fn contains_interval(&self, other: &Self) -> bool {
        other.is_empty() || self.intersect(other) == *other
    }

    /// Whether no key lies inside.
    pub fn is_empty(&self) -> bool {
        !self.ends_after(&self.start)
    }

    /// Whether some key lies in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        !self.intersect(other).is_empty()
    }

    /// The keys in both; may be empty.
    pub fn intersect(&self, other: &Self) -> Self {
        let end = if other.end.is_empty() || (!self.end.is_empty() && self.end <= other.end) {
            &self.end
        } else {
            &other.end
        };
        Self::new((&self.start).max(&other.start).clone(), end.clone())
    }

    fn ends_after(&self, key: &[u8]) -> bool {
        self.end.is_empty() || key < &self.end[..]
    }
}

impl fmt::Display for KeyInterval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.end.is_empty() {
            "∞".to_owned()
        } else {
            hex::encode(&self.end)
        };
        write!(f, "[{}, {end})", hex::encode(&self.start))
    }
}

/// All encoded keys of a keyspace.
pub fn keyspace_interval(keyspace: KeyspaceId) -> KeyInterval {
    KeyInterval::with_prefix(&encode_parts(keyspace, None, &[]))
}

/// All encoded keys of one bucket of a keyspace with `hash(n)`. It ends where the next
/// bucket's begins.
pub fn partition_interval(keyspace: KeyspaceId, bucket: u16) -> KeyInterval {
    let end = bucket.checked_add(1).map_or_else(
        || keyspace_interval(keyspace).end,
        |next| encode_parts(keyspace, Some(next), &[]),
    );
    KeyInterval::new(encode_parts(keyspace, Some(bucket), &[]), end)
}

/// The encoded keys of user keys from `start` up to but without `end` in one bucket, or in
/// a keyspace without buckets; an empty `end` means up to the end of that bucket or keyspace.
pub fn user_interval(
    keyspace: KeyspaceId,
    bucket: Option<u16>,
    start: &[u8],
    end: &[u8],
) -> KeyInterval {
    let end = if end.is_empty() {
        bucket.map_or_else(
            || keyspace_interval(keyspace).end,
            |bucket| partition_interval(keyspace, bucket).end,
        )
    } else {
        encode_parts(keyspace, bucket, end)
    };
    KeyInterval::new(encode_parts(keyspace, bucket, start), end)
}

/// The first key after all keys with this prefix; empty if there is none, which is so for a
/// prefix of nothing but `0xff`.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX);
    kept.map_or_else(Bytes::new, |last| {
        let mut end = BytesMut::from(&prefix[..=last]);
        end[last] += 1;
        end.freeze()
    })
}
