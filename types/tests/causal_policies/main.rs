//! Conflict policies over replicas that hear of each other late, twice and out of order:
//! counters count exactly, sets are add-wins, limits bind client writes by name.

#[path = "../causal_model/random.rs"]
mod random;

mod limits;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_types::causal::{Delta, Limits, RangeStore, Reading, Seen, Update, evaluate, plan};
use quorate_types::{Actor, ConflictPolicy, Dot, Timestamp};
use random::Random;

const KEY: Bytes = Bytes::from_static(b"key");
const NOW: Timestamp = Timestamp(1_000);
const CASES_DEFAULT: u64 = 1_000;
const STEPS: usize = 60;

fn cases() -> u64 {
    match std::env::var("QUORATE_SEEDS") {
        Ok(text) => text.parse().expect("QUORATE_SEEDS is a number"),
        Err(_) => CASES_DEFAULT,
    }
}

/// Three replicas, and every delta on its way to each of them.
struct Range {
    policy: ConflictPolicy,
    replicas: Vec<RangeStore>,
    network: Vec<(usize, Delta)>,
}

impl Range {
    fn new(policy: ConflictPolicy) -> Self {
        let replica = |disk| RangeStore::new(Actor { disk, start: 1 });
        Self {
            policy,
            replicas: [1, 2, 3].map(replica).into(),
            network: Vec::new(),
        }
    }

    /// A client's write at a replica that said nothing about what it had seen.
    fn write(&mut self, at: usize, update: &Update) -> Vec<Delta> {
        let store = &mut self.replicas[at];
        let asker = (Seen::Coordinator, store.actor(), None);
        let planned = plan(
            self.policy,
            &Limits::default(),
            &store.state(&KEY),
            asker,
            update,
        );
        let mut deltas = Vec::new();
        for planned in planned.expect("within the limits") {
            let delta = planned.delta(store.next_dot(), Timestamp(1), None);
            let _ = store.accept(&KEY, &delta);
            deltas.push(delta);
        }
        for delta in &deltas {
            let others = (0..self.replicas.len()).filter(|to| *to != at);
            self.network.extend(others.map(|to| (to, delta.clone())));
        }
        deltas
    }

    /// Something happens to what is on its way: a delivery, another copy, a repair.
    fn stir(&mut self, random: &mut Random) {
        let (from, to) = (random.below(3), random.below(3));
        match random.below(10) {
            0 => {
                let state = self.replicas[from].state(&KEY);
                let _ = self.replicas[to].join_key(&KEY, &state);
            }
            1 => {
                let image = self.replicas[from].image();
                self.replicas[to].join_range(&image);
            }
            2 => {
                let actor = self.replicas[to].actor();
                let next = Actor {
                    start: actor.start + 1,
                    ..actor
                };
                self.replicas[to] = RangeStore::filled(next, self.replicas[to].image());
            }
            _ if self.network.is_empty() => {}
            copy => {
                let (to, delta) = self.network.swap_remove(random.below(self.network.len()));
                let _ = self.replicas[to].accept(&KEY, &delta);
                if copy == 3 {
                    self.network.push((to, delta));
                }
            }
        }
    }

    /// All is delivered, in any order; what each replica shows then, all alike.
    fn end(&mut self, random: &mut Random) -> Reading {
        random.shuffle(&mut self.network);
        for (to, delta) in std::mem::take(&mut self.network) {
            let _ = self.replicas[to].accept(&KEY, &delta);
        }
        let first = self.replicas[0].image();
        assert!(self.replicas.iter().all(|replica| replica.image() == first));
        self.reading(0)
    }

    fn reading(&self, at: usize) -> Reading {
        evaluate(self.policy, &self.replicas[at].state(&KEY), NOW).expect("it evaluates")
    }
}

/// A sum names what it folded, and all that was folded before it: otherwise a late copy of an
/// early sum would be counted beside the last one, until repair.
#[test]
fn a_late_copy_of_an_early_sum_is_not_counted_beside_a_later_one() {
    let mut range = Range::new(ConflictPolicy::Counter);
    let sums: Vec<Delta> = (0..3)
        .flat_map(|_| range.write(0, &Update::Increment(1)))
        .collect();
    let _ = range.replicas[1].accept(&KEY, &sums[2]);
    let _ = range.replicas[1].accept(&KEY, &sums[0]);
    assert_eq!(range.reading(1), Reading::Counter(3));
}

/// A coordinator knows which sums of others are replaced. Named in its own increment, they would
/// go where what replaced them is still to come.
#[test]
fn an_increment_takes_no_sum_of_others_from_who_lacks_their_next_one() {
    let mut range = Range::new(ConflictPolicy::Counter);
    let first = range.write(0, &Update::Increment(100));
    let own = range.write(1, &Update::Increment(10));
    for delta in first.iter().chain(&own) {
        for to in 0..3 {
            let _ = range.replicas[to].accept(&KEY, delta);
        }
    }
    for delta in range.write(0, &Update::Increment(1_000)) {
        let _ = range.replicas[1].accept(&KEY, &delta);
    }
    for delta in range.write(1, &Update::Increment(1)) {
        let _ = range.replicas[2].accept(&KEY, &delta);
    }
    assert_eq!(range.reading(2), Reading::Counter(111));
}

