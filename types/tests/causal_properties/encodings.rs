//! Encodings: each value has one, and no other bytes are taken for one.

use std::fmt::Debug;

use bytes::Bytes;
use quorate_types::causal::{
    Binding, Clock, Context, ContextError, DecodeError, Delta, Dots, KeyState, Part, Record,
};
use quorate_types::{Actor, Dot};

use crate::for_all;
use crate::joins::{deltas, store_of};
use crate::random::Random;

const BINDING: Binding<'_> = Binding {
    cluster: b"cluster",
    keyspace: b"keyspace",
    key: b"key",
};

/// Numbers of all lengths.
fn wide(random: &mut Random) -> u64 {
    random.next() >> random.below(64)
}

fn wide_dots(random: &mut Random) -> Dots {
    let mut clock = Clock::default();
    for _ in 0..random.below(3) {
        clock.close(random.below(3) as u64, wide(random) as u32);
    }
    let mut dots = clock.dots().clone();
    for _ in 0..random.below(6) {
        let disk = if random.below(2) == 0 {
            random.below(3) as u64
        } else {
            wide(random)
        };
        let start = if random.below(2) == 0 {
            random.below(3) as u32
        } else {
            wide(random) as u32
        };
        let first = wide(random).max(1);
        for counter in first..first.saturating_add(random.below(3) as u64) {
            dots.insert(Dot::new(Actor { disk, start }, counter));
        }
    }
    dots
}

/// Round trip, every cut, and a few changed bytes: whatever is taken is what would be
/// written, so no two inputs mean the same.
fn check_encoding<T: Debug + PartialEq>(
    random: &mut Random,
    value: &T,
    encode: impl Fn(&T) -> Bytes,
    decode: impl Fn(&Bytes) -> Result<T, DecodeError>,
) {
    let encoded = encode(value);
    assert_eq!(decode(&encoded).as_ref(), Ok(value));
    let at = random.below(encoded.len());
    assert!(decode(&encoded.slice(..at)).is_err(), "cut at {at}");
    let longer = [&encoded[..], &[0]].concat();
    assert!(decode(&Bytes::from(longer)).is_err());
    let mut changed = encoded.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(changed.len());
        changed[at] = random.next() as u8;
    }
    let changed = Bytes::from(changed);
    if let Ok(other) = decode(&changed) {
        assert_eq!(encode(&other), changed);
    }
    let mut other_version = encoded.to_vec();
    other_version[0] ^= 0x80;
    let refused = decode(&Bytes::from(other_version));
    assert!(matches!(refused, Err(DecodeError::Version { .. })));
}

#[test]
fn clocks_are_read_as_written() {
    for_all(|random| {
        let clock = Clock::of(wide_dots(random));
        check_encoding(random, &clock, Clock::encode, Clock::decode);
    });
}

#[test]
fn deltas_are_read_as_written() {
    for_all(|random| {
        for (_, mut delta) in deltas(random) {
            delta.context = wide_dots(random);
            check_encoding(random, &delta, Delta::encode, Delta::decode);
        }
    });
}

#[test]
fn records_and_states_are_read_as_written() {
    for_all(|random| {
        let store = store_of(&deltas(random));
        for key in [b"a", b"b"] {
            let record = store.record(key);
            check_encoding(random, &record, Record::encode, Record::decode);
            check_encoding(
                random,
                &store.state(key),
                KeyState::encode,
                KeyState::decode,
            );
        }
    });
}

#[test]
fn noise_is_refused_or_written_back_alike() {
    for_all(|random| {
        let mut noise: Vec<u8> = (0..random.below(40)).map(|_| random.next() as u8).collect();
        if let Some(first) = noise.first_mut() {
            *first = 1;
        }
        let noise = Bytes::from(noise);
        if let Ok(clock) = Clock::decode(&noise) {
            assert_eq!(clock.encode(), noise);
        }
        if let Ok(record) = Record::decode(&noise) {
            assert_eq!(record.encode(), noise);
        }
        if let Ok(delta) = Delta::decode(&noise) {
            assert_eq!(delta.encode(), noise);
        }
        if let Ok(state) = KeyState::decode(&noise) {
            assert_eq!(state.encode(), noise);
        }
        if let Ok(part) = Part::decode(&noise) {
            assert_eq!(part.encode(), noise);
        }
        assert!(Context(noise).open(&BINDING).is_err());
    });
}

#[test]
fn a_claim_of_a_huge_set_takes_no_memory() {
    // A count of 2^63 disks, actors, intervals, live values, in a few bytes.
    let huge = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
    for prefix in [&[1][..], &[1, 1, 7, 0], &[1, 1, 7, 0, 1, 0, 0], &[1, 0]] {
        let hostile = Bytes::from([prefix, &huge].concat());
        assert!(Clock::decode(&hostile).is_err());
        assert!(Record::decode(&hostile).is_err());
        assert!(KeyState::decode(&hostile).is_err());
    }
}

#[test]
fn contexts_are_opened_as_sealed() {
    for_all(|random| {
        let seen = wide_dots(random);
        let context = Context::seal(&seen, &BINDING);
        assert_eq!(context.open(&BINDING), Ok(seen));
        let at = random.below(context.0.len());
        let cut = Context(context.0.slice(..at)).open(&BINDING);
        assert!(
            matches!(cut, Err(ContextError::Truncated { .. })),
            "{cut:?}"
        );
        let mut forged = context.0.to_vec();
        forged[at] ^= 1 << random.below(8);
        let refused = Context(Bytes::from(forged)).open(&BINDING);
        assert!(refused.is_err(), "changed at {at}");
    });
}

#[test]
fn parts_are_read_as_written() {
    for_all(|random| {
        let bytes = Bytes::from(wide(random).to_be_bytes().to_vec());
        let mut part = match random.below(4) {
            0 => Part::Amount(random.next() as i64),
            1 => Part::Element(bytes),
            2 => Part::Register(bytes),
            _ => Part::Latest(bytes),
        };
        for _ in 0..random.below(8) {
            part = Part::Field(Bytes::from_static(b"field"), Box::new(part));
        }
        assert_eq!(Part::decode(&part.encode()), Ok(part));
    });
}
