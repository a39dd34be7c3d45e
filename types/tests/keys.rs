//! Encoded keys sort as their parts do, intervals say what they hold, and the hash behind
//! buckets never changes.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::prelude::*;
use quorate_types::{
    KeyInterval, KeyspaceId, Partitioning, decode_key, encode_key, keyspace_interval,
    partition_interval, prefix_end, stable_hash, stable_hash_both, user_interval,
};

fn partitioning() -> impl Strategy<Value = Partitioning> {
    prop_oneof![
        Just(Partitioning::Ordered),
        (1..=4096_u16).prop_map(Partitioning::Hash)
    ]
}

/// Short keys over few bytes, so that prefixes and equal keys happen.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0_u8), Just(0x61), Just(0xfe), Just(0xff)];
    proptest::collection::vec(byte, 0..5)
}

fn interval() -> impl Strategy<Value = KeyInterval> {
    (key(), key()).prop_map(|(start, end)| KeyInterval::new(start.into(), end.into()))
}

proptest! {
    #[test]
    fn keys_round_trip(keyspace: u32, partitioning in partitioning(), key: Vec<u8>) {
        let encoded = encode_key(KeyspaceId(keyspace), &partitioning, &key);
        prop_assert_eq!(encoded.len(), partitioning.prefix_bytes() + key.len());
        let decoded = decode_key(&partitioning, &encoded);
        prop_assert_eq!(decoded, Some((KeyspaceId(keyspace), Bytes::from(key))));
    }

    #[test]
    fn encoded_keys_sort_as_their_parts(
        a in (0..3_u32, key()),
        b in (0..3_u32, key()),
        partitioning in partitioning(),
    ) {
        let parts = |(keyspace, key): &(u32, Vec<u8>)| {
            (*keyspace, partitioning.bucket_of(key), key.clone())
        };
        let encode = |(keyspace, key): &(u32, Vec<u8>)| {
            encode_key(KeyspaceId(*keyspace), &partitioning, key)
        };
        prop_assert_eq!(encode(&a).cmp(&encode(&b)), parts(&a).cmp(&parts(&b)));
    }

    #[test]
    fn a_key_lies_in_exactly_one_interval_of_its_keyspace(
        keyspace in prop_oneof![any::<u32>(), Just(u32::MAX)],
        partitioning in partitioning(),
        key: Vec<u8>,
    ) {
        let keyspace = KeyspaceId(keyspace);
        let encoded = encode_key(keyspace, &partitioning, &key);
        let intervals = partitioning.intervals(keyspace);
        prop_assert_eq!(intervals.len(), usize::from(partitioning.buckets()));
        let holding = intervals.iter().filter(|interval| interval.contains(&encoded)).count();
        prop_assert_eq!(holding, 1);
        prop_assert!(keyspace_interval(keyspace).contains(&encoded));
        let neighbour = KeyspaceId(keyspace.0.wrapping_add(1));
        prop_assert!(!keyspace_interval(neighbour).contains(&encoded));
        prop_assert_eq!(&intervals[0].start, &keyspace_interval(keyspace).start);
        prop_assert_eq!(&intervals[intervals.len() - 1].end, &keyspace_interval(keyspace).end);
        prop_assert!(intervals.windows(2).all(|pair| pair[0].end == pair[1].start));
        if let Some(bucket) = partitioning.bucket_of(&key) {
            prop_assert!(partition_interval(keyspace, bucket).contains(&encoded));
            prop_assert!(intervals[usize::from(bucket)].contains_interval(&partition_interval(keyspace, bucket)));
        }
    }

    #[test]
    fn the_end_of_a_prefix_is_the_first_key_after_it(prefix in key(), other in key()) {
        let end = prefix_end(&prefix);
        let before_end = end.is_empty() || other[..] < end[..];
        prop_assert_eq!(other.starts_with(&prefix), other >= prefix && before_end);
    }

    #[test]
    fn an_intersection_holds_what_both_hold(a in interval(), b in interval(), key in key()) {
        let both = a.intersect(&b);
        prop_assert_eq!(both.contains(&key), a.contains(&key) && b.contains(&key));
        prop_assert_eq!(both.is_empty(), b.intersect(&a).is_empty());
        prop_assert_eq!(a.overlaps(&b), !both.is_empty());
        if a.is_empty() {
            prop_assert!(!a.contains(&key));
        } else {
            prop_assert!(a.contains(&a.start));
        }
        if a.contains_interval(&b) && b.contains(&key) {
            prop_assert!(a.contains(&key));
        }
    }

    #[test]
    fn user_intervals_hold_the_user_keys_between(
        partitioning in partitioning(), start in key(), end in key(), key in key(),
    ) {
        let keyspace = KeyspaceId(9);
        let interval = user_interval(keyspace, partitioning.bucket_of(&key), &start, &end);
        let encoded = encode_key(keyspace, &partitioning, &key);
        let between = key >= start && (end.is_empty() || key < end);
        prop_assert_eq!(interval.contains(&encoded), between);
    }

    #[test]
    fn partitionings_round_trip(partitioning in partitioning()) {
        let text = partitioning.to_string();
        prop_assert_eq!(text.parse::<Partitioning>().unwrap(), partitioning);
    }

    #[test]
    fn intervals_round_trip_through_json(interval in interval()) {
        let json = serde_json::to_string(&interval).unwrap();
        prop_assert_eq!(serde_json::from_str::<KeyInterval>(&json).unwrap(), interval);
    }
}