#[test]
fn increments_count_exactly_once() {
    for seed in 0..cases() {
        let mut random = Random::new(seed);
        let mut range = Range::new(ConflictPolicy::Counter);
        let mut sum = 0;
        for _ in 0..STEPS {
            if random.unit() < 0.4 {
                let amount = random.below(100) as i64 - 30;
                range.write(random.below(3), &Update::Increment(amount));
                sum += amount;
            } else {
                range.stir(&mut random);
            }
        }
        let shown = match range.end(&mut random) {
            Reading::Counter(shown) => shown,
            Reading::Absent => 0,
            other => panic!("seed {seed}: {other:?}"),
        };
        assert_eq!(shown, sum, "seed {seed}");
        // One dot for each start of each writer, however many increments there were.
        let starts: u32 = range
            .replicas
            .iter()
            .map(|replica| replica.actor().start)
            .sum();
        assert!(range.replicas[0].record(&KEY).live().len() <= starts as usize);
    }
}

/// The set by its definition: an element is in it while there is an add of it that no later
/// add or remove of the element has seen.
#[derive(Default)]
struct ObservedRemove {
    adds: BTreeMap<Dot, Bytes>,
    removed: BTreeSet<Dot>,
}

#[test]
fn sets_keep_what_no_remove_has_seen() {
    for seed in 0..cases() {
        let mut random = Random::new(seed);
        let mut range = Range::new(ConflictPolicy::Set);
        let mut meant = ObservedRemove::default();
        for _ in 0..STEPS {
            let (at, element) = (
                random.below(3),
                Bytes::from(vec![b'a' + random.below(4) as u8]),
            );
            let action = random.unit();
            if action < 0.4 {
                // Both replace the adds of the element that the replica has; an add is one more.
                let live = range.replicas[at].record(&KEY);
                let seen = live.live().map(|(dot, _)| *dot);
                let seen = seen.filter(|dot| meant.adds.get(dot) == Some(&element));
                meant.removed.extend(seen);
                let adds = action < 0.25;
                let elements = vec![element.clone()];
                if adds {
                    let deltas = range.write(at, &Update::Add(elements));
                    meant.adds.insert(deltas[0].dot, element);
                } else {
                    range.write(at, &Update::Remove(elements));
                }
            } else {
                range.stir(&mut random);
            }
        }
        let left = meant
            .adds
            .iter()
            .filter(|(dot, _)| !meant.removed.contains(dot));
        let left: BTreeSet<Bytes> = left.map(|(_, element)| element.clone()).collect();
        match range.end(&mut random) {
            Reading::Set(shown) => assert_eq!(shown, left, "seed {seed}"),
            Reading::Absent => assert!(left.is_empty(), "seed {seed}"),
            other => panic!("seed {seed}: {other:?}"),
        }
    }
}

#[test]
fn writers_of_different_fields_do_not_meet() {
    for seed in 0..cases() {
        let mut random = Random::new(seed);
        let mut range = Range::new(ConflictPolicy::Map);
        let mut last: BTreeMap<usize, Bytes> = BTreeMap::new();
        for step in 0..STEPS {
            if random.unit() < 0.4 {
                // Each replica writes a field of its own, so no value has a rival.
                let at = random.below(3);
                let value = Bytes::from(step.to_string());
                let field = Bytes::from(at.to_string());
                range.write(
                    at,
                    &Update::Fields(vec![(field, Update::Put(value.clone()))]),
                );
                last.insert(at, value);
            } else {
                range.stir(&mut random);
            }
        }
        match range.end(&mut random) {
            Reading::Map(fields) => {
                assert_eq!(fields.len(), last.len(), "seed {seed}");
                for (at, value) in &last {
                    let field = &fields[at.to_string().as_bytes()];
                    assert_eq!(field.registers.len(), 1, "seed {seed}");
                    assert_eq!(field.registers[0].value, *value, "seed {seed}");
                }
            }
            Reading::Absent => assert!(last.is_empty(), "seed {seed}"),
            other => panic!("seed {seed}: {other:?}"),
        }
    }
}

#[test]
fn a_tie_of_timestamps_is_decided_by_the_actor() {
    let mut range = Range::new(ConflictPolicy::LastWriteWins);
    for at in [2, 0, 1] {
        range.write(at, &Update::Put(Bytes::from(format!("of {at}"))));
    }
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let mut other = Range {
            policy: range.policy,
            replicas: range.replicas.clone(),
            network: range.network.clone(),
        };
        match other.end(&mut random) {
            Reading::Latest { shown, others } => {
                assert_eq!(shown.value, "of 2");
                assert_eq!(others.len(), 2);
            }
            reading => panic!("{reading:?}"),
        }
    }
}

#[test]
fn an_expired_winner_gives_way_before_and_after_it_dies() {
    let mut store = RangeStore::new(Actor { disk: 1, start: 1 });
    let put = |counter, timestamp, expiry, value| Delta {
        dot: Dot::new(Actor { disk: 2, start: 1 }, counter),
        context: quorate_types::causal::Dots::new(),
        value: Some(Bytes::from_static(value)),
        timestamp: Timestamp(timestamp),
        expiry,
    };
    let _ = store.accept(&KEY, &put(1, 10, None, b"stays"));
    let _ = store.accept(&KEY, &put(2, 20, Some(Timestamp(100)), b"expires"));
    let shown = |store: &RangeStore, now| match evaluate(
        ConflictPolicy::LastWriteWins,
        &store.state(&KEY),
        Timestamp(now),
    ) {
        Ok(Reading::Latest { shown, .. }) => shown.value,
        other => panic!("{other:?}"),
    };
    assert_eq!(shown(&store, 99), "expires");
    assert_eq!(shown(&store, 100), "stays");
    store.expire(Timestamp(100));
    assert_eq!(shown(&store, 100), "stays");
}
