//! Joins: order and number do not matter, and deltas say as much as full states.

use bytes::Bytes;
use quorate_types::causal::{Delta, Dots, KeyState, RangeStore};
use quorate_types::{Actor, Dot, Timestamp};

use crate::for_all;
use crate::random::Random;

const KEYS: [&[u8]; 2] = [b"a", b"b"];
const DELTAS_MAX: usize = 10;

const fn actor(disk: u64) -> Actor {
    Actor { disk, start: 1 }
}

fn random_dot(random: &mut Random) -> Dot {
    Dot::new(
        actor(1 + random.below(3) as u64),
        1 + random.below(5) as u64,
    )
}

/// Writes with names of their own, and contexts of any dots: those of other keys, and some
/// that were never given out.
pub fn deltas(random: &mut Random) -> Vec<(Bytes, Delta)> {
    let mut all: Vec<(Bytes, Delta)> = Vec::new();
    for _ in 0..random.below(DELTAS_MAX + 1) {
        let dot = random_dot(random);
        if all.iter().any(|(_, other)| other.dot == dot) {
            continue;
        }
        let seen = (0..random.below(6)).map(|_| random_dot(random));
        let context: Dots = seen.filter(|seen| *seen != dot).collect();
        let value = (random.below(4) > 0).then(|| Bytes::from(dot.to_string()));
        let delta = Delta {
            dot,
            context,
            expiry: value
                .as_ref()
                .and_then(|_| (random.below(4) == 0).then_some(Timestamp(9))),
            value,
            timestamp: Timestamp(random.below(5) as u64),
        };
        all.push((Bytes::from_static(KEYS[random.below(KEYS.len())]), delta));
    }
    all
}

pub fn store_of<'a>(deltas: impl IntoIterator<Item = &'a (Bytes, Delta)>) -> RangeStore {
    let mut store = RangeStore::new(actor(9));
    for (key, delta) in deltas {
        let _ = store.accept(key, delta);
        assert_eq!(store.validate(), Ok(()));
    }
    store
}

fn some<T: Clone>(random: &mut Random, all: &[T]) -> Vec<T> {
    all.iter()
        .filter(|_| random.unit() < 0.5)
        .cloned()
        .collect()
}

fn joined(mut to: RangeStore, from: &RangeStore) -> RangeStore {
    to.join_range(&from.image());
    assert_eq!(to.validate(), Ok(()));
    to
}

#[test]
fn the_order_and_number_of_deltas_do_not_matter() {
    for_all(|random| {
        let all = deltas(random);
        let once = store_of(&all);
        let mut again = [all.clone(), some(random, &all)].concat();
        random.shuffle(&mut again);
        assert_eq!(store_of(&again).image(), once.image());
    });
}

#[test]
fn a_late_copy_is_no_news() {
    for_all(|random| {
        let all = deltas(random);
        let mut store = store_of(&all);
        let before = store.image();
        for (key, delta) in &all {
            assert!(!store.accept(key, delta).is_news());
        }
        assert_eq!(store.image(), before);
    });
}

#[test]
fn joining_ranges_is_commutative_associative_and_idempotent() {
    for_all(|random| {
        let all = deltas(random);
        let [a, b, c] = [0; 3].map(|_| store_of(&some(random, &all)));
        let ab = joined(a.clone(), &b);
        assert_eq!(ab.image(), joined(b.clone(), &a).image());
        assert_eq!(
            joined(ab.clone(), &c).image(),
            joined(a.clone(), &joined(b, &c)).image()
        );
        assert_eq!(joined(a.clone(), &a).image(), a.image());
        assert_eq!(joined(ab.clone(), &a).image(), ab.image());
    });
}

#[test]
fn deltas_say_as_much_as_full_states() {
    for_all(|random| {
        let all = deltas(random);
        let (some_of, others) = (some(random, &all), some(random, &all));
        let by_states = joined(store_of(&some_of), &store_of(&others));
        let by_deltas = store_of(some_of.iter().chain(&others));
        assert_eq!(by_states.image(), by_deltas.image());
    });
}

#[test]
fn a_repair_of_one_key_shows_what_a_repair_of_the_range_shows() {
    for_all(|random| {
        let all = deltas(random);
        let (a, b) = (store_of(&some(random, &all)), store_of(&some(random, &all)));
        let whole = joined(a.clone(), &b);
        let mut pieces = a;
        for key in KEYS {
            let _ = pieces.join_key(&Bytes::from_static(key), &b.state(key));
            assert!(pieces.record(key).live().eq(whole.record(key).live()));
        }
        assert_eq!(pieces.validate(), Ok(()));
        pieces.merge_clock(b.clock());
        assert_eq!(pieces.image(), whole.image());
    });
}

#[test]
fn what_readers_join_is_what_replicas_join() {
    for_all(|random| {
        let all = deltas(random);
        let [a, b, c] = [0; 3].map(|_| store_of(&some(random, &all)));
        for key in KEYS {
            let [x, y, z] = [&a, &b, &c].map(|store| store.state(key));
            let join = |left: &KeyState, right: &KeyState| {
                let mut both = left.clone();
                both.join(right);
                both
            };
            assert_eq!(join(&x, &y), join(&y, &x));
            assert_eq!(join(&join(&x, &y), &z), join(&x, &join(&y, &z)));
            assert_eq!(join(&x, &x), x);
            let replicas = joined(a.clone(), &b);
            assert!(join(&x, &y).live().eq(replicas.record(key).live()));
        }
    });
}

#[test]
fn what_one_holder_shows_of_a_write_is_its_delta() {
    for_all(|random| {
        let all = deltas(random);
        let base = store_of(&some(random, &all));
        for (key, delta) in &all {
            let (mut by_delta, mut by_state) = (base.clone(), base.clone());
            let _ = by_delta.accept(key, delta);
            let _ = by_state.join_key(key, &delta.state());
            assert!(by_delta.record(key).live().eq(by_state.record(key).live()));
        }
    });
}