#[test]
fn strange_partitionings_are_refused() {
    for text in [
        "",
        "hash",
        "hash()",
        "hash(0)",
        "hash(4097)",
        "hash(+1)",
        "hash(1",
        "Ordered",
        "hash(99999999)",
    ] {
        let error = text.parse::<Partitioning>().unwrap_err();
        assert!(error.to_string().contains("n from 1 to 4096"), "{error}");
    }
}

#[test]
fn what_is_no_encoded_key_is_not_decoded() {
    let hashed = Partitioning::Hash(16);
    assert_eq!(decode_key(&Partitioning::Ordered, b"abc"), None);
    assert_eq!(decode_key(&hashed, b"abcde"), None);
    let mut encoded = encode_key(KeyspaceId(1), &hashed, b"key").to_vec();
    encoded[5] ^= 1;
    assert_eq!(decode_key(&hashed, &encoded), None);
}

#[test]
fn keys_are_laid_out_as_documented() {
    let key = encode_key(KeyspaceId(0x0102_0304), &Partitioning::Ordered, b"key");
    assert_eq!(&key[..], b"\x01\x02\x03\x04key");
    let bucket = partition_interval(KeyspaceId(1), 0xff);
    assert_eq!(bucket.to_string(), "[0000000100ff, 000000010100)");
    assert_eq!(KeyInterval::all().to_string(), "[, ∞)");
    assert!(keyspace_interval(KeyspaceId(u32::MAX)).end.is_empty());
}

/// Stored keys carry buckets made by this hash. (Values from a second implementation.)
#[test]
fn the_hash_never_changes_between_versions() {
    let golden: [(&[u8], u64); 4] = [
        (b"", 0xf52a_15e9_a9b5_e89b),
        (b"a", 0x02c0_bdbf_4814_20f8),
        (b"quorate", 0xd35f_fb28_fc57_05fe),
        (&[0xff, 0x00], 0x061c_3e3f_101d_43dd),
    ];
    for (input, expected) in golden {
        assert_eq!(stable_hash(input), expected, "{input:?}");
        let longer = [input, &[0x5a]].concat();
        let both = (expected, stable_hash(&longer));
        assert_eq!(stable_hash_both(input, 0x5a), both, "{input:?}");
    }
    assert_eq!(Partitioning::Hash(16).bucket_of(b"quorate"), Some(14));
}

#[test]
fn buckets_fill_evenly() {
    const KEYS: u32 = 64_000;
    let partitioning = Partitioning::Hash(64);
    let mut counts = [0_u32; 64];
    for number in 0..KEYS {
        let key = format!("user/{number:08}");
        counts[usize::from(partitioning.bucket_of(key.as_bytes()).unwrap())] += 1;
    }
    // 1000 a bucket are due, with a standard deviation of 31.
    assert!(
        counts.iter().all(|count| (840..1160).contains(count)),
        "{counts:?}"
    );
}
